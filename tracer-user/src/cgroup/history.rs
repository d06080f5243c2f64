//! A cgroup's last quarter of an hour: close readings of the last minute, sparse ones of the time before, so that what grew can be told
//! for 1, 5 and 15 minutes from a bounded number of points. Pure.

use super::StatReading;
use std::collections::{BTreeMap, VecDeque};

/// Kinds that are kept, in the order of [`Point::kinds`].
pub const KINDS: [&str; 5] = ["anon", "file", "shmem", "kernel", "swap"];
/// Least time between two close points, and how long they are kept, seconds.
const CLOSE: (f64, f64) = (0.9, 62.0);
/// The same of sparse ones.
const SPARSE: (f64, f64) = (15.0, 915.0);
/// How long a reading is kept, seconds.
pub const KEPT_S: f64 = 900.0;

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Point {
    /// Seconds since the start of the recording.
    pub at_s: f64,
    /// Usage, bytes; all ones if unknown.
    usage: u64,
    kinds: [u64; KINDS.len()],
    /// Page cache that is dirty or under writeback, bytes; all ones if unknown.
    unwritten: u64,
}

impl Point {
    /// A reading of usage and of what is said of each kind.
    #[must_use]
    pub fn new(at_s: f64, usage: Option<u64>, kind: impl Fn(&str) -> Option<u64>) -> Point {
        Point { at_s, usage: usage.unwrap_or(u64::MAX), kinds: KINDS.map(|name| kind(name).unwrap_or(u64::MAX)), unwritten: u64::MAX }
    }

    /// What a reading says of a cgroup with all below it.
    #[must_use]
    pub fn of(at_s: f64, reading: &StatReading) -> Point {
        let figures = &reading.subtree;
        let unwritten = figures.dirty.zip(figures.writeback).map(|(dirty, writeback)| dirty.saturating_add(writeback));
        Point::new(at_s, reading.usage, |kind| Some(figures.kinds.get(kind)?.bytes)).with_unwritten(unwritten)
    }

    /// A cgroup at the moment at which it was made.
    #[must_use]
    pub fn nothing(at_s: f64) -> Point {
        Point::new(at_s, Some(0), |_| Some(0)).with_unwritten(Some(0))
    }

    /// With so much page cache that is dirty or under writeback, bytes.
    #[must_use]
    pub fn with_unwritten(self, bytes: Option<u64>) -> Point {
        Point { unwritten: bytes.unwrap_or(u64::MAX), ..self }
    }

    /// Usage, bytes.
    #[must_use]
    pub fn usage(&self) -> Option<u64> {
        (self.usage != u64::MAX).then_some(self.usage)
    }

    /// Bytes of a kind.
    #[must_use]
    pub fn kind(&self, kind: &str) -> Option<u64> {
        let at = KINDS.iter().position(|known| *known == kind)?;
        Some(self.kinds[at]).filter(|bytes| *bytes != u64::MAX)
    }

    /// Known kinds.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<String, u64> {
        KINDS.iter().filter_map(|kind| Some(((*kind).to_owned(), self.kind(kind)?))).collect()
    }
}

/// Readings of one cgroup, at most about 130.
#[derive(Clone, Debug, Default)]
pub struct History {
    close: VecDeque<Point>,
    sparse: VecDeque<Point>,
}

impl History {
    /// Takes a reading in. Readings come in the order of time.
    pub fn push(&mut self, point: Point) {
        push(&mut self.close, point, CLOSE);
        push(&mut self.sparse, point, SPARSE);
    }

    /// The reading nearest to `window_s` before `at_s`, not later; the oldest one if the history is shorter. `None` without one before `at_s`.
    #[must_use]
    pub fn before(&self, at_s: f64, window_s: f64) -> Option<&Point> {
        let all = || self.points().filter(|point| point.at_s < at_s);
        all().filter(|point| point.at_s <= at_s - window_s).max_by(|a, b| a.at_s.total_cmp(&b.at_s)).or_else(|| all().next())
    }

    /// The least page cache that was dirty or under writeback in the last `most` readings between the two moments; `None` if there are fewer
    /// than `fewest`, or one does not know.
    #[must_use]
    pub fn least_unwritten(&self, (from_s, to_s): (f64, f64), (fewest, most): (usize, usize)) -> Option<u64> {
        let between = self.points().filter(|point| point.at_s >= from_s && point.at_s < to_s);
        let all: Vec<u64> = between.map(|point| point.unwritten).collect();
        let last = &all[all.len().saturating_sub(most)..];
        if last.len() < fewest || last.contains(&u64::MAX) { None } else { last.iter().copied().min() }
    }

    /// All readings, oldest first, each once.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        let close_from = self.close.front().map_or(f64::INFINITY, |point| point.at_s);
        self.sparse.iter().filter(move |point| point.at_s < close_from).chain(&self.close)
    }
}

