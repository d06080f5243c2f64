//! The distributions of the kernel half, added up: totals since the start, and what came since the last interval.
//!
//! Counters in the kernel only grow, so a reading gives what was added since the one before. Whatever is asked for is a sum of such
//! differences: intervals add up to the total exactly.

use crate::{
    cgroup::registry::REMOVED,
    kernel_half::{
        BpfError, KernelHalf,
        tables::{
            self,
            waits::{self, WAITS},
        },
    },
    report::{
        HistogramRow,
        distribution::{Distribution, Increment},
    },
};
use std::collections::{BTreeMap, HashMap, HashSet};
use tracer_common::histogram::{HistogramKey, Metric, WAITERS};

/// Distributions kept of cgroups that are gone; beyond these, those of the oldest ids are dropped and counted.
const MOST: usize = 1 << 16;

type Sums = BTreeMap<(u64, Metric), Distribution>;

/// All distributions.
#[derive(Debug, Default)]
pub struct Histograms {
    /// The kernel's counters when they were last read.
    seen: HashMap<HistogramKey, u64>,
    /// The same at the last retirement: a counter that stands as it stood then is idle.
    settled: HashMap<HistogramKey, u64>,
    totals: Sums,
    /// What came since [`Histograms::take`].
    fresh: Sums,
    fresh_since_s: f64,
    forgotten: u64,
    /// Threads in each of [`WAITS`].
    waiting: [usize; WAITS.len()],
}

impl Histograms {
    /// Reads the kernel's counters.
    pub fn read(&mut self, bpf: &KernelHalf) -> Result<(), BpfError> {
        self.learn(tables::histograms(bpf)?);
        Ok(())
    }

    /// Counts who waits now.
    pub fn read_waits(&mut self, bpf: &KernelHalf) -> Result<(), BpfError> {
        self.waiting = waits::waiting(bpf)?;
        Ok(())
    }

    /// The tables of who waits: name, threads in it when they were last counted, and room.
    pub fn waits(&self) -> impl Iterator<Item = (&'static str, usize, u32)> {
        WAITS.into_iter().zip(self.waiting).map(|(name, threads)| (name, threads, WAITERS))
    }

    /// Takes in a reading of the counters.
    pub fn learn(&mut self, table: impl IntoIterator<Item = (HistogramKey, u64)>) {
        for (key, count) in table {
            let Some(metric) = Metric::from_number(key.metric) else { continue };
            let before = self.seen.insert(key, count).unwrap_or(0);
            let (value, added) = (metric.value(key.bucket), count.saturating_sub(before));
            if added > 0 {
                for sums in [&mut self.totals, &mut self.fresh] {
                    sums.entry((key.owner, metric)).or_default().add(value, added);
                }
            }
        }
    }

    /// What came since the last call, as of the last reading.
    pub fn take(&mut self, now_s: f64) -> Increment {
        let mut increment = Increment { from_s: self.fresh_since_s, to_s: now_s, ..Increment::default() };
        self.fresh_since_s = now_s;
        for ((owner, metric), distribution) in std::mem::take(&mut self.fresh) {
            increment.cgroups.entry(owner).or_default().insert(metric.name(), distribution);
        }
        increment
    }

    /// The distributions of a cgroup since the start, by name.
    pub fn of(&self, owner: u64) -> BTreeMap<String, HistogramRow> {
        let own = self.totals.range((owner, Metric::ALL[0])..=(owner, Metric::ALL[Metric::ALL.len() - 1]));
        own.filter_map(|((_, metric), distribution)| Some((metric.name().to_owned(), distribution.row()?))).collect()
    }

    /// Makes room: in the kernel, the counters of cgroups in which nothing can happen any more (`is_over`), and of all cgroups those that
    /// have been idle since the last time, if the table's `room` is half taken. Their sums stay here, but for those of cgroups that are gone
    /// (`is_gone`), if there are too many.
    pub fn retire(
        &mut self,
        bpf: &mut KernelHalf,
        room: u32,
        is_over: impl Fn(u64) -> bool,
        is_gone: impl Fn(u64) -> bool,
    ) -> Result<(), BpfError> {
        self.read(bpf)?;
        let leaving = self.leaving(room, is_over);
        // Read again at the removal: something may have come since.
        self.part_with(tables::take_histograms(bpf, &leaving)?);
        self.forget(is_gone);
        Ok(())
    }

