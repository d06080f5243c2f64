//! Finds where the kernel's page structs begin (`vmemmap_base`), which kernel address layout randomisation moves.
//!
//! Before anything else is attached, since the other programs need it. Touches memory of its own while a small program records the
//! `struct page` addresses given to this thread; the frame numbers are in /proc/self/pagemap. Most pages must agree on one base. What else
//! this thread is given meanwhile (page tables, what interrupts allocate) agrees with nothing, and more of it takes more rounds. Where no
//! number of rounds helps, as in a pid namespace, whose thread ids the program does not know, the kernel's own variable is read, if
//! /proc/kallsyms tells its address. Another program looks meanwhile whether it could be preempted.

use super::{
    BpfError, KernelHalf, attach,
    preemption::ALLOCATIONS,
    tables::{self, inner::CALIBRATION},
};
use crate::host::clock::this_thread;
use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, BufReader},
    os::unix::fs::FileExt as _,
};
use tracer_common::settings::{
    CALIBRATION_ADDRESSES, CALIBRATION_COUNT, CALIBRATION_FIRST, CALIBRATION_PREEMPTION, CALIBRATION_THREAD, CALIBRATION_WORD,
};

/// The program that records addresses, and the one that looks whether it could be preempted. Without the second nothing is known of that.
const RECORD: &str = "calibrate";
const LOOK: &str = "preemption";
/// The program that reads a word of the kernel's.
const READ: &str = "run_read_word";

/// Pages touched in a round.
const PAGES: usize = 48;
/// Rounds before the kernel's variable is asked.
const ROUNDS: usize = 50;
/// The base is aligned to at least this (x86_64: PUD_SIZE with randomisation, and the fixed base is).
const ALIGNMENT: u64 = 1 << 30;
/// The kernel's variable.
const VARIABLE: &str = "vmemmap_base";

/// What the programs need to know of this kernel, which no file of it tells.
#[derive(Clone, Copy, Debug)]
pub struct Calibration {
    /// The address of frame 0's `struct page`.
    pub vmemmap: u64,
    /// Whether programs on tracepoints can be preempted; `None` where it cannot be told.
    pub preemptible: Option<bool>,
}

/// Finds it.
pub fn find(half: &mut KernelHalf, page_struct_bytes: u64) -> Result<Calibration, BpfError> {
    let failed = |program| move |error| BpfError::Run { program, error: Box::new(error) };
    CALIBRATION.set(half, CALIBRATION_THREAD, u64::from(this_thread().unsigned_abs()))?;
    if let Err(error) = attach::to_tracepoint(&mut half.bpf, LOOK, ALLOCATIONS) {
        log::debug!("whether programs can be preempted is not known: {}", attach::describe(&error));
    }
    attach::to_tracepoint(&mut half.bpf, RECORD, ALLOCATIONS).map_err(failed(RECORD))?;
    let found = by_touching(half, page_struct_bytes);
    // They are needed only for this moment.
    for program in [RECORD, LOOK] {
        attach::unload(&mut half.bpf, program).map_err(failed(program))?;
    }
    let preemptible = match CALIBRATION.get(half, CALIBRATION_PREEMPTION)? {
        1 => Some(false),
        2 => Some(true),
        _ => None,
    };
    let votes = found?;
    let vmemmap = match votes.winner() {
        Some(base) => base,
        None => by_variable(half)?.ok_or_else(|| BpfError::Calibration(votes.complaint()))?,
    };
    Ok(Calibration { vmemmap, preemptible })
}

/// Touches pages until they agree, or the rounds are over.
fn by_touching(half: &mut KernelHalf, page_struct_bytes: u64) -> Result<Votes, BpfError> {
    let mut votes = Votes::default();
    for round in 1..=ROUNDS {
        CALIBRATION.set(half, CALIBRATION_COUNT, 0)?;
        let frames = touch_and_locate().map_err(|source| BpfError::Proc { path: "/proc/self/pagemap", source })?;
        let recorded = u32::try_from(CALIBRATION.get(half, CALIBRATION_COUNT)?).unwrap_or(u32::MAX).min(CALIBRATION_ADDRESSES);
        let pages = (0..recorded).map(|at| CALIBRATION.get(half, CALIBRATION_FIRST + at)).collect::<Result<Vec<_>, _>>()?;
        log::trace!("calibration, round {round}: pages {pages:x?}, frames {frames:x?}");
        votes.count(&pages, &frames, page_struct_bytes);
        if votes.winner().is_some() {
            break;
        }
    }
    Ok(votes)
}

