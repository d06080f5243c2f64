//! What the kernel half knows of interpreters and of the functions that they run (see [`tracer_common::managed`]).

use super::row::{ArrayTable, LruHashTable, RingTable};
use tracer_common::{
    loss::Loss,
    managed::{
        KnownFunction,
        hotspot::{self, Code, HotSpot, JavaProcess},
        python, v8,
    },
};

/// Builds of CPython. They are written by [`crate::kernel_half::unwind`].
pub static PYTHONS: ArrayTable<python::Python> = ArrayTable::named("PYTHONS").fixed(python::PYTHONS);

/// Builds of V8, alike.
pub static V8S: ArrayTable<v8::V8> = ArrayTable::named("V8S").fixed(v8::V8S);

/// Builds of HotSpot, alike.
pub static HOTSPOTS: ArrayTable<HotSpot> = ArrayTable::named("HOTSPOTS").fixed(hotspot::HOTSPOTS);

/// Where processes have the code that their JVMs make.
pub static JAVA_PROCESSES: LruHashTable<u64, JavaProcess> = LruHashTable::named("JAVA_PROCESSES").fixed(hotspot::PROCESSES);

/// Which methods places in that code stand for.
pub static JAVA_CODE: LruHashTable<u64, Code> = LruHashTable::named("JAVA_CODE").fixed(hotspot::PLACES);

/// Functions by process and address, and those of which user space was told.
pub static FUNCTIONS: LruHashTable<u64, KnownFunction> = LruHashTable::named("FUNCTIONS").fixed(tracer_common::managed::FUNCTIONS);

/// What interpreters know of threads.
pub static RUNTIME_THREADS: LruHashTable<u64, u64> = LruHashTable::named("RUNTIME_THREADS").fixed(tracer_common::managed::THREADS);

/// Functions that are met for the first time: room for two hundred.
pub static FUNCTION_EVENTS: RingTable = RingTable::named("FUNCTION_EVENTS").fixed(256 << 10).loses(&[Loss::FunctionLost]);
