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
pub mod managed;
pub mod mapping;
pub mod oom;
pub mod owner;
pub mod process;
pub mod sampling;
pub mod settings;
pub mod stack;
pub mod unwind;

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

#[cfg(test)]
mod tests {
    use super::mix64;

    #[test]
    fn mixing_counters_into_nothing_gives_the_published_numbers_of_splitmix64() {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let outputs = |seed: u64| [0, 1, 2].map(|n| mix64(0, seed.wrapping_add(STEP.wrapping_mul(n))));
        assert_eq!(outputs(0), [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
        assert_eq!(outputs(1_234_567), [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    /// Identities are chains of mixes, so what was mixed in before must decide as much as what is mixed in now.
    #[test]
    fn each_bit_of_state_and_value_turns_about_half_the_bits_of_the_hash() {
        let (mut by_state, mut by_value) = ([0_u32; 64], [0_u32; 64]);
        for n in 0..256 {
            let (state, value) = (mix64(1, n), mix64(2, n));
            for (bit, (by_state, by_value)) in by_state.iter_mut().zip(&mut by_value).enumerate() {
                *by_state += (mix64(state, value) ^ mix64(state ^ 1 << bit, value)).count_ones();
                *by_value += (mix64(state, value) ^ mix64(state, value ^ 1 << bit)).count_ones();
            }
        }
        for (input, turned) in [("state", by_state), ("value", by_value)] {
            for (bit, turned) in turned.into_iter().enumerate() {
                let of_hash = f64::from(turned) / 256.0;
                assert!((30.0..34.0).contains(&of_hash), "bit {bit} of the {input} turns {of_hash} bits");
            }
        }
    }
}
