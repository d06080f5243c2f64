//! The table of formats: a row a format, chosen by the ending of a file's name. Everything that the program says or decides about formats
//! comes from it: which endings a verb takes, its help, docs/cli.md, the README's list, who may read the file, and what writes it.
//!
//! A new format is a file in this folder and a row here; docs/development.md says how.
//!
//! | file | format |
//! |---|---|
//! | [`folded`] | folded stacks, for flamegraph.pl, inferno and speedscope |
//! | [`svg`] | a flame graph |
//! | [`json`] | the report, docs/report.schema.json |
//! | [`pprof`] | a profile for pprof and its like |
//! | [`hlog`] | distributions as a log of HdrHistogram |
//! | [`perfetto`] | kinds over time for Perfetto |

pub mod folded;
pub mod hlog;
pub mod json;
pub mod perfetto;
pub mod pprof;
pub mod svg;

use super::{Value, autopsy, diff::Diff, timeline};
use crate::recording::{Header, Mark};
use crate::report::{Interval, Report, autopsy::Autopsy, distribution::Increment};
use std::io::{self, Write};
use std::path::Path;

/// What a file is written from. Each verb has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A running trace: `record`.
    Trace,
    /// A recording: `report`.
    Recording,
    /// A report alone: `demo`.
    Report,
    /// Two reports compared: `diff`.
    Difference,
    /// OOM kills: `oom`.
    Kills,
}

/// What a format holds of each stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stacks {
    /// It has no stacks.
    None,
    /// One of its values: live, charged or growth.
    OneValue,
    /// All that the report has.
    Whole,
}

/// One way to make a file of a format, and what it then shows, as the help says it.
#[derive(Clone, Copy, Debug)]
pub struct Way<W> {
    /// Words that go on after the ending.
    pub shows: &'static str,
    /// What writes it.
    pub write: W,
}

