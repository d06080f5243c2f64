//! Bad input that only a tracer with all rights meets: one line each, the right exit status, nothing half-written.

use harness::memtrail::binary;
use harness::place::Folder;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

fn record(args: &[&str]) -> (Output, Vec<String>) {
    let output = Command::new(binary().unwrap()).arg("record").args(args).env_remove("RUST_BACKTRACE").output().unwrap();
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

/// A tmpfs of 16 KiB on this folder; unmounts it in the end, with what is open there.
struct SmallDisk(CString);

impl SmallDisk {
    fn on(folder: &Folder) -> SmallDisk {
        let target = CString::new(folder.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: all strings are nul-terminated and outlive the call; data is a string, as tmpfs wants.
        let status = unsafe { libc::mount(c"memtrail-test".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, c"size=16k".as_ptr().cast()) };
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
    let disk = SmallDisk::on(&folder);
    let json = folder.path().join("full.json");
    let (output, lines) = record(&["--duration", "1s", "-o", json.to_str().unwrap()]);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    drop(disk);
    assert_eq!(output.status.code(), Some(1), "{lines:?}");
    let last = lines.last().unwrap();
    assert!(last.contains("full.json") && last.contains("No space left"), "{lines:?}");
    assert!(left.is_empty(), "{left:?}");
}

/// One output is on a full disk: the others are written to their ends.
#[test]
#[ignore = "root"]
fn native_a_full_disk_stops_no_other_output() {
    let (small, other) = (Folder::new("full-disk").unwrap(), Folder::new("other-disk").unwrap());
    let disk = SmallDisk::on(&small);
    let path = |folder: &Folder, name: &str| folder.path().join(name).display().to_string();
    // What is left holds the header and some intervals.
    std::fs::write(path(&small, "filler"), [1; 12 << 10]).unwrap();
    let outputs = [path(&small, "full.mtrail"), path(&other, "whole.mtrail"), path(&other, "whole.json")];
    let outputs = outputs.each_ref().map(|output| ["-o", output.as_str()]);
    let (output, lines) = record(&[&["--duration", "3s", "--interval", "50ms"], &outputs.concat()[..]].concat());
    drop(disk);
    assert_eq!(output.status.code(), Some(1), "{lines:?}");
    let said = lines.iter().filter(|line| line.contains("full.mtrail") && line.contains("No space left")).count();
    assert_eq!(said, 2, "at once and at the end: {lines:?}");
    let json = std::fs::read_to_string(other.path().join("whole.json")).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["cgroups"].is_array());
    let report = Command::new(binary().unwrap()).arg("report").arg(other.path().join("whole.mtrail")).output().unwrap();
    assert_eq!(report.status.code(), Some(0), "{}", String::from_utf8_lossy(&report.stderr));
}
