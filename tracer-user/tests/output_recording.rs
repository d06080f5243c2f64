//! Recordings survive cuts, damage and hostility.

#![allow(clippy::unwrap_used, reason = "tests")]

mod output_support;

use memtrail::recording::{self, Header, Mark, Problem, Recording, RecordingError, Writer};
use memtrail::report::{BinaryRow, Interval, SCHEMA, StackFile};
use output_support::*;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

struct Made {
    directory: tempfile::TempDir,
    path: PathBuf,
    /// Length of the file after the header and each frame.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

/// Header, two intervals, a report, an interval, a report, the end.
fn made() -> Made {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.mtrail");
    let length = || std::fs::metadata(&path).unwrap().len() as usize;
    let mut ends = Vec::new();
    let mut writer = Writer::create(&path, &header()).unwrap();
    ends.push(length());
    for index in 0..3 {
        writer.interval(&interval(index)).unwrap();
        ends.push(length());
        if index > 0 {
            let mut report = one_container();
            report.sampling.samples = index;
            writer.report(&report).unwrap();
            ends.push(length());
        }
    }
    writer.finish().unwrap();
    ends.push(length());
    let bytes = std::fs::read(&path).unwrap();
    Made { directory, path, ends, bytes }
}

fn read_bytes(bytes: &[u8]) -> Result<Recording, RecordingError> {
    recording::read_from(bytes, Path::new("x.mtrail"))
}

fn problem(bytes: &[u8]) -> Problem {
    match read_bytes(bytes) {
        Err(RecordingError::Content { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_written_is_read() {
    let made = made();
    let recording = recording::read(&made.path).unwrap();
    assert_eq!(recording.header, header());
    assert_eq!(recording.intervals, [interval(0), interval(1), interval(2)]);
    let mut report = one_container();
    report.sampling.samples = 2;
    assert_eq!(recording.report, Some(report));
    assert!(!recording.truncated && recording.finished);
    assert_eq!(recording.skipped_frames, 0);
}

#[test]
fn a_cut_at_any_byte_costs_the_last_frame_only() {
    let made = made();
    for length in 0..made.bytes.len() {
        let result = read_bytes(&made.bytes[..length]);
        let whole = made.ends.iter().filter(|end| **end <= length).count();
        if whole == 0 {
            let expected = if length == 0 { Problem::Foreign } else { Problem::NoHeader };
            assert_eq!(problem(&made.bytes[..length]), expected, "{length}");
            continue;
        }
        let recording = result.unwrap();
        // Frames: header, interval, interval, report, interval, report, end.
        let intervals = [0, 0, 1, 2, 2, 3, 3, 3][whole];
        let samples = [None, None, None, None, Some(1), Some(1), Some(2), Some(2)][whole];
        assert_eq!(recording.intervals.len(), intervals, "{length}");
        assert_eq!(recording.report.map(|report| report.sampling.samples), samples, "{length}");
        assert_eq!(recording.truncated, !made.ends.contains(&length), "{length}");
        assert!(!recording.finished);
    }
}

#[test]
fn it_can_be_read_while_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("live.mtrail");
    let mut writer = Writer::create(&path, &header()).unwrap();
    assert_eq!(recording::read(&path).unwrap().intervals.len(), 0);
    writer.interval(&interval(1)).unwrap();
    let recording = recording::read(&path).unwrap();
    assert_eq!((recording.intervals.len(), recording.truncated, recording.finished), (1, false, false));
    drop(writer);
    assert!(!recording::read(&path).unwrap().finished);
}

#[test]
fn flipped_bytes_are_errors_or_lost_tails_never_panics() {
    let made = made();
    let last = made.ends[made.ends.len() - 2];
    let mut random = Random::new(1);
    let original = read_bytes(&made.bytes).unwrap();
    for case in 0..6000 {
        let mut bytes = made.bytes.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        if bytes == made.bytes {
            continue;
        }
        match read_bytes(&bytes) {
            Err(error) => assert!(error.to_string().starts_with("x.mtrail: "), "case {case}: {error}"),
            // Only the last frame, torn, may be lost without an error.
            Ok(read) => {
                assert!(read.truncated && bytes[..last] == made.bytes[..last], "case {case}");
                assert_eq!(read.intervals, original.intervals);
            }
        }
    }
}

/// Sets the checksums of all frames right, so that damage gets past them.
fn repair(bytes: &mut [u8]) {
    let mut at = 12;
    while at + 20 <= bytes.len() {
        let stored = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let Some(payload) = bytes.get(at + 20..at + 20 + stored) else { return };
        let payload = crc32fast::hash(payload);
        bytes[at + 12..at + 16].copy_from_slice(&payload.to_le_bytes());
        let head = crc32fast::hash(&bytes[at..at + 16]);
        bytes[at + 16..at + 20].copy_from_slice(&head.to_le_bytes());
        at += 20 + stored;
    }
}

#[test]
fn damage_with_right_checksums_does_not_panic_either() {
    let made = made();
    let mut random = Random::new(2);
    let mut errors = 0;
    for _ in 0..4000 {
        let mut bytes = made.bytes.clone();
        for _ in 0..1 + random.below(4) {
            let at = 12 + random.below(bytes.len() - 12);
            bytes[at] = random.next() as u8;
        }
        repair(&mut bytes);
        errors += usize::from(read_bytes(&bytes).is_err());
    }
    assert!(errors > 1000, "{errors}");
}

/// A frame of any kind and payload, with right checksums.
fn frame(kind: u32, payload: &[u8], plain: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = [kind, payload.len() as u32, plain, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend_from_slice(payload);
    let mut whole = vec![0; 12];
    whole.extend(bytes);
    repair(&mut whole);
    whole.split_off(12)
}

fn packed(cbor: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(cbor, 3).unwrap()
}

/// A header, then this payload.
fn with_frame(kind: u32, cbor: &[u8]) -> Vec<u8> {
    static START: OnceLock<Vec<u8>> = OnceLock::new();
    let start = START.get_or_init(|| {
        let made = made();
        made.bytes[..made.ends[0]].to_vec()
    });
    let mut bytes = start.clone();
    bytes.extend(frame(kind, &packed(cbor), cbor.len() as u32));
    bytes
}

#[test]
fn random_cbor_does_not_panic() {
    let mut random = Random::new(3);
    for _ in 0..3000 {
        let cbor: Vec<u8> = (0..random.below(60)).map(|_| random.next() as u8).collect();
        let kind = 2 + random.below(2) as u32;
        assert!(read_bytes(&with_frame(kind, &cbor)).is_err());
    }
}

#[test]
fn hostile_sizes_are_refused_before_they_cost_memory() {
    let start = made();
    let start = &start.bytes[..start.ends[0]];
    let with = |frame: Vec<u8>| [start, &frame].concat();

    // Nested deeper than any report.
    assert!(matches!(problem(&with_frame(3, &[0x81; 100_000])), Problem::Corrupt { .. }));
    // More values than any report.
    assert!(problem(&with_frame(3, &vec![0xf6; 17 << 20])).to_string().contains("values"));
    // A string of 2^63 bytes, a list of 2^40 items.
    assert!(matches!(problem(&with_frame(3, &[0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])), Problem::Corrupt { .. }));
    assert!(matches!(problem(&with_frame(3, &[0x9b, 0, 0, 1, 0, 0, 0, 0, 0])), Problem::Corrupt { .. }));
    // A bomb behind a small promise.
    assert!(problem(&with(frame(3, &packed(&vec![0; 32 << 20]), 100))).to_string().contains("length"));
    // Lengths above the bounds, and a length that the file does not have.
    assert!(problem(&with(frame(3, &packed(b"x"), u32::MAX))).to_string().contains("more than any may have"));
    let mut long = frame(2, b"abc", 3);
    long[4..8].copy_from_slice(&(200_u32 << 20).to_le_bytes());
    let crc = crc32fast::hash(&long[..16]);
    long[16..20].copy_from_slice(&crc.to_le_bytes());
    assert!(read_bytes(&with(long)).unwrap().truncated);
}

#[test]
fn a_large_window_is_refused() {
    // Magic, no content size, window descriptor of 2^41 bytes, then an empty last raw block.
    let payload = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 31 << 3, 0x01, 0x00, 0x00];
    let made = made();
    let bytes = [&made.bytes[..made.ends[0]], &frame(2, &payload, 0)].concat();
    assert!(matches!(problem(&bytes), Problem::Corrupt { .. }));
}

#[test]
fn unknown_frames_are_passed_over() {
    let made = made();
    let at = made.ends[1];
    let bytes = [&made.bytes[..at], &frame(99, b"from a later version", 7), &made.bytes[at..]].concat();
    let read = read_bytes(&bytes).unwrap();
    assert_eq!((read.skipped_frames, read.intervals.len(), read.finished), (1, 3, true));
}

#[test]
fn foreign_newer_and_misplaced_content_is_named() {
    let made = made();
    assert_eq!(problem(b"{\"schema\": 1}"), Problem::Foreign);
    assert_eq!(problem(b"\x89MTRAIL\r\n12345"), Problem::Foreign);
    let mut newer = made.bytes.clone();
    newer[8] = 9;
    assert!(problem(&newer).to_string().contains("format 9"));
    let twice = [&made.bytes[..made.ends[1]], &made.bytes[12..made.ends[0]]].concat();
    assert!(problem(&twice).to_string().contains("second header"));
    let headless = [&made.bytes[..12], &made.bytes[made.ends[0]..]].concat();
    assert!(problem(&headless).to_string().contains("first frame"));
    assert!(problem(&[&made.bytes[..], b"x"].concat()).to_string().contains("after the end"));
    // A power failure leaves zeros.
    assert!(read_bytes(&[&made.bytes[..made.ends[3]], &[0; 5000]].concat()).unwrap().truncated);
    assert!(matches!(problem(&[&made.bytes[..made.ends[3]], &[0; 5000], b"x"].concat()), Problem::Corrupt { .. }));

    let path = made.directory.path().join("next.mtrail");
    Writer::create(&path, &Header { schema: SCHEMA + 1, ..header() }).unwrap();
    let error = recording::read(&path).unwrap_err().to_string();
    assert!(error.contains("next.mtrail") && error.contains("schema 2"), "{error}");
    let missing = recording::read(Path::new("/nonexistent/a.mtrail")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/a.mtrail: cannot open"), "{missing}");
    assert!(recording::read(made.directory.path()).is_err());
}

#[test]
fn a_new_recording_replaces_an_old_one_without_touching_its_reader() {
    let made = made();
    let mut old = std::fs::File::open(&made.path).unwrap();
    let writer = Writer::create(&made.path, &header()).unwrap();
    assert_eq!(recording::read_from(&mut old, &made.path).unwrap().intervals.len(), 3);
    assert_eq!(recording::read(writer.path()).unwrap().intervals.len(), 0);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&made.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(made.directory.path()).unwrap().count(), 1);
    let error = Writer::create(Path::new("/nonexistent/a.mtrail"), &header()).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/a.mtrail: cannot create"), "{error}");
}

#[test]
fn long_names_survive() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.mtrail");
    let mut report = one_container();
    report.cgroups[0].stacks[0].frames.push("x".repeat(70_000));
    report.cgroups[0].files[0].path = "y".repeat(9_000);
    let mut writer = Writer::create(&path, &header()).unwrap();
    writer.report(&report).unwrap();
    assert_eq!(recording::read(&path).unwrap().report, Some(report));
}

#[test]
fn a_report_too_large_for_a_frame_is_refused_and_the_recording_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&directory.path().join("r.mtrail"), &header()).unwrap();
    let mut report = empty_report();
    report.filter.pids = vec![1; 17 << 20];
    let error = writer.report(&report).unwrap_err().to_string();
    assert!(error.contains("r.mtrail: too large"), "{error}");
    writer.interval(&interval(0)).unwrap();
    assert_eq!(recording::read(writer.path()).unwrap().intervals.len(), 1);
}

/// Written by the first version of the format. If this fails, recordings of users can no longer be read: a field that was added to the
/// model needs `#[serde(default)]`.
#[test]
fn the_first_version_stays_readable() {
    let path = fixture("recording-v1.mtrail");
    if std::env::var_os("NEW_RECORDING_FIXTURE").is_some() {
        std::fs::copy(made().path, &path).unwrap();
    }
    let recording = recording::read(&path).unwrap();
    assert_eq!((recording.intervals.len(), recording.finished, recording.truncated), (3, true, false));
    assert_eq!(recording.intervals[2].cgroups["9007199254740993"].usage_bytes, Some(2 * GIB));
    let report = recording.report.unwrap();
    assert_eq!(report.sampling.samples, 2);
    assert_eq!(report.cgroups[0].stacks[0].live, 9 * GIB);
    assert_eq!(report.cgroups[0].verdicts[0].id, "glibc-arenas");
}

/// Made with memtrail 0.1.0 as of the first reports, on Linux 6.18: `record --exact` of a cgroup in which three threads keep 12 MiB from
/// malloc. Never written again: a recording of that age must stay readable, with figures that have not changed.
#[test]
fn a_recording_without_threads_and_marks_stays_readable() {
    let recording = recording::read(&fixture("recording-v1-before-threads.mtrail")).unwrap();
    assert_eq!((recording.intervals.len(), recording.finished, recording.skipped_frames), (3, true, 0));
    assert_eq!(recording.marks, []);
    let report = recording.report.unwrap();
    assert_eq!((report.sampling.mode.as_str(), report.cgroups.len()), ("exact", 1));
    let cgroup = &report.cgroups[0];
    assert_eq!(cgroup.path, "/threads/golden");
    assert_eq!(cgroup.kinds["anon"].live, Some(cgroup.stacks.iter().map(|row| row.live).sum()));
    let filled = cgroup.stacks.iter().find(|row| row.frames.iter().any(|frame| frame == "wl_fill_arena")).unwrap();
    assert_eq!((filled.status.as_str(), filled.comm.as_str()), ("complete", "memtrail-worklo"));
}

fn mark(name: &str, at_s: f64) -> Mark {
    Mark { name: name.into(), at_s, clocks: [1, 2, 3] }
}

/// Header, report 1, mark warm, interval, report 2, mark loaded, report 3, the end; and the length after each frame.
fn marked() -> (Vec<u8>, Vec<usize>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.mtrail");
    let mut writer = Writer::create(&path, &header()).unwrap();
    let mut ends = vec![];
    let mut end = || ends.push(std::fs::metadata(&path).unwrap().len() as usize);
    let report = |samples| {
        let mut report = one_container();
        report.sampling.samples = samples;
        report
    };
    end();
    writer.report(&report(1)).unwrap();
    end();
    writer.mark(&mark("warm", 1.0)).unwrap();
    end();
    writer.interval(&interval(2)).unwrap();
    end();
    writer.report(&report(2)).unwrap();
    end();
    writer.mark(&mark("loaded", 2.5)).unwrap();
    end();
    writer.report(&report(3)).unwrap();
    end();
    writer.finish().unwrap();
    (std::fs::read(&path).unwrap(), ends)
}

fn samples_at(bytes: &[u8], name: &str) -> Result<u64, String> {
    let recording = recording::read_at_from(bytes, Path::new("x.mtrail"), name).map_err(|error| error.to_string())?;
    Ok(recording.report.unwrap().sampling.samples)
}

#[test]
fn a_mark_is_the_snapshot_before_it() {
    let (bytes, ends) = marked();
    let whole = read_bytes(&bytes).unwrap();
    assert_eq!(whole.marks, [mark("warm", 1.0), mark("loaded", 2.5)]);
    assert_eq!((whole.report.unwrap().sampling.samples, whole.skipped_frames, whole.intervals.len()), (3, 0, 1));
    assert_eq!((samples_at(&bytes, "warm"), samples_at(&bytes, "loaded")), (Ok(1), Ok(2)));
    assert_eq!(samples_at(&bytes, "peak"), Err("x.mtrail: no mark peak in it: it has warm, loaded".to_owned()));
    // Cut anywhere, a mark is there or is not, and never names another snapshot.
    let around = ends.iter().flat_map(|end| [end - 1, *end, end + 1]);
    for length in around.chain((ends[0]..bytes.len()).step_by(61)).filter(|length| *length >= ends[0]) {
        let cut = &bytes[..length];
        assert_eq!(samples_at(cut, "warm").is_ok(), length >= ends[2], "{length}");
        assert_eq!(samples_at(cut, "loaded").is_ok(), length >= ends[5], "{length}");
        if length >= ends[5] {
            assert_eq!((samples_at(cut, "warm"), samples_at(cut, "loaded")), (Ok(1), Ok(2)), "{length}");
        }
    }
    let none = samples_at(&made().bytes, "warm").unwrap_err();
    assert!(none.contains("it has none") && none.contains("memtrail mark"), "{none}");
}

#[test]
fn forged_marks_do_not_deceive() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.mtrail");
    let mut writer = Writer::create(&path, &header()).unwrap();
    let hostile = "\x1b[2J\u{202e}".repeat(2000);
    writer.mark(&mark("first", f64::NAN)).unwrap();
    writer.report(&one_container()).unwrap();
    for _ in 0..30 {
        writer.mark(&mark(&hostile, -1.0)).unwrap();
    }
    let error = recording::read_at(&path, "x\x1b[m").unwrap_err().to_string();
    assert!(!error.chars().any(char::is_control) && error.len() < 4000 && error.contains("and 21 more"), "{error}");
    let first = recording::read_at(&path, "first").unwrap_err().to_string();
    assert!(first.contains("no mark first"), "a mark without a snapshot before it names none: {first}");
    assert!(recording::read_at(&path, &hostile).unwrap().report.is_some());
    let view = memtrail::output::views::marks(&recording::read(&path).unwrap().marks);
    assert!(!view.chars().any(|c| c.is_control() && c != '\n'), "{view}");
}

