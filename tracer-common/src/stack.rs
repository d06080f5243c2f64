//! Call stacks as the kernel half records them, innermost first.
//!
//! A process finds its program and its libraries at other addresses each time it starts, so that raw addresses would give each process
//! stacks of its own. Frames of user stacks are therefore a file and an offset in it where their code is a file's ([`UserFrame`]): a thousand
//! processes of one program share their stacks, and what a frame means does not end with its process. Frames of kernel stacks are plain
//! addresses.

use crate::{managed::ManagedFrame, mix64};

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

/// Innermost and outermost frames of the machine that are kept where managed frames need their room.
pub const INNERMOST_BESIDE: usize = 48;
/// See [`INNERMOST_BESIDE`].
pub const OUTERMOST_BESIDE: usize = 24;

/// Set in [`StackRecord::status`] where frames of the machine made room for managed ones: between [`INNERMOST_BESIDE`] of them and the others some are left
/// out.
pub const GAP: u32 = 1 << 14;

/// Set in [`StackRecord::status`] where managed frames were left out.
pub const MANAGED_CUT: u32 = 1 << 15;

/// Where in [`StackRecord::status`] the number of managed frames stands.
pub const MANAGED_SHIFT: u32 = 16;

/// What user space puts between them: frames were left out. No frame of the kernel half's is such a number, since no address is.
pub const LEFT_OUT: u64 = (1 << 62) - 1;

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
    /// Frames in use, but for managed ones.
    pub length: u32,
    /// A [`StackStatus`] number; above it ([`OLDEST_SHIFT`]), if frames were left out, one more than the place in the outermost frames of the
    /// first of them: they stand in a ring behind [`INNERMOST`] frames; above that, how many managed frames stand behind all of these
    /// ([`MANAGED_SHIFT`]), whether there were more ([`MANAGED_CUT`]), and whether others made room for them ([`GAP`]).
    pub status: u32,
    /// Return addresses, innermost first, encoded as said above; behind them managed frames, innermost first ([`ManagedFrame`]).
    pub frames: [u64; MAX_FRAMES],
}
crate::assert_size!(StackRecord, 16 + 8 * 128);
crate::plain_data!(StackRecord);

/// Set in a user frame whose code is a file's: below it stand the file's number ([`crate::unwind::FileKey::number`]) and the offset.
pub const IN_FILE: u64 = 1 << 63;

/// Where the file's number stands in a user frame.
pub const FILE_SHIFT: u32 = 32;

/// The offset of a user frame that is too large to be one: tables for unwinding end there, too.
pub const FAR: u64 = (1 << FILE_SHIFT) - 1;

/// A frame of a user stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserFrame {
    /// In the code of a file.
    InFile {
        /// Its [`crate::unwind::FileKey::number`].
        file: u32,
        /// Bytes from its beginning; of a mapping that the kernel makes of its own pages, from the mapping's.
        offset: u64,
    },
    /// At an address of the process: in memory that has no file, or in a file whose bytes mean nothing.
    At(u64),
    /// Of a function that an interpreter runs.
    Managed(ManagedFrame),
    /// Frames were left out here.
    LeftOut,
}

impl UserFrame {
    /// The frame that a number of a [`StackRecord`] stands for.
    #[must_use]
    pub const fn of(number: u64) -> UserFrame {
        if number == LEFT_OUT {
            UserFrame::LeftOut
        } else if number & IN_FILE != 0 {
            UserFrame::InFile { file: ((number & !IN_FILE) >> FILE_SHIFT) as u32, offset: number & FAR }
        } else if let Some(managed) = ManagedFrame::of(number) {
            UserFrame::Managed(managed)
        } else {
            UserFrame::At(number)
        }
    }

    /// The number that stands for it. An offset that is [`FAR`] stays there.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            UserFrame::InFile { file, offset } => in_file(tag(file), offset),
            UserFrame::At(address) => address & !IN_FILE,
            UserFrame::Managed(frame) => frame.number(),
            UserFrame::LeftOut => LEFT_OUT,
        }
    }
}

/// What frames in the file with that number have in common.
#[inline(always)]
#[must_use]
pub const fn tag(file: u32) -> u64 {
    IN_FILE | (file as u64) << FILE_SHIFT
}

/// The number of a frame in a file with that [`tag`].
#[inline(always)]
#[must_use]
pub const fn in_file(tag: u64, offset: u64) -> u64 {
    tag | if offset < FAR { offset } else { FAR }
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

    #[test]
    fn the_kept_frames_of_a_deep_stack_fill_its_room() {
        assert_eq!(INNERMOST + OUTERMOST, DEEPEST);
    }

    #[test]
    fn frames_come_back_as_they_were() {
        let most = (1 << 31) - 1;
        let in_files = [(0, 0), (1, 0x1234), (most, FAR), (0x1234_5678, FAR - 1)];
        for frame in in_files.map(|(file, offset)| UserFrame::InFile { file, offset }) {
            assert_eq!(UserFrame::of(frame.number()), frame, "{frame:?}");
        }
        for address in [0, 0x40_1000, 0x7fff_ffff_f000, 0x00ff_ffff_ffff_f123] {
            assert_eq!(UserFrame::of(UserFrame::At(address).number()), UserFrame::At(address));
        }
        assert_eq!(UserFrame::of(LEFT_OUT), UserFrame::LeftOut);
        assert_eq!(UserFrame::LeftOut.number(), LEFT_OUT);
    }

    #[test]
    fn an_offset_beyond_what_has_room_does_not_reach_into_the_number() {
        let far = UserFrame::InFile { file: 7, offset: FAR };
        for offset in [FAR, FAR + 1, u64::MAX] {
            assert_eq!(UserFrame::of(in_file(tag(7), offset)), far);
        }
        assert_eq!(UserFrame::of(in_file(tag(7), FAR - 1)), UserFrame::InFile { file: 7, offset: FAR - 1 });
        assert_eq!(tag(0) | in_file(tag(1), 5), 1 << 63 | 1 << 32 | 5);
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
