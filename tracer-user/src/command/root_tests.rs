//! The whole of [`crate::command`] on the running kernel. They need root and a memory hierarchy, so they are ignored by default.

use super::*;
use crate::cgroup::{CgroupPath, Hierarchy};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for something that must happen; long enough for a loaded machine, and no statement about speed.
const PATIENCE: Duration = Duration::from_secs(60);

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn program(arguments: &[&str]) -> Program {
    Program::resolve(&arguments.iter().map(OsString::from).collect::<Vec<_>>()).unwrap()
}

fn place(limit: Option<u64>) -> Place {
    match Placement::make(&Hierarchy::find().unwrap(), limit).unwrap() {
        Placement::Own(place) => place,
        Placement::Inherited { warning } => panic!("{warning}"),
    }
}

fn start(place: &Place, script: &str) -> Running {
    Gated::spawn(&program(&["/bin/sh", "-c", script]), Some(place)).unwrap().release().unwrap()
}

fn exit_of(script: &str) -> Exit {
    let mut place = place(None);
    let exit = start(&place, script).wait().unwrap();
    assert_eq!(place.remove(), Removal::Removed);
    assert!(!place.directory().exists());
    exit
}

fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

#[test]
#[ignore = "needs root"]
fn root_statuses_are_the_commands() {
    assert_eq!(exit_of("exit 0"), Exit::Code(0));
    assert_eq!(exit_of("exit 42"), Exit::Code(42));
    assert_eq!(exit_of("kill -KILL $$"), Exit::Signal(libc::SIGKILL));
    assert_eq!(exit_of("kill -TERM $$").code(), 143);
}

#[test]
#[ignore = "needs root"]
fn root_the_command_is_in_its_cgroup_from_the_start() {
    let place = place(None);
    let out = tempfile::NamedTempFile::new().unwrap();
    let gated =
        Gated::spawn(&program(&["/bin/sh", "-c", &format!("cat /proc/self/cgroup > {}", out.path().display())]), Some(&place)).unwrap();
    let pid = gated.pid();
    let procs = fs::read_to_string(place.directory().join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), pid.to_string(), "before exec");
    assert!(fs::read(out.path()).unwrap().is_empty(), "nothing runs before the release");
    assert_eq!(gated.release().unwrap().wait().unwrap(), Exit::Code(0));
    let version = Hierarchy::find().unwrap().version;
    let seen = crate::cgroup::mounts::path_in(&fs::read(out.path()).unwrap(), version).unwrap();
    assert!(seen.as_bytes().ends_with(place.path().as_bytes()), "{seen} {}", place.path());
}

#[test]
#[ignore = "needs root"]
fn root_what_cannot_run_is_127_or_126() {
    let place = place(None);
    assert_eq!(Program::resolve(&["memtrail-no-such-command".into()]).unwrap_err().exit_code(), 127);
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: &str| {
        // Another process writes it: an open descriptor of ours, copied by a fork elsewhere, would give ETXTBSY.
        let path = dir.path().join(name);
        let script = format!("printf '{text}' > {0} && chmod {mode} {0}", path.display());
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
        path
    };
    let exec = |path: &Path| {
        let gated = Gated::spawn(&program(&[path.to_str().unwrap()]), Some(&place)).unwrap();
        let error = gated.release().map(|r| r.pid()).unwrap_err();
        (error.exit_code(), error)
    };
    assert!(
        matches!(exec(&file("garbage", "\\001\\002", "755")), (126, CommandError::NotExecutable { source, .. }) if source.raw_os_error() == Some(libc::ENOEXEC))
    );
    assert!(matches!(exec(&file("lost", "#!/no/such/interpreter\\n", "755")), (127, CommandError::NotFound(_))));
    let plain = file("plain", "x", "644");
    assert_eq!(Program::resolve(&[plain.into_os_string()]).unwrap_err().exit_code(), 126);
    // Gone between the look-up and the exec.
    let gone = file("gone", "#!/bin/sh\\n", "755");
    let gated = Gated::spawn(&program(&[gone.to_str().unwrap()]), Some(&place)).unwrap();
    fs::remove_file(&gone).unwrap();
    assert_eq!(gated.release().unwrap_err().exit_code(), 127);
}

