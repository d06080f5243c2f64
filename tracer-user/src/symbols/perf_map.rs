//! perf maps: names that JITs write for the code they make, `/tmp/perf-PID.map` inside of their own root and under the process
//! id of their own namespace. Text of the traced process, hostile: sizes are bounded and bad lines skipped.
//!
//! `/tmp` is everybody's, so that a map counts only if its owner is the process's or root, and if it is a file of its own: neither a
//! symbolic link nor a further name of another file.

use crate::{host::proc::Process, process::opener::open_in_root_of};
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;

/// Most bytes read of a map, and most bytes of names kept of it.
const MAX_BYTES: usize = 16 << 20;
/// Most entries kept.
const MAX_ENTRIES: usize = 1 << 18;
/// Longest line read at once.
const MAX_LINE_BYTES: u64 = 4096;
/// Longest name kept, bytes: longer ones are cut.
const MAX_NAME: usize = super::MAX_NAME_BYTES;

/// The code of one process: sorted, and of two that overlap the later one in the file wins, since JITs write over old code.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PerfMap {
    entries: Vec<Entry>,
    name_bytes: usize,
    is_cut: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    start: u64,
    end: u64,
    line: usize,
    name: Box<str>,
}

/// The process whose map is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Thread-group id.
    pub tgid: u32,
    /// It runs no more.
    pub has_ended: bool,
    /// The user that it was, if that was seen while it lived.
    pub owner: Option<u32>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Its map.
    Map(PerfMap),
    /// There is none.
    Nothing,
    /// There is one that may be another user's.
    Foreign,
}

impl PerfMap {
    /// Reads a map: lines of `START SIZE NAME`, hexadecimal. Stops at the bounds.
    pub fn parse(reader: impl Read) -> io::Result<PerfMap> {
        let mut map = PerfMap::default();
        // One more, to know whether there was more.
        let mut reader = BufReader::new(reader.take(MAX_BYTES as u64 + 1));
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            // An over-long line becomes several, each of which has to make sense by itself.
            if Read::take(&mut reader, MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            number += 1;
            let Some(entry) = parse_line(&line, number) else { continue };
            if map.entries.len() >= MAX_ENTRIES || map.name_bytes + entry.name.len() > MAX_BYTES {
                map.is_cut = true;
                break;
            }
            map.name_bytes += entry.name.len();
            map.entries.push(entry);
        }
        map.is_cut |= reader.get_ref().limit() == 0;
        map.entries.sort_by_key(|e| (e.start, e.line));
        Ok(map)
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

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>() + self.name_bytes
    }

    /// Whether there was more than is kept.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The function at an address.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<&str> {
        let after = self.entries.partition_point(|e| e.start <= address);
        // Only near neighbours are asked, so that a map of nothing but overlaps cannot make this slow.
        let near = self.entries[..after].iter().rev().take(16);
        near.filter(|e| address < e.end).max_by_key(|e| e.line).map(|e| &*e.name)
    }

    /// The map of a process, and the user that it is or was, if that is known.
    #[must_use]
    pub fn of(wanted: Wanted) -> (Found, Option<u32>) {
        if wanted.has_ended { (left_behind(wanted.tgid, wanted.owner), wanted.owner) } else { of_process(wanted.tgid) }
    }
}

/// The map of a process that lives.
fn of_process(tgid: u32) -> (Found, Option<u32>) {
    let Ok(process) = Process::open(tgid) else { return (Found::Nothing, None) };
    let owner = process.owner().ok();
    // The innermost namespace is its own.
    let inside = process.status().ok().and_then(|status| status.pid_by_namespace.last().copied());
    let opened = inside.and_then(|inside| open_in_root_of(&process, &format!("/tmp/perf-{inside}.map")).ok());
    (opened.map_or(Found::Nothing, |(file, metadata)| read(file, &metadata, owner)), owner)
}

/// The map that an ended process of the host left behind. Only its writer's name for it binds it to the process.
fn left_behind(tgid: u32, owner: Option<u32>) -> Found {
    let opened = Process::own().and_then(|own| open_in_root_of(&own, &format!("/tmp/perf-{tgid}.map"))).ok();
    opened.map_or(Found::Nothing, |(file, metadata)| read(file, &metadata, owner))
}

