use super::super::signals::Signals;
use super::*;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

#[test]
fn waits_are_rounded_up_and_bounded() {
    assert_eq!(poll_ms(Duration::from_nanos(1)), 1);
    assert_eq!(poll_ms(Duration::from_millis(5)), 5);
    assert_eq!(poll_ms(Duration::MAX), i32::MAX);
}

fn start(script: &str) -> Running {
    let program = Program::resolve(&["/bin/sh".into(), "-c".into(), script.into()]).unwrap();
    Gated::spawn(&program, None).unwrap().release().unwrap()
}

#[test]
fn without_a_cgroup_the_command_runs_all_the_same() {
    assert_eq!(start("exit 3").wait().unwrap(), Exit::Code(3));
    let mut ended = start("exit 4");
    let exit = ended.wait().unwrap();
    assert_eq!((exit, ended.ended().unwrap(), ended.stop(Duration::ZERO).unwrap()), (Exit::Code(4), Some(exit), exit));
}

#[test]
fn the_command_starts_with_plain_signals_and_nothing_of_ours_open() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    assert_eq!(start(&format!("exec cat /proc/self/status > {}", out.display())).wait().unwrap(), Exit::Code(0));
    let text = std::fs::read_to_string(&out).unwrap();
    let mask = |name: &str| u64::from_str_radix(text.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim(), 16).unwrap();
    assert_eq!((mask("SigBlk:"), mask("SigCgt:"), mask("SigIgn:") & (1 << (libc::SIGPIPE - 1))), (0, 0, 0));
    // What the harness itself leaves open is there for any child: the standard library's are the measure.
    let list = format!("ls /proc/self/fd > {}", out.display());
    let open_in = |run: &dyn Fn()| {
        run();
        std::fs::read_to_string(&out).unwrap().lines().count()
    };
    let theirs = open_in(&|| assert!(Command::new("/bin/sh").args(["-c", &list]).status().unwrap().success()));
    let ours = open_in(&|| assert_eq!(start(&list).wait().unwrap(), Exit::Code(0)));
    assert_eq!(ours, theirs);
}

/// Lets a child begin with these signals ignored, and all others as from a shell in the foreground, whatever this test was started with.
fn ignoring<'a>(command: &'a mut Command, signals: &'static [i32]) -> &'a mut Command {
    // SAFETY: between fork and exec the closure makes async-signal-safe calls on memory of its own, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            for signal in 1..=64 {
                libc::signal(signal, libc::SIG_DFL);
            }
            for signal in signals {
                libc::signal(*signal, libc::SIG_IGN);
            }
            Ok(())
        })
    }
}

