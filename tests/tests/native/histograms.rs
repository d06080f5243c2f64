//! Distributions: what the workload knows of its own times and sizes, the kernel's own count of reclaims, and other programs' readers.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::workload::{Step, Workload};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A cgroup's distribution.
pub fn row<'a>(outcome: &'a Outcome, cgroup: &TestCgroup, metric: &str) -> &'a Value {
    let found = harness::report::cgroup(&outcome.report, cgroup.path()).unwrap().unwrap();
    let row = &found["histograms"][metric];
    assert!(row.is_object(), "{metric}: {}", found["histograms"]);
    row
}

/// A figure of the workload's.
pub fn figure(step: &Step, name: &str) -> f64 {
    step.figures[name].as_f64().unwrap()
}

/// Within that share of the truth.
pub fn assert_near(what: &str, found: f64, truth: f64, share: f64) {
    assert!((found / truth - 1.0).abs() <= share, "{what}: {found}, where {truth} is true");
}

/// Of the largest hundredth, on the tracepoint tier, nanoseconds: a page ends when it is freed. Where the host reclaims cold memory all the
/// time (DAMON does), the kernel holds some pages in batches of another CPU, and frees them up to tenths of a second after they were unmapped.
const FREED_LATER_NS: f64 = 5e8;

/// The truth is between two figures of the workload: it may lose the CPU between its clock and its call.
fn assert_quantiles(row: &Value, step: &Step, share: f64) {
    for name in ["p50", "p90", "p99", "max"] {
        let [least, most] = ["least", "most"].map(|bound| figure(step, &format!("{name}_{bound}_ns")));
        let found = row[name].as_f64().unwrap();
        let later = if ["p50", "p90"].contains(&name) { 0.0 } else { FREED_LATER_NS };
        let range = least * (1.0 - share)..=most * (1.0 + share) + later;
        assert!(range.contains(&found), "{name}: {found}, between {least} and {most}");
    }
}

#[test]
#[ignore = "root"]
fn native_histograms_of_lifetimes_and_sizes_are_the_workloads_own() {
    let cgroup = TestCgroup::new("lifetimes").unwrap();
    let mut workload = Workload::start(&cgroup, &["lifetimes"]).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let steps = workload.run_to("ended").unwrap();
    let outcome = memtrail.stop().unwrap();
    let step = steps.last().unwrap();
    let lifetimes = row(&outcome, &cgroup, "lifetime_ns");
    println!(
        "lifetimes: {lifetimes}, the workload's own: {:?}; passed over: {}",
        step.figures, outcome.report["losses"]["recursion_misses"]
    );
    assert_quantiles(lifetimes, step, 0.02);
    // Every page, within the bound of the tracepoint tier, and what the program itself used and gave back meanwhile.
    let (count, pages) = (lifetimes["count"].as_u64().unwrap(), figure(step, "pages") as u64);
    assert!((pages - pages / 100..=pages + 16).contains(&count), "{count} of {pages}");
    let sizes = row(&outcome, &cgroup, "charge_bytes");
    assert!(sizes["count"].as_u64().unwrap() >= count && sizes["p50"] == 4096, "{sizes}");
    assert_eq!(harness::report::cgroup(&outcome.report, cgroup.path()).unwrap().unwrap()["histogram_losses"], 0);
}

/// Sizes that are asked for, touched or not, also by a process that asks for little: each counts, and stands for itself within its bucket.
#[test]
#[ignore = "root"]
fn native_histograms_of_asked_sizes_are_exact() {
    let cgroup = TestCgroup::new("sizes").unwrap();
    let mut workload = Workload::start(&cgroup, &["sizes"]).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    workload.run_to("asked").unwrap();
    let outcome = memtrail.stop().unwrap();
    // As the workload has them.
    let mapped: Vec<u64> = (1..=120).map(|n| (1 + n * n / 8) * 4096).collect();
    let grown: Vec<u64> = (1..=60).map(|n| n * 4096).collect();
    for (metric, known) in [("mapping_bytes", mapped), ("brk_bytes", grown)] {
        let row = row(&outcome, &cgroup, metric);
        println!("{metric}: {row}");
        assert_eq!(row["count"].as_u64(), Some(known.len() as u64), "{metric}: {row}");
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)] {
            let truth = known[(share * known.len() as f64).ceil() as usize - 1];
            assert_near(&format!("{metric} {name}"), row[name].as_f64().unwrap(), truth as f64, 0.02);
        }
    }
}

