//! Marks of a running recording: made by the command and by the signal, and what grew between two of them.

use super::diff;
use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::workload::Workload;
use std::path::Path;
use std::process::Output;

const MIB: u64 = 1 << 20;
const BYTES: u64 = 64 * MIB;

fn memtrail(args: &[&str]) -> Output {
    harness::memtrail::command().unwrap().args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Sum of the lines of a folded report that have the frame.
fn folded(recording: &str, options: &[&str], frame: &str) -> u64 {
    let output = memtrail(&[&["report", recording, "-o", "-"], options].concat());
    assert!(output.status.success(), "{}", err(&output));
    harness::report::folded_sum(&out(&output), frame).unwrap()
}

#[test]
#[ignore = "root"]
pub(super) fn native_mark_growth_between_two_marks_is_known_to_the_byte() {
    let cgroup = TestCgroup::new("mark").unwrap();
    // Tables for the limit, not for all of memory.
    cgroup.limit(256 << 20).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("run.mtrail");
    let recording = recording.to_str().unwrap();
    let mut workload = Workload::start(&cgroup, &["mremap", "--bytes", &BYTES.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let mut args = record_args(cgroup.path(), Mode::Exact);
    args.extend(["-o", recording, "--mark-signal", "usr1"].map(str::to_owned));
    let running = Memtrail::start(&args).unwrap();
    let pid = running.pid().to_string();
    let mark = |name: &str| memtrail(&["mark", name, "--pid", &pid]);

    // Half is touched before the first mark, half between the two, through another function.
    workload.run_to("touched").unwrap();
    let output = mark("warm");
    assert!(output.status.success() && out(&output).starts_with("warm at "), "{}", err(&output));
    workload.run_to("grown").unwrap();
    assert!(mark("loaded").status.success());
    let again = mark("loaded");
    assert!(again.status.code() == Some(1) && err(&again).contains("already"), "{}", err(&again));
    workload.run_to("shrunk").unwrap();
    running.mark_by_signal().unwrap();
    assert!(mark("end").status.success());
    let socket = format!("/run/memtrail/{pid}.sock");
    assert!(Path::new(&socket).exists());
    let outcome = running.stop().unwrap();
    assert!(!Path::new(&socket).exists(), "the socket goes with the recording");
    assert_eq!(harness::report::losses(&outcome.report).unwrap(), Default::default());

    let view = out(&memtrail(&["report", recording, "--view", "marks"]));
    let names: Vec<&str> = view.lines().map(|line| line.split(" s  ").nth(1).unwrap()).collect();
    assert!(names.starts_with(&["warm", "loaded"]) && names.contains(&"signal-1") && names.contains(&"end"), "{view}");

    let half = BYTES / 2;
    assert_eq!(folded(recording, &["--from", "warm", "--to", "loaded"], "wl_touch_grown"), half);
    assert_eq!(folded(recording, &["--from", "warm", "--to", "loaded"], "wl_touch_anon"), 0);
    assert_eq!(folded(recording, &["--from", "warm", "--to", "loaded", "--value", "charged"], "wl_touch_grown"), half);
    assert_eq!(folded(recording, &["--to", "warm"], "wl_touch_anon"), half);
    assert_eq!(folded(recording, &["--to", "warm"], "wl_touch_grown"), 0);
    let text = memtrail(&["report", recording, "--from", "loaded", "--to", "end"]);
    assert!(err(&text).contains("shrank"), "{}", err(&text));

    let at = |mark: &str| format!("{recording}@{mark}");
    let (json, text) = diff::diff(&at("warm"), &at("loaded"), folder.path());
    let (change, stderr, others) = diff::changes(&json, "wl_touch_grown");
    println!("{change} ± {stderr}, others {others}\n{text}");
    assert!((change, stderr) == (half as i64, 0.0) && others < 256 << 10, "{change}, {stderr}, {others}");
    let (json, _) = diff::diff(&at("loaded"), &at("end"), folder.path());
    assert_eq!(diff::changes(&json, "wl_touch_grown").0, -(half as i64));

    let unknown = memtrail(&["report", recording, "--to", "peak"]);
    assert!(unknown.status.code() == Some(1) && err(&unknown).contains("no mark peak in it: it has warm, loaded"), "{}", err(&unknown));
}

#[test]
#[ignore = "root"]
fn native_mark_without_a_recording_says_what_to_do() {
    let output = memtrail(&["mark", "x", "--pid", "4194305"]);
    assert!(output.status.code() == Some(1) && err(&output).contains("record -o FILE.mtrail"), "{}", err(&output));
    let output = memtrail(&["mark", "a@b"]);
    assert!(output.status.code() == Some(2) && err(&output).contains("cannot be a mark"), "{}", err(&output));
}
