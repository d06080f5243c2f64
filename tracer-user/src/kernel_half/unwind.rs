//! The kernel half's tables for unwinding, for a thread of its own that fills them while programs read them.
//!
//! Rows, directory and rules are written through mappings of 64 KiB at most: a table of 100,000 rows takes some twenty system calls. Programs read them without locks, so whoever
//! fills them writes rows and rules first, the directory after them, and the file's entry last, and takes them back in the other order with a
//! [`Tables::wait_for_readers`] in between.

use super::{
    BpfError,
    events::{Decode, Ring, plain},
    loaded::KernelHalf,
    tables::{
        calls,
        managed::{HOTSPOTS, PYTHONS, V8S},
        runs::{self, RUN_RESULTS},
        unwind::{UNWIND_FILES, UNWIND_MISSES, UNWIND_PAGES, UNWIND_ROWS, UNWIND_RULES},
    },
};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::{
    fs::File,
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, OwnedFd},
    ptr::null_mut,
    time::Duration,
};
use tracer_common::managed::{hotspot::HotSpot, python::Python, v8::V8};
use tracer_common::unwind::{CHUNK_ROWS, Chunk, FileKey, FileTable, IDENTIFIED, Miss, PageRows, Rule};

impl Decode for Miss {
    fn decode(bytes: &[u8]) -> Option<Miss> {
        plain(bytes)
    }
}

/// The program that says which file is mapped where.
const IDENTIFY: &str = "run_identify";
/// Bytes of a page of memory.
const PAGE: usize = 4096;
/// How long a walk can take at most where the kernel does not say when all have ended.
const LONGEST_WALK: Duration = Duration::from_millis(50);

/// The tables.
pub struct Tables {
    files: HashMap<MapData, FileKey, FileTable>,
    pages: Values<PageRows>,
    rows: Values<u32>,
    rules: Values<Rule>,
    pythons: Array<MapData, Python>,
    v8s: Array<MapData, V8>,
    hotspots: Array<MapData, HotSpot>,
    results: Array<MapData, [u64; 4]>,
    identify: OwnedFd,
}

impl Tables {
    /// Takes them out of the kernel half, with the ring of what is wanted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(half: &mut KernelHalf) -> Result<(Tables, Ring<Miss>), BpfError> {
        let identify = runs::descriptor(half, IDENTIFY)?;
        let results = half.bpf.map(RUN_RESULTS.name()).ok_or(BpfError::Missing(RUN_RESULTS.name()))?;
        let failed = |source| BpfError::Map { name: RUN_RESULTS.name(), source };
        let Map::Array(results) = results else { return Err(BpfError::Missing(RUN_RESULTS.name())) };
        let results = results.fd().as_fd().try_clone_to_owned().map_err(|error| failed(MapError::IoError(error)))?;
        let results = MapData::from_fd(results).and_then(|data| Array::try_from(Map::Array(data))).map_err(failed)?;
        let rows: Values<Chunk> = Values::of(half, UNWIND_ROWS.name())?;
        let tables = Tables {
            files: UNWIND_FILES.part(half)?,
            pages: Values::of(half, UNWIND_PAGES.name())?,
            rows: rows.in_parts(CHUNK_ROWS),
            rules: Values::of(half, UNWIND_RULES.name())?,
            pythons: PYTHONS.part(half)?,
            v8s: V8S.part(half)?,
            hotspots: HOTSPOTS.part(half)?,
            results,
            identify,
        };
        Ok((tables, Ring::take(half, &UNWIND_MISSES)?))
    }

    /// Chunks that there are.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.rows.entries / CHUNK_ROWS
    }

    /// Entries of the directory.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages.entries
    }

    /// Rules that there is room for.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rules.entries
    }

    /// Writes rows into a chunk.
    ///
    /// # Errors
    /// The kernel's, and rows that there are not.
    pub fn write_rows(&self, chunk: usize, first: usize, rows: &[u32]) -> io::Result<()> {
        self.rows.write(chunk.saturating_mul(CHUNK_ROWS).saturating_add(first), rows)
    }

    /// Writes entries of the directory.
    ///
    /// # Errors
    /// The kernel's, and entries that there are not.
    pub fn write_pages(&self, first: usize, pages: &[PageRows]) -> io::Result<()> {
        self.pages.write(first, pages)
    }

    /// Writes rules.
    ///
    /// # Errors
    /// The kernel's, and rules that there are not.
    pub fn write_rules(&self, first: usize, rules: &[Rule]) -> io::Result<()> {
        self.rules.write(first, rules)
    }

    /// Says where a build of CPython keeps what is read.
    ///
    /// # Errors
    /// The kernel's, and a number that there is not.
    pub fn set_python(&mut self, number: u32, python: &Python) -> io::Result<()> {
        self.pythons.set(number, python, 0).map_err(io::Error::other)
    }

    /// The same of a build of V8.
    ///
    /// # Errors
    /// As above.
    pub fn set_v8(&mut self, number: u32, v8: &V8) -> io::Result<()> {
        self.v8s.set(number, v8, 0).map_err(io::Error::other)
    }

    /// The same of a build of HotSpot.
    ///
    /// # Errors
    /// As above.
    pub fn set_hotspot(&mut self, number: u32, hotspot: &HotSpot) -> io::Result<()> {
        self.hotspots.set(number, hotspot, 0).map_err(io::Error::other)
    }

    /// What the kernel half knows of a file.
    #[must_use]
    pub fn file(&self, key: &FileKey) -> Option<FileTable> {
        self.files.get(key, 0).ok()
    }

    /// All that is known of files, one call each. What is added or removed meanwhile may be there or not.
    #[must_use]
    pub fn files(&self) -> Vec<(FileKey, FileTable)> {
        // An entry that goes while it is read is gone.
        self.files.iter().filter_map(Result::ok).collect()
    }

    /// Says what is known of a file. False if there is no room.
    pub fn set_file(&mut self, key: &FileKey, table: &FileTable) -> bool {
        self.files.insert(key, table, 0).is_ok()
    }

    /// Takes a file's entry back: walks that begin from now on do not find it.
    pub fn remove_file(&mut self, key: &FileKey) {
        // It may be gone.
        let _ = self.files.remove(key);
    }

    /// Which file this is to the kernel half: what walks will call it. The file is mapped for that, and nothing of it is touched.
    ///
    /// # Errors
    /// It cannot be mapped, or the program not be run; [`io::ErrorKind::NotFound`] if the program does not find the mapping.
    pub fn identify(&self, file: &File) -> io::Result<FileKey> {
        // SAFETY: a new mapping somewhere, which nobody but the kernel half looks at; its bytes are not.
        let at = unsafe { mmap(null_mut(), PAGE, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }?;
        let key = self.identify_at(at as u64);
        // SAFETY: the mapping made above, which nothing points into.
        unsafe { munmap(at, PAGE) }?;
        key
    }

    /// The same of what this process has mapped at an address.
    ///
    /// # Errors
    /// See [`Tables::identify`].
    pub fn identify_at(&self, address: u64) -> io::Result<FileKey> {
        calls::test_run(self.identify.as_fd(), [address, 0, 0, 0])?;
        let [found, inode, written, place] = self.results.get(&IDENTIFIED, 0).map_err(io::Error::other)?;
        if found != 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(FileKey { inode, written, device: (place >> 32) as u32, generation: place as u32 })
    }

    /// Waits until every walk that runs now has ended.
    pub fn wait_for_readers(&self) {
        // MEMBARRIER_CMD_GLOBAL (include/uapi/linux/membarrier.h) waits for a grace period of RCU, under which programs run.
        const GLOBAL: libc::c_long = 1;
        // SAFETY: plain numbers.
        if unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } != 0 {
            std::thread::sleep(LONGEST_WALK);
        }
    }
}

