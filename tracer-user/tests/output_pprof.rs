//! The profile, read by a decoder of the wire format that shares nothing with the encoder but the published field numbers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod output_support;

use flate2::read::GzDecoder;
use memtrail::output::{Value, pprof};
use memtrail::report::{BinaryRow, Cgroup, Report, StackFile, StackRow, ThreadRow};
use output_support::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// Fields of a message: numbers, and bytes.
#[derive(Debug, Default)]
struct Fields<'a> {
    numbers: BTreeMap<u64, Vec<u64>>,
    bytes: BTreeMap<u64, Vec<&'a [u8]>>,
}

fn varint(rest: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, after) = rest.split_first().unwrap();
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return number;
        }
        shift += 7;
    }
}

impl<'a> Fields<'a> {
    fn of(mut rest: &'a [u8]) -> Fields<'a> {
        let mut fields = Fields::default();
        while !rest.is_empty() {
            let tag = varint(&mut rest);
            match tag & 7 {
                0 => fields.numbers.entry(tag >> 3).or_default().push(varint(&mut rest)),
                2 => {
                    let length = varint(&mut rest) as usize;
                    let (bytes, after) = rest.split_at(length);
                    fields.bytes.entry(tag >> 3).or_default().push(bytes);
                    rest = after;
                }
                wire => panic!("wire type {wire}"),
            }
        }
        fields
    }

    fn number(&self, field: u64) -> u64 {
        self.numbers.get(&field).map_or(0, |numbers| *numbers.last().unwrap())
    }

    /// Repeated numbers: packed, or one by one.
    fn list(&self, field: u64) -> Vec<u64> {
        let mut list = self.numbers.get(&field).cloned().unwrap_or_default();
        for bytes in self.bytes.get(&field).into_iter().flatten() {
            let mut rest = *bytes;
            while !rest.is_empty() {
                list.push(varint(&mut rest));
            }
        }
        list
    }

    fn messages(&self, field: u64) -> Vec<Fields<'a>> {
        self.bytes.get(&field).into_iter().flatten().map(|bytes| Fields::of(bytes)).collect()
    }
}

/// A sample in words.
#[derive(Debug, PartialEq)]
struct Sample {
    frames: Vec<String>,
    values: Vec<u64>,
    labels: BTreeMap<String, String>,
}

struct Profile {
    types: Vec<(String, String)>,
    samples: Vec<Sample>,
    mappings: BTreeMap<String, u64>,
    /// Build ids by file.
    builds: BTreeMap<String, String>,
    /// The file that a frame is in.
    places: BTreeMap<String, String>,
    preferred: String,
    period: u64,
    times: [u64; 2],
    comments: Vec<String>,
}

/// Decodes, and checks what readers rely on: string 0 is empty, ids are unique and not zero, references lead somewhere.
fn read(report: &Report, value: Value) -> Profile {
    let mut compressed = Vec::new();
    pprof::write(report, value, &mut compressed).unwrap();
    let mut raw = Vec::new();
    GzDecoder::new(compressed.as_slice()).read_to_end(&mut raw).unwrap();
    let profile = Fields::of(&raw);
    let strings: Vec<String> = profile.bytes[&6].iter().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect();
    assert_eq!(strings[0], "");
    assert_eq!(strings.iter().collect::<BTreeSet<_>>().len(), strings.len(), "strings are written once");
    let string = |index: u64| strings[index as usize].clone();
    let types: Vec<_> = profile.messages(1).iter().map(|kind| (string(kind.number(1)), string(kind.number(2)))).collect();
    let functions: BTreeMap<u64, String> = profile.messages(5).iter().map(|f| (f.number(1), string(f.number(2)))).collect();
    let mappings: BTreeMap<u64, String> = profile.messages(3).iter().map(|m| (m.number(1), string(m.number(5)))).collect();
    let builds = profile.messages(3).iter().map(|m| (string(m.number(5)), string(m.number(6)))).collect();
    let limits = profile.messages(3).iter().map(|m| (string(m.number(5)), m.number(3))).collect();
    let (mut locations, mut places) = (BTreeMap::new(), BTreeMap::new());
    for location in profile.messages(4) {
        let [line] = location.messages(4).try_into().unwrap();
        assert!(location.number(2) == 0 || mappings.contains_key(&location.number(2)));
        if let Some(file) = mappings.get(&location.number(2)) {
            places.insert(functions[&line.number(1)].clone(), file.clone());
        }
        let before = locations.insert(location.number(1), functions[&line.number(1)].clone());
        assert!(before.is_none() && location.number(1) > 0);
    }
    let mut samples = Vec::new();
    for sample in profile.messages(2) {
        let values = sample.list(2);
        assert_eq!(values.len(), types.len());
        let mut labels = BTreeMap::new();
        for label in sample.messages(3) {
            let text = if label.number(2) != 0 { string(label.number(2)) } else { label.number(3).to_string() };
            labels.insert(string(label.number(1)), text);
        }
        samples.push(Sample { frames: sample.list(1).iter().rev().map(|id| locations[id].clone()).collect(), values, labels });
    }
    Profile {
        samples,
        mappings: limits,
        builds,
        places,
        preferred: string(profile.number(14)),
        period: profile.number(12),
        times: [profile.number(9), profile.number(10)],
        comments: profile.list(13).into_iter().map(string).collect(),
        types,
    }
}

