//! Methods that a JVM runs: each stack against what Java itself says, and the names in an autopsy.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args, record_args_of};
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
    let done =
        Command::new("javac").args(["-encoding", "UTF-8", "-Xlint:-options", "--release", "8", "-d"]).arg(folder).arg(PROGRAM).status();
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
    command
        .args(["-Xmx96m", "-Dfile.encoding=UTF-8", "-XX:+UnlockDiagnosticVMOptions", "-XX:+ShowHiddenFrames"])
        .args(options)
        .arg("-cp")
        .arg(classes);
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

    // By what was found, whether it is what was touched: the same methods make objects, too.
    let (mut found, mut short, mut elsewhere) = (BTreeMap::<(String, bool), u64>::new(), 0, BTreeSet::new());
    for line in std::fs::read_to_string(&folded).unwrap().lines() {
        let (stack, bytes) = line.rsplit_once(' ').unwrap();
        let frames: Vec<&str> = stack.split(';').collect();
        let is_told = |frame: &&str| source::of(frame).is_some() || *frame == LEFT_OUT;
        let mut named: Vec<&str> = frames.iter().copied().filter(is_told).collect();
        let (is_shared, pages) = (frames.last() == Some(&"[shmem]"), bytes.parse::<u64>().unwrap() / 4096);
        if named.iter().any(|frame| frame.starts_with("Stacks.warm (")) {
            continue;
        }
        // Of the innermost frame a compiler may have kept no more than what comes next: the first method of that is right.
        if let Some(near) = named.iter().position(|frame| source::is_near(frame)).filter(|near| is_shared && *near > 0) {
            let outer: String = named[..near].iter().map(|frame| format!("{frame} > ")).collect();
            let begins = outer + source::of(named[near]).unwrap().function;
            if expected.keys().any(|stack| stack.starts_with(&begins)) {
                short += pages;
                continue;
            }
        }
        if let Some(touch) = named.iter().rposition(|frame| frame.starts_with("Stacks.touch (")) {
            named.truncate(touch);
            named.push("Stacks.touch");
            *found.entry((named.join(" > "), is_shared)).or_default() += pages;
        } else if is_shared {
            elsewhere.insert(stack.to_owned());
        }
    }
    // Of deeper stacks than are kept the outer and the inner frames are those of one that Java says.
    let is_expected = |stack: &str| match stack.split_once(&format!("{LEFT_OUT} > ")) {
        None => expected.contains_key(stack),
        Some((outer, inner)) => expected.keys().any(|stack| stack.starts_with(outer) && stack.ends_with(inner)),
    };
    // What is near makes objects, too.
    let wrong: Vec<_> = found.keys().filter(|(stack, _)| !stack.contains(":~") && !is_expected(stack)).collect();
    let touched = || found.iter().filter(|((_, is_touched), _)| *is_touched);
    let cut: u64 = touched().filter(|((stack, _), _)| stack.contains(LEFT_OUT)).map(|(_, pages)| pages).sum();
    let in_stack = |(stack, pages): (&String, &u64)| found.get(&(stack.clone(), true)).copied().unwrap_or(0).min(*pages);
    let whole: u64 = expected.iter().map(in_stack).sum();
    // Objects may stand in such memory, too.
    let (cut, short) = (cut.min(TOUCHES - whole), short.min(TOUCHES - whole));
    let pages = whole + (cut + short).min(TOUCHES - whole);
    println!(
        "{} {options:?} {warm}: {} stacks, {pages} of {TOUCHES} pages in the methods that Java says ({cut} of them in stacks that are cut, {short} of them near the innermost ones), {} stacks that it does not say, {} elsewhere; {:?}",
        java.display(),
        expected.len(),
        wrong.len(),
        elsewhere.len(),
        outcome.report["losses"].as_object().unwrap().iter().filter(|(_, count)| **count != 0).collect::<Vec<_>>()
    );
    let elsewhere: Vec<_> = elsewhere.iter().take(3).collect();
    let missing: Vec<_> = expected.keys().filter(|stack| !found.contains_key(&((*stack).clone(), true))).take(3).collect();
    assert!(short == 0 || !options.contains(&"-Xint"), "the interpreter knows every place");
    assert!(wrong.is_empty(), "{:#?}; not found: {missing:#?}", &wrong[..wrong.len().min(3)]);
    assert!(pages >= TOUCHES * 99 / 100, "{pages}; not found: {missing:#?}; elsewhere: {elsewhere:#?}");
}

/// A container that a Java program fills is killed, and the autopsy names the method: of direct buffers, and of objects.
#[test]
#[ignore = "root, and a JDK"]
fn native_the_autopsy_of_a_java_program_names_its_methods() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("Session.java"),
        "import java.nio.ByteBuffer;
