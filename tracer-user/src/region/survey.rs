//! Everything known of one process's regions at one moment. All I/O on a process's memory begins here.

use super::blocks::{self, Free};
use super::classify::{Claim, Classified, Region, classify};
use super::environment::Environment;
use super::glibc::Layout;
use super::held::Held;
use super::maps::{Maps, Vma};
use super::memory::{NoMemory, PageMap, ProcessMemory, ReadPages as _};
use super::threads::{self as thread_functions, Fields};
use super::{Class, PAGE_BYTES, jvm};
use crate::host::proc::Process;
use crate::process::opener::open_mapped;
use std::collections::{BTreeSet, HashMap};
use std::io;

/// Most pages counted one by one in mappings that hold several regions: 64 GiB.
const MOST_COUNTED_PAGES: u64 = 16 << 20;

/// A process with more memory than this is not read from `smaps`: the kernel walks all of its page tables for that, with the lock held
/// for reading that its threads need for writing to map anything, some 14 ms for a GiB of small pages. Its pages are counted from the page
/// map instead, for which the lock is taken anew for every 2 MiB.
const MOST_WALKED_BYTES: u64 = 256 << 20;

/// The regions of a process.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Name of its leader, escaped; empty where only its mappings are known.
    pub comm: String,
    /// Its mappings.
    pub maps: Maps,
    /// What they are for.
    pub classified: Classified,
    /// Anonymous bytes in page tables, of each region; `None` where that cannot be had.
    pub resident: Vec<Option<u64>>,
    /// Its threads.
    pub threads: Option<u64>,
    /// Addresses of the functions that threads began with, by id on the host, as far as glibc tells.
    pub thread_functions: HashMap<u32, u64>,
    /// Settings of malloc; `None` where the environment cannot be read.
    pub environment: Option<Environment>,
    /// How its glibc lays out heaps.
    pub layout: Layout,
    /// Free blocks in arenas; `None` if they could not be followed.
    pub free: Option<Free>,
    /// What explains usage beyond the regions.
    pub held: Held,
    /// Whether compiled Java code leaves frames on its stacks; `None` for what is no JVM, or does not tell.
    pub java_frames: Option<bool>,
    /// The bound on reads of its memory was met: some of its regions have no class for that reason.
    pub is_cut_short: bool,
}

/// glibc's arenas other than the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arenas {
    /// Arenas; `None` where a heap could not be read.
    pub arenas: Option<u64>,
    /// Heaps.
    pub heaps: u64,
    /// Bytes of address space.
    pub reserved: u64,
    /// Bytes made accessible.
    pub committed: u64,
    /// Bytes resident.
    pub resident: Option<u64>,
}

impl Survey {
    /// Reads a living process, and leaves its memory open for more questions. `reserved` are ranges whose class the
    /// stack that reserved them tells.
    ///
    /// # Errors
    /// When it is gone, or not ours to read.
    pub fn of_process(process: &Process, reserved: &[Claim]) -> io::Result<(Survey, ProcessMemory)> {
        let mut memory = ProcessMemory::open(process)?;
        let maps = mapped(process, MOST_WALKED_BYTES)?;
        let comm = process.comm()?;
        let environment = Environment::of_process(process).ok();
        let layout = layout(&maps, environment.as_ref());
        let jvm::Description { claims: mut known, java_frames } = describe_jvm(process, &maps, &mut memory);
        known.extend_from_slice(reserved);
        let classified = classify(&maps.vmas, &mut memory, layout, &known);
        let resident = resident(&maps, &classified.regions, memory.pages());
        let threads = process.status().ok().and_then(|status| status.threads);
        let free = blocks::free_blocks(&mut memory, &classified.heaps, layout);
        let opened = |vma: &Vma| open_mapped(process, vma.start, vma.end).ok();
        let fields = thread_functions::libraries(&maps).filter_map(opened).find_map(|library| Fields::read(&library));
        let functions = fields.map(|fields| fields.functions(&mut memory, &classified.regions)).unwrap_or_default();
        let thread_functions = thread_functions::by_host_id(process, functions);
        // Before what may be read last: it has the same bound on reads.
        let is_cut_short = memory.is_exhausted();
        let held = Held::of_process(process, &maps, &mut memory);
        let survey = Survey {
            comm,
            maps,
            classified,
            resident,
            threads,
            thread_functions,
            environment,
            layout,
            free,
            held,
            java_frames,
            is_cut_short,
        };
        Ok((survey, memory))
    }

    /// From mappings alone, of a process that is gone.
    #[must_use]
    pub fn of_maps(maps: Maps, known: &[Claim]) -> Survey {
        let layout = layout(&maps, None);
        let classified = classify(&maps.vmas, &mut NoMemory, layout, known);
        let resident = vec![None; classified.regions.len()];
        Survey { maps, classified, resident, layout, ..Survey::default() }
    }

    /// Its arenas; `None` if no heap was found.
    #[must_use]
    pub fn arenas(&self) -> Option<Arenas> {
        let heaps = &self.classified.heaps;
        if heaps.is_empty() {
            return None;
        }
        let known: Option<BTreeSet<u64>> = heaps.iter().map(|heap| heap.arena).collect();
        let regions = self.classified.regions.iter().zip(&self.resident);
        let resident = regions.filter(|(region, _)| region.class == Class::GlibcArena).map(|(_, bytes)| *bytes);
        Some(Arenas {
            arenas: known.map(|arenas| arenas.len() as u64),
            heaps: heaps.len() as u64,
            reserved: heaps.len() as u64 * self.layout.heap_max,
            committed: heaps.iter().map(|heap| heap.committed).sum(),
            resident: resident.sum(),
        })
    }
}

