//! The tracer as a process: started, stopped, its report read. The tests know memtrail by its command line and its JSON only.

use crate::{child::KilledChild, signals, watchdog, workload::beside_test};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Generous: emulated machines are slow.
const START_TIMEOUT: Duration = Duration::from_secs(300);
const STOP_TIMEOUT: Duration = Duration::from_secs(600);

/// Every charge, or samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `--exact`.
    Exact,
    /// No flag.
    Default,
}

/// A running `memtrail record`. Dropping it kills it.
#[derive(Debug)]
pub struct Memtrail {
    child: KilledChild,
    stderr: Receiver<String>,
    said: String,
    output: tempfile::TempDir,
}

/// What it left behind.
#[derive(Debug)]
pub struct Outcome {
    /// The JSON report.
    pub report: Value,
    /// How it ended.
    pub status: ExitStatus,
    /// All it said on stderr.
    pub stderr: String,
}

/// The program: `MEMTRAIL_BIN`, else of this workspace's target folder.
pub fn binary() -> Result<PathBuf> {
    beside_test("MEMTRAIL_BIN", "memtrail")
}

/// A command of the program, whose signals are plain.
pub fn command() -> Result<Command> {
    let mut command = Command::new(binary()?);
    signals::plain(&mut command);
    Ok(command)
}

/// The provider that all native and VM rows are forced to: `MEMTRAIL_TEST_PROVIDER`, else memtrail's choice.
pub fn forced_provider() -> Option<String> {
    std::env::var("MEMTRAIL_TEST_PROVIDER").ok().filter(|provider| !provider.is_empty())
}

/// Providers that a scenario is traced with, one after the other: [`forced_provider`], or memtrail's choice; in the long form and where
/// memtrail has a choice, those below it too.
pub fn providers() -> Vec<Option<String>> {
    let forced = forced_provider();
    if forced.is_none() && std::env::var_os("MEMTRAIL_TEST_LONG").is_some() && crate::kernel::has_kprobes() {
        return vec![None, Some("kprobe".to_owned()), Some("tracepoint".to_owned())];
    }
    vec![forced]
}

/// `record` arguments for one cgroup, in a mode, with [`forced_provider`].
pub fn record_args(cgroup: &str, mode: Mode) -> Vec<String> {
    record_args_of(&[cgroup], mode, None)
}

/// `record` arguments for these cgroups, in a mode, with a forced provider or [`forced_provider`].
pub fn record_args_of(cgroups: &[&str], mode: Mode, provider: Option<&str>) -> Vec<String> {
    let mut args: Vec<String> = cgroups.iter().flat_map(|cgroup| ["--cgroup".to_owned(), (*cgroup).to_owned()]).collect();
    if mode == Mode::Exact {
        args.push("--exact".to_owned());
        // The frame table of an exact run may pass the default budget; memtrail prints what it needs.
        args.extend(["--map-memory".to_owned(), "2G".to_owned()]);
    }
    if let Some(provider) = provider.map(str::to_owned).or_else(forced_provider) {
        args.extend(["--provider".to_owned(), provider]);
    }
    args
}

/// What `memtrail record ARGS` says when it must refuse: its exit status is 1 and it never records.
pub fn refusal(args: &[&str]) -> Result<String> {
    let output = command()?.arg("record").args(args).stdin(Stdio::null()).output().context("starting memtrail")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.code() == Some(1), "memtrail ended with {}; it said: {said}", output.status);
    anyhow::ensure!(!said.contains("recording"), "memtrail recorded: {said}");
    Ok(said)
}

impl Memtrail {
    /// Starts `memtrail record -o REPORT ARGS` and waits until it says that it is recording.
    pub fn start<S: AsRef<OsStr>>(args: &[S]) -> Result<Memtrail> {
        Memtrail::start_program(&binary()?, args)
    }

    /// The same, and waits until walks of stacks find the tables of all programs that ran at the start.
    pub fn start_with_tables<S: AsRef<OsStr>>(args: &[S]) -> Result<Memtrail> {
        // It says so with -v.
        let args: Vec<&OsStr> = args.iter().map(AsRef::as_ref).chain([OsStr::new("-v")]).collect();
        let mut memtrail = Memtrail::start(&args)?;
        memtrail.wait_until_said("stacks of the programs that ran at the start are whole")?;
        Ok(memtrail)
    }

    /// As [`Memtrail::start`], with a given program.
    pub fn start_program<S: AsRef<OsStr>>(program: &std::path::Path, args: &[S]) -> Result<Memtrail> {
        let mut command = Command::new(program);
        signals::plain(&mut command);
        Memtrail::start_command(command, args)
    }

    /// As [`Memtrail::start`], but with these signals ignored, as under nohup.
    pub fn start_ignoring<S: AsRef<OsStr>>(ignored: &'static [i32], args: &[S]) -> Result<Memtrail> {
        let mut command = Command::new(binary()?);
        signals::ignoring(&mut command, ignored);
        Memtrail::start_command(command, args)
    }

