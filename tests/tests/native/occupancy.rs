//! Tables stay as full as they are, however many processes come and go.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::report;
use harness::workload::Workload;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longer than a key, and after it its stacks and process, wait until they may leave: for each the grace and up to two passes.
const RETIRED_AFTER: Duration = Duration::from_secs(30);
/// What comes stays that long, so a shorter run only shows that all of it goes again; growth can be told in a longer one.
const STEADY_AFTER_S: f64 = 80.0;
const QUARTERS: usize = 4;

/// A child of a fork; a program, which is loaded anew, at other addresses: its stacks are its own.
const FORKS: &[&str] = &[];
const PROGRAMS: &[&str] = &["--exec"];

/// Each quarter's peak, and what is left at the end, of so many processes of these sorts.
fn occupancy(name: &str, processes: u64, sorts: &[&[&str]]) {
    let share = processes / (QUARTERS * sorts.len()) as u64;
    let cgroup = TestCgroup::new(name).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("run.mtrail");
    let mut args = record_args(cgroup.path(), Mode::Default);
    args.extend(["-o".to_owned(), recording.to_str().unwrap().to_owned()]);
    let memtrail = Memtrail::start(&args).unwrap();
    let began = std::time::Instant::now();
    let mut ends = Vec::new();
    for _ in 0..QUARTERS {
        let (count, bytes) = (share.to_string(), (share * 4096).to_string());
        for sort in sorts {
            let all = [&["spawn-short", "--no-wait", "--milliseconds", "1", "--processes", &count, "--bytes", &bytes], *sort].concat();
            Workload::start(&cgroup, &all).unwrap().finish().unwrap();
        }
        ends.push(began.elapsed().as_secs_f64());
    }
    std::thread::sleep(RETIRED_AFTER);
    let outcome = memtrail.stop().unwrap();
    let series = memtrail::recording::read(&recording).unwrap().intervals;

    let mut peaks: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for point in &series {
        for (table, entries) in &point.tables {
            let peaks = peaks.entry(table).or_insert_with(|| vec![0; QUARTERS + 1]);
            let at = ends.iter().position(|end| point.at_s < *end).unwrap_or(QUARTERS);
            peaks[at] = peaks[at].max(*entries);
        }
    }
    let cost = &outcome.report["cost"];
    println!("{processes} processes in {:.0} s, quarters end at {ends:.0?}", ends[QUARTERS - 1]);
    println!(
        "collector: {} MB at most, {} of a CPU's time in percent",
        cost["collector_rss_bytes"].as_u64().unwrap() >> 20,
        cost["cpu_percent"]
    );
    println!("programs: {} runs, {} ns; losses {:?}", cost["events"], cost["bpf_ns"], outcome.report["losses"]);
    let mut losses = report::losses(&outcome.report).unwrap();
    if let Some(calls) = report::all_losses(&outcome.report).unwrap().remove("mapping_event_lost") {
        losses.insert("mapping_event_lost".to_owned(), calls);
    }
    // Of so many thread ids a few meet in one entry while both change their mappings: counted, and no memory.
    assert!(losses.remove("mapping_event_lost").is_none_or(|calls| calls < processes / 100), "{:?}", outcome.report["losses"]);
    assert_eq!(losses, BTreeMap::new());
    for (table, peaks) in peaks {
        let shown = &cost["tables"][table];
        let room = shown["max_entries"].as_u64().unwrap();
        let left = shown["entries"].as_u64().unwrap();
        println!("{table}: peaks by quarter and after {peaks:?}, {left} at the end, room for {room}");
        let most = peaks.iter().max().unwrap();
        // The rate of processes varies: half as much again is not growth, a quarter more with each quarter would be.
        let steady = ends[QUARTERS - 1] > STEADY_AFTER_S;
        assert!(!steady || *most <= peaks[0].max(peaks[1]) * 3 / 2 + 512, "{table} grows: {peaks:?}");
        assert!(*most < room * 3 / 4, "{table} is nearly full: {peaks:?} of {room}");
        assert!(left <= most / 4 + 128, "{table} keeps {left} of {most}");
    }
}

#[test]
#[ignore = "root"]
fn native_occupancy_is_flat() {
    occupancy("short", 20_000, &[FORKS, PROGRAMS]);
}

#[test]
#[ignore = "root, and minutes"]
fn long_occupancy_is_flat_for_forks() {
    occupancy("forks", 100_000, &[FORKS]);
}

#[test]
#[ignore = "root, and minutes"]
fn long_occupancy_is_flat_for_programs() {
    occupancy("programs", 100_000, &[PROGRAMS]);
}
