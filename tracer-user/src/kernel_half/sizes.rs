//! How large the tables are: planned from RAM, possible CPUs and mode, within the memory asked for. Pure.

use super::diagnosis;
use crate::text::units;
use serde::Serialize;
use tracer_common::{
    FRAME_BYTES,
    attribution::{Grave, KeyRecord, OwnerTotals, Sample},
    dirty::{DirtyKey, DirtyRecord},
    file::FileRecord,
    histogram::{HistogramKey, WAITERS},
    mapping::{CALLS, Mapper, MappingCall, MappingRecord},
    process::ProcessRecord,
    sampling::{MAX_LOG2_MEAN, MIN_LOG2_MEAN},
    settings::{Followed, OwnerFilter},
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
    /// Processes are followed.
    pub follow: bool,
    /// The kernel half tells of rare events.
    pub diagnose: bool,
    /// Sizes that are not planned but given.
    pub forced: Forced,
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
    /// Files.
    pub files: u32,
    /// Files and processes that made them dirty.
    pub dirtied: u32,
    /// Samples kept for open pictures.
    pub graveyard: u32,
    /// Owners with a filter.
    pub owners: u32,
    /// Owners with exact totals.
    pub owner_totals: u32,
    /// Processes that are followed at once.
    pub followed: u32,
    /// Bytes of the ring of events.
    pub events: u32,
    /// Bytes of the ring of the kernel half's own messages.
    pub logs: u32,
    /// Bytes of the ring of OOM events.
    pub oom_events: u32,
    /// Counters of distributions.
    pub histograms: u32,
    /// Keys of address space.
    pub mappings: u32,
    /// Processes whose rate of mapping is known.
    pub mappers: u32,
    /// Bytes of the ring of mappings.
    pub mapping_events: u32,
    /// Bytes of all maps.
    pub bytes: u64,
}

/// Tables whose size was forced, for tests of what happens when one is full; `None` leaves the planned size. The ring's is in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forced {
    entries: [Option<u32>; FORCIBLE.len()],
}

/// Tables that can be forced.
const FORCIBLE: [&str; 15] = [
    "SAMPLES",
    "KEYS",
    "STACKS",
    "PROCESSES",
    "FILES",
    "GRAVEYARD",
    "OWNERS",
    "OWNER_TOTALS",
    "EVENTS",
    "FOLLOWED",
    "OOM_EVENTS",
    "DIRTIED",
    "HISTOGRAMS",
    "MAPPINGS",
    "MAPPING_EVENTS",
];

impl Forced {
    /// Adds `NAME=N`.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let known = || format!("{text:?}: a table is forced as NAME=N, with one of {}", FORCIBLE.join(" "));
        let (name, number) = text.split_once('=').ok_or_else(known)?;
        let at = FORCIBLE.iter().position(|table| *table == name).ok_or_else(known)?;
        let entries = number.parse().ok().filter(|entries| *entries > 0).ok_or_else(known)?;
        if name.ends_with("EVENTS") && (entries % 4096 != 0 || !u32::is_power_of_two(entries)) {
            return Err(format!("{text:?}: the size of a ring is a power of two from 4096, in bytes"));
        }
        self.entries[at] = Some(entries);
        Ok(())
    }

    /// Whether that table was forced.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        FORCIBLE.iter().zip(self.entries).any(|(table, entries)| *table == name && entries.is_some())
    }

    fn apply(&self, sizes: &mut Sizes) {
        // In the order of the names.
        let fields = [
            &mut sizes.samples,
            &mut sizes.keys,
            &mut sizes.stacks,
            &mut sizes.processes,
            &mut sizes.files,
            &mut sizes.graveyard,
            &mut sizes.owners,
            &mut sizes.owner_totals,
            &mut sizes.events,
            &mut sizes.followed,
            &mut sizes.oom_events,
            &mut sizes.dirtied,
            &mut sizes.histograms,
            &mut sizes.mappings,
            &mut sizes.mapping_events,
        ];
        for (field, entries) in fields.into_iter().zip(self.entries) {
            *field = entries.unwrap_or(*field);
        }
    }
}

