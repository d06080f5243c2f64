//! The kernel half's own messages: rare events, told through aya-log with `-vv` only.
//!
//! Without it the setting is a constant 0, so the verifier removes the calls and what they log. Never called for something that happens
//! with every charge.

use crate::{globals::setting, maps::LOSS_COUNTS};
use tracer_common::diagnosis::Diagnosis;

/// Tells of an event with two numbers (see [`Diagnosis`]). A loss is told before it is counted, and only if it is the first of its cause
/// on this CPU.
#[inline(always)]
pub fn tell(what: Diagnosis, first: u64, second: u64) {
    if setting!(diagnose) != 0 {
        diagnose(what as u64, first, second);
    }
}

/// A global function, so that the message is made in one place and verified once (see [`crate::attribute::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn diagnose(what: u64, first: u64, second: u64) -> u64 {
    if (what == Diagnosis::FirstLoss as u64 || what == Diagnosis::RefusedEntry as u64)
        && let Some(count) = LOSS_COUNTS.get_ptr(first as u32)
        // SAFETY: a map value.
        && unsafe { (*count).events } != 0
    {
        return 0;
    }
    aya_log_ebpf::debug!((), target: "kernel", "{} {} {}", what, first, second);
    0
}
