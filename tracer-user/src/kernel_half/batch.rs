//! All entries of a hash table in a few system calls: aya reads them one by one, two calls an entry, which is too slow for tables that are
//! read every second.

use super::BpfError;
use aya::{
    Ebpf, Pod,
    maps::{Map, MapError},
};
use std::{
    collections::HashMap,
    hash::Hash,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

/// Command of bpf(2) (include/uapi/linux/bpf.h), since 5.6.
const LOOKUP_BATCH: libc::c_long = 24;
/// Bytes of keys and values that the first call has room for. One call gives whole hash buckets, so more is made where one does not fit.
const ROOM: usize = 1 << 18;
/// More do not stand in one bucket of any table here.
const MOST_ENTRIES: usize = 1 << 20;

/// The attribute of the command.
#[repr(C)]
struct Attribute {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Keys and values of a hash table, each key once. What is added or removed meanwhile may be there or not.
pub fn entries<K: Pod + Eq + Hash, V: Pod>(bpf: &Ebpf, name: &'static str) -> Result<HashMap<K, V>, BpfError> {
    entries_as(bpf, name, |value: &V| *value)
}

/// The same, and of each value what `keep` makes of it.
pub fn entries_as<K: Pod + Eq + Hash, V: Pod, W>(
    bpf: &Ebpf,
    name: &'static str,
    keep: impl Fn(&V) -> W,
) -> Result<HashMap<K, W>, BpfError> {
    let mut found = HashMap::new();
    each(bpf, name, |key: &K, value| {
        found.insert(*key, keep(value));
    })?;
    Ok(found)
}

/// Shows `look` each entry, for what needs no table of its own. A key may be shown twice.
pub fn each<K: Pod, V: Pod>(bpf: &Ebpf, name: &'static str, look: impl FnMut(&K, &V)) -> Result<(), BpfError> {
    let failed = |source| BpfError::Map { name, source };
    let Some(Map::HashMap(data)) = bpf.map(name) else { return Err(BpfError::Missing(name)) };
    // The kernel writes whole keys and values of the sizes that the map was made with.
    let info = data.info().map_err(failed)?;
    let (key, value) = (info.key_size() as usize, info.value_size() as usize);
    if key != size_of::<K>() {
        return Err(failed(MapError::InvalidKeySize { size: size_of::<K>(), expected: key }));
    }
    if value != size_of::<V>() {
        return Err(failed(MapError::InvalidValueSize { size: size_of::<V>(), expected: value }));
    }
    read_all(data.fd().as_fd().as_raw_fd(), look).map_err(|error| failed(MapError::IoError(error)))
}

fn read_all<K: Pod, V: Pod>(fd: i32, mut look: impl FnMut(&K, &V)) -> io::Result<()> {
    let fd = u32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // Where the kernel goes on: for hash tables a bucket's number.
    let (mut from, mut to, mut first) = (0_u32, 0_u32, true);
    let mut room = ROOM / (size_of::<K>() + size_of::<V>()).max(1);
    let (mut keys, mut values) = (Vec::<K>::new(), Vec::<V>::new());
    loop {
        keys.clear();
        values.clear();
        keys.reserve_exact(room);
        values.reserve_exact(room);
        let mut attribute = Attribute {
            in_batch: if first { 0 } else { (&raw const from) as u64 },
            out_batch: (&raw mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(room).unwrap_or(u32::MAX),
            map_fd: fd,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the attribute is that of the command; its buffers hold `count` keys and values of the map's sizes (asked above), and its
        // batches a u32 each, which is what hash tables have; all outlive the call.
        let status = unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attribute, size_of::<Attribute>()) };
        let error = (status != 0).then(io::Error::last_os_error);
        match error.as_ref().and_then(io::Error::raw_os_error) {
            None | Some(libc::ENOENT) => {
                let count = (attribute.count as usize).min(room);
                // SAFETY: the kernel has written this many of each, and every bit pattern is a value.
                unsafe {
                    keys.set_len(count);
                    values.set_len(count);
                }
                keys.iter().zip(&values).for_each(|(key, value)| look(key, value));
                // The end of the table.
                if error.is_some() {
                    return Ok(());
                }
                (from, first) = (to, false);
            }
            Some(libc::ENOSPC) if room < MOST_ENTRIES => room *= 2,
            Some(libc::EINTR) => {}
            _ => return Err(error.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EIO))),
        }
    }
}