fn sum(profile: &Profile, index: usize) -> u64 {
    profile.samples.iter().map(|sample| sample.values[index]).sum()
}

#[test]
fn a_report_is_a_profile() {
    let report = one_container();
    let profile = read(&report, Value::Live);
    let names: Vec<&str> = profile.types.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["live_bytes", "live_objects", "charged_bytes", "charged_objects", "peak_bytes", "peak_objects"]);
    assert_eq!(
        profile.types.iter().map(|(_, unit)| unit.as_str()).collect::<Vec<_>>(),
        ["bytes", "pages", "bytes", "pages", "bytes", "pages"]
    );
    assert_eq!((profile.preferred.as_str(), profile.period), ("live_bytes", MIB));
    assert_eq!(read(&report, Value::Charged).preferred, "charged_bytes");
    assert_eq!(read(&report, Value::Peak).preferred, "peak_bytes");
    assert_eq!(profile.times, [1_772_330_584_000_000_000, 140_000_000_000]);
    assert!(profile.comments[0].starts_with("memtrail "));
    // One sample for each thread, and the rest.
    let java: Vec<&Sample> = profile.samples.iter().filter(|sample| sample.frames == report.cgroups[0].stacks[0].frames).collect();
    let value = |index: usize| java.iter().map(|sample| sample.values[index]).sum::<u64>();
    assert_eq!((java.len(), value(0), value(2), value(4)), (3, 9 * GIB, 9 * GIB + 9 * GIB / 4, 9 * GIB + 9 * GIB / 8));
    assert!(java.iter().all(|sample| sample.values[1] == sample.values[0].div_ceil(4096)));
    let labels = java[0].labels.iter().map(|(key, text)| (key.as_str(), text.as_str()));
    let labels: Vec<(&str, &str)> = labels.filter(|(key, _)| !["tid", "thread"].contains(key)).collect();
    let cgroup = report.cgroups[0].path.as_str();
    assert_eq!(
        labels,
        [
            ("cgroup", cgroup),
            ("comm", "java"),
            ("container", "web"),
            ("container_id", "web"),
            ("kind", "anon"),
            ("pid", "4711"),
            ("pod", "cart-7"),
            ("pod_uid", "cart-7"),
            ("region", "glibc-arena")
        ]
    );
    let is_whole = |sample: &Sample| sample.frames == ["[no stack]"];
    assert!(profile.samples.iter().any(is_whole), "readers leave out a sample without a place");
    assert_eq!(profile.mappings["libjvm.so"], 0x8e12f1);
    assert!(profile.mappings.contains_key("[kernel.kallsyms]"));
}

