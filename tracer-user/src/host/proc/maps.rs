//! `/proc/PID/smaps` and `/proc/PID/maps` as values. The parser is pure, takes hostile bytes, and reads a line at a time: a process
//! can have 65,530 mappings and paths of any bytes.

use super::status::kilobytes;
use std::io::{self, BufRead, BufReader, Read};

/// Most mappings kept of one process: twice the kernel's default limit.
pub const MOST_VMAS: usize = 131_072;
/// Longest line: a path of 4095 bytes, each as an octal escape of four.
const MOST_LINE_BYTES: u64 = 32 << 10;

/// One mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vma {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
    /// Shared with whoever maps the same.
    pub shared: bool,
    /// Offset of `start` in the file, bytes.
    pub offset: u64,
    /// `makedev(major, minor)` of the file's file system.
    pub device: u64,
    /// Inode of the file, 0 for none.
    pub inode: u64,
    /// Path, or a name such as `[heap]`; empty for none. Raw, hostile bytes.
    pub name: Box<[u8]>,
    /// Bytes of anonymous memory in it that page tables show; `None` where the source does not tell.
    pub anonymous: Option<u64>,
}

impl Vma {
    /// Bytes of address space.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// No access at all: reserved, or a guard.
    #[must_use]
    pub fn is_inaccessible(&self) -> bool {
        !(self.read || self.write || self.execute)
    }

    /// Private memory without a file and without a name.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        !self.shared && self.inode == 0 && self.name.is_empty()
    }

    /// Private memory that its program has named so, or so and more: `[anon:NAME]`, with the kernel's prefix.
    #[must_use]
    pub fn is_named(&self, name: &[u8]) -> bool {
        self.name.strip_prefix(b"[anon:").is_some_and(|given| given.trim_ascii_start().starts_with(name))
    }

    /// One line of `maps`, or the first line of a mapping in `smaps`.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Vma> {
        // "start-end perms offset major:minor inode   path", where the path may hold any byte (newlines as \012).
        let mut fields = line.splitn(6, |&b| b == b' ');
        let mut field = || std::str::from_utf8(fields.next()?).ok();
        let (start, end) = field()?.split_once('-')?;
        let (start, end) = (hex(start)?, hex(end)?);
        let &[read, write, execute, shared] = field()?.as_bytes() else { return None };
        let offset = hex(field()?)?;
        let (major, minor) = field()?.split_once(':')?;
        let device = libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        let inode = field()?.parse().ok()?;
        let name = fields.next().unwrap_or_default().trim_ascii_start();
        (start < end).then(|| Vma {
            start,
            end,
            read: read == b'r',
            write: write == b'w',
            execute: execute == b'x',
            shared: shared == b's',
            offset,
            device,
            inode,
            name: name.into(),
            anonymous: None,
        })
    }
}

/// What a process has mapped, by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    /// Sorted, disjoint.
    pub vmas: Vec<Vma>,
    /// There were more than [`MOST_VMAS`].
    pub cut: bool,
}

impl Maps {
    /// Parses `smaps` or `maps`. Lines that are not understood are passed over, also mappings that overlap the one before.
    ///
    /// # Errors
    /// When the reader fails: the process is gone.
    pub fn parse(reader: impl Read) -> io::Result<Maps> {
        let mut reader = BufReader::with_capacity(64 << 10, reader);
        let mut maps = Maps::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            if Read::take(&mut reader, MOST_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
                return Ok(maps);
            }
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            if let Some(field) = line.strip_prefix(b"Anonymous:") {
                if let Some(vma) = maps.vmas.last_mut() {
                    vma.anonymous = std::str::from_utf8(field).ok().and_then(kilobytes);
                }
            } else if let Some(vma) = Vma::parse(line)
                && maps.vmas.last().is_none_or(|last| last.end <= vma.start)
            {
                if maps.vmas.len() == MOST_VMAS {
                    maps.cut = true;
                    return Ok(maps);
                }
                maps.vmas.push(vma);
            }
        }
    }
}

