//! `memtrail report`: any view or format of a recording.

use super::{moment, naming::SymbolArgs, patience::Patience, status::Conflict};
use crate::analyse::comparison;
use crate::{
    analyse::figures,
    containers::NamePattern,
    host::write::{Access, write_whole},
    output::{
        self, Format, Source, Value,
        format::{self, Stacks, WriteSeries},
        selection::Selection,
        views,
    },
    recording::{self, Point},
    report::{Cgroup, Report},
    text::{glob::Glob, units},
};
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use std::{
    collections::HashMap,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Kinds that can be selected.
pub(super) const KINDS: [&str; 7] = ["anon", "file", "shmem", "hugetlb", "kernel", "sock", "swap"];

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// The recording; one that is still being written shows its last whole snapshot. Or a memtrail that serves: http://HOST:PORT, or the path of
    /// its socket.
    #[arg(value_name = "FILE.mtrail|ADDRESS")]
    pub file: PathBuf,
    /// What to show; without it, the summary.
    #[arg(long, value_enum)]
    pub view: Option<View>,
    /// Only these cgroups. May be given again.
    #[arg(long, value_name = "GLOB", value_parser = Glob::parse)]
    pub cgroup: Vec<Glob>,
    /// Only these pods: NAME, NAMESPACE/NAME or the uid; `*` for any part of a name. May be given again.
    #[arg(long, value_name = "[NS/]NAME", value_parser = NamePattern::pod)]
    pub pod: Vec<NamePattern>,
    /// Only these containers: the name, or the beginning of the id; `*` for any part of a name. May be given again.
    #[arg(long, value_name = "NAME|ID", value_parser = NamePattern::container)]
    pub container: Vec<NamePattern>,
    /// Only these kinds: anon, file, shmem, hugetlb. May be given again.
    #[arg(long, value_name = "KIND", value_parser = KINDS)]
    pub kind: Vec<String>,
    /// Which bytes: live, peak (live when the cgroup held most), charged, or growth, the change of live bytes; live, with --from growth, and
    /// of a command peak.
    #[arg(long)]
    pub value: Option<Value>,
    /// Only what changed after this mark: growth, or what was charged.
    #[arg(long, value_name = "MARK")]
    pub from: Option<String>,
    /// As of this mark, not of the end.
    #[arg(long, value_name = "MARK")]
    pub to: Option<String>,
    /// Split live bytes by thread: `comm/tid` for the process, with the thread's own name where known.
    #[arg(long, value_enum)]
    pub by: Option<By>,
    /// With --view regions: a JVM's account of its memory (`jcmd PID VM.native_memory summary`), to be shown beside its regions.
    #[arg(long, value_name = "FILE")]
    pub nmt: Option<PathBuf>,
    /// With --view regions: who mapped each region and asked for address space, by stack.
    #[arg(long)]
    pub origins: bool,
    /// Most rows.
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Names for what has none.
    #[command(flatten)]
    pub names: SymbolArgs,
    /// Files to write. The help comes from the table of formats.
    #[arg(
        short,
        long,
        value_name = "FILE",
        help = format::help(OUTPUT, Source::Recording),
        long_help = format::long_help(OUTPUT, Source::Recording)
    )]
    pub output: Vec<PathBuf>,
}

/// What `-o` does.
const OUTPUT: &str = "Write a report instead";

const EXAMPLES: &str = "\
Examples:
  memtrail report run.mtrail                             the summary again
  memtrail report run.mtrail --view cgroups              the ledger of each cgroup
  memtrail report run.mtrail --view pods                 pods and their containers, dead ones too
  memtrail report run.mtrail --view stacks --kind anon   stacks of anonymous memory
  memtrail report run.mtrail --view regions              heaps, arenas, thread stacks, files' copies
  memtrail report run.mtrail --view regions --origins    and who mapped them
  memtrail report run.mtrail --view regions --nmt f      beside what the JVM says of itself
  memtrail report run.mtrail --view files --top 20       the largest files in memory
  memtrail report run.mtrail --view histograms           waits for memory, sizes, lifetimes
  memtrail report run.mtrail -o run.pftrace              memory over time, for Perfetto's viewer
  memtrail report run.mtrail --view oom                  an autopsy for each OOM kill
  memtrail report run.mtrail --value charged -o out.svg  a flame graph of all charges
  memtrail report run.mtrail --from warm --to loaded     what grew between two marks
  memtrail report run.mtrail --by thread -o out.folded   live bytes by thread
  memtrail report run.mtrail --symbols build/debug       names from the files of a build
  memtrail report http://127.0.0.1:9774 --view pods      what a memtrail that serves knows now

