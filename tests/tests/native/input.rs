//! Bad input that only a tracer with all rights meets: one line each, the right exit status, nothing half-written.

use harness::place::Folder;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn record(args: &[&str]) -> (Output, Vec<String>) {
    let output = harness::memtrail::command().unwrap().arg("record").args(args).env_remove("RUST_BACKTRACE").output().unwrap();
    let lines = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    (output, lines)
}

#[test]
#[ignore = "root"]
fn native_an_unknown_cgroup_is_an_error() {
    let (output, lines) = record(&["--duration", "1s", "--cgroup", "/no/such/cgroup"]);
    assert_eq!((output.status.code(), lines.len()), (Some(1), 1), "{lines:?}");
    assert!(lines[0].contains("/no/such/cgroup"), "{lines:?}");
}

#[test]
#[ignore = "root"]
fn native_a_pattern_without_match_is_a_warning_and_in_the_end_an_error() {
    let (output, lines) = record(&["--duration", "1s", "--cgroup", "/no-such-*"]);
    assert_eq!(output.status.code(), Some(1), "{lines:?}");
    assert!(lines[0].contains("warning") && lines[0].contains("/no-such-*"), "{lines:?}");
    assert!(lines.last().unwrap().contains("no cgroup matched /no-such-*"), "{lines:?}");
    assert_eq!(lines.len(), 3, "{lines:?}");
}

/// A small tmpfs on this folder; unmounts it in the end, with what is open there.
struct SmallDisk(CString);