impl Maps {
    /// Ranges that only calls of the process change, neighbours joined: not the stack, which grows by itself, and what the kernel put there.
    #[must_use]
    pub fn asked_for(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let own = |vma: &&Vma| !vma.name.starts_with(b"[") || vma.name.starts_with(b"[heap") || vma.name.starts_with(b"[anon");
        for vma in self.vmas.iter().filter(own) {
            match ranges.last_mut() {
                Some(last) if last.1 == vma.start => last.1 = vma.end,
                _ => ranges.push((vma.start, vma.end)),
            }
        }
        ranges
    }
}

/// The index of the mapping at an address.
#[must_use]
pub fn index_at(vmas: &[Vma], address: u64) -> Option<usize> {
    let after = vmas.partition_point(|vma| vma.start <= address);
    after.checked_sub(1).filter(|&index| address < vmas[index].end)
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaps_and_maps_are_read() {
        let smaps = b"55d1-55d2 rw-p 00001000 08:01 99                         /bin/a b (deleted)\n\
            Size:                  4 kB\n\
            Anonymous:             4 kB\n\
            VmFlags: rd wr mr mw me ac\n\
            7f00-8f00 ---p 00000000 00:00 0 \n\
            Anonymous:             0 kB\n\
            9f00-9f01 rw-s 00000000 00:01 7                          /memfd:x (deleted)\n";
        let maps = Maps::parse(&smaps[..]).unwrap();
        let names: Vec<_> = maps.vmas.iter().map(|vma| String::from_utf8_lossy(&vma.name).into_owned()).collect();
        assert_eq!(names, ["/bin/a b (deleted)", "", "/memfd:x (deleted)"]);
        assert_eq!((maps.vmas[0].anonymous, maps.vmas[0].offset, maps.vmas[0].inode), (Some(4096), 0x1000, 99));
        assert!(maps.vmas[1].is_inaccessible() && maps.vmas[1].is_nameless() && maps.vmas[2].shared);
        assert_eq!(maps.vmas[2].anonymous, None);
        assert_eq!((index_at(&maps.vmas, 0x7f00), index_at(&maps.vmas, 0x8f00), index_at(&maps.vmas, 0)), (Some(1), None, None));
    }

    #[test]
    fn hostile_lines_are_passed_over() {
        let text = b"nonsense\n1-0 rw-p 0 0:0 0\nzz-zz rw-p 0 0:0 0\n10-20 rw-p 0 0:0 0\n15-30 rw-p 0 0:0 0\nAnonymous: x kB\n20-30 rwp 0 0:0 0\n\xff\xff-\n";
        let maps = Maps::parse(&text[..]).unwrap();
        assert_eq!(maps.vmas.len(), 1);
        assert_eq!(maps.vmas[0].anonymous, None);
        assert_eq!(Maps::parse(&b"Anonymous: 4 kB\n"[..]).unwrap(), Maps::default());
        assert_eq!(kilobytes(" 99999999999999999999 kB"), None);
        assert_eq!(kilobytes(" 18446744073709551615 kB"), None);
    }

    #[test]
    fn an_endless_line_and_too_many_mappings_are_bounded() {
        assert_eq!(Maps::parse(io::repeat(b'a').take(10 << 20)).unwrap(), Maps::default());
        let text: String = (0..MOST_VMAS as u64 + 5).map(|n| format!("{:x}-{:x} rw-p 0 0:0 0\n", n * 2 + 1, n * 2 + 2)).collect();
        let maps = Maps::parse(text.as_bytes()).unwrap();
        assert!(maps.cut && maps.vmas.len() == MOST_VMAS);
    }

    #[test]
    fn this_very_process_is_read() {
        let maps = super::super::Process::own().unwrap().smaps().unwrap();
        let here = this_very_process_is_read as *const () as u64;
        let vma = &maps.vmas[index_at(&maps.vmas, here).unwrap()];
        assert!(vma.execute && vma.inode != 0);
        assert!(maps.vmas.iter().any(|vma| &*vma.name == b"[stack]" && vma.anonymous.is_some_and(|bytes| bytes > 0)));
    }
}
