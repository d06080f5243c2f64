//! `memtrail-workload` as a child process in a test's cgroup, one step at a time.

use crate::cgroup::TestCgroup;
use crate::child::KilledChild;
use crate::stat::Kinds;
use crate::{signals, watchdog};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// A step that takes longer is stuck. Generous: emulated machines are slow.
const STEP_TIMEOUT: Duration = Duration::from_secs(600);

/// What a workload says that it did since the step before. See `workload.h`.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// "ready" is always the first.
    #[serde(rename = "step")]
    pub name: String,
    /// Of the workload.
    pub pid: i32,
    /// As asked for with `--bytes`.
    pub bytes: u64,
    /// The function that caused the charges.
    pub function: Option<String>,
    /// Change of `memory.stat`, bytes.
    pub resident: Kinds,
    /// Newly charged, bytes.
    pub charged: Kinds,
    /// Change of bytes charged but not mapped.
    pub unmapped: i64,
    /// Figures of one workload, such as `ns_per_fault`.
    #[serde(flatten)]
    pub figures: BTreeMap<String, serde_json::Value>,
}

/// A running workload. Dropping it kills it.
#[derive(Debug)]
pub struct Workload {
    child: KilledChild,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    started: bool,
    /// The subcommand, and the step that it said last: for messages.
    name: String,
    step: String,
}

/// The program: `MEMTRAIL_WORKLOAD_BIN`, else beside the running test.
pub fn binary() -> Result<PathBuf> {
    beside_test("MEMTRAIL_WORKLOAD_BIN", "memtrail-workload")
}

/// A command of the program, whose signals are plain.
pub fn command() -> Result<Command> {
    let mut command = Command::new(binary()?);
    signals::plain(&mut command);
    Ok(command)
}

/// A program of this workspace: named by `variable`, else in the profile folder of the running test, else in either profile's.
pub(crate) fn beside_test(variable: &str, name: &str) -> Result<PathBuf> {
    watchdog::watch();
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let test = std::env::current_exe().context("path of the running test")?;
    // target/debug/deps/native-0123 -> target/debug
    let profile = test.parent().and_then(|deps| deps.parent()).map(PathBuf::from);
    let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target");
    let candidates = profile.into_iter().chain([target.join("debug"), target.join("release")]).map(|folder| folder.join(name));
    let tried: Vec<PathBuf> = candidates.collect();
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => bail!("{name} is not built: set {variable}, or build it to one of {tried:?}"),
    }
}

/// Runs the program once outside the tests' cgroups.
fn warm_up() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_none() {
        let output = command()?.args(["anon", "--no-wait", "--bytes", "4M"]).output().context("starting the workload")?;
        if !output.status.success() {
            bail!("the workload failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        DONE.get_or_init(|| ());
    }
    Ok(())
}

/// Makes the child enter the cgroup before it executes, so that all its memory is charged there; its signals are plain.
pub fn enter(command: &mut Command, cgroup: &TestCgroup) -> Result<()> {
    signals::plain(command);
    let procs = cgroup.procs()?;
    // SAFETY: between fork and exec the closure calls only write(2), which is async-signal-safe, with an open descriptor that the
    // closure owns, and allocates nothing.
    unsafe {
        command.pre_exec(move || match libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) {
            1 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    Ok(())
}

impl Workload {
    /// Starts it in the cgroup. It runs to its first line. The program's own pages are in the page cache by then, charged elsewhere.
    pub fn start<S: AsRef<str>>(cgroup: &TestCgroup, args: &[S]) -> Result<Workload> {
        Workload::start_with(cgroup, args, &[])
    }

    /// The same with variables added to its environment.
    pub fn start_with<S: AsRef<str>>(cgroup: &TestCgroup, args: &[S], environment: &[(&str, &str)]) -> Result<Workload> {
        warm_up()?;
        Workload::start_program(cgroup, &binary()?, args, environment)
    }

    /// The same of a copy of the program, whose own pages may be charged to the cgroup.
    pub fn start_program<S: AsRef<str>>(cgroup: &TestCgroup, program: &Path, args: &[S], environment: &[(&str, &str)]) -> Result<Workload> {
        let mut command = Command::new(program);
        command.env_remove("MALLOC_ARENA_MAX").env_remove("GLIBC_TUNABLES").envs(environment.iter().copied());
        command.args(args.iter().map(AsRef::as_ref)).stdin(Stdio::piped()).stdout(Stdio::piped());
        enter(&mut command, cgroup)?;
        let mut child = command.spawn().with_context(|| format!("starting {:?} in {}", command.get_program(), cgroup.path()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("stdout of the workload")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            // Ends with the workload's output, or with its receiver.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let name = args.first().map_or_else(|| "the workload".to_owned(), |name| name.as_ref().to_owned());
        Ok(Workload { child: KilledChild(child), input, lines, started: false, name, step: String::new() })
    }

    /// Lets it go on (not before its first step) and waits for its next line; `None` when it ended instead.
    pub fn next_step(&mut self) -> Result<Option<Step>> {
        if self.started {
            // A workload that has died says so by its status, not by a broken pipe.
            if let Some(Err(error)) = self.input.as_mut().map(|input| input.write_all(b"\n"))
                && error.kind() != std::io::ErrorKind::BrokenPipe
            {
                return Err(error).context("newline to the workload");
            }
        }
        self.started = true;
        let _wait = watchdog::waiting(format!("the next step of {} [{}] after {:?}", self.name, self.child.id(), self.step));
        match self.lines.recv_timeout(STEP_TIMEOUT) {
            Ok(line) => {
                let step: Step = serde_json::from_str(&line).with_context(|| format!("workload's line {line:?}"))?;
                self.step.clone_from(&step.name);
                Ok(Some(step))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("the workload is stuck"),
        }
    }

    /// Steps on until the step called `name`; all the steps taken, that one last.
    pub fn run_to(&mut self, name: &str) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        while let Some(step) = self.next_step()? {
            let found = step.name == name;
            steps.push(step);
            if found {
                return Ok(steps);
            }
        }
        bail!("the workload ended ({}) before a step {name:?}", self.child.wait().context("waiting for the workload")?)
    }

    /// Steps on to the end; the steps taken. A workload that failed is an error.
    pub fn finish(&mut self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        while let Some(step) = self.next_step()? {
            steps.push(step);
        }
        let status = self.wait()?;
        if !status.success() {
            bail!("the workload failed: {status}");
        }
        Ok(steps)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let _wait = watchdog::waiting(format!("the end of {} [{}] after {:?}", self.name, self.child.id(), self.step));
        self.child.wait().context("waiting for the workload")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}
