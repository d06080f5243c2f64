//! Files appear whole or not at all, and every refusal names the file and the way out.

#![allow(clippy::unwrap_used, reason = "tests")]

mod output_support;

use memtrail::output::{Format, OutputError, Source, WriteOptions, check_target, write};
use output_support::*;
use std::os::unix::fs::symlink;
use std::path::Path;

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn each_ending_gives_its_format() {
    let directory = tempfile::tempdir().unwrap();
    for (name, start) in [("a.folded", "/kubepods"), ("a.svg", "<?xml"), ("a.json", "{\n  \"schema\": 1,")] {
        let path = directory.path().join(name);
        check_target(&path, Source::Trace).unwrap();
        assert!(!path.exists(), "checking leaves nothing behind");
        std::fs::write(&path, "old").unwrap();
        write(&path, &one_container(), WriteOptions::default()).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with(start), "{name}");
    }
    assert_eq!(entries(directory.path()), 3);
}

#[test]
fn unknown_endings_name_the_known_ones() {
    for name in ["a.pb", "a.gz", "a.hlogs", "a", "folded", "a.txt", ".folded.gz"] {
        let path = Path::new(name);
        let errors = [
            (check_target(path, Source::Trace).unwrap_err(), ".folded .svg .json .pb.gz .hlog .pftrace .mtrail"),
            (check_target(path, Source::Kills).unwrap_err(), ".svg .json .html"),
            (write(path, &one_container(), WriteOptions::default()).unwrap_err(), ".folded .svg .json .pb.gz .hlog"),
        ];
        for (error, known) in errors {
            let text = error.to_string();
            assert!(text.starts_with(&format!("{name}: unknown ending")) && text.ends_with(known), "{text}");
            assert_eq!(text.lines().count(), 1);
        }
    }
}

#[test]
fn a_recording_is_a_target_but_not_an_output_of_a_report() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mtrail");
    check_target(&path, Source::Trace).unwrap();
    assert!(matches!(check_target(&path, Source::Recording), Err(OutputError::Recording(_))));
    assert!(matches!(check_target(&path, Source::Difference), Err(OutputError::NotOfDiff(_))));
    let trace = directory.path().join("a.pftrace");
    check_target(&trace, Source::Recording).unwrap();
    assert!(matches!(check_target(&trace, Source::Report), Err(OutputError::Series(_))));
    let page = directory.path().join("a.html");
    check_target(&page, Source::Kills).unwrap();
    assert!(matches!(check_target(&page, Source::Trace), Err(OutputError::UnknownEnding { .. })));
    assert!(matches!(write(&path, &one_container(), WriteOptions::default()), Err(OutputError::Recording(_))));
    assert_eq!(entries(directory.path()), 0);
}

#[test]
fn targets_that_cannot_be_written_are_refused_before_tracing() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none/a.json");
    assert!(matches!(check_target(&missing, Source::Trace), Err(OutputError::NoDirectory { .. })));
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(check_target(&file.join("a.json"), Source::Trace), Err(OutputError::NoDirectory { .. })));
    let in_the_way = directory.path().join("dir.json");
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(matches!(check_target(&in_the_way, Source::Trace), Err(OutputError::NotFile(_))));
    let error = write(&missing, &one_container(), WriteOptions::default()).unwrap_err().to_string();
    assert!(error.contains("none/a.json") && error.contains("is not a directory"), "{error}");
    // procfs takes no files, not even from root.
    assert!(matches!(check_target(Path::new("/proc/a.json"), Source::Trace), Err(OutputError::Io { .. })));
}

#[test]
fn a_symbolic_link_is_replaced_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (target, link) = (directory.path().join("precious"), directory.path().join("a.json"));
    std::fs::write(&target, "precious").unwrap();
    symlink(&target, &link).unwrap();
    write(&link, &one_container(), WriteOptions::default()).unwrap();
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    assert!(!link.is_symlink());
}

#[test]
fn standard_output_takes_text_only() {
    check_target(Path::new("-"), Source::Trace).unwrap();
    let stdout = Format::of(Path::new("a.svg")).unwrap();
    let options = WriteOptions { stdout, ..WriteOptions::default() };
    assert!(matches!(write(Path::new("-"), &one_container(), options), Err(OutputError::Stdout)));
}