#[test]
#[ignore = "needs root"]
fn root_the_limit_is_set_and_kills() {
    let mut place = place(Some(16 << 20));
    let hierarchy = Hierarchy::find().unwrap();
    let reading = crate::cgroup::poll::Poller::new(&hierarchy, 0).read_one(place.id(), place.path()).unwrap().unwrap();
    assert_eq!(reading.limit.and_then(crate::cgroup::stat::Limit::bytes), Some(16 << 20));
    // tail keeps all of its input when there is no newline in it.
    let exit = start(&place, "head -c 100000000 /dev/zero | tail > /dev/null").wait().unwrap();
    assert_eq!(exit.code(), 137);
    let after = crate::cgroup::poll::Poller::new(&hierarchy, 0).read_one(place.id(), place.path()).unwrap().unwrap();
    assert!(after.events.oom_kill >= Some(1) && after.events.limit_hits >= Some(1), "{:?}", after.events);
    assert_eq!(place.remove(), Removal::Removed);
}

#[test]
#[ignore = "needs root"]
fn root_a_command_is_ended_at_the_deadline_whatever_it_does() {
    let place = place(None);
    let polite = start(&place, "exec sleep 1000").stop(PATIENCE).unwrap();
    assert_eq!(polite, Exit::Signal(libc::SIGTERM));
    let mut deaf = start(&place, "trap '' TERM; while :; do sleep 0.1; done");
    eventually("the trap is set", || ignores_sigterm(deaf.pid()));
    assert_eq!(deaf.stop(Duration::from_millis(300)).unwrap(), Exit::Signal(libc::SIGKILL));
    let mut stopped = start(&place, "kill -STOP $$");
    assert_eq!(stopped.wait_until(Instant::now() + Duration::from_millis(200)).unwrap(), None);
    assert_eq!(stopped.stop(PATIENCE).unwrap(), Exit::Signal(libc::SIGTERM), "a stopped command is continued to heed it");
    let mut quick = start(&place, "exit 5");
    assert_eq!(quick.wait_until(Instant::now() + PATIENCE).unwrap(), Some(Exit::Code(5)));
}

fn ignores_sigterm(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ignored = status.lines().find_map(|l| l.strip_prefix("SigIgn:")).and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & (1 << (libc::SIGTERM - 1)) != 0)
}

#[test]
#[ignore = "needs root"]
fn root_a_command_that_is_never_released_never_runs() {
    let mut place = place(None);
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("ran");
    drop(Gated::spawn(&program(&["/bin/sh", "-c", &format!("touch {}", mark.display())]), Some(&place)).unwrap());
    assert!(!mark.exists());
    assert_eq!(place.remove(), Removal::Removed);
}

#[test]
#[ignore = "needs root"]
fn root_a_thousand_children() {
    assert_eq!(exit_of("i=0; while [ $i -lt 1000 ]; do (:) & i=$((i+1)); done; wait; exit 9"), Exit::Code(9));
}

#[test]
#[ignore = "needs root"]
fn root_a_daemon_is_reported_and_left_alone() {
    let mut place = place(None);
    assert_eq!(start(&place, "setsid sleep 1000 > /dev/null 2>&1 & exit 7").wait().unwrap(), Exit::Code(7));
    let Removal::Populated { pids } = place.remove() else { panic!("removed under a process") };
    assert_eq!(pids.len(), 1);
    assert!(is_running(pids[0]) && place.directory().exists());
    assert!(Command::new("kill").arg(pids[0].to_string()).status().unwrap().success());
    eventually("removed once the daemon is gone", || place.remove() == Removal::Removed);
}

#[test]
#[ignore = "needs root"]
fn root_cgroups_below_the_commands_go_with_it() {
    let mut place = place(None);
    assert_eq!(start(&place, "exit 0").wait().unwrap(), Exit::Code(0));
    let below = place.directory().join("a/b");
    fs::create_dir_all(&below).unwrap();
    assert!(below.exists());
    assert_eq!(place.remove(), Removal::Removed);
}

