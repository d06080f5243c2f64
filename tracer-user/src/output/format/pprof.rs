//! The report as a profile for `pprof` and everything that reads its format (`.pb.gz`): <https://github.com/google/pprof>, profile.proto.
//!
//! Samples are stack rows with their live and charged bytes, and as objects their pages, apart for each file or thread; cgroup, process, kind
//! and region are labels (`pprof -tagroot cgroup,comm`). Sums equal those of the rows to the byte: what has no stack, memory older than the recording, is not in it.
//! Names are written as they are, unlike in texts: a reader escapes what it prints.

use crate::output::Value;
use crate::report::{BinaryRow, Cgroup, Report, StackRow};
use crate::text::{date, source};
use flate2::{Compression, GzBuilder};
use prost::Message;
use std::collections::HashMap;
use std::io::{self, Write};

/// The only frame of a stack without frames: readers leave out samples without a place.
const NO_STACK: &str = "[no stack]";

/// Writes the profile, compressed. `value` is what viewers show first.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, value: Value, writer: impl Write) -> io::Result<()> {
    compress(&profile(report, Shape::whole(value)), writer)
}

/// The same with one value alone, under the name that the profiles of Go's runtime give it: viewers know by that name how it adds up. What is
/// shown is called `subject`, which stands where the name of the program would.
///
/// # Errors
/// When the writer fails.
pub fn write_for_viewers(report: &Report, value: Value, subject: &str, writer: impl Write) -> io::Result<()> {
    compress(&profile(report, Shape { subject: Some(subject), ..Shape::of_go(value) }), writer)
}

fn compress(profile: &Profile, writer: impl Write) -> io::Result<()> {
    // Without a time in the head, so that equal reports give equal files.
    let mut gzip = GzBuilder::new().mtime(0).write(writer, Compression::default());
    gzip.write_all(&profile.encode_to_vec())?;
    gzip.finish()?.flush()
}

/// Name and unit of a type of value, which value of a row it is, and whether it is told in pages.
type SampleType = (&'static str, &'static str, Value, bool);

/// Which values a profile has.
struct Shape<'a> {
    types: &'static [SampleType],
    /// What viewers show first.
    preferred: &'static str,
    /// What stands where the name of the program would.
    subject: Option<&'a str>,
    /// It is of a moment and not of a time.
    is_instant: bool,
}

impl Shape<'_> {
    fn whole(value: Value) -> Shape<'static> {
        const TYPES: &[SampleType] = &[
            ("live_bytes", "bytes", Value::Live, false),
            ("live_objects", "pages", Value::Live, true),
            ("charged_bytes", "bytes", Value::Charged, false),
            ("charged_objects", "pages", Value::Charged, true),
            ("peak_bytes", "bytes", Value::Peak, false),
            ("peak_objects", "pages", Value::Peak, true),
        ];
        let preferred = match value {
            Value::Charged => "charged_bytes",
            Value::Peak => "peak_bytes",
            Value::Live | Value::Growth => "live_bytes",
        };
        Shape { types: TYPES, preferred, subject: None, is_instant: false }
    }

    fn of_go(value: Value) -> Shape<'static> {
        const LIVE: &[SampleType] = &[("inuse_objects", "count", Value::Live, true), ("inuse_space", "bytes", Value::Live, false)];
        const CHARGED: &[SampleType] = &[("alloc_objects", "count", Value::Charged, true), ("alloc_space", "bytes", Value::Charged, false)];
        const PEAK: &[SampleType] = &[("peak_objects", "count", Value::Peak, true), ("peak_space", "bytes", Value::Peak, false)];
        let (types, is_instant) = match value {
            Value::Live | Value::Growth => (LIVE, true),
            Value::Charged => (CHARGED, false),
            Value::Peak => (PEAK, true),
        };
        Shape { types, preferred: types[1].0, subject: None, is_instant }
    }

    /// Whether a row has any of these values.
    fn shows(&self, row: &StackRow) -> bool {
        self.types.iter().any(|(_, _, value, _)| value.of(row) > 0)
    }
}

