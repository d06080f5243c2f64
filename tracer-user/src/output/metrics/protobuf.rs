//! Prometheus' protocol buffers (io.prometheus.client, metrics.proto of client_model), each message after its length. Distributions are native
//! histograms: <https://prometheus.io/docs/specs/native_histograms/>.

use super::{Label, Metric, Number, Series, Type, text::seconds};
use crate::report::distribution::Distribution;
use prost::Message;
use std::collections::BTreeMap;

/// Buckets a factor of two: eight, each 9 % wider than the one before (schema 3).
const SCHEMA: i32 = 3;
/// Values up to that are as good as zero, seconds.
const ZERO_THRESHOLD: f64 = 1e-9;
/// Gaps of at most so many empty buckets are written as empty ones: shorter than a new span.
const GAP: i32 = 2;

/// All of it.
#[must_use]
pub fn encode(metrics: &[Metric]) -> Vec<u8> {
    metrics.iter().flat_map(|metric| family(metric).encode_length_delimited_to_vec()).collect()
}

fn family(metric: &Metric) -> MetricFamily {
    let kind = match metric.family.kind {
        Type::Counter => Kind::Counter,
        Type::Gauge | Type::Info => Kind::Gauge,
        Type::Histogram => Kind::Histogram,
    };
    MetricFamily {
        name: metric.family.series_name(),
        help: metric.family.help.to_owned(),
        r#type: kind as i32,
        metric: metric.series.iter().map(|series| message(series, kind)).collect(),
        unit: metric.family.unit.to_owned(),
    }
}

fn message(series: &Series, kind: Kind) -> MetricMessage {
    let mut message = MetricMessage { label: pairs(&series.labels), ..MetricMessage::default() };
    let value = match &series.number {
        Number::Whole(number) => *number as f64,
        Number::Real(number) => *number,
        Number::Distribution(distribution) => {
            message.histogram = Some(native(distribution));
            return message;
        }
    };
    match kind {
        Kind::Counter => {
            let exemplar = (!series.exemplar.is_empty()).then(|| Exemplar { label: pairs(&series.exemplar), value: 1.0 });
            message.counter = Some(Counter { value, exemplar });
        }
        _ => message.gauge = Some(Gauge { value }),
    }
    message
}

fn pairs(labels: &[Label]) -> Vec<LabelPair> {
    labels.iter().map(|(name, value)| LabelPair { name: (*name).to_owned(), value: value.to_string() }).collect()
}

/// The index of the bucket that holds a value: the least whose upper bound, 2^(index / 8), is not below it.
fn bucket(value_s: f64) -> i32 {
    let exact = value_s.log2() * f64::from(1 << SCHEMA);
    let index = exact.ceil();
    // log2 of a bound itself may be a little above its index.
    if index - exact > 1.0 - 1e-9 { index as i32 - 1 } else { index as i32 }
}

fn native(distribution: &Distribution) -> Histogram {
    let (mut zeros, mut buckets) = (0_u64, BTreeMap::<i32, u64>::new());
    for (value, count) in distribution.values() {
        let value_s = value as f64 / 1e9;
        let place = if value_s <= ZERO_THRESHOLD { &mut zeros } else { buckets.entry(bucket(value_s)).or_default() };
        *place = place.saturating_add(count);
    }
    let (mut positive_span, mut positive_delta) = (Vec::<BucketSpan>::new(), Vec::new());
    let (mut next, mut last) = (0, 0_i64);
    let mut put = |count: u64, deltas: &mut Vec<i64>| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count.wrapping_sub(last));
        last = count;
    };
    for (index, count) in buckets {
        match positive_span.last_mut().filter(|_| index - next <= GAP) {
            Some(span) => {
                for _ in next..index {
                    put(0, &mut positive_delta);
                }
                span.length += (index - next) as u32 + 1;
            }
            // The first offset is from zero, each other one from the end of the span before.
            None => positive_span.push(BucketSpan { offset: index - next, length: 1 }),
        }
        put(count, &mut positive_delta);
        next = index + 1;
    }
    // A histogram without a span is told from a classic one without buckets by a span of no length.
    if positive_span.is_empty() {
        positive_span.push(BucketSpan { offset: 0, length: 0 });
    }
    Histogram {
        sample_count: distribution.count(),
        sample_sum: seconds(distribution),
        schema: SCHEMA,
        zero_threshold: ZERO_THRESHOLD,
        zero_count: zeros,
        positive_span,
        positive_delta,
    }
}

