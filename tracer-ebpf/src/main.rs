//! memtrail's kernel half. Entry points only: they fetch arguments and call the probes.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod attribute;
mod diagnose;
mod globals;
mod histogram;
mod kernel;
mod loss;
mod managed;
mod maps;
mod probes;
mod scratch;
mod unwind;
mod values;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use core::ffi::c_void;
use globals::layout;
use kernel::{folio::Folio, typed::Typed};
use scratch::Slot;
use tracer_common::{event::CgroupChange, kind::Kind};

// Every tier.

#[btf_tracepoint(function = "mm_filemap_add_to_page_cache")]
fn file_commit(ctx: BtfTracePointContext) -> i32 {
    probes::file_commit::added(ctx.as_ptr(), typed_folio(ctx.as_ptr()));
    0
}

#[btf_tracepoint(function = "writeback_dirty_folio")]
fn folio_dirtied(ctx: BtfTracePointContext) -> i32 {
    probes::dirty::dirtied(ctx.as_ptr(), typed_folio(ctx.as_ptr()));
    0
}

#[raw_tracepoint(tracepoint = "balance_dirty_pages")]
fn writer_held(ctx: RawTracePointContext) -> i32 {
    probes::dirty::held(ctx.as_ptr());
    0
}

#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
fn cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    probes::cgroup::changed(CgroupChange::Made, ctx.arg(0), ctx.arg(1));
    0
}

#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
fn cgroup_rmdir(ctx: RawTracePointContext) -> i32 {
    probes::cgroup::changed(CgroupChange::Removed, ctx.arg(0), ctx.arg(1));
    0
}

// Attached only when processes are followed.

