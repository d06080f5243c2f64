//! `memtrail demo`: three small workloads under the tracer, and what was found of them.
//!
//! Everything it makes goes with it: its cgroups are removed (by the janitor if memtrail is killed), its two files too (by the first
//! workload then), and its processes end when memtrail does.

mod ground;
mod workloads;

use crate::{analyse::figures, text};
pub use workloads::WorkloadArgs;
pub use workloads::run as workload;

use super::status;
use crate::{
    analyse::verdicts::glibc_arenas,
    cgroup::Hierarchy,
    containers::KnownNames,
    kernel_half::{
        sizes,
        start::{Host, StartOptions},
    },
    output::{self, Source, format},
    report::{Cgroup, Report, StackRow},
    text::{glob::Glob, units},
    trace::{filter::Filter, session::Session},
};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use ground::Ground;
use std::{
    fs::File,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};
use workloads::Workload;

/// What the workloads are charged on top of their known bytes, at most: page tables, their programs, libraries.
const SLACK: u64 = 64 << 20;
/// Longest wait for a workload. It takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Files to write. The help comes from the table of formats.
    #[arg(short, long, value_name = "FILE", help = format::help(OUTPUT, Source::Report), long_help = format::long_help(OUTPUT, Source::Report))]
    pub output: Vec<PathBuf>,
    /// Force a class of providers.
    #[arg(long, value_name = "TIER")]
    pub provider: Option<super::tracing::ProviderArg>,
}

/// What `-o` does.
const OUTPUT: &str = "Write a report too";

const EXAMPLES: &str = "\
Examples:
  memtrail demo                                  three workloads, traced and explained
  memtrail demo -o demo.svg -o demo.folded       the same, with a flame graph and folded stacks

It needs root, 300 MB of memory, and takes some seconds. It leaves nothing behind.";

