//! A moment as an argument: `FILE`, the end of a recording; `FILE@MARK`, a mark in it; or what a memtrail that serves knows now, by its address or
//! the path of its socket.

use super::patience::Patience;
use crate::{
    recording::{self, Header, Recording},
    report::Report,
    serve::{access, client},
    text::units,
};
use anyhow::{Context as _, Result, bail};
use std::{
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

/// The variable with the path of the file in which the token stands that a memtrail asked by address wants to see.
const TOKEN_FILE: &str = "MEMTRAIL_TOKEN_FILE";

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
pub fn read(file: &Path, mark: Option<&str>) -> Result<Recording> {
    let _patience = Patience::with(&format!("reading {}", file.display()));
    if !is_served(file) {
        return Ok(recording::read_snapshot(file, mark)?);
    }
    if let Some(mark) = mark {
        bail!("{}: it is asked for now, and has no mark {mark:?}", file.display());
    }
    let report = ask(file, "/report")?;
    let header = Header { tool: report.tool.clone(), schema: report.schema, host: report.host.clone(), started: report.started.clone() };
    let (intervals, marks) = (Vec::new(), Vec::new());
    Ok(Recording { header, intervals, report: Some(report), marks, truncated: false, finished: false, skipped_frames: 0 })
}

/// Whether an argument is no recording but a memtrail that serves.
pub fn is_served(argument: &Path) -> bool {
    argument.to_str().is_some_and(|text| text.starts_with("http://"))
        || argument.metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// What a memtrail that serves knows now: the report at a path of it.
pub fn ask(of: &Path, path: &str) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot ask")?;
    let answer = match of.to_str().filter(|text| text.starts_with("http://")) {
        Some(address) => {
            let token = std::env::var_os(TOKEN_FILE).map(|file| access::read_token(Path::new(&file)));
            let token = token.transpose().map_err(|error| anyhow::anyhow!("{TOKEN_FILE}: {error}"))?;
            runtime.block_on(client::get(address, path, token.as_deref()))?
        }
        None => runtime.block_on(client::get_by_socket(of, path))?,
    };
    serde_json::from_slice(&answer).with_context(|| format!("{}: what it answers is no report", of.display()))
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
