//! Test programs that end: at their limit, at a test's limit, and when this run is interrupted; with all that they started.
//!
//! A test program has a process group of its own, so that it is this program that hears Ctrl-C, and says what becomes of it: SIGTERM first, upon which
//! a test program ends its test and cleans up; later, or at a second signal, SIGKILL for all that it started. What belongs to it is told by a variable
//! in the environment, which a process keeps that has left its group, its session and its parents.

use std::{
    fs, io, mem,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    command::{line, read_lines},
    signals,
};

/// The variable that marks what a test program started.
const MARK: &str = "MEMTRAIL_XTASK_RUN";
/// Time between two looks at limits and signals.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// From SIGTERM to SIGKILL: a test needs it to drop its cgroups and mounts.
const GRACE: Duration = Duration::from_secs(25);
/// How long a program that ended may leave its output open in processes that it started.
const LINGER: Duration = Duration::from_secs(2);
/// What removes a command's cgroup after memtrail and the command; it ends by itself then.
const JANITOR: &str = "memtrail-clean";

static SIGNALS: AtomicU32 = AtomicU32::new(0);
static SIGNAL: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(signal: i32) {
    SIGNAL.store(signal, Ordering::Relaxed);
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// From now on SIGINT, SIGTERM and SIGHUP end what runs, and then this program. Those that are ignored (nohup, a script's background) stay ignored, but
/// for SIGTERM.
pub fn catch_signals() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the action is plain data for which zeros are valid; the handler changes two numbers.
        let result = unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            libc::sigaction(signal, ptr::null(), &raw mut action);
            if signal != libc::SIGTERM && action.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            action = mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, ptr::null_mut())
        };
        if result != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("cannot catch signal {signal}"));
        }
    }
    Ok(())
}

/// The signal that ends this run, if one came.
pub fn interrupted() -> Option<i32> {
    (SIGNALS.load(Ordering::Relaxed) > 0).then(|| SIGNAL.load(Ordering::Relaxed))
}

/// How a program ended.
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Its process id.
    pub pid: u32,
    /// Why it was ended, if it did not end by itself.
    pub why: Option<String>,
}

/// A name for what a program starts, and the variable's value with those that this process itself has: a program below a program belongs to both.
fn new_mark() -> (String, String) {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let mark = format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let marks = std::env::var(MARK).map_or_else(|_| mark.clone(), |outer| format!("{outer} {mark}"));
    (mark, marks)
}

/// Ends a program that is no test, such as a compiler with all that it started, when this run is interrupted. Until it is dropped.
pub struct Guard(Arc<AtomicBool>);

/// Call it before the program is started.
pub fn guard(command: &mut Command) -> Guard {
    let (mark, marks) = new_mark();
    command.env(MARK, marks);
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    // It sleeps nearly always, and is gone soon after the program.
    thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            if interrupted().is_some() {
                signal_all(&mark, libc::SIGTERM, None);
            }
            thread::sleep(LOOK_EVERY);
        }
    });
    Guard(over)
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Signals all that has the mark, but for one process; whether there was any.
fn signal_all(mark: &str, signal: i32, but: Option<u32>) -> bool {
    let marked: Vec<i32> = marked(mark).into_iter().filter(|pid| but != Some(pid.cast_unsigned())).collect();
    for pid in &marked {
        // SAFETY: plain integers. The process had the mark a moment ago.
        unsafe { libc::kill(*pid, signal) };
    }
    !marked.is_empty()
}

/// Runs to the end, at the latest to `limit`, and hands over each line that it writes, and in between `None`.
/// Where the caller says true, all that the program has started is killed, not the program itself: one test program of several, below cargo.
pub fn lines(command: &mut Command, limit: Duration, line_of: impl FnMut(Option<&[u8]>) -> bool) -> Result<Ended> {
    supervised(command, limit, GRACE, line_of)
}

fn supervised(command: &mut Command, limit: Duration, grace: Duration, mut line_of: impl FnMut(Option<&[u8]>) -> bool) -> Result<Ended> {
    let (mark, marks) = new_mark();
    signals::plain(command);
    // Why a test failed is on its standard error, and belongs between the lines of its standard output.
    let (output, input) = io::pipe().context("no pipe")?;
    command.env(MARK, marks).process_group(0).stdin(Stdio::null()).stdout(input.try_clone().context("no pipe")?).stderr(input);
    let child = command.spawn();
    // The command holds the pipe open otherwise.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = child.with_context(|| format!("cannot run {}", line(command)))?;
    let mut program = Program { child, mark, grace, why: None, term: None };
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || read_lines(output, |line| sender.send(line).is_ok()));
    let began = Instant::now();
    let mut ended_at = None;
    loop {
        let is_overdue = match lines.recv_timeout(LOOK_EVERY) {
            Ok(text) => line_of(Some(&text)),
            Err(RecvTimeoutError::Timeout) => line_of(None),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if is_overdue {
            program.kill_all(Some(program.child.id()));
        }
        if ended_at.is_none() {
            program.end_if_due(began, limit);
        }
        if ended_at.is_none() && program.child.try_wait().with_context(|| format!("cannot wait for {}", line(command)))?.is_some() {
            ended_at = Some(Instant::now());
        }
        if ended_at.is_some_and(|at| at.elapsed() >= LINGER) {
            program.kill_all(None);
        }
    }
    // The end of its output may be a little before its own; one that closes it and stays is as bad as any that does not end.
    let mut status = None;
    while status.is_none() {
        status = program.child.try_wait().with_context(|| format!("cannot wait for {}", line(command)))?;
        if status.is_none() {
            program.end_if_due(began, limit);
            thread::sleep(Duration::from_millis(20));
        }
    }
    let _ = reader.join();
    program.kill_all(None);
    Ok(Ended { status: status.context("no status")?, pid: program.child.id(), why: program.why.take() })
}

