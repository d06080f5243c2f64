//! Differences as text, JSON, two columns and picture.

#![allow(clippy::unwrap_used, reason = "tests")]

mod output_support;

use memtrail::output::diff::{Diff, Options, Shown};
use memtrail::output::{Value, write_diff};
use memtrail::report::{Cgroup, FileRow, KindRow, RegionRow, Report, Sampling, StackRow};
use output_support::*;
use std::collections::BTreeMap;
use std::path::Path;

fn row(comm: &str, frame: &str, live: u64) -> StackRow {
    StackRow { live_stderr: live / 10, ..stack("anon", "heap", comm, "complete", &["main", frame], live) }
}

fn of(stacks: Vec<StackRow>, kernel: u64) -> Report {
    let live: u64 = stacks.iter().map(|row| row.live).sum();
    let anon = KindRow { live_stderr: Some(live / 20), ..kind(live + MIB, MIB, live) };
    let kinds = BTreeMap::from([("anon".to_owned(), anon), ("kernel".to_owned(), counter(kernel))]);
    let cgroups = vec![Cgroup { path: "/pods/a".into(), kinds, stacks, ..Cgroup::default() }];
    Report { sampling: Sampling { mode: "sampled".into(), mean_bytes: MIB, samples: 9 }, cgroups, ..empty_report() }
}

fn sides() -> [Report; 2] {
    let before = of(
        vec![row("java", "same", 40 * MIB), row("java", "leak", 30 * MIB), row("java", "noise", 9 * MIB), row("sh", "gone", 5 * MIB)],
        61 * MIB,
    );
    let mut after = of(vec![row("java", "same", 40 * MIB), row("java", "leak", 94 * MIB), row("java", "noise", 10 * MIB)], 64 * MIB);
    after.cgroups[0].stacks[1].status = "complete".into();
    [before, after]
}

fn diff<'a>(sides: &'a [Report; 2], options: Options) -> Diff<'a> {
    Diff::new(["a.mtrail".into(), "b\x1b.mtrail".into()], &sides[0], &sides[1], options)
}

#[test]
fn the_text_names_what_grew_and_counts_the_rest() {
    let sides = sides();
    assert_golden("diff.txt", &diff(&sides, Options::default()).text(Shown::default()));
    let all = diff(&sides, Options::default()).text(Shown { all: true, top: None });
    assert!(all.contains("+1.0 MiB ± 1.3 MiB (inside the error)  anon heap  java") && !all.contains("not shown"), "{all}");
    let one = diff(&sides, Options::default()).text(Shown { all: false, top: Some(1) });
    assert!(one.contains("\n1 more stack not shown: --top\n1 change inside"), "{one}");
    let scaled = diff(&sides, Options { normalize: true, ..Options::default() }).text(Shown::default());
    assert!(scaled.contains("before is scaled by 1.000"), "{scaled}");
}

#[test]
fn a_recording_compared_with_itself_says_so() {
    let [before, _] = sides();
    let same = [before.clone(), before];
    let text = diff(&same, Options::default()).text(Shown { all: true, top: None });
    assert!(text.contains("0 B live in all") && text.ends_with("\nno stack changed\n") && !text.contains("CGROUP"), "{text}");
    let noise = [of(vec![row("java", "f", 90 * MIB)], 0), of(vec![row("java", "f", 91 * MIB)], 0)];
    let text = diff(&noise, Options::default()).text(Shown::default());
    assert!(
        text.contains("no stack changed by more than the sampling error\n1 change inside the sampling error, of at most 1.0 MiB"),
        "{text}"
    );
}

