//! A node through collector and writers: a day in compressed time, and a recording in parts.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::workload::Workload;
use memtrail::host::{append::AppendFile, write::Access};
use memtrail::output::{hlog, perfetto};
use memtrail::recording::{self, Header, Writer};
use memtrail::report::{Interval, IntervalCgroup, SCHEMA};
use memtrail::trace::histograms::Histograms;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use tracer_common::histogram::{HistogramKey, Metric, bucket};
use tracer_common::mix64;

const CGROUPS: u64 = 600;
/// A day. In an unoptimised build that is half an hour: `MEMTRAIL_NODE_SECONDS` makes it shorter.
const SECONDS: u64 = 24 * 3600;
const MIB: u64 = 1 << 20;

/// The next second of a busy node: in every one twenty cgroups change, and every minute one goes and another comes.
fn next_second(second: u64, last: &mut Interval) {
    let base = second / 60;
    last.at_s = second as f64;
    last.clocks = [second, second, second].map(|second| second * 1_000_000_000);
    for n in 0..20 {
        let random = mix64(second, n);
        let cgroup = last.cgroups.entry((base + random % CGROUPS).to_string()).or_default();
        cgroup.usage_bytes = Some((random >> 20) & !4095);
        for (kind, shift) in [("anon", 8), ("file", 12), ("kernel", 16), ("shmem", 24), ("sock", 28)] {
            cgroup.kinds.insert(kind.to_owned(), (random >> shift) & 0xffff_f000);
        }
    }
    if second.is_multiple_of(60) {
        last.cgroups.retain(|id, _| id.parse::<u64>().unwrap() >= base);
        last.cgroups.insert((base + CGROUPS - 1).to_string(), IntervalCgroup::default());
    }
}

/// Ten counters of the kernel's table that grew.
fn grow(second: u64, table: &mut HashMap<HistogramKey, u64>) {
    for n in 0..10 {
        let random = mix64(second, 1000 + n);
        let metric = Metric::ALL[(random % 8) as usize] as u32;
        let key = HistogramKey { owner: second / 60 + random % CGROUPS, metric, bucket: bucket(1000 << (random >> 60)) };
        *table.entry(key).or_default() += 1;
    }
    if second.is_multiple_of(600) {
        table.retain(|key, _| key.owner >= second / 60);
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
#[ignore = "takes minutes"]
fn long_node_of_a_day_stays_small_in_memory_and_on_disk() {
    let seconds = std::env::var("MEMTRAIL_NODE_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(SECONDS);
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = |name: &str| folder.path().join(name);
    let header = Header { tool: "memtrail 0".to_owned(), schema: SCHEMA, ..Header::default() };
    let mut writer = Writer::create(&file("day.mtrail"), &header).unwrap();
    let mut log = AppendFile::create(&file("day.hlog"), Access::Umask, hlog::head("memtrail 0", "", 0.0).as_bytes()).unwrap();
    let mut trace = AppendFile::create(&file("day.pftrace"), Access::Umask, b"").unwrap();
    let (mut encoder, mut histograms) = (perfetto::Encoder::default(), Histograms::default());
    let (mut last, mut table) = (Interval::default(), HashMap::new());
    let mut resident_after_an_hour = 0;
    for second in 0..seconds {
        next_second(second, &mut last);
        grow(second, &mut table);
        writer.interval(&last).unwrap();
        trace.append(&encoder.interval(&last, |id| format!("/pods/{id}"))).unwrap();
        // Not in every second: reading the table is the test's own work here.
        if second % 10 == 9 {
            histograms.learn(table.iter().map(|(key, count)| (*key, *count)));
        }
        log.append(hlog::lines(&histograms.take(second as f64), |id| format!("/pods/{id}")).as_bytes()).unwrap();
        if second == seconds / 24 {
            resident_after_an_hour = resident_bytes();
        }
    }
    writer.finish().unwrap();
    let grown = resident_bytes().saturating_sub(resident_after_an_hour);
    let size = |name: &str| std::fs::metadata(file(name)).unwrap().len();
    let [recording, log, trace] = ["day.mtrail", "day.hlog", "day.pftrace"].map(size);
    println!(
        "{seconds} s of {CGROUPS} cgroups: recording {recording}, log {log}, trace {trace} bytes; {grown} bytes more than after an hour"
    );
    // 1,500 cgroups come by, each with its distributions: some megabytes.
    assert!(grown < 24 * MIB, "{grown}");
    // Twenty of 600 change a second: twice 100 cgroups of which three do, and a bit: 8 MiB an hour.
    assert!(recording < seconds * 8 * MIB / 3600, "{recording}");
    let (mut intervals, mut read) = (0_u64, 0.0);
    recording::read_series(&file("day.mtrail"), &mut |point| {
        if let recording::Point::Interval(interval) = point {
            (intervals, read) = (intervals + 1, interval.at_s);
        }
    })
    .unwrap();
    assert_eq!((intervals, read as u64), (seconds, seconds - 1));
}

#[test]
#[ignore = "root"]
fn native_rotation_makes_parts_that_read_and_compare() {
    let cgroup = TestCgroup::new("parts").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", "32M"]).unwrap();
    workload.run_to("ready").unwrap();
    let mut args = record_args(cgroup.path(), Mode::Exact);
    args.extend(["-o", &path("run.mtrail"), "--rotate-every", "1s", "--rotate-keep", "3", "--interval", "100ms"].map(str::to_owned));
    let memtrail = Memtrail::start(&args).unwrap();
    // Before it is removed.
    let kept = tempfile::tempdir().unwrap();
    let keep = |name: &str| {
        wait_for(&folder.path().join(name));
        let to = kept.path().join(name);
        std::fs::hard_link(folder.path().join(name), &to).unwrap();
        to
    };
    let first = keep("run.1.mtrail");
    workload.run_to("touched").unwrap();
    wait_for(&folder.path().join("run.2.mtrail"));
    let third = keep("run.3.mtrail");
    // The touch is between the ends of the first and the third part.
    let output = harness::memtrail::command().unwrap().arg("diff").args([first, third]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("wl_touch_anon") && text.contains("+32."), "{text}");
    wait_for(&folder.path().join("run.4.mtrail"));
    let outcome = memtrail.stop().unwrap();
    assert!(outcome.stderr.contains("run.1.mtrail: removed, since 3 parts are kept"), "{}", outcome.stderr);
    let parts: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(parts.len() == 4 && !folder.path().join("run.1.mtrail").exists(), "{parts:?}");
    for name in parts {
        let part = recording::read(&name).unwrap();
        assert!(part.finished && !part.truncated && part.report.is_some(), "{name:?}");
        // The newest may have ended as soon as it began.
        assert!(!part.intervals.is_empty() || name.ends_with("run.mtrail"), "{name:?}");
    }
}

fn wait_for(path: &Path) {
    for _ in 0..600 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{} does not come", path.display());
}