#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn process_fork(ctx: RawTracePointContext) -> i32 {
    probes::follow::forked(ctx.arg(1));
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn process_exit(_ctx: RawTracePointContext) -> i32 {
    probes::follow::exiting();
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn image_exit(_ctx: RawTracePointContext) -> i32 {
    probes::image::exiting();
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn image_exec(_ctx: RawTracePointContext) -> i32 {
    probes::image::executed();
    0
}

#[raw_tracepoint(tracepoint = "mark_victim")]
fn oom_victim(ctx: RawTracePointContext) -> i32 {
    probes::oom::marked(ctx.as_ptr(), ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "signal_generate")]
fn oom_signal(ctx: RawTracePointContext) -> i32 {
    probes::oom::signalled(ctx.arg::<u64>(0) as u32, ctx.arg(1), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "mm_vmscan_memcg_reclaim_begin")]
fn reclaim_begin(_ctx: RawTracePointContext) -> i32 {
    probes::reclaim::began();
    0
}

#[raw_tracepoint(tracepoint = "mm_vmscan_memcg_reclaim_end")]
fn reclaim_end(_ctx: RawTracePointContext) -> i32 {
    probes::reclaim::ended();
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn waiter_exit(_ctx: RawTracePointContext) -> i32 {
    probes::reclaim::exited();
    0
}

// Tracepoint tier.

#[raw_tracepoint(tracepoint = "mm_page_alloc")]
fn page_alloc(ctx: RawTracePointContext) -> i32 {
    probes::page_alloc::allocated(ctx.as_ptr(), Slot::PageAlloc, ctx.arg(0), ctx.arg::<u64>(1) as u32, ctx.arg::<u64>(2) as u32);
    0
}

/// Attached where the kernel may preempt the one above.
#[raw_tracepoint(tracepoint = "mm_page_alloc")]
fn page_alloc_spare(ctx: RawTracePointContext) -> i32 {
    probes::page_alloc::passed_over(ctx.as_ptr(), ctx.arg(0), ctx.arg::<u64>(1) as u32, ctx.arg::<u64>(2) as u32);
    0
}

#[raw_tracepoint(tracepoint = "mm_lru_insertion")]
fn lru_insertion(ctx: RawTracePointContext) -> i32 {
    probes::lru_insertion::inserted(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "mm_page_free")]
fn page_free(ctx: RawTracePointContext) -> i32 {
    probes::page_free::freed(ctx.arg(0), ctx.arg::<u64>(1) as u32);
    0
}

#[raw_tracepoint(tracepoint = "set_migration_pte")]
fn migration_pte_set(ctx: RawTracePointContext) -> i32 {
    probes::migration_pte::began(ctx.arg(0), ctx.arg(1));
    0
}

#[raw_tracepoint(tracepoint = "set_migration_pmd")]
fn migration_pmd_set(ctx: RawTracePointContext) -> i32 {
    probes::migration_pte::began(ctx.arg(0), ctx.arg(1));
    0
}

#[raw_tracepoint(tracepoint = "remove_migration_pte")]
fn migration_pte_removed(ctx: RawTracePointContext) -> i32 {
    probes::migration_pte::ended(ctx.arg(0), ctx.arg(1), ctx.arg::<u64>(2) as u32, false);
    0
}

#[raw_tracepoint(tracepoint = "remove_migration_pmd")]
fn migration_pmd_removed(ctx: RawTracePointContext) -> i32 {
    probes::migration_pte::ended(ctx.arg(0), ctx.arg(1), 0, true);
    0
}

/// Up to 6.13 these two have the cgroup's path behind the memory descriptor.
#[raw_tracepoint(tracepoint = "mmap_lock_acquire_returned")]
fn mmap_lock_taken(ctx: RawTracePointContext) -> i32 {
    let [write, success] = probes::two_arguments(ctx.as_ptr(), layout!(mmap_lock_arguments) == Some(2));
    if write as u8 != 0 && success as u8 != 0 {
        probes::mapping::locked(ctx.arg(0));
    }
    0
}

#[raw_tracepoint(tracepoint = "mmap_lock_released")]
fn mmap_lock_released(ctx: RawTracePointContext) -> i32 {
    probes::mapping::unlocking(ctx.as_ptr(), ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "vm_unmapped_area")]
fn unmapped_area(ctx: RawTracePointContext) -> i32 {
    probes::mapping::found(ctx.arg(0), ctx.arg(1));
    0
}

// fentry and kprobe tiers, in pairs.

#[fentry]
fn anon_commit_fentry(ctx: FEntryContext) -> i32 {
    let c = ctx.as_ptr();
    probes::anon_commit::mapped(c, Slot::AnonCommit, Kind::Anon, typed_folio(c), argument::<1>(c), argument::<2>(c));
    0
}

#[kprobe]
fn anon_commit_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(folio), Some(vma), Some(address)) = (ctx.arg(0), ctx.arg(1), ctx.arg(2)) {
        probes::anon_commit::mapped(ctx.as_ptr(), Slot::AnonCommit, Kind::Anon, Folio::at(folio), vma, address);
    }
    0
}

#[fentry]
fn hugetlb_commit_fentry(ctx: FEntryContext) -> i32 {
    let c = ctx.as_ptr();
    probes::anon_commit::mapped(c, Slot::Hugetlb, Kind::Hugetlb, typed_folio(c), argument::<1>(c), argument::<2>(c));
    0
}

#[kprobe]
fn hugetlb_commit_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(folio), Some(vma), Some(address)) = (ctx.arg(0), ctx.arg(1), ctx.arg(2)) {
        probes::anon_commit::mapped(ctx.as_ptr(), Slot::Hugetlb, Kind::Hugetlb, Folio::at(folio), vma, address);
    }
    0
}

/// The user half names the position of the return value: it stands behind the arguments, and their number differs.
#[fexit]
fn shmem_commit_fexit5(ctx: FExitContext) -> i32 {
    let c = ctx.as_ptr();
    if argument::<5>(c) as i32 == 0 {
        probes::shmem_commit::added(c, typed_folio(c));
    }
    0
}

#[fexit]
fn shmem_commit_fexit6(ctx: FExitContext) -> i32 {
    let c = ctx.as_ptr();
    if argument::<6>(c) as i32 == 0 {
        probes::shmem_commit::added(c, typed_folio(c));
    }
    0
}

#[kprobe]
fn shmem_commit_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(folio) = ctx.arg(0) {
        probes::shmem_commit::entered(folio);
    }
    0
}

#[kretprobe]
fn shmem_commit_kretprobe(ctx: RetProbeContext) -> u32 {
    probes::shmem_commit::returned(ctx.as_ptr(), ctx.ret::<i32>());
    0
}

