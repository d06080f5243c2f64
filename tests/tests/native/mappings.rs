//! Address space: who asked for it, by which call, though nothing of it is resident; and what regions say of their origin.

use harness::cgroup::TestCgroup;
use harness::child::KilledChild;
use harness::kernel;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args, record_args_of};
use harness::report;
use harness::workload::{Step, Workload, enter};
use serde_json::Value;

use std::process::{Command, Stdio};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 512 * MIB;

struct Recorded {
    cgroup: TestCgroup,
    outcome: Outcome,
    last: Step,
    /// The process still stands at its last step.
    _workload: Workload,
}

fn record(name: &str, args: &[&str], stop_at: &str, provider: Option<&str>) -> Recorded {
    let cgroup = TestCgroup::new(name).unwrap();
    cgroup.limit(LIMIT).unwrap();
    let mut workload = Workload::start(&cgroup, args).unwrap();
    workload.run_to("ready").unwrap();
    // A call whose stack is cut has a row of its own.
    let memtrail = Memtrail::start_with_tables(&record_args_of(&[cgroup.path()], Mode::Default, provider)).unwrap();
    let last = workload.run_to(stop_at).unwrap().pop().unwrap();
    let outcome = memtrail.stop().unwrap();
    Recorded { cgroup, outcome, last, _workload: workload }
}

/// Whether a stack goes through a function.
fn through(row: &Value, function: &str) -> bool {
    row["frames"].as_array().unwrap().iter().any(|frame| frame == function)
}

impl Recorded {
    fn cgroup(&self) -> &Value {
        report::cgroup(&self.outcome.report, self.cgroup.path()).unwrap().expect("the cgroup is in the report")
    }

    /// Rows of what a function asked for.
    fn asked(&self, function: &str) -> Vec<&Value> {
        let rows = self.cgroup()["mappings"].as_array().expect("mappings are followed on this kernel");
        rows.iter().filter(|row| row["pid"] == self.last.pid && through(row, function)).collect()
    }

    /// Call, bytes and calls of the one row of a function.
    fn one(&self, function: &str) -> (String, u64, u64) {
        let rows = self.asked(function);
        assert_eq!(rows.len(), 1, "{function}: {rows:?}");
        assert_eq!(rows[0]["bytes_stderr"], 0);
        (rows[0]["call"].as_str().unwrap().to_owned(), rows[0]["bytes"].as_u64().unwrap(), rows[0]["calls"].as_u64().unwrap())
    }

    fn regions(&self, class: &str) -> Vec<&Value> {
        let rows = self.cgroup()["regions"].as_array().unwrap().iter();
        rows.filter(|row| row["class"] == class && row["pid"] == self.last.pid).collect()
    }

    /// Bytes of a class's regions that a function mapped ("origins") or took into use ("growers").
    fn origin(&self, class: &str, list: &str, function: &str) -> u64 {
        let rows = self.regions(class).into_iter().flat_map(|row| row[list].as_array().unwrap());
        rows.filter(|row| through(row, function)).map(|row| row["bytes"].as_u64().unwrap()).sum()
    }

    fn sum(&self, class: &str, figure: &str) -> u64 {
        self.regions(class).iter().map(|row| row[figure].as_u64().unwrap()).sum()
    }
}

/// With each provider that this kernel has, and arenas as glibc counts them. Small enough for emulated machines.
#[test]
#[ignore = "root"]
fn native_address_space_on_this_kernel() {
    nobody_touches(None);
    if kernel::has_kprobes() {
        nobody_touches(Some("kprobe"));
        // Those of the lock of an address space (5.11 and later).
        if std::fs::read_to_string("/proc/kallsyms").unwrap().contains("__traceiter_mmap_lock_released") {
            nobody_touches(Some("tracepoint"));
        }
    }
    super::regions::malloc_and_threads(4, "16M");
}

