//! Real JVMs: who holds their direct buffers, and each class of region against the JVM's own account of what it reserved and committed,
//! page by page.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::nmt::{self, Account};
use harness::report;
use harness::workload::enter;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 512 * MIB;
const HEAP: u64 = 128 * MIB;
const DIRECT: u64 = 64 * MIB;

/// Keeps direct buffers, as long as its standard input is open.
const PROGRAM: &str = "
    import java.nio.ByteBuffer;
    import java.util.*;
    public class Leaking {
        static final List<Object> KEPT = new ArrayList<>();
        static void leakBuffers(int count) { for (int i = 0; i < count; i++) KEPT.add(ByteBuffer.allocateDirect(1 << 20)); }
        public static void main(String[] args) throws Exception {
            leakBuffers(64);
            System.out.println(KEPT.size());
            System.in.read();
        }
    }";
const OPTIONS: [&str; 7] = [
    "-Xms128m",
    "-Xmx128m",
    "-XX:+UseG1GC",
    "-Xcomp",
    "-XX:TieredStopAtLevel=1",
    "-XX:CompileCommand=quiet",
    "-XX:CompileCommand=dontinline,Leaking.leakBuffers",
];

/// The program's recording, from before it began until its buffers were there.
struct Recorded {
    cgroup: TestCgroup,
    folder: tempfile::TempDir,
    /// Still there.
    java: Child,
    outcome: Outcome,
    /// If it keeps one.
    account: Option<Account>,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // It ends when its input does; it may be gone already.
        drop(self.java.stdin.take());
        let _ = self.java.wait();
    }
}

