//! Stacks of code without frame pointers: known chains of callers, real programs, and what is said where a stack is not whole.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, providers, record_args, record_args_of};
use harness::report::{self, StackRow};
use harness::workload::{Workload, enter};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// The kinds of chains of the workload `chains`, and what their middle functions come to on the stack.
const KINDS: [(&str, usize); 10] = [
    ("fault", 1),
    ("memset", 1),
    ("read", 1),
    ("signal", 1),
    ("large", 1),
    // Of 301 frames, those that are left of it: the 96 innermost frames and the 31 outermost are kept.
    ("deep", 90),
    ("aligned", 1),
    ("thread", 1),
    ("context", 1),
    ("vfork", 1),
];
const BYTES: u64 = 40 << 20;

fn record_chains(name: &str, provider: Option<&str>, more: &[&str]) -> (String, Outcome) {
    let cgroup = TestCgroup::new(&format!("{name}-{}", provider.unwrap_or("any"))).unwrap();
    let mut workload = Workload::start(&cgroup, &["chains", "--bytes", &BYTES.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let mut args = record_args_of(&[cgroup.path()], Mode::Exact, provider);
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    args.push("-v".to_owned());
    let mut memtrail = Memtrail::start(&args).unwrap();
    if !more.contains(&"0") {
        memtrail.wait_for_tables().unwrap();
    }
    workload.run_to("touched").unwrap();
    (cgroup.path().to_owned(), memtrail.stop().unwrap())
}

/// What the stacks that end in this function own, and how much of that has whole stacks in which the callers are those that called.
fn chain(stacks: &[StackRow], kind: &str, middles: usize) -> (u64, u64, Option<String>) {
    let named = |part: &str| format!("chain_{kind}_{part}");
    let (leaf, middle, outer) = (named("leaf"), named("middle"), named("outer"));
    let (mut owned, mut right, mut wrong) = (0, 0, None);
    for stack in stacks.iter().filter(|stack| stack.frames.contains(&leaf)) {
        owned += stack.charged;
        // Outermost first.
        let at = |name: &str| stack.frames.iter().position(|frame| frame == name);
        let between = |from: usize, to: usize| stack.frames[from + 1..to].iter().filter(|frame| **frame == middle).count();
        let in_order = at(&outer).zip(at(&leaf)).is_some_and(|(outer, leaf)| outer < leaf && between(outer, leaf) >= middles);
        // A C library that is linked in may have other code right before the function that contexts return to: what returns there cannot be told
        // from a call at the end of that code, and the stack says that it goes on to where no code is.
        let is_known_cut = kind == "context" && stack.status == "cut: return address outside of code";
        if (stack.status == "complete" || is_known_cut) && in_order {
            right += stack.charged;
        } else {
            wrong = Some(format!("{}: {}", stack.status, stack.frames.join(" > ")));
        }
    }
    (owned, right, wrong)
}

/// Each way from a frame to its caller: the fault of the code itself, a function of the C library, a system call, a signal on a stack of its own,
/// frames of unknown and of large size, a stack deeper than what is recorded, an aligned frame, a thread, a stack that the program made, and
/// a child in its parent's memory.
#[test]
#[ignore = "root"]
fn native_chains_without_frame_pointers_are_whole() {
    for provider in providers() {
        let (path, outcome) = record_chains("chains", provider.as_deref(), &[]);
        let tier = report::tier(&outcome.report).unwrap();
        let stacks = report::stacks(&outcome.report, &path).unwrap();
        for (kind, middles) in KINDS {
            let (owned, right, wrong) = chain(&stacks, kind, middles);
            println!("{tier}, {kind}: {right} of {owned} bytes have whole and right stacks");
            let each = BYTES / KINDS.len() as u64;
            assert!(owned as f64 >= 0.95 * each as f64, "{tier}: chain_{kind}_leaf owns {owned} of {each}");
            assert!(right as f64 >= 0.99 * owned as f64, "{tier}, {kind}: {right} of {owned}: {}", wrong.unwrap_or_default());
        }
    }
}

/// Without tables the callers are not known, and none are made up.
#[test]
#[ignore = "root"]
fn native_without_tables_no_chain_is_called_whole_and_wrong() {
    let (path, outcome) = record_chains("chains-off", None, &["--unwind-memory", "0"]);
    let stacks = report::stacks(&outcome.report, &path).unwrap();
    let mut cut = 0;
    for (kind, middles) in KINDS {
        let (owned, right, _) = chain(&stacks, kind, middles);
        cut += owned - right;
    }
    assert!(cut as f64 >= 0.8 * BYTES as f64, "{cut} bytes of {BYTES} have stacks that are not whole");
}

/// The smallest room there is: what finds none is told, and nothing else suffers.
#[test]
#[ignore = "root"]
fn native_unwinding_that_finds_no_room_is_counted_and_not_called_whole() {
    let (path, outcome) = record_chains("chains-tight", None, &["--unwind-memory", "64KiB"]);
    let full = outcome.report["losses"]["unwind_tables_full"].as_u64().unwrap();
    assert!(full > 0, "{:?}", outcome.report["losses"]);
    assert_eq!(outcome.status.code(), Some(0), "no bytes are lost by that");
    let stacks = report::stacks(&outcome.report, &path).unwrap();
    let (owned, ..) = chain(&stacks, "fault", 1);
    assert!(owned as f64 >= 0.95 * (BYTES / KINDS.len() as u64) as f64, "{owned}");
    for stack in stacks.iter().filter(|stack| stack.status != "complete" && stack.status != "none") {
        assert!(stack.frames.first().is_some_and(|frame| frame.starts_with("[cut")), "{} {:?}", stack.status, stack.frames);
    }
}

/// Debian's python3 has no frame pointers.
#[test]
#[ignore = "root"]
fn native_python_has_whole_stacks() {
    const BYTES: u64 = 64 << 20;
    let cgroup = TestCgroup::new("python").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    // Ends with its input, which this test holds.
    let mut command = Command::new("python3");
    command.args([
        "-c",
        &format!(
            "import sys, time; time.sleep(3); x = [bytes([1]) * 4000 for _ in range({})]; print(len(x), flush=True); sys.stdin.read()",
            BYTES / 4000
        ),
    ]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    enter(&mut command, &cgroup).unwrap();
    let mut python = command.spawn().expect("python3 is installed");
    let mut said = String::new();
    BufReader::new(python.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let outcome = memtrail.stop().unwrap();
    drop(python.stdin.take());
    assert!(python.wait().unwrap().success());

    let stacks = report::stacks(&outcome.report, cgroup.path()).unwrap();
    let sum = |wanted: &dyn Fn(&StackRow) -> bool| -> u64 {
        stacks.iter().filter(|stack| stack.kind == "anon" && wanted(stack)).map(|stack| stack.live).sum()
    };
    let (live, whole) = (sum(&|_| true), sum(&|stack| stack.status == "complete"));
    println!("python3: {whole} of {live} live bytes have whole stacks");
    assert!(live >= BYTES * 95 / 100, "{live}");
    // What its start touches before its tables are there is not whole: some ten megabytes.
    assert!(whole >= BYTES * 99 / 100, "{whole} of {live}");
}
