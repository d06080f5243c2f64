//! perf records to events. Pure: bytes in, values out, and a record that is too short is `None`, never a panic.
//!
//! Layouts are those of `enum perf_event_type` in include/uapi/linux/perf_event.h, for events opened with
//! `sample_id_all` and `PERF_SAMPLE_TID | PERF_SAMPLE_TIME`: every record then ends in (pid: u32, tid: u32, time: u64).
//! By hand instead of by perf-event-data, whose parser has no bounds of its own on hostile paths and wants its own error type.

use super::event::{Change, MapEvent, ProcessEvent, comm_from};
use super::identity::FileIdentity;

const RECORD_LOST: u32 = 2;
const RECORD_COMM: u32 = 3;
const RECORD_EXIT: u32 = 4;
const RECORD_FORK: u32 = 7;
const RECORD_MMAP2: u32 = 10;
const MISC_COMM_EXEC: u16 = 1 << 13;
const MISC_MMAP_BUILD_ID: u16 = 1 << 14;
const PROT_EXEC: u32 = 4;
const TRAILER_BYTES: usize = 16;
/// The kernel's own id of "this task has no id any more".
const GONE: u32 = u32::MAX;

/// The event in one record; `None` for other records, for tasks outside of this pid namespace and for malformed ones.
///
/// `kind` and `misc` are those of the record's header, `bytes` is what follows it.
#[must_use]
pub fn parse(kind: u32, misc: u16, bytes: &[u8]) -> Option<ProcessEvent> {
    let (body, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER_BYTES)?)?;
    let at_ns = u64_at(trailer, 8)?;
    let change = match kind {
        RECORD_LOST => Change::Lost { records: u64_at(body, 8)? },
        RECORD_COMM => {
            let comm = comm_from(body.get(8..)?);
            Change::Comm { tgid: u32_at(body, 0)?, tid: u32_at(body, 4)?, comm, exec: misc & MISC_COMM_EXEC != 0 }
        }
        RECORD_FORK => Change::Fork { tgid: u32_at(body, 0)?, parent_tgid: u32_at(body, 4)?, tid: u32_at(body, 8)? },
        RECORD_EXIT => Change::Exit { tgid: u32_at(body, 0)?, tid: u32_at(body, 8)? },
        RECORD_MMAP2 => Change::Mmap(parse_mmap2(misc, body)?),
        _ => return None,
    };
    let tgid = match &change {
        Change::Fork { tgid, .. } | Change::Exit { tgid, .. } | Change::Comm { tgid, .. } => *tgid,
        Change::Mmap(map) => map.tgid,
        _ => 1,
    };
    // 0 is the idle task, or a task that this pid namespace does not show.
    (tgid != 0 && tgid != GONE).then_some(ProcessEvent { at_ns, change })
}

fn parse_mmap2(misc: u16, body: &[u8]) -> Option<MapEvent> {
    let start = u64_at(body, 8)?;
    let file = if misc & MISC_MMAP_BUILD_ID != 0 {
        FileIdentity::NONE
    } else {
        let device = libc::makedev(u32_at(body, 32)?, u32_at(body, 36)?);
        let inode = u64_at(body, 40)?;
        FileIdentity { device, inode, generation: (inode != 0).then_some(u64_at(body, 48)?) }
    };
    let name = body.get(64..)?;
    let length = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    Some(MapEvent {
        tgid: u32_at(body, 0)?,
        start,
        end: start.checked_add(u64_at(body, 16)?)?,
        offset: u64_at(body, 24)?,
        executable: u32_at(body, 56)? & PROT_EXEC != 0,
        file,
        path: name[..length].to_vec(),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = words.concat();
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(99_u64.to_ne_bytes());
        bytes
    }

    fn mmap2() -> Vec<u8> {
        record(&[
            &7_u32.to_ne_bytes(),
            &8_u32.to_ne_bytes(),
            &0x1000_u64.to_ne_bytes(),
            &0x2000_u64.to_ne_bytes(),
            &0x3000_u64.to_ne_bytes(),
            &8_u32.to_ne_bytes(),
            &1_u32.to_ne_bytes(),
            &42_u64.to_ne_bytes(),
            &5_u64.to_ne_bytes(),
            &5_u32.to_ne_bytes(),
            &2_u32.to_ne_bytes(),
            b"/bin/x\0\0",
        ])
    }

    #[test]
    fn a_mapping_is_read() {
        let event = parse(RECORD_MMAP2, 0, &mmap2()).unwrap();
        assert_eq!(event.at_ns, 99);
        let Change::Mmap(map) = event.change else { panic!("{event:?}") };
        assert_eq!((map.tgid, map.start, map.end, map.offset, map.executable), (7, 0x1000, 0x3000, 0x3000, true));
        assert_eq!(map.file, FileIdentity { device: libc::makedev(8, 1), inode: 42, generation: Some(5) });
        assert_eq!(map.path, b"/bin/x");
    }

    #[test]
    fn exec_is_told_from_a_rename() {
        let bytes = record(&[&7_u32.to_ne_bytes(), &7_u32.to_ne_bytes(), b"cat\0\0\0\0\0"]);
        let expected = |exec| Change::Comm { tgid: 7, tid: 7, comm: comm_from(b"cat"), exec };
        assert_eq!(parse(RECORD_COMM, MISC_COMM_EXEC, &bytes).unwrap().change, expected(true));
        assert_eq!(parse(RECORD_COMM, 0, &bytes).unwrap().change, expected(false));
    }

    #[test]
    fn cut_records_are_none_and_never_panic() {
        let whole = mmap2();
        for length in 0..whole.len() {
            for kind in 0..20 {
                let _ = parse(kind, u16::MAX, &whole[..length]);
            }
        }
        assert_eq!(parse(RECORD_MMAP2, 0, &whole[..60]), None);
    }

    #[test]
    fn a_mapping_that_wraps_around_is_refused() {
        let mut bytes = mmap2();
        bytes[16..24].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert_eq!(parse(RECORD_MMAP2, 0, &bytes), None);
    }

    #[test]
    fn tasks_without_an_id_are_passed_over() {
        for id in [0, GONE] {
            let bytes = record(&[&id.to_ne_bytes(), &1_u32.to_ne_bytes(), &id.to_ne_bytes(), &1_u32.to_ne_bytes(), &9_u64.to_ne_bytes()]);
            assert_eq!(parse(RECORD_EXIT, 0, &bytes), None);
        }
    }
}
