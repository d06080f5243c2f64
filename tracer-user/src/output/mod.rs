//! Outputs: one file a format, each a pure function from a report to bytes, and the one place that writes files.
//!
//! Nothing here looks at the kernel or changes a figure. What is unknown stays unknown in every format.
//!
//! | file | format |
//! |---|---|
//! | [`folded`] | folded stacks, for flamegraph.pl, inferno and speedscope |
//! | [`svg`] | a flame graph |
//! | [`json`] | the report, docs/report.schema.json |
//! | [`summary`] | the terminal summary |
//! | [`views`] | tables for `report --view` |
//! | [`regions`] | the view of regions |
//! | [`figures`] | what the summary and the views compute from a report |
//! | [`merged`] | equal stacks added up |
//! | [`text`] | escaping, widths, cutting of names |

pub mod figures;
pub mod folded;
pub mod json;
pub mod merged;
pub mod regions;
pub mod summary;
pub mod svg;
pub mod text;
pub mod views;
mod write;

pub use write::{Format, OutputError, WriteOptions, check_target, directory_of, write};

use crate::model::StackRow;
use std::fmt;
use std::str::FromStr;

/// Which bytes of a stack are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Value {
    /// Charged since the start and not yet uncharged.
    #[default]
    Live,
    /// Charged since the start.
    Charged,
}

impl Value {
    /// The bytes of a row.
    #[must_use]
    pub fn of(self, row: &StackRow) -> u64 {
        match self {
            Value::Live => row.live,
            Value::Charged => row.charged,
        }
    }

    /// "live" or "charged".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Value::Live => "live",
            Value::Charged => "charged",
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
            "charged" => Ok(Value::Charged),
            _ => Err(format!("{text:?} is not a value: use live or charged")),
        }
    }
}
