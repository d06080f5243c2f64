//! perf maps: names that JITs write for the code they make, `/tmp/perf-PID.map` inside of their own root and under the process
//! id of their own namespace. Text of the traced process, hostile: sizes are bounded and bad lines skipped.

use crate::{host::proc::Process, process::opener::open_in_root_of};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;

/// Most bytes read of a map.
const MAX_BYTES: u64 = 64 << 20;
/// Most entries kept.
const MAX_ENTRIES: usize = 1 << 18;
/// Longest line read at once.
const MAX_LINE_BYTES: u64 = 4096;
/// Longest name kept, characters.
const MAX_NAME: usize = super::MAX_NAME_BYTES;

/// The code of one process: sorted, and of two that overlap the later one in the file wins, since JITs write over old code.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PerfMap {
    entries: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    start: u64,
    end: u64,
    line: usize,
    name: Box<str>,
}

impl PerfMap {
    /// Reads a map: lines of `START SIZE NAME`, hexadecimal. Stops at the bounds.
    pub fn parse(reader: impl Read) -> io::Result<PerfMap> {
        let mut entries = Vec::new();
        let mut reader = BufReader::new(reader.take(MAX_BYTES));
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            // An over-long line becomes several, each of which has to make sense by itself.
            if Read::take(&mut reader, MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 || entries.len() >= MAX_ENTRIES {
                break;
            }
            number += 1;
            entries.extend(parse_line(&line, number));
        }
        entries.sort_by_key(|e| (e.start, e.line));
        Ok(PerfMap { entries })
    }

    /// How many names it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// It holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The function at an address.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<&str> {
        let after = self.entries.partition_point(|e| e.start <= address);
        // Only near neighbours are asked, so that a map of nothing but overlaps cannot make this slow.
        let near = self.entries[..after].iter().rev().take(16);
        near.filter(|e| address < e.end).max_by_key(|e| e.line).map(|e| &*e.name)
    }

    /// The map of a process that lives; `None` if it wrote none or is gone.
    #[must_use]
    pub fn of_process(tgid: u32) -> Option<PerfMap> {
        let process = Process::open(tgid).ok()?;
        // The innermost namespace is its own.
        let inside = *process.status().ok()?.pid_by_namespace.last()?;
        let owner = process.owner().ok()?;
        let (file, metadata) = open_in_root_of(&process, &format!("/tmp/perf-{inside}.map")).ok()?;
        // /tmp is everybody's: a map that another user wrote says nothing about this process.
        (metadata.uid() == owner || metadata.uid() == 0).then(|| PerfMap::parse(file).ok()).flatten()
    }

    /// The map that an ended process of the host left behind. Only its writer's name for it binds it to the process.
    #[must_use]
    pub fn left_behind(tgid: u32) -> Option<PerfMap> {
        let (file, _): (File, _) = open_in_root_of(&Process::own().ok()?, &format!("/tmp/perf-{tgid}.map")).ok()?;
        PerfMap::parse(file).ok()
    }
}

fn parse_line(line: &[u8], number: usize) -> Option<Entry> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut fields = line.splitn(3, |&b| b == b' ');
    let mut hex = || {
        let text = std::str::from_utf8(fields.next()?).ok()?;
        u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    };
    let (start, size) = (hex()?, hex()?);
    let name = String::from_utf8_lossy(fields.next()?);
    let name: String = name.trim().chars().take(MAX_NAME).collect();
    let end = start.checked_add(size)?;
    (size > 0 && !name.is_empty()).then(|| Entry { start, end, line: number, name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_bad_lines() {
        let text = b"1000 10 py::main:/app/x.py\n\
            nonsense\n\
            2000 0 empty\n\
            0x3000 0x20 Lcom/Foo;::bar baz \n\
            ffffffffffffffff 2 wraps\n\
            \xff\xfe 1 x\n\
            4000 8 \xff\n\
            5000 8";
        let map = PerfMap::parse(&text[..]).unwrap();
        let name = |at| map.name(at).unwrap_or("-");
        assert_eq!((name(0x1000), name(0x100f), name(0x1010), name(0xfff)), ("py::main:/app/x.py", "py::main:/app/x.py", "-", "-"));
        assert_eq!((name(0x3010), name(0x2000), name(0x4000), name(0x5000)), ("Lcom/Foo;::bar baz", "-", "\u{fffd}", "-"));
    }

    #[test]
    fn code_written_again_has_its_new_name() {
        let map = PerfMap::parse(&b"1000 100 old\n1000 80 new\n1040 10 inner\n"[..]).unwrap();
        let name = |at| map.name(at).unwrap_or("-");
        assert_eq!((name(0x1000), name(0x1048), name(0x1090)), ("new", "inner", "old"));
    }

    #[test]
    fn an_endless_line_is_bounded() {
        let map = PerfMap::parse(io::repeat(b'a').take(200 << 20)).unwrap();
        assert_eq!(map, PerfMap::default());
    }
}