/// In the process that [`play`] starts: plays memtrail there, since handlers are a process's, and does not return.
fn play_if_asked() {
    let Ok(script) = std::env::var("MEMTRAIL_TEST_SUPERVISED") else { return };
    let signals = Signals::catch().unwrap();
    assert_eq!(Signals::catch().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let mut running = start(&script);
    let exit = loop {
        if let Some(exit) = running.ended().unwrap() {
            break exit;
        }
        sys::readable([running.pidfd.as_raw_fd(), signals.fd().as_raw_fd()], -1).unwrap();
        while let Some(caught) = signals.next().unwrap() {
            running.pass_on(caught).unwrap();
        }
    };
    std::process::exit(exit.code());
}

/// memtrail with a command, in a process that runs the calling test, which begins with [`play_if_asked`]. Killed when dropped.
struct Played {
    memtrail: Child,
    ready: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

/// Longest wait for something that must happen; long enough for a loaded machine, and no statement about speed.
const PATIENCE: Duration = Duration::from_secs(60);

impl Played {
    /// `script` is what the command does once it has written its process id.
    fn start(ignored: &'static [i32], script: &str) -> Played {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        let (part, whole) = (folder.path().join("part"), ready.display());
        let script = format!("{script}; echo $$ > {0}; mv {0} {whole}; while :; do sleep 0.05; done", part.display());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", std::thread::current().name().unwrap()]).stdout(Stdio::null());
        let memtrail = ignoring(&mut command, ignored).env("MEMTRAIL_TEST_SUPERVISED", script).spawn().unwrap();
        let played = Played { memtrail, ready, _folder: folder };
        eventually("the command starts", || played.ready.exists());
        played
    }

    /// The command's process id.
    fn command(&self) -> i32 {
        std::fs::read_to_string(&self.ready).unwrap().trim().parse().unwrap()
    }

    fn signal(&self, signal: i32) {
        sys::signal(self.memtrail.id().cast_signed(), signal).unwrap();
    }

    /// memtrail's exit status, once it ends.
    fn status(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("memtrail ends", || {
            status = self.memtrail.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        // The command outlives a memtrail that is killed. While memtrail runs, the number is its child's.
        if self.memtrail.try_wait().is_ok_and(|status| status.is_none()) && self.ready.exists() {
            let _ = sys::signal(self.command(), libc::SIGKILL);
        }
        // It fails only when it has ended.
        let _ = self.memtrail.kill();
        let _ = self.memtrail.wait();
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A mask of /proc/PID/status: bit N-1 for signal N.
fn mask(pid: i32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    u64::from_str_radix(status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim(), 16).unwrap()
}

#[test]
fn signals_are_passed_on_and_the_status_is_the_commands() {
    play_if_asked();
    for (signal, expected) in [(libc::SIGTERM, 34), (libc::SIGINT, 35), (libc::SIGHUP, 36)] {
        let mut played = Played::start(&[], "trap 'exit 34' TERM; trap 'exit 35' INT; trap 'exit 36' HUP");
        played.signal(signal);
        assert_eq!(played.status(), Some(expected), "{signal}");
    }
}

#[test]
fn ignored_signals_are_not_passed_on_and_the_command_ignores_them_too() {
    const IGNORED: [i32; 3] = [libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
    play_if_asked();
    let mut played = Played::start(&IGNORED, "trap 'exit 34' TERM");
    let (memtrail, command) = (played.memtrail.id().cast_signed(), played.command());
    for signal in IGNORED {
        assert_ne!(mask(memtrail, "SigIgn:") & sys::bit(signal), 0, "{signal} in memtrail");
        assert_ne!(mask(command, "SigIgn:") & sys::bit(signal), 0, "{signal} in the command");
        assert_eq!(mask(memtrail, "SigCgt:") & sys::bit(signal), 0, "{signal} is caught");
        played.signal(signal);
    }
    played.signal(libc::SIGTERM);
    assert_eq!(played.status(), Some(34), "SIGTERM comes after the others and is the first to be passed on");
}

#[test]
fn sigterm_is_caught_even_if_it_was_ignored_and_the_command_begins_with_it_ignored() {
    play_if_asked();
    let mut played = Played::start(&[libc::SIGTERM], ":");
    let (memtrail, command) = (played.memtrail.id().cast_signed(), played.command());
    assert_ne!(mask(memtrail, "SigCgt:") & sys::bit(libc::SIGTERM), 0, "memtrail does not catch it");
    assert_ne!(mask(command, "SigIgn:") & sys::bit(libc::SIGTERM), 0, "the command does not ignore it");
    sys::signal(command, libc::SIGKILL).unwrap();
    assert_eq!(played.status(), Some(128 + libc::SIGKILL));
}

#[test]
fn the_command_begins_with_the_signals_blocked_that_were_blocked() {
    // SAFETY: the sets are valid memory; the mask is this thread's, which ends with the test.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGUSR2);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    assert_eq!(start(&format!("exec cat /proc/self/status > {}", out.display())).wait().unwrap(), Exit::Code(0));
    let text = std::fs::read_to_string(&out).unwrap();
    let blocked = u64::from_str_radix(text.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim(), 16).unwrap();
    assert_eq!(blocked, sys::bit(libc::SIGUSR2));
}
