//! `memtrail oom`: waits for OOM kills, and prints an autopsy for each.

use super::{
    drive::{Drive, SETTLE, Task},
    failures::Failures,
    interrupts::Interrupts,
    status,
    tracing::TracingArgs,
    which::WhichArgs,
};
use crate::text;
use crate::{
    analyse::oom::{Autopsy, log, loops::Loops},
    host::write::{Access, Mode, make_private_directory, write_whole},
    kernel_half::sizes::Forced,
    output::{self, Source, format},
    text::{date, units},
    trace::{kmsg::Kmsg, oom::Wish, session::Session},
};
use anyhow::{Context as _, Result};
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
    /// In which cgroups.
    #[command(flatten)]
    pub which: WhichArgs,
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
    /// Files to write. The help comes from the table of formats.
    #[arg(short, long, value_name = "FILE", help = format::help(OUTPUT, Source::Kills), long_help = format::long_help(OUTPUT, Source::Kills))]
    pub output: Vec<PathBuf>,
    /// Mode of every file that is made, as chmod takes it. Without it they are 0600, since they show what processes of all users do. A
    /// file that is replaced gets the mode of a new one.
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Mode>,
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

/// What `-o` does.
const OUTPUT: &str = "Write the kills";

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
        output::check_target(file, Source::Kills)?;
    }
    if let Some(dir) = &args.dir {
        make_private_directory(dir).with_context(|| format!("--dir {}", dir.display()))?;
    }
    Ok(())
}

async fn watch(args: OomArgs) -> Result<u8> {
    let options = args.tracing.options(Forced::default());
    let interrupts = Interrupts::catch()?;
    // Before the first kill can be seen, so that its lines are not missed.
    let log = if args.check_log { Some(Kmsg::from_now().context("cannot read the kernel's log (/dev/kmsg)")?) } else { None };
    let filter = args.which.filter();
    let mut session = Session::start(filter, args.tracing.names(), options)?;
    eprintln!("memtrail: waiting for OOM kills ({} of tables)", units::bytes(session.running().sizes.bytes));
    let wish = Wish { share: args.warn, within_s: args.warn_within.map(|within| within.as_secs_f64()) };
    let mut told = Told::new(&args, log, wish);
    let (interval, duration) = (args.interval, args.duration);
    let drive = Drive { interval, duration, interrupts: Some(interrupts), command: None, marking: None, asks: None, shows_time: false };
    let driven = drive.run(&mut session, &mut told).await;
    // What was read is told, whatever ended it.
    let drained = session.drain_oom();
    told.tell(&mut session, Duration::ZERO);
    told.loops(&session.loops());
    if !args.follow && told.kills == 0 {
        eprintln!("memtrail: no OOM kill");
    }
    let Told { mut failures, differing, .. } = told;
    let losses = session.losses();
    for error in [driven.error, drained.err().map(Into::into)].into_iter().flatten() {
        failures.note(Err(error));
    }
    failures.into_result()?;
    if differing > 0 {
        return Ok(status::FAILED);
    }
    Ok(if status::lost(&losses?) || driven.faults.count() > 0 { status::INCOMPLETE } else { 0 })
}

/// What was told so far.
struct Told<'a> {
    args: &'a OomArgs,
    wish: Wish,
    log: Option<Kmsg>,
    kept: Vec<Autopsy>,
    /// Kills and warnings.
    told: u64,
    kills: u64,
    /// Kills when it was last looked whether they repeat.
    looked: u64,
    differing: u64,
    /// What could not be told or written. The next kill is told of all the same.
    failures: Failures,
}

impl Task<Session> for Told<'_> {
    fn tick(&mut self, session: &mut Session) -> Result<()> {
        session.interval()?;
        for warning in session.warnings(self.wish)? {
            self.one(&warning);
        }
        // A kill that an interval took in is told with the next tick at the latest.
        self.tell(session, SETTLE);
        if self.kills != self.looked {
            self.loops(&session.loops());
        }
        Ok(())
    }

    fn kills(&mut self, session: &mut Session) -> Result<()> {
        self.tell(session, SETTLE);
        Ok(())
    }

    fn is_over(&self) -> bool {
        !self.args.follow && self.kills > 0
    }
}

impl<'a> Told<'a> {
    fn new(args: &'a OomArgs, log: Option<Kmsg>, wish: Wish) -> Told<'a> {
        Told { args, wish, log, kept: Vec::new(), told: 0, kills: 0, looked: 0, differing: 0, failures: Failures::default() }
    }

    /// Tells of kills that were not told of, if they are that old.
    fn tell(&mut self, session: &mut Session, age: Duration) {
        for autopsy in session.new_autopsies(age) {
            self.kills += 1;
            self.one(&autopsy);
        }
    }

    /// Tells of kills that repeat, and of the host's limits, after new kills.
    fn loops(&mut self, loops: &Loops) {
        if self.kills == self.looked {
            return;
        }
        self.looked = self.kills;
        // One kill after another is no news; that they repeat is.
        if !loops.verdicts.is_empty() {
            self.note(print(&format!("{}\n", output::autopsy::loops(loops))));
        }
    }

    fn one(&mut self, autopsy: &Autopsy) {
        self.told += 1;
        let mut text = output::autopsy::render(autopsy);
        if autopsy.event == "kill" {
            match self.agreement(autopsy) {
                Ok(agreement) => text.push_str(&agreement),
                Err(error) => self.note(Err(error)),
            }
        }
        text.push('\n');
        self.note(print(&text));
        let args = self.args;
        if let Some(dir) = &args.dir {
            self.note(keep_in(dir, autopsy, self.told, args.mode));
        }
        if self.kept.len() == MOST_KEPT {
            self.kept.remove(0);
        }
        self.kept.push(autopsy.clone());
        for file in &args.output {
            self.note(output::write_kills(file, &self.kept, args.mode).map_err(anyhow::Error::from));
        }
    }

    /// Says what failed, each the first time.
    fn note(&mut self, result: Result<()>) {
        if let Some(text) = self.failures.note(result) {
            eprintln!("memtrail: {text}; what else is written goes on");
        }
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
pub(super) fn keep_in(dir: &Path, autopsy: &Autopsy, number: u64, mode: Option<Mode>) -> Result<()> {
    let time = date::compact(&autopsy.time);
    let name = format!("{PREFIX}{time}-{}-{}-{number:06}.json", autopsy.event, std::process::id());
    let path = dir.join(&name);
    let content = json(autopsy);
    write_whole(&path, Access::of(mode, true), |writer| writer.write_all(content.as_bytes()))
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
            keep_in(dir.path(), &Autopsy { time, event: "kill".into(), ..Autopsy::default() }, second, None).unwrap();
        }
        let names: Vec<String> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(names.len(), MOST_FILES + 1);
        assert!(names.iter().any(|name| name == "other.json") && !names.iter().any(|name| name.contains("T020000Z")));
        assert!(names.iter().any(|name| name.contains("20260301T020229Z")), "{names:?}");

        // Large ones go by their size: only the newest fits then.
        std::fs::File::create(dir.path().join(format!("{PREFIX}20260301T030000Z-kill-1-1.json"))).unwrap().set_len(MOST_BYTES).unwrap();
        keep_in(dir.path(), &Autopsy { time: "2026-03-01T04:00:00Z".into(), event: "kill".into(), ..Autopsy::default() }, 1, None).unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert!(left.len() == 2 && left.iter().any(|name| name.contains("T040000Z")), "{left:?}");
    }
}
