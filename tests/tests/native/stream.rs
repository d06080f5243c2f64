//! `record --stream`: lines that add up, and a reader that stands still, or never comes.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, binary, record_args};
use harness::workload::Workload;
use serde_json::Value;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BYTES: u64 = 32 << 20;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
#[ignore = "root"]
fn native_stream_follows_the_kernels_figures() {
    let cgroup = TestCgroup::new("stream").unwrap();
    cgroup.limit(256 << 20).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stream = folder.path().join("stream.jsonl");
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", &BYTES.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let mut args = record_args(cgroup.path(), Mode::Default);
    args.extend(["--interval", "100ms", "--stream", stream.to_str().unwrap()].map(str::to_owned));
    let memtrail = Memtrail::start(&args).unwrap();
    let pid = memtrail.pid().to_string();
    let read = || lines(&std::fs::read_to_string(&stream).unwrap());
    // Lines come while it runs; the file can end inside one only where it is being written.
    let wait_for = |what: &str, is_there: &dyn Fn(&Value) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let text = std::fs::read_to_string(&stream).unwrap();
            let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            if lines(whole).iter().any(is_there) {
                return;
            }
            assert!(Instant::now() < deadline, "no line with {what}: {text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let anon = |line: &Value| line["cgroups"][0]["kinds"]["anon"]["stat"].as_u64();
    wait_for("a reading", &|line| anon(line).is_some());
    workload.run_to("touched").unwrap();
    wait_for("the touched bytes", &|line| anon(line).is_some_and(|bytes| bytes >= BYTES));
    assert!(harness::memtrail::command().unwrap().args(["mark", "peak", "--pid", &pid]).status().unwrap().success());
    memtrail.stop().unwrap();

    let all = read();
    assert!(all.iter().any(|line| line["type"] == "mark" && line["name"] == "peak"), "{all:?}");
    let intervals: Vec<&Value> = all.iter().filter(|line| line["type"] == "interval").collect();
    assert!(intervals.iter().all(|line| line["cgroups"][0]["path"] == cgroup.path() && line["dropped_lines"] == 0));
    // Rates are of what came in between: they add up to the growth.
    let mut grown = 0.0;
    for pair in intervals.windows(2) {
        let seconds = pair[1]["at_s"].as_f64().unwrap() - pair[0]["at_s"].as_f64().unwrap();
        grown += pair[1]["cgroups"][0]["kinds"]["anon"]["bytes_per_s"].as_f64().unwrap() * seconds;
    }
    let (first, last) = (anon(intervals[0]).unwrap(), anon(intervals[intervals.len() - 1]).unwrap());
    assert!((grown - (last as f64 - first as f64)).abs() < 16.0, "{grown} from {first} to {last}");
    assert!(intervals[0]["cgroups"][0]["kinds"]["anon"]["bytes_per_s"].is_null());
}

#[test]
#[ignore = "root"]
fn native_stream_is_not_held_up_by_its_reader() {
    let cgroup = TestCgroup::new("slow-reader").unwrap();
    // Standard output is a pipe that nobody reads, as short as pipes can be: a few lines, and those that wait, fill it.
    let mut command = harness::memtrail::command().unwrap();
    command.args(["record", "--cgroup", cgroup.path(), "--duration", "6s", "--interval", "10ms", "--stream", "-"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let unread = child.stdout.take().unwrap();
    // SAFETY: an open descriptor and a number.
    assert!(unsafe { libc::fcntl(unread.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) } >= 4096);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    assert!(said.contains("the reader of - was too slow") && said.contains("dropped"), "{said}");
    assert!(said.contains("losses"), "the summary is on standard error: {said}");
    drop(unread);
}

#[test]
#[ignore = "root"]
fn native_stream_without_a_reader_does_not_delay_the_end() {
    let cgroup = TestCgroup::new("no-reader").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut args = record_args(cgroup.path(), Mode::Default);
    args.extend(["--interval", "20ms", "--stream", pipe.to_str().unwrap()].map(str::to_owned));
    let memtrail = Memtrail::start(&args).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let asked = Instant::now();
    let outcome = memtrail.stop().unwrap();
    let took = asked.elapsed();
    assert!(outcome.stderr.contains("was too slow") && outcome.stderr.contains("lines dropped"), "{}", outcome.stderr);
    assert!(took < Duration::from_secs(2), "it took {took:?} to end");
}

/// The umask is the whole process's: each is tried with a memtrail of its own.
#[test]
#[ignore = "root"]
fn native_stream_and_recording_are_their_owners_and_reports_as_the_umask_says() {
    use std::os::unix::fs::PermissionsExt as _;
    let cgroup = TestCgroup::new("modes").unwrap();
    let private = ["a.mtrail", "a.jsonl"];
    let others = ["a.json", "a.hlog", "a.pftrace"];
    for (umask, mode, given) in [("077", 0o600, None), ("022", 0o644, None), ("002", 0o664, None), ("077", 0, Some("0640"))] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).arg(binary().unwrap());
        command.args(["record", "--cgroup", cgroup.path(), "--duration", "200ms", "--interval", "50ms", "--stream", &at("a.jsonl")]);
        for name in others.iter().chain(&["a.mtrail"]) {
            command.args(["-o", &at(name)]);
        }
        command.args(given.map(|mode| ["--mode", mode]).into_iter().flatten());
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(matches!(output.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stderr));
        let mode_of = |name: &str| std::fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
        for (names, expected) in [(&private[..], 0o600), (&others[..], mode)] {
            for name in names {
                let expected = if given.is_some() { 0o640 } else { expected };
                assert_eq!(mode_of(name), expected, "{name} under {umask} with --mode {given:?}");
            }
        }
    }
}
