//! Pointers whose type the verifier knows: arguments of fentry, fexit and tp_btf programs. It lets a program load from what they point to,
//! which takes about a nanosecond where the helper takes some 40, and refuses to compute with them.

use core::{arch::asm, ffi::c_void};

/// A pointer of known type, or a plain argument beside such.
#[derive(Clone, Copy)]
pub struct Typed(u64);

impl Typed {
    /// Argument `N` of a program, which has so many.
    #[inline(always)]
    pub fn argument<const N: usize>(ctx: *mut c_void) -> Typed {
        // SAFETY: the context of these programs is an array of u64, as long as the target has arguments.
        Typed(unsafe { ctx.cast::<u64>().add(N).read_volatile() })
    }

    /// The word at an offset; `None` if this kernel has no such member. A null or stale pointer reads as 0.
    #[inline(always)]
    pub fn word(self, offset: Option<u64>) -> Option<u64> {
        let offset = offset?;
        // SAFETY: the verifier knows the type, and the kernel handles faults of such loads.
        Some(unsafe { ((self.0 + offset) as *const u64).read_volatile() })
    }

    /// As a plain number: what is negated is no pointer to the verifier.
    #[inline(always)]
    pub fn number(self) -> u64 {
        let number: u64;
        // SAFETY: registers only.
        unsafe { asm!("{x} = -{x}", "{x} = -{x}", x = inlateout(reg) self.0 => number, options(pure, nomem, nostack)) }
        number
    }
}