/// Nothing is touched: reserved to the byte, by call and stack, and nothing resident.
fn nobody_touches(provider: Option<&str>) {
    const BYTES: u64 = 256 * MIB;
    let recorded = record("untouched", &["reserve", "--bytes", "256M"], "reserved", provider);
    println!("{provider:?}: {}", recorded.outcome.report["mapping"]);
    let plan = recorded.outcome.report["plan"].as_array().unwrap();
    let used = &plan.iter().find(|row| row["probe"] == "mapping").unwrap()["provider"];
    assert!(provider.is_none_or(|provider| *used == provider), "{used}");
    // Two of all, one of an eighth, one of a sixteenth that is given back.
    assert_eq!(recorded.one("wl_map_untouched"), ("mmap".into(), 2 * BYTES + BYTES / 8 + BYTES / 16, 4));
    assert_eq!(recorded.one("wl_grow_heap"), ("brk".into(), BYTES / 4, 1));
    assert_eq!(recorded.one("wl_move"), ("mremap".into(), BYTES / 8, 1));

    for row in recorded.cgroup()["regions"].as_array().unwrap() {
        println!("{row}");
    }
    // What is still there has its origin, and the place of what was given back has none.
    assert_eq!(recorded.origin("other", "origins", "wl_map_untouched"), 2 * BYTES + BYTES / 8);
    assert_eq!(recorded.origin("other", "origins", "wl_move"), BYTES / 8);
    assert_eq!(recorded.origin("other", "growers", "wl_open_half"), BYTES / 2);
    assert_eq!(recorded.origin("brk-heap", "origins", "wl_grow_heap"), BYTES / 4);
    let origin = &recorded.regions("other")[0]["origin"];
    assert!(origin.as_array().unwrap().iter().any(|frame| frame == "wl_map_untouched"), "{origin}");
    assert!(recorded.sum("other", "reserved") >= 2 * BYTES + BYTES / 4);
    assert!(recorded.sum("brk-heap", "reserved") >= BYTES / 4);
    assert!(recorded.sum("other", "resident") + recorded.sum("brk-heap", "resident") < MIB);

    let mapping = &recorded.outcome.report["mapping"];
    assert!(mapping["calls"].as_u64().unwrap() >= 8 && mapping["dropped"] == 0, "{mapping}");
    // What was there before is known too, and nothing else is.
    assert_eq!(mapping["differing_bytes"], 0, "{mapping}");
    assert!(report::is_whole(&recorded.outcome).unwrap(), "{}", recorded.outcome.stderr);
}

/// A storm is thinned: the sum is right within its error, the tables stay small, and how much was passed over is said.
#[test]
#[ignore = "root"]
fn native_mappings_in_a_storm() {
    const ROUNDS: u64 = 150_000;
    let recorded = record("storm", &["mmap-storm", "--rounds", "150000"], "ended", None);
    let mapping = &recorded.outcome.report["mapping"];
    println!("{mapping}, {} ns a pair", recorded.last.figures["ns_per_pair"]);
    let rows = recorded.asked("wl_storm_map");
    assert_eq!(rows.len(), 1, "{rows:?}");
    let (bytes, calls) = (rows[0]["bytes"].as_u64().unwrap(), rows[0]["calls"].as_u64().unwrap());
    let stderr = rows[0]["bytes_stderr"].as_u64().unwrap();
    println!("{bytes} ± {stderr} in {calls} calls");
    // Less the first MiB, from which on the process is followed.
    let known = ROUNDS * (64 << 10) - MIB;
    assert!(stderr > 0 && stderr < known / 10, "{stderr}");
    assert!(bytes.abs_diff(known) <= 3 * stderr + MIB, "{bytes} ± {stderr}, known {known}");
    assert_eq!(calls, bytes / (64 << 10));
    assert!(mapping["thinned"].as_u64().unwrap() > ROUNDS, "{mapping}");
    let sizes = &recorded.cgroup()["histograms"]["mapping_bytes"];
    let count = sizes["count"].as_f64().unwrap();
    println!("sizes: {sizes}");
    assert!(
        (count / ROUNDS as f64 - 1.0).abs() < 3.0 * stderr as f64 / known as f64 && sizes["p50"].as_u64().unwrap().abs_diff(65_536) < 64
    );
    // These are estimated as well: a pair is two calls.
    let least = 2.0 * ROUNDS as f64 * (1.0 - 3.0 * stderr as f64 / known as f64) - 100.0;
    assert!(mapping["calls"].as_u64().unwrap() as f64 >= least, "{mapping}, at least {least}");
    assert!(mapping["ranges"].as_u64().unwrap() < 10_000, "{mapping}");
    assert!(report::is_whole(&recorded.outcome).unwrap(), "{}", recorded.outcome.stderr);
}