    fn leaving(&self, room: u32, is_over: impl Fn(u64) -> bool) -> Vec<HistogramKey> {
        let crowded = self.seen.len() > room as usize / 2;
        let is_idle = |key: &HistogramKey, count: &u64| crowded && self.settled.get(key) == Some(count);
        self.seen.iter().filter(|(key, count)| is_over(key.owner) || is_idle(key, count)).map(|(key, _)| *key).collect()
    }

    /// Counters have left the kernel's table, with these last values. One that comes again begins anew; one that was to leave and stayed goes on.
    fn part_with(&mut self, left: Vec<(HistogramKey, Option<u64>)>) {
        for (key, last) in left {
            self.learn(last.map(|count| (key, count)));
            self.seen.remove(&key);
        }
        self.settled.clone_from(&self.seen);
    }

    /// Drops the oldest sums of cgroups that are gone, where there are too many.
    fn forget(&mut self, is_gone: impl Fn(u64) -> bool) {
        let oldest = |sums: &Sums| -> Vec<(u64, Metric)> {
            let surplus = sums.len().saturating_sub(MOST);
            sums.keys().copied().filter(|(owner, _)| is_gone(*owner)).take(surplus).collect()
        };
        for key in oldest(&self.totals) {
            self.totals.remove(&key);
            self.forgotten += 1;
        }
        // As many only if nobody asks for them.
        for key in oldest(&self.fresh) {
            self.fresh.remove(&key);
        }
    }

    /// Adds up the distributions of these owners, whoever they were; only those of `wanted` ones. Their counters have left the kernel's table.
    pub fn fold(&mut self, owners: &HashSet<u64>, wanted: impl Fn(u64) -> bool) {
        for sums in [&mut self.totals, &mut self.fresh] {
            let leaving: Vec<(u64, Metric)> = sums.keys().copied().filter(|(owner, _)| owners.contains(owner)).collect();
            for key in leaving {
                if let Some(distribution) = sums.remove(&key).filter(|_| wanted(key.0)) {
                    sums.entry((REMOVED.0, key.1)).or_default().merge(&distribution);
                }
            }
        }
    }

    /// Cgroups that have distributions.
    pub fn owners(&self) -> impl Iterator<Item = u64> {
        self.totals.keys().map(|(owner, _)| *owner)
    }

    /// Counters in the kernel's table when it was last read.
    pub fn counters(&self) -> usize {
        self.seen.len()
    }

    /// Distributions that were dropped.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::histogram::bucket;

    fn entry(owner: u64, metric: Metric, value: u64, count: u64) -> (HistogramKey, u64) {
        (HistogramKey { owner, metric: metric as u32, bucket: bucket(value) }, count)
    }

    /// A counter that leaves, with its last value.
    fn last((key, count): (HistogramKey, u64)) -> (HistogramKey, Option<u64>) {
        (key, Some(count))
    }

    #[test]
    fn what_came_at_the_removal_counts_and_a_counter_that_could_not_be_removed_counts_once() {
        let mut histograms = Histograms::default();
        let [left, gone, stayed] = [1, 2, 3].map(|owner| entry(owner, Metric::ReclaimNs, 7, 4));
        histograms.learn([left, gone, stayed]);
        // The second was gone already; the third was to leave, and its table was busy.
        histograms.part_with(vec![(left.0, Some(6)), (gone.0, None)]);
        // The first two begin anew, the third goes on.
        histograms.learn([(left.0, 1), (gone.0, 1), (stayed.0, 5)]);
        let counts = [1, 2, 3].map(|owner| histograms.of(owner)["memcg_reclaim_ns"].count);
        assert_eq!(counts, [6 + 1, 4 + 1, 5]);
    }

