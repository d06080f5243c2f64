//! The kernel half's tables. Each has a file: its declaration, from which its size, its bytes and what may be done with it follow, and how it is
//! read and what leaves it.
//!
//! | file | what is in the tables |
//! |---|---|
//! | [`keys`], [`samples`], [`graveyard`], [`stacks`], [`processes`], [`files`] | who made memory resident, and which memory it is |
//! | [`dirtied`], [`mappings`], [`histograms`], [`waits`], [`oom`] | what else is followed |
//! | [`totals`] | exact bytes by owner |
//! | [`owners`], [`followed`], [`control`] | what user space tells the kernel half |
//! | [`losses`], [`rings`], [`runs`], [`frames`], [`inner`] | losses, events, results of programs run by hand, bits of frames, the kernel half's own |
//! | [`unwind`] | how frames lead to their callers |
//! | [`managed`] | interpreters, and the functions that they run |
//! | [`sweep`] | a second look at the samples |
//!
//! `row` has what a declaration says, `handles` what can be done with a table, `busy` what an error means.

mod batch;
mod busy;
pub(super) mod calls;
pub mod control;
pub mod dirtied;
pub mod files;
pub mod followed;
pub mod frames;
pub mod graveyard;
pub mod handles;
pub mod histograms;
pub mod inner;
pub mod keys;
pub mod losses;
pub mod managed;
pub mod mappings;
pub mod oom;
pub mod owners;
pub mod peaks;
pub mod processes;
pub mod rings;
pub mod row;
pub mod runs;
pub mod samples;
pub mod stacks;
pub mod sweep;
pub mod totals;
pub mod unwind;
pub mod waits;

pub use control::{control, set_control, set_vmemmap};
pub use dirtied::{dirtied, take_dirtied};
pub use files::{files, known_files, remove_files};
pub use graveyard::{graveyard, remove_graves};
pub use handles::{Taken, Written};
pub use histograms::{histogram_losses, histograms, take_histograms};
pub use keys::{keys, take_key};
pub use losses::{losses, passed_on};
pub use owners::{OWNERS, owner_name};
pub use peaks::{peaks, remove_peaks};
pub use processes::{processes, remove_processes};
pub use runs::{run, run_result};
pub use samples::{files_of_samples, samples};
pub use stacks::{remove_stacks, stacks};
pub use sweep::{SweepVerdict, Swept, sweep};
pub use totals::{hand_over, owner_totals, owners_with_totals, take_owner_totals};

use row::{Entries, Row};

