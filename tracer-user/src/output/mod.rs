//! Outputs: one file a format, each a pure function from a report to bytes, and the one place that writes files.
//!
//! Nothing here looks at the kernel or changes a figure. What is unknown stays unknown in every format.
//!
//! | file | format |
//! |---|---|
//! | [`folded`] | folded stacks, for flamegraph.pl, inferno and speedscope |
//! | [`svg`] | a flame graph |
//! | [`json`] | the report, docs/report.schema.json |
//! | [`pprof`] | a profile for pprof and its like |
//! | [`hlog`] | distributions as a log of HdrHistogram |
//! | [`perfetto`] | kinds over time for Perfetto |
//! | [`append`] | files that grow while a recording runs |
//! | [`histograms`] | distributions as text |
//! | [`stream`] | lines of a recording while it runs |
//! | [`summary`] | the terminal summary |
//! | [`autopsy`] | OOM kills as text |
//! | [`timeline`] | memory over time to an OOM kill, as SVG or HTML |
//! | [`views`] | tables for `report --view` |
//! | [`files`] | files: the view, and their line in the summary |
//! | [`regions`] | the view of regions |
//! | [`figures`] | what the summary and the views compute from a report |
//! | [`compare`] | two reports compared |
//! | [`compare_places`] | their files and regions compared |
//! | [`diff`] | a comparison as text, JSON, folded stacks, flame graph |
//! | [`growth`] | what grew, as a report |
//! | [`merged`] | equal stacks added up |
//! | [`threads`] | stacks split by thread |
//! | [`text`] | escaping, widths, cutting of names |

pub mod append;
pub mod autopsy;
pub mod diff;
mod diff_svg;
pub mod files;
pub mod folded;
pub mod histograms;
pub mod hlog;
pub mod json;
pub mod nmt;
pub mod perfetto;
pub mod pods;
pub mod pprof;
pub mod regions;
pub mod stream;
pub mod summary;
pub mod svg;
pub mod threads;
pub mod timeline;
pub mod views;
mod write;

pub use write::{Format, OutputError, WriteOptions, check_target, directory_of, write, write_whole};

use crate::report::StackRow;
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
    /// Change of what is live: in a report of [`growth`], whose live bytes it is.
    Growth,
}

impl Value {
    /// The bytes of a row.
    #[must_use]
    pub fn of(self, row: &StackRow) -> u64 {
        match self {
            Value::Live | Value::Growth => row.live,
            Value::Charged => row.charged,
        }
    }

    /// "live", "charged" or "growth".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Value::Live => "live",
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
            "charged" => Ok(Value::Charged),
            "growth" => Ok(Value::Growth),
            _ => Err(format!("{text:?} is not a value: use live, charged or growth")),
        }
    }
}
