//! How usage changes, in a few words. Pure.

use crate::{
    report::{Step, Trend},
    text::units,
};

/// Slower growth than this is not worth a word: 64 KiB a minute.
const STEADY_BYTES_PER_S: f64 = 64.0 * 1024.0 / 60.0;
/// Smaller changes of a short recording, or back and forth, are not worth a word.
const LEAST_CHANGE: u64 = 1 << 20;
/// Back and forth between readings is worth a word from this on.
const LEAST_SWING: u64 = 8 << 20;
/// A step that began so soon after the start of the recording is of its first seconds.
const AT_START_S: f64 = 2.5;

/// `+41 MiB/min`; `+100.0 MiB in the first 2 s, steady since`; `+100.0 MiB in 1 s, then +5.0 MiB/min`; `+289.0 MiB in 5 s` where there is too
/// little time for a rate; `up and down by 80.0 MiB`; `steady`.
#[must_use]
pub fn in_words(trend: &Trend) -> String {
    let rate = trend.firm().filter(|slope| slope.abs() >= STEADY_BYTES_PER_S).and_then(units::rate_per_minute);
    match (&trend.step, rate) {
        (Some(step), Some(rate)) => format!("{}, then {rate}", moved(step)),
        (Some(step), None) => format!("{}, steady since", when(step)),
        (None, Some(rate)) => rate,
        (None, None) if trend.bytes_per_s.is_none() && trend.change_bytes.unsigned_abs() >= LEAST_CHANGE => {
            format!("{} in {}", units::signed(trend.change_bytes), time(trend.window_s))
        }
        (None, None) if trend.swing_bytes >= LEAST_SWING => format!("up and down by {}", units::bytes(trend.swing_bytes)),
        (None, None) => "steady".to_owned(),
    }
}

fn moved(step: &Step) -> String {
    if step.ended_s - step.seconds <= AT_START_S {
        format!("{} in the first {}", units::signed(step.bytes), time(step.ended_s))
    } else {
        format!("{} in {}", units::signed(step.bytes), time(step.seconds))
    }
}

fn when(step: &Step) -> String {
    if step.ended_s - step.seconds <= AT_START_S { moved(step) } else { format!("{} {} ago", moved(step), time(step.ago_s)) }
}

/// Whole seconds, at least one.
fn time(seconds: f64) -> String {
    units::seconds(seconds.round().max(1.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    fn trend(change: i64, rate: Option<f64>) -> Trend {
        Trend {
            window_s: rate.map_or(5.2, |_| 30.0),
            change_bytes: change * MIB,
            swing_bytes: change.unsigned_abs() << 20,
            bytes_per_s: rate.map(|rate| rate * MIB as f64 / 60.0),
            stderr_per_s: rate.map(|_| MIB as f64 / 60.0),
            step: None,
        }
    }

    fn step(bytes: i64, seconds: f64, ended_s: f64) -> Option<Step> {
        Some(Step { bytes: bytes * MIB, seconds, ended_s, ago_s: 40.0 })
    }

    #[test]
    fn each_sort_of_change_has_its_words() {
        let words = |change, rate, step| in_words(&Trend { step, ..trend(change, rate) });
        assert_eq!(words(20, Some(41.0), None), "+41 MiB/min");
        assert_eq!(words(-20, Some(-41.0), None), "-41 MiB/min");
        assert_eq!(words(1, Some(1.9), None), "steady", "within two errors");
        assert_eq!(words(90, Some(1.0), None), "up and down by 90.0 MiB");
        assert_eq!(words(100, Some(0.0), step(100, 1.0, 2.0)), "+100.0 MiB in the first 2 s, steady since");
        assert_eq!(words(100, Some(0.0), step(100, 2.0, 300.0)), "+100.0 MiB in 2 s 40 s ago, steady since");
        assert_eq!(words(-100, None, step(-100, 0.3, 300.0)), "-100.0 MiB in 1 s 40 s ago, steady since");
        assert_eq!(words(100, Some(5.0), step(90, 1.0, 60.0)), "+90.0 MiB in 1 s, then +5.0 MiB/min");
        assert_eq!(words(289, None, None), "+289.0 MiB in 5 s");
        assert_eq!(words(0, None, None), "steady");
    }
}