fn push(points: &mut VecDeque<Point>, point: Point, (apart, kept): (f64, f64)) {
    if points.back().is_some_and(|last| point.at_s - last.at_s < apart) {
        return;
    }
    points.push_back(point);
    // One older than the window stays: it is what the window is compared with.
    while points.get(1).is_some_and(|next| point.at_s - next.at_s >= kept) {
        points.pop_front();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn point(at_s: f64) -> Point {
        Point::new(at_s, Some((at_s * 1000.0) as u64), |kind| (kind == "anon").then_some(at_s as u64))
    }

    #[test]
    fn an_hour_of_readings_is_bounded_and_still_has_its_windows() {
        let mut history = History::default();
        for tick in 0..18_000 {
            history.push(point(f64::from(tick) * 0.2));
        }
        let now = 3600.0;
        assert!(history.points().count() < 140, "{}", history.points().count());
        assert!(history.points().is_sorted_by(|a, b| a.at_s < b.at_s));
        for (window, error) in [(60.0, 1.5), (300.0, 16.0), (900.0, 16.0)] {
            let then = history.before(now, window).unwrap();
            assert!(then.at_s <= now - window && then.at_s > now - window - error, "{window}: {}", then.at_s);
        }
    }

    #[test]
    fn a_short_history_gives_its_first_reading() {
        let mut history = History::default();
        assert!(history.before(1.0, 60.0).is_none());
        history.push(point(1.0));
        assert!(history.before(1.0, 60.0).is_none(), "not before");
        history.push(point(2.0));
        assert_eq!(history.before(2.5, 60.0).unwrap().at_s, 1.0);
        assert_eq!(history.before(2.5, 0.1).unwrap().kind("anon"), Some(2));
    }

    #[test]
    fn what_lasts_is_told_from_enough_readings() {
        let mut history = History::default();
        for (second, unwritten) in [(1, Some(0)), (2, Some(90)), (3, Some(70)), (4, Some(80))] {
            history.push(point(f64::from(second)).with_unwritten(unwritten));
        }
        assert_eq!(history.least_unwritten((0.0, 4.5), (3, 3)), Some(70));
        assert_eq!(history.least_unwritten((0.0, 4.5), (3, 4)), Some(0), "the first is among them");
        assert_eq!(history.least_unwritten((2.5, 4.5), (3, 4)), None, "two readings");
        history.push(point(5.0));
        assert_eq!(history.least_unwritten((1.5, 5.5), (3, 4)), None, "one is unknown");
    }

    #[test]
    fn unknown_is_not_zero() {
        let point = Point::new(1.0, None, |_| None);
        assert_eq!((point.usage(), point.kind("anon"), point.kind("zswap")), (None, None, None));
        assert!(point.kinds().is_empty());
    }

    #[test]
    fn a_reading_gives_back_what_is_kept_of_it() {
        let figures = [("anon", 1), ("file", 2), ("shmem", 3), ("kernel", 4), ("swap", 5)].map(|(kind, bytes)| (kind.to_owned(), bytes));
        let mut with_others = BTreeMap::from(figures.clone());
        with_others.insert("zswap".to_owned(), 6);
        let point = Point::new(1.0, Some(7), |kind| with_others.get(kind).copied());
        assert_eq!((point.usage(), point.kind("shmem"), point.kind("zswap")), (Some(7), Some(3), None));
        assert_eq!(point.kinds(), BTreeMap::from(figures));
    }

    #[test]
    fn readings_are_thinned_by_their_distance_and_given_once_each() {
        let times = |ticks: &[f64]| {
            let mut history = History::default();
            ticks.iter().for_each(|at_s| history.push(point(*at_s)));
            history.points().map(|point| point.at_s).collect::<Vec<_>>()
        };
        assert_eq!(times(&[0.0]), [0.0]);
        assert_eq!(times(&[0.0, 0.5, 0.9, 1.7, 1.9]), [0.0, 0.9, 1.9], "close ones are 0.9 s apart");
        // A minute later, of the start only the sparse ones are left: each quarter of a minute from the first one on.
        let seconds: Vec<f64> = (0..=100).map(f64::from).collect();
        let kept = times(&seconds);
        assert_eq!(kept[..4], [0.0, 15.0, 30.0, 38.0], "from 62 s before the last on there are close ones");
        assert_eq!(kept[3..], seconds[38..]);
    }

    #[test]
    fn a_window_reaches_to_its_very_beginning() {
        let mut history = History::default();
        (0..=10).for_each(|second| history.push(point(f64::from(second))));
        assert_eq!(history.before(8.0, 5.0).unwrap().at_s, 3.0);
        assert_eq!(history.before(8.0, 4.5).unwrap().at_s, 3.0, "not later than the window");
        assert_eq!(history.before(8.0, 60.0).unwrap().at_s, 0.0);
    }

    #[test]
    fn what_lasts_is_looked_for_from_the_first_moment_to_before_the_last() {
        let mut history = History::default();
        for (second, unwritten) in [(1, 5), (2, 60), (3, 70), (4, 10), (5, 80)] {
            history.push(point(f64::from(second)).with_unwritten(Some(unwritten)));
        }
        assert_eq!(history.least_unwritten((2.0, 4.0), (2, 9)), Some(60), "2 s and 3 s are between");
        assert_eq!(history.least_unwritten((2.0, 4.0), (3, 9)), None, "4 s is not");
        assert_eq!(history.least_unwritten((2.0, 6.0), (1, 1)), Some(80), "the last one alone");
    }
}
