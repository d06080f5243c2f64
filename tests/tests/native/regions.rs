//! What anonymous memory is for: bytes by region class, arenas as glibc itself counts them, and the verdict on them.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::report;
use harness::workload::{Step, Workload};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 512 * MIB;

struct Recorded {
    cgroup: TestCgroup,
    outcome: Outcome,
    last: Step,
    /// The kernel's anonymous memory of the cgroup at the end.
    stat: u64,
}

/// Runs a workload to a step while memtrail records its cgroup.
fn record(name: &str, mode: Mode, args: &[&str], environment: &[(&str, &str)], stop_at: &str) -> Recorded {
    record_until(name, mode, args, environment, stop_at, |_| {})
}

/// The same, with a look at the process at its last step.
fn record_until(name: &str, mode: Mode, args: &[&str], environment: &[(&str, &str)], stop_at: &str, look: impl FnOnce(i32)) -> Recorded {
    let cgroup = TestCgroup::new(&format!("{name}-{mode:?}")).unwrap();
    cgroup.limit(LIMIT).unwrap();
    let mut workload = Workload::start_with(&cgroup, args, environment).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), mode)).unwrap();
    let last = workload.run_to(stop_at).unwrap().pop().unwrap();
    let stat = cgroup.settled_kinds().unwrap().anon as u64;
    look(last.pid);
    let outcome = memtrail.stop().unwrap();
    Recorded { outcome, last, stat, cgroup }
}

impl Recorded {
    fn cgroup(&self) -> &Value {
        report::cgroup(&self.outcome.report, self.cgroup.path()).unwrap().expect("the cgroup is in the report")
    }

    /// Sum of a figure over the rows of a class.
    fn region(&self, class: &str, figure: &str) -> u64 {
        let rows = self.cgroup()["regions"].as_array().unwrap().iter();
        rows.filter(|row| row["class"] == class && row["pid"] == self.last.pid).map(|row| row[figure].as_u64().expect("known")).sum()
    }

    fn arenas(&self) -> &Value {
        let rows = self.cgroup()["arenas"].as_array().unwrap();
        rows.iter().find(|row| row["pid"] == self.last.pid).expect("the process has arenas")
    }

    fn verdict(&self) -> Option<&Value> {
        self.cgroup()["verdicts"].as_array().unwrap().iter().find(|verdict| verdict["id"] == "glibc-arenas")
    }

    fn figure(&self, name: &str) -> u64 {
        self.last.figures[name].as_f64().unwrap() as u64
    }

    /// Live bytes of the class over stacks through a function.
    fn stack_live(&self, function: &str, region: &str) -> u64 {
        let stacks = self.cgroup()["stacks"].as_array().unwrap().iter();
        let through = |row: &&Value| row["frames"].as_array().unwrap().iter().any(|frame| frame == function);
        stacks.filter(through).filter(|row| row["region"] == region).map(|row| row["live"].as_u64().unwrap()).sum()
    }
}

/// `got` is not less than `known`, and not more than 3 % or 1 MiB above it.
#[track_caller]
fn assert_about(what: &str, got: u64, known: u64) {
    let above = (known * 3 / 100).max(MIB);
    println!("{what}: {got}, known {known}");
    assert!(got >= known && got <= known + above, "{what}: {got}, known {known}");
}

/// Arenas, the brk heap, a mapped block and thread stacks of known bytes: each in its class, to the page, and together the kernel's
/// figure.
#[test]
#[ignore = "root"]
fn native_regions_of_malloc_and_threads() {
    malloc_and_threads(8, "128M");
}

/// So many threads with an arena each.
pub fn malloc_and_threads(threads: u64, bytes: &str) {
    let recorded = record("regions", Mode::Exact, &["regions", "--threads", &threads.to_string(), "--bytes", bytes], &[], "filled");
    let known = |name| recorded.figure(name);
    for (class, known) in [
        ("glibc-arena", known("thread_bytes")),
        ("brk-heap", known("heap_bytes")),
        ("mmap-malloc", known("mapped_bytes")),
        ("thread-stack", known("stack_bytes")),
    ] {
        assert_about(&format!("{class} resident"), recorded.region(class, "resident"), known);
        assert_about(&format!("{class} live"), recorded.region(class, "live"), known);
    }
    // One page in 24 is touched by malloc itself, which has no frame pointers, for the header of what is left.
    let through = recorded.stack_live("wl_fill_thread_arena", "glibc-arena");
    assert_about("through wl_fill_thread_arena", through, known("thread_bytes"));
    assert_about("through wl_fill_stack", recorded.stack_live("wl_fill_stack", "thread-stack"), known("stack_bytes"));

    // As glibc says it.
    let arenas = recorded.arenas();
    assert_eq!(arenas["arenas"], known("arenas"));
    assert_eq!(arenas["heaps"], known("heaps"));
    assert_eq!(arenas["committed"], known("arena_committed"));
    assert_eq!(arenas["reserved"], known("heaps") * 64 * MIB);
    assert_eq!(arenas["threads"], threads + 1);
    assert_eq!(arenas["malloc_arena_max"], Value::Null);

    let classes = recorded.cgroup()["regions"].as_array().unwrap();
    let resident: u64 = classes.iter().map(|row| row["resident"].as_u64().unwrap()).sum();
    println!("regions {resident}, memory.stat {}", recorded.stat);
    assert!(resident.abs_diff(recorded.stat) <= MIB, "regions {resident}, memory.stat {}", recorded.stat);
    assert_eq!(recorded.verdict(), None, "memory in use");
    // Each taken folio has its place.
    let unplaced = recorded.outcome.report["surveyed"]["unplaced_bytes"].as_u64().unwrap();
    assert!(unplaced <= 64 << 10, "{unplaced}");
}

