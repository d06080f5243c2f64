//! Folded stacks and the flame graph: nothing is lost, nothing deceives, whatever the names.

#![allow(clippy::unwrap_used, reason = "tests")]

mod output_support;

use memtrail::output::{Value, folded, json, svg};
use memtrail::report::{Cgroup, KindRow, Report};
use output_support::*;
use std::collections::BTreeMap;

fn lines(report: &Report, value: Value) -> Vec<String> {
    let mut bytes = Vec::new();
    folded::write(report, value, &mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

/// Sum of the lines that have a process.
fn sum(lines: &[String]) -> u64 {
    let beside = |line: &&String| matches!(line.split(';').nth(1), Some("[before start]" | "[unattributed]"));
    lines.iter().filter(|line| !beside(line)).map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

fn json_total(report: &Report, field: &str) -> u64 {
    let mut bytes = Vec::new();
    json::write(report, &mut bytes).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let cgroups = json["cgroups"].as_array().unwrap();
    cgroups.iter().flat_map(|cgroup| cgroup["stacks"].as_array().unwrap()).map(|row| row[field].as_u64().unwrap()).sum()
}

fn of(stacks: Vec<memtrail::report::StackRow>) -> Report {
    Report { cgroups: vec![Cgroup { path: "/a".into(), stacks, ..Cgroup::default() }], ..empty_report() }
}

#[test]
fn a_report_folds_as_documented() {
    let web = "/kubepods.slice/kubepods-pod6b21.slice/cri-containerd-ea88.scope";
    let mut expected = vec![
        format!("{web};[before start];[anon] {GIB}"),
        format!("{web};[before start];[file] {}", 12 * MIB),
        format!("{web};[unattributed];[anon] {}", 100 * MIB),
        format!("{web};[unattributed];[file] {}", 2 * MIB),
        format!("{web};java;[cut: no frame pointers];[libjvm.so+0x8e12f0];[anon java-heap] {}", 5 * GIB),
        format!("{web};java;_start;main;Log::write;write;ksys_write_[k];[file] {}", 398 * MIB),
        format!(
            "{web};java;start_thread;thread_native_entry;JavaThread::run;Unsafe_AllocateMemory0(JNIEnv_*, _jobject*, long);\
             os::malloc(unsigned long, MEMFLAGS, NativeCallStack const&);__libc_malloc;sysmalloc;asm_exc_page_fault_[k];handle_mm_fault_[k];\
             [anon glibc-arena] {}",
            9 * GIB
        ),
        format!("{web};sh;[anon other] {}", 2 * MIB),
    ];
    expected.sort_unstable();
    assert_eq!(lines(&one_container(), Value::Live), expected);
}

#[test]
fn frames_are_escaped_and_never_dropped() {
    let report = of(vec![
        stack("anon", "", "a;b", "complete", &["f;g", "x\ny", "", "[lib;so+0x10]"], 1),
        stack("shmem", "other", "[before start]", "none", &[], 2),
        stack("hugetlb", "other", "[unattributed]", "cut: a;b\n", &["[cut: a:b\\x0a]", "f"], 3),
        stack("anon", "heap", "zero", "none", &[], 0),
    ]);
    assert_eq!(
        lines(&report, Value::Live),
        [
            r"/a;\x5bbefore start];[shmem] 2",
            r"/a;\x5bunattributed];[cut: a:b\x0a];f;[hugetlb] 3",
            r"/a;a:b;f:g;x\x0ay;[unknown];[lib:so+0x10];[anon other] 1",
        ]
    );
}

#[test]
fn equal_lines_merge_and_negative_leftovers_have_no_line() {
    let mut report = of(vec![stack("file", "", "c", "complete", &["f"], 5), stack("file", "x", "c", "complete", &["f"], 7)]);
    let negative = KindRow { unattributed: Some(-9), baseline: Some(0), ..KindRow::default() };
    report.cgroups[0].kinds = BTreeMap::from([("file".to_owned(), negative)]);
    report.cgroups.push(report.cgroups[0].clone());
    assert_eq!(lines(&report, Value::Live), ["/a;c;f;[file] 24"]);
}

#[test]
fn charged_bytes_stand_without_the_live_picture() {
    let lines = lines(&one_container(), Value::Charged);
    assert_eq!(lines.len(), 4);
    assert_eq!(sum(&lines), json_total(&one_container(), "charged"));
}

#[test]
fn the_sum_equals_the_json_to_the_byte_for_hostile_names() {
    for seed in 0..400 {
        let report = hostile_report(&mut Random::new(seed));
        let lines = lines(&report, Value::Live);
        assert_eq!(sum(&lines), json_total(&report, "live"), "seed {seed}");
        assert!(lines.is_sorted(), "seed {seed}");
        for line in &lines {
            assert!(!line.chars().any(char::is_control), "seed {seed}: {line:?}");
            assert!(line.split(';').count() >= 3 && line.split(';').all(|frame| !frame.is_empty()), "seed {seed}: {line:?}");
            assert_eq!(line.trim(), line);
            assert!(!line.ends_with(" 0"), "seed {seed}: {line:?}");
        }
        let mut stacks: Vec<&str> = lines.iter().map(|line| line.rsplit_once(' ').unwrap().0).collect();
        stacks.dedup();
        assert_eq!(stacks.len(), lines.len(), "seed {seed}: equal stacks are merged");
    }
}

#[test]
fn the_sum_equals_the_json_where_stacks_are_shortened() {
    let mut random = Random::new(7);
    let stacks = (0..1000).map(|n| stack("anon", "heap", "c", "complete", &[&format!("f{n}")], random.next() % GIB)).collect();
    let report = of(stacks);
    assert_eq!(sum(&lines(&report, Value::Live)), json_total(&report, "live"));
}

fn draw(report: &Report) -> String {
    let mut bytes = Vec::new();
    svg::write(report, Value::Live, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn parse(svg: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    roxmltree::Document::parse_with_options(svg, options).unwrap()
}

fn titles(document: &roxmltree::Document<'_>) -> Vec<String> {
    document.descendants().filter(|node| node.has_tag_name("title")).filter_map(|node| node.text()).map(str::to_owned).collect()
}

#[test]
fn the_flame_graph_holds_every_wide_frame() {
    let svg = draw(&one_container());
    let document = parse(&svg);
    let titles = titles(&document);
    for start in [
        "JavaThread::run (",
        "os::malloc(unsigned long, MEMFLAGS, NativeCallStack const&) (",
        "[cut: no frame pointers] (",
        "[before start] (",
    ] {
        assert!(titles.iter().any(|title| title.starts_with(start)), "{start} in {titles:?}");
    }
    assert!(titles.iter().any(|title| title.starts_with("sysmalloc (9,663,676,416 bytes, ")), "{titles:?}");
    let root = document.root_element();
    assert_eq!(root.attribute("width"), Some("1200"));
    assert_eq!(root.attribute("viewBox"), Some(format!("0 0 1200 {}", root.attribute("height").unwrap()).as_str()));
    let legend = document.descendants().find(|node| node.attribute("id") == Some("legend")).unwrap();
    let words: Vec<&str> = legend.descendants().filter(|node| node.has_tag_name("text")).filter_map(|node| node.text()).collect();
    assert_eq!(
        words,
        [
            "anon",
            "file",
            "shmem",
            "hugetlb",
            "several kinds",
            "managed code",
            "kernel code",
            "cut stack",
            "no stack",
            "2 too narrow to draw"
        ]
    );
    assert!(svg.contains("id=\"search\""));
    assert!(svg.contains("2 min 20 s") && svg.contains("6.1.0-28-amd64"));
}

#[test]
fn frames_take_the_colour_of_their_kind() {
    let report = of(vec![
        stack("anon", "heap", "both", "complete", &["only_anon"], 100),
        stack("file", "", "both", "cut: why", &["only_file", "sys_[k]"], 100),
        stack("file", "", "alone", "complete", &["two_places"], 100),
        stack("anon", "heap", "alone", "complete", &["then", "two_places"], 100),
    ]);
    let svg = draw(&report);
    let document = parse(&svg);
    let fill = |start: &str| {
        let title =
            document.descendants().find(|node| node.has_tag_name("title") && node.text().is_some_and(|text| text.starts_with(start)));
        let group = title.unwrap().parent().unwrap();
        group.children().find(|node| node.has_tag_name("rect")).unwrap().attribute("fill").unwrap().to_owned()
    };
    let all = ["only_anon (", "only_file (", "both (", "sys (", "[cut: why] (", "[anon heap] (", "[file] ("].map(fill);
    for (index, color) in all.iter().enumerate() {
        assert!(!all[..index].contains(color), "{all:?}");
    }
    let twice = document
        .descendants()
        .filter(|node| node.text().is_some_and(|text| node.has_tag_name("title") && text.starts_with("two_places (")));
    let fills: Vec<_> = twice.map(|node| node.next_sibling_element().unwrap().attribute("fill").unwrap().to_owned()).collect();
    assert!(fills.len() == 2 && fills[0] != fills[1], "one name takes the kind of its place: {fills:?}");
    assert!(!svg.contains("rgb(1,2,"));
    assert_eq!(draw(&report), svg, "the picture does not change between runs");
}

#[test]
fn stacks_too_narrow_to_draw_are_counted() {
    let report = of(vec![
        stack("anon", "heap", "c", "complete", &["wide"], 1_000_000),
        stack("anon", "heap", "c", "complete", &["thin"], 399),
        stack("anon", "heap", "c", "complete", &["seen"], 500),
    ]);
    let svg = draw(&report);
    assert!(svg.contains(">1 too narrow to draw<") && svg.contains("seen (500 bytes") && !svg.contains("thin ("));
    let wide = of(vec![stack("anon", "heap", "c", "complete", &["wide"], 1)]);
    assert!(!draw(&wide).contains("too narrow"));
}

#[test]
fn hostile_names_stay_well_formed_xml() {
    for seed in 0..100 {
        let report = hostile_report(&mut Random::new(seed));
        let svg = draw(&report);
        let document = parse(&svg);
        let total: u64 = folded::stacks(&report, Value::Live).values().sum();
        if total > 0 {
            let drawn = document.descendants().find_map(|node| node.attribute("total_samples")).unwrap();
            assert_eq!(drawn, total.to_string(), "seed {seed}: no line is ignored");
        }
        assert_eq!(document.descendants().filter(|node| node.has_tag_name("script")).count(), usize::from(total > 0));
    }
}

#[test]
fn a_report_without_bytes_gives_a_picture_that_says_so() {
    let svg = draw(&empty_report());
    let texts: Vec<String> = parse(&svg).descendants().filter_map(|node| node.text().map(str::to_owned)).collect();
    assert!(texts.iter().any(|text| text.contains("No bytes to show")));
}

#[test]
fn a_forged_report_is_an_error_not_a_panic() {
    let report = of(vec![stack("anon", "", "a", "complete", &["f"], u64::MAX), stack("file", "", "a", "complete", &["g"], u64::MAX)]);
    assert!(svg::write(&report, Value::Live, Vec::new()).is_err());
    assert_eq!(lines(&report, Value::Live).len(), 2);
    let _ = json::shortened(&report);
}

#[test]
fn no_line_looks_like_a_comment_or_loses_its_first_space() {
    let mut report = of(vec![stack("file", "", "c", "none", &[], 1)]);
    report.cgroups[0].path = "# a".into();
    assert_eq!(lines(&report, Value::Live), [r"\x23 a;c;[file] 1"]);
    report.cgroups[0].path = " a".into();
    assert_eq!(lines(&report, Value::Live), [r"\x20a;c;[file] 1"]);
}

#[test]
fn live_bytes_split_by_thread_and_none_is_lost() {
    let mut report = of(vec![
        stack("anon", "heap", "java", "complete", &["f"], 101),
        stack("anon", "heap", "a;b", "cut: why", &["g"], 2),
        stack("file", "other", "gone", "none", &[], 0),
    ]);
    report.cgroups[0].stacks[2].threads = None;
    let split = memtrail::output::threads::split(&report).unwrap();
    assert_eq!(
        lines(&split, Value::Live),
        [
            "/a;GC Thread#0/4712;[cut: why];g;[anon heap] 1",
            "/a;GC Thread#0/4712;f;[anon heap] 50",
            "/a;a:b/?;[cut: why];g;[anon heap] 1",
            "/a;java/4711;f;[anon heap] 25",
            "/a;java/?;f;[anon heap] 26",
        ]
    );
    assert_eq!(sum(&lines(&split, Value::Live)), sum(&lines(&report, Value::Live)));
    assert_eq!(lines(&split, Value::Charged), [""; 0], "a thread's charged bytes are not known");
    report.cgroups[0].stacks[0].threads = None;
    assert!(memtrail::output::threads::split(&report).unwrap_err().to_string().contains("older memtrail"));
}
