//! Differences: nothing where nothing changed, what changed where it did, and an error beside it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod output_support;

use memtrail::analyse::comparison::{Comparison, Options, compare};
use memtrail::report::{Cgroup, KindRow, Report, Sampling, StackRow};
use memtrail::{
    analyse::comparison::growth,
    output::{Value, folded},
};
use output_support::*;
use std::collections::BTreeMap;

fn of(path: &str, stacks: Vec<StackRow>) -> Report {
    let live = stacks.iter().map(|row| row.live).sum();
    let kinds = BTreeMap::from([("anon".to_owned(), kind(live, 0, live))]);
    Report {
        sampling: Sampling { mode: "sampled".into(), mean_bytes: MIB, samples: 9 },
        cgroups: vec![Cgroup { path: path.into(), kinds, stacks, ..Cgroup::default() }],
        ..empty_report()
    }
}

fn row(frame: &str, live: u64) -> StackRow {
    StackRow { live_stderr: live / 10, ..stack("anon", "heap", "java", "complete", &["main", frame], live) }
}

fn stacks(comparison: &Comparison<'_>) -> Vec<(String, i64)> {
    let changed = comparison.stacks.iter().filter(|stack| stack.change.bytes() != 0);
    changed.map(|stack| (stack.row.frames.last().unwrap().clone(), stack.change.bytes())).collect()
}

#[test]
fn a_report_compared_with_itself_is_empty() {
    let mut random = Random::new(4);
    for report in [one_container(), busy_host(), hostile_report(&mut random), empty_report()] {
        for same_recording in [false, true] {
            for value in [Value::Live, Value::Charged] {
                for normalize in [false, true] {
                    let comparison = compare(&report, &report, Options { value, normalize, same_recording });
                    assert!(comparison.is_empty() && comparison.total().bytes() == 0);
                }
            }
        }
    }
}

#[test]
fn what_changed_is_named_with_the_errors_added_in_squares() {
    let before = of("/a", vec![row("same", 40 * MIB), row("leak", 30 * MIB), row("gone", 5 * MIB)]);
    let mut after = of("/a", vec![row("same", 40 * MIB), row("leak", 94 * MIB), row("new", 7 * MIB)]);
    // Another process of the same program, and another run of it.
    after.cgroups[0].stacks.push(StackRow { pid: Some(99), ..row("leak", 0) });
    let comparison = compare(&before, &after, Options::default());
    let mib = MIB as i64;
    assert_eq!(stacks(&comparison), [("leak".to_owned(), 64 * mib), ("new".to_owned(), 7 * mib), ("gone".to_owned(), -5 * mib)]);
    let leak = comparison.stacks[0].change;
    let errors = [3.0 * MIB as f64, 9.4 * MIB as f64];
    assert!(leak.stderr().abs_diff((errors[0].powi(2) + errors[1].powi(2)).sqrt() as u64) < 2);
    assert!(leak.is_beyond_error());
    let [kind] = comparison.kinds.as_slice() else { panic!("{:?}", comparison.kinds) };
    assert_eq!((kind.cgroup.as_str(), kind.kind.as_str(), kind.change.bytes()), ("/a", "anon", 66 * mib));
    assert_eq!(kind.stat, [Some(75 * MIB), Some(141 * MIB)]);
}

#[test]
fn a_change_inside_the_error_says_so() {
    let comparison =
        |a, b| compare(&of("/a", vec![row("f", a)]), &of("/a", vec![row("f", b)]), Options::default()).stacks[0].change.is_beyond_error();
    assert!(!comparison(100 * MIB, 120 * MIB));
    assert!(comparison(100 * MIB, 150 * MIB));
}

#[test]
fn charged_bytes_have_the_error_of_their_samples() {
    let (before, after) = (of("/a", vec![row("f", 80 * MIB)]), of("/a", vec![row("f", 112 * MIB)]));
    let change = |same_recording, value| compare(&before, &after, Options { value, same_recording, normalize: false }).stacks[0].change;
    // Charged are 100 and 140 MiB, a sample of 1 MiB each.
    let two_runs = change(false, Value::Charged);
    assert_eq!((two_runs.bytes(), two_runs.stderr()), (40 * MIB as i64, ((240 * MIB) as f64 * MIB as f64).sqrt().round() as u64));
    let one_run = change(true, Value::Charged);
    assert_eq!(one_run.stderr(), ((40 * MIB) as f64 * MIB as f64).sqrt().round() as u64);
    let exact = |report: &Report| Report { sampling: Sampling { mode: "exact".into(), ..report.sampling.clone() }, ..report.clone() };
    let (before, after) = (exact(&before), exact(&after));
    let exact = compare(&before, &after, Options { value: Value::Charged, ..Options::default() });
    assert_eq!(exact.stacks[0].change.stderr(), 0);
}

