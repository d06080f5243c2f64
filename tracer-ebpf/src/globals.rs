//! Read-only globals, set by the user half before load and frozen: to the verifier they are constants, so branches on them are free.

use core::ptr::read_volatile;
use tracer_common::{
    layout::{ABSENT, KernelLayout, StatOffsets},
    settings::Settings,
};

#[unsafe(no_mangle)]
static LAYOUT: KernelLayout = KernelLayout::UNKNOWN;

#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    abi_version: 0,
    log2_mean: 20,
    frames: 0,
    page_struct_shift: 6,
    filtered: 0,
    own_tgid: 0,
    kernel_stacks: 0,
    gfp_movable: 0,
    followed: 0,
    diagnose: 0,
    log2_coarsest: 20,
    log2_step: 0,
    gfp_write: 0,
    jiffy_ns: 0,
    hierarchy: 0,
    unwind: 0,
    gfp_user: 0,
    gfp_account: 0,
};

/// Address of the `struct page` of frame 0 (x86_64 `vmemmap_base`). Found by a program of this object, so after the settings are
/// frozen and before the others are attached; a plain load, where a map would have to be looked up at each free.
#[unsafe(no_mangle)]
static mut VMEMMAP: u64 = 0;

/// See [`VMEMMAP`].
#[inline(always)]
pub fn vmemmap() -> u64 {
    // SAFETY: an aligned word of this object's own, written by the user half alone.
    unsafe { read_volatile(&raw const VMEMMAP) }
}

#[unsafe(no_mangle)]
static STAT_OFFSETS: StatOffsets = StatOffsets { offsets: [ABSENT; tracer_common::oom::OOM_STATS] };

/// Offset of a figure of memory.stat, `None` where this kernel has none.
#[inline(always)]
pub fn stat_offset(index: usize) -> Option<u64> {
    // SAFETY: an entry of this static: the callers' index is below its length. Volatile for the same reason as below.
    let value = unsafe { read_volatile((&raw const STAT_OFFSETS).cast::<u32>().add(index)) };
    if value == ABSENT { None } else { Some(value as u64) }
}

/// Reads a field of the kernel's layout: `Some(offset or value)`, or `None` where this kernel has no such thing.
macro_rules! layout {
    ($field:ident) => {
        $crate::globals::layout_at(::core::mem::offset_of!(::tracer_common::layout::KernelLayout, $field))
    };
}

/// Reads one setting.
macro_rules! setting {
    ($field:ident) => {
        $crate::globals::setting_at(::core::mem::offset_of!(::tracer_common::settings::Settings, $field), |s| s.$field)
    };
}
pub(crate) use {layout, setting};

#[inline(always)]
pub fn layout_at(offset: usize) -> Option<u64> {
    // SAFETY: the offset of a u32 field of this static. Volatile, or the compiler would fold the value at build time.
    let value = unsafe { read_volatile((&raw const LAYOUT).byte_add(offset).cast::<u32>()) };
    if value == ABSENT { None } else { Some(value as u64) }
}

/// `_type_of` is never called: it gives the field its type.
#[inline(always)]
pub fn setting_at<T>(offset: usize, _type_of: fn(&Settings) -> T) -> T {
    // SAFETY: the offset of a field of this type in this static.
    unsafe { read_volatile((&raw const SETTINGS).byte_add(offset).cast::<T>()) }
}
