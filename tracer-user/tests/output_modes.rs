//! Who may read the files that the program makes: the umask says, but for recordings, which are their owner's alone. The umask is the whole
//! process's, so the program is started with it, each time as a process of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

mod output_support;

use memtrail::recording::{Header, Writer};
use memtrail::report::Interval;
use output_support::*;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs the program under a umask.
fn run(umask: &str, args: &[&str]) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_memtrail")]).args(args);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn mode_of(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn recording_in(folder: &Path) -> PathBuf {
    let path = folder.join("run.mtrail");
    let mut writer = Writer::create(&path, &Header { tool: "memtrail test".into(), ..Header::default() }).unwrap();
    writer.interval(&Interval { at_s: 1.0, ..Interval::default() }).unwrap();
    writer.report(&one_container()).unwrap();
    writer.finish().unwrap();
    path
}

const UMASKS: [(&str, u32); 3] = [("077", 0o600), ("022", 0o644), ("002", 0o664)];

#[test]
fn a_recording_is_its_owners() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(mode_of(&recording_in(folder.path())), 0o600);
}

#[test]
fn reports_and_differences_follow_the_umask() {
    for (umask, mode) in UMASKS {
        let folder = tempfile::tempdir().unwrap();
        let recording = recording_in(folder.path());
        let recording = recording.to_str().unwrap();
        for ending in memtrail::output::format::endings(memtrail::output::Source::Recording).split(' ') {
            let path = folder.path().join(format!("out{ending}"));
            run(umask, &["report", recording, "-o", path.to_str().unwrap()]);
            assert_eq!(mode_of(&path), mode, "{ending} under {umask}");
        }
        let path = folder.path().join("diff.json");
        run(umask, &["diff", recording, recording, "-o", path.to_str().unwrap()]);
        assert_eq!(mode_of(&path), mode, "diff under {umask}");
    }
}

#[test]
fn a_replaced_file_gets_the_mode_of_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, path) = (recording_in(folder.path()), folder.path().join("out.json"));
    for (umask, mode) in UMASKS {
        run(umask, &["report", recording.to_str().unwrap(), "-o", path.to_str().unwrap()]);
        assert_eq!(mode_of(&path), mode, "{umask}");
    }
}
