//! How a cgroup's usage changes at present, as the report holds it.

use serde::{Deserialize, Serialize};

/// The change of usage over the last readings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// Seconds between the first and the last reading that count: the last half minute, or up to fifteen minutes where growth is too slow to
    /// be seen in that.
    pub window_s: f64,
    /// Last reading less the first, bytes.
    pub change_bytes: i64,
    /// Largest reading less the smallest, bytes.
    pub swing_bytes: u64,
    /// Growth in bytes a second, without the step; null from readings of less than ten seconds.
    pub bytes_per_s: Option<f64>,
    /// Its standard error.
    pub stderr_per_s: Option<f64>,
    /// A rise or fall that is over, if there was one.
    pub step: Option<Step>,
}

/// A rise or fall of usage that is over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Change, bytes; negative for a fall.
    pub bytes: i64,
    /// Seconds that it took, at most: from the last reading before it to the first after it.
    pub seconds: f64,
    /// Seconds from the start of the recording to the first reading after it.
    pub ended_s: f64,
    /// Seconds from that reading to the last one.
    pub ago_s: f64,
}

impl Trend {
    /// Bytes a second, where they are more than two of their standard errors.
    #[must_use]
    pub fn firm(&self) -> Option<f64> {
        let (slope, error) = (self.bytes_per_s?, self.stderr_per_s?);
        (slope.is_finite() && slope.abs() > 2.0 * error).then_some(slope)
    }
}