/// 100 cgroups of which three change a second, as on a quiet host.
fn quiet(second: u64, random: &mut Random, last: &mut Interval) {
    last.at_s = second as f64;
    last.clocks =
        [1_000_000_000 * second + random.next() % 1_000_000, 2_000_000_000 * second, 1_772_330_584_000_000_000 + 1_000_000_000 * second];
    for _ in 0..3 {
        let id = (1000 + random.below(100)).to_string();
        let cgroup = last.cgroups.entry(id).or_default();
        cgroup.usage_bytes = Some((random.next() % GIB) & !4095);
        for kind in ["anon", "file", "kernel", "shmem", "sock"] {
            cgroup.kinds.insert(kind.to_owned(), (random.next() % GIB) & !4095);
        }
    }
}

#[test]
fn an_hour_of_a_quiet_host_with_a_hundred_cgroups_is_a_megabyte() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quiet.mtrail");
    let mut writer = Writer::create(&path, &header()).unwrap();
    let (mut random, mut last) = (Random::new(7), interval(0));
    let losses = (0..30).map(|n| (format!("a_cause_of_loss_{n}"), Some(0)));
    last.losses.extend(losses);
    let mut written = Vec::new();
    for second in 0..3600 {
        quiet(second, &mut random, &mut last);
        writer.interval(&last).unwrap();
        if second % 100 == 0 {
            written.push(last.clone());
        }
    }
    writer.finish().unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    println!("{length} bytes an hour");
    assert!(length < 1_500_000, "{length}");
    let read = recording::read(&path).unwrap();
    assert_eq!(read.intervals.iter().step_by(100).cloned().collect::<Vec<_>>(), written);
    // As a version reads it that does not know changes: a whole interval a minute.
    let whole = recording::read_snapshot(&path, None).unwrap();
    assert_eq!(whole.intervals, read.intervals[3599..]);
    let mut count = 0;
    recording::read_series(&path, &mut |_| count += 1).unwrap();
    assert_eq!(count, 3600);
}

