//! `memtrail serve`: traces for as long as it runs, keeps the last hours on disk, and answers by HTTP.

use super::{
    drive::{Drive, SETTLE, Task},
    interrupts::Interrupts,
    looks::Looks,
    oom::keep_in,
    rotation::{Aside, Rotation},
    series::{Series, Wanted},
    status,
    tracing::TracingArgs,
    which::WhichArgs,
};
use crate::{
    host::privileges,
    kernel_half::sizes::Forced,
    output::metrics,
    report::{Report, autopsy::Autopsy},
    serve::{
        self, access,
        answer::Served,
        look::{self, Ask, Depth, Heart},
        notify::Notify,
        server::{self, Listeners},
        window::Window,
    },
    text::{self, date, units},
    trace::session::Session,
};
use anyhow::{Context as _, Result};
use clap::Args;
use std::{
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// Listen on this address. One that other hosts reach needs --token-file. May be given again.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9774")]
    pub listen: Vec<SocketAddr>,
    /// Listen on this socket, too, for programs of the same user.
    #[arg(long, value_name = "PATH", default_value = serve::SOCKET)]
    pub socket: PathBuf,
    /// Listen on no socket.
    #[arg(long, conflicts_with = "socket")]
    pub no_socket: bool,
    /// Answer by address only who shows what stands in this file (Authorization: Bearer TOKEN): one line of 16 characters or more, in a
    /// file that no other user can read. It is read again at SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Answer also who asks for this name or address, besides localhost and the addresses listened on. May be given again.
    #[arg(long, value_name = "HOST")]
    pub allow_host: Vec<String>,
    /// Keep recordings and autopsies in this directory; without it nothing is written.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Recordings older than this leave.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = units::parse_duration)]
    pub keep: Duration,
    /// So do the oldest of them beyond this size.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = units::parse_size)]
    pub keep_size: u64,
    /// Look into processes, and put a snapshot into the recording, this often.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = snapshot_time)]
    pub snapshot_every: Duration,
    /// Most series of metrics, about; containers beyond it are summed by namespace.
    #[arg(long, value_name = "N", default_value = "8192")]
    pub metrics_series: usize,
    /// Which cgroups.
    #[command(flatten)]
    pub which: WhichArgs,
    /// How to trace.
    #[command(flatten)]
    pub tracing: TracingArgs,
    /// Time between two readings of the kernel's figures.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::parse_duration)]
    pub interval: Duration,
    /// Stop after this long.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
}

const EXAMPLES: &str = "\
Examples:
  memtrail serve
      http://127.0.0.1:9774: a page for people, /metrics for Prometheus
  memtrail serve --dir /var/lib/memtrail --keep 48h
      with the last two days on disk
  memtrail serve --listen 0.0.0.0:9774 --token-file /etc/memtrail/token
      for other hosts, which show the token
  memtrail report http://127.0.0.1:9774
      what it knows now, as a report

What is answered:
  /                      a page for people
  /metrics               OpenMetrics, Prometheus' text, or protocol buffers with native histograms (docs/metrics.md)
  /debug/pprof/heap      what is live, for go tool pprof, Parca, Alloy: ?pod= ?container= ?cgroup= ?kind=
  /debug/pprof/allocs    what is charged in the next ?seconds=
  /profile               stacks: ?value=live|peak|charged|growth ?format=folded|svg|pprof|json|text ?from=-30m ?to=
  /oom  /oom/ID          OOM kills: ?format=json|text|svg|html
  /report  /doctor  /healthz

Nothing can be changed by HTTP. Stacks and paths are told to whoever may ask: on loopback every user of this host.

Signals: SIGINT and SIGTERM end it; SIGHUP reads the token again.

Exit status: 0 ended by a signal or --duration; 1 could not run or failed; 2 usage; 3 something was lost.";

/// Shortest time between two looks into processes: they cost what a report costs.
const LEAST_SNAPSHOT: Duration = Duration::from_secs(10);

fn snapshot_time(text: &str) -> Result<Duration, String> {
    let time = units::parse_duration(text).map_err(|error| error.to_string())?;
    if time < LEAST_SNAPSHOT { Err("a look into processes costs what a report does: 10s at least".to_owned()) } else { Ok(time) }
}

/// Runs it.
pub fn run(args: ServeArgs) -> Result<u8> {
    let listeners = listeners(&args)?;
    let window = match &args.dir {
        Some(dir) => Some(Window::prepare(dir, args.keep, args.keep_size).with_context(|| format!("--dir {}", dir.display()))?),
        None => None,
    };
    let notify = Notify::from_environment().context("NOTIFY_SOCKET")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the collector")?;
    let socket = Socket { path: listeners.unix.as_ref().map(|_| args.socket.clone()) };
    let status = runtime.block_on(trace(args, listeners, window, notify));
    drop(socket);
    status
}

