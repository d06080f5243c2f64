//! A time limit for every test that uses the harness: none may hang, and one that would says what it waited for.
//!
//! A test is watched from its first use of the harness to the end of its thread; libtest gives each test a thread of its own, with its name, also with
//! `--test-threads=1`. At the limit all processes that descend from this one are killed. Whatever the test waits for ends by that, so the test
//! fails by itself, and drops its cgroups, mounts and folders as any failed test does. One that still does not end is given up with the whole
//! program. SIGTERM to the program, and Ctrl-C, end the running test in the same way.

use crate::{cgroup, child, place};
use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Begins the line that tells of a test at its limit. `cargo xtask test` collects them.
const TIMEOUT: &str = "TIMEOUT ";
/// Longest time of a test; the slowest takes a third of it on two CPUs.
const LIMIT: Duration = Duration::from_secs(600);
/// Of one whose name begins with `long_`.
const LIMIT_LONG: Duration = Duration::from_secs(2 * 3600);
/// The long form has larger sizes, and a scenario for each provider.
const LONG_FORM: u32 = 4;
/// Emulated machines are slow.
const EMULATED: u32 = 2;
/// Overrides the limit, seconds.
const VARIABLE: &str = "MEMTRAIL_TEST_LIMIT";
/// From the end of a test's processes to the end of the test.
const GRACE: Duration = Duration::from_secs(60);
/// The same when somebody waits for the program to end.
const GRACE_INTERRUPTED: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How libtest ends when a test failed.
const FAILED: i32 = 101;

/// A test that runs.
struct Watched {
    test: String,
    limit: Duration,
    began: Instant,
    /// What it waits for, the innermost last.
    waits: Vec<(u64, String)>,
    /// What it waited for before.
    last: Option<String>,
    /// When its processes were killed first, and why.
    over: Option<(Instant, String)>,
}

impl Watched {
    fn waits_for(&self) -> String {
        match (self.waits.last(), &self.last) {
            (Some((_, what)), _) => format!("it waits for {what}"),
            (None, Some(what)) => format!("it waits for nothing of the harness; the last was {what}"),
            (None, None) => "it waits for nothing of the harness".to_owned(),
        }
    }
}

static WATCHED: Mutex<BTreeMap<u64, Watched>> = Mutex::new(BTreeMap::new());
static NUMBER: AtomicU64 = AtomicU64::new(0);
/// The signal that asked this program to end; 0 if none did.
static INTERRUPTED: AtomicI32 = AtomicI32::new(0);

fn watched() -> MutexGuard<'static, BTreeMap<u64, Watched>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The test that this thread runs; taken off the list when the thread ends.
struct OfThread(Option<u64>);

impl OfThread {
    fn new() -> OfThread {
        let current = thread::current();
        // Threads that a test starts have no name, and the first thread runs no test.
        let Some(test) = current.name().filter(|name| *name != "main") else { return OfThread(None) };
        start();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let limit = limit(test);
        let one = Watched { test: test.to_owned(), limit, began: Instant::now(), waits: Vec::new(), last: None, over: None };
        watched().insert(number, one);
        OfThread(Some(number))
    }
}

impl Drop for OfThread {
    fn drop(&mut self) {
        if let Some(number) = self.0 {
            watched().remove(&number);
        }
    }
}

thread_local! {
    static OF_THREAD: OfThread = OfThread::new();
}

fn number() -> Option<u64> {
    // Not to be had in the last moments of a thread.
    OF_THREAD.try_with(|of_thread| of_thread.0).ok().flatten()
}

fn limit(test: &str) -> Duration {
    if let Some(seconds) = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok()) {
        return Duration::from_secs(seconds);
    }
    let (in_long_form, emulated) = (std::env::var_os("MEMTRAIL_TEST_LONG").is_some(), place::own_machine());
    if test.rsplit("::").next().is_some_and(|name| name.starts_with("long_")) {
        return LIMIT_LONG;
    }
    LIMIT * if in_long_form { LONG_FORM } else { 1 } * if emulated { EMULATED } else { 1 }
}

/// Watches the test that this thread runs, if it runs one.
///
/// # Panics
/// When the test's time is over: what was killed under it must not pass for an end of its own.
pub fn watch() {
    let Some(number) = number() else { return };
    if thread::panicking() {
        return;
    }
    let over = watched().get(&number).and_then(|one| one.over.as_ref().map(|(_, why)| why.clone()));
    if let Some(why) = over {
        panic!("{why}");
    }
}

/// A wait that is under way, until it is dropped.
#[derive(Debug)]
pub struct Wait(Option<(u64, u64)>);

/// Notes what the test waits for from now on, as in "it waits for ...".
///
/// # Panics
/// As [`watch`].
pub fn waiting(what: impl Into<String>) -> Wait {
    watch();
    let Some(number) = number() else { return Wait(None) };
    let wait = NUMBER.fetch_add(1, Ordering::Relaxed);
    if let Some(one) = watched().get_mut(&number) {
        one.waits.push((wait, what.into()));
    }
    Wait(Some((number, wait)))
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some((number, wait)) = self.0 else { return };
        if let Some(one) = watched().get_mut(&number)
            && let Some(at) = one.waits.iter().position(|(other, _)| *other == wait)
        {
            one.last = Some(one.waits.remove(at).1);
        }
    }
}

extern "C" fn interrupted(signal: i32) {
    INTERRUPTED.store(signal, Ordering::Relaxed);
}

