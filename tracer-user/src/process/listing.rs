//! The processes that run now, from `/proc`. The parsers are pure and take hostile bytes; reading stands at the end.
//!
//! It runs after the records are on, so that nothing falls between, and again after a loss.

use super::event::{Change, Listed, MapEvent, ProcessEvent, comm_from};
use super::image::FileIdentity;
use super::sys;
use std::fs::{self, File};
use std::io::Read;

/// Most bytes read of one `/proc/PID/maps`. A process can have 65,530 mappings; executable ones are a few.
const MAX_MAPS_BYTES: u64 = 16 << 20;

/// The fields of `/proc/PID/stat` that matter.
#[derive(Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// Name of the leader.
    pub comm: &'a [u8],
    /// Parent.
    pub parent_tgid: u32,
    /// Start of the process in clock ticks since boot.
    pub start_ticks: u64,
}

/// Reads `/proc/PID/stat`. The name can hold any byte, also parentheses and spaces: it ends at the last `)`.
#[must_use]
pub fn parse_stat(bytes: &[u8]) -> Option<Stat<'_>> {
    let open = bytes.iter().position(|&b| b == b'(')?;
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // Counted from the field after the name: state, ppid, ..., starttime is the 20th.
    let parent_tgid = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { comm: bytes.get(open + 1..close)?, parent_tgid, start_ticks })
}

/// The executable mappings in `/proc/PID/maps`. Lines that are not understood are passed over.
#[must_use]
pub fn parse_maps(tgid: u32, bytes: &[u8]) -> Vec<MapEvent> {
    bytes.split(|&b| b == b'\n').filter_map(|line| parse_maps_line(tgid, line)).collect()
}

fn parse_maps_line(tgid: u32, line: &[u8]) -> Option<MapEvent> {
    // "start-end perms offset major:minor inode   path", the path may hold any byte (newlines as \012).
    let mut fields = line.splitn(6, |&b| b == b' ');
    let mut field = || std::str::from_utf8(fields.next()?).ok();
    let (start, end) = field()?.split_once('-')?;
    let executable = field()?.as_bytes().get(2) == Some(&b'x');
    let offset = hex(field()?)?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?.parse().ok()?;
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    if !executable {
        return None;
    }
    let device = libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let path = if path.is_empty() { b"//anon".to_vec() } else { path.to_vec() };
    let file = FileIdentity { device: if inode == 0 { 0 } else { device }, inode, generation: None };
    Some(MapEvent { tgid, start: hex(start)?, end: hex(end)?, offset, executable, file, path })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// Reads the whole of `/proc` and hands over one event a process, then [`Change::ListingDone`]. Stops early when `each` says false.
/// Processes that end meanwhile are passed over.
pub fn list(mut each: impl FnMut(ProcessEvent) -> bool) -> std::io::Result<()> {
    let started_ns = crate::host::clock::monotonic_ns();
    let mut tgids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(tgid) = entry.ok().and_then(|e| e.file_name().to_str()?.parse::<u32>().ok()) else { continue };
        tgids.push(tgid);
        let at_ns = crate::host::clock::monotonic_ns();
        if let Some(listed) = read_process(tgid)
            && !each(ProcessEvent { at_ns, change: Change::Listed(listed) })
        {
            return Ok(());
        }
    }
    each(ProcessEvent { at_ns: crate::host::clock::monotonic_ns(), change: Change::ListingDone { started_ns, tgids } });
    Ok(())
}

/// One process, if it is there.
#[must_use]
pub fn read_process(tgid: u32) -> Option<Listed> {
    let before = fs::read(format!("/proc/{tgid}/stat")).ok()?;
    let stat = parse_stat(&before)?;
    let mut maps = Vec::new();
    // Kernel threads have an empty file; one that is not ours to read leaves the process without mappings.
    if let Ok(file) = File::open(format!("/proc/{tgid}/maps")) {
        let _partial = file.take(MAX_MAPS_BYTES).read_to_end(&mut maps);
    }
    let now = crate::host::clock::monotonic_ns();
    let since_boot = u128::from(stat.start_ticks) * 1_000_000_000 / u128::from(sys::ticks_per_second());
    let suspended = crate::host::clock::boot_ns().saturating_sub(now);
    Some(Listed {
        tgid,
        parent_tgid: stat.parent_tgid,
        start_ns: u64::try_from(since_boot).unwrap_or(0).saturating_sub(suspended),
        until_ns: now,
        comm: comm_from(stat.comm),
        mappings: parse_maps(tgid, &maps),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_spaces() {
        let line = b"42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2\n";
        assert_eq!(parse_stat(line), Some(Stat { comm: b"a) b", parent_tgid: 7, start_ticks: 12345 }));
        assert_eq!(parse_stat(b"42 (a S 7"), None);
        assert_eq!(parse_stat(b""), None);
        assert_eq!(parse_stat(b")("), None);
    }

    #[test]
    fn executable_mappings_only_and_bad_lines_skipped() {
        let maps = b"55d0-55d1 r--p 00000000 08:01 99 /bin/a\n\
            55d1-55d2 r-xp 00001000 08:01 99                         /bin/a b (deleted)\n\
            nonsense\n\
            7f00-7f01 rwxp 00000000 00:00 0 \n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n\
            7f00-7f01 r-xp zz 08:01 99 /x\n";
        let parsed = parse_maps(3, maps);
        let paths: Vec<_> = parsed.iter().map(|m| String::from_utf8_lossy(&m.path).into_owned()).collect();
        assert_eq!(paths, ["/bin/a b (deleted)", "//anon", "[vsyscall]"]);
        assert_eq!((parsed[0].start, parsed[0].end, parsed[0].offset), (0x55d1, 0x55d2, 0x1000));
        assert_eq!(parsed[0].file, FileIdentity { device: libc::makedev(8, 1), inode: 99, generation: None });
        assert_eq!(parsed[1].file, FileIdentity::NONE);
    }

    #[test]
    fn this_very_process_is_listed() {
        let own = std::process::id();
        let mut found = None;
        let mut done = false;
        list(|event| {
            match event.change {
                Change::Listed(listed) if listed.tgid == own => found = Some((event.at_ns, listed)),
                Change::ListingDone { tgids, .. } => done = tgids.contains(&own),
                _ => {}
            }
            true
        })
        .unwrap();
        let (at_ns, listed) = found.unwrap();
        assert!(done && listed.start_ns <= at_ns && !listed.mappings.is_empty());
        let here = this_very_process_is_listed as *const () as u64;
        assert!(listed.mappings.iter().any(|m| m.start <= here && here < m.end));
    }
}
