//! Call stacks as the kernel half records them: raw addresses, innermost first.

use crate::mix64;

/// Room for frames: the kernel's own default bound (`kernel.perf_event_max_stack`, 127) rounded up to whole chunks.
pub const MAX_FRAMES: usize = 128;

/// A stack of so many frames may have had more.
pub const DEEPEST: usize = 127;

/// Frames hashed at a time: the verifier follows one exit a chunk instead of one a frame.
pub const CHUNK: usize = 16;

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
    /// Return addresses, innermost first.
    pub frames: [u64; MAX_FRAMES],
}
crate::assert_size!(StackRecord, 16 + 8 * 128);
crate::plain_data!(StackRecord);

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