/// Runs the demo.
pub fn run(args: &DemoArgs) -> Result<u8> {
    for file in &args.output {
        output::check_target(file, Source::Report)?;
    }
    // Says what is missing before anything is made.
    Host::look()?.check()?;
    // Before anything large is in memory: the janitor is a fork.
    let ground = Ground::prepare(&Hierarchy::find()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(demo(args, ground))
}

async fn demo(args: &DemoArgs, mut ground: Ground) -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    say("attaching");
    let mut session =
        Session::start(Filter::new(vec![Glob::parse(&ground.path())?]), KnownNames::new(std::path::Path::new("/")), options(args))?;
    let mut children = Vec::new();
    let worked = tokio::select! {
        worked = work(&mut ground, &mut children) => worked,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    let report = match worked {
        Ok(()) => {
            say("reading the tables");
            session.interval().and_then(|_| session.report()).map_err(anyhow::Error::from)
        }
        Err(error) => Err(error),
    };
    drop(session);
    say("");
    for child in &mut children {
        // If it is gone already there is nothing to kill.
        drop(child.kill().await);
    }
    ground.clear();
    let report = report?;
    print(&report, &ground)?;
    for file in &args.output {
        output::write(file, &report, output::WriteOptions::default())?;
        eprintln!("memtrail: wrote {}", file.display());
    }
    Ok(if status::lost(&report.losses) { status::INCOMPLETE } else { 0 })
}

fn options(args: &DemoArgs) -> StartOptions {
    let known: u64 = [Workload::Arenas, Workload::Log, Workload::Tmpfs].iter().map(|workload| workload.bytes()).sum();
    StartOptions {
        exact: true,
        provider: args.provider.map(Into::into),
        // The tables of so few bytes are small; what is left grows with the host's memory, 64 MiB for each TiB.
        map_memory: 16 * sizes::DEFAULT_MAP_MEMORY,
        traced_bytes: Some(known + SLACK),
        filtered: true,
        ..StartOptions::default()
    }
}

/// Runs the workloads one after the other. The first two stay; the third leaves its file, and its cgroup goes.
async fn work(ground: &mut Ground, children: &mut Vec<Child>) -> Result<()> {
    say("1 of 3: four threads fill malloc arenas");
    children.push(start(ground, Workload::Arenas, None)?);
    ready(children).await?;
    match ground.file(Workload::Log) {
        Some(file) => {
            say("2 of 3: a log file grows in the page cache");
            children.push(start(ground, Workload::Log, Some(file?))?);
            ready(children).await?;
        }
        None => eprintln!("memtrail: no log file in this demo: every folder for temporary files is in memory"),
    }
    match ground.file(Workload::Tmpfs) {
        Some(file) => {
            say("3 of 3: a container fills a tmpfs file and is gone");
            children.push(start(ground, Workload::Tmpfs, Some(file?))?);
            ready(children).await?;
            if let Some(mut child) = children.pop() {
                drop(child.stdin.take());
                child.wait().await.context("cannot wait for the workload")?;
            }
            ground.remove(Workload::Tmpfs)?;
        }
        None => eprintln!("memtrail: no tmpfs file in this demo: neither /dev/shm nor /run nor /tmp is a tmpfs"),
    }
    // The kernel's figures are batched for up to two seconds.
    say("waiting for the kernel's own figures");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    Ok(())
}

fn start(ground: &mut Ground, workload: Workload, output: Option<File>) -> Result<Child> {
    let procs = ground.add(workload)?;
    let program = std::env::current_exe().context("cannot find memtrail's own program")?;
    Command::new(program)
        .args(["demo-workload", workload.name()])
        .arg(procs)
        // The first stays until the end, however that comes.
        .args(ground.file_paths().filter(|_| workload == Workload::Arenas))
        .stdin(Stdio::piped())
        .stdout(output.map_or_else(Stdio::null, Stdio::from))
        .stderr(Stdio::piped())
        // Glibc's own choice of arenas, whatever this shell has set.
        .env_remove("MALLOC_ARENA_MAX")
        .env_remove("GLIBC_TUNABLES")
        // Not the terminal's Ctrl-C: memtrail ends it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a workload")
}

/// Waits until the last of them has done its work.
async fn ready(children: &mut [Child]) -> Result<()> {
    let Some(said) = children.last_mut().and_then(|child| child.stderr.take()) else { return Ok(()) };
    let mut line = String::new();
    let mut said = BufReader::new(said);
    match tokio::time::timeout(PATIENCE, said.read_line(&mut line)).await {
        Err(_) => bail!("a workload did not finish within {}", units::duration(PATIENCE)),
        Ok(read) => read.context("cannot hear the workload")?,
    };
    if line.trim() != "ready" {
        bail!("a workload failed: {}", text::escape(line.trim().trim_start_matches("memtrail: ")));
    }
    Ok(())
}

/// The step that is under way, where somebody watches; an empty one clears the line.
fn say(step: &str) {
    if std::io::stderr().is_terminal() {
        let line = if step.is_empty() { String::new() } else { format!("memtrail demo: {step} ...") };
        eprint!("\r\x1b[K{line}");
    }
}

fn print(report: &Report, ground: &Ground) -> Result<()> {
    let mut text = output::summary::render(report, output::summary::Options { color: color(), ..Default::default() });
    text.push('\n');
    for workload in ground.used() {
        for line in text::wrap(&sentence(report, &ground.path_of(*workload), *workload), output::summary::COLUMNS) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

fn color() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// What was found of one workload, from the report alone.
fn sentence(report: &Report, path: &str, workload: Workload) -> String {
    let expected = units::bytes(workload.bytes());
    let Some(cgroup) = report.cgroups.iter().find(|cgroup| cgroup.path == path) else {
        return format!("{}: nothing found in {path}, where {expected} were expected.", workload.name());
    };
    let live = cgroup.kinds.get(workload.kind()).and_then(|row| row.live);
    let through = through(cgroup, workload);
    let found = figures::known(live);
    let by = format!("{} through {}", units::bytes(through.bytes), workload.function());
    let stacks = if through.stacks == 1 { "1 stack".to_owned() } else { format!("{} stacks", through.stacks) };
    let state = if cgroup.state == "dead" { "dead" } else { "living" };
    match workload {
        Workload::Arenas => format!(
            "Arenas: four threads keep {expected} from malloc; found {found} of anonymous memory in the {state} cgroup {path}, {by} \
             ({stacks}){}.",
            arenas(cgroup)
        ),
        Workload::Log => format!(
            "Log file: {expected} were appended; found {found} of page cache in the {state} cgroup {path}, {by} ({stacks}); the \
             kernel can drop it once it is written back."
        ),
        Workload::Tmpfs => format!(
            "tmpfs: a process left {expected} in a file and ended; found {found} still charged to its {state} cgroup {path}, {by} \
             ({stacks}); only removing the file frees it."
        ),
    }
}

/// What malloc's arenas hold, and the verdict on them.
fn arenas(cgroup: &Cgroup) -> String {
    let Some(row) = cgroup.arenas.first() else { return "; its malloc arenas could not be told".to_owned() };
    let count = row.arenas.map_or_else(|| "?".to_owned(), |arenas| arenas.to_string());
    let limit = row.environment_limit.unwrap_or(row.default_limit);
    let held = format!("; {} of it in {count} glibc arenas, of at most {limit} here", figures::known(row.resident));
    let fired = cgroup.verdicts.iter().any(|verdict| verdict.id == glibc_arenas::ID);
    match row.free.zip(row.looked_through) {
        _ if fired => format!("{held}; the verdict {} fires", glibc_arenas::ID),
        Some((free, of)) => {
            let share = figures::percent(Some(free as f64 / of.max(1) as f64), 0);
            format!("{held}; no verdict: {share} of that is free blocks, so fewer arenas would hold as much")
        }
        None => format!("{held}; no verdict: how full they are is unknown"),
    }
}

/// What of a cgroup's memory went through the workload's function.
struct Through {
    bytes: u64,
    stacks: usize,
}

fn through(cgroup: &Cgroup, workload: Workload) -> Through {
    let is_frame = |row: &&StackRow| row.frames.iter().any(|frame| frame.rsplit("::").any(|part| part.starts_with(workload.function())));
    let rows: Vec<&StackRow> = cgroup.stacks.iter().filter(|row| row.kind == workload.kind() && row.live > 0).filter(is_frame).collect();
    let bytes = rows.iter().fold(0_u64, |sum, row| sum.saturating_add(row.live));
    Through { bytes, stacks: rows.len() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::{ArenaRow, KindRow};

    fn report(state: &str, frames: &[&str]) -> Report {
        let row = StackRow {
            kind: "shmem".into(),
            live: 64 << 20,
            frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
            ..StackRow::default()
        };
        let kind = KindRow { live: Some(65 << 20), ..KindRow::default() };
        let cgroup = Cgroup {
            path: "/memtrail/1/tmpfs".into(),
            state: state.into(),
            kinds: [("shmem".to_owned(), kind)].into(),
            stacks: vec![row],
            ..Cgroup::default()
        };
        Report { cgroups: vec![cgroup], ..Report::default() }
    }

    #[test]
    fn sentences_say_what_the_report_says() {
        let frames = ["main", "memtrail::cli::demo::workloads::fill_tmpfs", "write"];
        let text = sentence(&report("dead", &frames), "/memtrail/1/tmpfs", Workload::Tmpfs);
        assert!(
            text.contains("found 65.0 MiB still charged to its dead cgroup /memtrail/1/tmpfs, 64.0 MiB through fill_tmpfs (1 stack)"),
            "{text}"
        );
        let text = sentence(&report("alive", &["main", "my_fill_tmpfs"]), "/memtrail/1/tmpfs", Workload::Tmpfs);
        assert!(text.contains("its living cgroup") && text.contains("0 B through fill_tmpfs (0 stacks)"), "{text}");
        let mut arenas = report("alive", &["fill_arena"]);
        arenas.cgroups[0].kinds = [("anon".to_owned(), KindRow { live: Some(96 << 20), ..KindRow::default() })].into();
        arenas.cgroups[0].arenas = vec![ArenaRow {
            arenas: Some(5),
            resident: Some(95 << 20),
            free: Some(2 << 20),
            looked_through: Some(95 << 20),
            default_limit: 16,
            ..ArenaRow::default()
        }];
        let text = sentence(&arenas, "/memtrail/1/tmpfs", Workload::Arenas);
        assert!(text.contains("95.0 MiB of it in 5 glibc arenas, of at most 16 here; no verdict: 2 % of that is free blocks"), "{text}");
        let text = sentence(&Report::default(), "/memtrail/1/log", Workload::Log);
        assert_eq!(text, "log: nothing found in /memtrail/1/log, where 64.0 MiB were expected.");
    }
}