/// The tables do not fit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} needs {} of map memory for {} of traced memory, and {} are allowed: pass --map-memory {}{}", if *.exact { "--exact" } else { "tracing" }, units::bytes(*.needed), units::bytes(*.traced), units::bytes(*.allowed), megabytes(*.needed), if *.exact { " (or narrow the filter to cgroups with a limit)" } else { "" })]
pub struct DoesNotFit {
    /// Every charge was to be taken.
    pub exact: bool,
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
/// A thread that waits for memory: a reclaim, a stall and a call for being over `memory.high`, of two, four and two words.
const WAITS_BYTES: u64 = 3 * HASH_ENTRY + (2 + 4 + 2) * 8;
/// Processes alive at once below those that are followed: a build on a large host has a few hundred.
const FOLLOWED_AT_ONCE: u32 = 1 << 12;
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
        files: 1 << 12,
        dirtied: 1 << 12,
        graveyard: 1 << 13,
        owners: 1 << 12,
        owner_totals: owner_totals(wish.cpus_possible),
        followed: if wish.follow { FOLLOWED_AT_ONCE } else { 1 },
        events: 256 << 10,
        logs: if wish.diagnose { diagnosis::ON_BYTES } else { diagnosis::OFF_BYTES },
        // Two hundred kills, their victims included.
        oom_events: 512 << 10,
        // Fifty cgroups with all metrics, hundreds that are quiet.
        histograms: 1 << 14,
        mappings: 1 << 12,
        mappers: mappers(wish.cpus_possible),
        // Seven thousand calls; a thread in a storm sends some 3000 a second, and the ring is looked at twenty times.
        mapping_events: 512 << 10,
        bytes: 0,
    };
    if wish.exact {
        sizes.log2_mean = MIN_LOG2_MEAN;
        let frames = wish.traced_bytes.min(wish.ram_bytes).div_ceil(FRAME_BYTES);
        // A tenth more: folios are held for a moment after their uncharge, and kernels overshoot a limit.
        sizes.samples = u32::try_from(frames + frames / 10).unwrap_or(u32::MAX).max(1 << 14);
        // Cgroups with a limit, which are few.
        sizes.histograms /= 2;
        // What a victim frees while its picture is read is a folio a grave; beyond this its bytes stay right, their age is lost.
        sizes.graveyard = sizes.samples.min(52 << 10);
    }
    wish.forced.apply(&mut sizes);
    sizes.bytes = bytes(&sizes, wish.cpus_possible);
    while sizes.bytes > wish.map_memory && !wish.exact && sizes.samples > 1 << 12 {
        sizes.samples /= 2;
        sizes.keys /= 2;
        sizes.stacks /= 2;
        sizes.graveyard /= 2;
        sizes.processes /= 2;
        sizes.files /= 2;
        sizes.dirtied /= 2;
        sizes.histograms /= 2;
        sizes.mappings /= 2;
        sizes.log2_mean = (sizes.log2_mean + 1).min(MAX_LOG2_MEAN);
        wish.forced.apply(&mut sizes);
        sizes.bytes = bytes(&sizes, wish.cpus_possible);
    }
    // Rather fewer graves than no recording: beyond them only the age of what was freed is lost, and counted.
    while sizes.bytes > wish.map_memory && wish.exact && sizes.graveyard > 1 << 13 {
        sizes.graveyard /= 2;
        wish.forced.apply(&mut sizes);
        sizes.bytes = bytes(&sizes, wish.cpus_possible);
        if wish.forced.has("GRAVEYARD") {
            break;
        }
    }
    if sizes.bytes > wish.map_memory {
        return Err(DoesNotFit {
            exact: wish.exact,
            needed: sizes.bytes,
            allowed: wish.map_memory,
            traced: wish.traced_bytes.min(wish.ram_bytes),
        });
    }
    Ok(sizes)
}

/// Owners with exact totals: a value for each possible CPU, so fewer on many CPUs.
fn owner_totals(cpus: u32) -> u32 {
    const BYTES: u64 = 16 << 20;
    let entries = BYTES / (u64::from(cpus.max(1)) * size_of::<OwnerTotals>() as u64);
    u32::try_from(entries).unwrap_or(u32::MAX).clamp(1 << 8, 1 << 12)
}

