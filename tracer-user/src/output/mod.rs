//! Outputs: one file a format, each a pure function from a report to bytes, one table of formats, and the one place that writes them.
//!
//! Nothing here looks at the kernel or changes a figure. What is unknown stays unknown in every format.
//!
//! | file | what |
//! |---|---|
//! | [`format`](mod@format) | the table of formats, and in its folder a file for each |
//! | [`write`](mod@write) | outputs to files and to standard output |
//! | [`stream`] | lines of a recording while it runs |
//! | [`summary`] | the terminal summary |
//! | [`autopsy`] | OOM kills as text |
//! | [`timeline`] | memory over time to an OOM kill, as SVG or HTML |
//! | [`selection`] | which cgroups, pods, containers and kinds are shown |
//! | [`views`] | tables for `report --view` |
//! | [`pods`] | the view of pods and containers |
//! | [`files`] | files: the view, and their line in the summary |
//! | [`regions`] | the view of regions |
//! | [`nmt`] | a JVM's own account beside its regions |
//! | [`histograms`] | distributions as text |
//! | [`diff`] | a comparison as text, JSON, folded stacks, flame graph |
//! | [`threads`] | stacks split by thread |

pub mod autopsy;
pub mod diff;
mod diff_svg;
pub mod files;
pub mod format;
pub mod histograms;
pub mod nmt;
pub mod pods;
pub mod regions;
pub mod selection;
pub mod stream;
pub mod summary;
pub mod threads;
pub mod timeline;
pub mod views;
pub mod write;

pub use format::{Format, Source, folded, hlog, json, perfetto, pprof, svg};
pub use write::{OutputError, WriteOptions, check_target, write, write_diff, write_kills};

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