/// The same by samples: within three standard errors. Here each arena has several heaps.
#[test]
#[ignore = "root"]
fn native_regions_by_samples() {
    let recorded = record("regions", Mode::Default, &["regions", "--threads", "2", "--bytes", "160M"], &[], "filled");
    let (live, stderr) = (recorded.region("glibc-arena", "live"), recorded.region("glibc-arena", "live_stderr"));
    let known = recorded.region("glibc-arena", "resident");
    println!("glibc-arena: {live} ± {stderr}, resident {known}");
    assert!(stderr > 0 && live.abs_diff(known) <= 3 * stderr + MIB, "{live} ± {stderr}, resident {known}");
    assert_about("glibc-arena resident", known, recorded.figure("thread_bytes"));
    let arenas = recorded.arenas();
    assert_eq!((&arenas["arenas"], &arenas["heaps"]), (&recorded.figure("arenas").into(), &recorded.figure("heaps").into()));
    assert!(recorded.figure("heaps") >= 4 && recorded.figure("arenas") == 3, "{arenas}");
    assert_eq!(arenas["committed"], recorded.figure("arena_committed"));
}

/// What was there before the start is in its class too, and none of it is live.
#[test]
#[ignore = "root"]
fn native_regions_older_than_the_recording() {
    let cgroup = TestCgroup::new("older").unwrap();
    cgroup.limit(LIMIT).unwrap();
    let mut workload = Workload::start(&cgroup, &["regions", "--threads", "4", "--bytes", "32M"]).unwrap();
    let last = workload.run_to("filled").unwrap().pop().unwrap();
    let outcome = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap().stop().unwrap();
    let recorded = Recorded { cgroup, outcome, last, stat: 0 };
    assert_about("glibc-arena resident", recorded.region("glibc-arena", "resident"), recorded.figure("thread_bytes"));
    assert_about("thread-stack resident", recorded.region("thread-stack", "resident"), recorded.figure("stack_bytes"));
    assert_eq!(recorded.region("glibc-arena", "live"), 0);
    assert_eq!(recorded.arenas()["arenas"], recorded.figure("arenas"));
}

