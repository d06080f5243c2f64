//! Call stacks as the kernel half records them, innermost first.
//!
//! A process finds its program and its libraries at other addresses each time it starts, so that raw addresses would give each process
//! stacks of its own. Frames of user stacks are therefore kept relative to where that process has its program ([`IN_PROGRAM`]) or its
//! mappings ([`BELOW_BASE`]): a thousand short processes of one program share their stacks. Which addresses are meant, the key's process
//! tells ([`Bases::absolute`]). Frames of kernel stacks are plain addresses.

use crate::mix64;

/// Room for frames: the kernel's own default bound (`kernel.perf_event_max_stack`, 127) rounded up to whole chunks.
pub const MAX_FRAMES: usize = 128;

/// A stack of so many frames may have had more.
pub const DEEPEST: usize = 127;

/// Innermost frames of a longer stack that are kept.
pub const INNERMOST: usize = 96;

/// Outermost frames of it that are kept, so that stacks of any depth merge at their roots.
pub const OUTERMOST: usize = 31;

/// See [`StackRecord::status`].
pub const OLDEST_SHIFT: u32 = 8;

/// What user space puts between them: frames were left out. No frame of the kernel half's is such a number, since no address is.
pub const LEFT_OUT: u64 = DISTANCE;

/// Frames hashed at a time: the verifier follows one exit a chunk instead of one a frame.
pub const CHUNK: usize = 16;

/// In the place of a kernel stack's identity, which is odd: no stack was recorded, the task's own code faulted.
pub const BY_FAULT: u64 = 2;
/// The same for a system call that reads.
pub const BY_READ: u64 = 4;
/// The same for a system call that writes.
pub const BY_WRITE: u64 = 6;

/// How a stack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum StackStatus {
    /// Walked until the walker found its end. For user stacks this says only that the frame-pointer chain ended in order:
    /// the user half judges whether the last frame is a root.
    Ended = 0,
    /// [`DEEPEST`] frames or more.
    TooDeep = 1,
    /// There is no such stack: kernel thread, interrupt, or the memory of another process was touched.
    None = 2,
    /// Walked to a frame that nothing called, by rules alone.
    Root = 3,
    /// The innermost frame's caller was guessed by its frame pointer, which it may not have set: a caller may be missing.
    Guessed = 4,
}

impl StackStatus {
    /// Set in the number of a status that stands for an [`crate::unwind::End`]: rules were followed to there.
    pub const CUT: u32 = 0x80;
}

/// A stack, stored under its 64-bit identity.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StackRecord {
    /// A second, independent hash: two stacks with one identity and different checks are counted as a collision.
    pub check: u64,
    /// Frames in use.
    pub length: u32,
    /// A [`StackStatus`] number; above it ([`OLDEST_SHIFT`]), if frames were left out, one more than the place in the outermost frames of the
    /// first of them: they stand in a ring behind [`INNERMOST`] frames.
    pub status: u32,
    /// Return addresses, innermost first, encoded as said above.
    pub frames: [u64; MAX_FRAMES],
}
crate::assert_size!(StackRecord, 16 + 8 * 128);
crate::plain_data!(StackRecord);

/// Set in a user frame that is a distance from the beginning of the program's code.
pub const IN_PROGRAM: u64 = 1 << 63;

/// Set in a user frame that is a distance down from the top of the mappings.
pub const BELOW_BASE: u64 = 1 << 62;

/// What is left of a frame without its tags.
pub const DISTANCE: u64 = BELOW_BASE - 1;

/// Where a process has its program and its mappings. All zeros leave addresses as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bases {
    /// Beginning of the program's code.
    pub code_start: u64,
    /// Bytes of it.
    pub code_length: u64,
    /// Top of the mappings.
    pub mmap_base: u64,
}

