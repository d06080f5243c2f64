//! `memtrail oom`: waits for OOM kills, and prints an autopsy for each.

use super::{
    pulse::{Beat, Pulse},
    record::{FOREVER, Interrupts},
    tracing::TracingArgs,
};
use crate::text;
use crate::{
    analyse::oom::{Autopsy, log},
    containers::NamePattern,
    kernel_half::sizes::Forced,
    output::{self, timeline},
    text::{glob::Glob, units},
    trace::{filter::Filter, kmsg::Kmsg, oom::Wish, session::Session},
};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// Arguments of `oom`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct OomArgs {
    /// Go on after the first kill, until Ctrl-C.
    #[arg(long)]
    pub follow: bool,
    /// Only kills in these cgroups and what is below them. May be given again.
    #[arg(long, value_name = "GLOB", value_parser = Glob::parse)]
    pub cgroup: Vec<Glob>,
    /// Only kills in these pods: NAME, NAMESPACE/NAME or the uid; `*` for any part of a name. May be given again.
    #[arg(long, value_name = "[NS/]NAME", value_parser = NamePattern::pod)]
    pub pod: Vec<NamePattern>,
    /// Only kills in these containers: the name, or the beginning of the id; `*` for any part of a name. May be given again.
    #[arg(long, value_name = "NAME|ID", value_parser = NamePattern::container)]
    pub container: Vec<NamePattern>,
    /// Stop after this long.
    #[arg(long, value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
    /// Warn, with the same evidence, when a cgroup holds this share of its limit.
    #[arg(long, value_name = "PERCENT", value_parser = parse_share)]
    pub warn: Option<f64>,
    /// Warn, with the same evidence, when a cgroup will reach its limit within this long if it goes on as in the last half minute.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub warn_within: Option<Duration>,
    /// Write each autopsy to this directory as JSON; the newest 100 are kept, of 64 MiB together.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write the autopsies (.json), or memory over time to the last kill (.svg .html). May be given again.
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Compare each autopsy with the kernel's own log, and print how they agree.
    #[arg(long)]
    pub check_log: bool,
    /// How to trace.
    #[command(flatten)]
    pub tracing: TracingArgs,
    /// Time between two readings of the kernel's figures.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::parse_duration)]
    pub interval: Duration,
}

const EXAMPLES: &str = "\
Examples:
  memtrail oom                                 wait for one kill, and explain it
  memtrail oom --follow --dir /var/log/oom     explain each kill, and keep the newest 100
  memtrail oom --follow --cgroup '/kubepods/**' --warn 90%
      pods only, and when one of them comes close to its limit
  memtrail oom --follow --warn-within 2m       two minutes before it does
  memtrail oom -o kill.html                    with a picture of memory over time

Kills that repeat are told of once more for all of them: who was killed again and again, and what grew. Where killing
is off (cgroup v1, memory.oom_control), that tasks wait at the limit is told as a warning.

What was live at the kill is frozen in the kernel: the autopsy is the same however late it is read. Four kills can
wait; of further ones, victim, trigger and kinds are kept, and picture_refused is counted.

Exit status: 0 complete; 1 could not run or failed, or with --check-log an autopsy and the log differ; 2 usage;
3 finished, but something was lost.";

/// Autopsies kept in a directory.
const MOST_FILES: usize = 100;
/// And their bytes; the newest is kept however large it is.
const MOST_BYTES: u64 = 64 << 20;
/// What the names of their files begin with.
const PREFIX: &str = "memtrail-oom-";
/// Autopsies kept for `-o`.
const MOST_KEPT: usize = 256;
/// So long after the last event of a kill it is told of: the kernel prints a line between two victims of a group.
const SETTLE: Duration = Duration::from_millis(500);

fn parse_share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err(format!("{text:?} is not a share: write a percentage above 0 and up to 100, such as 90%")),
    }
}

/// Runs it.
pub fn run(args: OomArgs) -> Result<u8> {
    check(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the collector")?;
    runtime.block_on(watch(args))
}

fn check(args: &OomArgs) -> Result<()> {
    for file in &args.output {
        if kind_of(file).is_none() {
            bail!("{}: unknown ending: autopsies are written as .json, .svg or .html", file.display());
        }
        let directory = output::directory_of(file);
        if !directory.is_dir() {
            bail!("{}: cannot be written: {} is not a directory", file.display(), directory.display());
        }
    }
    if let Some(dir) = &args.dir
        && !dir.is_dir()
    {
        bail!("{}: not a directory", dir.display());
    }
    Ok(())
}

/// What a file's ending asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Svg,
    Html,
}