/// Writes a report.
pub type WriteReport = fn(&Report, Value, &mut dyn Write) -> io::Result<()>;
/// Writes a comparison.
pub type WriteDiff = fn(&Diff<'_>, &mut dyn Write) -> io::Result<()>;
/// Writes OOM kills, of which there is one at least.
pub type WriteKills = fn(&[Autopsy], &mut dyn Write) -> io::Result<()>;

/// How a format is written piece by piece, while a recording runs or from its series.
#[derive(Clone, Copy, Debug)]
pub struct WriteSeries {
    /// Begins a file.
    pub begin: fn() -> Box<dyn Growing>,
    /// It has a place for marks.
    pub holds_marks: bool,
    /// It wants what comes to the distributions.
    pub holds_distributions: bool,
}

/// A file that grows with a recording. Each method gives the bytes to append.
pub trait Growing {
    /// What the file begins with.
    fn head(&mut self, _header: &Header) -> Vec<u8> {
        Vec::new()
    }

    /// An interval. `path_of` names a cgroup by its id.
    fn interval(&mut self, _interval: &Interval, _path_of: &dyn Fn(&str) -> String) -> Vec<u8> {
        Vec::new()
    }

    /// What came to the distributions. `path_of` names a cgroup by its id.
    fn increment(&mut self, _increment: &Increment, _path_of: &dyn Fn(u64) -> String) -> Vec<u8> {
        Vec::new()
    }

    /// A mark.
    fn mark(&mut self, _mark: &Mark) -> Vec<u8> {
        Vec::new()
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// What a file's name ends with, and the dot before it.
    pub ending: &'static str,
    /// It is text, which standard output takes.
    pub is_text: bool,
    /// Only the user who traced may read the file, unless a mode is given.
    pub is_private: bool,
    /// What it holds of stacks.
    pub stacks: Stacks,
    /// From a report at the end.
    pub report: Option<Way<WriteReport>>,
    /// Piece by piece. Where there is this and `report`, `record` writes pieces, and other verbs write the report.
    pub series: Option<Way<WriteSeries>>,
    /// From two reports compared.
    pub diff: Option<Way<WriteDiff>>,
    /// From OOM kills. Such a file is private in every format.
    pub kills: Option<Way<WriteKills>>,
    /// It is the recording itself, which [`crate::recording`] writes.
    pub recording: Option<Way<()>>,
}

/// A row with nothing in it.
const NOTHING: Format = Format {
    ending: "",
    is_text: false,
    is_private: false,
    stacks: Stacks::None,
    report: None,
    series: None,
    diff: None,
    kills: None,
    recording: None,
};

/// The table. The first row is what standard output gets.
pub static FORMATS: [Format; 8] = [
    Format {
        ending: ".folded",
        is_text: true,
        stacks: Stacks::OneValue,
        report: Some(Way {
            shows: "folded stacks, for flamegraph.pl, inferno and speedscope",
            write: |report, value, writer| folded::write(report, value, writer),
        }),
        diff: Some(Way { shows: "folded stacks with two columns: before and after", write: |diff, writer| diff.folded(writer) }),
        ..NOTHING
    },
    Format {
        ending: ".svg",
        stacks: Stacks::OneValue,
        report: Some(Way { shows: "a flame graph", write: |report, value, writer| svg::write(report, value, writer) }),
        diff: Some(Way { shows: "a flame graph: red grew, blue shrank", write: |diff, writer| diff.svg(writer) }),
        kills: Some(Way { shows: "memory over time to the last kill, as a picture", write: timeline::write_svg }),
        ..NOTHING
    },
    Format {
        ending: ".json",
        is_text: true,
        stacks: Stacks::Whole,
        report: Some(Way { shows: "all of the report, as JSON", write: |report, _, writer| json::write(report, writer) }),
        diff: Some(Way { shows: "all that differs, as JSON", write: |diff, writer| diff.json(writer) }),
        kills: Some(Way { shows: "the autopsies, as JSON", write: autopsy::write_json }),
        ..NOTHING
    },
    Format {
        ending: ".pb.gz",
        stacks: Stacks::Whole,
        report: Some(Way {
            shows: "a profile, for pprof and what reads its profiles",
            write: |report, value, writer| pprof::write(report, value, writer),
        }),
        ..NOTHING
    },
    Format {
        ending: ".hlog",
        report: Some(Way {
            shows: "distributions of the whole recording, as a log of HdrHistogram",
            write: |report, _, writer| hlog::write(report, writer),
        }),
        series: Some(Way {
            shows: "distributions of each interval, as a log of HdrHistogram",
            write: WriteSeries { begin: || Box::new(hlog::Log), holds_marks: false, holds_distributions: true },
        }),
        ..NOTHING
    },
    Format {
        ending: ".pftrace",
        series: Some(Way {
            shows: "kinds of memory over time, for Perfetto's viewer",
            write: WriteSeries { begin: || Box::new(perfetto::Encoder::default()), holds_marks: true, holds_distributions: false },
        }),
        ..NOTHING
    },
    Format {
        ending: ".html",
        kills: Some(Way { shows: "the same picture in a page, with the autopsy of the last kill", write: timeline::write_html }),
        ..NOTHING
    },
    Format {
        ending: ".mtrail",
        is_private: true,
        stacks: Stacks::Whole,
        recording: Some(Way { shows: "a recording, for memtrail report and diff", write: () }),
        ..NOTHING
    },
];

impl Format {
    /// The format of a file name, whoever can write it; `-` has none.
    #[must_use]
    pub fn of(path: &Path) -> Option<&'static Format> {
        let name = path.file_name()?.as_encoded_bytes();
        FORMATS.iter().find(|format| name.ends_with(format.ending.as_bytes()))
    }

    /// The format of standard output.
    #[must_use]
    pub fn of_stdout() -> &'static Format {
        &FORMATS[0]
    }

    /// Whether it is the recording itself.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// Whether files of a recording that runs grow with it.
    #[must_use]
    pub fn grows(&self) -> bool {
        self.series.is_some() || self.is_recording()
    }

    /// Whether a recording that runs has a place for marks in it.
    #[must_use]
    pub fn holds_marks(&self) -> bool {
        self.is_recording() || self.series.is_some_and(|series| series.write.holds_marks)
    }

    /// What a file of that source shows; `None` if the format cannot be made from it.
    #[must_use]
    pub fn shows(&self, source: Source) -> Option<&'static str> {
        let report = self.report.map(|way| way.shows);
        let series = self.series.map(|way| way.shows);
        match source {
            Source::Trace => self.recording.map(|way| way.shows).or(series).or(report),
            Source::Recording => report.or(series),
            Source::Report => report,
            Source::Difference => self.diff.map(|way| way.shows),
            Source::Kills => self.kills.map(|way| way.shows),
        }
    }
}