import java.util.*;
public class Session {
    static final List<Object> KEPT = new ArrayList<>();
    static void readSession() {
        KEPT.add(ByteBuffer.allocateDirect(1 << 20));
    }
    static void cacheRow() {
        KEPT.add(new long[1 << 17]);
    }
    static void handle(boolean reads) {
        while (true) if (reads) readSession(); else cacheRow();
    }
    public static void main(String[] args) throws Exception {
        int others = Integer.parseInt(args[1]);
        for (int n = 0; n < others; n++) {
            Thread other = new Thread(() -> handle(args[0].equals(\"reads\")));
            other.setDaemon(true);
            other.start();
        }
        handle(args[0].equals(\"reads\"));
    }
}
",
    )
    .unwrap();
    assert!(Command::new("javac").current_dir(&folder).arg("Session.java").status().expect("a JDK is installed").success());
    for (what, others, method) in
        [("reads", "0", "Session.readSession (Session.java:6)"), ("caches", "50", "Session.cacheRow (Session.java:9)")]
    {
        let cgroup = TestCgroup::new("java-oom").unwrap();
        cgroup.limit(192 << 20).unwrap();
        // It lives for a second or two, and is not waited for.
        let memtrail = Memtrail::start_with_tables(&record_args(cgroup.path(), Mode::Exact)).unwrap();
        let mut command = Command::new("java");
        // Objects of this size are not moved: what a collector copies stands below its own functions.
        command
            .args(["-Xmx512m", "-XX:+UseG1GC", "-XX:MaxDirectMemorySize=512m", "-cp"])
            .arg(folder.path())
            .args(["Session", what, others]);
        enter(&mut command, &cgroup).unwrap();
        assert!(!command.status().unwrap().success(), "it was not killed");
        let outcome = memtrail.stop().unwrap();
        let autopsies = outcome.report["oom"].as_array().unwrap();
        // Threads that still run may meet the limit again before their process is gone.
        assert!(!autopsies.is_empty());
        let sentence = autopsies[0]["verdict"].as_str().unwrap();
        println!("{sentence}");
        assert!(sentence.contains(&format!("through {method}")), "{sentence}");
        // Of what the program's own code caused, all but what it did before the JVM was known stands below the method.
        let caused = |row: &&serde_json::Value| {
            row["frames"].as_array().unwrap().iter().any(|frame| {
                let frame = frame.as_str().unwrap();
                frame.starts_with("JavaCalls::call_helper(") || frame == "[jit]"
            }) && row["kind"] == "anon"
        };
        let live = |row: &serde_json::Value| row["live"].as_u64().unwrap();
        let stacks = autopsies[0]["stacks"].as_array().unwrap();
        let in_method = |row: &&serde_json::Value| row["frames"].as_array().unwrap().iter().any(|frame| frame == method);
        let (all, named): (u64, u64) =
            (stacks.iter().filter(caused).map(live).sum(), stacks.iter().filter(caused).filter(in_method).map(live).sum());
        let is_direct = autopsies[0]["verdicts"].as_array().unwrap().iter().any(|verdict| verdict["id"] == "java-direct-memory");
        assert_eq!(is_direct, what == "reads", "{}", autopsies[0]["verdicts"]);
        println!("{what}, {others} more threads: {named} of {all} bytes below {method}");
        assert!(all > 64 << 20 && named >= all / 100 * 95, "{named} of {all}");
    }
}

/// What says it is a JVM and lies loses no byte, is followed nowhere without a bound, and names nothing but itself.
#[test]
#[ignore = "root, and gcc"]
fn native_a_jvm_that_lies_is_not_followed() {
    /// Pages for each lie, and how many of those there are.
    const PAGES: u64 = 100;
    const LIES: usize = 19;
    let folder = tempfile::tempdir().unwrap();
    let (library, program) = (folder.path().join("libjvm.so"), folder.path().join("lying_jvm"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/native/programs/lying_jvm.c");
    let compile = |arguments: &[&str], to: &Path| Command::new("gcc").args(["-O1", source, "-o"]).arg(to).args(arguments).status().unwrap();
    assert!(compile(&["-DLIBRARY", "-shared", "-fPIC"], &library).success());
    assert!(compile(&["-ldl"], &program).success());
    let [cgroup, honest_cgroup] = ["java-lies", "java-honest"].map(|name| TestCgroup::new(name).unwrap());
    let mut arguments = record_args_of(&[cgroup.path(), honest_cgroup.path()], Mode::Exact, None);
    let folded = folder.path().join("stacks.folded");
    arguments.extend(["-o".to_owned(), folded.display().to_string()]);
    let memtrail = Memtrail::start(&arguments).unwrap();
    let run = |lie: usize, pages: u64| {
        let mut command = Command::new(&program);
        command.arg(&library).args([lie.to_string(), pages.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        enter(&mut command, if lie == 0 { &honest_cgroup } else { &cgroup }).unwrap();
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "done\n", "lie {lie}");
        child
    };
    // The first one makes the library known.
    let first = run(0, 1);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let children: Vec<_> = (0..=LIES).map(|lie| run(lie, PAGES)).collect();
    let outcome = memtrail.stop().unwrap();
    for mut child in std::iter::once(first).chain(children) {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
    let text = std::fs::read_to_string(&folded).unwrap();
    let (mut touched, mut honest, mut deepest) = (0, 0, 0);
    for line in text.lines() {
        let (stack, bytes) = line.rsplit_once(' ').unwrap();
        let frames: Vec<&str> = stack.split(';').collect();
        if frames.last() != Some(&"[shmem]") {
            continue;
        }
        let pages = bytes.parse::<u64>().unwrap() / 4096;
        touched += pages;
        deepest = deepest.max(frames.len());
        let is_honest = stack.starts_with(honest_cgroup.path());
        if is_honest
            && frames.windows(3).any(|frames| frames == ["call", "Lies.truthful (Lies.java:?)", "touch"])
            && frames.contains(&"main")
        {
            honest += pages;
        }
    }
    println!("{touched} pages, {honest} of them below the method that is told; at most {deepest} frames; {}", outcome.report["losses"]);
    assert_eq!(touched, 1 + PAGES * (LIES as u64 + 1), "{text}");
    assert!((PAGES..=PAGES + 1).contains(&honest), "those without a lie: {text}");
    // The frames of a stack, cgroup, process, kind, and the marks of what is left out.
    assert!(deepest <= 128 + 6, "{deepest}");
    assert!(!text.contains('\u{1b}'), "names are escaped");
    assert!(outcome.report["losses"]["managed_unreadable"].as_u64().unwrap() > 0);
}
