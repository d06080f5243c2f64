//! Functions that CPython runs: each frame against what Python itself says, the names in an autopsy, and an interpreter that lies.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::workload::enter;
use memtrail::text::source;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/native/programs/stacks.py");
/// Pages that it touches, each in a stack of its own making.
const TOUCHES: u64 = 10_000;
/// Paths of interpreters to be tried besides the distribution's, separated by colons.
const MORE: &str = "MEMTRAIL_TEST_PYTHONS";

/// The distribution's, and those that are named.
fn interpreters() -> Vec<PathBuf> {
    let named = std::env::var(MORE).unwrap_or_default();
    let more = named.split(':').filter(|path| !path.is_empty()).map(PathBuf::from);
    std::iter::once(PathBuf::from("/usr/bin/python3")).chain(more).collect()
}

fn start(cgroup: &TestCgroup, python: &Path, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(python);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    enter(&mut command, cgroup).unwrap();
    let mut child = command.spawn().expect("python3 is installed");
    let said = BufReader::new(child.stdout.take().unwrap());
    (child, said)
}

fn line(said: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Each page that was touched is charged in the very frames that Python says of the moment before, to the line.
#[test]
#[ignore = "root"]
fn native_frames_of_python_are_those_that_it_says_itself() {
    for python in interpreters() {
        agree(&python);
    }
}

fn agree(python: &Path) {
    let cgroup = TestCgroup::new("python-stacks").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folded = folder.path().join("stacks.folded");
    // It runs before the recording begins: its files are read by the time that the tables are said to be there.
    let (mut child, mut said) = start(&cgroup, python, &[PROGRAM, &TOUCHES.to_string()]);
    assert_eq!(line(&mut said), "ready");
    let mut arguments = record_args(cgroup.path(), Mode::Exact);
    arguments.extend(["-o".to_owned(), folded.display().to_string()]);
    let memtrail = Memtrail::start_with_tables(&arguments).unwrap();
    writeln!(child.stdin.as_ref().unwrap()).unwrap();
    let expected: BTreeMap<String, u64> = serde_json::from_str(&line(&mut said)).unwrap();
    memtrail.stop().unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());

    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    let (mut pages, mut unnamed) = (0, BTreeSet::new());
    for line in std::fs::read_to_string(&folded).unwrap().lines() {
        let (stack, bytes) = line.rsplit_once(' ').unwrap();
        let frames: Vec<&str> = stack.split(';').collect();
        let named: Vec<&str> = frames.iter().copied().filter(|frame| source::of(frame).is_some()).collect();
        // Memory that is mapped anew is the program's touches alone.
        if named.last().is_some_and(|frame| frame.starts_with("touch (stacks.py:")) && frames.last() == Some(&"[shmem]") {
            let of_line = bytes.parse::<u64>().unwrap() / 4096;
            *found.entry(named.join(" > ")).or_default() += of_line;
            pages += of_line;
        } else if frames.iter().any(|frame| *frame == "[interpreted]" || frame.contains("EvalFrameDefault")) {
            unnamed.insert(stack.to_owned());
        }
    }
    let is_wrong = |(stack, pages): &(&String, &u64)| expected.get(*stack).is_none_or(|expected| *pages > expected);
    let wrong: Vec<_> = found.iter().filter(is_wrong).collect();
    println!(
        "{}: {} stacks, {pages} of {TOUCHES} pages in the frames that python says, {} stacks that it does not say; {} other stacks with frames of its loop",
        python.display(),
        found.len(),
        wrong.len(),
        unnamed.len()
    );
    let shown: Vec<_> = expected.keys().filter(|stack| !found.contains_key(*stack)).take(3).collect();
    assert!(wrong.is_empty(), "{:#?}; not found: {shown:#?}", &wrong[..wrong.len().min(3)]);
    assert!(pages >= TOUCHES * 99 / 100, "{pages}; not found: {shown:#?}");
}