fn record(name: &str, options: &[&str]) -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Leaking.java"), PROGRAM).unwrap();
    assert!(Command::new("javac").current_dir(&folder).arg("Leaking.java").status().expect("a JDK is installed").success());
    let cgroup = TestCgroup::new(name).unwrap();
    cgroup.limit(LIMIT).unwrap();
    let mut arguments = record_args(cgroup.path(), Mode::Exact);
    arguments.extend(["-o".to_owned(), folder.path().join("jvm.mtrail").display().to_string()]);
    let memtrail = Memtrail::start(&arguments).unwrap();
    let mut command = Command::new("java");
    command.args(OPTIONS).args(options).arg("Leaking").current_dir(&folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    enter(&mut command, &cgroup).unwrap();
    let mut java = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(java.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let keeps_account = options.iter().any(|option| option.contains("NativeMemoryTracking"));
    let account = keeps_account.then(|| Account::ask(java.id()).unwrap());
    let outcome = memtrail.stop().unwrap();
    Recorded { cgroup, folder, java, outcome, account }
}

impl Recorded {
    fn regions(&self) -> &[Value] {
        report::cgroup(&self.outcome.report, self.cgroup.path()).unwrap().unwrap()["regions"].as_array().unwrap()
    }

    fn sum(&self, class: &str, figure: &str) -> u64 {
        self.regions().iter().filter(|row| row["class"] == class).map(|row| row[figure].as_u64().unwrap()).sum()
    }

    /// What `memtrail report` prints of the recording.
    fn shown(&self, arguments: &[&str]) -> String {
        let recording: PathBuf = self.folder.path().join("jvm.mtrail");
        let mut command = harness::memtrail::command().unwrap();
        let output = command.arg("report").arg(recording).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Each class against the pages that are there of what the JVM says it has committed, or reserved for stacks: some it commits by touching.
    /// A page of a small figure is more than 5 % of it, and the JVM goes on between the two looks.
    fn agrees_with_the_account(&self) {
        let account = self.account.as_ref().unwrap();
        let of = |ranges: &std::collections::BTreeMap<String, Vec<(u64, u64)>>, categories: &[&str]| -> u64 {
            categories
                .iter()
                .filter_map(|category| ranges.get(*category))
                .map(|ranges| nmt::resident(self.java.id(), ranges).unwrap())
                .sum()
        };
        let stacks = self.regions().iter().filter(|row| row["class"] == "thread-stack");
        // The first thread is the launcher's, which the JVM does not count.
        let stacks =
            stacks.filter(|row| row["recognised_by"] != "name given by the kernel").map(|row| row["resident"].as_u64().unwrap()).sum();
        for (class, resident, truth) in [
            ("java-heap", self.sum("java-heap", "resident"), of(&account.committed, &["Java Heap"])),
            ("java-metaspace", self.sum("java-metaspace", "resident"), of(&account.committed, &["Metaspace", "Class"])),
            ("java-code", self.sum("java-code", "resident"), of(&account.committed, &["Code"])),
            ("java-gc", self.sum("java-gc", "resident"), of(&account.committed, &["GC"])),
            ("thread-stack", stacks, of(&account.reserved, &["Thread Stack"])),
        ] {
            println!("{class}: {resident} resident, {truth} by the JVM's account and the page map");
            assert!(truth > 0 && resident.abs_diff(truth) <= (truth / 20).max(8192), "{class}: {resident}, {truth}");
        }
        let traced = self.sum("java-heap", "live") + self.sum("java-metaspace", "live");
        assert_eq!(traced, self.sum("java-heap", "resident") + self.sum("java-metaspace", "resident"), "all of it was traced");
    }
}

/// Direct buffers that a named method leaks: the method holds them, metaspace and the collector's tables are known by the functions that
/// reserved them, and the JVM's own account stands beside the regions.
#[test]
#[ignore = "root, and a JDK"]
fn long_jvm_leaks_direct_buffers() {
    let recorded = record("leaking", &["-XX:NativeMemoryTracking=detail"]);
    let in_method = |row: &report::StackRow| row.frames.iter().any(|frame| frame.starts_with("Leaking.leakBuffers (Leaking.java:6)"));
    let stacks = report::stacks(&recorded.outcome.report, recorded.cgroup.path()).unwrap();
    let leaked: u64 = stacks.iter().filter(|row| in_method(row)).map(|row| row.live).sum();
    println!("through leakBuffers: {leaked}");
    assert!((DIRECT * 9 / 10..DIRECT + 2 * MIB).contains(&leaked), "{leaked}");
    assert!(in_method(&stacks[0]), "{:?}", stacks[0]);

    recorded.agrees_with_the_account();
    assert_eq!(recorded.sum("java-heap", "reserved"), HEAP);
    // The class space alone is 1 GiB.
    assert!(recorded.sum("java-metaspace", "reserved") > 900 * MIB && recorded.sum("java-gc", "reserved") > MIB);
    assert!(recorded.sum("other", "resident") < MIB);
    for (class, function) in [("java-metaspace", "etaspace::"), ("java-gc", "G1"), ("java-code", "CodeCache::")] {
        let origins = recorded.regions().iter().filter(|row| row["class"] == class).filter_map(|row| row["origin"].as_array());
        assert!(origins.flatten().any(|frame| frame.as_str().unwrap().contains(function)), "{class}");
    }

    let nmt = recorded.folder.path().join("nmt.txt");
    let account = Command::new("jcmd").arg(recorded.java.id().to_string()).arg("VM.native_memory").output().unwrap();
    std::fs::write(&nmt, account.stdout).unwrap();
    let text = recorded.shown(&["--view", "regions", "--nmt", nmt.to_str().unwrap()]);
    println!("{text}");
    let line = |name: &str| text.lines().find(|line| line.starts_with(&format!("  {name} "))).unwrap_or_else(|| panic!("no {name}"));
    assert!(line("Java Heap").contains("128.0 MiB"), "{}", line("Java Heap"));
    assert!(text.contains("NMT gap: ") && !text.contains("PreserveFramePointer"), "{text}");
}

/// Without the archive of classes all of them are in metaspace, and the class space elsewhere; the heap is touched before it is used.
#[test]
#[ignore = "root, and a JDK"]
fn long_jvm_without_an_archive() {
    let recorded = record("no-archive", &["-Xshare:off", "-XX:+AlwaysPreTouch", "-XX:NativeMemoryTracking=detail"]);
    recorded.agrees_with_the_account();
    assert_eq!(recorded.sum("java-heap", "resident"), HEAP);
    assert!(recorded.sum("java-metaspace", "resident") > 2 * MIB);
}

/// As most JVMs run, without an account of its own: direct buffers are malloc's blocks, little has no class, and the summary names the method.
#[test]
#[ignore = "root, and a JDK"]
fn long_jvm_as_most_are_run() {
    let recorded = record("plain", &[]);
    for row in recorded.regions() {
        println!("{row}");
    }
    assert_eq!(recorded.sum("java-heap", "reserved"), HEAP);
    for class in ["java-heap", "java-code", "java-metaspace", "java-gc", "thread-stack", "glibc-arena", "mmap-malloc"] {
        let (live, resident) = (recorded.sum(class, "live"), recorded.sum(class, "resident"));
        assert!(live > 0 && live.abs_diff(resident) <= (resident / 50).max(8192), "{class}: {live} live, {resident} resident");
    }
    let blocks = recorded.sum("mmap-malloc", "live");
    assert!((DIRECT..DIRECT * 5 / 4).contains(&blocks), "{blocks}");
    assert!(recorded.sum("other", "resident") < MIB, "{}", recorded.sum("other", "resident"));
    let text = recorded.shown(&[]);
    println!("{text}");
    assert!(text.contains("Leaking.leakBuffers (Leaking.java:6)") && !text.contains("PreserveFramePointer"), "{text}");
}