fn kind_of(file: &Path) -> Option<Kind> {
    match file.extension()?.to_str()? {
        "json" => Some(Kind::Json),
        "svg" => Some(Kind::Svg),
        "html" => Some(Kind::Html),
        _ => None,
    }
}

async fn watch(args: OomArgs) -> Result<u8> {
    let options = args.tracing.options(Forced::default());
    let mut interrupts = Interrupts::catch()?;
    // Before the first kill can be seen, so that its lines are not missed.
    let log = if args.check_log { Some(Kmsg::from_now().context("cannot read the kernel's log (/dev/kmsg)")?) } else { None };
    let filter = Filter::new(args.cgroup.clone()).named(args.pod.clone(), args.container.clone());
    let mut session = Session::start(filter, args.tracing.names(), options)?;
    eprintln!("memtrail: waiting for OOM kills ({} of tables)", units::bytes(session.running().sizes.bytes));
    let mut told = Told { args: &args, log, kept: Vec::new(), told: 0, kills: 0, looked: 0, differing: 0 };
    let mut pulse = Pulse::of(&session, args.interval)?;
    let wish = Wish { share: args.warn, within_s: args.warn_within.map(|within| within.as_secs_f64()) };
    let end = tokio::time::sleep(args.duration.unwrap_or(FOREVER));
    tokio::pin!(end);
    // Set while a kill may still get victims.
    let mut settle: Option<tokio::time::Instant> = None;
    loop {
        let settled = async {
            match settle {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut end => break,
            () = interrupts.next() => break,
            () = settled => {
                settle = None;
                told.tell(&mut session, SETTLE)?;
            }
            beat = pulse.next(&mut session) => match beat? {
                Beat::Kill => settle = Some(tokio::time::Instant::now() + SETTLE),
                Beat::Tick => {
                    session.interval()?;
                    for warning in session.warnings(wish)? {
                        told.one(&warning)?;
                    }
                    // A kill that an interval took in is told with the next tick at the latest.
                    told.tell(&mut session, SETTLE)?;
                    told.loops(&session)?;
                }
            }
        }
        if !args.follow && told.kills > 0 {
            break;
        }
    }
    session.drain_oom()?;
    told.tell(&mut session, Duration::ZERO)?;
    told.loops(&session)?;
    let losses = session.losses()?;
    if !args.follow && told.kills == 0 {
        eprintln!("memtrail: no OOM kill");
    }
    if told.differing > 0 {
        return Ok(super::status::FAILED);
    }
    Ok(if super::status::lost(&losses) { super::status::INCOMPLETE } else { 0 })
}

/// What was told so far.
struct Told<'a> {
    args: &'a OomArgs,
    log: Option<Kmsg>,
    kept: Vec<Autopsy>,
    /// Kills and warnings.
    told: u64,
    kills: u64,
    /// Kills when it was last looked whether they repeat.
    looked: u64,
    differing: u64,
}

impl Told<'_> {
    /// Tells of kills that were not told of, if they are that old.
    fn tell(&mut self, session: &mut Session, age: Duration) -> Result<()> {
        for autopsy in session.new_autopsies(age) {
            self.kills += 1;
            self.one(&autopsy)?;
        }
        Ok(())
    }

    /// Tells of kills that repeat, and of the host's limits, after new kills.
    fn loops(&mut self, session: &Session) -> Result<()> {
        if self.kills == self.looked {
            return Ok(());
        }
        self.looked = self.kills;
        let loops = session.loops();
        // One kill after another is no news; that they repeat is.
        if loops.verdicts.is_empty() { Ok(()) } else { print(&format!("{}\n", output::autopsy::loops(&loops))) }
    }

    fn one(&mut self, autopsy: &Autopsy) -> Result<()> {
        self.told += 1;
        let mut text = output::autopsy::render(autopsy);
        if autopsy.event == "kill" {
            text.push_str(&self.agreement(autopsy)?);
        }
        text.push('\n');
        print(&text)?;
        if let Some(dir) = &self.args.dir {
            keep_in(dir, autopsy, self.told)?;
        }
        if self.kept.len() == MOST_KEPT {
            self.kept.remove(0);
        }
        self.kept.push(autopsy.clone());
        for file in &self.args.output {
            self.write(file)?;
        }
        Ok(())
    }

    fn write(&self, file: &Path) -> Result<()> {
        let last = self.kept.iter().rfind(|autopsy| autopsy.event == "kill").or(self.kept.last());
        let content = match (kind_of(file), last) {
            (Some(Kind::Json), _) => json(&self.kept),
            (Some(Kind::Svg), Some(autopsy)) => timeline::svg(autopsy),
            (Some(Kind::Html), Some(autopsy)) => timeline::html(autopsy),
            _ => return Ok(()),
        };
        output::write_whole(file, |writer| writer.write_all(content.as_bytes()))
            .with_context(|| format!("{}: cannot write", file.display()))
    }

    /// How the autopsy agrees with the kernel's log: lines for the terminal.
    fn agreement(&mut self, autopsy: &Autopsy) -> Result<String> {
        let Some(kmsg) = &mut self.log else { return Ok(String::new()) };
        let messages = kmsg.messages().context("cannot read the kernel's log")?;
        let incidents = log::incidents(messages.iter().map(String::as_str));
        let Some(agreement) = log::compare(autopsy, &incidents, batch_kb()) else {
            self.differing += 1;
            return Ok("  log       the kernel's log has no such kill\n".to_owned());
        };
        let mut text = format!(
            "  log       {} of {} fields agree with the kernel's log; {} cannot be compared\n",
            agreement.compared - u32::try_from(agreement.differences.len()).unwrap_or(0).min(agreement.compared),
            agreement.compared,
            agreement.left_out
        );
        for difference in &agreement.differences {
            text.push_str(&format!("            {}\n", text::escape(difference)));
        }
        self.differing += u64::from(!agreement.differences.is_empty());
        Ok(text)
    }
}

