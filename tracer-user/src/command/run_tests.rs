use super::*;
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

/// Plays memtrail in a process of its own, since handlers are a process's; does nothing unless the test below starts it so.
#[test]
fn play_supervisor() {
    let Ok(script) = std::env::var("MEMTRAIL_TEST_SUPERVISED") else { return };
    let signals = Signals::catch().unwrap();
    assert_eq!(Signals::catch().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let outcome = start(&script).supervise(Some(&signals), None).unwrap();
    std::process::exit(outcome.exit.code());
}

fn play(script: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "command::run::tests::play_supervisor"]).stdout(Stdio::null());
    command.env("MEMTRAIL_TEST_SUPERVISED", script).spawn().unwrap()
}

#[test]
fn signals_are_passed_on_and_the_status_is_the_commands() {
    for (signal, expected) in [("TERM", 34), ("INT", 35), ("HUP", 36)] {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let script =
            format!("trap 'exit 34' TERM; trap 'exit 35' INT; trap 'exit 36' HUP; touch {}; while :; do sleep 0.05; done", ready.display());
        let mut memtrail = play(&script);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ready.exists() {
            assert!(Instant::now() < deadline, "the command did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let kill = Command::new("/bin/sh").args(["-c", &format!("kill -{signal} {}", memtrail.id())]).status().unwrap();
        assert!(kill.success());
        assert_eq!(memtrail.wait().unwrap().code(), Some(expected), "{signal}");
    }
}
