//! How large the tables are: planned from RAM, possible CPUs and mode, within the memory asked for. Pure.

use serde::Serialize;
use tracer_common::{
    FRAME_BYTES,
    attribution::{Grave, KeyRecord, OwnerTotals, Sample},
    process::ProcessRecord,
    sampling::{MAX_LOG2_MEAN, MIN_LOG2_MEAN},
    stack::StackRecord,
};

/// Default of `--map-memory`, bytes.
pub const DEFAULT_MAP_MEMORY: u64 = 64 << 20;

/// What sizes are planned from.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Take every charge.
    pub exact: bool,
    /// Most bytes that the traced cgroups can hold: the sum of their limits, or RAM.
    pub traced_bytes: u64,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// One more than the highest frame number.
    pub frames: u64,
    /// Possible CPUs.
    pub cpus_possible: u32,
    /// Bound for all maps, bytes.
    pub map_memory: u64,
}

/// Entries of every sized map, and the sampling rate that goes with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// log2 of M.
    pub log2_mean: u32,
    /// Frames covered.
    pub frames: u64,
    /// Live samples.
    pub samples: u32,
    /// Keys.
    pub keys: u32,
    /// Stacks.
    pub stacks: u32,
    /// Processes.
    pub processes: u32,
    /// Samples kept for open pictures.
    pub graveyard: u32,
    /// Owners with a filter or exact totals.
    pub owners: u32,
    /// Bytes of all maps.
    pub bytes: u64,
}

/// The tables do not fit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--exact needs {needed} bytes of map memory for {traced} bytes of traced memory, and {allowed} are allowed: pass --map-memory {} (or narrow the filter to cgroups with a limit)", megabytes(*needed))]
pub struct DoesNotFit {
    /// Bytes needed.
    pub needed: u64,
    /// Bytes allowed.
    pub allowed: u64,
    /// Bytes that can be charged.
    pub traced: u64,
}

fn megabytes(bytes: u64) -> String {
    format!("{}MiB", bytes.div_ceil(1 << 20))
}

/// Overhead of an entry of a preallocated hash besides key and value: element header and bucket (kernel/bpf/hashtab.c).
const HASH_ENTRY: u64 = 48 + 8 + 16;
/// Samples planned to be live when all of RAM is charged: the standard error of a total is then under 1 %.
const SAMPLES_OF_RAM: u64 = 1 << 15;
/// Smallest default M. Below it stack walks, not probes, make the cost.
const SMALLEST_DEFAULT_LOG2: u32 = 18;

/// Plans the tables.
pub fn plan(wish: &Wish) -> Result<Sizes, DoesNotFit> {
    let mut sizes = Sizes {
        log2_mean: default_log2_mean(wish.ram_bytes),
        frames: wish.frames,
        samples: 1 << 16,
        keys: 1 << 15,
        stacks: 1 << 13,
        processes: 1 << 14,
        graveyard: 1 << 13,
        owners: 1 << 12,
        bytes: 0,
    };
    if wish.exact {
        sizes.log2_mean = MIN_LOG2_MEAN;
        let frames = wish.traced_bytes.min(wish.ram_bytes).div_ceil(FRAME_BYTES);
        // A tenth more: folios are held for a moment after their uncharge, and kernels overshoot a limit.
        sizes.samples = u32::try_from(frames + frames / 10).unwrap_or(u32::MAX).max(1 << 14);
    }
    sizes.bytes = bytes(&sizes, wish.cpus_possible);
    while sizes.bytes > wish.map_memory && !wish.exact && sizes.samples > 1 << 12 {
        sizes.samples /= 2;
        sizes.keys /= 2;
        sizes.stacks /= 2;
        sizes.graveyard /= 2;
        sizes.processes /= 2;
        sizes.log2_mean = (sizes.log2_mean + 1).min(MAX_LOG2_MEAN);
        sizes.bytes = bytes(&sizes, wish.cpus_possible);
    }
    if sizes.bytes > wish.map_memory {
        return Err(DoesNotFit { needed: sizes.bytes, allowed: wish.map_memory, traced: wish.traced_bytes.min(wish.ram_bytes) });
    }
    Ok(sizes)
}

/// log2 of the default M for that much RAM.
#[must_use]
pub fn default_log2_mean(ram_bytes: u64) -> u32 {
    (ram_bytes / SAMPLES_OF_RAM).max(1).next_power_of_two().ilog2().clamp(SMALLEST_DEFAULT_LOG2, MAX_LOG2_MEAN)
}

fn bytes(sizes: &Sizes, cpus: u32) -> u64 {
    let entry = |value: usize| HASH_ENTRY + value as u64;
    let tables = u64::from(sizes.samples) * entry(size_of::<Sample>())
        + u64::from(sizes.keys) * entry(size_of::<KeyRecord>())
        + u64::from(sizes.stacks) * entry(size_of::<StackRecord>())
        + u64::from(sizes.processes) * entry(size_of::<ProcessRecord>())
        + u64::from(sizes.graveyard) * entry(size_of::<Grave>() + size_of::<Sample>())
        + u64::from(sizes.owners) * (2 * HASH_ENTRY + 8 + u64::from(cpus) * size_of::<OwnerTotals>() as u64);
    // Two bit tables, scratch, rings and the small arrays.
    tables + sizes.frames / 4 + u64::from(cpus) * 16384 + (512 << 10)
}

impl Sizes {
    /// Map names of the object with their entries.
    #[must_use]
    pub fn entries(&self) -> [(&'static str, u32); 9] {
        let words = u32::try_from(self.frames.div_ceil(64)).unwrap_or(u32::MAX).max(1);
        [
            ("FRAMES", words),
            ("NEW_FRAMES", words),
            ("SAMPLES", self.samples),
            ("KEYS", self.keys),
            ("STACKS", self.stacks),
            ("PROCESSES", self.processes),
            ("GRAVEYARD", self.graveyard),
            ("OWNERS", self.owners),
            ("OWNER_TOTALS", self.owners),
        ]
    }

    /// M in bytes.
    #[must_use]
    pub fn mean_bytes(&self) -> u64 {
        1 << self.log2_mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn wish(exact: bool, ram: u64, traced: u64) -> Wish {
        let map_memory = DEFAULT_MAP_MEMORY;
        Wish { exact, traced_bytes: traced, ram_bytes: ram, frames: ram / FRAME_BYTES, cpus_possible: 8, map_memory }
    }

    #[test]
    fn sampling_fits_any_host_and_m_grows_with_ram() {
        for (ram, mean) in [(GIB, 256 << 10), (24 * GIB, 1 << 20), (128 * GIB, 4 << 20), (4096 * GIB, 128 << 20)] {
            let mut wish = wish(false, ram, ram);
            wish.cpus_possible = 128;
            wish.map_memory = wish.map_memory.max(ram / FRAME_BYTES / 4 + (64 << 20));
            let sizes = plan(&wish).unwrap();
            assert_eq!(sizes.mean_bytes(), mean, "{ram}");
            assert!(sizes.bytes <= wish.map_memory);
        }
    }

    #[test]
    fn exact_refuses_what_does_not_fit_and_says_what_would() {
        let error = plan(&wish(true, 24 * GIB, 24 * GIB)).unwrap_err();
        assert!(error.to_string().contains("--map-memory "), "{error}");
        let again = Wish { map_memory: error.needed, ..wish(true, 24 * GIB, 24 * GIB) };
        assert_eq!(plan(&again).unwrap().log2_mean, 12);
        assert!(plan(&wish(true, 24 * GIB, GIB / 2)).is_ok());
    }
}
