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
}

/// A stack, stored under its 64-bit identity.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StackRecord {
    /// A second, independent hash: two stacks with one identity and different checks are counted as a collision.
    pub check: u64,
    /// Frames in use.
    pub length: u32,
    /// A [`StackStatus`] number.
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
}
