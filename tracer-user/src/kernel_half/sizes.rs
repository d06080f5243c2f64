//! How large the tables are: planned from RAM, possible CPUs and mode, within the memory asked for. What each table plans for itself stands
//! in its declaration ([`super::tables`]). Pure.

use super::{
    tables::{
        TableId, inner,
        row::{Entries, Shape},
    },
    wish::Wish,
};
use crate::text::units;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use std::num::NonZeroU32;
use tracer_common::sampling::{MAX_LOG2_MEAN, MIN_LOG2_MEAN};

/// Default of `--map-memory`, bytes.
pub const DEFAULT_MAP_MEMORY: u64 = 84 << 20;
/// Default of `--unwind-memory`, bytes: within the above.
pub const DEFAULT_UNWIND_MEMORY: u64 = 16 << 20;

/// Entries of every table, and the sampling rate that goes with them. The entries of a ring are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// log2 of M.
    pub log2_mean: u32,
    /// Frames covered.
    pub frames: u64,
    /// Bytes of all maps.
    pub bytes: u64,
    entries: [u32; TableId::COUNT],
}

/// Tables whose size was forced, for tests of what happens when one is full; the others have the planned size. A ring's is in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forced {
    entries: [Option<NonZeroU32>; FORCIBLE],
}

/// Tables that may be among them: those whose size is planned, which are the first.
const FORCIBLE: usize = TableId::MappingEvents as usize + 1;

impl Default for Forced {
    fn default() -> Forced {
        Forced { entries: [None; FORCIBLE] }
    }
}