#[test]
fn changes_without_an_interval_are_damage() {
    let mut bytes = Vec::new();
    ciborium::into_writer(&serde_json::json!({ "at_s": 1.0, "clocks": [1, 2, 3] }), &mut bytes).unwrap();
    assert!(matches!(problem(&with_frame(6, &bytes)), Problem::Corrupt { .. }));
}

/// A recording with all kinds of frames of this version: `UPDATE_GOLDEN=1` makes it, once; later versions must read it.
#[test]
fn a_recording_with_changes_and_distributions_stays_readable() {
    let path = fixture("recording-v1-changes.mtrail");
    if std::env::var_os("UPDATE_GOLDEN").is_some() && !path.exists() {
        let mut writer = Writer::create(&path, &header()).unwrap();
        (0..3).for_each(|index| writer.interval(&interval(index)).unwrap());
        writer.report(&one_container()).unwrap();
        writer.mark(&mark("peak", 1.0)).unwrap();
        writer.interval(&interval(3)).unwrap();
        writer.report(&one_container()).unwrap();
        writer.finish().unwrap();
    }
    let recording = recording::read(&path).unwrap();
    assert_eq!((recording.intervals.len(), recording.finished, recording.skipped_frames), (4, true, 0));
    assert_eq!(recording.intervals[3], interval(3));
    assert_eq!(recording.marks.len(), 1);
    let row = &recording.report.unwrap().cgroups[0].histograms["charge_stall_ns"];
    assert_eq!((row.count, row.p99), (10, Some(4000)));
    let marked = recording::read_snapshot(&path, Some("peak")).unwrap();
    assert!(marked.report.is_some() && marked.intervals == recording.intervals[3..]);
}

