//! The first screen answers: what was there before, what grows, what was held at the peak, and causes that only the kernel knows.

use harness::accuracy::size;
use harness::cgroup::TestCgroup;
use harness::memtrail::{self, Memtrail, Mode, Outcome, forced_provider, record_args};
use harness::workload::{self, Workload};
use harness::{report, watchdog};
use serde_json::Value;
use std::process::{Output, Stdio};
use std::time::Duration;

/// Records a cgroup for some seconds and gives what is printed.
fn screen(cgroup: &str, seconds: u64) -> String {
    let _wait = watchdog::waiting("a recording of some seconds");
    let mut command = memtrail::command().unwrap();
    command.arg("record").args(record_args(cgroup, Mode::Default)).args(["--duration", &format!("{seconds}s")]).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    println!("{text}");
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    text
}

fn row<'a>(outcome: &'a Outcome, cgroup: &TestCgroup) -> &'a Value {
    report::cgroup(&outcome.report, cgroup.path()).unwrap().unwrap()
}

fn verdict<'a>(outcome: &'a Outcome, cgroup: &TestCgroup, id: &str) -> Option<&'a Value> {
    row(outcome, cgroup)["verdicts"].as_array().unwrap().iter().find(|verdict| verdict["id"] == id)
}

/// A workload at a step, recorded from before it began to a moment after it.
fn recorded(name: &str, args: &[&str], step: &str) -> (Outcome, TestCgroup, Workload, harness::workload::Step) {
    let cgroup = TestCgroup::new(name).unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let mut workload = Workload::start(&cgroup, args).unwrap();
    let last = workload.run_to(step).unwrap().pop().unwrap();
    cgroup.settled_kinds().unwrap();
    (memtrail.stop().unwrap(), cgroup, workload, last)
}

/// Bytes of a figure such as `47.7 MiB`.
fn bytes_of(figure: &str) -> u64 {
    let (number, unit) = figure.trim().split_once(' ').unwrap();
    let factor = match unit.split_whitespace().next().unwrap() {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        other => panic!("{figure}: {other}"),
    };
    (number.parse::<f64>().unwrap() * factor) as u64
}

#[test]
#[ignore = "root"]
fn native_what_a_container_holds_already_is_named() {
    let bytes = size(48 << 20).unwrap();
    let cgroup = TestCgroup::new("already").unwrap();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", &bytes.to_string()]).unwrap();
    let pid = workload.run_to("touched").unwrap()[0].pid;
    let text = screen(cgroup.path(), 3);
    let line = text.lines().find(|line| line.ends_with("before the start")).unwrap_or_else(|| panic!("no row: {text}"));
    assert!(line.contains(&format!("[{pid}], anon ")), "{line}");
    let (named, usage) = (bytes_of(line.split("  ").find(|part| !part.is_empty()).unwrap()), cgroup.usage().unwrap());
    assert!(named >= usage / 10 * 9, "{named} of {usage} bytes are named");
    assert!(text.contains(", steady\n"), "{text}");
    workload.finish().unwrap();
}

#[test]
#[ignore = "root"]
fn native_a_burst_at_the_start_is_no_growth() {
    let bytes = size(64 << 20).unwrap();
    let cgroup = TestCgroup::new("burst").unwrap();
    cgroup.limit(4 * bytes).unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("touched").unwrap();
    std::thread::sleep(Duration::from_secs(12));
    let outcome = memtrail.stop().unwrap();
    let trend = &row(&outcome, &cgroup)["trend"];
    println!("{trend}");
    let step = &trend["step"];
    let moved = step["bytes"].as_i64().unwrap().unsigned_abs();
    assert!(moved.abs_diff(bytes) < bytes / 20 + (2 << 20), "a step of {moved} bytes: {trend}");
    assert!(verdict(&outcome, &cgroup, "growth").is_none());
    let (slope, error) = (trend["bytes_per_s"].as_f64().unwrap(), trend["stderr_per_s"].as_f64().unwrap());
    assert!(slope.abs() <= 2.0 * error, "nothing grows: {trend}");
    assert_eq!(row(&outcome, &cgroup)["binding_limit"]["reached_in_s"], Value::Null);
    workload.finish().unwrap();
}

