//! `memtrail record`: the main job.

use super::{
    launch::{Launched, Waiting},
    marking::{MarkSignal, Marking},
    pulse::{Beat, Pulse},
    rotation::Rotation,
    series::{self, Series},
    status::{self, Conflict},
    streaming::Streaming,
    tracing::TracingArgs,
};
use crate::text;
use crate::{
    containers::NamePattern,
    host::privileges,
    kernel_half::{sizes::Forced, start::StartError},
    output,
    report::Report,
    text::{glob::Glob, units},
    trace::{
        filter::Filter,
        session::{Session, SessionError},
    },
};
use anyhow::{Context as _, Result};
use clap::Args;
use std::{
    ffi::OsString,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Arguments of `record`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RecordArgs {
    /// Stop after this long (30s, 5m, 1h30m); without it, at Ctrl-C or the command's end.
    #[arg(long, value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
    /// Only these cgroups and what is below them; `*` within a component, `**` across. May be given again.
    #[arg(long, value_name = "GLOB", value_parser = Glob::parse)]
    pub cgroup: Vec<Glob>,
    /// Only these pods: NAME, NAMESPACE/NAME or the uid; `*` for any part of a name. May be given again.
    #[arg(long, value_name = "[NS/]NAME", value_parser = NamePattern::pod, conflicts_with = "command")]
    pub pod: Vec<NamePattern>,
    /// Only these containers: the name, or the beginning of the id; `*` for any part of a name. May be given again.
    #[arg(long, value_name = "NAME|ID", value_parser = NamePattern::container, conflicts_with = "command")]
    pub container: Vec<NamePattern>,
    /// Only what this process and its later children cause; children that it has already are not followed, unless given too. Ids are
    /// those that `ps` shows here. What the process held before is not known. May be given again.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "command")]
    pub pid: Vec<u32>,
    /// How to trace.
    #[command(flatten)]
    pub tracing: TracingArgs,
    /// Cgroups in the summary.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// Write a report; the ending chooses the format: .folded .svg .json .pb.gz .hlog .pftrace .mtrail. May be given again.
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Write a line of JSON an interval while it runs, to a file, a named pipe, or - for standard output.
    #[arg(long, value_name = "FILE")]
    pub stream: Option<PathBuf>,
    /// Time between two readings of the kernel's figures.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::parse_duration)]
    pub interval: Duration,
    /// When a recording goes on in a new file.
    #[command(flatten)]
    pub rotation: Rotation,
    /// Make a mark, signal-1, signal-2, ..., whenever this signal comes.
    #[arg(long, value_name = "SIGNAL", value_enum, conflicts_with = "command")]
    pub mark_signal: Option<MarkSignal>,
    /// With a command: exit with 3 if anything was lost, whatever its status.
    #[arg(long)]
    pub strict: bool,
    /// Force the size of a table (NAME=N[,NAME=N]), to see what happens when it is full. For tests; shown in the JSON report.
    #[arg(long, value_name = "NAME=N", default_value = "", hide = true, value_parser = parse_tables)]
    pub table: Forced,
    /// Memory limit of the command's cgroup.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, requires = "command")]
    pub limit: Option<u64>,
    /// A command to run and trace, in a cgroup of its own.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

const EXAMPLES: &str = "\
Examples:
  memtrail record --duration 30s
      the whole host for 30 seconds
  memtrail record --cgroup '/kubepods/**' -o out.svg -o out.json
      pods only, until Ctrl-C, as a flame graph and as JSON
  memtrail record --pod shop/cart-7 --container web
      one container of one pod, named as its runtime and the kubelet name it
  memtrail record --pid 4711 -o out.folded
      what one process and its later children cause, until Ctrl-C
  memtrail record --limit 512MiB -- ./server --port 8080
      a command in a cgroup of its own with a limit
  memtrail record --stream - | jq '.cgroups[] | .path, .usage_bytes'
      a line an interval while it runs; the summary goes to standard error
  memtrail record --exact --limit 512MiB -o out.folded -- make test
      every charge instead of samples; the limit bounds the tables

SIZE: 64K, 64Ki and 64KiB are 64 x 1024 bytes; 64kB and 64MB are powers of 1000;
a bare number is bytes. TIME: 30s, 5m, 1h30m, 500ms.

With --pid the figures of a cgroup are still of all that it holds, so nothing is
said of what is not attributed, nor of older memory. On the tracepoint tier
memory that khugepaged collapses into huge pages leaves what a process caused.

With a command: the summary goes to standard error, since standard output is the
command's; its stacks are by bytes charged, since what has ended holds nothing.
The recording ends when the command does. Signals are passed on. At the end of
--duration the command gets SIGTERM, two seconds later SIGKILL.

Exit status: 0 complete; 1 could not run or failed; 2 usage; 3 finished, but
something was lost or a kind is not followed. With a command: its own status,
128+N for signal N; 125 memtrail failed, 126 not executable, 127 not found;
3 only with --strict.";

fn parse_tables(text: &str) -> Result<Forced, String> {
    let mut forced = Forced::default();
    text.split(',').filter(|one| !one.is_empty()).try_for_each(|one| forced.add(one))?;
    Ok(forced)
}

/// Longer than any recording.
pub(super) const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Runs a recording.
pub fn run(args: RecordArgs) -> Result<u8> {
    for file in &args.output {
        output::check_target(file)?;
    }
    if !args.rotation.is_none() && !args.output.iter().any(|file| output::Format::of(file) == Some(output::Format::Recording)) {
        return Err(Conflict("--rotate-size, --rotate-every: there is no recording to rotate: add -o FILE.mtrail".to_owned()).into());
    }
    let with_command = !args.command.is_empty();
    let to_stdout = args.output.iter().any(|file| file.as_os_str() == "-");
    if let Some(path) = &args.stream {
        Streaming::check(path, with_command.then_some("the command's").or(to_stdout.then_some("the report's")))?;
    }
    // First of all: the janitor and the command begin as copies of this process.
    let waiting = match args.command.as_slice() {
        [] => None,
        command => Some(Waiting::prepare(command, args.limit)?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the collector")?;
    runtime.block_on(record(args, waiting))
}

async fn record(args: RecordArgs, waiting: Option<Waiting>) -> Result<u8> {
    let filter = filter(&args, waiting.as_ref())?;
    let options = args.tracing.options(args.table);
    // Before anything says that it is recording: a Ctrl-C then ends it with its report. With a command its signals are caught, and
    // passed on.
    let interrupts = if args.command.is_empty() { Some(Interrupts::catch()?) } else { None };
    let holds_marks = series::holds_marks(&args.output, args.stream.as_deref());
    let mut marking = Marking::prepare(args.mark_signal, holds_marks)?;
    let mut session = Session::start_following(filter, args.tracing.names(), &args.pid, options).map_err(|error| advise(error, &args))?;
    let mut series = Series::begin(&mut session, &args.output, args.stream.as_deref(), args.rotation)?;
    if holds_marks {
        marking.listen();
    }
    // After everything that is opened for writing is open.
    give_up_privileges(&args);
    announce(&session, &args, waiting.as_ref());
    let mut launched = waiting.map(Waiting::release).transpose()?;
    follow(&mut session, &args, &mut series, &mut marking, launched.as_mut(), interrupts).await?;
    drop(marking);
    // While the command's cgroup still exists: afterwards the kernel has no figures of it.
    let report = session.report()?;
    series.end(&mut session);
    let unmatched = session.unmatched();
    drop(session);
    if let Some(launched) = &mut launched {
        eprintln!("memtrail: {}", launched.epitaph()?);
    }
    finish(&args, &report, series)?;
    if !unmatched.is_empty() {
        anyhow::bail!("no cgroup matched {} during the recording", unmatched.join(", "));
    }
    let incomplete = status::lost(&report.losses) || report.plan.iter().any(|row| row.provider == "none" && is_required(&row.probe));
    match &mut launched {
        Some(launched) if !(incomplete && args.strict) => Ok(launched.status()?),
        _ => Ok(if incomplete { status::INCOMPLETE } else { 0 }),
    }
}

/// What starting needed and recording does not. The command waits as it was forked, with all that the caller has.
fn give_up_privileges(args: &RecordArgs) {
    let command = if args.command.is_empty() { &[] } else { privileges::COMMAND };
    let outputs = if args.output.is_empty() && args.stream.is_none() { &[] } else { privileges::OUTPUTS };
    privileges::keep_only_or_warn(&[privileges::COLLECTOR, command, outputs]);
}

/// The cgroups asked for, else the command's.
fn filter(args: &RecordArgs, waiting: Option<&Waiting>) -> Result<Filter> {
    let mut patterns = args.cgroup.clone();
    if let Some(waiting) = waiting.filter(|_| patterns.is_empty()) {
        match waiting.cgroup() {
            Some(path) => patterns.push(Glob::parse(&path.to_string()).context("the command's cgroup")?),
            None => eprintln!("memtrail: the command's cgroup cannot be seen: recording the whole host"),
        }
    }
    Ok(Filter::new(patterns).named(args.pod.clone(), args.container.clone()))
}

/// Adds the way out that only the command line knows.
fn advise(error: SessionError, args: &RecordArgs) -> anyhow::Error {
    let no_limit = !args.command.is_empty() && args.limit.is_none() && args.cgroup.is_empty();
    match &error {
        SessionError::Start(StartError::Sizes(_)) if no_limit => anyhow::anyhow!("{error}; or give the command a --limit"),
        _ => error.into(),
    }
}

fn is_required(probe: &str) -> bool {
    crate::kernel_half::probes::is_required(probe)
}

/// One line that says that tracing is on, with what it uses.
fn announce(session: &Session, args: &RecordArgs, waiting: Option<&Waiting>) {
    let running = session.running();
    let command = waiting.map(|waiting| text::escape(waiting.name()));
    let until = match (args.duration, command) {
        (Some(duration), Some(name)) => format!("{name} for at most {}", units::duration(duration)),
        (None, Some(name)) => format!("{name} until it ends"),
        (Some(duration), None) => format!("for {}", units::duration(duration)),
        (None, None) => "until Ctrl-C".to_owned(),
    };
    let mode = match running.rates {
        _ if args.tracing.exact => "every charge".to_owned(),
        rates if rates.differ() => {
            format!("sampling every {} to {}", units::bytes(1 << rates.log2_finest), units::bytes(1 << rates.log2_coarsest))
        }
        _ => format!("sampling every {}", units::bytes(running.sizes.mean_bytes())),
    };
    eprintln!("memtrail: recording {until} ({mode}, {} of tables)", units::bytes(running.sizes.bytes));
}

/// Waits for Ctrl-C or SIGTERM.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    pub(super) fn catch() -> Result<Interrupts> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        Ok(Interrupts { interrupt, terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Reads figures at each interval until the end: the command's; without one, that of the time, or Ctrl-C.
async fn follow(
    session: &mut Session,
    args: &RecordArgs,
    series: &mut Series,
    marking: &mut Marking,
    mut launched: Option<&mut Launched>,
    mut interrupts: Option<Interrupts>,
) -> Result<()> {
    let started = Instant::now();
    // The terminal is the command's, where there is one.
    let progress = launched.is_none() && std::io::stderr().is_terminal();
    let mut pulse = Pulse::of(session, args.interval)?;
    let end = tokio::time::sleep(args.duration.unwrap_or(FOREVER));
    tokio::pin!(end);
    loop {
        let command = async {
            match launched.as_deref_mut() {
                Some(launched) => launched.event().await,
                None => std::future::pending().await,
            }
        };
        let interrupted = async {
            match interrupts.as_mut() {
                Some(interrupts) => interrupts.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut end => match launched.as_deref_mut() {
                Some(launched) => end.as_mut().reset(tokio::time::Instant::now() + launched.end()?),
                None => break,
            },
            () = interrupted => break,
            ended = command => if ended? { break },
            wish = marking.next() => marking.take(wish, session, series),
            beat = pulse.next(session) => if beat? == Beat::Tick {
                series.interval(session)?;
                if progress {
                    eprint!("\r\x1b[Kmemtrail: {} ", units::duration(Duration::from_secs(started.elapsed().as_secs())));
                }
            }
        }
    }
    if progress {
        eprint!("\r\x1b[K");
    }
    Ok(())
}

/// Writes everything; what could not be written is reported after all were tried.
fn finish(args: &RecordArgs, report: &Report, series: Series) -> Result<()> {
    let streams_to_stdout = series.streams_to_stdout();
    let mut failures = series.finish(report);
    for file in args.output.iter().filter(|file| !series::takes(file)) {
        let result = output::write(file, report, output::WriteOptions::default());
        failures.note(result.map_err(anyhow::Error::from));
    }
    let with_command = !args.command.is_empty();
    let to_stdout = args.output.iter().any(|file| file.as_os_str() == "-");
    // Standard output is the command's, where there is one, or the stream's.
    let to_stderr = with_command || streams_to_stdout;
    let terminal = if to_stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
    let color = terminal && std::env::var_os("NO_COLOR").is_none();
    // What ended holds nothing any more: what it was charged is the answer.
    let value = if with_command { output::Value::Charged } else { output::Value::Live };
    let summary = output::summary::render(report, output::summary::Options { top: args.top, color, value });
    let printed = match (to_stderr, to_stdout) {
        (true, _) => std::io::stderr().write_all(summary.as_bytes()),
        (false, false) => std::io::stdout().write_all(summary.as_bytes()),
        (false, true) => Ok(()),
    };
    match printed {
        // A reader that went away is no failure of the recording.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            failures.note(Err(error).context("cannot print the summary"));
        }
        _ => {}
    }
    failures.into_result()
}