/// Makes the list of tables from their declarations.
macro_rules! tables {
    ($($(#[doc = $doc:literal])+ $id:ident => $row:expr;)+) => {
        /// The tables of the object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum TableId {
            $($(#[doc = $doc])+ $id,)+
        }

        impl TableId {
            /// How many there are.
            pub const COUNT: usize = [$(TableId::$id),+].len();
            /// All of them, in the order of their numbers.
            pub const ALL: [TableId; TableId::COUNT] = [$(TableId::$id),+];

            /// What is known of it.
            #[must_use]
            pub fn row(self) -> &'static Row {
                match self {
                    $(TableId::$id => $row,)+
                }
            }
        }
    };
}

tables! {
    /// Frames that a sample covers.
    Frames => frames::FRAMES.row();
    /// Frames charged while the baseline was taken.
    NewFrames => frames::NEW_FRAMES.row();
    /// Live samples.
    Samples => samples::SAMPLES.row();
    /// Keys.
    Keys => keys::KEYS.row();
    /// Stacks.
    Stacks => stacks::STACKS.row();
    /// Processes.
    Processes => processes::PROCESSES.row();
    /// Files.
    Files => files::FILES.row();
    /// Files and processes that made them dirty.
    Dirtied => dirtied::DIRTIED.row();
    /// Samples kept for open pictures.
    Graveyard => graveyard::GRAVEYARD.row();
    /// Owners with a filter.
    Owners => owners::OWNERS.row();
    /// Owners with exact totals.
    OwnerTotals => totals::OWNER_TOTALS.row();
    /// Owners with a peak.
    Peaks => peaks::PEAKS.row();
    /// Processes that are followed at once.
    Followed => followed::FOLLOWED.row();
    /// The ring of cgroup events.
    Events => rings::EVENTS.row();
    /// The ring of the kernel half's own messages.
    Logs => rings::LOGS.row();
    /// The ring of OOM events.
    OomEvents => rings::OOM_EVENTS.row();
    /// Counters of distributions.
    Histograms => histograms::HISTOGRAMS.row();
    /// Keys of address space.
    Mappings => mappings::MAPPINGS.row();
    /// Processes whose rate of mapping is known.
    Mappers => mappings::MAPPERS.row();
    /// The ring of mappings.
    MappingEvents => rings::MAPPING_EVENTS.row();
    /// Where the rows of a file's pages are.
    UnwindPages => unwind::UNWIND_PAGES.row();
    /// Rows for unwinding.
    UnwindRows => unwind::UNWIND_ROWS.row();
    /// Files that walks met.
    UnwindFiles => unwind::UNWIND_FILES.row();
    /// Rules for unwinding.
    UnwindRules => unwind::UNWIND_RULES.row();
    /// The ring of files whose tables are wanted.
    UnwindMisses => unwind::UNWIND_MISSES.row();
    /// Builds of CPython.
    Pythons => managed::PYTHONS.row();
    /// Builds of V8.
    V8s => managed::V8S.row();
    /// Builds of HotSpot.
    HotSpots => managed::HOTSPOTS.row();
    /// Where processes have the code of their JVMs.
    JavaProcesses => managed::JAVA_PROCESSES.row();
    /// Methods at places in that code.
    JavaCode => managed::JAVA_CODE.row();
    /// Functions that interpreters run.
    Functions => managed::FUNCTIONS.row();
    /// What interpreters know of threads.
    RuntimeThreads => managed::RUNTIME_THREADS.row();
    /// The ring of functions that are met for the first time.
    FunctionEvents => managed::FUNCTION_EVENTS.row();
    /// Values that found no room in a distribution.
    HistogramLosses => histograms::HISTOGRAM_LOSSES.row();
    /// Reclaims that run.
    Reclaims => waits::RECLAIMS.row();
    /// Charges that have waited for reclaim.
    Stalls => waits::STALLS.row();
    /// How many those are.
    Stalled => waits::STALLED.row();
    /// Tasks held up for being over `memory.high`.
    HighCalls => waits::HIGH_CALLS.row();
    /// Calls that change an address space and are not over.
    MappingCalls => mappings::MAPPING_CALLS.row();
    /// How many such calls there were.
    MappingCounts => mappings::MAPPING_COUNTS.row();
    /// How many are missing in the ring.
    MappingsLost => mappings::MAPPINGS_LOST.row();
    /// What changes while the trace runs.
    Control => control::CONTROL.row();
    /// How many cgroups are made these days.
    Births => owners::BIRTHS.row();
    /// The owner's name that was asked for.
    OwnerName => owners::OWNER_NAME.row();
    /// The kill that is being described.
    OomRecord => oom::OOM_RECORD.row();
    /// The OOM killer's running call.
    OomCall => oom::OOM_CALL.row();
    /// Losses by cause.
    LossCounts => losses::LOSS_COUNTS.row();
    /// Allocations that the spare took.
    PassedOn => losses::PASSED_ON.row();
    /// Results of programs that are run by hand.
    RunResults => runs::RUN_RESULTS.row();
    /// Working memory.
    Scratch => &inner::SCRATCH;
    /// Working memory of walks over interpreters' frames.
    Managed => &inner::MANAGED;
    /// A file on its way into its table.
    FileScratch => &inner::FILE_SCRATCH;
    /// What khugepaged is at.
    Collapse => &inner::COLLAPSE;
    /// The sampler of each CPU.
    Samplers => inner::SAMPLERS.row();
    /// What the calibration found.
    Calibration => inner::CALIBRATION.row();
    /// Frames whose mapping is a migration entry.
    Migrations => inner::MIGRATIONS.row();
    /// Folios on their way into the page cache of shmem.
    ShmemCalls => inner::SHMEM_CALLS.row();
}

impl TableId {
    /// Its name in the object and in every output.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The table of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<TableId> {
        TableId::ALL.into_iter().find(|table| table.name() == name)
    }

    /// Whether it has a bit for each frame.
    #[must_use]
    pub fn is_of_frames(self) -> bool {
        matches!(self, TableId::Frames | TableId::NewFrames)
    }

    /// Those whose size is planned at the start.
    pub fn planned() -> impl Iterator<Item = TableId> {
        TableId::ALL.into_iter().filter(|table| matches!(table.row().entries, Entries::Planned(_)))
    }

    /// Those whose size tests may force.
    pub fn forcible() -> impl Iterator<Item = TableId> {
        TableId::ALL.into_iter().filter(|table| table.row().forcible)
    }
}

#[cfg(test)]
mod tests {
    use super::{row::Shape, *};
    use crate::kernel_half::OBJECT;
    use aya_obj::generated::bpf_map_type;
    use std::collections::BTreeSet;
    use tracer_common::loss::Loss;

    /// Sections that the loader makes maps of.
    const SECTIONS: [&str; 2] = [".bss", ".rodata"];

    #[test]
    fn the_list_is_that_of_the_object_and_so_are_types_and_sizes() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        let names: BTreeSet<&str> = TableId::ALL.iter().map(|table| table.name()).collect();
        assert_eq!(names.len(), TableId::COUNT, "two tables have one name");
        let in_object: BTreeSet<&str> = object.maps.keys().map(String::as_str).filter(|name| !SECTIONS.contains(name)).collect();
        assert_eq!(names, in_object);
        for table in TableId::ALL {
            let (row, map) = (table.row(), &object.maps[table.name()]);
            let shape = match row.shape {
                Shape::Hash => bpf_map_type::BPF_MAP_TYPE_HASH,
                Shape::PerCpuHash => bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
                Shape::LruHash => bpf_map_type::BPF_MAP_TYPE_LRU_HASH,
                Shape::Array => bpf_map_type::BPF_MAP_TYPE_ARRAY,
                Shape::PerCpuArray => bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
                Shape::Ring => bpf_map_type::BPF_MAP_TYPE_RINGBUF,
            };
            assert_eq!(map.map_type(), shape as u32, "{}", row.name);
            assert_eq!(map.key_size() as usize, row.key_bytes, "key of {}", row.name);
            if let Some(bytes) = row.value_bytes {
                assert_eq!(map.value_size() as usize, bytes, "value of {}", row.name);
            }
            if let Entries::Fixed(entries) = row.entries
                && row.value_bytes.is_some()
            {
                assert_eq!(map.max_entries(), entries, "entries of {}", row.name);
            }
        }
    }

    #[test]
    fn what_only_the_kernel_half_knows_fits_in_what_is_planned_for_it() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        let (mut of_cpu, mut of_all) = (0, 0);
        for row in TableId::ALL.map(TableId::row).into_iter().filter(|row| row.value_bytes.is_none()) {
            let map = &object.maps[row.name];
            let sum = if row.shape == Shape::PerCpuArray { &mut of_cpu } else { &mut of_all };
            *sum += u64::from(map.max_entries()) * u64::from(map.value_size()).next_multiple_of(8);
        }
        assert!(of_cpu > 0 && of_cpu <= inner::BYTES_PER_CPU, "{of_cpu} bytes for each CPU");
        assert!(of_all > 0 && of_all <= inner::BYTES, "{of_all} bytes");
    }

    #[test]
    fn what_is_planned_can_be_told_and_what_may_shrink_is_planned() {
        for table in TableId::ALL {
            let row = table.row();
            let is_planned = matches!(row.entries, Entries::Planned(_));
            assert!(is_planned || !(row.halved || row.forcible), "{}", row.name);
            assert_eq!(TableId::of_name(row.name), Some(table));
        }
    }

    #[test]
    fn every_cause_of_a_full_table_is_of_a_table() {
        let declared: BTreeSet<Loss> = TableId::ALL.iter().flat_map(|table| table.row().losses).copied().collect();
        for cause in Loss::ALL.iter().filter(|cause| cause.name().ends_with("_table_full")) {
            assert!(declared.contains(cause), "{}", cause.name());
        }
    }
}
