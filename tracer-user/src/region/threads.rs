//! What functions threads began with, where their stacks do not tell: libc has no frame pointers in most distributions, so what comes through
//! `malloc` or `pthread_create` is cut before it reaches them.
//!
//! glibc's description of itself for debuggers says where in a thread's descriptor its id and its function are (`_thread_db_pthread_tid` and
//! `_thread_db_pthread_start_routine`, nptl_db/structs.def): dynamic symbols of its file since 2.34, and of libpthread's before. A program
//! that has glibc linked in has them not.

use super::{classify::by, elf, glibc, maps::Maps, memory::ReadMemory};
use crate::{host::proc::Process, region::classify::Region};
use std::{collections::HashMap, fs::File, os::unix::fs::FileExt as _};

/// Most threads of one process.
const MOST_THREADS: usize = 4096;

/// Where in a descriptor the two fields are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    tid: u64,
    function: u64,
}

impl Fields {
    /// From the file of the process's glibc.
    #[must_use]
    pub fn read(library: &File) -> Option<Fields> {
        let dynamic = elf::Dynamic::read(library, b"_thread_db_pthread_")?;
        let field = |name: &str, bits: u32| {
            // Width in bits, number of elements, offset.
            let mut described = [0; 12];
            library.read_exact_at(&mut described, dynamic.file_offset(dynamic.symbol(name)?)?).ok()?;
            let word = |at: usize| described[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
            ((word(0), word(4)) == (bits, 1)).then(|| u64::from(word(8)))
        };
        Some(Fields { tid: field("_thread_db_pthread_tid", 32)?, function: field("_thread_db_pthread_start_routine", 64)? })
    }

    /// Addresses of the functions that threads with these stacks began with, by id in the process's own namespace.
    pub fn functions(self, memory: &mut dyn ReadMemory, regions: &[Region]) -> HashMap<u32, u64> {
        let stacks = regions.iter().filter(|region| region.by == Some(by::THREAD_DESCRIPTOR)).take(MOST_THREADS);
        let begun = |region: &Region| {
            let descriptor = glibc::thread_descriptor(memory, region.start, region.end)?.0;
            let (mut tid, mut function) = ([0; 4], [0; 8]);
            let is_read = memory.read(descriptor.checked_add(self.tid)?, &mut tid)
                && memory.read(descriptor.checked_add(self.function)?, &mut function);
            // A stack that waits for the next thread has no id.
            (is_read && tid != [0; 4] && function != [0; 8]).then(|| (u32::from_le_bytes(tid), u64::from_le_bytes(function)))
        };
        stacks.filter_map(begun).collect()
    }
}

/// Whether that is the file that describes glibc's threads.
fn describes_threads(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    [&b"libc.so.6"[..], b"libc-2.", b"libpthread.so.0", b"libpthread-2."].iter().any(|begins| name.starts_with(begins))
}

/// The files that may describe a process's threads: address of the beginning, and index in the mappings.
pub fn libraries(maps: &Maps) -> impl Iterator<Item = &super::maps::Vma> {
    maps.vmas.iter().filter(|vma| vma.offset == 0 && vma.inode != 0 && describes_threads(&vma.name))
}

/// By id on the host. In a pid namespace a thread has another one there.
#[must_use]
pub fn by_host_id(process: &Process, functions: HashMap<u32, u64>) -> HashMap<u32, u64> {
    let namespaces = process.status().map_or(0, |status| status.pid_by_namespace.len());
    // Without a list the kernel has no namespaces, or the process is gone.
    if functions.is_empty() || namespaces <= 1 {
        return functions;
    }
    let inner = |tid: u32| process.status_of_thread(tid).ok()?.pid_by_namespace.last().copied();
    let tids = process.threads(MOST_THREADS).unwrap_or_default();
    tids.into_iter().filter_map(|tid| Some((tid, *functions.get(&inner(tid)?)?))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::region::Survey;

    #[test]
    fn the_threads_of_this_very_process() {
        let (survey, _) = Survey::of_process(&Process::own().unwrap(), &[]).unwrap();
        // SAFETY: plain system call.
        let tid = unsafe { libc::gettid() } as u32;
        let function = survey.thread_functions[&tid];
        // Rust's std begins all of its threads with one function of this program.
        let vma = &survey.maps.vmas[crate::region::maps::index_at(&survey.maps.vmas, function).unwrap()];
        assert!(vma.execute, "{vma:?}");
        assert_eq!(vma.name, std::env::current_exe().unwrap().as_os_str().as_encoded_bytes().into());
    }

    #[test]
    fn files_that_describe_threads() {
        assert!(
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/libpthread-2.31.so", "libc.so.6 (deleted)"]
                .iter()
                .all(|path| describes_threads(path.as_bytes()))
        );
        assert!(!["/lib/libcrypt.so.1", "/libc.so.6/x", "[heap]", ""].iter().any(|path| describes_threads(path.as_bytes())));
        assert_eq!(Fields::read(&File::open(std::env::current_exe().unwrap()).unwrap()), None);
    }
}