A token that an address asks for stands in the file that MEMTRAIL_TOKEN_FILE names.";

/// What stacks are split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Threads. Charged bytes that are freed again have none.
    Thread,
}

/// Views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Cgroups with the ledger of each kind.
    Cgroups,
    /// Pods and containers by name: usage, the limit that binds first, kinds with all below, and what the dead among them hold.
    Pods,
    /// Stacks of all cgroups, whole.
    Stacks,
    /// Marks of the recording.
    Marks,
    /// OOM kills: an autopsy for each.
    Oom,
    /// Files of the page cache and of tmpfs, with who is charged and who touched them.
    Files,
    /// What anonymous memory is for, by process; malloc's arenas.
    Regions,
    /// Distributions: waits for memory, sizes, lifetimes.
    Histograms,
}

/// Shows a recording.
pub fn run(args: &ReportArgs) -> Result<u8> {
    for file in &args.output {
        output::check_target(file, Source::Recording)?;
    }
    check(args)?;
    if let Some(file) =
        args.output.iter().find(|file| moment::is_served(&args.file) && Format::of(file).is_some_and(|format| format.report.is_none()))
    {
        let text = format!("{}: {} tells of now, and not of memory over time", file.display(), args.file.display());
        return Err(Conflict(text).into());
    }
    args.names.check()?;
    if args.view == Some(View::Marks) {
        return print(&views::marks(&moment::read(&args.file, None)?.marks));
    }
    let at = |mark: Option<&String>| moment::read(&args.file, mark.map(String::as_str));
    let recording = at(args.to.as_ref())?;
    let header = recording.header.clone();
    let named = |recording| -> Result<Report> {
        let mut report = moment::last_report(&args.file, recording)?;
        args.names.name(&mut report);
        Ok(report)
    };
    let report = named(recording)?;
    let value = args.value_of(&report);
    let report = match &args.from {
        Some(from) => growth(Some(&named(at(Some(from))?)?), &report, value)?,
        None if value == Value::Growth => growth(None, &report, value)?,
        None => report,
    };
    let selection = Selection {
        cgroups: args.cgroup.clone(),
        pods: args.pod.clone(),
        containers: args.container.clone(),
        kinds: args.kind.clone(),
        value,
        top: args.top,
    };
    let mut selected = selection.apply(&report);
    if args.by == Some(By::Thread) {
        selected = output::threads::split(&selected).with_context(|| args.file.display().to_string())?;
    }
    for file in &args.output {
        let _patience = Patience::with(&format!("writing {}", file.display()));
        match Format::of(file).filter(|format| format.report.is_none()).and_then(|format| format.series) {
            Some(series) => write_series(args, file, series.write, &Chosen { header: &header, report: &report, selection: &selection })?,
            None => output::write(file, &selected, output::WriteOptions { value, ..Default::default() })?,
        }
    }
    if !args.output.is_empty() {
        return Ok(0);
    }
    let text = match args.view {
        None if args.is_growth() => views::stacks(&selected, &selection),
        None => output::summary::render(&selected, {
            output::summary::Options { top: args.top.unwrap_or(10), value, is_part: !args.kind.is_empty(), ..Default::default() }
        }),
        Some(View::Cgroups) => views::cgroups(&report, &selection),
        Some(View::Pods) => output::pods::table(&report, &selection),
        Some(View::Stacks) => views::stacks(&selected, &selection),
        Some(View::Marks) => String::new(),
        Some(View::Oom) => output::autopsy::view(&selected),
        Some(View::Files) => output::files::table(&report, &selection),
        Some(View::Histograms) => output::histograms::render(&report, &selection),
        Some(View::Regions) => match &args.nmt {
            Some(account) => beside_nmt(&report, &selection, account, args.origins)?,
            None => output::regions::render(&report, &selection, args.origins),
        },
    };
    print(&text)
}