impl SmallDisk {
    fn on(folder: &Folder, kib: u32) -> SmallDisk {
        let size = CString::new(format!("size={kib}k")).unwrap();
        let target = CString::new(folder.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: all strings are nul-terminated and outlive the call; data is a string, as tmpfs wants.
        let status = unsafe { libc::mount(c"memtrail-test".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, size.as_ptr().cast()) };
        assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
        SmallDisk(target)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // SAFETY: as above.
        let unmounted = unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
        assert_eq!(unmounted, 0, "{}", std::io::Error::last_os_error());
    }
}

/// There is room for a header, not for a report.
#[test]
#[ignore = "root"]
fn native_a_full_disk_leaves_nothing_half_written() {
    let folder = Folder::new("full-disk").unwrap();
    let disk = SmallDisk::on(&folder, 16);
    let json = folder.path().join("full.json");
    let (output, lines) = record(&["--duration", "1s", "-o", json.to_str().unwrap()]);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    drop(disk);
    assert_eq!(output.status.code(), Some(1), "{lines:?}");
    let last = lines.last().unwrap();
    assert!(last.contains("full.json") && last.contains("No space left"), "{lines:?}");
    assert!(left.is_empty(), "{left:?}");
}

/// A disk becomes full while outputs are written to it, of which one has to grow then: it is told at once and in the end, and the others
/// are written to their ends.
#[test]
#[ignore = "root"]
fn native_a_full_disk_stops_no_other_output() {
    let (small, other) = (Folder::new("full-disk").unwrap(), Folder::new("other-disk").unwrap());
    let disk = SmallDisk::on(&small, 64);
    let path = |folder: &Folder, name: &str| folder.path().join(name).display().to_string();
    let full = ["full.mtrail", "full.hlog", "full.pftrace"].map(|name| path(&small, name));
    let whole = ["whole.mtrail", "whole.hlog", "whole.pftrace", "whole.json"].map(|name| path(&other, name));
    let mut command = harness::memtrail::command().unwrap();
    command.args(["record", "--duration", "10min", "--interval", "50ms"]).env_remove("RUST_BACKTRACE");
    for output in full.iter().chain(&whole) {
        command.args(["-o", output]);
    }
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id().to_string();
    let mark = |name: &str| harness::memtrail::command().unwrap().args(["mark", "--pid", &pid, name]).output().unwrap();
    let began = Instant::now();
    while !mark("room").status.success() {
        assert!(began.elapsed() < Duration::from_secs(120), "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut filler = std::fs::File::create(small.path().join("filler")).unwrap();
    while filler.write(&[1; 512]).is_ok_and(|written| written > 0) {}
    // A mark comes with a report, which is longer than what is left of a page.
    let marked = mark("none");
    assert!(marked.status.success(), "{}", String::from_utf8_lossy(&marked.stderr));
    // SAFETY: kill takes no pointers; the child has not been waited for, so the id is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let log = std::fs::read_to_string(&full[1]).unwrap();
    let cut = harness::memtrail::command().unwrap().args(["report", &full[0], "--view", "marks"]).output().unwrap();
    drop(disk);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let of = |file: &str| said.lines().filter(|line| line.contains(file) && line.contains("No space left")).count();
    assert_eq!(of("/full.mtrail"), 2, "{said}");
    assert!(full.iter().all(|file| [0, 2].contains(&of(file))), "each is told at once and in the end, or not at all: {said}");
    assert_eq!(of("/whole."), 0, "{said}");
    // What is on the full disk ends with whole pieces.
    assert!(log.is_empty() || log.ends_with('\n'), "{log}");
    assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
    let json = std::fs::read_to_string(other.path().join("whole.json")).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["cgroups"].is_array());
    let marks = harness::memtrail::command().unwrap().args(["report", &whole[0], "--view", "marks"]).output().unwrap();
    let marks = String::from_utf8_lossy(&marks.stdout);
    assert!(marks.contains("room") && marks.contains("none"), "{marks}");
}

/// The other formats, from a recording: the error names the file, nothing is left, and what had the name before stays.
#[test]
#[ignore = "root"]
fn native_a_full_disk_leaves_earlier_outputs() {
    let folder = Folder::new("full-disk").unwrap();
    let disk = SmallDisk::on(&folder, 16);
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/../tracer-user/tests/fixtures/recording-v1-changes.mtrail");
    let names = ["x.folded", "x.svg", "x.json", "x.pb.gz", "x.hlog", "x.pftrace"];
    names.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
    std::fs::write(folder.path().join("filler"), [1; 16 << 10]).unwrap();
    let mut outputs = Vec::new();
    for name in names {
        let report =
            harness::memtrail::command().unwrap().args(["report", recording, "-o"]).arg(folder.path().join(name)).output().unwrap();
        outputs.push((name, report.status.code(), String::from_utf8_lossy(&report.stderr).into_owned()));
    }
    let left: BTreeMap<String, u64> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    drop(disk);
    for (name, status, said) in outputs {
        assert!(status == Some(1) && said.contains(name) && said.contains("No space left"), "{name}: {status:?} {said}");
        assert_eq!(left.get(name), Some(&0), "{left:?}");
    }
    assert_eq!(left.len(), names.len() + 1, "nothing else is left: {left:?}");
}

/// Ended by Ctrl-C or SIGTERM, every output is whole, and there is nothing else.
#[test]
#[ignore = "root"]
fn native_every_output_is_whole_after_a_signal() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let folder = Folder::new("signal").unwrap();
        let names = ["x.folded", "x.svg", "x.json", "x.pb.gz", "x.hlog", "x.pftrace", "x.mtrail", "x.jsonl"];
        let path = |name: &str| folder.path().join(name);
        let mut command = harness::memtrail::command().unwrap();
        command.args(["record", "--interval", "100ms", "--stream"]).arg(path("x.jsonl")).env_remove("RUST_BACKTRACE");
        for name in &names[..7] {
            command.arg("-o").arg(path(name));
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // The log has a line as soon as there was an interval.
        let began = Instant::now();
        while std::fs::read_to_string(path("x.jsonl")).is_ok_and(|text| !text.contains('\n')) || !path("x.jsonl").exists() {
            assert!(began.elapsed() < Duration::from_secs(120), "it does not begin");
            std::thread::sleep(Duration::from_millis(20));
        }
        // SAFETY: kill takes no pointers; the child has not been waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}: {said}", output.status);
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mut wanted = names;
        wanted.sort_unstable();
        assert_eq!(left, wanted);
        let read = |name: &str| std::fs::read(path(name)).unwrap();
        let text = |name: &str| String::from_utf8(read(name)).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text("x.json")).unwrap()["cgroups"].is_array());
        assert!(text("x.svg").trim_end().ends_with("</svg>"));
        // What is made of the recording later is the same to the byte; only distributions are one an interval while it runs.
        for name in ["x.folded", "x.svg", "x.json", "x.pb.gz", "x.pftrace"] {
            let later = path(&name.replace("x.", "later."));
            let report = harness::memtrail::command().unwrap().arg("report").arg(path("x.mtrail")).arg("-o").arg(&later).output().unwrap();
            assert!(report.status.success(), "{name}: {}", String::from_utf8_lossy(&report.stderr));
            assert!(!read(name).is_empty() && read(name) == std::fs::read(&later).unwrap(), "{name} is not what the recording has");
        }
        assert!(harness::report::folded_sums(&text("x.folded")).unwrap().0 > 0, "{}", text("x.folded"));
        let log = text("x.hlog");
        let rows: Vec<&str> = log.lines().filter(|line| line.starts_with("Tag=")).collect();
        assert!(!rows.is_empty() && log.ends_with('\n'), "{log}");
        for row in rows {
            let distribution =
                memtrail::report::distribution::Distribution::decode(row.rsplit(',').next().unwrap()).unwrap_or_else(|| panic!("{row}"));
            assert!(distribution.count() > 0, "{row}");
        }
        assert!(text("x.jsonl").lines().last().unwrap().contains("\"type\":\"end\""));
        assert!(memtrail::recording::read(&path("x.mtrail")).unwrap().finished);
        let unpacked = Command::new("gzip").args(["-t"]).arg(path("x.pb.gz")).status().unwrap();
        assert!(unpacked.success());
    }
}