fn profile(report: &Report, shape: Shape<'_>) -> Profile {
    let mut tables = Tables::new(&report.binaries);
    // Index 0 of the strings is the empty one.
    tables.string("");
    if let Some(subject) = shape.subject {
        // Viewers take the first mapping for the program's own file.
        tables.mapping(subject, None, 0);
    }
    let sample_type = shape.types.iter().map(|(name, unit, ..)| tables.value_type(name, unit)).collect();
    let default_sample_type = tables.string(shape.preferred);
    let page = u64::from(report.host.page_size).max(1);
    let rows = report.cgroups.iter().flat_map(|cgroup| cgroup.stacks.iter().map(move |row| (cgroup, row)));
    let rows = rows.filter(|(_, row)| shape.shows(row));
    let sample = rows.flat_map(|(cgroup, row)| samples(cgroup, row, page, &shape, &mut tables)).collect();
    // A profile of a moment has the time of the moment.
    let (time, duration_s) = if shape.is_instant { (&report.ended, 0.0) } else { (&report.started, report.duration_s) };
    let comments = [
        report.tool.clone(),
        format!("kernel {}, {} CPUs, cgroup {}, {}", report.host.kernel, report.host.cpus, report.host.cgroup, report.started),
        format!("{}, mean {} bytes; an object is a page of {page} bytes", report.sampling.mode, report.sampling.mean_bytes),
    ];
    Profile {
        sample_type,
        sample,
        default_sample_type,
        comment: comments.map(|comment| tables.string(&comment)).to_vec(),
        period_type: Some(tables.value_type("space", "bytes")),
        period: signed(report.sampling.mean_bytes),
        time_nanos: date::parse_rfc3339(time).and_then(|seconds| seconds.checked_mul(1_000_000_000)).unwrap_or(0),
        duration_nanos: (duration_s * 1e9) as i64,
        mapping: tables.mappings,
        location: tables.locations,
        function: tables.functions,
        string_table: tables.strings,
    }
}

/// What a label says.
enum Word<'a> {
    Text(&'a str),
    Number(u32),
}

/// A part of a row that has labels of its own.
#[derive(Default)]
struct Part<'a> {
    labels: Vec<(&'static str, Word<'a>)>,
    live: u64,
    charged: u64,
    peak: u64,
}

/// The row by file, or where it is of none by thread. The last part is the rest: what is no longer live has neither.
fn parts(row: &StackRow) -> Vec<Part<'_>> {
    let files = row.files.iter().map(|file| (file.live, vec![("file", Word::Text(&file.path))]));
    let threads = row.threads.iter().flatten().filter_map(|thread| {
        let name = thread.comm.as_deref().map(|comm| ("thread", Word::Text(comm)));
        Some((thread.live, [("tid", Word::Number(thread.tid?))].into_iter().chain(name).collect()))
    });
    let labelled: Vec<(u64, Vec<_>)> = if row.files.is_empty() { threads.collect() } else { files.collect() };
    let (mut live, mut charged, mut peak) = (row.live, row.charged, row.peak);
    let mut parts = Vec::new();
    for (bytes, labels) in labelled {
        let bytes = bytes.min(live);
        let part = Part { labels, live: bytes, charged: bytes.min(charged), peak: bytes.min(peak) };
        (live, charged, peak) = (live - part.live, charged - part.charged, peak - part.peak);
        parts.push(part);
    }
    parts.push(Part { labels: Vec::new(), live, charged, peak });
    parts.retain(|part| part.live > 0 || part.charged > 0 || part.peak > 0);
    parts
}

