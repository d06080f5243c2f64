//! `memtrail top`: what fills which container, live in the terminal.

use super::{
    drive::{Drive, SETTLE, Task},
    interrupts::Interrupts,
    looks::Looks,
    moment::{self, Moment},
    screen::{Input, Screen},
    status::Conflict,
    tracing::TracingArgs,
    which::WhichArgs,
};
use crate::{
    host::privileges,
    kernel_half::sizes::Forced,
    output::{self, Value},
    report::Report,
    serve::{
        self,
        look::{self, Ask, Collector, Depth},
    },
    text::{date, units},
    top::{
        rows::Wanted,
        screens,
        state::{Action, Screen as Shown, State, View},
        theme::Theme,
    },
    trace::session::Session,
};
use anyhow::{Context as _, Result};
use clap::Args;
use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TopArgs {
    /// What to look at: a recording, a mark in it (FILE@MARK), or a memtrail that serves: http://HOST:PORT, or the path of its socket. Without
    /// it, the memtrail that serves on this host, or where none does, a trace of its own.
    #[arg(value_name = "FILE.mtrail|ADDRESS")]
    pub of: Option<PathBuf>,
    /// Print the first screen and end; so, too, where standard output is no terminal.
    #[arg(long)]
    pub once: bool,
    /// Pods and containers only, at first.
    #[arg(long)]
    pub pods: bool,
    /// Characters of ASCII only; so, too, where the locale is not UTF-8.
    #[arg(long)]
    pub ascii: bool,
    /// Which cgroups, where it traces itself.
    #[command(flatten)]
    pub which: WhichArgs,
    /// How to trace, where it traces itself.
    #[command(flatten)]
    pub tracing: TracingArgs,
    /// Time between two looks.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::parse_duration)]
    pub interval: Duration,
}

const EXAMPLES: &str = "\
Examples:
  memtrail top                            what fills which container, now
  memtrail top --pods                     pods and containers only
  memtrail top run.mtrail@loaded          the same screens of a recording
  memtrail top http://127.0.0.1:9774      of a memtrail that serves
  memtrail top --once | head              the first screen as text

Keys: arrows move, Enter looks at a container (kinds, stacks, files, regions), f shows a flame graph, o OOM kills, s sorts,
/ filters, z freezes, x writes what is shown into a file, ? tells all, q ends.

--cgroup, --pod, --container and how to trace are for a trace of its own. NO_COLOR is heeded. Exit status: 0 ended; 1 could not run or failed; 2 usage.";

/// Time between two looks into processes, which tell regions and more verdicts.
const WHOLE: Duration = Duration::from_secs(30);
/// The first of them comes when there is something to see.
const FIRST_WHOLE: Duration = Duration::from_secs(3);
/// Shortest and longest time between two looks.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What a look that failed is told by.
const NO_LOOK: &str = "no new look: ";
/// Between two looks at the keyboard.
const PACE: Duration = Duration::from_millis(100);
/// Size of a screen that is printed where there is no terminal.
const PRINTED: (u16, u16) = (120, 40);

/// Runs it.
pub fn run(args: TopArgs) -> Result<u8> {
    if args.interval < INTERVALS.0 || args.interval > INTERVALS.1 {
        return Err(Conflict("--interval: from 1s to 60s".to_owned()).into());
    }
    let theme = theme(&args);
    let wanted = Wanted { only_pods: args.pods, ..Wanted::default() };
    let is_once = args.once || !std::io::stdout().is_terminal();
    match &args.of {
        Some(of) if !moment::is_served(of) => {
            let report = Arc::new(Moment::read(of)?.report);
            let view = View { whole: Some(Arc::clone(&report)), ..view_of(report, &of.display().to_string(), Duration::ZERO) };
            if is_once {
                print(&view, wanted, theme)
            } else {
                watch(&mut Screen::take()?, Source::Still(view), wanted, theme, args.interval, over_at_a_signal()?.as_ref())
            }
        }
        Some(of) => ask(of, is_once, wanted, theme, args.interval),
        None if std::os::unix::net::UnixStream::connect(serve::SOCKET).is_ok() => {
            ask(Path::new(serve::SOCKET), is_once, wanted, theme, args.interval)
        }
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the collector")?;
            runtime.block_on(trace(args, is_once, wanted, theme))
        }
    }
    .map(|()| 0)
}

