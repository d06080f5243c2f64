//! Methods that a JVM runs: each stack against what Java itself says, and the names in an autopsy.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::workload::enter;
use memtrail::text::source;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/native/programs/Stacks.java");
/// Pages that it touches, each in a stack of its own making.
const TOUCHES: u64 = 10_000;
/// Paths of more JVMs (`bin/java`), separated by colons.
const MORE: &str = "MEMTRAIL_TEST_JAVAS";

/// How code is run, and how often it is walked through for nothing before: interpreted alone; as always, right after the start and after a while; by each
/// compiler at once; with each collector of garbage that moves objects in its own way.
const WAYS: [(&[&str], &str); 7] = [
    (&["-Xint"], "0"),
    (&["-XX:+UseSerialGC"], "0"),
    (&["-XX:+UseG1GC"], "120"),
    (&["-Xcomp", "-XX:TieredStopAtLevel=1"], "0"),
    (&["-Xcomp", "-XX:-TieredCompilation"], "0"),
    (&["-XX:+UseZGC"], "60"),
    (&["-XX:+UseParallelGC", "-XX:ReservedCodeCacheSize=64m"], "60"),
];

const LEFT_OUT: &str = "[frames left out]";

fn compile(folder: &Path) {
    // For the oldest of the JVMs.
    let done = Command::new("javac").args(["-encoding", "UTF-8", "--release", "11", "-d"]).arg(folder).arg(PROGRAM).status();
    assert!(done.expect("a JDK is installed").success());
}

/// Each page that was touched is charged in the very methods that Java says of the moment before, to the line: interpreted and compiled ones, those that a
/// compiler put into others, and those that the JVM makes itself.
#[test]
#[ignore = "root, and a JDK"]
fn native_methods_of_java_are_those_that_it_says_itself() {
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path());
    for (options, warm) in [WAYS[0], WAYS[2]] {
        agree(Path::new("java"), folder.path(), options, warm);
    }
}

/// The same of all ways to run code, and of all JVMs that are named.
#[test]
#[ignore = "root, and a JDK"]
fn long_methods_of_java_are_those_that_it_says_itself_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path());
    let named = std::env::var(MORE).unwrap_or_default();
    let more = named.split(':').filter(|path| !path.is_empty()).map(PathBuf::from);
    for java in std::iter::once(PathBuf::from("java")).chain(more) {
        for (options, warm) in WAYS {
            // Not every JVM has every collector.
            let runs = Command::new(&java).args(options).arg("-version").stderr(Stdio::null()).status().expect("it runs").success();
            if runs {
                agree(&java, folder.path(), options, warm);
            } else {
                println!("{} does not take {options:?}", java.display());
            }
        }
    }
}

fn agree(java: &Path, classes: &Path, options: &[&str], warm: &str) {
    let cgroup = TestCgroup::new("java-stacks").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folded = folder.path().join("stacks.folded");
    let mut command = Command::new(java);
    command.args(["-Xmx256m", "-Dfile.encoding=UTF-8"]).args(options).arg("-cp").arg(classes);
    command.args(["Stacks", &TOUCHES.to_string(), warm]).stdin(Stdio::piped()).stdout(Stdio::piped());
    enter(&mut command, &cgroup).unwrap();
    let mut arguments = record_args(cgroup.path(), Mode::Exact);
    arguments.extend(["-o".to_owned(), folded.display().to_string()]);
    // Of a program that runs for long all before is not of interest, and would fill the tables.
    let before = (warm == "0").then(|| Memtrail::start_with_tables(&arguments).unwrap());
    let mut child = command.spawn().expect("java is installed");
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "ready");
    let memtrail = before.unwrap_or_else(|| Memtrail::start_with_tables(&arguments).unwrap());
    writeln!(child.stdin.as_ref().unwrap()).unwrap();
    let expected: BTreeMap<String, u64> = serde_json::from_str(&said.next().unwrap().unwrap()).unwrap();
    let outcome = memtrail.stop().unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());

    let (mut found, mut unnamed) = (BTreeMap::<String, u64>::new(), BTreeSet::new());
    for line in std::fs::read_to_string(&folded).unwrap().lines() {
        let (stack, bytes) = line.rsplit_once(' ').unwrap();
        let frames: Vec<&str> = stack.split(';').collect();
        let is_told = |frame: &&str| source::of(frame).is_some() || *frame == LEFT_OUT;
        let mut named: Vec<&str> = frames.iter().copied().filter(is_told).collect();
        // Where in the innermost method a page was touched, compiled code says to the nearest place that the JVM may need.
        let Some(touch) = named.iter().rposition(|frame| frame.starts_with("Stacks.touch (")) else {
            if frames.last() == Some(&"[shmem]") && !named.iter().any(|frame| frame.starts_with("Stacks.warm (")) {
                unnamed.insert(stack.to_owned());
            }
            continue;
        };
        if named.iter().any(|frame| frame.starts_with("Stacks.warm (")) {
            continue;
        }
        named.truncate(touch);
        named.push("Stacks.touch");
        *found.entry(named.join(" > ")).or_default() += bytes.parse::<u64>().unwrap() / 4096;
    }
    // Of deeper stacks than are kept the outer and the inner frames are those of one that Java says.
    let is_expected = |stack: &str| match stack.split_once(&format!("{LEFT_OUT} > ")) {
        None => expected.contains_key(stack),
        Some((outer, inner)) => expected.keys().any(|stack| stack.starts_with(outer) && stack.ends_with(inner)),
    };
    let wrong: Vec<_> = found.keys().filter(|stack| !is_expected(stack)).collect();
    let cut: u64 = found.iter().filter(|(stack, _)| stack.contains(LEFT_OUT)).map(|(_, pages)| pages).sum();
    let pages: u64 = expected.iter().map(|(stack, pages)| found.get(stack).copied().unwrap_or(0).min(*pages)).sum();
    let pages = pages + cut;
    println!(
        "{} {options:?} {warm}: {} stacks, {pages} of {TOUCHES} pages in the methods that Java says ({cut} of them in stacks that are cut), {} stacks that it does not say, {} elsewhere; {:?}",
        java.display(),
        expected.len(),
        wrong.len(),
        unnamed.len(),
        outcome.report["losses"].as_object().unwrap().iter().filter(|(_, count)| **count != 0).collect::<Vec<_>>()
    );
    let elsewhere: Vec<_> = unnamed.iter().take(3).collect();
    let missing: Vec<_> = expected.keys().filter(|stack| !found.contains_key(*stack)).take(3).collect();
    assert!(wrong.is_empty(), "{:#?}; not found: {missing:#?}", &wrong[..wrong.len().min(3)]);
    assert!(pages >= TOUCHES * 99 / 100, "{pages}; not found: {missing:#?}; elsewhere: {elsewhere:#?}");
}