#[test]
fn a_shorter_recording_is_scaled_to_the_longer_one() {
    let mut before = of("/a", vec![row("f", 10 * MIB)]);
    before.duration_s = 70.0;
    let after = of("/a", vec![row("f", 20 * MIB)]);
    let comparison = compare(&before, &after, Options { normalize: true, ..Options::default() });
    assert_eq!((comparison.scale, comparison.stacks[0].change.bytes()), (Some(2.0), 0));
    assert!(comparison.stacks[0].change.variance > 8.0 * (MIB as f64).powi(2) * 0.9, "the error is scaled too");
    assert_eq!(comparison.kinds[0].stat, [Some(10 * MIB), Some(20 * MIB)], "the kernel's figure is a state and not a rate");
    before.duration_s = 0.0;
    assert_eq!(compare(&before, &after, Options { normalize: true, ..Options::default() }).scale, None);
}

#[test]
fn a_command_in_its_own_cgroup_compares_with_its_next_run() {
    let (before, after) = (of("/memtrail/12", vec![row("f", 9)]), of("/memtrail/13", vec![row("f", 9)]));
    assert!(compare(&before, &after, Options::default()).is_empty());
    let same = compare(&before, &after, Options { same_recording: true, ..Options::default() });
    assert_eq!(same.stacks.len(), 2, "in one recording they are two commands");
}

fn folded_lines(report: &Report, value: Value) -> Vec<String> {
    let mut bytes = Vec::new();
    folded::write(report, value, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn growth_is_a_report_of_what_grew() {
    let before = of("/a", vec![row("same", 40), row("leak", 30), row("gone", 5), row("less", 9)]);
    let mut after = of("/a", vec![row("same", 40), row("leak", 94), row("new", 7), row("less", 8)]);
    after.duration_s = 150.0;
    let grown = growth::between(Some(&before), &after, Value::Growth);
    assert_eq!((grown.shrunk, grown.shrunk_bytes), (2, 6));
    assert_eq!(grown.report.duration_s, 10.0);
    assert_eq!(folded_lines(&grown.report, Value::Growth), ["/a;java;main;leak;[anon heap] 64", "/a;java;main;new;[anon heap] 7"]);
    let charged = growth::between(Some(&before), &after, Value::Charged);
    assert_eq!(folded_lines(&charged.report, Value::Charged), ["/a;java;main;leak;[anon heap] 80", "/a;java;main;new;[anon heap] 8"]);

    // From the start of a recording, what is live has grown, and what was there before has not.
    let whole = growth::between(None, &one_container(), Value::Growth);
    let live: Vec<String> = folded_lines(&one_container(), Value::Live);
    let with_process: Vec<String> =
        live.into_iter().filter(|line| !line.contains(";[before start];") && !line.contains(";[unattributed];")).collect();
    assert_eq!((folded_lines(&whole.report, Value::Growth), whole.shrunk), (with_process, 0));
}

#[test]
fn forged_reports_do_not_overflow() {
    let mut huge = of("/a", vec![row("f", 1)]);
    huge.cgroups[0].stacks.push(StackRow { live: u64::MAX, charged: u64::MAX, live_stderr: u64::MAX, ..row("g", 1) });
    huge.cgroups[0].kinds.insert("file".into(), KindRow { live: Some(u64::MAX), ..KindRow::default() });
    let nothing = empty_report();
    let comparison = compare(&nothing, &huge, Options { normalize: true, ..Options::default() });
    assert_eq!(comparison.total().bytes(), i64::MAX);
    let mut odd = huge.clone();
    for duration in [f64::NAN, f64::INFINITY, -1.0, f64::MIN_POSITIVE] {
        odd.duration_s = duration;
        let _ = compare(&odd, &huge, Options { normalize: true, ..Options::default() });
        let _ = compare(&huge, &odd, Options { normalize: true, ..Options::default() });
    }
    let _ = growth::between(Some(&huge), &odd, Value::Growth);
}