fn theme(args: &TopArgs) -> Theme {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_uppercase();
    let is_utf8 = locale.contains("UTF-8") || locale.contains("UTF8");
    Theme { color: set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb"), ascii: args.ascii || !is_utf8 }
}

/// A report as what screens show.
fn view_of(report: Arc<Report>, source: &str, interval: Duration) -> View {
    let kills = report.oom.iter().cloned().map(Arc::new).collect();
    View { report, whole: None, kills, source: source.to_owned(), interval_s: interval.as_secs_f64() }
}

/// The first screen as text.
fn print(view: &View, wanted: Wanted, theme: Theme) -> Result<()> {
    let lines = screens::draw(&State::new(wanted), view, Theme { color: false, ..theme }, PRINTED);
    let text: String = lines.iter().map(|line| line.to_string().trim_end().to_owned() + "\n").collect();
    match std::io::stdout().write_all(text.trim_end().as_bytes()).and_then(|()| std::io::stdout().write_all(b"\n")) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Looks at a memtrail that serves.
fn ask(of: &Path, is_once: bool, wanted: Wanted, theme: Theme, interval: Duration) -> Result<()> {
    let source = Source::Served(of.to_owned());
    // Before the terminal is taken: who cannot be asked is told in a line.
    let first = source.look(Depth::Glance)?;
    if is_once {
        return print(&view_of(first, &of.display().to_string(), interval), wanted, theme);
    }
    watch(&mut Screen::take()?, source, wanted, theme, interval, over_at_a_signal()?.as_ref())
}

/// Becomes true at a signal that ends: where nothing is traced, nothing else waits for one.
fn over_at_a_signal() -> Result<Arc<AtomicBool>> {
    let is_over = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot wait for signals")?;
    let mut interrupts = runtime.block_on(async { Interrupts::catch() })?;
    let at_signal = Arc::clone(&is_over);
    let wait = move || {
        runtime.block_on(interrupts.next());
        at_signal.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().name("memtrail-signal".to_owned()).spawn(wait).context("cannot start a thread")?;
    Ok(is_over)
}

/// Ends the trace when the screen's thread ends, however that comes.
struct Over {
    is_over: Arc<AtomicBool>,
    source: Source,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // The collector waits for its next reading or question: that is one.
        let _ = self.source.look(Depth::Glance);
    }
}

/// Where looks come from.
#[derive(Clone)]
enum Source {
    /// A memtrail that serves.
    Served(PathBuf),
    /// A trace of this process.
    Traced(Collector),
    /// A moment that does not change.
    Still(View),
}

impl Source {
    /// A look of now. It may take a while.
    fn look(&self, depth: Depth) -> Result<Arc<Report>> {
        match self {
            Source::Served(of) => Ok(Arc::new(moment::ask(of, if depth == Depth::Glance { "/report?look=glance" } else { "/report" })?)),
            Source::Traced(collector) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().context("cannot ask the collector")?;
                Ok(runtime.block_on(collector.look(depth, None))?.report)
            }
            Source::Still(view) => Ok(Arc::clone(&view.report)),
        }
    }

    fn name(&self) -> String {
        match self {
            Source::Served(of) => of.display().to_string(),
            Source::Traced(_) => "tracing".to_owned(),
            Source::Still(view) => view.source.clone(),
        }
    }
}

/// A thread that asks, so that keys are answered meanwhile.
struct Asking {
    depths: mpsc::Sender<Depth>,
    looks: mpsc::Receiver<(Depth, Result<Arc<Report>>)>,
    is_asked: bool,
}

impl Asking {
    fn of(source: Source) -> Result<Asking> {
        let (depths, asked) = mpsc::channel();
        let (sender, looks) = mpsc::channel();
        let work = move || {
            for depth in asked {
                if sender.send((depth, source.look(depth))).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("memtrail-ask".to_owned()).spawn(work).context("cannot start a thread")?;
        Ok(Asking { depths, looks, is_asked: false })
    }

    fn ask(&mut self, depth: Depth) {
        // A thread that is gone answers nothing, which is seen when its answers are taken.
        self.is_asked = self.depths.send(depth).is_ok();
    }
}

/// Shows screens until somebody ends it, or it is to end.
fn watch(screen: &mut Screen, source: Source, wanted: Wanted, theme: Theme, interval: Duration, is_over: &AtomicBool) -> Result<()> {
    let (name, mut interval) = (source.name(), interval);
    let mut state = State::new(wanted);
    let mut view = View { source: name.clone(), interval_s: interval.as_secs_f64(), ..View::default() };
    let is_still = matches!(source, Source::Still(_));
    if let Source::Still(still) = &source {
        view = still.clone();
    }
    let mut asking = Asking::of(source)?;
    let (mut next, mut next_whole) = (Instant::now(), Instant::now() + FIRST_WHOLE);
    let mut is_changed = true;
    while !is_over.load(Ordering::Relaxed) {
        if !is_still && !asking.is_asked && !state.is_frozen && Instant::now() >= next {
            let is_whole = Instant::now() >= next_whole;
            asking.ask(if is_whole { Depth::Whole } else { Depth::Glance });
            next = Instant::now() + interval;
            if is_whole {
                next_whole = Instant::now() + WHOLE;
            }
        }
        loop {
            let (depth, look) = match asking.looks.try_recv() {
                Ok(look) => look,
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => anyhow::bail!("the thread that asks has ended: this is a defect of memtrail"),
            };
            (asking.is_asked, is_changed) = (false, true);
            match look {
                // What was asked for before it was frozen.
                Ok(_) if state.is_frozen => {}
                Ok(report) => {
                    state.message = state.message.take().filter(|message| !message.starts_with(NO_LOOK));
                    let whole = if depth == Depth::Whole { Some(Arc::clone(&report)) } else { view.whole.take() };
                    view = View { whole, ..view_of(report, &name, interval) };
                }
                Err(error) => state.message = Some(format!("{NO_LOOK}{error:#}")),
            }
        }
        if is_changed {
            screen.show(screens::draw(&state, &view, theme, screen.size()))?;
            is_changed = false;
        }
        let Some(input) = screen.input(PACE)? else { continue };
        is_changed = true;
        let Input::Key(key) = input else {
            if matches!(input, Input::End) {
                break;
            }
            continue;
        };
        match state.key(key, &view) {
            Action::Draw => {}
            Action::Quit => break,
            Action::Look => next_whole = Instant::now(),
            Action::Faster => interval = (interval / 2).max(INTERVALS.0),
            Action::Slower => interval = (interval * 2).min(INTERVALS.1),
            Action::Export => state.message = Some(export(&state, &view).unwrap_or_else(|error| format!("not written: {error:#}"))),
        }
        view.interval_s = if is_still { 0.0 } else { interval.as_secs_f64() };
        if next_whole <= Instant::now() {
            next = Instant::now();
        }
    }
    Ok(())
}

/// Writes the stacks of what is shown into a file of this folder; which.
fn export(state: &State, view: &View) -> Result<String> {
    let id = match state.screen() {
        Shown::Container { id, .. } | Shown::Flame { id: Some(id), .. } => Some(id.clone()),
        _ => None,
    };
    let mut report = (*view.report).clone();
    report.cgroups.retain(|cgroup| id.as_ref().is_none_or(|id| cgroup.id == *id));
    let time = date::compact(&report.ended);
    let named = |number: u32| {
        PathBuf::from(if number == 0 { format!("memtrail-{time}.folded") } else { format!("memtrail-{time}-{number}.folded") })
    };
    let file = (0..1000).map(named).find(|file| !file.exists()).context("a thousand files of this moment are there already")?;
    output::write(&file, &report, output::WriteOptions { value: Value::Live, ..Default::default() })?;
    Ok(format!("written: {}", file.display()))
}

/// Traces, and looks at that.
async fn trace(args: TopArgs, is_once: bool, wanted: Wanted, theme: Theme) -> Result<()> {
    let interrupts = Interrupts::catch()?;
    let filter = args.which.filter();
    let mut session = Session::start(filter, args.tracing.names(), args.tracing.options(Forced::default()))?;
    privileges::keep_only_or_warn(&[privileges::COLLECTOR, privileges::OUTPUTS]);
    let (collector, asks) = look::channel();
    let is_over = Arc::new(AtomicBool::new(false));
    let source = Source::Traced(collector.clone());
    let (over, interval) = (Arc::clone(&is_over), args.interval);
    let shown = move || {
        // Root writes into a user's folder by this alone.
        privileges::keep_only_or_warn(&[privileges::OUTPUTS]);
        let _over = Over { is_over: Arc::clone(&over), source: source.clone() };
        if is_once {
            // So that there is more to see than what was there before.
            std::thread::sleep(FIRST_WHOLE);
            source.look(Depth::Whole).and_then(|report| print(&view_of(report, "tracing", interval), wanted, theme))
        } else {
            Screen::take().and_then(|mut screen| watch(&mut screen, source.clone(), wanted, theme, interval, &over))
        }
    };
    let showing = std::thread::Builder::new().name("memtrail-screen".to_owned()).spawn(shown).context("cannot start a thread")?;
    let mut looking = Looking { looks: Looks::default(), is_over: Arc::clone(&is_over) };
    let drive = Drive {
        interval: args.interval,
        duration: None,
        interrupts: Some(interrupts),
        command: None,
        marking: None,
        asks: Some(asks),
        shows_time: false,
    };
    let driven = drive.run(&mut session, &mut looking).await;
    is_over.store(true, Ordering::Relaxed);
    drop((session, collector, looking));
    let shown = tokio::task::spawn_blocking(|| showing.join()).await.context("the screen's thread")?;
    driven.error.map_or(Ok(()), Err)?;
    shown.unwrap_or_else(|_| Err(anyhow::anyhow!("the screen failed: this is a defect of memtrail")))
}

/// A trace that is looked at.
struct Looking {
    looks: Looks,
    is_over: Arc<AtomicBool>,
}

impl Task<Session> for Looking {
    fn tick(&mut self, session: &mut Session) -> Result<()> {
        session.interval()?;
        // They are in every look; asked for, they are sealed in time.
        drop(session.new_autopsies(SETTLE));
        Ok(())
    }

    fn look(&mut self, ask: Ask, session: &mut Session) {
        self.looks.answer(ask, session);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}