fn samples(cgroup: &Cgroup, row: &StackRow, page: u64, shape: &Shape<'_>, tables: &mut Tables<'_>) -> Vec<Sample> {
    // Innermost first, unlike everywhere else here.
    let mut location_id: Vec<u64> = row.frames.iter().rev().map(|name| tables.location(name)).collect();
    if location_id.is_empty() {
        location_id.push(tables.location(NO_STACK));
    }
    let words = [
        ("cgroup", Some(&cgroup.path)),
        ("pod", cgroup.pod_name.as_ref().or(cgroup.pod.as_ref())),
        ("pod_uid", cgroup.pod.as_ref()),
        ("namespace", cgroup.namespace.as_ref()),
        ("container", cgroup.container_name.as_ref().or(cgroup.container.as_ref())),
        ("container_id", cgroup.container.as_ref()),
        ("comm", Some(&row.comm)),
        ("kind", Some(&row.kind)),
        ("region", Some(&row.region)),
    ];
    let words = words.into_iter().filter_map(|(key, text)| Some((key, Word::Text(text?.as_str()))));
    let common: Vec<Label> =
        words.chain(row.pid.map(|pid| ("pid", Word::Number(pid)))).filter_map(|(key, word)| tables.label(key, &word)).collect();
    parts(row)
        .into_iter()
        .map(|part| {
            let own = part.labels.iter().filter_map(|(key, word)| tables.label(key, word));
            let label = common.iter().cloned().chain(own).collect();
            let bytes = |value| match value {
                Value::Live | Value::Growth => part.live,
                Value::Charged => part.charged,
                Value::Peak => part.peak,
            };
            let told = |(_, _, value, in_pages): &SampleType| signed(if *in_pages { bytes(*value).div_ceil(page) } else { bytes(*value) });
            let value = shape.types.iter().map(told).collect();
            Sample { location_id: location_id.clone(), value, label }
        })
        .collect()
}

/// The format's integers are signed; only a forged recording has more.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Everything that is written once and then called by its number.
#[derive(Default)]
struct Tables<'a> {
    /// The file that a frame is in.
    binaries: HashMap<&'a str, &'a BinaryRow>,
    strings: Vec<String>,
    string_numbers: HashMap<String, i64>,
    functions: Vec<Function>,
    /// By name and file.
    function_numbers: HashMap<(i64, i64), u64>,
    locations: Vec<Location>,
    location_numbers: HashMap<String, u64>,
    mappings: Vec<Mapping>,
    mapping_numbers: HashMap<(String, Option<String>), u64>,
}