/// Reads a map if it is the owner's, or root's.
fn read(file: File, metadata: &Metadata, owner: Option<u32>) -> Found {
    let is_trusted = (metadata.uid() == 0 || Some(metadata.uid()) == owner) && metadata.nlink() <= 1;
    if !is_trusted {
        return Found::Foreign;
    }
    PerfMap::parse(file).map_or(Found::Nothing, Found::Map)
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
    let name = super::cut(name.trim(), MAX_NAME);
    let end = start.checked_add(size)?;
    (size > 0 && !name.is_empty()).then(|| Entry { start, end, line: number, name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
        assert_eq!(map, PerfMap { is_cut: true, ..PerfMap::default() });
    }

    /// A map in /tmp of a process that cannot be, of a user that is not root.
    struct LeftBehind(u32, String, u32);

    impl LeftBehind {
        fn new(nth: u32) -> LeftBehind {
            // Above the highest process id, and not that of another run of this test.
            let tgid = u32::MAX - 8 * (std::process::id() % (1 << 22)) - nth;
            let path = format!("/tmp/perf-{tgid}.map");
            fs::write(&path, "1000 10 theirs\n").unwrap();
            if fs::metadata(&path).unwrap().uid() == 0 {
                std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            }
            let owner = fs::metadata(&path).unwrap().uid();
            LeftBehind(tgid, path, owner)
        }

        fn found(&self, owner: Option<u32>) -> Found {
            PerfMap::of(Wanted { tgid: self.0, has_ended: true, owner }).0
        }
    }

    impl Drop for LeftBehind {
        fn drop(&mut self) {
            fs::remove_file(&self.1).unwrap();
        }
    }

    #[test]
    fn the_map_of_an_ended_process_counts_only_if_its_user_or_root_wrote_it() {
        let left = LeftBehind::new(0);
        assert_eq!(left.found(None), Found::Foreign, "whose process it was is not known");
        assert_eq!(left.found(Some(left.2 + 1)), Found::Foreign);
        let Found::Map(map) = left.found(Some(left.2)) else { panic!("no map") };
        assert_eq!(map.name(0x1000), Some("theirs"));
        assert_eq!(PerfMap::of(Wanted { tgid: left.0 + 4, has_ended: true, owner: None }).0, Found::Nothing);
    }

    #[test]
    fn a_link_to_somebody_elses_map_is_no_map() {
        let left = LeftBehind::new(1);
        let (link, further) = (left.0 - 2, left.0 - 3);
        let path = |tgid| format!("/tmp/perf-{tgid}.map");
        std::os::unix::fs::symlink(&left.1, path(link)).unwrap();
        fs::hard_link(&left.1, path(further)).unwrap();
        let found = |tgid| PerfMap::of(Wanted { tgid, has_ended: true, owner: Some(left.2) }).0;
        let found = [link, further].map(found);
        for tgid in [link, further] {
            fs::remove_file(path(tgid)).unwrap();
        }
        assert_eq!(found, [Found::Nothing, Found::Foreign]);
    }

    #[test]
    fn a_map_is_bounded_by_bytes_and_says_that_it_was_cut() {
        // Each of these bytes becomes three in the name, which is cut.
        let line = [&b"1000 10 "[..], &[0xff; 500], b"\n"].concat();
        let map = PerfMap::parse(&line.repeat(40_000)[..]).unwrap();
        assert!(map.is_cut() && map.name_bytes <= MAX_BYTES, "{}", map.name_bytes);
        assert!(map.entries.iter().all(|entry| entry.name.len() <= MAX_NAME));
        let short = PerfMap::parse(&line.repeat(100)[..]).unwrap();
        assert!(!short.is_cut() && short.len() == 100);
        let long = PerfMap::parse(b"0 1 x\n".repeat(1 << 22).as_slice()).unwrap();
        assert!(long.is_cut() && long.bytes() <= MAX_ENTRIES * (size_of::<Entry>() + 1));
    }
}
