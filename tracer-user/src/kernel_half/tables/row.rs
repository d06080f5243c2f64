//! The declaration of a table: all that is known of it without looking into it. A table's file has its declaration and its handle in one;
//! sizes, bytes, what can be forced and what is compared with the object all follow from it.

use super::super::wish::Wish;
use aya::Pod;
use std::marker::PhantomData;
use tracer_common::loss::Loss;

/// Overhead of an entry of a preallocated hash besides key and value: element header and bucket (kernel/bpf/hashtab.c).
const HASH_ENTRY: u64 = 48 + 16;
/// What a per-CPU hash keeps in the element instead of the value.
const POINTER: u64 = 8;

/// Types of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// By key.
    Hash,
    /// By key, a value for each CPU.
    PerCpuHash,
    /// By key; what is idle for longest makes room.
    LruHash,
    /// By number.
    Array,
    /// By number, a value for each CPU.
    PerCpuArray,
    /// A ring: its entries are bytes.
    Ring,
}

/// How many entries a table has.
#[derive(Clone, Copy, Debug)]
pub enum Entries {
    /// As many whatever is traced.
    Fixed(u32),
    /// As many as are planned at the start.
    Planned(fn(&Wish) -> u32),
}

/// What is known of a table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// In the object, and in every output.
    pub name: &'static str,
    /// Its type.
    pub shape: Shape,
    /// Bytes of a key.
    pub key_bytes: usize,
    /// Bytes of a value; `None` for one that only the kernel half knows.
    pub value_bytes: Option<usize>,
    /// Its size.
    pub entries: Entries,
    /// It may be made smaller where the tables do not fit.
    pub halved: bool,
    /// Tests may force its size.
    pub forcible: bool,
    /// What is counted where it is full.
    pub losses: &'static [Loss],
}

impl Row {
    /// A table of the kernel half's own, which nobody here looks into.
    pub(super) const fn inner(name: &'static str, shape: Shape, key_bytes: usize) -> Row {
        Row { name, shape, key_bytes, value_bytes: None, entries: Entries::Fixed(1), halved: false, forcible: false, losses: &[] }
    }

    /// Kernel memory of so many entries; none for values that are not known (see [`super::inner`]).
    #[must_use]
    pub fn bytes(&self, entries: u32, cpus: u32) -> u64 {
        let words = |bytes: usize| (bytes as u64).next_multiple_of(8);
        let Some(value) = self.value_bytes.map(words) else { return 0 };
        let (entries, cpus, key) = (u64::from(entries), u64::from(cpus), words(self.key_bytes));
        match self.shape {
            Shape::Hash | Shape::LruHash => entries * (HASH_ENTRY + key + value),
            Shape::PerCpuHash => entries * (HASH_ENTRY + key + POINTER + cpus * value),
            Shape::Array => entries * value,
            Shape::PerCpuArray => entries * cpus * value,
            Shape::Ring => entries,
        }
    }
}

/// A declared table and the handle to it; `T` says what is in it.
pub struct Table<T> {
    row: Row,
    holds: PhantomData<fn() -> T>,
}

/// What a hash holds.
pub struct HashOf<K, V>(PhantomData<(K, V)>);
/// What a hash with a value for each CPU holds.
pub struct PerCpuHashOf<K, V>(PhantomData<(K, V)>);
/// What a hash holds that forgets.
pub struct LruHashOf<K, V>(PhantomData<(K, V)>);
/// What an array holds.
pub struct ArrayOf<V>(PhantomData<V>);
/// What an array with a value for each CPU holds.
pub struct PerCpuArrayOf<V>(PhantomData<V>);
/// What a ring holds.
pub struct RingOf;

/// A hash.
pub type HashTable<K, V> = Table<HashOf<K, V>>;
/// A hash with a value for each CPU.
pub type PerCpuHashTable<K, V> = Table<PerCpuHashOf<K, V>>;
/// A hash that forgets.
pub type LruHashTable<K, V> = Table<LruHashOf<K, V>>;
/// An array.
pub type ArrayTable<V> = Table<ArrayOf<V>>;
/// An array with a value for each CPU.
pub type PerCpuArrayTable<V> = Table<PerCpuArrayOf<V>>;
/// A ring.
pub type RingTable = Table<RingOf>;

impl<T> Table<T> {
    const fn of(name: &'static str, shape: Shape, key_bytes: usize, value_bytes: usize) -> Table<T> {
        let value_bytes = Some(value_bytes);
        let entries = Entries::Fixed(1);
        Table { row: Row { name, shape, key_bytes, value_bytes, entries, halved: false, forcible: false, losses: &[] }, holds: PhantomData }
    }

    /// Its declaration.
    pub const fn row(&self) -> &Row {
        &self.row
    }

    /// Its name in the object.
    pub(in super::super) const fn name(&self) -> &'static str {
        self.row.name
    }

    /// It has so many entries whatever is traced.
    pub(super) const fn fixed(mut self, entries: u32) -> Table<T> {
        self.row.entries = Entries::Fixed(entries);
        self
    }

    /// It has as many entries as this plans.
    pub(super) const fn planned(mut self, entries: fn(&Wish) -> u32) -> Table<T> {
        self.row.entries = Entries::Planned(entries);
        self
    }

    /// It may be made smaller.
    pub(super) const fn halved(mut self) -> Table<T> {
        self.row.halved = true;
        self
    }

    /// Tests may force its size.
    pub(super) const fn forcible(mut self) -> Table<T> {
        self.row.forcible = true;
        self
    }

    /// What is counted where it is full.
    pub(super) const fn loses(mut self, losses: &'static [Loss]) -> Table<T> {
        self.row.losses = losses;
        self
    }
}

impl<K: Pod, V: Pod> HashTable<K, V> {
    pub(super) const fn named(name: &'static str) -> Self {
        Table::of(name, Shape::Hash, size_of::<K>(), size_of::<V>())
    }
}

impl<K: Pod, V: Pod> PerCpuHashTable<K, V> {
    pub(super) const fn named(name: &'static str) -> Self {
        Table::of(name, Shape::PerCpuHash, size_of::<K>(), size_of::<V>())
    }
}

impl<K: Pod, V: Pod> LruHashTable<K, V> {
    pub(super) const fn named(name: &'static str) -> Self {
        Table::of(name, Shape::LruHash, size_of::<K>(), size_of::<V>())
    }
}

impl<V: Pod> ArrayTable<V> {
    pub(super) const fn named(name: &'static str) -> Self {
        Table::of(name, Shape::Array, size_of::<u32>(), size_of::<V>())
    }
}

impl<V: Pod> PerCpuArrayTable<V> {
    pub(super) const fn named(name: &'static str) -> Self {
        Table::of(name, Shape::PerCpuArray, size_of::<u32>(), size_of::<V>())
    }
}

impl RingTable {
    pub(super) const fn named(name: &'static str) -> Self {
        Table::of(name, Shape::Ring, 0, 0)
    }
}
