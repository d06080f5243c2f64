use super::*;
use crate::cli::{Cli, Verb as Command, drive::MOST_FAILURES, traced_double::Double};
use crate::recording::read;
use clap::Parser as _;
use std::{os::unix::fs::PermissionsExt as _, path::Path};

const OUTPUTS: [&str; 4] = ["a.mtrail", "a.json", "a.hlog", "a.pftrace"];

fn arguments(folder: &Path, more: &[&str]) -> RecordArgs {
    let mut line = ["memtrail", "record", "--interval", "1ms"].map(str::to_owned).to_vec();
    for name in OUTPUTS {
        line.extend(["-o".to_owned(), folder.join(name).display().to_string()]);
    }
    line.extend(["--stream".to_owned(), folder.join("a.jsonl").display().to_string()]);
    line.extend(more.iter().map(|argument| (*argument).to_owned()));
    match Cli::parse_from(line).verb {
        Command::Record(args) => args,
        _ => unreachable!("the verb is record"),
    }
}

/// Ends after so many readings; makes a mark after the second if it is to.
struct Counted {
    recorded: Recorded,
    left: u32,
    makes_mark: bool,
}

impl Task<Double> for Counted {
    fn tick(&mut self, trace: &mut Double) -> Result<()> {
        self.left -= 1;
        if self.makes_mark && trace.readings == 2 {
            self.recorded.series.mark("loaded", trace)?;
        }
        self.recorded.tick(trace)
    }

    fn is_over(&self) -> bool {
        self.left == 0
    }
}

/// Records from a double until it has been read so often, or fails.
fn record(args: &RecordArgs, trace: &mut Double, readings: u32, makes_mark: bool) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let series = Series::begin(trace, wanted(args))?;
    let mut verb = Counted { recorded: Recorded { series }, left: readings, makes_mark };
    let drive =
        Drive { interval: args.interval, duration: None, interrupts: None, command: None, marking: None, asks: None, shows_time: false };
    let driven = runtime.block_on(async { drive.run(trace, &mut verb).await });
    Ended::of(trace, verb.recorded.series, driven).write(args)
}

fn lines(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("a.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_reading_that_fails_once_is_a_gap_and_a_loss() {
    let folder = tempfile::tempdir().unwrap();
    let args = arguments(folder.path(), &[]);
    let mut trace = Double { reading_fails: |n| n == 2, report_fails: |n| n == 0, ..Double::new() };
    let report = record(&args, &mut trace, 5, false).unwrap();
    assert_eq!(report.losses.get(READING_FAILED), Some(&Some(1)));
    assert!(status::lost(&report.losses), "the exit status says so");
    let recording = read(&folder.path().join("a.mtrail")).unwrap();
    assert!(recording.finished && recording.report.is_some());
    assert_eq!(recording.intervals.iter().map(|interval| interval.at_s).collect::<Vec<_>>(), [1.0, 2.0, 4.0, 5.0]);
    assert!(OUTPUTS.iter().all(|name| folder.path().join(name).exists()));
}

#[test]
fn a_recording_that_fails_at_its_end_keeps_what_it_read() {
    let folder = tempfile::tempdir().unwrap();
    let args = arguments(folder.path(), &[]);
    let mut trace = Double { report_fails: |_| true, ..Double::new() };
    let error = format!("{:#}", record(&args, &mut trace, 4, false).unwrap_err());
    assert!(error.contains("the report of the end cannot be made: STACKS"), "{error}");
    assert_eq!(trace.reports, TRIES);
    let recording = read(&folder.path().join("a.mtrail")).unwrap();
    assert!(recording.finished && recording.report.is_none());
    assert_eq!(recording.intervals.len(), 4);
    let types: Vec<_> = lines(folder.path()).iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types, ["interval", "interval", "interval", "interval", "end"]);
    assert!(std::fs::metadata(folder.path().join("a.pftrace")).unwrap().len() > 0);
    assert!(!folder.path().join("a.json").exists(), "there was never anything to write to it");
}

#[test]
fn outputs_are_made_from_the_last_whole_snapshot_where_there_is_no_report_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let args = arguments(folder.path(), &[]);
    // The first is the mark's.
    let mut trace = Double { report_fails: |n| n > 0, reading_fails: |n| n > 4, ..Double::new() };
    let error = record(&args, &mut trace, 1000, true).unwrap_err();
    assert!(format!("{error:#}").contains("STACKS"), "{error:#}");
    assert_eq!(trace.readings, 5 + MOST_FAILURES);
    let recording = read(&folder.path().join("a.mtrail")).unwrap();
    assert!(recording.finished);
    assert_eq!(recording.report.unwrap().duration_s, 2.0);
    assert_eq!(recording.intervals.len(), 5);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("a.json")).unwrap()).unwrap();
    assert_eq!(json["duration_s"], 2.0);
    assert_eq!(json["losses"][READING_FAILED], u64::from(MOST_FAILURES));
}

#[test]
fn a_mode_is_that_of_every_file() {
    let mode_of = |path: std::path::PathBuf| path.metadata().unwrap().permissions().mode() & 0o7777;
    let folder = tempfile::tempdir().unwrap();
    let args = arguments(folder.path(), &["--mode", "0646"]);
    record(&args, &mut Double::new(), 2, false).unwrap();
    for name in OUTPUTS.iter().chain(&["a.jsonl"]) {
        assert_eq!(mode_of(folder.path().join(name)), 0o646, "{name}");
    }
    // Without it a file that is replaced, or written in place, gets the mode of a new one.
    let args = arguments(folder.path(), &[]);
    record(&args, &mut Double::new(), 2, false).unwrap();
    for name in ["a.mtrail", "a.jsonl"] {
        assert_eq!(mode_of(folder.path().join(name)), 0o600, "{name}");
    }
}
