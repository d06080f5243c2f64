//! `memtrail record`: the main job.

use super::status;
use crate::{
    bpf::sizes::Forced,
    collector::{filter::Filter, session::Session, start::StartOptions},
    glob::Glob,
    model::Report,
    output,
    probes::Tier,
    recording, units,
};
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use std::{
    ffi::OsString,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Arguments of `record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Stop after this long (30s, 5m, 1h30m); without it, at Ctrl-C or the command's end.
    #[arg(long, value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
    /// Only these cgroups and what is below them; `*` within a component, `**` across. May be given again.
    #[arg(long, value_name = "GLOB", value_parser = Glob::parse)]
    pub cgroup: Vec<Glob>,
    /// Take every charge instead of sampling.
    #[arg(long)]
    pub exact: bool,
    /// Force a class of providers.
    #[arg(long, value_name = "TIER")]
    pub provider: Option<ProviderArg>,
    /// Most memory for the kernel half's tables.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = units::parse_size)]
    pub map_memory: u64,
    /// Cgroups in the summary.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// Write a report; the ending chooses the format: .folded .svg .json .mtrail. May be given again.
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Time between two readings of the kernel's figures.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::parse_duration)]
    pub interval: Duration,
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

fn parse_tables(text: &str) -> Result<Forced, String> {
    let mut forced = Forced::default();
    text.split(',').filter(|one| !one.is_empty()).try_for_each(|one| forced.add(one))?;
    Ok(forced)
}

/// Classes of providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProviderArg {
    /// BPF trampolines.
    Fentry,
    /// Kprobes.
    Kprobe,
    /// Tracepoints.
    Tracepoint,
}

impl From<ProviderArg> for Tier {
    fn from(arg: ProviderArg) -> Tier {
        match arg {
            ProviderArg::Fentry => Tier::Fentry,
            ProviderArg::Kprobe => Tier::Kprobe,
            ProviderArg::Tracepoint => Tier::Tracepoint,
        }
    }
}

/// Runs a recording.
pub fn run(args: RecordArgs) -> Result<u8> {
    for file in &args.output {
        output::check_target(file)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the collector")?;
    runtime.block_on(record(args))
}

async fn record(args: RecordArgs) -> Result<u8> {
    let filter = Filter::new(args.cgroup.clone());
    let options = StartOptions {
        exact: args.exact,
        provider: args.provider.map(Tier::from),
        map_memory: args.map_memory,
        traced_bytes: None,
        filtered: false,
        forced: args.table,
    };
    // Before anything says that it is recording: a Ctrl-C then ends it with its report.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut session = Session::start(filter, options)?;
    let mut writers = Vec::new();
    for file in args.output.iter().filter(|file| output::Format::of(file) == Some(output::Format::Recording)) {
        writers.push(recording::Writer::create(file, &session.header())?);
    }
    announce(&session, &args);
    follow(&mut session, &args, &mut writers, [&mut interrupt, &mut terminate]).await?;
    let report = session.report()?;
    let unmatched = session.unmatched();
    drop(session);
    finish(&args, &report, writers)?;
    if !unmatched.is_empty() {
        anyhow::bail!("no cgroup matched {} during the recording", unmatched.join(", "));
    }
    let incomplete = status::lost(&report.losses) || report.plan.iter().any(|row| row.provider == "none" && is_required(&row.probe));
    Ok(if incomplete { status::INCOMPLETE } else { 0 })
}

fn is_required(probe: &str) -> bool {
    crate::probes::CATALOGUE.iter().any(|p| p.name == probe && p.required)
}

/// One line that says that tracing is on, with what it uses.
fn announce(session: &Session, args: &RecordArgs) {
    let running = session.running();
    let until = match args.duration {
        Some(duration) => format!("for {}", units::duration(duration)),
        None => "until Ctrl-C".to_owned(),
    };
    let mode = if args.exact { "every charge".to_owned() } else { format!("a sample every {}", units::bytes(running.sizes.mean_bytes())) };
    eprintln!("memtrail: recording {until} ({mode}, {} of tables)", units::bytes(running.sizes.bytes));
}

/// Reads figures at each interval until the end.
async fn follow(
    session: &mut Session,
    args: &RecordArgs,
    writers: &mut [recording::Writer],
    [interrupt, terminate]: [&mut Signal; 2],
) -> Result<()> {
    let started = Instant::now();
    let progress = std::io::stderr().is_terminal();
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + args.interval, args.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let end = tokio::time::sleep(args.duration.unwrap_or(Duration::MAX.min(Duration::from_secs(u64::from(u32::MAX)))));
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = ticks.tick() => {
                let interval = session.interval()?;
                for writer in writers.iter_mut() {
                    writer.interval(&interval)?;
                }
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

/// Writes everything; the first failure is reported after all were tried.
fn finish(args: &RecordArgs, report: &Report, writers: Vec<recording::Writer>) -> Result<()> {
    let mut first_failure = None;
    for mut writer in writers {
        let result = writer.report(report).and_then(|()| writer.finish());
        first_failure = first_failure.or(result.err().map(anyhow::Error::from));
    }
    for file in &args.output {
        if output::Format::of(file) != Some(output::Format::Recording) {
            let result = output::write(file, report, output::WriteOptions::default());
            first_failure = first_failure.or(result.err().map(anyhow::Error::from));
        }
    }
    let to_stdout = args.output.iter().any(|file| file.as_os_str() == "-");
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let summary = output::summary::render(report, output::summary::Options { top: args.top, color, ..Default::default() });
    if !to_stdout {
        // A reader that went away is no failure of the recording.
        match std::io::stdout().write_all(summary.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error).context("cannot print the summary"),
            _ => {}
        }
    }
    first_failure.map_or(Ok(()), Err)
}
