//! How long whoever asks for names waits for files to be read. Pure.
//!
//! The collector has other things to do than to wait: pictures of OOM kills are read by it, and there are few of them. So a batch of stacks is
//! waited for only a moment, and all batches together only a fraction of the time; a report, which is rare and is asked for by somebody, longer.

use std::time::{Duration, Instant};

/// Longest wait of one report.
const REPORT: Duration = Duration::from_secs(5);
/// Longest wait of one batch.
const BATCH: Duration = Duration::from_millis(500);
/// Of the time, all batches together wait for at most one part in this many.
const PART: u32 = 5;

/// Who asks for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Somebody for whom they must be there: as long as it takes.
    ForAll,
    /// A report: five seconds in all.
    Report,
    /// Stacks that leave the tables, or those of an OOM kill: half a second in all, and a fifth of the time in the long run.
    Batch,
}

/// What is left of it.
#[derive(Debug)]
pub struct Patience {
    /// For who asks now; `None` is without end.
    left: Option<Duration>,
    /// For batches, and since when that has not grown.
    allowance: (Duration, Instant),
}

impl Patience {
    /// One without end, and an allowance for a batch.
    pub fn new(now: Instant) -> Patience {
        Patience { left: None, allowance: (BATCH, now) }
    }

    /// Somebody asks.
    pub fn begin(&mut self, waiting: Waiting, now: Instant) {
        let (left, since) = self.allowance;
        self.allowance = ((left + now.saturating_duration_since(since) / PART).min(BATCH), now);
        self.left = match waiting {
            Waiting::ForAll => None,
            Waiting::Report => Some(REPORT),
            Waiting::Batch => Some(self.allowance.0),
        };
    }

    /// The longest that may be waited; `None` is without end.
    pub fn left(&self) -> Option<Duration> {
        self.left
    }

    /// That long was waited.
    pub fn spend(&mut self, waited: Duration) {
        self.left = self.left.map(|left| left.saturating_sub(waited));
        self.allowance.0 = self.allowance.0.saturating_sub(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_for_a_moment_and_all_of_them_for_a_fifth_of_the_time() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        let mut waited = Duration::ZERO;
        for ms in 0..10_000 {
            patience.begin(Waiting::Batch, start + Duration::from_millis(ms));
            let left = patience.left().unwrap();
            assert!(left <= BATCH);
            patience.spend(left);
            waited += left;
        }
        assert!(waited <= BATCH + Duration::from_secs(10) / PART, "{waited:?}");
        assert!(waited >= Duration::from_secs(10) / PART, "{waited:?}");
    }

    #[test]
    fn a_report_has_its_own_patience_and_uses_up_that_of_batches() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        assert_eq!(patience.left(), None);
        patience.begin(Waiting::Report, start);
        patience.spend(Duration::from_secs(4));
        assert_eq!(patience.left(), Some(REPORT - Duration::from_secs(4)));
        patience.spend(Duration::from_secs(4));
        assert_eq!(patience.left(), Some(Duration::ZERO));
        patience.begin(Waiting::Batch, start);
        assert_eq!(patience.left(), Some(Duration::ZERO));
        patience.begin(Waiting::Batch, start + Duration::from_secs(3600));
        assert_eq!(patience.left(), Some(BATCH));
    }
}
