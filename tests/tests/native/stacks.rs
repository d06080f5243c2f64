//! Whose stacks: short processes by the name of their function, cut stacks as cut.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::report::{self, StackRow};
use harness::workload::{Workload, enter};
use std::process::{Command, Stdio};

/// Runs a workload to its end while memtrail records its cgroup.
fn record(name: &str, mode: Mode, args: &[&str], stop_at: &str) -> (String, Outcome) {
    let cgroup = TestCgroup::new(&format!("{name}-{mode:?}")).unwrap();
    let mut workload = Workload::start(&cgroup, args).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), mode)).unwrap();
    workload.run_to(stop_at).unwrap();
    let outcome = memtrail.stop().unwrap();
    (cgroup.path().to_owned(), outcome)
}

fn charged_by(outcome: &Outcome, path: &str, function: &str) -> (u64, u64) {
    let sum = |functions: Option<&[&str]>| report::stack_sum(&outcome.report, path, "anon", functions, |stack| stack.charged).unwrap();
    (sum(Some(&[function])), sum(None))
}

/// Each process executes the program anew, touches 256 KiB and is gone after 5 ms; it needs about 150 KiB of its own to start. Each has
/// the program at another address: their stacks are the same all the same, or no table could hold them.
#[test]
#[ignore = "root"]
fn native_thousand_short_programs_have_names() {
    const EACH: u64 = 256 << 10;
    let bytes = (1000 * EACH).to_string();
    let (path, outcome) =
        record("short-programs", Mode::Exact, &["spawn-short", "--exec", "--processes", "1000", "--bytes", &bytes], "spawned");
    let (known, all) = charged_by(&outcome, &path, "wl_short_child");
    println!("wl_short_child charged {known} of {all}");
    assert!(known as f64 >= 0.95 * (1000 * EACH) as f64, "wl_short_child charged {known} of {}", 1000 * EACH);
}

fn cut(stack: &StackRow) -> bool {
    stack.status.starts_with("cut") && stack.frames.first().is_some_and(|frame| frame.starts_with("[cut"))
}

/// The innermost function is certain, its callers are not: they are not made up.
#[test]
#[ignore = "root"]
fn native_omitted_frame_pointers_are_cut() {
    let (path, outcome) = record("omit-fp", Mode::Exact, &["omit-fp", "--bytes", "64M"], "touched");
    let stacks = report::stacks(&outcome.report, &path).unwrap();
    let touching: Vec<&StackRow> = stacks.iter().filter(|stack| stack.frames.iter().any(|frame| frame == "nofp_touch")).collect();
    let live: u64 = touching.iter().map(|stack| stack.live).sum();
    assert!(live as f64 >= 0.95 * (64 << 20) as f64, "nofp_touch owns {live}");
    for stack in touching {
        assert!(cut(stack), "{} {:?}", stack.status, stack.frames);
    }
}

/// Debian's python3 has no frame pointers: most of its bytes have cut stacks, none of them hidden.
#[test]
#[ignore = "root"]
fn native_python_has_cut_stacks() {
    const BYTES: u64 = 64 << 20;
    let cgroup = TestCgroup::new("python").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    // Ends with its input, which this test holds.
    let mut command = Command::new("python3");
    command.args([
        "-c",
        &format!("import sys; x = [bytes([1]) * 4000 for _ in range({})]; print(len(x), flush=True); sys.stdin.read()", BYTES / 4000),
    ]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    enter(&mut command, &cgroup).unwrap();
    let mut python = command.spawn().expect("python3 is installed");
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(python.stdout.take().unwrap()), &mut said).unwrap();
    let outcome = memtrail.stop().unwrap();
    drop(python.stdin.take());
    assert!(python.wait().unwrap().success());

    let stacks = report::stacks(&outcome.report, cgroup.path()).unwrap();
    let live: u64 = stacks.iter().filter(|stack| stack.kind == "anon").map(|stack| stack.live).sum();
    let cut_live: u64 = stacks.iter().filter(|stack| stack.kind == "anon" && cut(stack)).map(|stack| stack.live).sum();
    println!("python3: {cut_live} of {live} live bytes have cut stacks");
    assert!(live >= BYTES * 95 / 100, "{live}");
    assert!(cut_live > 0, "no cut stacks");
}
