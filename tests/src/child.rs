//! A process that does not outlive what it was started for.

use std::{
    ops::{Deref, DerefMut},
    process::Child,
};

/// Killed and waited for when dropped.
#[derive(Debug)]
pub(crate) struct KilledChild(pub(crate) Child);

impl Deref for KilledChild {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for KilledChild {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for KilledChild {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
