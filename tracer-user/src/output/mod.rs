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
//! | [`metrics`] | series for Prometheus |
//! | [`trend`] | how usage changes, in a few words |
//! | [`diff`] | a comparison as text, JSON, folded stacks, flame graph |
//! | [`threads`] | stacks split by thread |

pub mod autopsy;
pub mod diff;
mod diff_svg;
pub mod files;
pub mod format;
pub mod histograms;
pub mod metrics;
pub mod nmt;
pub mod pods;
pub mod regions;
pub mod selection;
pub mod stream;
pub mod summary;
pub mod threads;
pub mod timeline;
pub mod trend;
pub mod views;
pub mod write;

pub use format::{Format, Source, folded, hlog, json, perfetto, pprof, svg};
pub use write::{OutputError, WriteOptions, check_target, write, write_diff, write_kills};

pub use crate::report::Value;
