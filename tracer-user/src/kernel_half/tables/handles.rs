//! What can be done with a declared table: reading, writing, retirement. All of it has patience with a table that is busy
//! (see [`super::busy`]), and counts what it then had to leave.

use super::{
    batch,
    busy::{Refusal, patiently, remove_all},
    calls,
    row::{ArrayTable, HashTable, PerCpuArrayTable, PerCpuHashTable},
};
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use aya::{
    Pod,
    maps::{Array, HashMap as AyaHash, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues},
};
use std::{
    collections::HashMap,
    hash::Hash,
    os::fd::{AsFd as _, BorrowedFd},
};

/// Insert only what is not there (`BPF_NOEXIST`).
const NEW: u64 = 1;

/// What became of an entry that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// It stands there.
    Done,
    /// The table is full.
    Full,
    /// The table stayed busy; that is counted.
    Busy,
    /// There is one already, and it was to be new.
    There,
}

/// What became of an entry that was to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken<V> {
    /// It has left, with this as its last value.
    Left(V),
    /// There was none.
    Gone,
    /// The table stayed busy, so that it stands as it stood; that is counted.
    Busy,
}

impl<V> Taken<V> {
    /// Its last value, if it has left.
    pub fn value(self) -> Option<V> {
        match self {
            Taken::Left(value) => Some(value),
            Taken::Gone | Taken::Busy => None,
        }
    }
}

impl<K: Pod, V: Pod> HashTable<K, V> {
    fn failed(&self, source: MapError) -> BpfError {
        BpfError::Map { name: self.name(), source }
    }

