//! The report as a profile for `pprof` and everything that reads its format (`.pb.gz`): <https://github.com/google/pprof>, profile.proto.
//!
//! One sample for each stack row, with its live and charged bytes, and as objects its pages; cgroup, process, kind and region are labels
//! (`pprof -tagroot cgroup,comm`). Sums equal those of the rows to the byte: what has no stack, memory older than the recording, is not in it.
//! Names are written as they are, unlike in texts: a reader escapes what it prints.

use super::Value;
use crate::date;
use crate::model::{Cgroup, Report, StackRow};
use flate2::{Compression, GzBuilder};
use prost::Message;
use std::collections::HashMap;
use std::io::{self, Write};

/// The only frame of a stack without frames: readers leave out samples without a place.
const NO_STACK: &str = "[no stack]";

/// The kernel, as perf and pprof call it.
const KERNEL: &str = "[kernel.kallsyms]";

/// Writes the profile, compressed. `value` is what viewers show first.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, value: Value, writer: impl Write) -> io::Result<()> {
    // Without a time in the head, so that equal reports give equal files.
    let mut gzip = GzBuilder::new().mtime(0).write(writer, Compression::default());
    gzip.write_all(&profile(report, value).encode_to_vec())?;
    gzip.finish()?.flush()
}

fn profile(report: &Report, value: Value) -> Profile {
    let mut tables = Tables::default();
    // Index 0 of the strings is the empty one.
    tables.string("");
    let types = [("live_bytes", "bytes"), ("live_objects", "pages"), ("charged_bytes", "bytes"), ("charged_objects", "pages")];
    let sample_type = types.map(|(name, unit)| tables.value_type(name, unit)).to_vec();
    let preferred = if value == Value::Charged { "charged_bytes" } else { "live_bytes" };
    let default_sample_type = tables.string(preferred);
    let page = u64::from(report.host.page_size).max(1);
    let rows = report.cgroups.iter().flat_map(|cgroup| cgroup.stacks.iter().map(move |row| (cgroup, row)));
    let sample =
        rows.filter(|(_, row)| row.live > 0 || row.charged > 0).map(|(cgroup, row)| sample(cgroup, row, page, &mut tables)).collect();
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
        time_nanos: date::parse_rfc3339(&report.started).and_then(|seconds| seconds.checked_mul(1_000_000_000)).unwrap_or(0),
        duration_nanos: (report.duration_s * 1e9) as i64,
        mapping: tables.mappings,
        location: tables.locations,
        function: tables.functions,
        string_table: tables.strings,
    }
}

fn sample(cgroup: &Cgroup, row: &StackRow, page: u64, tables: &mut Tables) -> Sample {
    // Innermost first, unlike everywhere else here.
    let mut location_id: Vec<u64> = row.frames.iter().rev().map(|name| tables.location(name)).collect();
    if location_id.is_empty() {
        location_id.push(tables.location(NO_STACK));
    }
    let value = [row.live, row.live.div_ceil(page), row.charged, row.charged.div_ceil(page)].map(signed).to_vec();
    let words = [
        ("cgroup", Some(&cgroup.path)),
        ("pod", cgroup.pod.as_ref()),
        ("container", cgroup.container.as_ref()),
        ("comm", Some(&row.comm)),
        ("kind", Some(&row.kind)),
        ("region", Some(&row.region)),
    ];
    let mut label: Vec<Label> = Vec::new();
    for (key, text) in words {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            label.push(Label { key: tables.string(key), str: tables.string(text), num: 0, num_unit: 0 });
        }
    }
    if let Some(pid) = row.pid {
        let unit = tables.string("pid");
        label.push(Label { key: unit, str: 0, num: i64::from(pid), num_unit: unit });
    }
    Sample { location_id, value, label }
}

/// The format's integers are signed; only a forged recording has more.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Everything that is written once and then called by its number.
#[derive(Default)]
struct Tables {
    strings: Vec<String>,
    string_numbers: HashMap<String, i64>,
    functions: Vec<Function>,
    locations: Vec<Location>,
    location_numbers: HashMap<String, u64>,
    mappings: Vec<Mapping>,
    mapping_numbers: HashMap<String, u64>,
}

impl Tables {
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

    /// A frame as a place: its name is its function, and where the name tells the file, the place is in that file.
    fn location(&mut self, name: &str) -> u64 {
        if let Some(id) = self.location_numbers.get(name) {
            return *id;
        }
        let (mapping_id, address) = match place(name) {
            Some((file, offset)) => (self.mapping(file, offset), offset),
            None if name.ends_with("_[k]") => (self.mapping(KERNEL, 0), 0),
            None => (0, 0),
        };
        let id = self.locations.len() as u64 + 1;
        let text = self.string(name);
        self.functions.push(Function { id, name: text, system_name: text });
        self.locations.push(Location { id, mapping_id, address, line: vec![Line { function_id: id }] });
        self.location_numbers.insert(name.to_owned(), id);
        id
    }

    /// A file of which a frame is known by its offset only. Addresses are offsets, so it begins at zero.
    fn mapping(&mut self, file: &str, offset: u64) -> u64 {
        let id = match self.mapping_numbers.get(file) {
            Some(id) => *id,
            None => {
                let id = self.mappings.len() as u64 + 1;
                let filename = self.string(file);
                self.mappings.push(Mapping { id, filename, has_functions: true, ..Mapping::default() });
                self.mapping_numbers.insert(file.to_owned(), id);
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
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
}
