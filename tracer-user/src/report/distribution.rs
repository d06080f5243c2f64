//! Distributions in user space: values with counts, their quantiles, and their encoding as HdrHistogram (V2, compressed, base64), which
//! other programs read.
//!
//! Pure. Counts are exact sums; a value is that of its bucket in the kernel half, at most 1.6 % from the truth
//! (see [`tracer_common::histogram`]).

use crate::report::HistogramRow;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::read::ZlibDecoder;
use hdrhistogram::{
    Histogram,
    serialization::{Serializer as _, V2DeflateSerializer},
};
use std::{collections::BTreeMap, io::Read as _};
use tracer_common::histogram::{Metric, bucket};

/// Age of what is live: nanoseconds from charge to the report. Counts are pages, estimated from the samples.
pub const LIVE_AGE: &str = "live_age_ns";

/// Significant digits of the encoding: finer than the buckets, so that nothing is lost by it.
const DIGITS: u8 = 3;
/// An encoding's head, V2 (<https://github.com/HdrHistogram/HdrHistogram>, EncodableHistogram): cookie, length of the counts, offset of
/// normalisation, digits, lowest and highest value, ratio.
const HEAD_BYTES: usize = 40;
const COOKIES: [[u8; 4]; 2] = [[0x1c, 0x84, 0x93, 0x14], [0x1c, 0x84, 0x93, 0x13]];
/// Values of that many digits that have a counter of their own, and as many in each further power of two, halved.
const LOG2_HALF: u32 = 10;
/// Longest encoding that is read: all counters of all values, each of nine bytes.
const MOST_BYTES: u64 = 1 << 19;
/// Larger values and counts do not fit in the encoding, whose numbers are signed.
const LARGEST: u64 = i64::MAX as u64 / 2;

/// Values and how often each occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    counts: BTreeMap<u64, u64>,
}

/// What was added to the distributions between two moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Increment {
    /// Seconds from the start of the recording.
    pub from_s: f64,
    /// Likewise.
    pub to_s: f64,
    /// By kernfs id of the cgroup and name of the metric. What did not occur is not there.
    pub cgroups: BTreeMap<u64, BTreeMap<&'static str, Distribution>>,
}

impl Increment {
    /// Adds what came later. An empty one begins with it.
    pub fn merge(&mut self, later: Increment) {
        if self.cgroups.is_empty() {
            *self = later;
            return;
        }
        self.to_s = later.to_s;
        for (id, metrics) in later.cgroups {
            let own = self.cgroups.entry(id).or_default();
            for (metric, distribution) in metrics {
                own.entry(metric).or_default().merge(&distribution);
            }
        }
    }
}

/// Whether a metric's values are bytes, by its name; else they are nanoseconds.
#[must_use]
pub fn is_bytes(metric: &str) -> bool {
    metric.ends_with("_bytes")
}

