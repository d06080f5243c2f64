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

pub use crate::report::Value;
