//! The processes that run now, from `/proc`.
//!
//! It runs after the records are on, so that nothing falls between, and again after a loss.

use super::event::{Change, Listed, MapEvent, ProcessEvent, comm_from};
use super::identity::FileIdentity;
use crate::host::{
    clock,
    proc::{
        self, Process,
        maps::{Maps, Vma},
    },
};

/// The executable mappings among those that `/proc/PID/maps` lists. Lines that are not understood are passed over.
fn executable(tgid: u32, maps: Maps) -> Vec<MapEvent> {
    let event = |vma: Vma| {
        let file = FileIdentity { device: if vma.inode == 0 { 0 } else { vma.device }, inode: vma.inode, generation: None };
        let path = if vma.name.is_empty() { b"//anon".to_vec() } else { vma.name.into_vec() };
        MapEvent { tgid, start: vma.start, end: vma.end, offset: vma.offset, executable: true, file, path }
    };
    maps.vmas.into_iter().filter(|vma| vma.execute).map(event).collect()
}

/// Reads the whole of `/proc` and hands over one event a process, then [`Change::ListingDone`]. Stops early when `each` says false.
/// Processes that end meanwhile are passed over.
pub fn list(mut each: impl FnMut(ProcessEvent) -> bool) -> std::io::Result<()> {
    let started_ns = clock::monotonic_ns();
    let mut tgids = Vec::new();
    for tgid in proc::tgids()? {
        tgids.push(tgid);
        let at_ns = clock::monotonic_ns();
        if let Some(listed) = read_process(tgid)
            && !each(ProcessEvent { at_ns, change: Change::Listed(listed) })
        {
            return Ok(());
        }
    }
    each(ProcessEvent { at_ns: clock::monotonic_ns(), change: Change::ListingDone { started_ns, tgids } });
    Ok(())
}

/// One process, if it is there.
#[must_use]
pub fn read_process(tgid: u32) -> Option<Listed> {
    let process = Process::open(tgid).ok()?;
    let stat = process.stat().ok()?;
    // Kernel threads have an empty file; one that is not ours to read leaves the process without mappings.
    let maps = process.maps().unwrap_or_default();
    Some(Listed {
        tgid,
        parent_tgid: stat.parent_tgid,
        start_ns: stat.monotonic_ns(),
        until_ns: clock::monotonic_ns(),
        comm: comm_from(&stat.comm),
        mappings: executable(tgid, maps),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_mappings_only_and_bad_lines_skipped() {
        let maps = b"55d0-55d1 r--p 00000000 08:01 99 /bin/a\n\
            55d1-55d2 r-xp 00001000 08:01 99                         /bin/a b (deleted)\n\
            nonsense\n\
            7f00-7f01 rwxp 00000000 00:00 0 \n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n\
            7f00-7f01 r-xp zz 08:01 99 /x\n";
        let parsed = executable(3, Maps::parse(&maps[..]).unwrap());
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
