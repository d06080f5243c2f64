//! `record -- CMD` and `demo` as programs: statuses, the command's cgroup, and that nothing is left behind.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, forced_provider, record_args};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// Runs memtrail to its end; its process id, too.
fn run(args: &[&str]) -> (u32, Output) {
    let mut command = harness::memtrail::command().unwrap();
    command.args(args).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    (child.id(), child.wait_with_output().unwrap())
}

fn record(options: &[&str], command: &[&str]) -> (u32, Output) {
    let provider = forced_provider().map(|provider| ["--provider".to_owned(), provider]);
    let mut args = vec!["record"];
    args.extend(provider.iter().flatten().map(String::as_str));
    args.extend(options);
    args.push("--");
    args.extend(command);
    run(&args)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_nothing_left(pid: u32) {
    let mount = harness::hierarchy::Hierarchy::find().unwrap().root;
    assert!(!Path::new(&mount).join(format!("memtrail/{pid}")).exists(), "the cgroup of memtrail {pid} is left");
}

#[test]
#[ignore = "root"]
fn native_the_commands_status_is_memtrails() {
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)] {
        let (pid, output) = record(&[], &["/bin/sh", "-c", script]);
        assert_eq!(output.status.code(), Some(status), "{script}: {}", said(&output));
        assert_nothing_left(pid);
    }
    let (_, output) = record(&[], &["memtrail-no-such-command"]);
    assert_eq!(output.status.code(), Some(127));
    let (_, output) = record(&[], &["/proc/self/maps"]);
    assert_eq!(output.status.code(), Some(126));
    let (_, output) = record(&["--exact", "--map-memory", "1MiB"], &["/bin/true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(said(&output).contains("--limit"), "{}", said(&output));
}

#[test]
#[ignore = "root"]
fn native_a_command_that_does_not_end_is_ended() {
    let (pid, output) = record(&["--duration", "1s"], &["/bin/sh", "-c", "trap '' TERM; while :; do :; done"]);
    assert_eq!(output.status.code(), Some(137), "{}", said(&output));
    assert_nothing_left(pid);
}

/// Records a workload as the command, with the report.
fn record_workload(options: &[&str], workload: &[&str]) -> (u32, Output, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let program = harness::workload::binary().unwrap();
    let options = [options, &["-o", path.to_str().unwrap()]].concat();
    let (pid, output) = record(&options, &[&[program.to_str().unwrap()], workload].concat());
    let report = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (pid, output, serde_json::from_str(&report).unwrap())
}

#[test]
#[ignore = "root"]
fn native_a_command_that_is_oom_killed_is_explained() {
    let (pid, output, report) = record_workload(&["--limit", "32MiB"], &["anon", "--bytes", "64M", "--no-wait"]);
    assert_eq!(output.status.code(), Some(137), "{}", said(&output));
    let kills = report["oom"].as_array().unwrap();
    let own = format!("/memtrail/{pid}");
    assert_eq!(kills.len(), 1, "{kills:?}");
    assert_eq!((kills[0]["limit_cgroup"].as_str(), kills[0]["limit_bytes"].as_u64()), (Some(own.as_str()), Some(32 << 20)));
    assert_nothing_left(pid);
}

#[test]
#[ignore = "root"]
pub(super) fn native_a_command_with_a_thousand_children_is_whole() {
    let workload = ["spawn-short", "--processes", "1000", "--parallel", "50", "--milliseconds", "1", "--bytes", "16M", "--no-wait"];
    let (pid, output, report) = record_workload(&["--exact", "--limit", "256MiB"], &workload);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lost = harness::report::losses(&report).unwrap();
    assert!(lost.iter().all(|(cause, &count)| count == 0 || cause == "recursion_misses"), "{lost:?}");
    let own = format!("/memtrail/{pid}");
    let charged = harness::report::stack_sum(&report, &own, "anon", Some(&["wl_short_child"]), |row| row.charged).unwrap();
    assert_eq!(charged, 1000 * 4 * 4096, "four pages a child");
    assert_nothing_left(pid);
}

#[test]
#[ignore = "root"]
fn native_a_daemon_outlives_the_command_and_its_cgroup_goes_then() {
    // No longer than it takes to look, and memtrail waits for none of it.
    let (pid, output) = record(&[], &["/bin/sh", "-c", "setsid sleep 3 >/dev/null 2>&1 </dev/null & exit 5"]);
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    assert!(said(&output).contains(&format!("1 process of the command still runs in /memtrail/{pid}")), "{}", said(&output));
    let folder = Path::new(&harness::hierarchy::Hierarchy::find().unwrap().root).join(format!("memtrail/{pid}"));
    assert!(folder.exists(), "the daemon's cgroup is gone");
    let gone = (0..300).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        !folder.exists()
    });
    assert!(gone, "the cgroup is left after its last process");
}