/// What the kernel's own variable says; `None` if its address is not told or there is nothing of that kind there.
pub fn by_variable(half: &mut KernelHalf) -> Result<Option<u64>, BpfError> {
    let symbols = File::open("/proc/kallsyms").map(BufReader::new);
    let address = symbols.and_then(|symbols| address_of(symbols, VARIABLE));
    let Some(address) = address.map_err(|source| BpfError::Proc { path: "/proc/kallsyms", source })? else { return Ok(None) };
    CALIBRATION.set(half, CALIBRATION_WORD, 0)?;
    tables::run(half, READ, [address, 0, 0])?;
    let base = CALIBRATION.get(half, CALIBRATION_WORD)?;
    // In the upper half, where the kernel is.
    Ok((base >> 63 == 1 && base % ALIGNMENT == 0).then_some(base))
}

/// The address of a symbol, unless it is hidden (zero).
fn address_of(symbols: impl io::BufRead, name: &str) -> io::Result<Option<u64>> {
    for line in symbols.lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        let address = words.next().and_then(|address| u64::from_str_radix(address, 16).ok());
        // The second word is the symbol's type. A module's symbols have a fourth one.
        if words.nth(1) == Some(name) && words.next().is_none() {
            return Ok(address.filter(|address| *address != 0));
        }
    }
    Ok(None)
}

/// What pairs of page address and frame number say, over all rounds.
#[derive(Debug, Default)]
struct Votes {
    /// Frames that agree with a base.
    by_base: HashMap<u64, usize>,
    /// Frames touched.
    frames: usize,
    /// Addresses recorded.
    pages: usize,
}

impl Votes {
    /// Counts a round. A frame has one vote for each base that would make some page its own.
    fn count(&mut self, pages: &[u64], frames: &[u64], page_struct_bytes: u64) {
        self.frames += frames.len();
        self.pages += pages.len();
        let pages: HashSet<u64> = pages.iter().copied().collect();
        for frame in frames {
            for page in &pages {
                let base = page.wrapping_sub(frame.wrapping_mul(page_struct_bytes));
                if base % ALIGNMENT == 0 {
                    *self.by_base.entry(base).or_default() += 1;
                }
            }
        }
    }

    /// The base that at least half of the frames agree with, and twice as many as with any other: runs of pages and of frames that lie 64 GiB
    /// apart agree by chance.
    fn winner(&self) -> Option<u64> {
        let (base, votes) = self.by_base.iter().max_by_key(|(_, votes)| **votes)?;
        let second = self.by_base.iter().filter(|(other, _)| *other != base).map(|(_, votes)| *votes).max().unwrap_or(0);
        (*votes >= 2 && 2 * votes >= self.frames && *votes >= 2 * second).then_some(*base)
    }

    fn complaint(&self) -> String {
        let best = self.by_base.iter().max_by_key(|(_, votes)| **votes);
        format!(
            "{} page addresses and {} frame numbers do not agree on a base (best: {best:x?}), and /proc/kallsyms does not tell where {VARIABLE} is; is this the initial pid namespace, and may /proc/self/pagemap show frame numbers (CAP_SYS_ADMIN)?",
            self.pages, self.frames
        )
    }
}