fn folded(diff: &Diff<'_>) -> Vec<String> {
    let mut bytes = Vec::new();
    diff.folded(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn two_columns_hold_every_stack_of_both_sides() {
    let sides = sides();
    assert_eq!(
        folded(&diff(&sides, Options::default())),
        [
            format!("/pods/a;java;main;leak;[anon heap] {} {}", 30 * MIB, 94 * MIB),
            format!("/pods/a;java;main;noise;[anon heap] {} {}", 9 * MIB, 10 * MIB),
            format!("/pods/a;java;main;same;[anon heap] {} {}", 40 * MIB, 40 * MIB),
            format!("/pods/a;sh;main;gone;[anon heap] {} 0", 5 * MIB),
        ]
    );
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let sides = [hostile_report(&mut random), hostile_report(&mut random)];
        let lines = folded(&diff(&sides, Options::default()));
        let column =
            |column: usize| -> u64 { lines.iter().map(|line| line.rsplitn(3, ' ').nth(1 - column).unwrap().parse::<u64>().unwrap()).sum() };
        let live = |report: &Report| report.cgroups.iter().flat_map(|cgroup| &cgroup.stacks).map(|row| row.live).sum::<u64>();
        assert_eq!([column(0), column(1)], [live(&sides[0]), live(&sides[1])], "seed {seed}");
        assert!(lines.is_sorted() && lines.iter().all(|line| !line.chars().any(char::is_control)), "seed {seed}");
    }
}

fn svg(diff: &Diff<'_>) -> String {
    let mut bytes = Vec::new();
    diff.svg(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Title and colour of the frame of that name.
fn frame(document: &roxmltree::Document<'_>, name: &str) -> (String, (u8, u8, u8)) {
    let is_title = |node: &roxmltree::Node<'_, '_>| node.has_tag_name("title") && node.text().is_some_and(|text| text.starts_with(name));
    let title = document.descendants().find(is_title).unwrap();
    let fill = title.parent().unwrap().children().find(|node| node.has_tag_name("rect")).unwrap().attribute("fill").unwrap();
    let parts: Vec<u8> = fill.trim_start_matches("rgb(").trim_end_matches(')').split(',').map(|part| part.parse().unwrap()).collect();
    (title.text().unwrap().to_owned(), (parts[0], parts[1], parts[2]))
}

#[test]
fn the_picture_is_red_where_it_grew_and_blue_where_it_shrank() {
    let sides = [
        of(
            vec![row("java", "same", 40 * MIB), row("java", "leak", 30 * MIB), row("java", "less", 60 * MIB), row("sh", "gone", 5 * MIB)],
            0,
        ),
        of(vec![row("java", "same", 40 * MIB), row("java", "leak", 94 * MIB), row("java", "less", 20 * MIB)], 0),
    ];
    let text = svg(&diff(&sides, Options::default()));
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let document = roxmltree::Document::parse_with_options(&text, options).unwrap();
    let [leak, less, same, main, all] = ["leak (", "less (", "same (", "main (", "all ("].map(|name| frame(&document, name));
    assert!(leak.1.0 > leak.1.2 && leak.0.ends_with("; +64.0 MiB)"), "{leak:?}");
    assert!(less.1.2 > less.1.0 && less.0.ends_with("; -40.0 MiB)"), "{less:?}");
    assert!(same.1 == (250, 250, 250) && same.0.ends_with("; 0 B)"), "{same:?}");
    // What is gone counts above it: 24 MiB grew below java, 5 MiB less in all.
    assert!(main.0.ends_with("; +24.0 MiB)") && all.0.ends_with("; +19.0 MiB)"), "{main:?} {all:?}");
    assert!(leak.1.1 < main.1.1 && main.1.1 < all.1.1, "the stronger the larger: {leak:?} {main:?} {all:?}");
    assert!(!text.contains("rgb(1,2,3)"));
    assert!(text.contains("5.0 MiB in stacks that are gone has no width"));
    assert!(!text.contains('\x1b'));
    let gone = [sides[0].clone(), of(vec![], 0)];
    assert!(svg(&diff(&gone, Options::default())).contains("No bytes to show"));
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let sides = [hostile_report(&mut random), hostile_report(&mut random)];
        let text = svg(&diff(&sides, Options::default()));
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
        roxmltree::Document::parse_with_options(&text, options).unwrap();
    }
}

#[test]
fn json_holds_every_change_with_its_error() {
    let sides = sides();
    let mut bytes = Vec::new();
    diff(&sides, Options { value: Value::Live, ..Options::default() }).json(&mut bytes).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((json["value"].as_str(), json["scale"].is_null(), json["before"]["name"].as_str()), (Some("live"), true, Some("a.mtrail")));
    let stacks = json["stacks"].as_array().unwrap();
    assert_eq!(stacks.len(), 3, "what did not change is left out");
    assert_eq!((stacks[0]["change"].as_i64(), stacks[0]["beyond_error"].as_bool()), (Some(64 * MIB as i64), Some(true)));
    assert_eq!((stacks[2]["change"].as_i64(), stacks[2]["beyond_error"].as_bool()), (Some(MIB as i64), Some(false)));
    assert_eq!(stacks[0]["frames"][1], "leak");
    let kinds = json["kinds"].as_array().unwrap();
    assert_eq!((kinds[1]["kind"].as_str(), kinds[1]["stat_after"].as_u64()), (Some("kernel"), Some(64 * MIB)));
}

#[test]
fn files_are_written_by_their_ending_and_profiles_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let sides = sides();
    let diff = diff(&sides, Options::default());
    for name in ["d.folded", "d.svg", "d.json"] {
        write_diff(&directory.path().join(name), &diff).unwrap();
    }
    assert_eq!(std::fs::read_to_string(directory.path().join("d.folded")).unwrap().lines().count(), 4);
    for name in ["d.pb.gz", "d.mtrail"] {
        let error = write_diff(&directory.path().join(name), &diff).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(".svg"), "{error}");
    }
    assert!(write_diff(Path::new("d.txt"), &diff).unwrap_err().to_string().contains("unknown ending"));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[test]
fn files_and_regions_that_grew_are_named() {
    let mut sides = sides();
    let region =
        |class: &str, live| RegionRow { class: class.into(), comm: "java".into(), live, live_stderr: live / 20, ..RegionRow::default() };
    let log = |live| FileRow { live_stderr: live / 20, ..file("/var/log/a\n.log", 7, live) };
    sides[0].cgroups[0].files = vec![log(4 * MIB), file("/same", 8, 5 * MIB), file("[other]", 0, 9 * MIB)];
    sides[1].cgroups[0].files = vec![log(68 * MIB), file("/same", 8, 5 * MIB)];
    sides[0].cgroups[0].regions = vec![region("glibc-arena", 10 * MIB), region("thread-stack", MIB)];
    sides[1].cgroups[0].regions = vec![region("glibc-arena", 40 * MIB), region("glibc-arena", 34 * MIB), region("thread-stack", MIB)];
    let compared = diff(&sides, Options::default());
    let text = compared.text(Shown::default());
    assert!(text.contains("+64.0 MiB ± 3.4 MiB  file  /var/log/a\\x0a.log  /pods/a\n"), "{text}");
    assert!(text.contains("+64.0 MiB ± 2.7 MiB  glibc-arena  java  /pods/a\n"), "{text}");
    assert!(!text.contains("/same") && !text.contains("thread-stack") && !text.contains("[other]"), "{text}");
    let mut json = Vec::new();
    compared.json(&mut json).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((json["files"][0]["path"].as_str(), json["files"][0]["change"].as_u64()), (Some("/var/log/a\n.log"), Some(64 * MIB)));
    assert_eq!((json["regions"].as_array().unwrap().len(), json["regions"][0]["after"].as_u64()), (1, Some(74 * MIB)));
    // Charged bytes have neither file nor region.
    let charged = diff(&sides, Options { value: Value::Charged, ..Options::default() });
    assert!(!charged.text(Shown::default()).contains("FILE"));
}