// The messages of metrics.proto, as far as they are written; numbers and types are the format's.

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, tag = "3")]
    r#type: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<MetricMessage>,
    #[prost(string, tag = "5")]
    unit: String,
}

#[derive(Clone, PartialEq, Message)]
struct MetricMessage {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Gauge>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Gauge {
    #[prost(double, tag = "1")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Counter {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(message, optional, tag = "2")]
    exemplar: Option<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[cfg(test)]
mod tests {
    use super::super::{FamilyId, families::Family};
    use super::*;

    /// Buckets of a native histogram as a reader has them: by index, their counts.
    fn read(histogram: &Histogram) -> BTreeMap<i32, i64> {
        let (mut index, mut count, mut deltas) = (0, 0, histogram.positive_delta.iter());
        let mut read = BTreeMap::new();
        for span in &histogram.positive_span {
            index += span.offset;
            for _ in 0..span.length {
                count += deltas.next().unwrap();
                read.insert(index, count);
                index += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        read
    }

    #[test]
    fn a_value_is_in_the_bucket_whose_bounds_hold_it() {
        for (value_s, index) in [(1.0, 0), (2.0, 8), (2.01, 9), (0.5, -8), (1.09, 1), (1.0905077, 1), (1.091, 2)] {
            assert_eq!(bucket(value_s), index, "{value_s}");
        }
        for ns in [1_u64, 3, 999, 1_000_000, 123_456_789, 1 << 50] {
            let value_s = ns as f64 / 1e9;
            let upper = 2_f64.powf(f64::from(bucket(value_s)) / 8.0);
            assert!(value_s <= upper * (1.0 + 1e-9) && value_s > upper / 1.0905077327 * (1.0 - 1e-9), "{ns}");
        }
    }

    #[test]
    fn spans_and_deltas_give_the_counts_back() {
        let mut distribution = Distribution::default();
        for (value, count) in [(0, 4), (1_000_000_000, 5), (1_090_000_000, 7), (1_300_000_000, 1), (64_000_000_000, 2)] {
            distribution.add(value, count);
        }
        let histogram = native(&distribution);
        assert_eq!((histogram.sample_count, histogram.zero_count, histogram.positive_span.len()), (19, 4, 2));
        let counts: BTreeMap<i32, i64> = read(&histogram).into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, BTreeMap::from([(0, 5), (1, 7), (4, 1), (48, 2)]));
        assert!((histogram.sample_sum - (5.0 + 7.63 + 1.3 + 128.0)).abs() < 1e-6);
        let nothing = native(&Distribution::default());
        assert_eq!((nothing.sample_count, nothing.positive_span), (0, vec![BucketSpan { offset: 0, length: 0 }]));
    }

    #[test]
    fn messages_stand_after_their_lengths() {
        let metric = |id, number| Metric {
            family: Family::of(id),
            series: vec![Series { labels: vec![("kind", "anon".into())], number, exemplar: vec![] }],
        };
        let bytes = encode(&[metric(FamilyId::NodeMemory, Number::Whole(7)), metric(FamilyId::Losses, Number::Whole(2))]);
        let mut rest = bytes.as_slice();
        let first = MetricFamily::decode_length_delimited(&mut rest).unwrap();
        let second = MetricFamily::decode_length_delimited(&mut rest).unwrap();
        assert!(rest.is_empty());
        assert_eq!((first.name.as_str(), first.metric[0].gauge.clone()), ("memtrail_node_memory_bytes", Some(Gauge { value: 7.0 })));
        assert_eq!((second.name.as_str(), second.metric[0].counter.clone().unwrap().value), ("memtrail_losses_total", 2.0));
    }
}
