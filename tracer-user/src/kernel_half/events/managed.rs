//! Functions that interpreters run, as walks meet them.

use super::{Decode, Ring, plain};
use crate::kernel_half::{BpfError, loaded::KernelHalf, tables::managed::FUNCTION_EVENTS};
use tracer_common::managed::FunctionEvent;

impl Decode for FunctionEvent {
    fn decode(bytes: &[u8]) -> Option<FunctionEvent> {
        plain(bytes)
    }
}

/// Takes the ring out of the kernel half.
///
/// # Errors
/// It is not there, or taken.
pub fn ring(half: &mut KernelHalf) -> Result<Ring<FunctionEvent>, BpfError> {
    Ring::take(half, &FUNCTION_EVENTS)
}
