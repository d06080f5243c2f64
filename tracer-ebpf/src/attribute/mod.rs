//! From a charge to a key: decide, capture the stacks last and only for taken samples, credit the key, keep the sample until it ends.

pub mod collapse;
pub mod commit;
pub mod decide;
pub mod end;
pub mod followed;
pub mod frames;
pub mod key;
pub mod peak;
pub mod stack;

use crate::maps::CONTROL;
use tracer_common::settings::Control;

/// The state that user space changes while the trace runs; `None` while counting is off.
#[inline(always)]
pub fn control() -> Option<&'static Control> {
    let control = CONTROL.get(0)?;
    if control.enabled == 0 { None } else { Some(control) }
}