#[test]
#[ignore = "needs root"]
fn root_the_janitor_keeps_nothing_open_but_what_it_needs() {
    let place = place(None);
    let janitor = place.janitor_pid().unwrap();
    eventually("three descriptors", || fs::read_dir(format!("/proc/{janitor}/fd")).unwrap().count() == 3);
    drop(place);
    assert!(!is_running(janitor));
}

/// In the process that [`play`] starts: plays a memtrail that does not end by itself, and does not return.
fn play_if_asked() {
    let (Ok(script), Ok(note)) = (std::env::var("MEMTRAIL_TEST_COMMAND"), std::env::var("MEMTRAIL_TEST_NOTE")) else { return };
    let place = place(None);
    let gated = Gated::spawn(&program(&["/bin/sh", "-c", &script]), Some(&place)).unwrap();
    let text = format!("{}\n{}\n", gated.pid(), place.path());
    let kept: Box<dyn std::any::Any> =
        if std::env::var_os("MEMTRAIL_TEST_AT_GATE").is_some() { Box::new(gated) } else { Box::new(gated.release().unwrap()) };
    fs::write(format!("{note}.part"), text).unwrap();
    fs::rename(format!("{note}.part"), note).unwrap();
    std::thread::sleep(PATIENCE * 2);
    drop(kept);
    panic!("nobody killed the memtrail that was played");
}

/// A memtrail in a process of its own, which runs the calling test, which begins with [`play_if_asked`]: it, its command's pid, its cgroup.
fn play(hierarchy: &Hierarchy, script: &str, at_gate: bool) -> (Child, u32, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("note");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", std::thread::current().name().unwrap()]);
    command.env("MEMTRAIL_TEST_COMMAND", script).env("MEMTRAIL_TEST_NOTE", &note).stdout(Stdio::null());
    if at_gate {
        command.env("MEMTRAIL_TEST_AT_GATE", "1");
    }
    let child = command.spawn().unwrap();
    eventually("memtrail's note", || note.exists());
    let text = fs::read_to_string(&note).unwrap();
    let (pid, directory) = text.trim().split_once('\n').unwrap();
    (child, pid.parse().unwrap(), hierarchy.directory(&CgroupPath::from_bytes(directory.as_bytes()).unwrap()))
}

fn kill_9(mut memtrail: Child) {
    memtrail.kill().unwrap();
    memtrail.wait().unwrap();
}

#[test]
#[ignore = "needs root"]
fn root_after_kill_9_the_command_goes_on_and_its_cgroup_goes_after_it() {
    play_if_asked();
    let hierarchy = Hierarchy::find().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let stop = dir.path().join("stop");
    let (memtrail, pid, directory) = play(&hierarchy, &format!("while [ ! -e {} ]; do sleep 0.05; done", stop.display()), false);
    kill_9(memtrail);
    std::thread::sleep(Duration::from_millis(300));
    assert!(is_running(pid) && directory.exists(), "the command goes on");
    fs::write(&stop, "").unwrap();
    eventually("the cgroup is removed", || !directory.exists());
}

#[test]
#[ignore = "needs root"]
fn root_after_kill_9_at_the_gate_nothing_runs_and_nothing_is_left() {
    play_if_asked();
    let hierarchy = Hierarchy::find().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("ran");
    let (memtrail, _, directory) = play(&hierarchy, &format!("touch {}", mark.display()), true);
    assert!(directory.exists());
    kill_9(memtrail);
    eventually("the cgroup is removed", || !directory.exists());
    assert!(!mark.exists());
}

#[test]
#[ignore = "needs root"]
fn root_the_next_memtrail_sweeps_what_a_killed_one_left() {
    let hierarchy = Hierarchy::find().unwrap();
    let kept = place(None);
    // A pid that is surely dead: above any pid_max.
    let stale = kept.level.join(place::PARENT).join("4194305");
    fs::create_dir_all(stale.join("below")).unwrap();
    let sweep = sweep_stale(&hierarchy);
    assert!(sweep.removed >= 1 && !stale.exists(), "{sweep:?}");
    assert!(kept.directory().exists(), "a living one's stays");
}