/// The socket's file, removed at the end.
struct Socket {
    path: Option<PathBuf>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // One that stays is taken for a dead memtrail's by the next one.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Listens on everything that is to be listened on, before anything is traced.
fn listeners(args: &ServeArgs) -> Result<Listeners> {
    let token = args.token_file.as_deref().map(|file| access::read_token(file).map(|token| (file.to_owned(), token)));
    let token = token.transpose().map_err(|error| status::Conflict(format!("--token-file {error}")))?;
    if let Some(open) = args.listen.iter().find(|address| !access::is_loopback(address.ip()) && token.is_none()) {
        let text =
            format!("--listen {open}: other hosts would see every stack and path of this one: give a --token-file, or listen on 127.0.0.1");
        return Err(status::Conflict(text).into());
    }
    let mut listeners = Listeners { token, ..Listeners::default() };
    for address in &args.listen {
        listeners.tcp.push(server::bind(*address).with_context(|| format!("--listen {address}"))?);
        listeners.hosts.push(match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        });
    }
    listeners.hosts.extend(args.allow_host.iter().cloned());
    if !args.no_socket {
        listeners.unix = Some(listen_at(&args.socket).with_context(|| format!("--socket {}", args.socket.display()))?);
    }
    Ok(listeners)
}

/// Listens on a socket in a folder of this user's, which is made if it is not there. One that a dead memtrail left is replaced.
fn listen_at(path: &Path) -> Result<UnixListener> {
    super::mark_socket::prepare(crate::host::write::directory_of(path))?;
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => anyhow::bail!("another memtrail serves there"),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            use std::os::unix::fs::FileTypeExt as _;
            // A file that is none refuses, too.
            anyhow::ensure!(std::fs::symlink_metadata(path)?.file_type().is_socket(), "there is a file of that name, which is no socket");
            std::fs::remove_file(path)?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn trace(args: ServeArgs, listeners: Listeners, window: Option<Window>, notify: Notify) -> Result<u8> {
    let interrupts = Interrupts::catch()?;
    // Where there is a token, a hangup asks for it to be read again; elsewhere a terminal has closed.
    let interrupts = if args.token_file.is_some() { interrupts.without_hangup() } else { interrupts };
    let filter = args.which.filter();
    let mut session = Session::start(filter, args.tracing.names(), args.tracing.options(Forced::default()))?;
    // It reads for months, and most containers do nothing most of the time.
    session.skim();
    let outputs: Vec<PathBuf> = window.iter().map(Window::newest).collect();
    let (rotate_every, rotate_size) = window.as_ref().map(Window::part).unzip();
    if let Some(newest) = outputs.first().filter(|newest| newest.exists()) {
        // What an earlier memtrail wrote last goes on as a part.
        Aside::default().put(newest)?;
    }
    // The window says which parts leave.
    let rotation = Rotation { rotate_size, rotate_every, rotate_keep: u32::MAX };
    let series = Series::begin(&mut session, Wanted { outputs: &outputs, stream: None, rotation, mode: None })?;
    let (collector, asks) = look::channel();
    // As they are: port 0 is any that is free.
    let places: Vec<String> = listeners.tcp.iter().filter_map(|listener| Some(format!("http://{}", listener.local_addr().ok()?))).collect();
    let heart = Arc::new(Heart::default());
    let served = Served {
        collector,
        heart: Arc::clone(&heart),
        longest_pause: LONGEST_PAUSE + 3 * args.interval,
        window: window.clone(),
        metrics: metrics::Options { series: args.metrics_series },
        requests: std::sync::Mutex::default(),
        told: std::sync::Mutex::default(),
        window_turn: tokio::sync::Semaphore::new(1),
    };
    let answering = server::start(listeners, Arc::new(served)).context("cannot start the thread that answers")?;
    let outputs = if args.dir.is_some() { privileges::OUTPUTS } else { &[] };
    privileges::keep_only_or_warn(&[privileges::COLLECTOR, outputs]);
    eprintln!("memtrail: serving {} until Ctrl-C ({} of tables)", places.join(" "), units::bytes(session.running().sizes.bytes));
    notify.say("READY=1");
    let mut serving = Serving::new(&args, series, window, notify, heart, answering);
    let (interval, duration) = (args.interval, args.duration);
    let drive =
        Drive { interval, duration, interrupts: Some(interrupts), command: None, marking: None, asks: Some(asks), shows_time: false };
    let driven = drive.run(&mut session, &mut serving).await;
    serving.notify.say("STOPPING=1");
    let report = session.glance();
    serving.series.end(&mut session);
    let losses = session.losses();
    drop(session);
    // A look into processes that is on disk says more.
    let mut failures = serving.series.finish(report.as_ref().ok(), true);
    if serving.answering.is_finished() {
        failures.note(Err(anyhow::anyhow!("the thread that answers has ended: this is a defect of memtrail")));
    }
    for error in driven.error.into_iter().chain(report.err().map(Into::into)) {
        failures.note(Err(error));
    }
    failures.into_result()?;
    Ok(if status::lost(&losses?) || driven.faults.count() > 0 { status::INCOMPLETE } else { 0 })
}

/// A trace that is served.
struct Serving<'a> {
    args: &'a ServeArgs,
    series: Series,
    window: Option<Window>,
    notify: Notify,
    heart: Arc<Heart>,
    looks: Looks,
    /// Kills so far.
    kills: u64,
    /// The thread that answers.
    answering: std::thread::JoinHandle<()>,
    /// When the window is looked through next.
    next_tidy: Instant,
    /// When the next snapshot is due.
    next_snapshot: Instant,
    /// What could not be done, each told the first time.
    failures: super::failures::Failures,
}