/// The endings of files that are made from a source, as messages list them.
#[must_use]
pub fn endings(source: Source) -> String {
    let endings: Vec<&str> = FORMATS.iter().filter(|format| format.shows(source).is_some()).map(|format| format.ending).collect();
    endings.join(" ")
}

/// The short help of `-o`: what it does, and the endings.
#[must_use]
pub fn help(what: &str, source: Source) -> String {
    format!("{what}; the ending chooses the format: {}. May be given again", endings(source))
}

/// The long help of `-o`: what it does, and what each ending gives.
#[must_use]
pub fn long_help(what: &str, source: Source) -> String {
    let rows = FORMATS.iter().filter_map(|format| Some((format.ending, format.shows(source)?)));
    let rows: Vec<String> = rows.map(|(ending, shows)| format!("  {ending:<9} {shows}")).collect();
    format!("{what}; the ending chooses the format. May be given again.\n\n{}", rows.join("\n"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_ending() {
        for (name, ending) in [
            ("a.folded", Some(".folded")),
            ("dir.json/a.svg", Some(".svg")),
            ("a.b.json", Some(".json")),
            ("a.mtrail", Some(".mtrail")),
            ("a.pb.gz", Some(".pb.gz")),
            ("a.gz", None),
            ("a.hlog", Some(".hlog")),
            ("a.pftrace", Some(".pftrace")),
            ("a.html", Some(".html")),
            ("json", None),
            ("-", None),
            ("a.JSON", None),
        ] {
            assert_eq!(Format::of(Path::new(name)).map(|format| format.ending), ending, "{name}");
        }
    }

    #[test]
    fn each_source_has_its_endings() {
        assert_eq!(endings(Source::Trace), ".folded .svg .json .pb.gz .hlog .pftrace .mtrail");
        assert_eq!(endings(Source::Recording), ".folded .svg .json .pb.gz .hlog .pftrace");
        assert_eq!(endings(Source::Report), ".folded .svg .json .pb.gz .hlog");
        assert_eq!(endings(Source::Difference), ".folded .svg .json");
        assert_eq!(endings(Source::Kills), ".svg .json .html");
    }

    #[test]
    fn rows_are_whole() {
        for (row, format) in FORMATS.iter().enumerate() {
            assert!(format.ending.starts_with('.') && format.ending.len() > 1, "{row}");
            let sources = [Source::Trace, Source::Recording, Source::Report, Source::Difference, Source::Kills];
            let shown: Vec<&str> = sources.iter().filter_map(|source| format.shows(*source)).collect();
            assert!(!shown.is_empty(), "{}: nobody can write it", format.ending);
            assert!(shown.iter().all(|shows| shows.len() > 5 && !shows.ends_with('.')), "{shown:?}");
            // An ending that is the end of another would hide one of them.
            let hides = |other: &Format| other.ending != format.ending && other.ending.ends_with(format.ending);
            assert!(!FORMATS.iter().any(hides), "{}", format.ending);
        }
        assert!(Format::of_stdout().is_text && Format::of_stdout().report.is_some() && Format::of_stdout().diff.is_some());
    }

    #[test]
    fn the_help_names_every_ending_of_its_source_and_no_other() {
        for source in [Source::Trace, Source::Difference, Source::Kills] {
            for format in &FORMATS {
                let is_named = format.shows(source).is_some();
                assert_eq!(help("Write", source).contains(format.ending), is_named, "{}", format.ending);
                assert_eq!(long_help("Write", source).contains(&format!("\n  {} ", format.ending)), is_named, "{}", format.ending);
            }
        }
    }
}
