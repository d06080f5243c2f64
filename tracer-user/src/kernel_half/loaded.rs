//! The kernel half as it is loaded: programs, links and maps, all gone from the kernel when this is dropped. From above it is read and
//! changed through [`super::tables`] and [`super::events`]; nobody there sees the loader's types.

use aya::Ebpf;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// The loaded object.
pub struct KernelHalf {
    pub(super) bpf: Ebpf,
    pub(super) troubles: Troubles,
}

/// What user space could not do with the tables, or could do by halves only.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    busy: AtomicU64,
    removed_in_use: AtomicU64,
    removed_in_two_calls: AtomicU64,
    needs_two_calls: AtomicBool,
}

impl Troubles {
    /// A table stayed busy, so that something was not read, not written or not removed.
    pub(super) fn busy(&self, times: u64) {
        self.busy.fetch_add(times, Ordering::Relaxed);
    }

    /// An entry was removed although something was live in it by then.
    pub(super) fn removed_in_use(&self) {
        self.removed_in_use.fetch_add(1, Ordering::Relaxed);
    }

    /// An entry was read and then removed: what was added between the two calls is lost.
    pub(super) fn removed_in_two_calls(&self) {
        self.removed_in_two_calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this kernel was found not to read and remove in one call.
    pub(super) fn needs_two_calls(&self) -> bool {
        self.needs_two_calls.load(Ordering::Relaxed)
    }

    /// It was found not to.
    pub(super) fn found_to_need_two_calls(&self) {
        self.needs_two_calls.store(true, Ordering::Relaxed);
    }
}

impl KernelHalf {
    pub(super) fn new(bpf: Ebpf) -> KernelHalf {
        KernelHalf { bpf, troubles: Troubles::default() }
    }

    /// What was lost on this side of the tables, by cause.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Troubles { busy, removed_in_use, removed_in_two_calls, needs_two_calls: _ } = &self.troubles;
        let counts = [
            ("table_busy_in_user_space", busy),
            ("keys_removed_in_use", removed_in_use),
            ("entries_removed_in_two_calls", removed_in_two_calls),
        ];
        counts.into_iter().map(|(cause, count)| (cause, count.load(Ordering::Relaxed)))
    }

    /// Instructions of the loaded programs, as the kernel has them after removing what can never run; `None` where it does not say.
    #[must_use]
    pub fn instructions(&self) -> BTreeMap<String, Option<u32>> {
        const INSTRUCTION_BYTES: u32 = 8;
        let loaded = self.bpf.programs().filter_map(|(name, program)| Some((name, program.info().ok()?)));
        loaded.map(|(name, info)| (name.to_owned(), info.size_translated().map(|bytes| bytes / INSTRUCTION_BYTES))).collect()
    }
}
