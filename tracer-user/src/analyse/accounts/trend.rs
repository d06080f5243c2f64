//! How usage changes at present: a line through the last readings, with one step that is over taken out of it. Pure.
//!
//! A program that takes 100 MiB at its start and then idles does not grow, and one that grows by a little a minute does, also where it took
//! 100 MiB at once meanwhile. So the line may have a jump between two readings, or over several of them, where that explains the readings much
//! better than a line alone; the slope is that beside the jump.

use crate::report::{Step, Trend};

/// Readings that count, seconds before the last one.
const LAST_S: f64 = 30.0;
/// Nothing is extrapolated from readings of a shorter time, seconds.
const LEAST_S: f64 = 10.0;
/// Fewest readings with an error of the slope.
const FEWEST: usize = 5;
/// Readings after a step before it is over.
const AFTER: usize = 3;
/// A step is at least so large.
const LEAST_STEP: f64 = 1048576.0;
/// And one in so many of all that changed.
const LEAST_PART: f64 = 4.0;
/// A step makes the readings' variance around the line smaller by this factor.
const BETTER: f64 = 4.0;
/// A rise pauses while it changes by no more than this share of the whole.
const PAUSE: f64 = 0.05;
/// Usage is charged in batches of 64 pages a CPU (`MEMCG_CHARGE_BATCH`, mm/memcontrol.c): readings are no more exact than that, bytes.
const BATCH: f64 = 262144.0;
/// Most readings; more are more than half a minute or fifteen minutes have, and the search for a step takes their square.
const MOST: usize = 160;

/// The trend of readings in the order of time: seconds since the start of the recording, and bytes. `None` with fewer than two.
#[must_use]
pub fn of(readings: &[(f64, u64)]) -> Option<Trend> {
    let end_s = readings.last()?.0;
    let readings = &readings[readings.len().saturating_sub(MOST)..];
    let from = readings.partition_point(|(at_s, _)| end_s - at_s > LAST_S);
    let short = fit(&readings[from..]);
    let Some(short) = short else { return fit(readings) };
    if short.firm().is_some() || short.step.is_some() || from == 0 {
        return Some(short);
    }
    // Growth too slow for half a minute, or a step before it. What it is now must not contradict it.
    match fit(readings) {
        Some(long) if long.firm().is_some() && long.step.is_none() && agree(&short, &long) => Some(long),
        Some(Trend { step: Some(step), .. }) => Some(Trend { step: Some(step), ..short }),
        _ => Some(short),
    }
}

fn agree(short: &Trend, long: &Trend) -> bool {
    let (Some(a), Some(b)) = (short.bytes_per_s.zip(short.stderr_per_s), long.bytes_per_s.zip(long.stderr_per_s)) else { return false };
    (a.0 - b.0).abs() <= 2.0 * a.1.hypot(b.1)
}

/// A line with at most one step.
fn fit(readings: &[(f64, u64)]) -> Option<Trend> {
    let ((first_s, first), (end_s, last)) = (*readings.first()?, *readings.last()?);
    if readings.len() < 2 || end_s - first_s <= 0.0 {
        return None;
    }
    let points: Vec<(f64, f64)> = readings.iter().map(|(at_s, bytes)| (at_s - end_s, *bytes as f64)).collect();
    let sums = Sums::of(&points);
    let whole = sums.line(points.len(), points.len());
    let smallest = readings.iter().map(|(_, bytes)| *bytes).min().unwrap_or(last);
    let largest = readings.iter().map(|(_, bytes)| *bytes).max().unwrap_or(last);
    // What never changed by as much had no step: most cgroups, for which nothing is searched.
    let may_have_one = (largest - smallest) as f64 >= LEAST_STEP && whole.variance > BETTER * BATCH * BATCH;
    // A small jump beside much growth is growth that was slower for a while.
    let is_one = |line: &Line| line.variance * BETTER < whole.variance && line.jump.abs() * LEAST_PART >= (largest - smallest) as f64;
    let step = may_have_one.then(|| step(&points, &sums)).flatten().filter(|(_, line)| is_one(line));
    let line = step.as_ref().map_or(&whole, |(_, line)| line);
    let is_long = line.spans_s >= LEAST_S && line.count >= FEWEST;
    Some(Trend {
        window_s: end_s - first_s,
        change_bytes: i64::try_from(i128::from(last) - i128::from(first)).unwrap_or(i64::MAX),
        swing_bytes: largest - smallest,
        bytes_per_s: is_long.then_some(line.slope),
        stderr_per_s: is_long.then_some(line.slope_error),
        step: step.as_ref().map(|((from, to), line)| Step {
            bytes: line.jump as i64,
            seconds: points[*to].0 - points[*from].0,
            ended_s: readings[*to].0,
            ago_s: -points[*to].0,
        }),
    })
}