/// A program that runs, with its descendants.
struct Program {
    child: Child,
    mark: String,
    /// From SIGTERM to SIGKILL.
    grace: Duration,
    why: Option<String>,
    /// When SIGTERM was sent.
    term: Option<Instant>,
}

impl Program {
    /// Ends it at its limit, and when this run is interrupted. Only while it was not waited for.
    fn end_if_due(&mut self, began: Instant, limit: Duration) {
        if began.elapsed() >= limit {
            self.end(format!("no end after {} s", limit.as_secs()));
        } else if let Some(signal) = interrupted() {
            self.end(format!("interrupted by signal {signal}"));
        }
    }

    /// SIGTERM to its group at first, SIGKILL to all when called again too late, or after a second signal to us.
    fn end(&mut self, why: String) {
        match self.term {
            None => {
                println!("== {why}: ending what runs; it has {} s to clean up, a second signal kills it at once", self.grace.as_secs());
                self.why = Some(why);
                self.term = Some(Instant::now());
                // SAFETY: plain integers. The program was not waited for, so that its group is still its own.
                unsafe { libc::kill(-self.child.id().cast_signed(), libc::SIGTERM) };
            }
            Some(since) if since.elapsed() >= self.grace || SIGNALS.load(Ordering::Relaxed) > 1 => self.kill_all(None),
            Some(_) => {}
        }
    }

    /// Kills all that has the mark, but for one process.
    fn kill_all(&self, but: Option<u32>) {
        for _ in 0..100 {
            if !signal_all(&self.mark, libc::SIGKILL, but) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill_all(None);
        let _ = self.child.wait();
    }
}

/// Living processes with that mark in their environment.
fn marked(mark: &str) -> Vec<i32> {
    let name = format!("{MARK}=");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Of what is gone, or is another user's, there is nothing to read. Neither has a zombie any.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        let marks = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(name.as_bytes()));
        let is_marked = marks.is_some_and(|marks| marks.split(|byte| *byte == b' ').any(|one| one == mark.as_bytes()));
        let comm = || fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if is_marked && comm().trim_end() != JANITOR {
            found.push(pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, limit: u64, line_of: impl FnMut(Option<&[u8]>) -> bool) -> Ended {
        supervised(Command::new("sh").args(["-c", script]), Duration::from_secs(limit), Duration::from_secs(1), line_of).expect("it runs")
    }

    /// Whether the process lives: one that nobody waits for is a zombie for as long.
    fn lives(pid: &[u8]) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", String::from_utf8_lossy(pid).trim())).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    }

    /// Every line that was said.
    fn said(into: &mut Vec<Vec<u8>>) -> impl FnMut(Option<&[u8]>) -> bool {
        |line| {
            into.extend(line.map(<[u8]>::to_vec));
            false
        }
    }

    #[test]
    fn a_program_that_does_not_end_is_ended_with_what_it_started() {
        let mut lines = Vec::new();
        let ended = run("trap '' TERM HUP; setsid sleep 1000 & echo $!; wait; sleep 1000", 1, said(&mut lines));
        assert_eq!(ended.why.as_deref(), Some("no end after 1 s"));
        assert!(!ended.status.success());
        assert!(lines.len() == 1 && !lives(&lines[0]), "{lines:?}");
    }

    #[test]
    fn what_a_program_leaves_behind_ends_with_it() {
        let mut lines = Vec::new();
        let ended = run("setsid sleep 1000 & echo $!; exit 3", 100, said(&mut lines));
        assert_eq!((ended.status.code(), ended.why), (Some(3), None));
        assert!(lines.len() == 1 && !lives(&lines[0]), "{lines:?}");
    }

    #[test]
    fn what_is_overdue_is_killed_and_the_program_goes_on() {
        let began = Instant::now();
        let mut last = Vec::new();
        let ended = run("sh -c 'sleep 1000' 2> /dev/null; echo went on; exit 4", 100, |line| {
            last.extend_from_slice(line.unwrap_or_default());
            last.is_empty() && began.elapsed() > Duration::from_millis(500)
        });
        assert_eq!((ended.status.code(), ended.why, last), (Some(4), None, b"went on".to_vec()));
    }

    #[test]
    fn programs_begin_with_plain_signals_in_a_group_of_their_own() {
        let mut lines = Vec::new();
        let mut shell = Command::new("sh");
        // What this test was started with is not known, so that one more is ignored before.
        // SAFETY: between fork and exec the closure makes one async-signal-safe call.
        unsafe {
            shell.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
                Ok(())
            })
        };
        shell.args(["-c", "grep SigIgn: /proc/self/status; ps -o pgid= -p $$; echo $$"]);
        super::lines(&mut shell, Duration::from_secs(100), said(&mut lines)).expect("it runs");
        let texts: Vec<String> = lines.iter().map(|line| String::from_utf8_lossy(line).trim().to_owned()).collect();
        let ignored = u64::from_str_radix(texts[0].trim_start_matches("SigIgn:").trim(), 16).expect("a mask");
        // Of the signals from 32 on glibc has two for itself.
        assert_eq!(ignored & 0x7fff_ffff, 0, "{texts:?}");
        assert_eq!(texts[1], texts[2], "its own group: {texts:?}");
    }
}