#[test]
#[ignore = "root"]
fn native_regions_with_a_limit_on_arenas() {
    // Of the two settings glibc takes the tunable.
    let environment = [("MALLOC_ARENA_MAX", "4"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")];
    let recorded = record("arena-max", Mode::Default, &["regions", "--threads", "8", "--bytes", "64M"], &environment, "filled");
    let arenas = recorded.arenas();
    println!("{arenas}");
    assert_eq!((&arenas["arenas"], recorded.figure("arenas")), (&Value::from(2), 2));
    assert_eq!(arenas["heaps"], recorded.figure("heaps"));
    assert_eq!(arenas["committed"], recorded.figure("arena_committed"));
    assert_eq!((&arenas["malloc_arena_max"], &arenas["tunable_arena_max"]), (&Value::from("4"), &Value::from("2")));
    assert_eq!(arenas["environment_limit"], 2);
}

/// What a process touched that is gone, and that only its child has mapped, is in the child's heap.
#[test]
#[ignore = "root"]
fn native_regions_of_a_parent_that_is_gone() {
    let recorded = record("left-behind", Mode::Exact, &["left-behind", "--bytes", "32M"], &[], "left");
    assert_about("brk-heap resident", recorded.region("brk-heap", "resident"), recorded.figure("heap_bytes"));
    assert_about("brk-heap live", recorded.region("brk-heap", "live"), recorded.figure("heap_bytes"));
    let through = recorded.stack_live("wl_fill_heap", "brk-heap");
    assert_about("through wl_fill_heap", through, recorded.figure("heap_bytes"));
    // Its parent's calls made that heap.
    let heaps = recorded.cgroup()["regions"].as_array().unwrap().iter().filter(|row| row["class"] == "brk-heap");
    let origins = heaps.flat_map(|row| row["origins"].as_array().unwrap()).filter(|row| row["call"] == "brk");
    let grown: u64 = origins.map(|row| row["bytes"].as_u64().unwrap()).sum();
    assert!(grown >= recorded.figure("heap_bytes") * 95 / 100, "{grown}");
}

/// Few threads, many, and more than there are arenas; with glibc's default limit and with a small one; as glibc and the kernel count them. Memory
/// in use is no verdict's business, also where all of it is in the main arena.
#[test]
#[ignore = "root"]
fn long_regions_of_many_threads() {
    for (threads, arena_max) in [(4, ""), (16, ""), (64, ""), (4, "2"), (16, "2"), (64, "2"), (64, "1")] {
        let count = threads.to_string();
        let environment = [("MALLOC_ARENA_MAX", arena_max)];
        let environment = if arena_max.is_empty() { &[][..] } else { &environment[..] };
        let mut kept = None;
        let recorded = record_until(
            "many-threads",
            Mode::Default,
            &["regions", "--threads", &count, "--bytes", "192M"],
            environment,
            "filled",
            |pid| {
                kept = Some(heaps_in_smaps(pid));
            },
        );
        let (heaps, resident) = kept.unwrap();
        let known = |name| recorded.figure(name);
        println!("{threads} threads, {arena_max:?}: {} arenas, {heaps} heaps, {resident} resident", known("arenas"));
        if known("arenas") > 1 {
            let arenas = recorded.arenas();
            assert_eq!((&arenas["arenas"], &arenas["heaps"]), (&known("arenas").into(), &known("heaps").into()), "{arenas}");
            assert_eq!(
                (arenas["committed"].as_u64(), arenas["reserved"].as_u64()),
                (Some(known("arena_committed")), Some(heaps * 64 * MIB))
            );
            let shown = arenas["resident"].as_u64().unwrap();
            assert!(shown.abs_diff(resident) <= (resident * 3 / 100).max(MIB), "{shown}, by smaps {resident}");
            assert_eq!(heaps, known("heaps"));
        } else {
            assert_eq!((recorded.region("glibc-arena", "resident"), heaps), (0, 0));
        }
        assert_eq!(recorded.verdict(), None, "memory in use");
    }
}

/// Blocks of 64 MiB at multiples of it that begin with writable memory, and anonymous bytes in them.
fn heaps_in_smaps(pid: i32) -> (u64, u64) {
    const HEAP: u64 = 64 * MIB;
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut current, mut heaps, mut resident) = (None, std::collections::BTreeSet::new(), 0);
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let Some((start, end)) = words[0].split_once('-').filter(|_| !words[0].ends_with(':')) {
            let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
            let (start, end) = (number(start), number(end));
            let is_nameless = words.len() == 5 && words[4] == "0";
            // Full heaps side by side are one mapping.
            if is_nameless && words[1] == "rw-p" && start % HEAP == 0 {
                heaps.extend((start..end).step_by(HEAP as usize));
            }
            current = Some(start);
        } else if let (Some(start), "Anonymous:") = (current, words[0])
            && heaps.contains(&(start / HEAP * HEAP))
        {
            resident += words[1].parse::<u64>().unwrap() * 1024;
        }
    }
    (heaps.len() as u64, resident)
}

/// Half of the blocks were freed, one by one: a quarter at least is free.
#[test]
#[ignore = "root"]
fn native_regions_verdict_on_freed_blocks() {
    const BYTES: u64 = 192 * MIB;
    let args = ["threads-malloc", "--threads", "12", "--bytes", "192M"];
    let recorded = record("freed", Mode::Default, &args, &[], "half-freed");
    let arenas = recorded.arenas();
    let free = arenas["free"].as_u64().expect("blocks can be followed");
    println!("{arenas}");
    // The rest is in the threads' own caches.
    assert!(free > BYTES * 40 / 100 && free < BYTES * 60 / 100, "{arenas}");
    assert!(arenas["looked_through"].as_u64().unwrap() >= BYTES, "{arenas}");
    let verdict = recorded.verdict().expect("the verdict fires");
    println!("{}", verdict["text"]);
    assert!(verdict["text"].as_str().unwrap().contains("MALLOC_ARENA_MAX"));
    assert_eq!(verdict["evidence"]["limit_bytes"], LIMIT);

    // As many arenas, before anything is freed.
    let recorded = record("in-use", Mode::Default, &args, &[], "filled");
    assert!(recorded.arenas()["resident"].as_u64().unwrap() >= BYTES);
    assert_eq!(recorded.verdict(), None);
}
