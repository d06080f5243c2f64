//! Distributions in user space: values with counts, their quantiles, and their encoding as HdrHistogram (V2, compressed, base64), which
//! other programs read.
//!
//! Pure. Counts are exact sums; a value is that of its bucket in the kernel half, at most 1.6 % from the truth
//! (see [`tracer_common::histogram`]).

use crate::model::HistogramRow;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer as _, V2DeflateSerializer},
};
use std::collections::BTreeMap;
use tracer_common::histogram::{Metric, bucket};

/// Age of what is live: nanoseconds from charge to the report. Counts are pages, estimated from the samples.
pub const LIVE_AGE: &str = "live_age_ns";

/// Significant digits of the encoding: finer than the buckets, so that nothing is lost by it.
const DIGITS: u8 = 3;
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

    /// As every output has it; `None` if nothing occurred.
    #[must_use]
    pub fn row(&self) -> Option<HistogramRow> {
        let histogram = self.hdr()?;
        let quantile = |quantile| Some(histogram.value_at_quantile(quantile));
        Some(HistogramRow {
            count: self.count(),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: Some(histogram.max()),
            hdr: encode(&histogram),
        })
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
        assert_eq!((decoded.len(), decoded.value_at_quantile(0.99)), (10_000, row.p99.unwrap()));
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