/// The regions with the JVM's own account before them.
fn beside_nmt(report: &Report, selection: &Selection, account: &std::path::Path, with_origins: bool) -> Result<String> {
    use output::nmt;
    use std::io::Read as _;
    let name = || account.display().to_string();
    let mut text = String::new();
    std::fs::File::open(account).and_then(|file| file.take(nmt::MOST_BYTES).read_to_string(&mut text)).with_context(name)?;
    let categories = nmt::parse(&text).with_context(name)?;
    let table = nmt::render(report, |cgroup| selection.takes_cgroup(cgroup), &categories)?;
    Ok(format!("{table}\n{}", output::regions::render(report, selection, with_origins)))
}

impl ReportArgs {
    /// Which bytes.
    fn value(&self) -> Value {
        self.value.unwrap_or(if self.from.is_some() { Value::Growth } else { Value::Live })
    }

    /// Which bytes of a report.
    fn value_of(&self, report: &Report) -> Value {
        if self.value.is_none() && !self.is_growth() { figures::shown(report) } else { self.value() }
    }

    /// Whether the figures of stacks are changes.
    fn is_growth(&self) -> bool {
        self.from.is_some() || self.value() == Value::Growth
    }
}

/// What of a recording is shown.
struct Chosen<'a> {
    header: &'a recording::Header,
    report: &'a Report,
    selection: &'a Selection,
}

/// A file of the series, of what is selected, between the marks. Cgroups that are not in the report are known by their number only.
fn write_series(args: &ReportArgs, file: &Path, series: WriteSeries, chosen: &Chosen<'_>) -> Result<()> {
    let Chosen { header, report, selection } = *chosen;
    let cgroups: HashMap<&str, &Cgroup> = report.cgroups.iter().map(|cgroup| (cgroup.id.as_str(), cgroup)).collect();
    let path_of = |id: &str| cgroups.get(id).map_or_else(|| format!("[cgroup {id}]"), |cgroup| cgroup.path.clone());
    let takes = |id: &str| !selection.is_of_cgroups() || cgroups.get(id).is_some_and(|cgroup| selection.takes_cgroup(cgroup));
    let is_private = Format::of(file).is_some_and(|format| format.is_private);
    write_whole(file, Access::of(None, is_private), |writer| {
        let mut growing = (series.begin)();
        let mut written = writer.write_all(&growing.head(header));
        let (mut begun, mut ended) = (args.from.is_none(), false);
        let each = &mut |point: Point<'_>| {
            let packets = match point {
                Point::Interval(interval) if begun && !ended => {
                    let mut interval = interval.clone();
                    interval.cgroups.retain(|id, _| takes(id));
                    interval.cgroups.values_mut().for_each(|cgroup| cgroup.kinds.retain(|kind, _| selection.takes_kind(kind)));
                    growing.interval(&interval, &path_of)
                }
                Point::Interval(_) => return,
                Point::Mark(mark) => {
                    begun |= args.from.as_ref() == Some(&mark.name);
                    if !begun || ended {
                        return;
                    }
                    ended = args.to.as_ref() == Some(&mark.name);
                    growing.mark(mark)
                }
            };
            if written.is_ok() {
                written = writer.write_all(&packets);
            }
        };
        recording::read_series(&args.file, each).map_err(std::io::Error::other)?;
        written
    })
    .with_context(|| format!("{}: cannot write", file.display()))
}

fn print(text: &str) -> Result<u8> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(0),
    }
}

