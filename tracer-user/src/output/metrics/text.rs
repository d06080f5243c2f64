//! The two text formats. OpenMetrics 1.0: <https://prometheus.io/docs/specs/om/open_metrics_spec/>; Prometheus' own, version 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use super::{Label, Metric, Number, Series, Type};
use crate::report::distribution::Distribution;
use std::fmt::Write as _;

/// Upper bounds of the classic buckets, nanoseconds, and as they are written.
const BOUNDS: [(u64, &str); 8] = [
    (1_000, "1e-06"),
    (10_000, "1e-05"),
    (100_000, "0.0001"),
    (1_000_000, "0.001"),
    (10_000_000, "0.01"),
    (100_000_000, "0.1"),
    (1_000_000_000, "1.0"),
    (10_000_000_000, "10.0"),
];

/// OpenMetrics 1.0.
#[must_use]
pub fn open_metrics(metrics: &[Metric]) -> String {
    let mut text = String::new();
    for metric in written(metrics) {
        let family = metric.family;
        let _ = writeln!(text, "# TYPE {} {}", family.name, family.kind.word(true));
        if !family.unit.is_empty() {
            let _ = writeln!(text, "# UNIT {} {}", family.name, family.unit);
        }
        let _ = writeln!(text, "# HELP {} {}", family.name, escaped(family.help));
        lines(&mut text, metric, true);
    }
    text.push_str("# EOF\n");
    text
}

/// Prometheus' text format, version 0.0.4.
#[must_use]
pub fn plain(metrics: &[Metric]) -> String {
    let mut text = String::new();
    for metric in written(metrics) {
        let name = metric.family.series_name();
        // A backslash and a line's end are escaped here, a quotation mark is not; no help has one.
        let _ = writeln!(text, "# HELP {name} {}", escaped(metric.family.help));
        let _ = writeln!(text, "# TYPE {name} {}", metric.family.kind.word(false));
        lines(&mut text, metric, false);
    }
    text
}

/// Distributions of containers would be ten lines each, for every container: they are in the protocol buffers alone, where they are native
/// histograms.
fn written(metrics: &[Metric]) -> impl Iterator<Item = &Metric> {
    metrics.iter().filter(|metric| !(metric.family.kind == Type::Histogram && metric.family.of_containers))
}

fn lines(text: &mut String, metric: &Metric, is_open_metrics: bool) {
    let name = metric.family.series_name();
    for series in &metric.series {
        match &series.number {
            Number::Whole(number) => line(text, &name, &series.labels, &number.to_string()),
            Number::Real(number) => line(text, &name, &series.labels, &real(*number)),
            Number::Distribution(distribution) => {
                histogram(text, &name, series, distribution);
                continue;
            }
        }
        if is_open_metrics && !series.exemplar.is_empty() {
            let _ = write!(text, " # {} 1", labels(&series.exemplar));
        }
        text.push('\n');
    }
}

fn line(text: &mut String, name: &str, of: &[Label], value: &str) {
    let _ = write!(text, "{name}{} {value}", if of.is_empty() { String::new() } else { labels(of) });
}

fn histogram(text: &mut String, name: &str, series: &Series, distribution: &Distribution) {
    let count = distribution.count();
    let bounds = BOUNDS.iter().map(|(bound, le)| (below(distribution, *bound), *le)).chain([(count, "+Inf")]);
    for (count, le) in bounds {
        let of = [series.labels.clone(), vec![("le", le.into())]].concat();
        line(text, &format!("{name}_bucket"), &of, &count.to_string());
        text.push('\n');
    }
    line(text, &format!("{name}_sum"), &series.labels, &real(seconds(distribution)));
    text.push('\n');
    line(text, &format!("{name}_count"), &series.labels, &count.to_string());
    text.push('\n');
}

/// How many values are at most that.
fn below(distribution: &Distribution, bound: u64) -> u64 {
    distribution.values().take_while(|(value, _)| *value <= bound).fold(0, |sum, (_, count)| sum.saturating_add(count))
}

/// The sum of nanoseconds, in seconds.
pub(super) fn seconds(distribution: &Distribution) -> f64 {
    distribution.values().map(|(value, count)| value as f64 * count as f64).sum::<f64>() / 1e9
}

/// A number as both formats read it.
fn real(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{number}")
    }
}

fn labels(labels: &[Label]) -> String {
    let all: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", all.join(","))
}

/// As values of labels are written. What is in them was chosen by others.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::{FamilyId, families::Family};
    use super::*;

    fn metric(id: FamilyId, labels: Vec<Label>, number: Number) -> Metric {
        Metric { family: Family::of(id), series: vec![Series { labels, number, exemplar: Vec::new() }] }
    }

    #[test]
    fn hostile_names_stay_within_their_quotation_marks() {
        let hostile = metric(FamilyId::Dirty, vec![("pod", "a\"}\n\\evil 1".into())], Number::Whole(7));
        for text in [open_metrics(std::slice::from_ref(&hostile)), plain(std::slice::from_ref(&hostile))] {
            assert!(text.contains("memtrail_container_memory_dirty_bytes{pod=\"a\\\"}\\n\\\\evil 1\"} 7\n"), "{text}");
        }
    }

    #[test]
    fn counters_and_infos_have_their_ends() {
        let mut kills = metric(FamilyId::OomKills, vec![("pod", "a".into())], Number::Whole(3));
        kills.series[0].exemplar = vec![("oom_id", "20261201T120000Z-7".into())];
        let build = metric(FamilyId::BuildInfo, vec![("version", "1".into())], Number::Whole(1));
        let text = open_metrics(&[kills.clone(), build.clone()]);
        assert_eq!(
            text,
            "# TYPE memtrail_container_oom_kills counter\n\
             # HELP memtrail_container_oom_kills OOM kills of which the container's processes were victims.\n\
             memtrail_container_oom_kills_total{pod=\"a\"} 3 # {oom_id=\"20261201T120000Z-7\"} 1\n\
             # TYPE memtrail_build info\n\
             # HELP memtrail_build Version of memtrail and release of the kernel.\n\
             memtrail_build_info{version=\"1\"} 1\n\
             # EOF\n"
        );
        let text = plain(&[kills, build]);
        assert!(text.contains("# TYPE memtrail_container_oom_kills_total counter\nmemtrail_container_oom_kills_total{pod=\"a\"} 3\n"));
        assert!(text.contains("# TYPE memtrail_build_info gauge\n") && !text.contains("EOF") && !text.contains("oom_id"));
    }

    #[test]
    fn classic_buckets_add_up() {
        let mut distribution = Distribution::default();
        for (value, count) in [(900, 2), (50_000, 3), (20_000_000_000, 1)] {
            distribution.add(value, count);
        }
        let text = open_metrics(&[metric(FamilyId::NodeReclaim, vec![], Number::Distribution(Box::new(distribution)))]);
        for line in [
            "memtrail_node_reclaim_seconds_bucket{le=\"1e-06\"} 2\n",
            "memtrail_node_reclaim_seconds_bucket{le=\"1e-05\"} 2\n",
            "memtrail_node_reclaim_seconds_bucket{le=\"0.0001\"} 5\n",
            "memtrail_node_reclaim_seconds_bucket{le=\"10.0\"} 5\n",
            "memtrail_node_reclaim_seconds_bucket{le=\"+Inf\"} 6\n",
            "memtrail_node_reclaim_seconds_count 6\n",
            "memtrail_node_reclaim_seconds_sum 20.0001518\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn numbers_are_read_by_both() {
        assert_eq!([1.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.0].map(real), ["1.5", "+Inf", "-Inf", "NaN", "0"]);
    }
}