#[test]
#[ignore = "root"]
fn native_the_command_alone_is_recorded_and_keeps_its_output() {
    let report = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    let path = report.path().to_str().unwrap();
    let options = ["--exact", "--limit", "64MiB", "-o", path, "--map-memory", "2G"];
    let (pid, output) = record(&options, &["/bin/sh", "-c", "echo only this; exec cat /proc/self/stat > /dev/null"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "only this\n", "standard output is the command's");
    assert!(said(&output).contains("ended with status 0"), "{}", said(&output));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cgroups = report["cgroups"].as_array().unwrap();
    let own = format!("/memtrail/{pid}");
    assert!(cgroups.iter().all(|cgroup| cgroup["path"].as_str().unwrap().ends_with(&own)), "{cgroups:?}");
    let cgroup = cgroups.first().unwrap();
    assert_eq!((cgroup["state"].as_str(), cgroup["limit_bytes"].as_u64()), (Some("alive"), Some(64 << 20)));
    assert!(cgroup["kinds"]["anon"]["charged"].as_u64().unwrap() > 0);
    assert_nothing_left(pid);
}

#[test]
#[ignore = "root"]
fn native_the_demo_finds_what_it_made() {
    let provider = forced_provider().map(|provider| ["--provider".to_owned(), provider]);
    let mut args = vec!["demo"];
    args.extend(provider.iter().flatten().map(String::as_str));
    let (pid, output) = run(&args);
    // What was lost, if anything was, is in the summary.
    assert_eq!(output.status.code(), Some(0), "{}{}", String::from_utf8_lossy(&output.stdout), said(&output));
    let text = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    let arenas = text.split("Arenas: four threads keep 96.0 MiB from malloc; found ").nth(1).unwrap_or_else(|| panic!("{text}"));
    let found: f64 = arenas.split(' ').next().unwrap().parse().unwrap();
    // Stacks of the threads come on top, as huge pages on some kernels.
    assert!((96.0..112.0).contains(&found), "{text}");
    // A machine may have no disk, or no tmpfs; it says so.
    let skipped = said(&output);
    assert!(text.contains("found 64.0 MiB of page cache in the living cgroup") || skipped.contains("no log file"), "{text}");
    assert!(text.contains("found 64.0 MiB still charged to its dead cgroup") || skipped.contains("no tmpfs file"), "{text}");
    // The workloads execute memtrail's own file, and their functions have names all the same.
    assert!(text.contains(" through fill_arena") && !text.contains(" 0 B through "), "{text}");
    assert_nothing_left(pid);
}

/// The masks of the command of a recording that was started so.
fn masks_of_command(ignored: &'static [i32]) -> (i32, u64) {
    let mut command = std::process::Command::new(harness::memtrail::binary().unwrap());
    command.args(["record", "--", "/bin/sh", "-c", "grep ^SigIgn: /proc/self/status; exit 5"]);
    let output = harness::signals::ignoring(&mut command, ignored).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mask = text.trim().strip_prefix("SigIgn:").unwrap_or_else(|| panic!("{text}{}", said(&output)));
    (output.status.code().unwrap(), u64::from_str_radix(mask.trim(), 16).unwrap())
}

#[test]
#[ignore = "root"]
fn native_the_command_begins_with_the_signals_of_memtrail() {
    let bit = |signal: i32| 1_u64 << (signal - 1);
    let all = bit(libc::SIGINT) | bit(libc::SIGHUP) | bit(libc::SIGTERM) | bit(libc::SIGPIPE);
    let (status, mask) = masks_of_command(&[]);
    assert_eq!((status, mask & all), (5, 0), "Rust's own SIGPIPE is none of the command's");
    let (status, mask) = masks_of_command(&[libc::SIGINT, libc::SIGHUP, libc::SIGTERM]);
    assert_eq!((status, mask & all), (5, bit(libc::SIGINT) | bit(libc::SIGHUP) | bit(libc::SIGTERM)));
}

/// As under nohup and in a script's background: what is ignored ends no recording, SIGTERM does, whatever was ignored.
#[test]
#[ignore = "root"]
fn native_signals_that_were_ignored_end_no_recording_but_sigterm_does() {
    let cgroup = TestCgroup::new("ignored").unwrap();
    let mut memtrail =
        Memtrail::start_ignoring(&[libc::SIGINT, libc::SIGHUP, libc::SIGTERM], &record_args(cgroup.path(), Mode::Default)).unwrap();
    for signal in [libc::SIGINT, libc::SIGHUP] {
        memtrail.signal(signal).unwrap();
    }
    // No wait can show that nothing comes; a recording that is to end does so in half of it.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(memtrail.is_running().unwrap(), "it ended by a signal that was ignored");
    memtrail.signal(libc::SIGTERM).unwrap();
    let outcome = memtrail.finish().unwrap();
    assert!(harness::report::is_whole(&outcome).unwrap(), "{}: {}", outcome.status, outcome.stderr);
}