/// A ring that is far too small: what was lost is counted, the sums are right, no region has a wrong origin, and what comes afterwards is as
/// right as ever.
#[test]
#[ignore = "root"]
fn native_mappings_lost_in_a_small_ring() {
    const ROUNDS: u64 = 30_000;
    const BYTES: u64 = 64 * MIB;
    let cgroup = TestCgroup::new("ring").unwrap();
    cgroup.limit(LIMIT).unwrap();
    let mut workload = Workload::start(&cgroup, &["reserve", "--rounds", "30000", "--bytes", "64M"]).unwrap();
    workload.run_to("ready").unwrap();
    let mut arguments = record_args(cgroup.path(), Mode::Default);
    arguments.extend(["--table", "MAPPING_EVENTS=4096"].map(str::to_owned));
    // A call whose stack is cut has a row of its own.
    let memtrail = Memtrail::start_with_tables(&arguments).unwrap();
    workload.run_to("stormed").unwrap();
    // The ring is emptied, and the window of the storm is over.
    std::thread::sleep(Duration::from_secs(1));
    let last = workload.run_to("reserved").unwrap().pop().unwrap();
    let recorded = Recorded { outcome: memtrail.stop().unwrap(), cgroup, last, _workload: workload };
    let (lost, mapping) = (report::all_losses(&recorded.outcome.report).unwrap(), &recorded.outcome.report["mapping"]);
    println!("{lost:?}, {mapping}");
    assert!(lost.get("mapping_event_lost").is_some_and(|events| *events > 0), "{lost:?}");
    let rows = recorded.asked("wl_storm_map");
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = rows[0];
    let (bytes, stderr) = (row["bytes"].as_u64().unwrap(), row["bytes_stderr"].as_u64().unwrap());
    let known = ROUNDS * (64 << 10) - MIB;
    assert!(bytes.abs_diff(known) <= 3 * stderr + MIB, "{bytes} ± {stderr}, known {known}");
    // Every mapping of the storm was given back.
    let regions = recorded.cgroup()["regions"].as_array().unwrap().iter();
    let of_storm = regions.flat_map(|row| row["origins"].as_array().unwrap()).filter(|row| through(row, "wl_storm_map"));
    assert_eq!(of_storm.count(), 0);
    // Looked at anew, and to the byte as the kernel lists it.
    assert!(mapping["repaired"].as_u64().unwrap() > 0 && mapping["differing_bytes"] == 0, "{mapping}");
    assert_eq!(recorded.one("wl_map_untouched"), ("mmap".into(), 2 * BYTES + BYTES / 8 + BYTES / 16, 4));
    assert_eq!(recorded.origin("other", "origins", "wl_map_untouched"), 2 * BYTES + BYTES / 8);
    assert_eq!(recorded.origin("brk-heap", "growers", "wl_grow_heap"), BYTES / 4);
    assert!(report::is_whole(&recorded.outcome).unwrap(), "address space is no memory: {}", recorded.outcome.stderr);
}

/// As many mappings as a process may have: bounded, and none is missing.
#[test]
#[ignore = "root"]
fn long_mappings_sixty_thousand() {
    const MAPPINGS: u64 = 60_000;
    let recorded = record("many", &["many-mappings", "--rounds", "60000"], "mapped", None);
    let (mapping, cost) = (&recorded.outcome.report["mapping"], &recorded.outcome.report["cost"]);
    println!("{mapping}, {cost}");
    let row = recorded.asked("wl_map_untouched")[0];
    let (bytes, stderr) = (row["bytes"].as_u64().unwrap(), row["bytes_stderr"].as_u64().unwrap());
    assert!(bytes.abs_diff(MAPPINGS * 4096 - MIB) <= 3 * stderr + MIB, "{bytes} ± {stderr}");
    assert!(recorded.sum("other", "reserved") >= MAPPINGS * 4096 && recorded.sum("other", "resident") < MIB);
    assert_eq!((&mapping["differing_bytes"], &mapping["dropped"]), (&0.into(), &0.into()), "{mapping}");
    assert!(cost["collector_rss_bytes"].as_u64().unwrap() < 256 * MIB, "{cost}");
}