/// Starts the thread that looks, once.
fn start() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: the action is plain data for which zeros are valid; the handler only stores a number.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, std::ptr::null(), &raw mut action);
                // Who runs it in the background, or under nohup, does not want it to end by these two.
                if signal != libc::SIGTERM && action.sa_sigaction == libc::SIG_IGN {
                    continue;
                }
                action = std::mem::zeroed();
                action.sa_sigaction = interrupted as *const () as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
        thread::spawn(|| {
            loop {
                thread::sleep(LOOK_EVERY);
                look();
            }
        });
    });
}

/// Prints past libtest, which holds back what a test's thread and its children print.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // Behind the test's name, which has no end of line yet.
    let _ = writeln!(out, "\n{TIMEOUT}{line}").and_then(|()| out.flush());
}

fn look() {
    let signal = INTERRUPTED.load(Ordering::Relaxed);
    let grace = if signal == 0 { GRACE } else { GRACE_INTERRUPTED };
    let mut given_up = None;
    let mut any_over = false;
    {
        let mut all = watched();
        for one in all.values_mut() {
            let is_late = one.began.elapsed() >= one.limit;
            if one.over.is_none() && (is_late || signal != 0) {
                let why = if is_late { format!("no end after {} s", one.limit.as_secs()) } else { format!("ended by signal {signal}") };
                let processes: Vec<String> = child::descendants_of(std::process::id()).iter().map(ToString::to_string).collect();
                let line = format!("{}: {why}: {}; its processes: {}", one.test, one.waits_for(), processes.join(", "));
                say(&line);
                one.over = Some((Instant::now(), line));
            }
            if let Some((since, _)) = &one.over {
                any_over = true;
                if since.elapsed() >= grace {
                    given_up = Some(one.test.clone());
                }
            }
        }
        if all.is_empty() && signal != 0 {
            leave(128 + signal);
        }
    }
    if any_over {
        for process in child::descendants_of(std::process::id()).into_iter().filter(|process| !process.is_janitor()) {
            // SAFETY: kill takes no pointers. A process of this number descends from this one, or did a moment ago.
            unsafe { libc::kill(process.pid, libc::SIGKILL) };
        }
    }
    if let Some(test) = given_up {
        say(&format!(
            "{test}: does not end {} s after its processes were killed: the program ends, mounts and folders are left",
            grace.as_secs()
        ));
        leave(FAILED);
    }
}

/// Ends the program without its cgroups.
fn leave(status: i32) -> ! {
    cgroup::remove_all_of(std::process::id());
    // SAFETY: ends this process. Destructors of other threads are not run by exit either, and one of them may hang.
    unsafe { libc::_exit(status) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// This test program, running the calling test, which begins with [`hang_if_asked`].
    fn play(limit: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", "--test-threads=1", thread::current().name().unwrap()]);
        crate::signals::plain(&mut command)
            .env(VARIABLE, limit)
            .env("MEMTRAIL_TEST_HANGS", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// In the process that [`play`] starts: a test that hangs.
    fn hang_if_asked() {
        if std::env::var_os("MEMTRAIL_TEST_HANGS").is_none() {
            return;
        }
        let mut child = child::KilledChild(Command::new("sleep").arg("1000").spawn().unwrap());
        {
            let _wait = waiting("a sleeper");
            child.wait().unwrap();
        }
        // The end that the watchdog made is none of the test's.
        watch();
        panic!("the watchdog did not end it");
    }

    /// Whether the process lives: one that nobody waits for is a zombie for as long.
    fn lives(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    }

    fn sleeper(said: &str) -> &str {
        said.split("sleep[").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or_else(|| panic!("{said}"))
    }

    #[test]
    fn a_test_that_hangs_fails_with_its_name_and_what_it_waited_for() {
        hang_if_asked();
        let output = play("1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(FAILED), "{said}");
        let told = "TIMEOUT watchdog::tests::a_test_that_hangs_fails_with_its_name_and_what_it_waited_for: no end after 1 s: it waits for a sleeper; its processes: sleep[";
        assert!(said.contains(told), "{said}");
        assert!(said.contains("1 failed"), "{said}");
        assert!(!lives(sleeper(&said)), "{said}");
    }

    #[test]
    fn sigterm_ends_the_running_test_and_its_processes() {
        hang_if_asked();
        let child = play("1000").spawn().unwrap();
        let sleeps = || child::descendants_of(child.id()).iter().any(|process| process.to_string().starts_with("sleep["));
        let began = Instant::now();
        while !sleeps() {
            assert!(began.elapsed() < Duration::from_secs(60), "it does not begin");
            thread::sleep(Duration::from_millis(20));
        }
        // SAFETY: kill takes no pointers; the child was not waited for.
        assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) }, 0);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(matches!(output.status.code(), Some(FAILED | 143)), "{:?}: {said}", output.status);
        assert!(said.contains("its_processes: ended by signal 15: it waits for a sleeper"), "{said}");
        assert!(!lives(sleeper(&said)), "{said}");
    }

    #[test]
    fn waits_are_nested() {
        let one = |waits: &[&str], last: Option<&str>| Watched {
            test: "x".to_owned(),
            limit: LIMIT,
            began: Instant::now(),
            waits: waits.iter().map(|wait| (0, (*wait).to_owned())).collect(),
            last: last.map(str::to_owned),
            over: None,
        };
        assert_eq!(one(&["the end", "a step"], Some("nothing")).waits_for(), "it waits for a step");
        assert!(one(&[], Some("a step")).waits_for().ends_with("the last was a step"));
    }
}