impl Distribution {
    /// Adds a value that occurred `count` times.
    pub fn add(&mut self, value: u64, count: u64) {
        if count > 0 {
            let sum = self.counts.entry(value).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Adds time that was not measured in the kernel half, with the value of its bucket there.
    pub fn add_ns(&mut self, ns: u64, count: u64) {
        self.add(Metric::LifetimeNs.value(bucket(ns)), count);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Distribution) {
        for (value, count) in &other.counts {
            self.add(*value, *count);
        }
    }

    /// Nothing occurred.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Values and how often each occurred, smallest first.
    pub fn values(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.counts.iter().map(|(value, count)| (*value, *count))
    }

    /// What came since an earlier moment. A count that is smaller than it was then is nothing.
    #[must_use]
    pub fn since(&self, before: &Distribution) -> Distribution {
        let mut since = Distribution::default();
        for (value, count) in self.values() {
            since.add(value, count.saturating_sub(before.counts.get(&value).copied().unwrap_or(0)));
        }
        since
    }

    /// As every output has it; `None` if nothing occurred.
    #[must_use]
    pub fn row(&self) -> Option<HistogramRow> {
        let largest = *self.counts.keys().next_back()?;
        Some(HistogramRow {
            count: self.count(),
            p50: self.quantile(500),
            p90: self.quantile(900),
            p99: self.quantile(990),
            p999: self.quantile(999),
            max: Some(largest),
            hdr: self.hdr().and_then(|histogram| encode(&histogram)),
        })
    }

    /// The first value that, with all smaller ones, reaches so many thousandths of all.
    fn quantile(&self, thousandths: u128) -> Option<u64> {
        let sum = |counts: u128, count: u64| counts + u128::from(count);
        let all = self.counts.values().copied().fold(0, sum);
        let rank = (all * thousandths).div_ceil(1000).max(1);
        let mut counts = 0;
        self.values().find_map(|(value, count)| {
            counts = sum(counts, count);
            (counts >= rank).then_some(value)
        })
    }

    /// Reads an encoding that [`Distribution::row`] or [`Distribution::encoded`] made, which gives the same values again; `None` for any
    /// other. It may come from a forged recording: nothing is believed that it says of its size.
    #[must_use]
    pub fn decode(hdr: &str) -> Option<Distribution> {
        let bytes = BASE64_STANDARD.decode(hdr).ok()?;
        let mut plain = Vec::new();
        ZlibDecoder::new(bytes.strip_prefix(&COOKIES[0])?.get(4..)?).take(MOST_BYTES).read_to_end(&mut plain).ok()?;
        let head = plain.get(..HEAD_BYTES)?;
        if !head.starts_with(&COOKIES[1]) || head.get(8..24)? != [[0; 7].as_slice(), &[DIGITS], &[0; 7], &[1]].concat() {
            return None;
        }
        let (mut counts, mut index, mut rest) = (Distribution::default(), 0_u64, plain.get(HEAD_BYTES..)?);
        while !rest.is_empty() {
            let coded = varint(&mut rest)?;
            // Zigzag: a negative number is a run of empty counters.
            if coded & 1 == 1 {
                index = index.checked_add(coded / 2 + 1)?;
            } else {
                counts.add(value_of_counter(index)?, coded / 2);
                index = index.checked_add(1)?;
            }
        }
        Some(counts)
    }

    /// Largest value and the encoding; `None` if nothing occurred or it does not fit in an encoding.
    #[must_use]
    pub fn encoded(&self) -> Option<(u64, String)> {
        let histogram = self.hdr()?;
        Some((histogram.max(), encode(&histogram)?))
    }

    fn hdr(&self) -> Option<Histogram<u64>> {
        let largest = (*self.counts.keys().next_back()?).clamp(2, LARGEST);
        let mut histogram = Histogram::new_with_bounds(1, largest, DIGITS).ok()?;
        for (value, count) in &self.counts {
            histogram.record_n((*value).min(LARGEST), (*count).min(LARGEST)).ok()?;
        }
        Some(histogram)
    }
}

/// The smallest value that a counter of an encoding counts.
fn value_of_counter(index: u64) -> Option<u64> {
    let (half, within) = (index >> LOG2_HALF, index & ((1 << LOG2_HALF) - 1));
    match u32::try_from(half).ok()?.checked_sub(1) {
        None => Some(within),
        Some(shift) if shift < u64::BITS - LOG2_HALF - 1 => Some((within | 1 << LOG2_HALF) << shift),
        Some(_) => None,
    }
}

/// LEB128 of at most nine bytes, of which the ninth is whole.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for nth in 0..9 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = if nth < 8 { byte & 0x7f } else { *byte };
        value |= u64::from(bits) << (7 * nth);
        if nth == 8 || byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

impl HistogramRow {
    /// Its values; `None` where it does not hold them.
    #[must_use]
    pub fn distribution(&self) -> Option<Distribution> {
        Distribution::decode(self.hdr.as_deref()?)
    }
}

fn encode(histogram: &Histogram<u64>) -> Option<String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).ok()?;
    Some(BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;

    fn decoded(row: &HistogramRow) -> Histogram<u64> {
        let bytes = BASE64_STANDARD.decode(row.hdr.as_ref().unwrap()).unwrap();
        Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap()
    }

    #[test]
    fn quantiles_are_within_two_percent_of_the_truth() {
        let mut distribution = Distribution::default();
        let truth: Vec<u64> = (0..10_000).map(|n| (1.001_f64.powi(n) * 1000.0) as u64).collect();
        truth.iter().for_each(|value| distribution.add_ns(*value, 1));
        let row = distribution.row().unwrap();
        assert_eq!(row.count, 10_000);
        for (figure, at) in [(row.p50, 4999), (row.p90, 8999), (row.p99, 9899), (row.p999, 9989), (row.max, 9999)] {
            assert!((figure.unwrap() as f64 / truth[at] as f64 - 1.0).abs() < 0.02, "{figure:?} {}", truth[at]);
        }
        let decoded = decoded(&row);
        // Readers show the highest value that counts as equal.
        assert!(decoded.len() == 10_000 && decoded.equivalent(decoded.value_at_quantile(0.99), row.p99.unwrap()));
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let (mut whole, mut sum) = (Distribution::default(), Distribution::default());
        for part in 0..7_u64 {
            let mut one = Distribution::default();
            for n in 0..100 {
                let (value, count) = (tracer_common::mix64(part, n) >> 30, n % 3);
                one.add_ns(value, count);
                whole.add_ns(value, count);
            }
            sum.merge(&one);
        }
        assert_eq!(sum, whole);
        assert_eq!(decoded(&whole.row().unwrap()).len(), whole.count());
    }

    #[test]
    fn an_encoding_gives_the_same_values_again() {
        let mut distribution = Distribution::default();
        for n in 0..3000 {
            let value = tracer_common::mix64(5, n) >> (n % 62 + 2);
            let metric = Metric::ALL[n as usize % Metric::ALL.len()];
            distribution.add(metric.value(bucket(value)), n % 5 + ((n % 100 / 99) << 40));
        }
        let row = distribution.row().unwrap();
        assert_eq!(Distribution::decode(row.hdr.as_ref().unwrap()).unwrap(), distribution);
        assert_eq!(decoded(&row).len(), distribution.count());
        let mut more = distribution.clone();
        more.add(4096, 7);
        assert_eq!(more.since(&distribution).values().collect::<Vec<_>>(), [(4096, 7)]);
        assert!(distribution.since(&more).is_empty());
    }

    #[test]
    fn sizes_are_shown_as_they_were() {
        let mut sizes = Distribution::default();
        for pages in [1, 1, 1, 512] {
            sizes.add(Metric::ChargeBytes.value(bucket(pages * 4096)), 1);
        }
        let row = sizes.row().unwrap();
        assert_eq!((row.p50, row.p90, row.max), (Some(4096), Some(2 << 20), Some(2 << 20)));
    }

    #[test]
    fn forged_encodings_are_none() {
        let mut distribution = Distribution::default();
        (0..200).for_each(|n| distribution.add(n * 977, n + 1));
        let good = BASE64_STANDARD.decode(distribution.row().unwrap().hdr.unwrap()).unwrap();
        for n in 0..20_000_u64 {
            let mut bytes = good.clone();
            let random = tracer_common::mix64(7, n);
            let at = random as usize % bytes.len();
            bytes[at] = (random >> 32) as u8;
            bytes.truncate(if n % 3 == 0 { at } else { bytes.len() });
            let _ = Distribution::decode(&BASE64_STANDARD.encode(bytes));
        }
        // Behind a right checksum: any counts.
        for n in 0..2000_u64 {
            let mut plain = vec![0; HEAD_BYTES];
            plain[..4].copy_from_slice(&COOKIES[1]);
            (plain[15], plain[23]) = (DIGITS, 1);
            plain.extend((0..40).map(|at| (tracer_common::mix64(n, at) >> 13) as u8 | if n % 2 == 0 { 0x80 } else { 0 }));
            let mut bytes = [COOKIES[0], [0; 4]].concat();
            let mut encoder = flate2::write::ZlibEncoder::new(&mut bytes, flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, &plain).unwrap();
            drop(encoder);
            let read = Distribution::decode(&BASE64_STANDARD.encode(bytes));
            assert!(read.is_none_or(|read| read.values().all(|(value, _)| value <= i64::MAX as u64)));
        }
        assert_eq!(Distribution::decode("x"), None);
    }

    #[test]
    fn nothing_has_no_row_and_extremes_have_one() {
        assert_eq!(Distribution::default().row(), None);
        let mut extreme = Distribution::default();
        extreme.add(0, 1);
        extreme.add(u64::MAX, u64::MAX);
        let row = extreme.row().unwrap();
        assert_eq!((row.count, row.p50.is_some()), (u64::MAX, true));
        let mut zeros = Distribution::default();
        zeros.add(0, 5);
        assert_eq!((zeros.row().unwrap().max, decoded(&zeros.row().unwrap()).len()), (Some(0), 5));
    }
}
