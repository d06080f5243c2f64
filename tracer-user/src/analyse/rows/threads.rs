//! Live bytes by thread: each live sample knows the thread that touched it. Pure.
//!
//! Keys do not know threads, so what was charged and freed again has none. Bounded: a row keeps its largest threads, a report a number of
//! them; the rest is summed and never dropped.

use crate::{analyse::accounts, region::Class, report::ThreadRow};
use std::collections::HashMap;
use tracer_common::attribution::Sample;

/// Most threads of a stack row.
const MOST_OF_A_STACK: usize = 32;
/// Most threads of a report.
pub(super) const MOST_ROWS: usize = 1 << 16;

/// What the live samples of one thread stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    bytes: u64,
    /// Frames squared.
    variance: u64,
}

/// By thread id.
pub(super) type Parts = HashMap<u32, Part>;

/// Live bytes of each key by thread, apart for each class of region. `class` tells that of the sample in a slot.
pub(super) fn by_key<'a>(
    samples: impl Iterator<Item = (&'a u64, &'a Sample)>,
    class: impl Fn(u64) -> Class,
) -> HashMap<(u64, Class), Parts> {
    let mut keys: HashMap<(u64, Class), Parts> = HashMap::new();
    for (slot, sample) in samples.filter(|(_, sample)| sample.key != 0) {
        let (bytes, variance) = accounts::left(sample);
        let part = Part { bytes, variance };
        add(keys.entry((sample.key, class(*slot))).or_default(), sample.tid, part);
    }
    keys
}

/// Adds one key's threads to those of its row.
pub(super) fn merge(into: &mut Parts, parts: Parts) {
    for (tid, part) in parts {
        add(into, tid, part);
    }
}

fn add(parts: &mut Parts, tid: u32, part: Part) {
    let sum = parts.entry(tid).or_default();
    sum.bytes = sum.bytes.saturating_add(part.bytes);
    sum.variance = sum.variance.saturating_add(part.variance);
}

/// The threads of a row whose keys say that `live` bytes are live. Samples are read after the keys: what was charged or freed in between is
/// settled in favour of the keys, so that the threads add up to the row. `room` is what the report still has.
pub(super) fn rows(parts: &Parts, live: u64, room: &mut usize, name: impl Fn(u32) -> Option<String>) -> Vec<ThreadRow> {
    let mut parts: Vec<(u32, Part)> = parts.iter().map(|(tid, part)| (*tid, *part)).filter(|(_, part)| part.bytes > 0).collect();
    parts.sort_unstable_by_key(|(tid, part)| (std::cmp::Reverse(part.bytes), *tid));
    let total: u128 = parts.iter().map(|(_, part)| u128::from(part.bytes)).sum();
    let share = |bytes: u64| if total <= u128::from(live) { bytes } else { (u128::from(bytes) * u128::from(live) / total) as u64 };
    let kept = parts.len().min(MOST_OF_A_STACK).min(*room);
    *room -= kept;
    let mut rows = Vec::with_capacity(kept + 1);
    for (tid, part) in &parts[..kept] {
        let live = share(part.bytes);
        if live > 0 {
            let comm = name(*tid);
            rows.push(ThreadRow { tid: Some(*tid), comm, live, live_stderr: accounts::standard_error(part.variance) });
        }
    }
    let rest = live.saturating_sub(rows.iter().map(|row| row.live).sum());
    if rest > 0 {
        let variance = parts[kept..].iter().fold(0_u64, |sum, (_, part)| sum.saturating_add(part.variance));
        rows.push(ThreadRow { tid: None, comm: None, live: rest, live_stderr: accounts::standard_error(variance) });
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: [u64; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

    fn sample(key: u64, tid: u32, order: u32, frames_left: i64) -> Sample {
        Sample {
            key,
            weight_per_frame: 8192,
            address: 0,
            file: 0,
            charged_ns: u64::from(tid),
            epoch: 0,
            process: 0,
            user_stack: 0,
            kernel_stack: 0,
            frames_left,
            tid,
            order,
        }
    }

    fn of(parts: &[(u32, u64)]) -> Parts {
        parts.iter().map(|(tid, bytes)| (*tid, Part { bytes: *bytes, variance: 4 })).collect()
    }

    fn plain(rows: &[ThreadRow]) -> Vec<(Option<u32>, u64)> {
        rows.iter().map(|row| (row.tid, row.live)).collect()
    }

    #[test]
    fn samples_add_up_by_key_and_thread() {
        let samples =
            [sample(1, 7, 0, 1), sample(1, 7, 2, 3), sample(1, 8, 0, 1), sample(2, 7, 0, 1), sample(0, 7, 0, 1), sample(1, 9, 0, -1)];
        let keys = by_key(SLOTS.iter().zip(&samples), |_| Class::Other);
        assert_eq!(keys.len(), 2, "a pending sample has no key");
        // Order 2, weight of two frames for each: 8 * (8 - 4) = 32 for four frames, 24 for the three left; 2 * (2 - 1) for the other.
        assert_eq!(keys[&(1, Class::Other)][&7], Part { bytes: 4 * 8192, variance: 26 });
        assert_eq!(keys[&(1, Class::Other)][&9].bytes, 0, "an end may be counted before it is seen");
        let mut sum = keys[&(1, Class::Other)].clone();
        merge(&mut sum, keys[&(2, Class::Other)].clone());
        assert_eq!(sum[&7].bytes, 5 * 8192);
    }

    #[test]
    fn threads_add_up_to_the_row_whatever_the_samples_say() {
        let mut room = 100;
        let mut split = |parts: &[(u32, u64)], live| {
            let rows = rows(&of(parts), live, &mut room, |_| None);
            assert_eq!(rows.iter().map(|row| row.live).sum::<u64>(), live);
            plain(&rows)
        };
        assert_eq!(split(&[(1, 10), (2, 30)], 40), [(Some(2), 30), (Some(1), 10)]);
        assert_eq!(split(&[(1, 10), (2, 30)], 50), [(Some(2), 30), (Some(1), 10), (None, 10)]);
        assert_eq!(split(&[(1, 10), (2, 30)], 21), [(Some(2), 15), (Some(1), 5), (None, 1)]);
        assert_eq!(split(&[(1, u64::MAX), (2, u64::MAX)], 20), [(Some(1), 10), (Some(2), 10)]);
        assert_eq!(split(&[(1, 10)], 0), []);
        assert_eq!(split(&[], 7), [(None, 7)]);
    }

    #[test]
    fn many_threads_are_bounded_and_the_rest_is_summed() {
        let parts: Vec<(u32, u64)> = (1..=1000).map(|tid| (tid, 1000)).collect();
        let mut room = MOST_OF_A_STACK + 3;
        let first = rows(&of(&parts), 1_000_000, &mut room, |tid| Some(tid.to_string()));
        assert_eq!(first.len(), MOST_OF_A_STACK + 1);
        assert_eq!((first[31].tid, first[31].comm.as_deref()), (Some(32), Some("32")));
        assert_eq!((first[32].tid, first[32].live), (None, 968_000));
        // Variances of 968 threads add up: 3872 frames squared.
        assert_eq!(first[32].live_stderr, accounts::standard_error(4 * 968));
        assert_eq!(plain(&rows(&of(&parts), 1_000_000, &mut room, |_| None)).len(), 4, "three are left of the report's");
        assert_eq!(plain(&rows(&of(&parts), 1_000_000, &mut room, |_| None)), [(None, 1_000_000)]);
    }
}
