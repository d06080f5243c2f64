//! Looks at the trace: how the HTTP side asks the collector for one, and what it gets.

use super::kills::Killed;
use crate::report::Report;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// Longest that is waited for the collector.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most questions that wait for it.
const MOST_WAITING: usize = 128;

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Tables and the kernel's figures: what is there at once.
    Glance,
    /// Also into processes, and names are waited for.
    Whole,
}

impl Depth {
    /// A look of this age is as good as a new one: however many ask, no more are taken.
    #[must_use]
    pub fn fresh(self) -> Duration {
        match self {
            Depth::Glance => Duration::from_millis(900),
            Depth::Whole => Duration::from_secs(5),
        }
    }
}

/// The trace at a moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// What it was.
    pub report: Arc<Report>,
    /// When.
    pub at: Instant,
    /// Kills so far.
    pub killed: Arc<Killed>,
    /// The last look into processes, which may be this one; what only such a look tells is from it.
    pub whole: Option<(Arc<Report>, Instant)>,
    /// CPU time of the process so far.
    pub cpu: Duration,
}

/// When the collector took its last reading: whether it lives.
#[derive(Debug)]
pub struct Heart {
    began: Instant,
    /// Milliseconds from the beginning to the last beat.
    last_ms: AtomicU64,
}

impl Default for Heart {
    fn default() -> Heart {
        Heart { began: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Heart {
    /// A reading was taken.
    pub fn beat(&self) {
        self.last_ms.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long ago that was.
    #[must_use]
    pub fn since(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// Somebody wants a look.
#[derive(Debug)]
pub struct Ask {
    /// How deep.
    pub depth: Depth,
    /// One that was taken before does not do.
    pub not_before: Instant,
    answer: oneshot::Sender<Result<Look, String>>,
}

impl Ask {
    /// Gives it, or says why there is none.
    pub fn answer(self, look: Result<Look, String>) {
        // Who went away needs no answer.
        let _ = self.answer.send(look);
    }
}

/// Why there is no look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLook {
    /// Too many ask.
    #[error("too many questions at once")]
    Busy,
    /// The collector is gone, or does not come to it.
    #[error("the collector does not answer")]
    Gone,
    /// It could not look.
    #[error("{0}")]
    Failed(String),
}

/// The HTTP side's way to the collector.
#[derive(Clone, Debug)]
pub struct Collector {
    asks: mpsc::Sender<Ask>,
}

/// A way to a collector, and the collector's end of it.
#[must_use]
pub fn channel() -> (Collector, mpsc::Receiver<Ask>) {
    let (asks, asked) = mpsc::channel(MOST_WAITING);
    (Collector { asks }, asked)
}

impl Collector {
    /// A look that is not older than that, or one of now or as good as that.
    ///
    /// # Errors
    /// When too many ask, or the collector cannot look.
    pub async fn look(&self, depth: Depth, not_before: Option<Instant>) -> Result<Look, NoLook> {
        let (answer, answered) = oneshot::channel();
        let now = Instant::now();
        let not_before = not_before.unwrap_or_else(|| now.checked_sub(depth.fresh()).unwrap_or(now));
        self.asks.try_send(Ask { depth, not_before, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NoLook::Busy,
            mpsc::error::TrySendError::Closed(_) => NoLook::Gone,
        })?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(look)) => look.map_err(NoLook::Failed),
            Ok(Err(_)) | Err(_) => Err(NoLook::Gone),
        }
    }
}