#[test]
#[ignore = "root"]
fn native_histograms_of_ages_are_weighted() {
    let cgroup = TestCgroup::new("ages").unwrap();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", "32M"]).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    let before = Instant::now();
    workload.run_to("touched").unwrap();
    let touched = Instant::now();
    std::thread::sleep(Duration::from_millis(1500));
    let (least, outcome) = (touched.elapsed(), memtrail.stop().unwrap());
    let ages = row(&outcome, &cgroup, "live_age_ns");
    let p50 = Duration::from_nanos(ages["p50"].as_u64().unwrap());
    assert!(p50 >= least.mul_f64(0.98) && p50 <= before.elapsed().mul_f64(1.02), "{p50:?}, at least {least:?}");
    // Pages, estimated: those of the live bytes.
    let live = harness::report::kind(&outcome.report, cgroup.path(), "anon").unwrap().unwrap().live.unwrap();
    let pages = ages["count"].as_u64().unwrap();
    assert!(pages * 4096 >= live && pages * 4096 <= live + (8 << 20), "{pages} pages, {live} bytes of anon");
}

#[test]
#[ignore = "root"]
fn native_histograms_count_every_reclaim() {
    let cgroup = TestCgroup::new("reclaims").unwrap();
    cgroup.limit(48 << 20).unwrap();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let args = ["slow-reads", "--bytes", "256M", "--dir", folder.path().to_str().unwrap()];
    let mut workload = Workload::start(&cgroup, &args).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    let reclaims = TracepointCount::of_task("vmscan", "mm_vmscan_memcg_reclaim_begin", workload.pid());
    let steps = workload.run_to("ended").unwrap();
    let counted = reclaims.read();
    let outcome = memtrail.stop().unwrap();
    let waits = row(&outcome, &cgroup, "memcg_reclaim_ns");
    println!("reclaims: {waits}, the kernel's count {counted}, the workload's slow reads {:?}", steps.last().unwrap().figures);
    assert!(counted > 500, "the limit was to be reached often: {counted}");
    assert_eq!(waits["count"].as_u64(), Some(counted));
    assert_eq!(outcome.report["losses"]["stall_table_full"], 0);
}

/// In the long form: it depends on how quiet the machine is. The workload counts its own reclaims, so it knows which reads wait for one.
#[test]
#[ignore = "root"]
fn long_histograms_of_reclaim_are_what_reads_wait_for() {
    let cgroup = TestCgroup::new("waits").unwrap();
    cgroup.limit(48 << 20).unwrap();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let args = ["slow-reads", "--bytes", "1G", "--dir", folder.path().to_str().unwrap()];
    let id = tracefs_file("events/vmscan/mm_vmscan_memcg_reclaim_begin/id");
    let mut workload = Workload::start_with(&cgroup, &args, &[("MEMTRAIL_RECLAIM_ID", id.trim())]).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    let steps = workload.run_to("ended").unwrap();
    let outcome = memtrail.stop().unwrap();
    let (waits, step) = (row(&outcome, &cgroup, "memcg_reclaim_ns"), steps.last().unwrap());
    println!("reclaims: {waits}, the workload's slow reads {:?}", step.figures);
    let (reclaims, slow) = (waits["count"].as_f64().unwrap(), figure(step, "count"));
    assert_near("slow reads", reclaims, slow, 0.02);
    // A read that waits for reclaim also charges, fills its page with cold caches, and may lose the CPU: some microseconds more.
    for (name, more_ns) in [("p50", 8000.0), ("p90", 12_000.0)] {
        let (reclaim, wait) = (waits[name].as_f64().unwrap(), figure(step, &format!("{name}_ns")));
        assert!(reclaim <= 1.02 * wait && reclaim >= 0.9 * wait - more_ns, "{name}: reclaim {reclaim}, the read's wait {wait}");
    }
    assert!(waits["p99"].as_f64().unwrap() <= 1.02 * figure(step, "p99_ns"));
}

#[test]
#[ignore = "root"]
fn native_histograms_without_room_say_so() {
    let cgroup = TestCgroup::new("no-room").unwrap();
    let mut workload = Workload::start(&cgroup, &["lifetimes", "--rounds", "200"]).unwrap();
    workload.run_to("ready").unwrap();
    let mut args = record_args(cgroup.path(), Mode::Exact);
    args.extend(["--table", "HISTOGRAMS=2"].map(str::to_owned));
    let memtrail = Memtrail::start(&args).unwrap();
    workload.run_to("ended").unwrap();
    let outcome = memtrail.stop().unwrap();
    let lost = outcome.report["losses"]["histogram_table_full"].as_u64().unwrap();
    let found = harness::report::cgroup(&outcome.report, cgroup.path()).unwrap().unwrap();
    let own = found["histogram_losses"].as_u64().unwrap();
    assert!(own > 100 && outcome.status.code() == Some(3), "{own} {}", outcome.status);
    // Tasks of a cgroup that is not decided yet may wait for reclaim meanwhile.
    assert!(lost >= own, "{lost} in all, {own} of this cgroup");
}

