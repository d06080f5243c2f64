//! When a cgroup reaches its limit, if it goes on as at present. Pure.

use crate::analyse::accounts::trend;

/// It grew by this share of the limit in the time that counts: a small slope reaches every limit some day.
const LEAST_SHARE: f64 = 0.01;

/// Seconds from the last reading until the usage is the limit, at the present growth that all outputs show ([`trend`]): readings are seconds since
/// some start and bytes, in the order of time. `None` if they are few or short, do not grow, jump about too much to say, or are of growth that
/// has ended.
#[must_use]
pub fn seconds_to_limit(readings: &[(f64, u64)], limit: u64) -> Option<f64> {
    let (_, usage) = *readings.last()?;
    let trend = trend::of(readings).filter(|_| usage < limit)?;
    let slope = trend.firm().filter(|slope| *slope > 0.0)?;
    (slope * trend.window_s >= LEAST_SHARE * limit as f64).then(|| (limit - usage) as f64 / slope)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn readings(seconds: u32, usage: impl Fn(u64) -> u64) -> Vec<(f64, u64)> {
        (0..seconds).map(|second| (100.0 + f64::from(second), usage(u64::from(second)) * MIB)).collect()
    }

    #[test]
    fn a_line_reaches_its_limit_when_it_does() {
        let found = seconds_to_limit(&readings(20, |s| 100 + 5 * s), 400 * MIB).unwrap();
        assert!((found - (400.0 - 195.0) / 5.0).abs() < 1e-6, "{found}");
        // Half a minute counts: it was flat for long before.
        let late = seconds_to_limit(&readings(200, |s| 100 + 5 * s.max(165)), 2000 * MIB).unwrap();
        assert!((late - (2000.0 - 1095.0) / 5.0).abs() < 1.0, "{late}");
    }

    #[test]
    fn what_does_not_grow_jumps_about_or_is_short_is_not_told() {
        assert_eq!(seconds_to_limit(&readings(20, |_| 100), 400 * MIB), None);
        assert_eq!(seconds_to_limit(&readings(20, |s| 300 - 5 * s), 400 * MIB), None);
        assert_eq!(seconds_to_limit(&readings(20, |s| 100 + 150 * (s % 2)), 400 * MIB), None, "up and down");
        assert_eq!(seconds_to_limit(&readings(9, |s| 100 + 5 * s), 400 * MIB), None, "less than ten seconds");
        assert_eq!(seconds_to_limit(&readings(40, |s| 100 + 5 * s.min(30)), 400 * MIB), None, "it has ended");
        assert_eq!(seconds_to_limit(&readings(20, |s| 1000 + s / 7), 40_000 * MIB), None, "next to nothing of the limit");
        assert_eq!(seconds_to_limit(&readings(20, |s| 400 + 5 * s), 400 * MIB), None, "there already");
        assert_eq!(seconds_to_limit(&[], 1), None);
    }

    #[test]
    fn a_staircase_is_growth() {
        assert!(seconds_to_limit(&readings(25, |s| 100 + 20 * (s / 5)), 400 * MIB).is_some());
    }
}