impl Bases {
    /// The frame that stands for a user address. Without a branch: it runs in a loop that the verifier follows.
    #[inline(always)]
    #[must_use]
    pub const fn relative(&self, address: u64) -> u64 {
        let within = address.wrapping_sub(self.code_start);
        let below = self.mmap_base.wrapping_sub(address);
        // All ones where it holds. Addresses are far below 2^62, so differences keep their sign.
        let in_program = sign(within.wrapping_sub(self.code_length)) & !sign(within);
        let below_base = !sign(below) & !in_program & sign(self.mmap_base.wrapping_neg());
        let plain = address & DISTANCE & !(in_program | below_base);
        plain | in_program & (IN_PROGRAM | within) | below_base & (BELOW_BASE | below & DISTANCE)
    }

    /// The address that a user frame stands for in the process with these bases; `None` if the one that is needed is unknown.
    #[must_use]
    pub const fn absolute(&self, frame: u64) -> Option<u64> {
        let distance = frame & DISTANCE;
        if frame & IN_PROGRAM != 0 {
            if self.code_start == 0 { None } else { Some(self.code_start.wrapping_add(distance)) }
        } else if frame & BELOW_BASE != 0 {
            if self.mmap_base == 0 { None } else { Some(self.mmap_base.wrapping_sub(distance)) }
        } else {
            Some(distance)
        }
    }
}

/// All ones for a negative number, else zero.
#[inline(always)]
const fn sign(value: u64) -> u64 {
    ((value as i64) >> 63) as u64
}

/// One step of the identity.
#[inline(always)]
#[must_use]
pub const fn identity_step(state: u64, address: u64) -> u64 {
    mix64(state, address)
}

