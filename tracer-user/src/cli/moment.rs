//! A moment of a recording as an argument: `FILE`, its end, or a mark in it.

use crate::{model::Report, recording, units};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// One side of a comparison.
pub struct Moment {
    /// As given.
    pub name: String,
    /// The recording.
    pub file: PathBuf,
    /// What it says of that moment.
    pub report: Report,
}

impl Moment {
    /// Reads `FILE`.
    pub fn read(argument: &Path) -> Result<Moment> {
        let file = argument.to_owned();
        let recording = recording::read(&file)?;
        let report = last_report(&file, recording)?;
        Ok(Moment { name: argument.display().to_string(), file, report })
    }

    /// Whether both are moments of one recording.
    pub fn is_of_the_recording_of(&self, other: &Moment) -> bool {
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        whole(&self.file) == whole(&other.file)
    }
}

/// The last snapshot, with a word where the recording is cut.
pub fn last_report(file: &Path, recording: recording::Recording) -> Result<Report> {
    if recording.truncated {
        eprintln!("memtrail: {}: the last frame is cut: showing what is whole", file.display());
    }
    let Some(report) = recording.report else {
        let seconds = recording.intervals.last().map_or(0.0, |interval| interval.at_s);
        bail!(
            "{}: it holds {} of readings and no snapshot yet: nothing to show",
            file.display(),
            units::seconds(seconds).unwrap_or_else(|| "no time".to_owned())
        );
    };
    Ok(report)
}