#[test]
#[ignore = "root"]
fn native_growth_is_told_with_the_time_that_is_left() {
    let cgroup = TestCgroup::new("growing").unwrap();
    cgroup.limit(256 << 20).unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    // A MiB every 250 ms: 240 MiB a minute.
    let mut workload = Workload::start(&cgroup, &["grow", "--bytes", &(200_u64 << 20).to_string(), "--milliseconds", "250"]).unwrap();
    workload.run_to("growing").unwrap();
    std::thread::sleep(Duration::from_secs(14));
    let outcome = memtrail.stop().unwrap();
    let found = verdict(&outcome, &cgroup, "growth").unwrap_or_else(|| panic!("no growth: {}", row(&outcome, &cgroup)["trend"]));
    println!("{}", found["text"]);
    let per_second = found["evidence"]["bytes_per_s"].as_f64().unwrap();
    let error = found["evidence"]["stderr_per_s"].as_f64().unwrap();
    // An emulated machine wakes late.
    let truth = 4.0 * 1024.0 * 1024.0;
    assert!(per_second <= truth * 1.05 + 3.0 * error && per_second > truth / 4.0, "{per_second} ± {error}");
    let usage = cgroup.usage().unwrap() as f64;
    let left = found["evidence"]["reached_in_s"].as_f64().unwrap();
    assert!((left * per_second + usage - (256 << 20) as f64).abs() < 32.0 * 1024.0 * 1024.0, "{left} s at {per_second}, usage {usage}");
}