#[fentry]
fn oom_fentry(ctx: FEntryContext) -> i32 {
    probes::oom::called(argument::<0>(ctx.as_ptr()));
    0
}

#[kprobe]
fn oom_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(control) = ctx.arg(0) {
        probes::oom::called(control);
    }
    0
}

#[fentry]
fn uncharge_fentry(ctx: FEntryContext) -> i32 {
    probes::uncharge::uncharged(typed_folio(ctx.as_ptr()));
    0
}

#[kprobe]
fn uncharge_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(folio) = ctx.arg(0) {
        probes::uncharge::uncharged(Folio::at(folio));
    }
    0
}

#[fentry]
fn swapin_fentry(ctx: FEntryContext) -> i32 {
    let c = ctx.as_ptr();
    probes::swapin::on_lru(c, typed_folio(c), || Typed::argument::<0>(c).word(layout!(page_mapping)));
    0
}

#[kprobe]
fn swapin_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(folio) = ctx.arg(0) {
        probes::swapin::on_lru(ctx.as_ptr(), Folio::at(folio), || kernel::read(folio, layout!(page_mapping)));
    }
    0
}

#[fentry]
fn migrate_fentry(ctx: FEntryContext) -> i32 {
    probes::migrate::migrating(argument::<0>(ctx.as_ptr()), argument::<1>(ctx.as_ptr()));
    0
}

#[kprobe]
fn migrate_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(old), Some(new)) = (ctx.arg(0), ctx.arg(1)) {
        probes::migrate::migrating(old, new);
    }
    0
}

#[fentry]
fn replace_fentry(ctx: FEntryContext) -> i32 {
    probes::migrate::replacing(argument::<0>(ctx.as_ptr()), argument::<1>(ctx.as_ptr()));
    0
}

#[kprobe]
fn replace_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(old), Some(new)) = (ctx.arg(0), ctx.arg(1)) {
        probes::migrate::replacing(old, new);
    }
    0
}

#[fentry]
fn swapout_fentry(ctx: FEntryContext) -> i32 {
    probes::swapout::swapped_out(typed_folio(ctx.as_ptr()));
    0
}

#[kprobe]
fn swapout_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(folio) = ctx.arg(0) {
        probes::swapout::swapped_out(Folio::at(folio));
    }
    0
}

#[fentry]
fn move_account_fentry(ctx: FEntryContext) -> i32 {
    probes::swapout::moved(argument::<0>(ctx.as_ptr()), argument::<3>(ctx.as_ptr()));
    0
}

#[kprobe]
fn move_account_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(folio), Some(to)) = (ctx.arg(0), ctx.arg(3)) {
        probes::swapout::moved(folio, to);
    }
    0
}

#[fentry]
fn charge_fentry(_ctx: FEntryContext) -> i32 {
    probes::reclaim::charge_entered();
    0
}

#[kprobe]
fn charge_kprobe(_ctx: ProbeContext) -> u32 {
    probes::reclaim::charge_entered();
    0
}

#[fexit]
fn charge_fexit(_ctx: FExitContext) -> i32 {
    probes::reclaim::charge_returned();
    0
}

#[kretprobe]
fn charge_kretprobe(_ctx: RetProbeContext) -> u32 {
    probes::reclaim::charge_returned();
    0
}

#[fentry]
fn high_fentry(_ctx: FEntryContext) -> i32 {
    probes::reclaim::high_entered();
    0
}

#[fexit]
fn high_fexit(_ctx: FExitContext) -> i32 {
    probes::reclaim::high_returned();
    0
}

#[kprobe]
fn high_kprobe(_ctx: ProbeContext) -> u32 {
    probes::reclaim::high_entered();
    0
}

#[kretprobe]
fn high_kretprobe(_ctx: RetProbeContext) -> u32 {
    probes::reclaim::high_returned();
    0
}

// Address space: the system calls, which take their registers as their one argument.

#[fentry]
fn brk_fentry(_ctx: FEntryContext) -> i32 {
    probes::mapping::brk_entered();
    0
}

#[fexit]
fn brk_fexit(ctx: FExitContext) -> i32 {
    mapping_returned(&ctx, probes::mapping::BRK)
}

