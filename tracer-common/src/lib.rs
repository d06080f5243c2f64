//! The only types that cross the border between the kernel half (`tracer-ebpf`) and the user half (`tracer-user`).
//!
//! Everything here is `repr(C)`, has no implicit padding (asserted at compile time) and no pointers. The sampling decision lives
//! here too, so that the simulation that proves it unbiased runs the very code that runs in the kernel.
//!
//! Never here: I/O, allocation, anything that only one side needs.
#![no_std]

pub mod attribution;
pub mod births;
pub mod diagnosis;
pub mod dirty;
pub mod event;
pub mod file;
pub mod histogram;
pub mod kind;
pub mod layout;
pub mod loss;
pub mod mapping;
pub mod oom;
pub mod owner;
pub mod process;
pub mod sampling;
pub mod settings;
pub mod stack;

/// Version of everything in this crate. The object carries it, the user half refuses another one.
pub const ABI_VERSION: u32 = 1;

/// Bytes in a page frame. x86_64 has no other base page size.
pub const FRAME_BYTES: u64 = 4096;

/// Mixes `value` into the 64-bit hash `state`: one round of a multiply-xorshift mixer (constants of splitmix64,
/// Steele, Lea, Flood 2014). Not cryptographic: identities built from it carry a check word besides.
#[inline(always)]
#[must_use]
pub const fn mix64(state: u64, value: u64) -> u64 {
    let mut z = state ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Asserts the size of a shared type, so that a change of layout on one side breaks the build.
#[macro_export]
macro_rules! assert_size {
    ($ty:ty, $bytes:expr) => {
        const _: () = assert!(core::mem::size_of::<$ty>() == $bytes);
    };
}

/// Marks a shared type as plain data for aya's typed maps.
#[macro_export]
macro_rules! plain_data {
    ($($ty:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)`, `Copy`, no padding (see `assert_size`), and every bit pattern is a value.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $ty {}
        )+
    };
}
