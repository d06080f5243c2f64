//! Tables of the kernel half's own, which nobody here looks into: they are named because they stand in the object, and take memory.

use super::row::{ArrayTable, LruHashTable, PerCpuArrayTable, Row, Shape};
use tracer_common::{
    sampling::Sampler,
    settings::{CALIBRATION_ADDRESSES, CALIBRATION_FIRST},
};

/// Memory of those whose values only the kernel half knows, for each CPU: working memory of programs.
pub const BYTES_PER_CPU: u64 = 114_000;
/// The same of what is not for each CPU.
pub const BYTES: u64 = 1 << 10;

/// Working memory, one slot a program.
pub static SCRATCH: Row = Row::inner("SCRATCH", Shape::PerCpuArray, size_of::<u32>());

/// Working memory of walks over interpreters' frames.
pub static MANAGED: Row = Row::inner("MANAGED", Shape::PerCpuArray, size_of::<u32>());

/// A file on its way into its table, one slot a program.
pub static FILE_SCRATCH: Row = Row::inner("FILE_SCRATCH", Shape::PerCpuArray, size_of::<u32>());

/// What khugepaged is at.
pub static COLLAPSE: Row = Row::inner("COLLAPSE", Shape::Array, size_of::<u32>());

/// The sampler of each CPU.
pub static SAMPLERS: PerCpuArrayTable<Sampler> = PerCpuArrayTable::named("SAMPLERS");

/// Addresses of the page structs of frames that the tracer itself was given, and whether a program could be preempted.
pub static CALIBRATION: ArrayTable<u64> = ArrayTable::named("CALIBRATION").fixed(CALIBRATION_FIRST + CALIBRATION_ADDRESSES);

/// Tracepoint tier: frames whose mapping is a migration entry, by thread and address.
pub static MIGRATIONS: LruHashTable<[u64; 2], u64> = LruHashTable::named("MIGRATIONS").fixed(4096);

/// kprobe tier: folios on their way into the page cache of shmem, by thread.
pub static SHMEM_CALLS: super::row::HashTable<u64, u64> =
    super::row::HashTable::named("SHMEM_CALLS").fixed(1024).loses(&[tracer_common::loss::Loss::CallTableFull]);