    fn start_command<S: AsRef<OsStr>>(mut command: Command, args: &[S]) -> Result<Memtrail> {
        let output = tempfile::tempdir().context("folder for the report")?;
        // Before the arguments, which may end in a command to trace.
        command.arg("record").arg("-o").arg(output.path().join("report.json")).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let pipe = child.stderr.take().context("stderr of memtrail")?;
        let (sender, stderr) = channel();
        thread::spawn(move || {
            // Progress lines end in a carriage return on some terminals, so bytes are passed on as they come.
            let mut pipe = BufReader::new(pipe);
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                if sender.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                    return;
                }
            }
        });
        let mut memtrail = Memtrail { child: KilledChild(child), stderr, said: String::new(), output };
        memtrail.wait_until_recording()?;
        Ok(memtrail)
    }

    fn wait_until_recording(&mut self) -> Result<()> {
        self.wait_until_said("recording")
    }

    fn wait_until_said(&mut self, words: &str) -> Result<()> {
        let _wait = watchdog::waiting(format!("memtrail [{}] to say {words:?}", self.child.id()));
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.said.contains(words) {
            match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(text) => self.said.push_str(&text),
                Err(RecvTimeoutError::Timeout) => bail!("memtrail does not say {words:?}; it said: {}", self.said),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("waiting for memtrail")?;
                    bail!("memtrail ended ({status}) before it said {words:?}; it said: {}", self.said);
                }
            }
        }
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops all its threads, until [`Memtrail::resume`].
    pub fn pause(&self) -> Result<()> {
        self.signal(libc::SIGSTOP)
    }

    /// Lets it run again.
    pub fn resume(&self) -> Result<()> {
        self.signal(libc::SIGCONT)
    }

    /// Sends the signal that `--mark-signal usr1` waits for.
    pub fn mark_by_signal(&self) -> Result<()> {
        self.signal(libc::SIGUSR1)
    }

    /// Kills it at once and waits for its end.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("SIGKILL to memtrail")?;
        self.child.wait().context("waiting for memtrail").map(drop)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("looking at memtrail")?.is_none())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id of memtrail")?;
        // SAFETY: kill takes no pointers; the child has not been waited for, so the id is still its own.
        match unsafe { libc::kill(pid, signal) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()).with_context(|| format!("signal {signal} to memtrail")),
        }
    }

    /// Ends the recording as Ctrl-C does, and reads the report.
    pub fn stop(self) -> Result<Outcome> {
        self.signal(libc::SIGINT)?;
        self.finish()
    }

    /// The same if it ends within that time, and how long it took.
    pub fn stop_within(self, limit: Duration) -> Result<(Outcome, Duration)> {
        self.signal(libc::SIGINT)?;
        let began = Instant::now();
        Ok((self.finish_within(limit)?, began.elapsed()))
    }

    /// Waits for the recording to end by itself, and reads the report.
    pub fn finish(self) -> Result<Outcome> {
        self.finish_within(STOP_TIMEOUT)
    }

    fn finish_within(mut self, limit: Duration) -> Result<Outcome> {
        let _wait = watchdog::waiting(format!("the end of memtrail [{}]", self.child.id()));
        let deadline = Instant::now() + limit;
        // The end of its stderr is its own end.
        loop {
            match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(text) => self.said.push_str(&text),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("memtrail does not end; it said: {}", self.said),
            }
        }
        let status = self.child.wait().context("waiting for memtrail")?;
        let path = self.output.path().join("report.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("memtrail ({status}) left no report; it said: {}", self.said))?;
        let report = serde_json::from_str(&text).context("memtrail's report is not JSON")?;
        Ok(Outcome { report, status, stderr: std::mem::take(&mut self.said) })
    }
}

/// Programs that do nothing on the hooks of the tracepoint tier (`memtrail bench-empty`): what any tracer there costs. Until it is dropped.
#[derive(Debug)]
pub struct EmptyPrograms {
    _child: KilledChild,
}

impl EmptyPrograms {
    /// Attaches them.
    pub fn attach() -> Result<EmptyPrograms> {
        let mut command = command()?;
        command.arg("bench-empty").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting memtrail bench-empty")?;
        let pipe = child.stdout.take().context("stdout of memtrail bench-empty")?;
        let programs = EmptyPrograms { _child: KilledChild(child) };
        let mut said = String::new();
        let _wait = watchdog::waiting("memtrail bench-empty to attach");
        BufReader::new(pipe).read_line(&mut said).context("stdout of memtrail bench-empty")?;
        if !said.starts_with("attached") {
            bail!("memtrail bench-empty attached nothing; it said: {said}");
        }
        Ok(programs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn stand_in(folder: &tempfile::TempDir, script: &str) -> PathBuf {
        let path = folder.path().join("stand-in");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_recording_ends_at_the_signal_and_its_report_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let program = stand_in(
            &folder,
            r#"[ "$1" = record ] && [ "$2" = -o ] && [ "$4" = --exact ] || exit 9
               out=$3
               trap 'echo "{\"schema\":1}" > "$out"; echo done >&2; exit 3' INT
               printf 'attached\rrecording 1 s\r' >&2
               while :; do sleep 0.05; done"#,
        );
        let outcome = Memtrail::start_program(&program, &["--exact"]).unwrap().stop().unwrap();
        assert_eq!(outcome.report["schema"], 1);
        assert_eq!(outcome.status.code(), Some(3));
        assert!(outcome.stderr.ends_with("done\n"), "{:?}", outcome.stderr);
    }

    #[test]
    fn an_early_end_is_an_error_with_what_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let program = stand_in(&folder, "echo 'no such cgroup' >&2; exit 1");
        let error = Memtrail::start_program(&program, &["--exact"]).unwrap_err();
        assert!(format!("{error:#}").contains("no such cgroup"), "{error:#}");
    }

    #[test]
    fn a_missing_report_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let program = stand_in(&folder, "echo recording >&2; exit 1");
        let error = Memtrail::start_program(&program, &["--exact"]).unwrap().finish().unwrap_err();
        assert!(format!("{error:#}").contains("left no report"), "{error:#}");
    }
}