/// A container that a Python program fills is killed, and the autopsy names the function.
#[test]
#[ignore = "root"]
fn native_the_autopsy_of_a_python_program_names_its_functions() {
    let program = "
import sys
class Cache:
    def __init__(self):
        self.rows = []
    def cache_row(self):
        self.rows.append(bytearray(1 << 20))
def handle_upload(cache):
    while True:
        cache.cache_row()
print('ready', flush=True)
sys.stdin.readline()
handle_upload(Cache())
";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("upload.py");
    std::fs::write(&path, program).unwrap();
    let cgroup = TestCgroup::new("python-oom").unwrap();
    cgroup.limit(96 << 20).unwrap();
    let (mut child, mut said) = start(&cgroup, Path::new("/usr/bin/python3"), &[path.to_str().unwrap()]);
    assert_eq!(line(&mut said), "ready");
    let memtrail = Memtrail::start_with_tables(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    writeln!(child.stdin.as_ref().unwrap()).unwrap();
    assert!(!child.wait().unwrap().success(), "it was not killed");
    let outcome = memtrail.stop().unwrap();
    let autopsies = outcome.report["oom"].as_array().unwrap();
    assert_eq!(autopsies.len(), 1, "{}", outcome.report["oom"]);
    let sentence = autopsies[0]["verdict"].as_str().unwrap();
    println!("{sentence}");
    assert!(sentence.contains("through Cache.cache_row (upload.py:7)"), "{sentence}");
    let stack = autopsies[0]["stacks"][0]["frames"].as_array().unwrap();
    let frames: Vec<&str> = stack.iter().filter_map(serde_json::Value::as_str).filter(|frame| source::of(frame).is_some()).collect();
    // What is further out may have been swapped out by then, where there is swap.
    assert!(frames.ends_with(&["handle_upload (upload.py:10)", "Cache.cache_row (upload.py:7)"]), "{frames:?}");
}

/// What says it is an interpreter and lies loses no byte, is followed nowhere without a bound, and names nothing but itself.
#[test]
#[ignore = "root, and gcc"]
fn native_an_interpreter_that_lies_is_not_followed() {
    /// Pages for each kind of lie.
    const PAGES: u64 = 200;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("lying_python");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/native/programs/lying_python.c");
    let compiled = Command::new("gcc").args(["-O1", "-rdynamic", "-pthread", source, "-o"]).arg(&program).status().unwrap();
    assert!(compiled.success());
    let cgroup = TestCgroup::new("python-lies").unwrap();
    let mut arguments = record_args(cgroup.path(), Mode::Exact);
    let folded = folder.path().join("stacks.folded");
    arguments.extend(["-o".to_owned(), folded.display().to_string()]);
    let memtrail = Memtrail::start(&arguments).unwrap();
    let run = |pages: u64| {
        let (mut child, mut said) = start(&cgroup, &program, &[&pages.to_string()]);
        assert_eq!(line(&mut said), "ready");
        writeln!(child.stdin.as_ref().unwrap()).unwrap();
        let done = line(&mut said);
        let end = move || {
            drop(child.stdin.take());
            assert!(child.wait().unwrap().success());
        };
        (end, done.strip_prefix("done ").unwrap().parse::<u64>().unwrap())
    };
    // The first one makes the program known.
    let (mut end, _) = run(1);
    end();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let (mut end, pages) = run(PAGES);
    let outcome = memtrail.stop().unwrap();
    end();

    let (mut touched, mut honest, mut deepest) = (0, 0, 0);
    let text = std::fs::read_to_string(&folded).unwrap();
    for line in text.lines() {
        let (stack, bytes) = line.rsplit_once(' ').unwrap();
        let frames: Vec<&str> = stack.split(';').collect();
        if frames.last() != Some(&"[shmem]") {
            continue;
        }
        touched += bytes.parse::<u64>().unwrap() / 4096;
        deepest = deepest.max(frames.len());
        if frames.windows(3).any(|frames| frames.iter().all(|frame| *frame == "truthful (lies.py:?)")) {
            honest += bytes.parse::<u64>().unwrap() / 4096;
        }
    }
    println!(
        "{touched} of {pages} pages, {honest} below three frames that are told; at most {deepest} frames; {}",
        outcome.report["losses"]
    );
    assert_eq!(touched, pages, "{text}");
    assert_eq!(honest, PAGES, "those without a lie");
    // The frames of a stack, cgroup, process, kind, and the marks of what is left out.
    assert!(deepest <= 128 + 6, "{deepest}");
    assert!(!text.contains('\u{1b}'), "names are escaped");
    assert!(outcome.report["losses"]["managed_unreadable"].as_u64().unwrap() > 0);
}
