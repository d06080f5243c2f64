//! A moment of a recording as an argument: `FILE`, its end, or a mark in it.

use super::patience::Patience;
use crate::{recording, report::Report, text::units};
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
    /// Reads `FILE`, or `FILE@MARK`. A file of the whole name is a file.
    pub fn read(argument: &Path) -> Result<Moment> {
        let (file, mark) = split(argument).filter(|_| !argument.exists()).unwrap_or((argument, None));
        let recording = read(file, mark)?;
        let report = last_report(file, recording)?;
        Ok(Moment { name: argument.display().to_string(), file: file.to_owned(), report })
    }

    /// Whether both are moments of one recording.
    pub fn is_of_the_recording_of(&self, other: &Moment) -> bool {
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        whole(&self.file) == whole(&other.file)
    }
}

/// The snapshot of a mark, or the last one, with a word where that takes long.
pub fn read(file: &Path, mark: Option<&str>) -> Result<recording::Recording, recording::RecordingError> {
    let _patience = Patience::with(&format!("reading {}", file.display()));
    recording::read_snapshot(file, mark)
}

/// File and mark of `FILE@MARK`. A mark has no @, a file may.
fn split(argument: &Path) -> Option<(&Path, Option<&str>)> {
    let (file, mark) = argument.to_str()?.rsplit_once('@')?;
    (!file.is_empty()).then_some((Path::new(file), Some(mark)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_after_the_last_at() {
        let split = |text| split(Path::new(text)).map(|(file, mark)| (file.to_str().unwrap().to_owned(), mark.unwrap().to_owned()));
        assert_eq!(split("a@b.mtrail@peak"), Some(("a@b.mtrail".to_owned(), "peak".to_owned())));
        assert_eq!(split("a.mtrail"), None);
        assert_eq!(split("@peak"), None);
    }
}