/// Prints; a reader that went away is no failure.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot print the autopsy"),
        _ => Ok(()),
    }
}

/// What CPUs may hold back of a counter: 64 pages each (MEMCG_CHARGE_BATCH), kB.
fn batch_kb() -> u64 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    64 * 4 * cpus as u64
}

fn json(value: &impl serde::Serialize) -> String {
    // Strings, numbers and lists of them: this cannot fail.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// Writes the autopsy to the directory, and removes the oldest beyond the bound: only files of this name.
fn keep_in(dir: &Path, autopsy: &Autopsy, number: u64) -> Result<()> {
    let time: String = autopsy.time.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let name = format!("{PREFIX}{time}-{}-{}-{number:06}.json", autopsy.event, std::process::id());
    let path = dir.join(&name);
    let content = json(autopsy);
    output::write_whole(&path, |writer| writer.write_all(content.as_bytes()))
        .with_context(|| format!("{}: cannot write", path.display()))?;
    let entries = std::fs::read_dir(dir).with_context(|| format!("{}: cannot list", dir.display()))?;
    let ours = |name: &str| name.starts_with(PREFIX) && name.ends_with(".json");
    let sized = |entry: std::fs::DirEntry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.len()));
    let mut files: Vec<(String, u64)> = entries.filter_map(|entry| sized(entry.ok()?)).filter(|(name, _)| ours(name)).collect();
    files.sort_unstable();
    let mut bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let mut left = files.len();
    // Not the one just written, wherever a clock that was set back puts it.
    for (older, size) in files.into_iter().filter(|(other, _)| *other != name) {
        if left <= MOST_FILES && bytes <= MOST_BYTES {
            break;
        }
        let path = dir.join(older);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{}: cannot remove", path.display()));
            }
            _ => (left, bytes) = (left - 1, bytes - size),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!(parse_share("90%"), Ok(0.9));
        assert_eq!(parse_share("50"), Ok(0.5));
        for bad in ["", "0%", "101%", "x", "-3%", "NaN"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_keeps_the_newest_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("other.json"), "").unwrap();
        for second in 0..150 {
            let time = format!("2026-03-01T02:{:02}:{:02}Z", second / 60, second % 60);
            keep_in(dir.path(), &Autopsy { time, event: "kill".into(), ..Autopsy::default() }, second).unwrap();
        }
        let names: Vec<String> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(names.len(), MOST_FILES + 1);
        assert!(names.iter().any(|name| name == "other.json") && !names.iter().any(|name| name.contains("T020000Z")));
        assert!(names.iter().any(|name| name.contains("20260301T020229Z")), "{names:?}");

        // Large ones go by their size: only the newest fits then.
        std::fs::File::create(dir.path().join(format!("{PREFIX}20260301T030000Z-kill-1-1.json"))).unwrap().set_len(MOST_BYTES).unwrap();
        keep_in(dir.path(), &Autopsy { time: "2026-03-01T04:00:00Z".into(), event: "kill".into(), ..Autopsy::default() }, 1).unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert!(left.len() == 2 && left.iter().any(|name| name.contains("T040000Z")), "{left:?}");
    }
}