/// All that a report of this version can hold: `UPDATE_GOLDEN=1` makes it, once; later versions must read it, with these figures.
#[test]
fn a_recording_with_files_builds_and_autopsies_stays_readable() {
    let path = fixture("recording-v1-builds.mtrail");
    if std::env::var_os("UPDATE_GOLDEN").is_some() && !path.exists() {
        let mut report = one_container();
        report.cgroups[0].stacks[0].files = vec![StackFile { path: "/var/log/app.log".into(), live: 4096 }];
        let frames = vec![report.cgroups[0].stacks[0].frames[0].clone()];
        report.binaries = vec![BinaryRow { path: "/usr/bin/java".into(), build_id: Some("0af1".into()), frames, code: vec![] }];
        // As of a version without what autopsies have since.
        let older = serde_json::json!({"time": "2026-03-01T02:04:00Z", "event": "kill", "verdict": "why", "victims": [{"comm": "java"}]});
        report.oom = vec![serde_json::from_value(older).unwrap()];
        let mut writer = Writer::create(&path, &header()).unwrap();
        writer.interval(&interval(0)).unwrap();
        writer.report(&report).unwrap();
        writer.finish().unwrap();
    }
    let recording = recording::read(&path).unwrap();
    assert_eq!((recording.intervals.len(), recording.finished, recording.skipped_frames), (1, true, 0));
    let report = recording.report.unwrap();
    assert_eq!(report.binaries[0].build_id.as_deref(), Some("0af1"));
    assert_eq!(report.cgroups[0].stacks[0].files[0].path, "/var/log/app.log");
    assert_eq!(report.oom[0].verdict.as_deref(), Some("why"));
    assert_eq!(report.oom[0].victims[0].comm.as_deref(), Some("java"));
}

/// A report from an older recording is as the schema wants it: what it lacks is null or empty.
#[test]
fn recordings_of_all_versions_become_valid_reports() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../docs/report.schema.json")).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for name in ["", "-before-threads", "-changes", "-builds"] {
        let report = recording::read(&fixture(&format!("recording-v1{name}.mtrail"))).unwrap().report.unwrap();
        let mut json = Vec::new();
        memtrail::output::json::write(&report, &mut json).unwrap();
        let json = serde_json::from_slice(&json).unwrap();
        let errors: Vec<String> = validator.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}