#[fexit]
fn mmap_fexit(ctx: FExitContext) -> i32 {
    mapping_returned(&ctx, probes::mapping::MMAP)
}

#[fexit]
fn munmap_fexit(ctx: FExitContext) -> i32 {
    mapping_returned(&ctx, probes::mapping::MUNMAP)
}

#[fexit]
fn mremap_fexit(ctx: FExitContext) -> i32 {
    mapping_returned(&ctx, probes::mapping::MREMAP)
}

#[fexit]
fn mprotect_fexit(ctx: FExitContext) -> i32 {
    mapping_returned(&ctx, probes::mapping::MPROTECT)
}

/// Attached to each of them, as is the next.
#[kprobe]
fn mapping_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(registers) = ctx.arg(0) {
        probes::mapping::entered(registers);
    }
    0
}

#[kretprobe]
fn mapping_kretprobe(ctx: RetProbeContext) -> u32 {
    probes::mapping::left(ctx.as_ptr(), ctx.ret::<u64>());
    0
}

#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn mapping_fork(ctx: RawTracePointContext) -> i32 {
    probes::mapping::forked(ctx.arg(1));
    0
}

#[inline(always)]
fn mapping_returned(ctx: &FExitContext, call: u64) -> i32 {
    let c = ctx.as_ptr();
    probes::mapping::returned(c, call, argument::<0>(c), argument::<1>(c));
    0
}

/// Argument `N` of an fentry or fexit program as a plain number.
#[inline(always)]
fn argument<const N: usize>(ctx: *mut c_void) -> u64 {
    Typed::argument::<N>(ctx).number()
}

/// A folio that is the first argument of an fentry, fexit or tp_btf program.
#[inline(always)]
fn typed_folio(ctx: *mut c_void) -> Folio {
    Folio::typed(Typed::argument::<0>(ctx))
}

// Run by the user half through BPF_PROG_TEST_RUN, or for a moment at the start; never left attached.

#[raw_tracepoint(tracepoint = "mm_page_alloc")]
fn calibrate(ctx: RawTracePointContext) -> i32 {
    probes::calibrate::allocated(ctx.arg(0), ctx.arg::<u64>(1) as u32);
    0
}

#[raw_tracepoint(tracepoint = "mm_page_alloc")]
fn preemption(_ctx: RawTracePointContext) -> i32 {
    probes::calibrate::look_at_preemption();
    0
}

#[raw_tracepoint(tracepoint = "mm_page_free")]
fn run_read_word(ctx: RawTracePointContext) -> i32 {
    probes::calibrate::read_word(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "mm_page_free")]
fn run_baseline(ctx: RawTracePointContext) -> i32 {
    probes::baseline::insert(ctx.arg(0), ctx.arg::<u64>(1) as u32, ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "mm_page_free")]
fn run_owner_name(ctx: RawTracePointContext) -> i32 {
    probes::owner::name(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "mm_page_free")]
fn run_identify(ctx: RawTracePointContext) -> i32 {
    unwind::identify(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "mm_page_free")]
fn run_walk(ctx: RawTracePointContext) -> i32 {
    unwind::measure(ctx.as_ptr(), ctx.arg::<u64>(0) != 0);
    0
}

#[raw_tracepoint(tracepoint = "mm_page_free")]
fn run_sweep(ctx: RawTracePointContext) -> i32 {
    probes::sweep::look(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "mm_page_free")]
fn run_hand_over(ctx: RawTracePointContext) -> i32 {
    attribute::commit::hand_over(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "mm_page_free")]
fn run_oom_self(_ctx: RawTracePointContext) -> i32 {
    probes::oom::look_at_self();
    0
}

#[raw_tracepoint(tracepoint = "mm_page_free")]
fn run_fold(ctx: RawTracePointContext) -> i32 {
    probes::freeze::fold(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "mm_page_free")]
fn run_close_picture(ctx: RawTracePointContext) -> i32 {
    probes::freeze::close(ctx.arg(0));
    0
}

// Attached by the benchmark only, to the hooks of the tracepoint tier: what a program on them costs that does nothing.

#[raw_tracepoint(tracepoint = "mm_page_alloc")]
fn empty(_ctx: RawTracePointContext) -> i32 {
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only GPL-compatible programs use the tracing helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