    #[test]
    fn intervals_are_what_was_added_and_add_up_to_the_total() {
        let mut histograms = Histograms::default();
        let readings = [
            vec![entry(1, Metric::ReclaimNs, 500, 2)],
            vec![entry(1, Metric::ReclaimNs, 500, 2)],
            vec![entry(1, Metric::ReclaimNs, 500, 5), entry(1, Metric::LifetimeNs, 7, 1), entry(2, Metric::ReclaimNs, 9000, 1)],
        ];
        let mut sums: BTreeMap<(u64, &str), u64> = BTreeMap::new();
        for (at, reading) in readings.into_iter().enumerate() {
            histograms.learn(reading);
            let taken = histograms.take(at as f64);
            assert_eq!(taken.cgroups.is_empty(), at == 1, "{at}");
            for (owner, metrics) in &taken.cgroups {
                for (metric, distribution) in metrics {
                    *sums.entry((*owner, *metric)).or_default() += distribution.count();
                }
            }
        }
        assert_eq!(sums, BTreeMap::from([((1, "memcg_reclaim_ns"), 5), ((1, "lifetime_ns"), 1), ((2, "memcg_reclaim_ns"), 1)]));
        for ((owner, metric), count) in sums {
            assert_eq!(histograms.of(owner)[metric].count, count);
        }
    }

    #[test]
    fn idle_counters_leave_a_crowded_table_and_count_on_when_they_come_again() {
        let mut histograms = Histograms::default();
        histograms.learn([entry(1, Metric::ReclaimNs, 1, 4), entry(1, Metric::ReclaimNs, 2, 1), entry(9, Metric::ReclaimNs, 3, 1)]);
        // Nothing is idle before the second look; who is over leaves at once.
        let leaving = histograms.leaving(4, |owner| owner == 9);
        assert_eq!(leaving.iter().map(|key| key.owner).collect::<Vec<_>>(), [9]);
        histograms.part_with(vec![entry(9, Metric::ReclaimNs, 3, 1)].into_iter().map(last).collect());
        histograms.learn([entry(1, Metric::ReclaimNs, 2, 2)]);
        assert!(histograms.leaving(100, |_| false).is_empty(), "there is room");
        let leaving = histograms.leaving(2, |_| false);
        assert_eq!(leaving, [entry(1, Metric::ReclaimNs, 1, 0).0]);
        histograms.part_with(vec![last(entry(1, Metric::ReclaimNs, 1, 4))]);
        // The kernel counts from nothing again.
        histograms.learn([entry(1, Metric::ReclaimNs, 1, 1)]);
        assert_eq!(histograms.of(1)["memcg_reclaim_ns"].count, 4 + 2 + 1);
    }

    #[test]
    fn distributions_of_removed_cgroups_add_up_in_one() {
        let mut histograms = Histograms::default();
        histograms.learn((1..=4).map(|owner| entry(owner, Metric::ReclaimNs, 7, owner)));
        histograms.fold(&HashSet::from([1, 2, 3]), |owner| owner != 3);
        let count = |owner: u64| histograms.of(owner).get("memcg_reclaim_ns").map(|row| row.count);
        assert_eq!((count(REMOVED.0), count(1), count(3), count(4)), (Some(3), None, None, Some(4)));
    }

    #[test]
    fn what_has_no_name_here_is_left_out() {
        let mut histograms = Histograms::default();
        histograms.learn([(HistogramKey { owner: 1, metric: 4711, bucket: 0 }, 1)]);
        assert!(histograms.take(1.0).cgroups.is_empty());
    }

    #[test]
    fn only_sums_of_the_gone_are_forgotten() {
        let mut histograms = Histograms::default();
        histograms.learn((0..MOST as u64 + 3).map(|owner| entry(owner, Metric::ReclaimNs, 1, 1)));
        histograms.forget(|owner| owner % 2 == 1);
        assert_eq!((histograms.forgotten(), histograms.totals.len()), (3, MOST));
        assert!(histograms.of(1).is_empty() && !histograms.of(2).is_empty());
    }
}