#[test]
fn files_and_threads_are_labels_and_frames_have_their_builds() {
    let file = |path: &str, live| StackFile { path: path.into(), live };
    let thread = |tid, comm: Option<&str>, live| ThreadRow { tid, comm: comm.map(Into::into), live, live_stderr: 0 };
    let row = |kind: &str, live, charged| StackRow {
        charged,
        ..stack(kind, "other", "a", "complete", &["main", "grow", "[a+0x10]", "f_[k]"], live)
    };
    let stacks = vec![
        StackRow { files: vec![file("/log", 60), file("/idx", 30)], ..row("file", 100, 150) },
        StackRow { threads: Some(vec![thread(Some(7), Some("io"), 70), thread(None, None, 30)]), ..row("anon", 100, 100) },
        // Forged: files of more than there is.
        StackRow { files: vec![file("/big", u64::MAX)], ..row("shmem", 10, 4) },
    ];
    let binary = |path: &str, build_id: Option<&str>, frames: &[&str]| BinaryRow {
        path: path.into(),
        build_id: build_id.map(Into::into),
        frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
        code: vec![],
    };
    let binaries = vec![
        binary("/usr/bin/a", Some("ab01"), &["[a+0x10]", "grow", "main"]),
        binary("/usr/bin/b", Some("cd02"), &["main"]),
        binary("/proc/7/root/usr/bin/a", Some("ab01"), &["grow"]),
        binary("[kernel.kallsyms]", Some("ff02"), &[]),
        binary("x", None, &[]),
    ];
    let named = Cgroup { pod: Some("u1".into()), pod_name: Some("cart-7".into()), namespace: Some("shop".into()), ..Cgroup::default() };
    let cgroups = vec![Cgroup { path: "/c".into(), container: Some("0123".into()), container_name: Some("web".into()), stacks, ..named }];
    let profile = read(&Report { cgroups, binaries, ..empty_report() }, Value::Live);
    let parts: Vec<(&str, u64, u64, u64)> = profile
        .samples
        .iter()
        .map(|sample| {
            let own = ["file", "tid"].iter().find_map(|key| sample.labels.get(*key));
            (own.map_or("", String::as_str), sample.values[0], sample.values[2], sample.values[4])
        })
        .collect();
    let expected = [
        ("/log", 60, 60, 60),
        ("/idx", 30, 30, 30),
        ("", 10, 60, 22),
        ("7", 70, 70, 70),
        ("", 30, 30, 42),
        ("/big", 10, 4, 10),
        ("", 0, 0, 1),
    ];
    assert_eq!(parts, expected);
    assert_eq!(profile.samples[3].labels["thread"], "io");
    let labels = &profile.samples[0].labels;
    assert_eq!(["pod", "namespace", "container", "container_id"].map(|key| labels[key].as_str()), ["cart-7", "shop", "web", "0123"]);
    let builds: Vec<_> = profile.builds.iter().map(|(path, id)| (path.as_str(), id.as_str())).collect();
    assert_eq!(builds, [("/usr/bin/a", "ab01"), ("[kernel.kallsyms]", "ff02")]);
    assert_eq!(profile.places["grow"], "/usr/bin/a");
    assert!(!profile.places.contains_key("main"), "a name that several files have is of none");
    assert_eq!(profile.mappings["/usr/bin/a"], 0x11);
}

#[test]
fn totals_are_the_ledgers_and_names_stay_as_they_are() {
    for seed in 0..200 {
        let report = hostile_report(&mut Random::new(seed));
        let profile = read(&report, Value::Live);
        let rows: Vec<_> = report.cgroups.iter().flat_map(|cgroup| &cgroup.stacks).collect();
        assert_eq!(sum(&profile, 0), rows.iter().map(|row| row.live).sum::<u64>(), "seed {seed}");
        assert_eq!(sum(&profile, 2), rows.iter().map(|row| row.charged).sum::<u64>(), "seed {seed}");
        let mut samples = profile.samples.iter();
        for row in rows.iter().filter(|row| row.live > 0 || row.charged > 0) {
            let (mut live, mut charged) = (0, 0);
            while (live, charged) != (row.live, row.charged) {
                let sample = samples.next().unwrap();
                (live, charged) = (live + sample.values[0], charged + sample.values[2]);
                assert!(row.frames.is_empty() || sample.frames == row.frames, "seed {seed}");
                assert_eq!(sample.labels.get("comm").map_or("", String::as_str), row.comm, "seed {seed}");
            }
        }
        assert!(samples.next().is_none());
    }
}

#[test]
fn empty_and_forged_reports_are_profiles_too() {
    assert_eq!(read(&empty_report(), Value::Live).samples.len(), 0);
    let forged = stack("anon", "", "", "none", &["[+0x1]", "[x+0x]", "[x+0xffffffffffffffffff]", "[x+0xffffffffffffffff]"], u64::MAX);
    let cgroups = vec![Cgroup { stacks: vec![forged], ..Cgroup::default() }];
    let report = Report { cgroups, duration_s: f64::INFINITY, started: "yesterday".into(), ..Report::default() };
    let profile = read(&report, Value::Live);
    assert_eq!(profile.samples[0].values[0], i64::MAX as u64);
    assert_eq!(profile.mappings.keys().collect::<Vec<_>>(), ["x"]);
    assert_eq!(profile.times[0], 0);
}
