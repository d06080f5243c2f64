//! Locks of what stays usable when a thread that held it has panicked: counters, caches, queues.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The guard. A poisoned lock only says that some thread panicked.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