/// What a process has mapped is kept as its calls tell it: real programs that map, remap, give back, fork and execute for a minute, and no byte
/// is amiss.
#[test]
#[ignore = "root, a JDK, python3 and rustc"]
fn long_mappings_as_the_kernel_lists_them() {
    const JAVA: &str = "
        public class Busy {
            static byte[][] kept = new byte[512][];
            public static void main(String[] args) throws Exception {
                for (long i = 0; ; i++) {
                    final long n = i;
                    Thread thread = new Thread(() -> kept[(int) (n % 512)] = new byte[(int) (n * 7919 % 100_000)]);
                    thread.start();
                    thread.join();
                    java.nio.ByteBuffer.allocateDirect((int) (n * 104_729 % 1_000_000));
                }
            }
        }";
    const PYTHON: &str = "
import mmap, os, threading
def work(seed):
    kept = {}
    for i in range(1 << 60):
        kept[i * seed % 97] = bytearray(i * 7919 % 3_000_000)
        if i % 50 == 0:
            kept['map'] = mmap.mmap(-1, 1 << 20)
        if i % 500 == 0:
            if os.fork() == 0: os.execvp('true', ['true'])
            os.wait()
for seed in range(4): threading.Thread(target=work, args=(seed + 3,)).start()
";
    let functions =
        (0..3000).map(|n| format!("pub fn f{n}(x: Vec<u64>) -> Vec<u64> {{ x.iter().map(|y| y * {n} + 1).rev().collect() }}\n"));
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("Busy.java", JAVA);
    write("busy.py", PYTHON);
    write("busy.rs", &functions.collect::<String>());
    assert!(Command::new("javac").current_dir(&folder).arg("Busy.java").status().expect("a JDK is installed").success());
    let cgroup = TestCgroup::new("busy").unwrap();
    cgroup.limit(2048 * MIB).unwrap();
    let start = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null());
        enter(&mut command, &cgroup).unwrap();
        KilledChild(command.spawn().unwrap())
    };
    // One is older than the recording.
    let _java = start("java", &["-Xmx128m", "Busy"]);
    std::thread::sleep(Duration::from_secs(2));
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    let _python = start("python3", &["busy.py"]);
    let _compiler = start("sh", &["-c", "while :; do rustc --crate-type lib -O busy.rs; done"]);
    std::thread::sleep(Duration::from_secs(60));
    let stopped = stop_all(&cgroup);
    let outcome = memtrail.stop().unwrap();
    let (mapping, surveyed) = (&outcome.report["mapping"], &outcome.report["surveyed"]);
    println!("{mapping}, {surveyed}, {stopped:?}");
    for pid in stopped {
        // SAFETY: plain system call, on processes of this test's cgroup that are stopped.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    assert!(mapping["calls"].as_u64().unwrap() > 10_000 && surveyed["processes"].as_u64().unwrap() >= 3, "{mapping}, {surveyed}");
    assert_eq!((&mapping["differing_bytes"], &mapping["dropped"]), (&0.into(), &0.into()), "{mapping}");
}

/// Stops all processes of a cgroup, also those that they make meanwhile.
fn stop_all(cgroup: &TestCgroup) -> Vec<i32> {
    let mut stopped = Vec::new();
    loop {
        let pids: Vec<i32> = cgroup.pids().unwrap().into_iter().filter(|pid| !stopped.contains(pid)).collect();
        if pids.is_empty() {
            return stopped;
        }
        for pid in pids {
            // SAFETY: plain system call, on processes of this test's cgroup.
            unsafe { libc::kill(pid, libc::SIGSTOP) };
            stopped.push(pid);
        }
    }
}