    /// The map, whose keys and values are of these types' sizes.
    fn open<'a>(&self, half: &'a KernelHalf) -> Result<AyaHash<&'a MapData, K, V>, BpfError> {
        let map = half.bpf.map(self.name()).ok_or(BpfError::Missing(self.name()))?;
        AyaHash::try_from(map).map_err(|source| self.failed(source))
    }

    fn open_mut<'a>(&self, half: &'a mut KernelHalf) -> Result<AyaHash<&'a mut MapData, K, V>, BpfError> {
        let map = half.bpf.map_mut(self.name()).ok_or(BpfError::Missing(self.name()))?;
        AyaHash::try_from(map).map_err(|source| self.failed(source))
    }

    /// Its descriptor, for calls that are not the loader's crate's.
    fn descriptor<'a>(&self, half: &'a KernelHalf) -> Result<BorrowedFd<'a>, BpfError> {
        // It compares the sizes of keys and values, which these calls rest on.
        self.open(half)?;
        match half.bpf.map(self.name()) {
            Some(Map::HashMap(data)) => Ok(data.fd().as_fd()),
            _ => Err(BpfError::Missing(self.name())),
        }
    }

    /// Takes the map out of the kernel half, for a thread that reads and writes it by itself.
    pub(in super::super) fn part(&self, half: &mut KernelHalf) -> Result<AyaHash<MapData, K, V>, BpfError> {
        let map = half.bpf.take_map(self.name()).ok_or(BpfError::Missing(self.name()))?;
        AyaHash::try_from(map).map_err(|source| self.failed(source))
    }

    /// Shows `look` each entry, for what needs no table of its own. A key may be shown twice.
    pub fn each(&self, half: &KernelHalf, look: impl FnMut(&K, &V)) -> Result<(), BpfError> {
        let passed_over = batch::read(self.descriptor(half)?, look).map_err(|error| self.failed(MapError::IoError(error)))?;
        half.troubles.busy(passed_over);
        Ok(())
    }

    /// The value of a key.
    pub fn get(&self, half: &KernelHalf, key: &K) -> Result<Option<V>, BpfError> {
        let map = self.open(half)?;
        match patiently(|| map.get(key, 0)) {
            Ok(value) => Ok(Some(value)),
            Err(error) if Refusal::of(&error) == Refusal::Gone => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// All keys, one call each: for small tables. An entry that goes while it is walked may be left out.
    pub fn keys(&self, half: &KernelHalf) -> Result<Vec<K>, BpfError> {
        self.open(half)?.keys().collect::<Result<_, _>>().map_err(|source| self.failed(source))
    }

    /// Writes an entry, also over another.
    pub fn insert(&self, half: &mut KernelHalf, key: &K, value: &V) -> Result<Written, BpfError> {
        self.write(half, key, value, 0)
    }

    /// Writes an entry if there is none.
    pub(super) fn insert_new(&self, half: &mut KernelHalf, key: &K, value: &V) -> Result<Written, BpfError> {
        self.write(half, key, value, NEW)
    }

    fn write(&self, half: &mut KernelHalf, key: &K, value: &V, flags: u64) -> Result<Written, BpfError> {
        let mut map = self.open_mut(half)?;
        let Err(error) = patiently(|| map.insert(key, value, flags)) else { return Ok(Written::Done) };
        match Refusal::of(&error) {
            Refusal::Full => Ok(Written::Full),
            Refusal::There => Ok(Written::There),
            Refusal::Busy => {
                half.troubles.busy(1);
                Ok(Written::Busy)
            }
            _ => Err(self.failed(error)),
        }
    }

    /// Removes entries; those that are gone already are passed over.
    pub fn remove(&self, half: &mut KernelHalf, keys: &[K]) -> Result<(), BpfError> {
        let mut map = self.open_mut(half)?;
        let busy = remove_all(keys, |key| map.remove(key)).map_err(|source| self.failed(source))?;
        half.troubles.busy(busy);
        Ok(())
    }

    /// Removes an entry and gives its last value.
    ///
    /// The kernel does both in one step, so that nothing which is added before the removal is missing in the value. What is lost is an
    /// addition that a program is amid: one that has found the entry, and adds to it a few instructions later. Kernels before 5.14 take two calls,
    /// between which more can be lost: that is counted.
    pub fn take(&self, half: &mut KernelHalf, key: &K) -> Result<Taken<V>, BpfError> {
        if !half.troubles.needs_two_calls() {
            let map = self.descriptor(half)?;
            match patiently(|| Ok(calls::lookup_and_delete(map, key)?)) {
                Err(error) if Refusal::of(&error) == Refusal::Unknown => half.troubles.found_to_need_two_calls(),
                outcome => return self.taken(half, outcome),
            }
        }
        let mut map = self.open_mut(half)?;
        let outcome = patiently(|| map.get(key, 0).and_then(|value| map.remove(key).map(|()| value)));
        if outcome.is_ok() {
            half.troubles.removed_in_two_calls();
        }
        self.taken(half, outcome)
    }

    fn taken(&self, half: &KernelHalf, outcome: Result<V, MapError>) -> Result<Taken<V>, BpfError> {
        outcome.map(Taken::Left).or_else(|error| match Refusal::of(&error) {
            Refusal::Gone => Ok(Taken::Gone),
            Refusal::Busy => {
                half.troubles.busy(1);
                Ok(Taken::Busy)
            }
            _ => Err(self.failed(error)),
        })
    }
}

impl<K: Pod + Eq + Hash, V: Pod> HashTable<K, V> {
    /// Keys and values, each key once. What is added or removed meanwhile may be there or not.
    pub fn entries(&self, half: &KernelHalf) -> Result<HashMap<K, V>, BpfError> {
        self.entries_as(half, |value| *value)
    }

    /// The same, and of each value what `keep` makes of it.
    pub fn entries_as<W>(&self, half: &KernelHalf, keep: impl Fn(&V) -> W) -> Result<HashMap<K, W>, BpfError> {
        let mut found = HashMap::new();
        self.each(half, |key, value| {
            found.insert(*key, keep(value));
        })?;
        Ok(found)
    }
}

impl<K: Pod, V: Pod> PerCpuHashTable<K, V> {
    fn failed(&self, source: MapError) -> BpfError {
        BpfError::Map { name: self.name(), source }
    }

    fn open<'a>(&self, half: &'a KernelHalf) -> Result<PerCpuHashMap<&'a MapData, K, V>, BpfError> {
        let map = half.bpf.map(self.name()).ok_or(BpfError::Missing(self.name()))?;
        PerCpuHashMap::try_from(map).map_err(|source| self.failed(source))
    }

    /// All keys. One that goes while the table is walked may be left out.
    pub fn keys(&self, half: &KernelHalf) -> Result<Vec<K>, BpfError> {
        self.open(half)?.keys().collect::<Result<_, _>>().map_err(|source| self.failed(source))
    }

    /// Shows `look` each entry, with each CPU's value.
    pub fn each(&self, half: &KernelHalf, mut look: impl FnMut(K, PerCpuValues<V>)) -> Result<(), BpfError> {
        for entry in self.open(half)?.iter() {
            let (key, values) = entry.map_err(|source| self.failed(source))?;
            look(key, values);
        }
        Ok(())
    }

    /// Each CPU's value of an entry; `None` if there is none.
    pub fn get(&self, half: &KernelHalf, key: &K) -> Result<Option<PerCpuValues<V>>, BpfError> {
        let map = self.open(half)?;
        match patiently(|| map.get(key, 0)) {
            Err(error) if matches!(Refusal::of(&error), Refusal::Gone) => Ok(None),
            values => values.map(Some).map_err(|source| self.failed(source)),
        }
    }

    /// Removes an entry and gives each CPU's value just before; `None` if there was none, or if it stands as it stood because the table stayed
    /// busy, which is counted.
    pub fn take(&self, half: &mut KernelHalf, key: &K) -> Result<Option<PerCpuValues<V>>, BpfError> {
        let Some(values) = self.get(half, key)? else { return Ok(None) };
        let map = half.bpf.map_mut(self.name()).ok_or(BpfError::Missing(self.name()))?;
        let mut map = PerCpuHashMap::<_, K, V>::try_from(map).map_err(|source| self.failed(source))?;
        let busy = remove_all(std::slice::from_ref(key), |key| map.remove(key)).map_err(|source| self.failed(source))?;
        half.troubles.busy(busy);
        Ok((busy == 0).then_some(values))
    }
}

