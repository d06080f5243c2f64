//! The kernel half's own messages: with `-vv` only, and without it not even their code is there.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::workload::Workload;
use serde_json::Value;
use std::process::Stdio;

const BYTES: &str = "64M";
const FULL: &str = "kernel half: loss stack_table_full: a table refuses an entry: it is full (E2BIG)";

/// All that memtrail says while a table is full.
fn said_with(flags: &[&str]) -> String {
    let cgroup = TestCgroup::new("diagnosis").unwrap();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", BYTES]).unwrap();
    workload.run_to("ready").unwrap();
    let mut args = record_args(cgroup.path(), Mode::Default);
    // Each sample has two stacks.
    args.extend(["--table".to_owned(), "STACKS=1".to_owned()]);
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let memtrail = Memtrail::start(&args).unwrap();
    workload.run_to("touched").unwrap();
    let outcome = memtrail.stop().unwrap();
    assert!(outcome.report["losses"]["stack_table_full"].as_u64().unwrap() > 0);
    outcome.stderr
}

#[test]
#[ignore = "root"]
fn native_diagnosis_is_told_to_those_who_ask() {
    let said = said_with(&["-vv"]);
    let times = said.matches(FULL).count();
    let cpus = std::thread::available_parallelism().unwrap().get();
    println!("told {times} times on {cpus} CPUs");
    assert!(times >= 1 && times <= cpus, "once a CPU: {said}");
}

#[test]
#[ignore = "root"]
fn native_diagnosis_is_not_told_to_others() {
    for flags in [&[] as &[&str], &["-v"]] {
        let said = said_with(flags);
        assert!(!said.contains("kernel half"), "{said}");
    }
}

/// Instructions of each program as the kernel has it; `None` where the kernel says so of none.
fn instructions(flags: &[&str]) -> Option<serde_json::Map<String, Value>> {
    let output = harness::memtrail::command().unwrap().args(flags).args(["doctor", "--json"]).stderr(Stdio::null()).output().unwrap();
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counts = findings["instructions"].as_object().unwrap().clone();
    // One that counts losses, and one that does not.
    assert!(["file_commit", "process_exit"].iter().all(|program| counts.contains_key(*program)), "{findings}");
    let known = counts.values().filter(|count| count.as_u64().is_some_and(|count| count > 0)).count();
    assert!(known == counts.len() || counts.values().all(Value::is_null), "of some programs only: {findings}");
    (known > 0).then_some(counts)
}

/// The kernel has removed the calls and the message from each program that counts losses.
#[test]
#[ignore = "root"]
fn native_diagnosis_is_free_when_off() {
    /// Instructions of a message; it has several hundred.
    const MESSAGE: u64 = 200;
    let (Some(off), Some(on)) = (instructions(&[]), instructions(&["-vv"])) else {
        println!("this kernel does not say how long programs are");
        return;
    };
    assert!(on.keys().eq(off.keys()), "the same programs");
    for (program, count) in &off {
        println!("{program}: {count} without, {} with messages", on[program]);
        assert!(on[program].as_u64() >= count.as_u64(), "{program} is longer when it is not to say anything");
    }
    let more = |program: &str| on[program].as_u64().unwrap() - off[program].as_u64().unwrap();
    assert!(more("file_commit") >= MESSAGE);
    assert_eq!(more("process_exit"), 0, "it counts no loss");
}