/// What a process has mapped, with the anonymous bytes in each mapping where no more memory than that has to be walked for them.
fn mapped(process: &Process, most_walked: u64) -> io::Result<Maps> {
    let status = process.status()?;
    let walked = status.resident.unwrap_or(0).saturating_add(status.swapped.unwrap_or(0));
    if walked > most_walked { process.maps() } else { process.smaps() }
}

/// What a JVM in the process says of itself.
fn describe_jvm(process: &Process, maps: &Maps, memory: &mut ProcessMemory) -> jvm::Description {
    let beginning = maps.vmas.iter().find(|vma| vma.offset == 0 && vma.inode != 0 && jvm::is_jvm(&vma.name));
    let Some(vma) = beginning else { return jvm::Description::default() };
    match open_mapped(process, vma.start, vma.end) {
        Ok(library) => jvm::describe(memory, vma.start, &library),
        Err(error) => {
            log::debug!("a JVM's library cannot be read: {error}");
            jvm::Description::default()
        }
    }
}

/// A 32-bit process has nothing above 4 GiB.
fn layout(maps: &Maps, environment: Option<&Environment>) -> Layout {
    const HUGE_PAGE_BYTES: u64 = 2 << 20;
    if maps.vmas.last().is_some_and(|vma| vma.end <= 1 << 32) {
        return Layout::NARROW;
    }
    match environment.and_then(|environment| environment.tunable_hugetlb) {
        Some(2) => Layout { heap_max: 4 * HUGE_PAGE_BYTES, ..Layout::default() },
        _ => Layout::default(),
    }
}

/// Anonymous bytes of each region: the kernel's own figure for a mapping of one region, else pages counted.
fn resident(maps: &Maps, regions: &[Region], pages: &mut PageMap) -> Vec<Option<u64>> {
    let mut left = MOST_COUNTED_PAGES;
    let mut resident = vec![None; regions.len()];
    // What is only reserved comes last: it is large, and mostly empty.
    let (reserved, used): (Vec<usize>, Vec<usize>) = (0..regions.len()).partition(|&index| maps.vmas[regions[index].vma].is_inaccessible());
    for index in used.into_iter().chain(reserved) {
        let region = &regions[index];
        let vma = &maps.vmas[region.vma];
        let whole = (region.start, region.end) == (vma.start, vma.end) || vma.anonymous == Some(0);
        let needed = (region.end - region.start) / PAGE_BYTES;
        resident[index] = match vma.anonymous {
            Some(bytes) if whole => Some(bytes),
            // Shared memory is never anonymous.
            None if vma.shared => Some(0),
            _ if needed > left => None,
            _ => {
                left -= needed;
                Some(count(pages, region.start, region.end))
            }
        };
    }
    resident
}

fn count(pages: &mut PageMap, start: u64, end: u64) -> u64 {
    let numbers = start / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
    let is_anonymous = |number: &u64| pages.page(number * PAGE_BYTES).is_some_and(|entry| entry.is_present() && !entry.is_file());
    numbers.filter(is_anonymous).count() as u64 * PAGE_BYTES
}

/// Bytes of anonymous memory of the process of that id, as the kernel counts them; `None` if it is gone.
#[must_use]
pub fn anonymous_bytes(tgid: u32) -> Option<u64> {
    Process::open(tgid).ok()?.status().ok()?.resident_anonymous
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_process_is_counted_without_a_walk_and_to_the_same_bytes() {
        let own = Process::own().unwrap();
        let touched = vec![1_u8; 8 << 20];
        let at = touched.as_ptr() as u64 + (4 << 20);
        let [walked, counted] = [u64::MAX, 0].map(|most| {
            let maps = mapped(&own, most).unwrap();
            let classified = classify(&maps.vmas, &mut NoMemory, Layout::default(), &[]);
            let mut memory = ProcessMemory::open(&own).unwrap();
            let resident = resident(&maps, &classified.regions, memory.pages());
            let index = classified.index_at(at).unwrap();
            (maps.vmas[classified.regions[index].vma].anonymous, resident[index].unwrap())
        });
        assert!(walked.0.is_some() && counted.0.is_none(), "{walked:?} {counted:?}");
        assert!(walked.1 >= 8 << 20 && walked.1.abs_diff(counted.1) <= 1 << 20, "{walked:?} {counted:?}");
        assert_eq!(touched[1 << 20], 1);
    }

    #[test]
    fn this_very_process() {
        let (survey, _) = Survey::of_process(&Process::own().unwrap(), &[]).unwrap();
        let regions = survey.classified.regions.iter().zip(&survey.resident);
        let sum: u64 = regions.filter_map(|(_, bytes)| *bytes).sum();
        let known = anonymous_bytes(std::process::id()).unwrap();
        assert!(sum > 0 && sum < 4 * known, "{sum} {known}");
        assert!(survey.threads.unwrap() >= 1);
        // The test runs on a thread of its own.
        let here = &raw const sum as u64;
        assert_eq!(survey.classified.at(here).unwrap().class, Class::ThreadStack);
    }
}
