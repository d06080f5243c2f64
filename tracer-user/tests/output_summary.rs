//! The terminal summary and the views, as a reader sees them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod output_support;

use memtrail::output::summary::{self, Options};
use memtrail::output::{selection::Selection, views};
use memtrail::report::{Cgroup, KindRow, RegionRow, Report, Step, Surveyed, Trend};
use memtrail::text::glob::Glob;
use memtrail::text::width;
use memtrail::{
    analyse::figures,
    output::{Value, regions},
};
use output_support::*;
use std::collections::BTreeMap;

fn plain(report: &Report) -> String {
    summary::render(report, Options::default())
}

fn assert_fits(text: &str) {
    assert!(text.lines().count() <= 40, "{} lines", text.lines().count());
    for line in text.lines() {
        assert!(width(line) <= 80, "{} columns: {line}", width(line));
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn one_container_near_its_limit() {
    let text = plain(&one_container());
    assert_fits(&text);
    assert!(text.starts_with("cart-7/web 15.9 of 16.0 GiB (99 %), +41 MiB/min, limit in 3 min 1 s\n"), "{text}");
    assert_golden("summary-one-container.txt", &text);
}

#[test]
fn a_host_with_300_cgroups() {
    let text = plain(&busy_host());
    assert_fits(&text);
    assert_golden("summary-busy-host.txt", &text);
}

#[test]
fn nothing_measured() {
    let text = plain(&empty_report());
    assert_fits(&text);
    assert!(!text.contains(" 0"), "unknown is not zero: {text}");
    assert_golden("summary-nothing.txt", &text);
}

#[test]
fn unknown_figures_are_never_zero() {
    let mut report = empty_report();
    report.cgroups =
        vec![Cgroup { path: "/a".into(), kinds: BTreeMap::from([("anon".to_owned(), KindRow::default())]), ..Cgroup::default() }];
    let text = plain(&report);
    assert!(text.starts_with("/a usage unknown, growth unknown\n  anon ?\n"), "{text}");
    assert!(text.ends_with("attributed unknown · stacks complete unknown · losses unknown · cost ? CPU, ? MB\n"), "{text}");
}

#[test]
fn the_largest_own_memory_leads_and_ancestors_give_the_limit() {
    let mut report = empty_report();
    let cgroup = |path: &str, own: u64, usage: u64, limit: Option<u64>| Cgroup {
        path: path.into(),
        state: "alive".into(),
        usage_bytes: Some(usage),
        trend: Some(Trend::default()),
        limit_bytes: limit,
        kinds: BTreeMap::from([("anon".to_owned(), kind(own, 0, own))]),
        ..Cgroup::default()
    };
    report.cgroups = vec![
        cgroup("/", MIB, 9 * GIB, None),
        cgroup("/pod", 2 * MIB, 8 * GIB, Some(8 * GIB)),
        cgroup("/pod/web", 7 * GIB, 7 * GIB, None),
        cgroup("/podx", 5 * MIB, 5 * MIB, None),
    ];
    let text = plain(&report);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "/pod/web 7.0 GiB, /pod 8.0 of 8.0 GiB (100 %), steady");
    assert!(text.contains("/podx 5.0 MiB, no limit, steady"), "{text}");
    assert!(text.contains("/pod 8.0 of 8.0 GiB (100 %), own 2.0 MiB, steady"), "{text}");
}

#[test]
fn losses_and_cut_stacks_are_named() {
    let mut report = one_container();
    report.losses.insert("ring_full".into(), Some(7));
    report.losses.insert("recursion".into(), None);
    report.cgroups[0].stacks[0].status = "cut: too deep".into();
    let text = plain(&report);
    assert!(text.contains("lost: ring_full 7\n"), "{text}");
    assert!(text.contains("97 % of live bytes have no whole stack"), "{text}");
    assert!(text.contains("\nnot counted by this kernel: recursion\n"), "{text}");
    assert!(text.contains(" · losses 7 · "), "{text}");
}

#[test]
fn the_last_line_breaks_between_parts() {
    let mut report = one_container();
    report.losses.insert("ring_full".into(), Some(123_456_789_012));
    report.cost.cpu_percent = Some(1234.5);
    let text = plain(&report);
    assert_fits(&text);
    let lines: Vec<&str> = text.lines().rev().take(2).collect();
    assert!(lines[0].starts_with("cost 1234.5 % CPU, ") && lines[1].ends_with(" · losses 123456789012"), "{text}");
    // More than everything can only be too few samples.
    report.cgroups[0].kinds = BTreeMap::from([("anon".to_owned(), kind(MIB, 0, 3 * MIB))]);
    report.cgroups[0].usage_bytes = Some(MIB);
    assert!(plain(&report).contains("attributed ? (too few samples) · "), "{}", plain(&report));
}

#[test]
fn after_a_command_charged_bytes_count() {
    let mut report = one_container();
    let cgroup = &mut report.cgroups[0];
    cgroup.kinds = BTreeMap::from([("anon".to_owned(), KindRow { charged: Some(200 * MIB), ..kind(0, 0, 0) })]);
    cgroup.stacks.iter_mut().for_each(|row| (row.live, row.live_stderr, row.charged) = (0, 0, 100 * MIB));
    report.sampling.mean_bytes = MIB;
    let text = summary::render(&report, Options { value: Value::Charged, ..Options::default() });
    assert_fits(&text);
    assert!(text.contains("  anon 0 B (200.0 MiB charged)"), "{text}");
    assert!(text.contains("    100.0 MiB ± 10.0 MiB  "), "{text}");
    assert!(!plain(&report).contains("100.0 MiB"), "nothing is live");
    report.sampling.mode = "exact".into();
    let text = summary::render(&report, Options { value: Value::Charged, ..Options::default() });
    assert!(text.contains("    100.0 MiB  "), "{text}");
}

#[test]
fn more_cgroups_can_be_asked_for() {
    let names = |top: usize| {
        let text = summary::render(&busy_host(), Options { top, ..Options::default() });
        text.lines().filter(|line| line.starts_with("/kubepods")).count()
    };
    assert_eq!((names(1), names(10), names(30)), (1, 10, 30));
    assert!(summary::render(&busy_host(), Options { top: 30, ..Options::default() }).lines().count() <= 120);
}

#[test]
fn colour_only_when_told() {
    assert!(!plain(&busy_host()).contains('\x1b'));
    let colored = summary::render(&busy_host(), Options { color: true, ..Options::default() });
    assert!(colored.contains("\x1b[1m"));
    let mut bare = colored.clone();
    for code in ["\x1b[1m", "\x1b[2m", "\x1b[33m", "\x1b[1;31m", "\x1b[0m"] {
        bare = bare.replace(code, "");
    }
    assert_eq!(bare, plain(&busy_host()), "colour changes nothing else");
}

#[test]
fn hostile_reports_fit_and_do_not_steer_the_terminal() {
    for seed in 0..300 {
        let report = hostile_report(&mut Random::new(seed));
        assert_fits(&plain(&report));
        let everything = Selection::default();
        for view in [views::cgroups(&report, &everything), views::stacks(&report, &everything)] {
            assert!(view.lines().all(|line| !line.chars().any(char::is_control)), "seed {seed}");
        }
    }
}

#[test]
fn absurd_figures_do_not_panic() {
    let mut report = one_container();
    let cgroup = &mut report.cgroups[0];
    cgroup.usage_bytes = Some(u64::MAX);
    cgroup.limit_bytes = Some(0);
    cgroup.uncovered_bytes = Some(i64::MIN);
    cgroup.trend = Some(Trend {
        window_s: f64::NAN,
        change_bytes: i64::MIN,
        swing_bytes: u64::MAX,
        bytes_per_s: Some(f64::MAX),
        stderr_per_s: Some(f64::NAN),
        step: Some(Step { bytes: i64::MIN, seconds: f64::NAN, ended_s: f64::INFINITY, ago_s: -1.0 }),
    });
    let row = KindRow {
        stat: Some(u64::MAX),
        baseline: Some(u64::MAX),
        live: Some(u64::MAX),
        growth_bytes_per_s: Some(f64::MAX),
        ..KindRow::default()
    };
    cgroup.kinds = BTreeMap::from([("anon".to_owned(), row.clone()), ("file".to_owned(), row)]);
    cgroup.subtree = cgroup.kinds.clone();
    cgroup.stacks.iter_mut().for_each(|row| (row.live, row.live_stderr, row.charged) = (u64::MAX, u64::MAX, u64::MAX));
    report.duration_s = f64::NAN;
    report.cost.cpu_percent = Some(f64::NAN);
    assert_fits(&plain(&report));
    let _ = (views::cgroups(&report, &Selection::default()), views::stacks(&report, &Selection::default()));
    assert!(figures::attributed(&report).is_some());
}

#[test]
fn the_cgroup_view_is_a_ledger() {
    let mut report = one_container();
    report.cgroups[0].path = "/pods/web".into();
    let mut pods = report.cgroups[0].clone();
    pods.path = "/pods".into();
    pods.limit_bytes = None;
    pods.kinds.retain(|kind, _| kind == "anon");
    report.cgroups.insert(0, pods);
    let dead = Cgroup {
        path: "/old".into(),
        state: "dead".into(),
        kinds: BTreeMap::from([("shmem".to_owned(), KindRow { live: Some(GIB), ..KindRow::default() })]),
        ..Cgroup::default()
    };
    report.cgroups.push(dead);
    assert_golden("view-cgroups.txt", &views::cgroups(&report, &Selection::default()));

    let selection = Selection {
        cgroups: vec![Glob::parse("/pods/*").unwrap()],
        kinds: vec!["file".into()],
        value: Value::Charged,
        ..Selection::default()
    };
    let text = views::cgroups(&report, &selection);
    assert!(text.contains("/pods/web") && !text.contains("/old") && !text.contains("anon") && text.contains("CHARGED"), "{text}");
    let none = Selection { cgroups: vec![Glob::parse("/none").unwrap()], ..Selection::default() };
    assert!(views::cgroups(&report, &none).ends_with("no cgroups match\n"));
}

#[test]
fn the_stack_view_has_all_frames_and_adds_up_processes() {
    let mut report = one_container();
    let mut second = report.cgroups[0].clone();
    second.path = "/second".into();
    second.stacks.iter_mut().for_each(|row| row.pid = Some(9));
    report.cgroups.push(second);
    let text = views::stacks(&report, &Selection { top: Some(2), ..Selection::default() });
    assert_golden("view-stacks.txt", &text);
    assert!(text.contains("18.0 GiB") && text.contains("2 more stacks not shown"), "{text}");

    let one = Selection { cgroups: vec![Glob::parse("/second").unwrap()], kinds: vec!["file".into()], ..Selection::default() };
    let text = views::stacks(&report, &one);
    assert!(text.starts_with("398.0 MiB live in 1 stack\n") && text.contains("java[9]  /second\n"), "{text}");
    let applied = one.apply(&report);
    assert_eq!((applied.cgroups.len(), applied.cgroups[0].stacks.len(), applied.cgroups[0].kinds.len()), (1, 1, 1));
}

#[test]
fn what_was_left_out_for_other_processes_is_told_and_not_called_unattributed() {
    let mut report = one_container();
    let idle = Cgroup { path: "/idle".into(), usage_bytes: Some(64 << 30), ..Cgroup::default() };
    report.cgroups.push(idle);
    report.filter.pids = (4_000_000..4_000_030).collect();
    let text = plain(&report);
    assert_fits(&text);
    assert!(text.contains("only of these and their later children: 4000000 4000001"), "{text}");
    assert!(!text.contains("attributed"), "{text}");
    assert!(!text.contains("/idle"), "a cgroup that they charged nothing: {text}");
    report.cgroups.clear();
    report.filter.pids.truncate(1);
    let text = plain(&report);
    assert!(text.contains("the process charged nothing") && text.contains("process 4000000 and its later children"), "{text}");
}

#[test]
fn where_a_stack_was_cut_stands_once() {
    let mut report = one_container();
    report.cgroups[0].stacks.retain(|row| row.status.starts_with("cut"));
    for frames in [&["[cut: no frame pointers]", "malloc"][..], &["malloc"]] {
        report.cgroups[0].stacks[0].frames = frames.iter().map(|frame| (*frame).to_owned()).collect();
        let text = summary::render(&report, Options::default());
        assert_eq!(text.matches("[cut: no frame pointers]").count(), 1, "{text}");
        assert!(text.contains("[cut: no frame pointers] > malloc"), "{text}");
    }
}

#[test]
fn regions_of_one_container() {
    let mut report = one_container();
    // A process that went to another cgroup: only what it left is known.
    let left = RegionRow { pid: Some(9), comm: "a;b\n".into(), class: "other".into(), live: 5 * MIB, ..RegionRow::default() };
    report.cgroups[0].regions.push(left);
    report.surveyed = Surveyed { processes: 2, left_out: 3, unplaced_bytes: MIB };
    assert_golden("view-regions.txt", &regions::render(&report, &Selection::default(), true));
    let short = regions::render(&report, &Selection::default(), false);
    assert!(!short.contains("mapped:") && short.contains("asked for since the start: 4.0 GiB by 1 stack: see --origins"), "{short}");
    let none = Selection { kinds: vec!["file".into()], ..Selection::default() };
    assert!(regions::render(&report, &none, true).starts_with("no regions"));
    let top = Selection { top: Some(1), ..Selection::default() };
    assert!(regions::render(&report, &top, true).contains("1 more processes not shown"));
}