/// The shortest step that explains the readings about as well as the best one: the reading before it, the one after it, and the line.
fn step(points: &[(f64, f64)], sums: &Sums<'_>) -> Option<((usize, usize), Line)> {
    let last_end = points.len().checked_sub(AFTER)?;
    let mut found: Vec<((usize, usize), Line)> = Vec::new();
    for to in 1..=last_end {
        for from in 0..to {
            let line = sums.line(from + 1, to);
            if line.count >= FEWEST - 1 && line.jump.abs() >= LEAST_STEP && is_over(points, from, to, line.jump) {
                found.push(((from, to), line));
            }
        }
    }
    let best = found.iter().map(|(_, line)| line.variance).fold(f64::INFINITY, f64::min);
    found.into_iter().filter(|(_, line)| line.variance <= 2.0 * best).min_by_key(|((from, to), _)| (to - from, *from))
}

/// Whether a step has been over for longer than it paused while it went on: what rises by stairs is not over on each of them.
fn is_over(points: &[(f64, f64)], from: usize, to: usize, jump: f64) -> bool {
    let after_s = -points[to].0;
    let ramp = &points[from..=to];
    let mut start = 0;
    ramp.iter().enumerate().all(|(at, point)| {
        while (point.1 - ramp[start].1).abs() > PAUSE * jump.abs() {
            start += 1;
        }
        (ramp[at].0 - ramp[start].0) * 2.0 <= after_s
    })
}

/// A line by least squares through readings of which some in the middle are left out, with a jump where they are.
struct Line {
    slope: f64,
    slope_error: f64,
    /// What the jump adds to the line, bytes.
    jump: f64,
    /// Of a reading around the line, at least that of a batch.
    variance: f64,
    count: usize,
    /// Seconds that the readings on both sides span together.
    spans_s: f64,
}

/// Sums over the first points of a series: a line through any two sides of it takes the same few steps, however many points there are.
struct Sums<'a> {
    points: &'a [(f64, f64)],
    /// Of the points before each place: t, y, t t, t y, y y. Bytes less those of the first point, so that little is lost to rounding.
    before: Vec<[f64; 5]>,
}