#[test]
#[ignore = "root"]
fn native_histograms_are_read_by_other_programs() {
    let python = python().unwrap();
    let cgroup = TestCgroup::new("readers, odd").unwrap();
    cgroup.limit(48 << 20).unwrap();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut workload = Workload::start(&cgroup, &["slow-reads", "--bytes", "128M", "--dir", folder.path().to_str().unwrap()]).unwrap();
    let mut lives = Workload::start(&cgroup, &["lifetimes"]).unwrap();
    workload.run_to("ready").unwrap();
    lives.run_to("ready").unwrap();
    let mut args = record_args(cgroup.path(), Mode::Default);
    args.extend(["--interval", "100ms", "--stream", &file("stream.jsonl")].map(str::to_owned));
    for output in ["log.hlog", "trace.pftrace", "run.mtrail"] {
        args.extend(["-o".to_owned(), file(output)]);
    }
    let memtrail = Memtrail::start(&args).unwrap();
    workload.run_to("ended").unwrap();
    let memtrail_pid = memtrail.pid().to_string();
    let mark = harness::memtrail::command().unwrap().args(["mark", "half", "--pid", &memtrail_pid]).status().unwrap();
    assert!(mark.success());
    lives.run_to("ended").unwrap();
    let outcome = memtrail.stop().unwrap();
    std::fs::write(file("report.json"), outcome.report.to_string()).unwrap();
    let series = memtrail::recording::read(Path::new(&file("run.mtrail"))).unwrap().intervals;
    std::fs::write(file("series.json"), serde_json::to_string(&series).unwrap()).unwrap();
    let again = harness::memtrail::command()
        .unwrap()
        .args(["report", &file("run.mtrail"), "-o", &file("again.pftrace"), "-o", &file("again.hlog")])
        .status()
        .unwrap();
    assert!(again.success());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/read_formats.py");
    let output = Command::new(python).arg(script).arg(folder.path()).arg(cgroup.path()).output().unwrap();
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}{failed}");
}

/// A Python that has other programs' readers of these formats: from PyPI, kept in the target folder.
pub(super) fn python() -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python-readers");
    let python = folder.join("bin/python");
    let installed = folder.join("installed-2");
    if !installed.exists() {
        let run = |command: &mut Command| -> anyhow::Result<()> {
            let output = command.output()?;
            anyhow::ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "hdrhistogram==0.10.8",
            "perfetto==0.59.1",
            "prometheus_client==0.23.1",
        ]))?;
        std::fs::write(&installed, "")?;
    }
    Ok(python)
}

/// The kernel's own count of a tracepoint in one task (perf_event_open), which shares nothing with the tracer.
struct TracepointCount(std::os::fd::OwnedFd);

impl TracepointCount {
    fn of_task(system: &str, name: &str, pid: u32) -> TracepointCount {
        use std::os::fd::FromRawFd as _;
        /// PERF_TYPE_TRACEPOINT, and the size of the first version of `struct perf_event_attr` (include/uapi/linux/perf_event.h).
        const TRACEPOINT: u32 = 2;
        const ATTRIBUTE_BYTES: u32 = 64;
        let id = tracefs_file(&format!("events/{system}/{name}/id"));
        let id: u64 = id.trim().parse().unwrap();
        let mut attribute = [0_u64; ATTRIBUTE_BYTES as usize / 8];
        attribute[0] = u64::from(TRACEPOINT) | u64::from(ATTRIBUTE_BYTES) << 32;
        attribute[1] = id;
        // SAFETY: an attribute of the size that it gives, which outlives the call; the rest are numbers.
        let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attribute.as_ptr(), pid, -1, -1, 0) };
        assert!(fd >= 0, "perf_event_open: {}", std::io::Error::last_os_error());
        // SAFETY: a new descriptor that nobody else has.
        TracepointCount(unsafe { std::os::fd::OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) })
    }

    fn read(&self) -> u64 {
        use std::{io::Read as _, os::fd::AsFd as _};
        let mut count = [0; 8];
        std::fs::File::from(self.0.as_fd().try_clone_to_owned().unwrap()).read_exact(&mut count).unwrap();
        u64::from_ne_bytes(count)
    }
}

/// A file of tracefs, which is mounted for it where it is not.
pub fn tracefs_file(path: &str) -> String {
    if let Ok(text) = std::fs::read_to_string(format!("/sys/kernel/tracing/{path}")) {
        return text;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    run(Command::new("mount").args(["-t", "tracefs", "none"]).arg(folder.path()));
    let text = std::fs::read_to_string(folder.path().join(path));
    run(Command::new("umount").arg(folder.path()));
    text.unwrap()
}
