//! Finds where the kernel's page structs begin (`vmemmap_base`), which kernel address layout randomisation moves.
//!
//! Before anything else is attached, since the other programs need it. Touches memory of its own while a small program records the
//! `struct page` addresses given to this process; the frame numbers are in /proc/self/pagemap. All pages must agree on one base. Another
//! looks meanwhile whether it could be preempted.

use super::{BpfError, attach, preemption::ALLOCATIONS};
use aya::{Ebpf, maps::Array};
use std::{collections::HashMap, fs::File, os::unix::fs::FileExt as _};
use tracer_common::settings::CALIBRATION_PREEMPTION;

/// The program that records addresses, and the one that looks whether it could be preempted. Without the second nothing is known of that.
const RECORD: &str = "calibrate";
const LOOK: &str = "preemption";

/// Pages touched; the program keeps the last 63 addresses.
const PAGES: usize = 48;
/// The base is aligned to at least this (x86_64: PUD_SIZE with randomisation, and the fixed base is).
const ALIGNMENT: u64 = 1 << 30;

/// What the programs need to know of this kernel, which no file of it tells.
#[derive(Clone, Copy, Debug)]
pub struct Calibration {
    /// The address of frame 0's `struct page`.
    pub vmemmap: u64,
    /// Whether programs on tracepoints can be preempted; `None` where it cannot be told.
    pub preemptible: Option<bool>,
}

/// Finds it.
pub fn find(bpf: &mut Ebpf, page_struct_bytes: u64) -> Result<Calibration, BpfError> {
    let failed = |program| move |error| BpfError::Run { program, error: Box::new(error) };
    if let Err(error) = attach::to_tracepoint(bpf, LOOK, ALLOCATIONS) {
        log::debug!("whether programs can be preempted is not known: {}", attach::describe(&error));
    }
    attach::to_tracepoint(bpf, RECORD, ALLOCATIONS).map_err(failed(RECORD))?;
    let frames = touch_and_locate();
    // They are needed only for this moment.
    for program in [RECORD, LOOK] {
        attach::unload(bpf, program).map_err(failed(program))?;
    }
    let frames = frames.map_err(|source| BpfError::Proc { path: "/proc/self/pagemap", source })?;

    let failed = |source| BpfError::Map { name: "CALIBRATION", source };
    let map = bpf.map("CALIBRATION").ok_or(BpfError::Missing("map CALIBRATION"))?;
    let map = Array::<_, u64>::try_from(map).map_err(failed)?;
    let mut pages = Vec::new();
    for index in 1..CALIBRATION_PREEMPTION {
        let page = map.get(&index, 0).map_err(failed)?;
        if page != 0 {
            pages.push(page);
        }
    }
    let preemptible = match map.get(&CALIBRATION_PREEMPTION, 0).map_err(failed)? {
        1 => Some(false),
        2 => Some(true),
        _ => None,
    };
    Ok(Calibration { vmemmap: agree(&pages, &frames, page_struct_bytes)?, preemptible })
}

/// The base on which most pairs of page address and frame number agree.
fn agree(pages: &[u64], frames: &[u64], page_struct_bytes: u64) -> Result<u64, BpfError> {
    let mut votes: HashMap<u64, usize> = HashMap::new();
    for page in pages {
        for frame in frames {
            let base = page.wrapping_sub(frame.wrapping_mul(page_struct_bytes));
            if base % ALIGNMENT == 0 {
                *votes.entry(base).or_default() += 1;
            }
        }
    }
    match votes.into_iter().max_by_key(|(_, votes)| *votes) {
        Some((base, votes)) if votes >= frames.len() / 2 && votes >= 2 => Ok(base),
        best => Err(BpfError::Calibration(format!(
            "{} page addresses and {} frame numbers do not agree on a base (best: {best:?}); is this the initial pid namespace, and may /proc/self/pagemap show frame numbers (CAP_SYS_ADMIN)?",
            pages.len(),
            frames.len()
        ))),
    }
}

/// Touches fresh pages and returns their frame numbers.
fn touch_and_locate() -> std::io::Result<Vec<u64>> {
    const PAGE: usize = 4096;
    // SAFETY: a fresh private mapping of our own, unmapped below.
    let memory = unsafe {
        libc::mmap(std::ptr::null_mut(), PAGES * PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    if memory == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    // Base pages are wanted. Where transparent huge pages are not built in, the advice fails and is not needed.
    // SAFETY: the mapping above.
    unsafe { libc::madvise(memory, PAGES * PAGE, libc::MADV_NOHUGEPAGE) };
    let mut frames = Vec::new();
    let result = (|| {
        let pagemap = File::open("/proc/self/pagemap")?;
        for page in 0..PAGES {
            let address = memory as usize + page * PAGE;
            // SAFETY: inside the mapping above. Volatile, so that the page is really touched.
            unsafe { std::ptr::write_volatile(address as *mut u8, 1) };
            let mut entry = [0; 8];
            pagemap.read_exact_at(&mut entry, (address / PAGE * 8) as u64)?;
            // Bits 0-54 are the frame number (Documentation/admin-guide/mm/pagemap.rst), 0 if it may not be seen.
            let frame = u64::from_le_bytes(entry) & ((1 << 55) - 1);
            if frame != 0 {
                frames.push(frame);
            }
        }
        Ok(())
    })();
    // SAFETY: the mapping above, not used any more.
    unsafe { libc::munmap(memory, PAGES * PAGE) };
    result.map(|()| frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_among_the_pages_do_not_move_the_base() {
        let base = 0xffff_ea00_0000_0000_u64;
        let frames: Vec<u64> = (0..20).map(|i| 1000 + i * 7).collect();
        let mut pages: Vec<u64> = frames.iter().map(|frame| base + frame * 64).collect();
        pages.extend([base + 64 * 12345, 0xffff_8000_0000_1234]);
        assert_eq!(agree(&pages, &frames, 64).unwrap(), base);
    }

    #[test]
    fn hidden_frame_numbers_are_an_error() {
        assert!(agree(&[0xffff_ea00_0000_0040], &[], 64).is_err());
    }
}
