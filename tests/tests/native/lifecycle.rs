//! What memtrail leaves in the kernel: nothing, however it ends. And two of them do not disturb each other.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::report;
use harness::workload::Workload;
use std::collections::BTreeSet;
use std::time::Duration;

const BYTES: u64 = 64 << 20;
const MIB: f64 = (1 << 20) as f64;

/// Ids of the BPF objects that a process holds.
#[derive(Debug, Default)]
struct Held {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Held {
    fn by(pid: u32) -> Held {
        let mut held = Held::default();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
            // A descriptor that is closed by now is none of the trace's.
            let Ok(text) = std::fs::read_to_string(entry.unwrap().path()) else { continue };
            for line in text.lines() {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                let ids = match name {
                    "prog_id" => &mut held.programs,
                    "map_id" => &mut held.maps,
                    "link_id" => &mut held.links,
                    _ => continue,
                };
                ids.extend(value.trim().parse::<u32>());
            }
        }
        // A link also names its program.
        assert!(held.programs.len() >= 4 && held.maps.len() >= 10, "{held:?}");
        held
    }

    /// Those that the kernel still has.
    fn left(&self) -> Held {
        let programs: BTreeSet<u32> = aya::programs::loaded_programs().filter_map(Result::ok).map(|info| info.id()).collect();
        let maps: BTreeSet<u32> = aya::maps::loaded_maps().filter_map(Result::ok).map(|info| info.id()).collect();
        let links: BTreeSet<u32> = aya::programs::loaded_links().filter_map(Result::ok).map(|info| info.id()).collect();
        Held { programs: &self.programs & &programs, maps: &self.maps & &maps, links: &self.links & &links }
    }

    /// The kernel frees them after a grace period of its own.
    fn assert_gone(&self) {
        let mut left = self.left();
        for _ in 0..100 {
            if left.programs.is_empty() && left.maps.is_empty() && left.links.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
            left = self.left();
        }
        panic!("left behind: {left:?}");
    }
}

#[test]
#[ignore = "root"]
fn native_nothing_is_left_at_the_end() {
    let cgroup = TestCgroup::new("detach").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    let held = Held::by(memtrail.pid());
    println!("{} programs, {} maps, {} links", held.programs.len(), held.maps.len(), held.links.len());
    assert!(!held.left().programs.is_empty() && !held.left().maps.is_empty(), "the question itself works");
    memtrail.stop().unwrap();
    held.assert_gone();
}

#[test]
#[ignore = "root"]
fn native_nothing_is_left_after_a_kill() {
    let cgroup = TestCgroup::new("killed").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let held = Held::by(memtrail.pid());
    memtrail.kill().unwrap();
    held.assert_gone();
}

/// The time is printed for people: it depends on the machine.
#[test]
#[ignore = "root"]
fn native_attach_time_is_told() {
    let output = harness::memtrail::command().unwrap().args(["doctor", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let milliseconds = findings["attach_ms"].as_f64().unwrap();
    println!("attaching and taking the baseline took {milliseconds:.0} ms");
    assert!(milliseconds > 0.0);
}

/// The README's figures are those of a release build; this holds for every build.
#[test]
#[ignore = "root"]
fn native_the_collector_is_small_while_nothing_happens() {
    const MOST: u64 = 68 << 20;
    let memtrail = Memtrail::start::<&str>(&[]).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let report = memtrail.stop().unwrap().report;
    let (collector, tables) = (report["cost"]["collector_rss_bytes"].as_u64().unwrap(), report["cost"]["map_bytes"].as_u64().unwrap());
    println!("collector {:.1} MiB at most, tables {:.1} MiB", collector as f64 / MIB, tables as f64 / MIB);
    assert!(collector <= MOST && tables <= MOST, "{collector} and {tables} bytes");
}

#[test]
#[ignore = "root"]
pub(super) fn native_two_at_once_are_both_right() {
    let cgroup = TestCgroup::new("both").unwrap();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", &BYTES.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let before = cgroup.settled_kinds().unwrap().anon;
    let first = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let second = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    workload.run_to("touched").unwrap();
    let change = u64::try_from(cgroup.settled_kinds().unwrap().anon - before).unwrap();
    for (name, memtrail) in [("first", first), ("second", second)] {
        let outcome = memtrail.stop().unwrap();
        let row = report::kind(&outcome.report, cgroup.path(), "anon").unwrap().unwrap();
        let losses = report::losses(&outcome.report).unwrap();
        println!("{name}: live {:?} of {change}, losses {losses:?}", row.live);
        assert!(row.live.unwrap().abs_diff(change) <= change / 100 + (512 << 10), "{name}: {row:?}, expected {change}");
        assert!(losses.is_empty(), "{name}: {losses:?}");
        assert!(report::is_whole(&outcome).unwrap(), "{}", outcome.stderr);
    }
}