/// Spikes of 80 ms, between which next to nothing is there: `record -- COMMAND` shows what was held at the highest.
#[test]
#[ignore = "root"]
fn native_what_a_command_held_at_its_peak_is_shown() {
    let bytes = size(144 << 20).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (folded, json) = (folder.path().join("out.folded"), folder.path().join("out.json"));
    let mut command = memtrail::command().unwrap();
    command.arg("record").args(["--exact", "--limit", &format!("{}", 4 * bytes)]);
    command.args(forced_provider().iter().flat_map(|provider| ["--provider", provider]));
    command.args(["-o".as_ref(), folded.as_os_str(), "-o".as_ref(), json.as_os_str(), "--".as_ref()]).arg(workload::binary().unwrap());
    command.args(["spikes", "--no-wait", "--bytes", &bytes.to_string(), "--milliseconds", "80", "--rounds", "5"]).stdin(Stdio::null());
    let _wait = watchdog::waiting("a command with spikes");
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(status.success(), "{said}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let row = report["cgroups"].as_array().unwrap().iter().find(|row| row["peak_bytes"].as_u64().is_some_and(|bytes| bytes > 0)).unwrap();
    let path = row["path"].as_str().unwrap();
    let of = |function: &str| -> u64 {
        let rows = row["stacks"].as_array().unwrap().iter();
        let rows = rows.filter(|row| row["frames"].as_array().unwrap().iter().any(|frame| frame == function));
        rows.map(|row| row["peak"].as_u64().unwrap()).sum()
    };
    let kernel = row["kernel_peak_bytes"].as_u64();
    println!("{path}: peak {}, by the kernel {kernel:?}, spike {}, base {}", row["peak_bytes"], of("wl_touch_spike"), of("wl_touch_base"));
    let whole = 144_u64 << 20;
    let bytes = bytes.next_multiple_of(4 << 20).min(whole);
    // The moment of the peak is that of all memory together: pages that the program's start took may have gone before the last of the spike's came.
    let (spike, base) = (of("wl_touch_spike"), of("wl_touch_base"));
    assert!(spike <= bytes && spike + (1 << 20) >= bytes && base == bytes / 8, "{spike} and {base}: {said}");
    if let Some(kernel) = kernel {
        let peak = row["peak_bytes"].as_u64().unwrap();
        assert!(peak <= kernel + (1 << 20) && peak + kernel / 20 + (4 << 20) >= kernel, "{peak}, {kernel} by the kernel");
    }
    let text = std::fs::read_to_string(&folded).unwrap();
    let in_folded: u64 =
        text.lines().filter(|line| line.contains(";wl_touch_spike;")).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    assert_eq!(in_folded, spike);
    assert!(said.contains(" at its peak"), "{said}");
}

#[test]
#[ignore = "root"]
fn native_kernel_memory_without_an_owner_is_told() {
    let bytes = size(24 << 20).unwrap();
    let (outcome, cgroup, mut workload, _) = recorded("pipes", &["pipes", "--bytes", &bytes.to_string()], "full");
    let found = verdict(&outcome, &cgroup, "untracked").unwrap_or_else(|| panic!("not told: {}", row(&outcome, &cgroup)["kinds"]));
    println!("{}", found["text"]);
    assert!(found["evidence"]["untracked_bytes"].as_u64().unwrap() >= bytes);
    workload.finish().unwrap();
    let (outcome, cgroup, mut workload, _) = recorded("tracked", &["anon", "--bytes", &(64_u64 << 20).to_string()], "touched");
    assert!(verdict(&outcome, &cgroup, "untracked").is_none(), "{}", row(&outcome, &cgroup)["verdicts"]);
    workload.finish().unwrap();
}

#[test]
#[ignore = "root"]
fn native_huge_pages_of_few_touched_bytes_are_told_and_full_ones_are_not() {
    let bytes = (40_u64 << 20).to_string();
    for (name, args, is_told) in [
        ("sparse-huge", &["sparse-huge", "--bytes", &bytes][..], true),
        ("full-huge", &["sparse-huge", "--keep", "--bytes", &bytes][..], false),
    ] {
        let (outcome, cgroup, mut workload, last) = recorded(name, args, "touched");
        let huge = last.figures["huge"].as_f64().unwrap();
        if huge < (20 << 20) as f64 {
            println!("{name}: the kernel gave {huge} bytes of huge pages: nothing to see");
            continue;
        }
        let found = verdict(&outcome, &cgroup, "huge-pages");
        println!("{name}: {:?}", found.map(|verdict| &verdict["text"]));
        assert_eq!(found.is_some(), is_told, "{name}: {}", row(&outcome, &cgroup)["processes"]);
        workload.finish().unwrap();
    }
}

#[test]
#[ignore = "root"]
fn native_what_was_freed_lazily_is_told() {
    let bytes = (32_u64 << 20).to_string();
    let (outcome, cgroup, mut workload, last) = recorded("lazy", &["lazy", "--bytes", &bytes], "freed");
    let lazy = last.figures["lazy"].as_f64().unwrap() as u64;
    let found = verdict(&outcome, &cgroup, "lazily-freed").unwrap_or_else(|| panic!("not told: {}", row(&outcome, &cgroup)));
    println!("{}", found["text"]);
    let told = found["evidence"]["lazily_freed_bytes"].as_u64().unwrap();
    assert!(told.abs_diff(lazy) < 2 << 20, "{told} of {lazy}");
    assert!(row(&outcome, &cgroup)["droppable_bytes"].as_u64().unwrap() < 4 << 20, "page cache that is none");
    workload.finish().unwrap();
    let (outcome, cgroup, mut workload, _) = recorded("freed", &["lazy", "--keep", "--bytes", &bytes], "freed");
    assert!(verdict(&outcome, &cgroup, "lazily-freed").is_none());
    workload.finish().unwrap();
}

#[test]
#[ignore = "root"]
fn native_locked_memory_is_told() {
    let bytes = (16_u64 << 20).to_string();
    let cgroup = TestCgroup::new("locked").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let mut workload = Workload::start(&cgroup, &["mlock", "--bytes", &bytes]).unwrap();
    workload.run_to("touched").unwrap();
    cgroup.settled_kinds().unwrap();
    let outcome = memtrail.stop().unwrap();
    let found = verdict(&outcome, &cgroup, "locked-memory").unwrap_or_else(|| panic!("not told: {}", row(&outcome, &cgroup)["processes"]));
    println!("{}", found["text"]);
    assert!(found["text"].as_str().unwrap().contains("memtrail-worklo["));
    workload.finish().unwrap();
}