impl Sums<'_> {
    fn of(points: &[(f64, f64)]) -> Sums<'_> {
        let mut sum = [0.0; 5];
        let mut before = vec![sum];
        let origin = points.first().map_or(0.0, |point| point.1);
        for (t, bytes) in points {
            let y = bytes - origin;
            for (sum, value) in sum.iter_mut().zip([*t, y, t * t, t * y, y * y]) {
                *sum += value;
            }
            before.push(sum);
        }
        Sums { points, before }
    }

    /// Count, means of t and y, and the sums of t t, t y and y y about them.
    fn side(&self, from: usize, to: usize) -> (f64, [f64; 2], [f64; 3]) {
        let count = to.saturating_sub(from) as f64;
        if count == 0.0 {
            return (0.0, [0.0; 2], [0.0; 3]);
        }
        let of = |at: usize| self.before[to][at] - self.before[from][at];
        let (t, y) = (of(0) / count, of(1) / count);
        (count, [t, y], [of(2) - count * t * t, of(3) - count * t * y, (of(4) - count * y * y).max(0.0)])
    }

    /// The line through the first `before` of the points and those from `after` on.
    fn line(&self, before: usize, after: usize) -> Line {
        let end = self.points.len();
        let (left, right) = (self.side(0, before), self.side(after, end));
        let [spread, shared, scatter] = [0, 1, 2].map(|at| left.2[at] + right.2[at]);
        let slope = if spread > 1e-9 { shared / spread } else { 0.0 };
        let residual = (scatter - slope * shared).max(0.0);
        let count = before + (end - after);
        let free = count.saturating_sub(if after == end { 2 } else { 3 }).max(1);
        let variance = residual / free as f64 + BATCH * BATCH;
        let is_whole = before == 0 || after == end;
        let length = |from: usize, to: usize| if to > from { self.points[to - 1].0 - self.points[from].0 } else { 0.0 };
        Line {
            slope,
            slope_error: if spread > 1e-9 { (variance / spread).sqrt() } else { f64::INFINITY },
            jump: if is_whole { 0.0 } else { (right.1[1] - left.1[1]) - slope * (right.1[0] - left.1[0]) },
            variance,
            count,
            spans_s: length(0, before) + length(after, end),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MIB: f64 = 1048576.0;

    /// A reading a second, in MiB.
    fn trend(seconds: u32, usage: impl Fn(f64) -> f64) -> Trend {
        let readings: Vec<(f64, u64)> = (0..=seconds).map(|s| (f64::from(s), (usage(f64::from(s)) * MIB) as u64)).collect();
        of(&readings).unwrap()
    }

    fn per_minute(trend: &Trend) -> Option<f64> {
        trend.firm().map(|slope| slope * 60.0 / MIB)
    }

    /// A cheap sequence between -1 and 1.
    fn noise(at: f64) -> f64 {
        ((at * 12.9898).sin() * 43758.5453).fract()
    }

    #[test]
    fn a_line_is_its_own_slope_and_no_step() {
        for seconds in [12, 30, 200] {
            let trend = trend(seconds, |s| 100.0 + 5.0 * s);
            assert!((per_minute(&trend).unwrap() - 300.0).abs() < 0.1, "{trend:?}");
            assert_eq!((trend.step, trend.window_s), (None, f64::from(seconds.min(30))));
        }
        assert!((per_minute(&trend(30, |s| 900.0 - 2.0 * s)).unwrap() + 120.0).abs() < 0.1, "what shrinks");
    }

    #[test]
    fn a_burst_and_then_nothing_is_a_step_and_no_growth() {
        // CASES F3: 100 MiB one second after the start, then idle.
        let found = trend(13, |s| if s >= 1.5 { 100.4 } else { 0.4 });
        assert_eq!(found.firm(), None, "{found:?}");
        let step = found.step.unwrap();
        assert_eq!((step.bytes.abs_diff(100 << 20) < 1 << 20, step.seconds, step.ended_s, step.ago_s), (true, 1.0, 2.0, 11.0));
        // The same over some seconds, and of one that falls.
        let slow = trend(25, |s| 10.0 + 20.0 * (s - 3.0).clamp(0.0, 5.0)).step.unwrap();
        assert_eq!((slow.bytes.abs_diff(100 << 20) < 2 << 20, slow.seconds, slow.ended_s), (true, 5.0, 8.0));
        assert!(trend(20, |s| if s < 8.0 { 300.0 } else { 50.0 }).step.unwrap().bytes < -(240 << 20));
    }

    #[test]
    fn what_grows_beside_a_step_has_its_growth() {
        let found = trend(30, |s| 50.0 + 0.1 * s + if s > 11.0 { 200.0 } else { 0.0 });
        assert!((per_minute(&found).unwrap() - 6.0).abs() < 0.5, "{found:?}");
        assert_eq!(found.step.unwrap().ago_s, 18.0);
    }

    #[test]
    fn a_growth_that_has_ended_is_over() {
        let found = trend(60, |s| 100.0 + 10.0 * (s - 31.0).clamp(0.0, 20.0));
        assert_eq!(found.firm(), None, "{found:?}");
        assert!(found.step.unwrap().bytes.abs_diff(200 << 20) < 4 << 20);
    }

    #[test]
    fn a_staircase_is_growth_and_what_goes_up_and_down_is_none() {
        assert!(per_minute(&trend(25, |s| 100.0 + 20.0 * (s / 5.0).floor())).is_some_and(|slope| slope > 150.0));
        let sawtooth = trend(29, |s| 100.0 + 40.0 * (s % 3.0));
        assert_eq!((sawtooth.firm(), sawtooth.step.is_none(), sawtooth.swing_bytes), (None, true, 80 << 20));
        let noisy = trend(30, |s| 500.0 + 0.2 * noise(s));
        assert_eq!((noisy.firm(), noisy.step), (None, None), "batches of charges");
    }

    #[test]
    fn growth_that_was_slower_for_a_while_is_growth() {
        // As on a machine that is busy: 4 MiB a second, but for some seconds.
        let found = trend(15, |s| 4.0 * s - 3.7 * ((s - 1.0) / 6.0).clamp(0.0, 1.0));
        assert_eq!(found.step, None, "{found:?}");
        assert!(per_minute(&found).is_some_and(|slope| slope > 180.0), "{found:?}");
    }

    #[test]
    fn nothing_is_extrapolated_from_a_short_time() {
        let short = trend(5, |s| 60.0 * s);
        assert_eq!((short.bytes_per_s, short.change_bytes, short.window_s), (None, 300 << 20, 5.0));
        assert_eq!(of(&[(0.0, 5)]), None);
        assert_eq!(of(&[(1.0, 5), (1.0, 9)]), None, "one moment");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn slow_growth_is_seen_over_a_longer_time_unless_it_ended() {
        let slow = trend(150, |s| 500.0 + 0.004 * s + 0.1 * noise(s));
        assert!((per_minute(&slow).unwrap() - 0.24).abs() < 0.1, "{slow:?}");
        assert!(slow.window_s > 100.0);
        let ended = trend(150, |s| 500.0 + 0.1 * s.min(100.0));
        assert_eq!(ended.firm(), None, "{ended:?}");
        assert!(ended.step.is_some_and(|step| step.ago_s > 40.0));
    }
}