/// Processes whose rate of mapping is known. Each CPU takes 128 free entries at a time from such a table (kernel/bpf/bpf_lru_list.c, less since
/// 6.16): with fewer, one CPU's processes push out another's. Enough for 64 CPUs; beyond, some begin anew, which takes more calls than need be.
fn mappers(cpus: u32) -> u32 {
    cpus.saturating_mul(256).clamp(1 << 11, 1 << 13)
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
        + u64::from(sizes.files) * entry(size_of::<FileRecord>())
        + u64::from(sizes.dirtied) * entry(size_of::<DirtyKey>() + size_of::<DirtyRecord>())
        + u64::from(sizes.graveyard) * entry(size_of::<Grave>() + size_of::<Sample>())
        + u64::from(sizes.owners) * entry(size_of::<OwnerFilter>())
        + u64::from(sizes.owner_totals) * (HASH_ENTRY + u64::from(cpus) * size_of::<OwnerTotals>() as u64)
        + u64::from(sizes.followed) * (HASH_ENTRY + 8 + size_of::<Followed>() as u64)
        + u64::from(sizes.histograms) * entry(size_of::<HistogramKey>())
        + u64::from(sizes.events)
        + u64::from(sizes.logs)
        + u64::from(sizes.oom_events)
        + u64::from(sizes.mappings) * entry(size_of::<MappingRecord>())
        + u64::from(sizes.mappers) * entry(size_of::<Mapper>())
        + u64::from(CALLS) * size_of::<MappingCall>() as u64
        + u64::from(sizes.mapping_events)
        + u64::from(WAITERS) * WAITS_BYTES;
    // Two bit tables, scratch, and the small arrays.
    tables + sizes.frames / 4 + u64::from(cpus) * 34816 + (320 << 10)
}

impl Sizes {
    /// Map names of the object with their entries.
    #[must_use]
    pub fn entries(&self) -> [(&'static str, u32); 19] {
        let words = u32::try_from(self.frames.div_ceil(64)).unwrap_or(u32::MAX).max(1);
        [
            ("FRAMES", words),
            ("NEW_FRAMES", words),
            ("SAMPLES", self.samples),
            ("KEYS", self.keys),
            ("STACKS", self.stacks),
            ("PROCESSES", self.processes),
            ("FILES", self.files),
            ("DIRTIED", self.dirtied),
            ("GRAVEYARD", self.graveyard),
            ("OWNERS", self.owners),
            ("OWNER_TOTALS", self.owner_totals),
            ("FOLLOWED", self.followed),
            ("EVENTS", self.events),
            ("AYA_LOGS", self.logs),
            ("OOM_EVENTS", self.oom_events),
            ("HISTOGRAMS", self.histograms),
            ("MAPPINGS", self.mappings),
            ("MAPPERS", self.mappers),
            ("MAPPING_EVENTS", self.mapping_events),
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
        Wish {
            exact,
            traced_bytes: traced,
            ram_bytes: ram,
            frames: ram / FRAME_BYTES,
            cpus_possible: 8,
            map_memory,
            follow: false,
            diagnose: false,
            forced: Forced::default(),
        }
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
    fn a_forced_table_has_that_size_and_the_others_theirs() {
        let mut forced = Forced::default();
        for bad in ["KEYS", "KEYS=0", "KEYS=x", "NOSUCH=1", "EVENTS=5000", "EVENTS=12288"] {
            assert!(forced.add(bad).is_err(), "{bad}");
        }
        assert_eq!(forced, Forced::default());
        let usual = plan(&wish(false, GIB, GIB)).unwrap();
        forced.add("KEYS=3").unwrap();
        forced.add("EVENTS=4096").unwrap();
        let tiny = plan(&Wish { forced, ..wish(false, GIB, GIB) }).unwrap();
        assert!(tiny.bytes < usual.bytes && forced.has("KEYS") && !forced.has("STACKS"));
        assert_eq!(Sizes { keys: 3, events: 4096, bytes: tiny.bytes, ..usual }, tiny);
    }

    #[test]
    fn exact_refuses_what_does_not_fit_and_says_what_would() {
        let error = plan(&wish(true, 24 * GIB, 24 * GIB)).unwrap_err();
        assert!(error.to_string().contains("--map-memory "), "{error}");
        let again = Wish { map_memory: error.needed, ..wish(true, 24 * GIB, 24 * GIB) };
        assert_eq!(plan(&again).unwrap().log2_mean, 12);
        assert_eq!(plan(&wish(true, 24 * GIB, GIB / 2)).map(drop), Ok(()));
    }
}