/// The growth, with a word on what shrank, which no stack output can show.
fn growth(before: Option<&Report>, after: &Report, value: Value) -> Result<Report> {
    if let Some(before) = before.filter(|before| before.duration_s > after.duration_s) {
        bail!("--from is {:.1} s later than --to", before.duration_s - after.duration_s);
    }
    let growth = comparison::growth::between(before, after, value);
    if growth.shrunk > 0 {
        let noun = if growth.shrunk == 1 { "stack" } else { "stacks" };
        eprintln!("memtrail: {} {noun} shrank, by {} in all: see memtrail diff", growth.shrunk, units::bytes(growth.shrunk_bytes));
    }
    Ok(growth.report)
}

/// An output that holds live and charged bytes of every stack, so that there is no choice.
fn whole_rows(args: &ReportArgs) -> Option<&PathBuf> {
    args.output.iter().find(|file| Format::of(file).is_some_and(|format| format.stacks == Stacks::Whole))
}

/// An output without stacks.
fn without_stacks(args: &ReportArgs) -> Option<&PathBuf> {
    args.output.iter().find(|file| Format::of(file).is_some_and(|format| format.stacks == Stacks::None))
}

/// A view of what is at a moment, which has no growth.
fn of_a_moment(view: Option<View>) -> Option<&'static str> {
    match view? {
        View::Cgroups => Some("cgroups"),
        View::Pods => Some("pods"),
        View::Files => Some("files"),
        View::Regions => Some("regions"),
        View::Oom => Some("OOM kills"),
        View::Stacks | View::Marks | View::Histograms => None,
    }
}

/// Refuses what cannot be told before anything is read.
fn check(args: &ReportArgs) -> Result<(), Conflict> {
    if args.view == Some(View::Marks) && !args.output.is_empty() {
        return Err(Conflict("--view marks: a list for the terminal: leave -o out".to_owned()));
    }
    if let (Some(view @ (View::Files | View::Regions)), Some(value @ (Value::Charged | Value::Peak))) = (args.view, args.value) {
        let view = if view == View::Files { "files" } else { "regions" };
        return Err(Conflict(format!(
            "--view {view} --value {value}: it shows what is there at the end: leave --value out, or use --view stacks"
        )));
    }
    if args.origins && args.view != Some(View::Regions) {
        return Err(Conflict("--origins: of the regions of processes: use --view regions".to_owned()));
    }
    if args.nmt.is_some() && args.view != Some(View::Regions) {
        return Err(Conflict("--nmt: beside the regions of a process only: use --view regions".to_owned()));
    }
    if args.nmt.is_some() && !args.output.is_empty() {
        return Err(Conflict("--nmt: a table for the terminal: leave -o out".to_owned()));
    }
    if args.by == Some(By::Thread) {
        let value = args.value();
        if value != Value::Live {
            return Err(Conflict(format!("--by thread: {value} bytes have no thread, only live ones do: leave --value {value} out")));
        }
        if args.view == Some(View::Cgroups) {
            return Err(Conflict("--by thread: the view of cgroups has no stacks: use --view stacks".to_owned()));
        }
        if let Some(file) = without_stacks(args) {
            return Err(Conflict(format!("--by thread: {}: it has no stacks: leave --by out", file.display())));
        }
        if let Some(file) = whole_rows(args) {
            let name = file.display();
            return Err(Conflict(format!(
                "--by thread: {name}: it has live and charged bytes of each stack, and JSON its threads: leave --by out, or use .folded or .svg"
            )));
        }
    }
    if args.is_growth() {
        let option = if args.from.is_some() { "--from" } else { "--value growth" };
        if args.value() == Value::Peak {
            return Err(Conflict("--from: the peak is that of the whole recording: leave --from out, or use --value growth".to_owned()));
        }
        if args.value() == Value::Live {
            return Err(Conflict("--from: live bytes are those of a moment: leave --from out, or use --value growth".to_owned()));
        }
        if let Some(what) = of_a_moment(args.view) {
            return Err(Conflict(format!(
                "{option}: of stacks and distributions only, not of {what}: use --view stacks or histograms, or memtrail diff"
            )));
        }
        if let Some(file) = whole_rows(args) {
            let name = file.display();
            return Err(Conflict(format!("{option}: {name}: it has no place for growth: use .folded or .svg, or memtrail diff")));
        }
    }
    Ok(())
}
