//! When a cgroup reaches its limit, if it goes on as in the last half minute. Pure.

/// Readings that count, seconds before the last one.
const LAST_S: f64 = 30.0;
/// Fewest readings, and the time between the first and the last of them, seconds.
const FEWEST: (usize, f64) = (5, 4.0);
/// The slope is so many of its own standard errors.
const FIRM: f64 = 3.0;
/// And it grew by this share of the limit in that time: a small slope reaches every limit some day.
const LEAST_SHARE: f64 = 0.01;

/// Seconds from the last reading until the usage is the limit, at the slope of the last readings: seconds since some start and bytes, in the
/// order of time. `None` if they are few, do not grow, or jump about too much to say.
#[must_use]
pub fn seconds_to_limit(readings: &[(f64, u64)], limit: u64) -> Option<f64> {
    let (end_s, usage) = *readings.last()?;
    let last: Vec<(f64, f64)> =
        readings.iter().filter(|(at_s, _)| end_s - at_s <= LAST_S).map(|(at_s, bytes)| (at_s - end_s, *bytes as f64)).collect();
    let span = end_s - readings.iter().find(|(at_s, _)| end_s - at_s <= LAST_S)?.0;
    if last.len() < FEWEST.0 || span < FEWEST.1 || usage >= limit {
        return None;
    }
    let n = last.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| last.iter().map(of).sum::<f64>() / n;
    let (t, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = last.iter().map(|(at, _)| (at - t).powi(2)).sum();
    let slope = last.iter().map(|(at, bytes)| (at - t) * (bytes - y)).sum::<f64>() / spread;
    let residual: f64 = last.iter().map(|(at, bytes)| (bytes - y - slope * (at - t)).powi(2)).sum();
    let error = (residual / (n - 2.0) / spread).sqrt();
    let firm = slope > 0.0 && slope >= FIRM * error && slope * span >= LEAST_SHARE * limit as f64;
    firm.then(|| (limit - usage) as f64 / slope)
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
        assert_eq!(seconds_to_limit(&readings(4, |s| 100 + 5 * s), 400 * MIB), None, "four readings");
        assert_eq!(seconds_to_limit(&readings(20, |s| 1000 + s / 7), 40_000 * MIB), None, "next to nothing of the limit");
        assert_eq!(seconds_to_limit(&readings(20, |s| 400 + 5 * s), 400 * MIB), None, "there already");
        assert_eq!(seconds_to_limit(&[], 1), None);
    }

    #[test]
    fn a_staircase_is_growth() {
        assert!(seconds_to_limit(&readings(25, |s| 100 + 20 * (s / 5)), 400 * MIB).is_some());
    }
}