impl<'a> Tables<'a> {
    fn new(binaries: &'a [BinaryRow]) -> Tables<'a> {
        let mut frames: HashMap<&str, Option<&BinaryRow>> = HashMap::new();
        for binary in binaries {
            for frame in &binary.frames {
                // Stacks have names: which of several files one is in cannot be said, unless they are one build.
                let is_same = |other: &BinaryRow| other.build_id.is_some() && other.build_id == binary.build_id;
                let told = frames.entry(frame).or_insert(Some(binary));
                *told = told.filter(|other| std::ptr::eq(*other, binary) || is_same(other));
            }
        }
        let frames = frames.into_iter().filter_map(|(frame, binary)| Some((frame, binary?)));
        let kernel = binaries.iter().find(|binary| binary.path == BinaryRow::KERNEL).map(|binary| (BinaryRow::KERNEL, binary));
        Tables { binaries: frames.chain(kernel).collect(), ..Tables::default() }
    }

    /// A label, unless it says nothing.
    fn label(&mut self, key: &str, word: &Word<'_>) -> Option<Label> {
        let key = self.string(key);
        match word {
            Word::Text("") => None,
            Word::Text(text) => Some(Label { key, str: self.string(text), num: 0, num_unit: 0 }),
            Word::Number(number) => Some(Label { key, str: 0, num: i64::from(*number), num_unit: key }),
        }
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(number) = self.string_numbers.get(text) {
            return *number;
        }
        let number = self.strings.len() as i64;
        self.strings.push(text.to_owned());
        self.string_numbers.insert(text.to_owned(), number);
        number
    }

    fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType { r#type: self.string(name), unit: self.string(unit) }
    }

    /// A frame as a place in its file, which is known or told by the name; its name is its function.
    fn location(&mut self, name: &str) -> u64 {
        if let Some(id) = self.location_numbers.get(name) {
            return *id;
        }
        let (place, is_kernel) = (place(name), name.ends_with("_[k]"));
        let binary = self.binaries.get(if is_kernel { BinaryRow::KERNEL } else { name }).copied();
        let (mapping_id, address) = match (binary, place) {
            (Some(binary), place) => {
                let offset = place.map_or(0, |(_, offset)| offset);
                (self.mapping(&binary.path, binary.build_id.as_deref(), offset), offset)
            }
            (None, Some((file, offset))) => (self.mapping(file, None, offset), offset),
            (None, None) if is_kernel => (self.mapping(BinaryRow::KERNEL, None, 0), 0),
            (None, None) => (0, 0),
        };
        let id = self.locations.len() as u64 + 1;
        let source = source::of(name);
        let text = self.string(source.map_or(name, |source| source.function));
        let filename = source.map_or(0, |source| self.string(source.file));
        let function_id = *self.function_numbers.entry((text, filename)).or_insert_with(|| {
            let id = self.functions.len() as u64 + 1;
            self.functions.push(Function { id, name: text, system_name: text, filename });
            id
        });
        let line = source.and_then(|source| source.line).map_or(0, i64::from);
        self.locations.push(Location { id, mapping_id, address, line: vec![Line { function_id, line }] });
        self.location_numbers.insert(name.to_owned(), id);
        id
    }

    /// A file of frames. Addresses are offsets in it, so it begins at zero.
    fn mapping(&mut self, file: &str, build_id: Option<&str>, offset: u64) -> u64 {
        let key = (file.to_owned(), build_id.map(str::to_owned));
        let id = match self.mapping_numbers.get(&key) {
            Some(id) => *id,
            None => {
                let id = self.mappings.len() as u64 + 1;
                let [filename, build_id] = [file, build_id.unwrap_or_default()].map(|text| self.string(text));
                self.mappings.push(Mapping { id, filename, build_id, has_functions: true, ..Mapping::default() });
                self.mapping_numbers.insert(key, id);
                id
            }
        };
        if let Some(mapping) = self.mappings.get_mut(id as usize - 1) {
            mapping.memory_limit = mapping.memory_limit.max(offset.saturating_add(1));
        }
        id
    }
}

/// File and offset of a frame `[binary+0xoffset]`.
fn place(name: &str) -> Option<(&str, u64)> {
    let (file, offset) = name.strip_prefix('[')?.strip_suffix(']')?.rsplit_once("+0x")?;
    Some((file, u64::from_str_radix(offset, 16).ok()?)).filter(|(file, _)| !file.is_empty())
}

// The messages of profile.proto, as far as they are written; numbers and types are the format's.

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
    #[prost(int64, tag = "3")]
    num: i64,
    #[prost(int64, tag = "4")]
    num_unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_one_function_on_two_lines_are_two_places_of_it() {
        let mut tables = Tables::new(&[]);
        tables.string("");
        let places = ["load (app.py:3)", "load (app.py:9)", "load (other.py:?)", "load"].map(|name| tables.location(name));
        assert_eq!(places, [1, 2, 3, 4]);
        let line = |place: u64| tables.locations[place as usize - 1].line[0].clone();
        assert_eq!(places.map(|place| (line(place).function_id, line(place).line)), [(1, 3), (1, 9), (2, 0), (3, 0)]);
        let text = |number: i64| tables.strings[number as usize].as_str();
        let functions: Vec<_> = tables.functions.iter().map(|function| (text(function.name), text(function.filename))).collect();
        assert_eq!(functions, [("load", "app.py"), ("load", "other.py"), ("load", "")]);
    }
}