impl Forced {
    /// Adds `NAME=N`.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let names = || TableId::forcible().map(TableId::name).collect::<Vec<_>>().join(" ");
        let known = || format!("{text:?}: a table is forced as NAME=N, with one of {}", names());
        let (name, number) = text.split_once('=').ok_or_else(known)?;
        let table = TableId::of_name(name).filter(|table| table.row().forcible).ok_or_else(known)?;
        let entries: NonZeroU32 = number.parse().map_err(|_| known())?;
        if table.row().shape == Shape::Ring && (entries.get() < 4096 || !entries.is_power_of_two()) {
            return Err(format!("{text:?}: the size of a ring is a power of two from 4096, in bytes"));
        }
        *self.entries.get_mut(table as usize).ok_or_else(known)? = Some(entries);
        Ok(())
    }

    /// Whether that table was forced.
    #[must_use]
    pub fn has(&self, table: TableId) -> bool {
        self.entries.get(table as usize).is_some_and(Option::is_some)
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

/// Samples planned to be live when all of RAM is charged: the standard error of a total is then under 1 %.
const SAMPLES_OF_RAM: u64 = 1 << 15;
/// Smallest default M. Below it stack walks, not probes, make the cost.
const SMALLEST_DEFAULT_LOG2: u32 = 18;
/// Fewest samples and graves that a plan makes do with.
const FEWEST_SAMPLES: u32 = 1 << 12;
const FEWEST_GRAVES: u32 = 1 << 13;
/// Fewest chunks of rows for unwinding: a million rows, as many as a database and its libraries have.
const FEWEST_CHUNKS: u32 = 64;
/// Of maps that the loader makes of the object's sections.
const SECTION_BYTES: u64 = 8 << 10;

/// Plans the tables, but for those that are forced.
pub fn plan(wish: &Wish, forced: &Forced) -> Result<Sizes, DoesNotFit> {
    let planned = |table: TableId| match table.row().entries {
        Entries::Fixed(entries) => entries,
        Entries::Planned(plan) => plan(wish),
    };
    let mut sizes = Sizes {
        log2_mean: if wish.exact { MIN_LOG2_MEAN } else { default_log2_mean(wish.ram_bytes) },
        frames: wish.frames,
        bytes: 0,
        entries: TableId::ALL.map(planned),
    };
    sizes.settle(wish, forced);
    // Less room for tables of unwinding first: stacks through files that find none end there, which is told.
    while sizes.bytes > wish.map_memory && sizes.of(TableId::UnwindRows) > FEWEST_CHUNKS {
        sizes.entries[TableId::UnwindRows as usize] /= 2;
        sizes.entries[TableId::UnwindPages as usize] /= 2;
        sizes.settle(wish, forced);
    }
    while sizes.bytes > wish.map_memory && !wish.exact && sizes.of(TableId::Samples) > FEWEST_SAMPLES {
        for table in TableId::ALL.into_iter().filter(|table| table.row().halved) {
            sizes.entries[table as usize] /= 2;
        }
        sizes.log2_mean = (sizes.log2_mean + 1).min(MAX_LOG2_MEAN);
        sizes.settle(wish, forced);
    }
    // Rather fewer graves than no recording: beyond them only the age of what was freed is lost, and counted.
    let graves = TableId::Graveyard;
    while sizes.bytes > wish.map_memory && wish.exact && sizes.of(graves) > FEWEST_GRAVES && !forced.has(graves) {
        sizes.entries[graves as usize] /= 2;
        sizes.settle(wish, forced);
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

/// log2 of the default M for that much RAM.
#[must_use]
pub fn default_log2_mean(ram_bytes: u64) -> u32 {
    (ram_bytes / SAMPLES_OF_RAM).max(1).next_power_of_two().ilog2().clamp(SMALLEST_DEFAULT_LOG2, MAX_LOG2_MEAN)
}

impl Sizes {
    /// Entries of a table.
    #[must_use]
    pub fn of(&self, table: TableId) -> u32 {
        self.entries[table as usize]
    }

    /// The tables whose size is set at the load, with their entries.
    pub fn entries(&self) -> impl Iterator<Item = (TableId, u32)> {
        TableId::planned().map(|table| (table, self.of(table)))
    }

    /// M in bytes.
    #[must_use]
    pub fn mean_bytes(&self) -> u64 {
        1 << self.log2_mean
    }

    fn settle(&mut self, wish: &Wish, forced: &Forced) {
        for (entries, forced) in self.entries.iter_mut().zip(forced.entries) {
            *entries = forced.map_or(*entries, NonZeroU32::get);
        }
        let tables: u64 = TableId::ALL.into_iter().map(|table| table.row().bytes(self.of(table), wish.cpus_possible)).sum();
        self.bytes = tables + u64::from(wish.cpus_possible) * inner::BYTES_PER_CPU + inner::BYTES + SECTION_BYTES;
    }
}

/// As outputs have it: names without what marks a table as the loader's crate's own.
impl Serialize for Sizes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("log2_mean", &self.log2_mean)?;
        map.serialize_entry("frames", &self.frames)?;
        for (table, entries) in self.entries().filter(|(table, _)| !table.is_of_frames()) {
            map.serialize_entry(&table.name().trim_start_matches("AYA_").to_lowercase(), &entries)?;
        }
        map.serialize_entry("bytes", &self.bytes)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::FRAME_BYTES;

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
            unwind_memory: DEFAULT_UNWIND_MEMORY,
            follow: false,
            diagnose: false,
        }
    }

    #[test]
    fn sampling_fits_any_host_and_m_grows_with_ram() {
        for (ram, mean) in [(GIB, 256 << 10), (24 * GIB, 1 << 20), (128 * GIB, 4 << 20), (4096 * GIB, 128 << 20)] {
            let mut wish = wish(false, ram, ram);
            wish.cpus_possible = 128;
            wish.map_memory = wish.map_memory.max(ram / FRAME_BYTES / 4 + DEFAULT_MAP_MEMORY);
            let sizes = plan(&wish, &Forced::default()).unwrap();
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
        let usual = plan(&wish(false, GIB, GIB), &Forced::default()).unwrap();
        forced.add("KEYS=3").unwrap();
        forced.add("EVENTS=4096").unwrap();
        let tiny = plan(&wish(false, GIB, GIB), &forced).unwrap();
        assert!(tiny.bytes < usual.bytes && forced.has(TableId::Keys) && !forced.has(TableId::Stacks));
        assert_eq!((tiny.of(TableId::Keys), tiny.of(TableId::Events)), (3, 4096));
        let others = |sizes: &Sizes| -> Vec<_> { sizes.entries().filter(|(table, _)| !forced.has(*table)).collect() };
        assert_eq!(others(&tiny), others(&usual));
    }

    #[test]
    fn exact_refuses_what_does_not_fit_and_says_what_would() {
        let error = plan(&wish(true, 24 * GIB, 24 * GIB), &Forced::default()).unwrap_err();
        assert!(error.to_string().contains("--map-memory "), "{error}");
        let again = Wish { map_memory: error.needed, ..wish(true, 24 * GIB, 24 * GIB) };
        assert_eq!(plan(&again, &Forced::default()).unwrap().log2_mean, 12);
        assert_eq!(plan(&wish(true, 24 * GIB, GIB / 2), &Forced::default()).map(drop), Ok(()));
    }

    #[test]
    fn every_forcible_table_can_be_forced_and_a_fixed_size_cannot() {
        for table in TableId::forcible() {
            let mut forced = Forced::default();
            forced.add(&format!("{}=4096", table.name())).unwrap();
            assert!(forced.has(table), "{}", table.name());
            assert_eq!(plan(&wish(false, GIB, GIB), &forced).unwrap().of(table), 4096);
        }
        assert!(Forced::default().add("LOSS_COUNTS=3").is_err());
    }

    #[test]
    fn the_figures_of_every_planned_table_are_told_in_their_order() {
        let sizes = plan(&wish(false, GIB, GIB), &Forced::default()).unwrap();
        let json = serde_json::to_string(&sizes).unwrap();
        let names: Vec<&str> = json.trim_matches(['{', '}']).split(',').filter_map(|field| field.split('"').nth(1)).collect();
        let expected = "log2_mean frames samples keys stacks processes files dirtied graveyard owners owner_totals peaks followed events logs \
                        oom_events histograms mappings mappers mapping_events unwind_pages unwind_rows bytes";
        assert_eq!(names.join(" "), expected);
        assert!(json.contains("\"keys\":32768,"), "{json}");
    }

    #[test]
    fn where_the_tables_do_not_fit_what_may_shrink_is_halved_and_m_doubles() {
        let whole = plan(&wish(false, GIB, GIB), &Forced::default()).unwrap();
        let usual = plan(&Wish { map_memory: whole.bytes - 1, ..wish(false, GIB, GIB) }, &Forced::default()).unwrap();
        let rows = |sizes: &Sizes| (sizes.of(TableId::UnwindRows), sizes.of(TableId::UnwindPages));
        assert_eq!((rows(&whole), rows(&usual)), ((256, 1 << 17), (128, 1 << 16)), "room for unwinding goes first");
        assert_eq!(usual.log2_mean, whole.log2_mean);
        let usual = plan(&Wish { unwind_memory: 4 << 20, ..wish(false, GIB, GIB) }, &Forced::default()).unwrap();
        let tight = Wish { unwind_memory: 4 << 20, map_memory: usual.bytes - 1, ..wish(false, GIB, GIB) };
        let tight = plan(&tight, &Forced::default()).unwrap();
        assert_eq!(tight.log2_mean, usual.log2_mean + 1);
        for (table, entries) in usual.entries() {
            let share = if table.row().halved { 2 } else { 1 };
            assert_eq!(tight.of(table), entries / share, "{}", table.name());
        }
        let least = Wish { map_memory: 1, ..wish(false, GIB, GIB) };
        assert!(plan(&least, &Forced::default()).unwrap_err().needed < usual.bytes);
    }
}
