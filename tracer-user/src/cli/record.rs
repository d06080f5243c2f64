//! `memtrail record`: the main job.

use super::{
    drive::{Drive, Driven, Task},
    failures::Failures,
    interrupts::Interrupts,
    launch::Waiting,
    marking::{MarkSignal, Marking, Wish},
    naming::SymbolArgs,
    rotation::Rotation,
    series::{self, Series, Wanted},
    status::{self, Conflict},
    streaming::Streaming,
    traced::Traced,
    tracing::TracingArgs,
};
use crate::recording;
use crate::text;
use crate::{
    analyse::figures,
    containers::NamePattern,
    host::{privileges, write::Mode},
    kernel_half::{sizes::Forced, start::StartError},
    output::{self, Format, Source, format},
    report::Report,
    text::{glob::Glob, units},
    trace::{
        filter::Filter,
        session::{Session, SessionError},
    },
};
use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use std::{
    ffi::OsString,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

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
    /// Names for what has none.
    #[command(flatten)]
    pub names: SymbolArgs,
    /// Cgroups in the summary.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// Files to write. The help comes from the table of formats.
    #[arg(short, long, value_name = "FILE", help = format::help(OUTPUT, Source::Trace), long_help = format::long_help(OUTPUT, Source::Trace))]
    pub output: Vec<PathBuf>,
    /// Mode of every file that is made, as chmod takes it. Without it a recording and a stream are 0600, since they show what processes
    /// of all users do, and other files are as the umask says. A file that is replaced gets the mode of a new one.
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Mode>,
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
    /// Write the snapshot that the report is made from, for tests of the analysis.
    #[arg(long, value_name = "FILE", hide = true)]
    pub snapshot: Option<PathBuf>,
    /// Memory limit of the command's cgroup.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, requires = "command")]
    pub limit: Option<u64>,
    /// A command to run and trace, in a cgroup of its own.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// What `-o` does.
const OUTPUT: &str = "Write a report";

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
command's; it and all outputs show what was live when its cgroup held most, since
what has ended holds nothing.
The recording ends when the command does. At the end of --duration the command
gets SIGTERM, two seconds later SIGKILL.

Signals: without a command, Ctrl-C (SIGINT), SIGTERM and SIGHUP (a terminal that
closes) end the recording with its report. With a command all three are passed on
to it. SIGINT and SIGHUP that were ignored when memtrail began (nohup, a script's
background job) stay ignored: they end nothing and are not passed on. SIGTERM is
heeded even so. The command begins with the signals that memtrail began with.

Exit status: 0 complete; 1 could not run or failed; 2 usage; 3 finished, but
something was lost or a kind is not followed. With a command: its own status,
128+N for signal N; 125 memtrail failed, 126 not executable, 127 not found;
3 only with --strict.";

fn parse_tables(text: &str) -> Result<Forced, String> {
    let mut forced = Forced::default();
    text.split(',').filter(|one| !one.is_empty()).try_for_each(|one| forced.add(one))?;
    Ok(forced)
}

/// Runs a recording.
pub fn run(args: RecordArgs) -> Result<u8> {
    for file in &args.output {
        output::check_target(file, Source::Trace)?;
    }
    if !args.rotation.is_none() && !args.output.iter().any(|file| Format::of(file).is_some_and(Format::is_recording)) {
        return Err(Conflict("--rotate-size, --rotate-every: there is no recording to rotate: add -o FILE.mtrail".to_owned()).into());
    }
    let with_command = !args.command.is_empty();
    let to_stdout = args.output.iter().any(|file| file.as_os_str() == "-");
    if let Some(path) = &args.stream {
        Streaming::check(path, with_command.then_some("the command's").or(to_stdout.then_some("the report's")))?;
    }
    args.names.check()?;
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
    session.of_command = !args.command.is_empty() && args.cgroup.is_empty() && args.pod.is_empty() && args.container.is_empty();
    let series = Series::begin(&mut session, wanted(&args))?;
    if holds_marks {
        marking.listen();
    }
    // After everything that is opened for writing is open.
    give_up_privileges(&args);
    announce(&session, &args, waiting.as_ref());
    if let Some(program) = waiting.as_ref().and_then(Waiting::program) {
        session.prepare_for(program);
    }
    let mut launched = waiting.map(Waiting::release).transpose()?;
    let mut recorded = Recorded { series };
    let drive = Drive {
        interval: args.interval,
        duration: args.duration,
        interrupts,
        // The terminal is the command's, where there is one.
        shows_time: launched.is_none(),
        command: launched.as_mut(),
        marking: Some(&mut marking),
        asks: None,
    };
    let driven = drive.run(&mut session, &mut recorded).await;
    drop(marking);
    // While the command's cgroup still exists: afterwards the kernel has no figures of it.
    if let Some(path) = &args.snapshot {
        let snapshot = session.snapshot()?;
        recording::stored::write(path, &snapshot).with_context(|| path.display().to_string())?;
    }
    let ended = Ended::of(&mut session, recorded.series, driven);
    let unmatched = session.unmatched();
    drop(session);
    if let Some(launched) = &mut launched {
        eprintln!("memtrail: {}", launched.epitaph()?);
    }
    let report = ended.write(&args)?;
    if !unmatched.is_empty() {
        anyhow::bail!("no cgroup matched {} during the recording", unmatched.join(", "));
    }
    let incomplete = status::lost(&report.losses) || report.plan.iter().any(|row| row.provider == "none" && is_required(&row.probe));
    match &mut launched {
        Some(launched) if !(incomplete && args.strict) => Ok(launched.status()?),
        _ => Ok(if incomplete { status::INCOMPLETE } else { 0 }),
    }
}

/// What is written while it runs.
fn wanted(args: &RecordArgs) -> Wanted<'_> {
    Wanted { outputs: &args.output, stream: args.stream.as_deref(), rotation: args.rotation, mode: args.mode }
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

/// A recording on its way through the event loop.
struct Recorded {
    series: Series,
}

impl<T: Traced> Task<T> for Recorded {
    fn tick(&mut self, trace: &mut T) -> Result<()> {
        self.series.interval(trace)
    }

    fn mark(&mut self, marking: &mut Marking, wish: Wish, trace: &mut T) {
        marking.take(wish, trace, &mut self.series);
    }
}

/// How often the report of the end is tried: what stood in its way may be over a moment later.
const TRIES: u32 = 3;
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// A recording at its end: nothing more is read, and nothing is written yet.
struct Ended {
    series: Series,
    /// Of the end; where that could not be made, of the last whole snapshot, if there was one.
    report: Option<Report>,
    /// The report is older than the end.
    is_older: bool,
    /// What went wrong on the way.
    errors: Vec<anyhow::Error>,
}

impl Ended {
    fn of(trace: &mut dyn Traced, mut series: Series, driven: Driven) -> Ended {
        let mut errors: Vec<anyhow::Error> = driven.error.into_iter().collect();
        let (mut report, is_older) = match last_report(trace) {
            Ok(report) => (Some(report), false),
            Err(error) => {
                errors.push(error.context("the report of the end cannot be made"));
                (series.last_snapshot(), true)
            }
        };
        series.end(trace);
        let failed = driven.faults.count();
        if let Some(report) = report.as_mut().filter(|_| failed > 0) {
            report.losses.insert(READING_FAILED.to_owned(), Some(failed));
        }
        Ended { series, report, is_older, errors }
    }

    /// Writes everything that can be written, and prints the summary. What could not be is told after all was tried: an error then.
    fn write(self, args: &RecordArgs) -> Result<Report> {
        let Ended { series, mut report, is_older, errors } = self;
        let streams_to_stdout = series.streams_to_stdout();
        let mut failures = series.finish(report.as_ref(), is_older);
        if let Some(report) = report.as_ref().filter(|_| is_older) {
            let time = units::seconds(report.duration_s).unwrap_or_else(|| "an unknown time".to_owned());
            eprintln!("memtrail: what is written now shows the last whole snapshot, after {time}");
        }
        // A recording keeps the places, for symbols that are found later.
        if let Some(report) = &mut report {
            args.names.name(report);
        }
        let value = report.as_ref().map_or_else(Default::default, figures::shown);
        let options = output::WriteOptions { value, mode: args.mode, ..Default::default() };
        for file in args.output.iter().filter(|file| !series::takes(file)) {
            failures.note(match &report {
                Some(report) => output::write(file, report, options).map_err(anyhow::Error::from),
                None => Err(anyhow!("{}: not written: there is no whole snapshot", file.display())),
            });
        }
        if let Some(report) = &report {
            summarize(args, report, streams_to_stdout, &mut failures);
        }
        for error in errors {
            failures.note(Err(error));
        }
        failures.into_result()?;
        report.context("there is no report")
    }
}

/// Loss that is counted here: readings of the kernel half's tables, or of the kernel's figures, that failed.
const READING_FAILED: &str = "reading_failed";

/// The report of the end, tried a few times.
fn last_report(trace: &mut dyn Traced) -> Result<Report> {
    for _ in 1..TRIES {
        match trace.report() {
            Ok(report) => return Ok(report),
            Err(error) => log::info!("the report of the end is tried again: {error:#}"),
        }
        std::thread::sleep(PAUSE);
    }
    trace.report()
}

/// Prints the summary, where standard output or standard error has room for it.
fn summarize(args: &RecordArgs, report: &Report, streams_to_stdout: bool, failures: &mut Failures) {
    let with_command = !args.command.is_empty();
    let to_stdout = args.output.iter().any(|file| file.as_os_str() == "-");
    // Standard output is the command's, where there is one, or the stream's.
    let to_stderr = with_command || streams_to_stdout;
    let terminal = if to_stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
    let color = terminal && std::env::var_os("NO_COLOR").is_none();
    let value = figures::shown(report);
    let summary = output::summary::render(report, output::summary::Options { top: args.top, color, value, ..Default::default() });
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
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
