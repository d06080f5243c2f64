//! Which bytes of a row are shown.

use super::StackRow;
use std::fmt;
use std::str::FromStr;

/// Which bytes of a stack are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Value {
    /// Charged since the start and not yet uncharged.
    #[default]
    Live,
    /// Live at the moment at which the cgroup held most.
    Peak,
    /// Charged since the start.
    Charged,
    /// Change of what is live: in a report of `analyse::comparison::growth`, whose live bytes it is.
    Growth,
}

impl Value {
    /// The bytes of a row.
    #[must_use]
    pub fn of(self, row: &StackRow) -> u64 {
        match self {
            Value::Live | Value::Growth => row.live,
            Value::Peak => row.peak,
            Value::Charged => row.charged,
        }
    }

    /// The standard error of [`Value::of`] of a row; `None` where a row does not tell it.
    #[must_use]
    pub fn stderr(self, row: &StackRow) -> Option<u64> {
        match self {
            Value::Live | Value::Growth => Some(row.live_stderr),
            Value::Peak => Some(row.peak_stderr),
            Value::Charged => None,
        }
    }

    /// "live", "peak", "charged" or "growth".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Value::Live => "live",
            Value::Peak => "peak",
            Value::Charged => "charged",
            Value::Growth => "growth",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Value {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "live" => Ok(Value::Live),
            "peak" => Ok(Value::Peak),
            "charged" => Ok(Value::Charged),
            "growth" => Ok(Value::Growth),
            _ => Err(format!("{text:?} is not a value: use live, peak, charged or growth")),
        }
    }
}
