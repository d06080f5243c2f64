//! Functions that V8 runs: each stack against what the program says itself.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::workload::enter;
use memtrail::text::source;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/native/programs/stacks.js");
/// Pages that it touches, each in a stack of its own making.
const TOUCHES: u64 = 10_000;
/// Paths of more builds of Node, separated by colons.
const MORE: &str = "MEMTRAIL_TEST_NODES";
/// How code is run: as always, by the interpreter alone, by the first compiler, by the last one.
const TIERS: [&str; 4] = ["--stack-size=984", "--jitless", "--always-sparkplug", "--always-turbofan"];

/// What is touched is charged in the very functions that the program says, with the lines on which they begin, in each tier of V8. What a compiler puts into
/// its caller has no frame of its own: that is left out here.
#[test]
#[ignore = "root, and node"]
fn long_frames_of_javascript_are_those_that_the_program_says_itself() {
    let named = std::env::var(MORE).unwrap_or_default();
    let more = named.split(':').filter(|path| !path.is_empty()).map(PathBuf::from);
    for node in std::iter::once(PathBuf::from("node")).chain(more) {
        for tier in TIERS {
            // Node 18 has another word for the last one.
            let takes = |tier: &&str| {
                Command::new(&node).args([tier, "-e", "0"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
            };
            let tier = [tier, "--always-opt"].into_iter().find(takes).expect("node runs");
            agree(&node, tier);
        }
    }
}

fn agree(node: &Path, tier: &str) {
    let cgroup = TestCgroup::new("node-stacks").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folded = folder.path().join("stacks.folded");
    let mut command = Command::new(node);
    command.args([tier, "--no-turbo-inlining", "--max-inlined-bytecode-size=0", "--max-inlined-bytecode-size-small=0"]);
    command.args([PROGRAM, &TOUCHES.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    enter(&mut command, &cgroup).unwrap();
    let mut child = command.spawn().expect("node is installed");
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "ready");
    // Which interpreter is in a program that runs already, is known by the time that the tables are said to be there.
    let mut arguments = record_args(cgroup.path(), Mode::Exact);
    arguments.extend(["-o".to_owned(), folded.display().to_string()]);
    let memtrail = Memtrail::start_with_tables(&arguments).unwrap();
    // Node's file is read meanwhile.
    std::thread::sleep(std::time::Duration::from_secs(2));
    writeln!(child.stdin.as_ref().unwrap()).unwrap();
    let expected: BTreeMap<String, u64> = serde_json::from_str(&said.next().unwrap().unwrap()).unwrap();
    memtrail.stop().unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());

    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for line in std::fs::read_to_string(&folded).unwrap().lines() {
        let (stack, bytes) = line.rsplit_once(' ').unwrap();
        let named = stack.split(';').filter(|frame| source::of(frame).is_some_and(|source| source.file == "stacks.js"));
        let named: Vec<&str> = named.skip_while(|frame| !frame.starts_with("main (")).collect();
        if named.last().is_some_and(|frame| frame.starts_with("touch (")) {
            *found.entry(named.join(" > ")).or_default() += bytes.parse::<u64>().unwrap() / 4096;
        }
    }
    let wrong: Vec<_> = found.keys().filter(|stack| !expected.contains_key(*stack)).collect();
    let pages: u64 = expected.iter().map(|(stack, pages)| found.get(stack).copied().unwrap_or(0).min(*pages)).sum();
    println!(
        "{} {tier}: {} stacks, {pages} of {TOUCHES} pages in the functions that the program says, {} stacks that it does not say",
        node.display(),
        found.len(),
        wrong.len()
    );
    let missing: Vec<_> = expected.keys().filter(|stack| !found.contains_key(*stack)).take(3).collect();
    assert!(wrong.is_empty(), "{:#?}; not found: {missing:#?}", &wrong[..wrong.len().min(3)]);
    assert!(pages >= TOUCHES * 99 / 100, "{pages}; not found: {missing:#?}");
}