/// A reading that is later by this is told as a fault: a look into processes may hold one up.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Between two looks that kills are the reason for.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at the parts of the window.
const TIDY: Duration = Duration::from_secs(30);
/// The first look into processes comes soon, so that there are verdicts.
const FIRST_SNAPSHOT: Duration = Duration::from_secs(15);

impl<'a> Serving<'a> {
    fn new(
        args: &'a ServeArgs,
        series: Series,
        window: Option<Window>,
        notify: Notify,
        heart: Arc<Heart>,
        answering: std::thread::JoinHandle<()>,
    ) -> Serving<'a> {
        Serving {
            args,
            series,
            window,
            notify,
            heart,
            looks: Looks::default(),
            kills: 0,
            answering,
            next_tidy: Instant::now(),
            next_snapshot: Instant::now() + FIRST_SNAPSHOT.min(args.snapshot_every),
            failures: super::failures::Failures::default(),
        }
    }

    /// A report that tells whose the victims' cgroups are: the last one, or where that knows one of them not, one of now. In a storm of kills
    /// not more than one in [`LEAST_PAUSE`].
    fn report_with(&mut self, autopsies: &[Autopsy], session: &mut Session) -> Option<Arc<Report>> {
        let last = self.looks.last().cloned();
        let knows = |report: &Report| {
            let mut victims = autopsies.iter().flat_map(|autopsy| &autopsy.victims).filter_map(|victim| victim.cgroup.as_deref());
            victims.all(|path| report.cgroups.iter().any(|cgroup| cgroup.path == path))
        };
        if let Some((report, _)) = last.filter(|(report, at)| knows(report) || at.elapsed() < LEAST_PAUSE) {
            return Some(report);
        }
        match self.looks.take(Depth::Glance, session) {
            Ok((report, _)) => Some(report),
            Err(error) => {
                self.note(Err(error));
                None
            }
        }
    }

    fn tell_kills(&mut self, session: &mut Session) {
        let autopsies = session.new_autopsies(SETTLE);
        if autopsies.is_empty() {
            return;
        }
        let report = self.report_with(&autopsies, session);
        for autopsy in autopsies {
            self.kills += 1;
            eprintln!("memtrail: OOM kill: {}", text::escape(autopsy.verdict.as_deref().unwrap_or("a process was killed")));
            if let Some(dir) = &self.args.dir {
                let kept = keep_in(dir, &autopsy, self.kills, None);
                self.note(kept);
            }
            Arc::make_mut(&mut self.looks.killed).add(autopsy, report.as_deref());
        }
    }

    /// Looks into processes, and puts that into the recording.
    fn snapshot(&mut self, session: &mut Session) -> Result<()> {
        self.next_snapshot = Instant::now() + self.args.snapshot_every;
        let (report, _) = self.looks.take(Depth::Whole, session)?;
        if self.window.is_some() {
            self.series.mark_as(&format!("at {}", date::rfc3339(SystemTime::now())), Some(&report), session);
        }
        Ok(())
    }

    /// Lets recordings leave that are too old or too many.
    fn tidy(&mut self) -> Result<()> {
        self.next_tidy = Instant::now() + TIDY;
        for gone in self.window.iter().map(|window| window.tidy(SystemTime::now())) {
            for gone in gone.context("old recordings cannot be removed")? {
                log::info!("{}: removed, since it is older than --keep, or beyond --keep-size", gone.display());
            }
        }
        Ok(())
    }

    fn note(&mut self, result: Result<()>) {
        if let Some(text) = self.failures.note(result) {
            eprintln!("memtrail: {text}; what else is done goes on");
        }
    }
}

impl Task<Session> for Serving<'_> {
    fn tick(&mut self, session: &mut Session) -> Result<()> {
        self.series.interval(session)?;
        self.tell_kills(session);
        if Instant::now() >= self.next_snapshot {
            let snapshot = self.snapshot(session);
            self.note(snapshot);
        }
        if Instant::now() >= self.next_tidy {
            let tidied = self.tidy();
            self.note(tidied);
        }
        self.heart.beat();
        self.notify.say("WATCHDOG=1");
        Ok(())
    }

    fn kills(&mut self, session: &mut Session) -> Result<()> {
        self.tell_kills(session);
        Ok(())
    }

    fn is_over(&self) -> bool {
        // Nobody would notice a trace that answers nothing.
        self.answering.is_finished()
    }

    fn look(&mut self, ask: Ask, session: &mut Session) {
        self.looks.answer(ask, session);
    }
}