impl<V: Pod> ArrayTable<V> {
    fn failed(&self, source: MapError) -> BpfError {
        BpfError::Map { name: self.name(), source }
    }

    /// An entry.
    pub fn get(&self, half: &KernelHalf, index: u32) -> Result<V, BpfError> {
        let map = half.bpf.map(self.name()).ok_or(BpfError::Missing(self.name()))?;
        let map = Array::<_, V>::try_from(map).map_err(|source| self.failed(source))?;
        map.get(&index, 0).map_err(|source| self.failed(source))
    }

    /// Writes an entry.
    pub fn set(&self, half: &mut KernelHalf, index: u32, value: V) -> Result<(), BpfError> {
        let map = half.bpf.map_mut(self.name()).ok_or(BpfError::Missing(self.name()))?;
        let mut map = Array::<_, V>::try_from(map).map_err(|source| self.failed(source))?;
        map.set(index, value, 0).map_err(|source| self.failed(source))
    }

    /// Takes the map out of the kernel half, for a thread that reads it by itself.
    pub(in super::super) fn part(&self, half: &mut KernelHalf) -> Result<Array<MapData, V>, BpfError> {
        let map = half.bpf.take_map(self.name()).ok_or(BpfError::Missing(self.name()))?;
        Array::try_from(map).map_err(|source| self.failed(source))
    }
}

impl<V: Pod> PerCpuArrayTable<V> {
    /// Each CPU's value of an entry.
    pub fn get(&self, half: &KernelHalf, index: u32) -> Result<PerCpuValues<V>, BpfError> {
        let failed = |source| BpfError::Map { name: self.name(), source };
        let map = half.bpf.map(self.name()).ok_or(BpfError::Missing(self.name()))?;
        let map = PerCpuArray::<_, V>::try_from(map).map_err(failed)?;
        map.get(&index, 0).map_err(failed)
    }
}
