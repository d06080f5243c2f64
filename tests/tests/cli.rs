//! Bad input: one clear line on standard error and the right exit status. None of it needs root; where root would get further, the
//! program is started as nobody.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use harness::memtrail::binary;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const NOBODY: u32 = 65534;

/// The one line, without the program's name.
fn complaint(command: &mut Command, status: i32) -> String {
    let output = command.env_remove("RUST_BACKTRACE").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    lines[0].strip_prefix("memtrail: ").expect("the line begins with the program's name").to_owned()
}

fn memtrail(args: &[&str]) -> Command {
    let mut command = harness::memtrail::command().unwrap();
    command.args(args);
    command
}

fn assert_says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

/// As nobody, from a copy that nobody may execute.
#[test]
fn without_rights_the_capability_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("memtrail");
    std::fs::copy(binary().unwrap(), &copy).unwrap();
    let open = |path: &Path| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    open(folder.path());
    open(&copy);
    let mut command = Command::new(&copy);
    harness::signals::plain(&mut command);
    command.args(["record", "--duration", "1s"]).current_dir("/");
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    assert_says(&complaint(&mut command, 1), &["CAP_BPF", "root"]);
}

#[test]
fn targets_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let say = |target: &str| complaint(&mut memtrail(&["record", "--duration", "1s", "-o", target]), 1);
    assert_says(&say(&at("out.pdf")), &["out.pdf", "unknown ending", ".json"]);
    assert_says(&say(&at("missing/out.json")), &["missing/out.json", "is not a directory"]);
    std::fs::create_dir(at("folder.svg")).unwrap();
    assert_says(&say(&at("folder.svg")), &["folder.svg", "not a regular file"]);
}

#[test]
fn arguments_that_cannot_be() {
    for (args, says) in [
        (&["record", "--duration", "0s"][..], &["--duration", "zero"][..]),
        (&["record", "--duration", "99999999999h"], &["--duration", "3650d"]),
        (&["record", "--duration", "soon"], &["--duration", "soon"]),
        (&["record", "--duration=-5s"], &["--duration", "-5s"]),
        (&["record", "--interval", "0s"], &["--interval", "zero"]),
        (&["record", "--map-memory", "lots"], &["--map-memory", "lots"]),
        (&["record", "--provider", "guess"], &["--provider", "guess", "tracepoint"]),
        (&["record", "--limit", "64MiB"], &["<CMD>"]),
        (&["record", "--nonsense"], &["--nonsense"]),
        (&["record", "--table", "KEYS=0"], &["KEYS"]),
        (&["report"], &["FILE.mtrail"]),
        (&["report", "x.mtrail", "--kind", "heap"], &["heap", "anon"]),
        (&["report", "x.mtrail", "--by", "thread", "--value", "charged"], &["--by thread", "charged", "no thread"]),
        (&["report", "x.mtrail", "--by", "thread", "--view", "cgroups"], &["--by thread", "--view stacks"]),
        (&["report", "x.mtrail", "--by", "thread", "-o", "/tmp/x.json"], &["x.json", ".folded"]),
        (&["report", "x.mtrail", "--value", "growth", "--view", "cgroups"], &["--value growth", "--view stacks"]),
        (&["report", "x.mtrail", "--value", "growth", "-o", "/tmp/x.json"], &["x.json", "memtrail diff"]),
        (&["report", "x.mtrail", "--from", "a", "--value", "live"], &["--from", "--value growth"]),
        (&["record", "--mark-signal", "usr1", "--", "true"], &["--mark-signal"]),
        (&["report", "x.mtrail", "--view", "marks", "-o", "-"], &["--view marks"]),
        (&["mark", "a@b"], &["a@b", "cannot be a mark"]),
        (&["record", "--stream", "-", "--", "true"], &["--stream -", "the command's"]),
        (&["record", "--stream", "-", "-o", "-"], &["--stream -", "the report's"]),
        (&["record", "--mark-signal", "usr1"], &["--mark-signal", "-o FILE.mtrail"]),
        (&["nonsense"], &["nonsense"]),
    ] {
        assert_says(&complaint(&mut memtrail(args), 2), says);
    }
}

#[test]
fn recordings_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let say = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let line = complaint(&mut memtrail(&["report", path.to_str().unwrap()]), 1);
        assert_says(&line, &[name]);
        line
    };
    assert_says(&say("empty.mtrail", b""), &["not a memtrail recording"]);
    assert_says(&say("foreign.mtrail", b"\x7fELF and so on, for longer than any header is, or nearly"), &["not a memtrail recording"]);
    let missing = folder.path().join("missing.mtrail");
    assert_says(&complaint(&mut memtrail(&["report", missing.to_str().unwrap()]), 1), &["missing.mtrail", "No such file"]);

    // A real one, cut at every length and changed at every place: one line each, whatever it says.
    let path = folder.path().join("real.mtrail");
    let header = memtrail::recording::Header { tool: "memtrail test".into(), ..Default::default() };
    let mut writer = memtrail::recording::Writer::create(&path, &header).unwrap();
    writer.interval(&memtrail::report::Interval { at_s: 1.0, ..Default::default() }).unwrap();
    writer.finish().unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert_says(&say("no-report.mtrail", &whole), &["no snapshot"]);
    for length in (1..whole.len()).step_by(whole.len() / 12) {
        let output = {
            let cut = folder.path().join("cut.mtrail");
            std::fs::write(&cut, &whole[..length]).unwrap();
            memtrail(&["report", cut.to_str().unwrap()]).output().unwrap()
        };
        assert_eq!(output.status.code(), Some(1), "{length}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{length}");
    }
    for at in (0..whole.len()).step_by(whole.len() / 12) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        say("changed.mtrail", &bytes);
    }
}