/// Touches fresh pages and returns their frame numbers.
fn touch_and_locate() -> io::Result<Vec<u64>> {
    const PAGE: usize = 4096;
    // SAFETY: a fresh private mapping of our own, unmapped below.
    let memory = unsafe {
        libc::mmap(std::ptr::null_mut(), PAGES * PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // Base pages are wanted. Where transparent huge pages are not built in, the advice fails and is not needed.
    // SAFETY: the mapping above.
    unsafe { libc::madvise(memory, PAGES * PAGE, libc::MADV_NOHUGEPAGE) };
    let mut frames = Vec::with_capacity(PAGES);
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

    const BASE: u64 = 0xffff_ea00_0000_0000;

    fn votes(rounds: &[(&[u64], &[u64])]) -> Votes {
        let mut votes = Votes::default();
        for (pages, frames) in rounds {
            votes.count(pages, frames, 64);
        }
        votes
    }

    #[test]
    fn strangers_among_the_pages_do_not_move_the_base() {
        let frames: Vec<u64> = (0..20).map(|i| 1000 + i * 7).collect();
        let mut pages: Vec<u64> = frames.iter().map(|frame| BASE + frame * 64).collect();
        pages.extend([BASE + 64 * 12345, 0xffff_8000_0000_1234]);
        assert_eq!(votes(&[(&pages, &frames)]).winner(), Some(BASE));
    }

    /// Captured on 6.18: the addresses of one process's round.
    const THEIR_PAGES: &[u64] = &[
        0xffff_ea00_135c_40c0,
        0xffff_ea00_135c_4140,
        0xffff_ea00_135c_4180,
        0xffff_ea00_135c_41c0,
        0xffff_ea00_135c_4200,
        0xffff_ea00_135c_4240,
        0xffff_ea00_135c_4280,
        0xffff_ea00_135c_42c0,
        0xffff_ea00_135c_4300,
        0xffff_ea00_135c_4380,
        0xffff_ea00_135c_43c0,
        0xffff_ea00_135c_4400,
        0xffff_ea00_135c_4440,
        0xffff_ea00_135c_4480,
        0xffff_ea00_135c_44c0,
        0xffff_ea00_135c_4540,
        0xffff_ea00_135c_4580,
        0xffff_ea00_135c_45c0,
        0xffff_ea00_135c_4600,
        0xffff_ea00_135c_4640,
        0xffff_ea00_135c_4680,
        0xffff_ea00_135c_46c0,
        0xffff_ea00_135c_4740,
        0xffff_ea00_135c_4780,
        0xffff_ea00_135c_47c0,
        0xffff_ea00_135c_4800,
        0xffff_ea00_135c_4840,
        0xffff_ea00_135c_4880,
        0xffff_ea00_135c_48c0,
        0xffff_ea00_1665_f5c0,
        0xffff_ea00_1665_fb80,
        0xffff_ea00_1666_90c0,
        0xffff_ea00_1666_9640,
        0xffff_ea00_1666_9b80,
        0xffff_ea00_1667_3100,
        0xffff_ea00_1667_3680,
        0xffff_ea00_1601_d1c0,
        0xffff_ea00_1601_d240,
        0xffff_ea00_1601_d2c0,
        0xffff_ea00_1601_d300,
        0xffff_ea00_1601_d340,
        0xffff_ea00_1601_d3c0,
        0xffff_ea00_1601_d400,
        0xffff_ea00_1601_d440,
        0xffff_ea00_1601_d480,
        0xffff_ea00_1601_d4c0,
        0xffff_ea00_1601_d540,
        0xffff_ea00_1601_d580,
        0xffff_ea00_10b3_ff40,
    ];
    /// The addresses of another's, on the same host.
    const OWN_PAGES: &[u64] = &[
        0xffff_ea00_0ab9_7840,
        0xffff_ea00_1889_9080,
        0xffff_ea00_0bd9_5600,
        0xffff_ea00_1699_d200,
        0xffff_ea00_0ae2_e180,
        0xffff_ea00_08e8_4800,
        0xffff_ea00_0a38_b080,
        0xffff_ea00_0acc_4540,
        0xffff_ea00_08e2_3240,
        0xffff_ea00_0e45_5f40,
        0xffff_ea00_115d_9000,
        0xffff_ea00_170b_de40,
        0xffff_ea00_0766_6cc0,
        0xffff_ea00_0766_6c80,
        0xffff_ea00_0766_6c40,
        0xffff_ea00_0766_6c00,
        0xffff_ea00_0766_6b80,
        0xffff_ea00_0766_6b40,
        0xffff_ea00_0766_6b00,
        0xffff_ea00_0766_6ac0,
        0xffff_ea00_0766_6a80,
        0xffff_ea00_0766_6a40,
        0xffff_ea00_0766_6a00,
        0xffff_ea00_0766_69c0,
        0xffff_ea00_0766_6940,
        0xffff_ea00_0766_6900,
        0xffff_ea00_0766_68c0,
        0xffff_ea00_0766_6880,
        0xffff_ea00_0766_6840,
        0xffff_ea00_0766_6800,
        0xffff_ea00_17ed_6e40,
        0xffff_ea00_17ed_6e80,
        0xffff_ea00_17ed_6ec0,
        0xffff_ea00_17ed_6f00,
        0xffff_ea00_17ed_6f40,
        0xffff_ea00_17ed_6f80,
        0xffff_ea00_17cb_a800,
        0xffff_ea00_17cb_a840,
        0xffff_ea00_17cb_a880,
        0xffff_ea00_17cb_a8c0,
        0xffff_ea00_17cb_a900,
        0xffff_ea00_17cb_a940,
        0xffff_ea00_17cb_a980,
        0xffff_ea00_17cb_a9c0,
        0xffff_ea00_17cb_9a40,
        0xffff_ea00_0763_13c0,
        0xffff_ea00_0763_1380,
        0xffff_ea00_0763_1340,
        0xffff_ea00_10c3_9440,
    ];
    /// And its frame numbers.
    const OWN_FRAMES: &[u64] = &[
        0x2a_e5e1, 0x62_2642, 0x2f_6558, 0x5a_6748, 0x2b_8b86, 0x23_a120, 0x28_e2c2, 0x2b_3115, 0x23_88c9, 0x39_157d, 0x45_7640, 0x5c_2f79,
        0x1d_99b3, 0x1d_99b2, 0x1d_99b1, 0x1d_99b0, 0x1d_99ae, 0x1d_99ad, 0x1d_99ac, 0x1d_99ab, 0x1d_99aa, 0x1d_99a9, 0x1d_99a8, 0x1d_99a7,
        0x1d_99a5, 0x1d_99a4, 0x1d_99a3, 0x1d_99a2, 0x1d_99a1, 0x1d_99a0, 0x5f_b5b9, 0x5f_b5ba, 0x5f_b5bb, 0x5f_b5bc, 0x5f_b5bd, 0x5f_b5be,
        0x5f_2ea0, 0x5f_2ea1, 0x5f_2ea2, 0x5f_2ea3, 0x5f_2ea4, 0x5f_2ea5, 0x5f_2ea6, 0x5f_2ea7, 0x5f_2e69, 0x1d_8c4f, 0x1d_8c4e, 0x1d_8c4d,
    ];

    #[test]
    fn a_round_of_nothing_but_noise_is_followed_by_one_that_decides() {
        // Whatever somebody else was given says nothing, however much of it there is.
        let noise = votes(&[(THEIR_PAGES, OWN_FRAMES)]);
        assert_eq!(noise.winner(), None, "{noise:?}");
        assert!(noise.complaint().contains("do not agree"), "{}", noise.complaint());
        let mut beside: Vec<u64> = THEIR_PAGES.to_vec();
        beside.extend(OWN_PAGES);
        assert_eq!(votes(&[(THEIR_PAGES, OWN_FRAMES), (&beside, OWN_FRAMES)]).winner(), Some(BASE));
        // Half of the own addresses are missing.
        let half = &OWN_PAGES[..OWN_PAGES.len() * 3 / 5];
        assert_eq!(votes(&[(half, OWN_FRAMES)]).winner(), Some(BASE));
    }

    #[test]
    fn hidden_frame_numbers_are_no_base() {
        assert_eq!(votes(&[(&[BASE + 64], &[])]).winner(), None);
        assert_eq!(votes(&[]).winner(), None);
    }

    #[test]
    fn runs_far_apart_agree_by_chance_and_do_not_win() {
        // As many pages of a run 64 GiB further on as of the touched ones: two bases with as many votes.
        let frames: Vec<u64> = (5000..5024).collect();
        let far = 1 << 24;
        let mut pages: Vec<u64> = frames.iter().flat_map(|frame| [BASE + frame * 64, BASE + (frame + far) * 64]).collect();
        assert_eq!(votes(&[(&pages, &frames)]).winner(), None);
        // Another round without them decides.
        let next: Vec<u64> = (9000..9048).collect();
        let next_pages: Vec<u64> = next.iter().map(|frame| BASE + frame * 64).collect();
        assert_eq!(votes(&[(&pages, &frames), (&next_pages, &next)]).winner(), Some(BASE));
        // The same addresses again do not count again.
        pages.extend(pages.clone());
        assert_eq!(votes(&[(&pages, &frames)]).winner(), None);
    }

    #[test]
    fn a_symbol_has_its_address_unless_it_is_hidden() {
        let symbols = "ffffffff82a0e000 D vmemmap_base_not\nffffffffc0a0e000 d vmemmap_base\t[module]\nffffffff82a0e008 D vmemmap_base\n";
        assert_eq!(address_of(symbols.as_bytes(), VARIABLE).unwrap(), Some(0xffff_ffff_82a0_e008));
        assert_eq!(address_of("0000000000000000 D vmemmap_base\n".as_bytes(), VARIABLE).unwrap(), None);
        assert_eq!(address_of(symbols.as_bytes(), "page_offset_base").unwrap(), None);
    }
}