/// The values of an array that can be mapped.
struct Values<T> {
    descriptor: OwnedFd,
    entries: usize,
    holds: PhantomData<T>,
}

impl<T: Pod> Values<T> {
    fn of(half: &KernelHalf, name: &'static str) -> Result<Values<T>, BpfError> {
        let failed = |source| BpfError::Map { name, source };
        let map = half.bpf.map(name).ok_or(BpfError::Missing(name))?;
        // It compares the size of values.
        Array::<_, T>::try_from(map).map_err(failed)?;
        let Map::Array(data) = map else { return Err(BpfError::Missing(name)) };
        let entries = data.info().map_err(failed)?.max_entries() as usize;
        let descriptor = data.fd().as_fd().try_clone_to_owned().map_err(|error| failed(MapError::IoError(error)))?;
        Ok(Values { descriptor, entries, holds: PhantomData })
    }

    /// The same values as so many smaller ones each.
    fn in_parts<U: Pod>(self, parts: usize) -> Values<U> {
        assert_eq!(size_of::<T>(), size_of::<U>() * parts, "parts of the value's size");
        Values { descriptor: self.descriptor, entries: self.entries * parts, holds: PhantomData }
    }

    /// Writes values. Only what is written is mapped, and only meanwhile: the kernel maps such memory whole, and counts it twice then.
    fn write(&self, first: usize, values: &[T]) -> io::Result<()> {
        if first.checked_add(values.len()).is_none_or(|end| end > self.entries) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if values.is_empty() {
            return Ok(());
        }
        let start = first * size_of::<T>();
        let aligned = start & !(PAGE - 1);
        let bytes = (start + size_of_val(values) - aligned).next_multiple_of(PAGE);
        // SAFETY: a new mapping of pages that the array has: it is rounded up to whole ones.
        let at =
            unsafe { mmap(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &self.descriptor, aligned as u64) }?;
        // SAFETY: the mapping begins at a page, and `start` is a multiple of the size of a value away from the array's beginning.
        let to = unsafe { at.byte_add(start - aligned) }.cast::<T>();
        for (n, value) in values.iter().enumerate() {
            // SAFETY: inside of the mapping, as its length was made. Volatile, since programs read it meanwhile.
            unsafe { to.add(n).write_volatile(*value) };
        }
        // SAFETY: the mapping made above, which nothing points into any more.
        Ok(unsafe { munmap(at, bytes) }?)
    }
}
