//! What anonymous memory is for: address ranges of processes, and the class of each.
//!
//! [`maps`] is what a process has mapped, [`memory`] reads single words of it without making anything resident, [`classify()`] says
//! what each range is for and what told so, [`survey`] does all of it for one process, and [`place`] finds where sampled folios are.
//!
//! No class is a guess: without a signature a range is [`Class::Other`]. A process can forge a signature, and then lies about its own
//! memory only. Never here: stacks, cgroups, outputs. Nothing is written to a process, and none is stopped.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "tests"))]

pub mod blocks;
pub mod classify;
pub mod elf;
pub mod environment;
pub mod glibc;
pub mod held;
pub mod huge;
pub mod intervals;
pub mod jvm;
pub mod memory;
pub mod place;
pub mod survey;
pub mod threads;
pub mod vm_structs;

pub use crate::host::proc::maps::{self, Vma};
pub use classify::{Classified, Region, classify};
pub use survey::Survey;

/// Bytes of a page of the kernels that memtrail runs on (x86_64).
pub const PAGE_BYTES: u64 = tracer_common::FRAME_BYTES;

/// What a range of memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Class {
    /// Grown by brk: malloc's main arena, mostly.
    BrkHeap,
    /// A heap of a glibc malloc arena other than the main one.
    GlibcArena,
    /// Stack of a thread, also of one that ended and left it for the next.
    ThreadStack,
    /// A block that malloc mapped for itself alone.
    MmapMalloc,
    /// Objects of a JVM.
    JavaHeap,
    /// Compiled code of a JVM.
    JavaCode,
    /// Classes of a JVM.
    JavaMetaspace,
    /// Tables of a JVM's collector.
    JavaGc,
    /// Memory of the Go runtime.
    GoHeap,
    /// Private copies of a file's pages, and an ELF segment's zeroed rest.
    FilePrivate,
    /// A shared mapping of a file.
    FileShared,
    /// A file without a name.
    Memfd,
    /// System V shared memory.
    SysvShm,
    /// Huge pages.
    Hugetlb,
    /// Code that the program wrote itself.
    Jit,
    /// The kernel's own pages.
    Vdso,
    /// No signature.
    Other,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 17] = [
        Class::BrkHeap,
        Class::GlibcArena,
        Class::ThreadStack,
        Class::MmapMalloc,
        Class::JavaHeap,
        Class::JavaCode,
        Class::JavaMetaspace,
        Class::JavaGc,
        Class::GoHeap,
        Class::FilePrivate,
        Class::FileShared,
        Class::Memfd,
        Class::SysvShm,
        Class::Hugetlb,
        Class::Jit,
        Class::Vdso,
        Class::Other,
    ];

    /// As in outputs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Class::BrkHeap => "brk-heap",
            Class::GlibcArena => "glibc-arena",
            Class::ThreadStack => "thread-stack",
            Class::MmapMalloc => "mmap-malloc",
            Class::JavaHeap => "java-heap",
            Class::JavaCode => "java-code",
            Class::JavaMetaspace => "java-metaspace",
            Class::JavaGc => "java-gc",
            Class::GoHeap => "go-heap",
            Class::FilePrivate => "file-private",
            Class::FileShared => "file-shared",
            Class::Memfd => "memfd",
            Class::SysvShm => "sysv-shm",
            Class::Hugetlb => "hugetlb",
            Class::Jit => "jit",
            Class::Vdso => "vdso",
            Class::Other => "other",
        }
    }
}