/// One step of the check word: another mixing, so that both collide together only by chance in 2^128.
#[inline(always)]
#[must_use]
pub const fn check_step(state: u64, address: u64) -> u64 {
    let x = (state ^ address).wrapping_mul(0x9fb2_1c65_1e98_df25);
    x ^ (x >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Bases = Bases { code_start: 0x5581_0000_1000, code_length: 0x3000, mmap_base: 0x7f12_3456_7000 };
    const OTHER: Bases = Bases { code_start: 0x55ff_0000_1000, code_length: 0x3000, mmap_base: 0x7fee_0000_0000 };

    #[test]
    fn the_mark_of_frames_that_were_left_out_stays_what_it_is() {
        for bases in [ONE, OTHER, Bases::default()] {
            assert_eq!(bases.absolute(LEFT_OUT), Some(LEFT_OUT));
        }
        assert_eq!(INNERMOST + OUTERMOST, DEEPEST);
    }

    #[test]
    fn frames_come_back_as_the_addresses_they_were() {
        for bases in [ONE, OTHER, Bases::default()] {
            let addresses = [
                0,
                0x40_1000,
                bases.code_start,
                bases.code_start + 0x2fff,
                bases.code_start + 0x3000,
                bases.mmap_base.saturating_sub(0x20_0123),
                bases.mmap_base,
                0x7fff_ffff_f000,
                0x00ff_ffff_ffff_f123,
            ];
            for address in addresses {
                assert_eq!(bases.absolute(bases.relative(address)), Some(address), "{address:x} with {bases:x?}");
            }
        }
    }

    #[test]
    fn equal_code_of_two_processes_has_equal_frames() {
        assert_eq!(ONE.relative(ONE.code_start + 0x123), OTHER.relative(OTHER.code_start + 0x123));
        assert_eq!(ONE.relative(ONE.mmap_base - 0x45678), OTHER.relative(OTHER.mmap_base - 0x45678));
        assert_ne!(ONE.relative(ONE.code_start + 0x123), ONE.relative(ONE.mmap_base - 0x123));
    }

    #[test]
    fn a_frame_whose_base_is_unknown_has_no_address() {
        assert_eq!(Bases::default().absolute(ONE.relative(ONE.code_start)), None);
        assert_eq!(Bases::default().absolute(ONE.relative(ONE.mmap_base - 8)), None);
    }

    #[test]
    fn any_word_is_taken_without_a_panic() {
        let mut word = 1_u64;
        for _ in 0..10_000 {
            word = mix64(word, 7);
            let frame = ONE.relative(word);
            assert!(ONE.absolute(frame).is_some());
        }
    }

    #[test]
    fn a_frame_is_a_distance_where_the_address_has_a_base_and_else_the_address() {
        // A program is mapped below the top of the mappings: what is in both counts as the program's.
        assert_eq!(ONE.relative(ONE.code_start), IN_PROGRAM);
        assert_eq!(ONE.relative(ONE.code_start + 0x2fff), IN_PROGRAM | 0x2fff);
        assert_eq!(ONE.relative(ONE.code_start - 1), BELOW_BASE | (ONE.mmap_base - ONE.code_start + 1));
        assert_eq!(ONE.relative(ONE.code_start + 0x3000), BELOW_BASE | (ONE.mmap_base - ONE.code_start - 0x3000));
        assert_eq!(ONE.relative(ONE.mmap_base), BELOW_BASE);
        assert_eq!(ONE.relative(ONE.mmap_base + 1), ONE.mmap_base + 1, "the stack is above the mappings");
        let program_alone = Bases { mmap_base: 0, ..ONE };
        assert_eq!(program_alone.relative(ONE.code_start + 5), IN_PROGRAM | 5);
        assert_eq!(program_alone.relative(ONE.code_start + 0x3000), ONE.code_start + 0x3000);
        let mappings_alone = Bases { code_start: 0, code_length: 0, ..ONE };
        assert_eq!(mappings_alone.relative(ONE.mmap_base - 5), BELOW_BASE | 5);
        assert_eq!(Bases::default().relative(0x40_1000), 0x40_1000);
        assert_eq!(Bases::default().relative(u64::MAX), DISTANCE, "no address looks like a distance");
    }

    #[test]
    fn a_distance_counts_up_from_the_program_and_down_from_the_mappings() {
        assert_eq!(OTHER.absolute(IN_PROGRAM | 0x123), Some(OTHER.code_start + 0x123));
        assert_eq!(OTHER.absolute(BELOW_BASE | 0x123), Some(OTHER.mmap_base - 0x123));
        assert_eq!(OTHER.absolute(0x123), Some(0x123));
        // Each base is needed for its own frames only.
        let program_alone = Bases { mmap_base: 0, ..OTHER };
        let mappings_alone = Bases { code_start: 0, ..OTHER };
        assert_eq!([IN_PROGRAM, BELOW_BASE].map(|frame| program_alone.absolute(frame)), [Some(OTHER.code_start), None]);
        assert_eq!([IN_PROGRAM, BELOW_BASE].map(|frame| mappings_alone.absolute(frame)), [None, Some(OTHER.mmap_base)]);
    }

    #[test]
    fn both_hashes_of_a_stack_tell_its_frames_and_their_order() {
        let stacks: [&[u64]; 7] = [&[], &[0], &[0, 0], &[1, 2], &[2, 1], &[1, 2, 3], &[3, 2]];
        for step in [identity_step, check_step] {
            // From a state that a stack before could have left: the steps are told from their state, too.
            let hashes = stacks.map(|stack| stack.iter().fold(0x5eed, |state, frame| step(state, *frame)));
            for (at, hash) in hashes.iter().enumerate() {
                assert!(!hashes[at + 1..].contains(hash), "{:x?} is taken for another stack: {hashes:x?}", stacks[at]);
            }
        }
        let frame = 0x7f12_3456_7000;
        assert_ne!(identity_step(7, frame), check_step(7, frame), "two hashes that agree are one");
    }

    #[test]
    fn the_check_word_folds_its_high_bits_into_the_low_ones() {
        // The multiplier itself, and its upper 35 bits over the lower ones.
        assert_eq!(check_step(0, 1), 0x9fb2_1c65_1e98_df25 ^ 0x4_fd90_e328);
        assert_eq!(check_step(1, 0), check_step(0, 1));
        assert_eq!(check_step(0x7f12, 0x7f12), 0);
    }
}
