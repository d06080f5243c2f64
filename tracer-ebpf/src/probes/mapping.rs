//! The address space of a process changes: mmap, brk, munmap, mremap, mprotect.
//!
//! - fentry and kprobe: the system calls themselves (`__x64_sys_*`, the same since 4.17).
//! - tracepoints: between the moment at which a task has the mmap lock for writing and that at which it lets go of it
//!   (`mmap_lock:*`), its own address space changed by as much as its counters did; where to, the call's registers say, and
//!   `mmap:vm_unmapped_area`. No tracepoint of system calls, which would make every one of them slow.
//!
//! What the kernel maps for itself (exec, shared memory segments) is not asked for by one of these calls, and not recorded.

use crate::{
    atomic,
    attribute::{
        commit, control, decide, followed,
        stack::{self, Side},
    },
    globals::{layout, setting},
    histogram,
    kernel::{
        memcg, pointer, read,
        registers::{self, Registers},
        task, word,
    },
    loss,
    maps::{MAPPERS, MAPPING_CALLS, MAPPING_COUNTS, MAPPING_EVENTS, MAPPINGS, MAPPINGS_LOST},
    scratch::{self, Slot},
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns, generated::bpf_jiffies64};
use core::ffi::c_void;
use tracer_common::{
    histogram::Metric,
    loss::Loss,
    mapping::{
        CALLS, Change, FOLLOWED_FROM, Mapper, MappingCall, MappingEvent, MappingKey, MappingRecord, addend, asked_for, variance_in_pages,
    },
    oom::UNKNOWN,
};

/// Numbers of the system calls (arch/x86/entry/syscalls/syscall_64.tbl).
pub const MMAP: u64 = 9;
pub const MPROTECT: u64 = 10;
pub const MUNMAP: u64 = 11;
pub const BRK: u64 = 12;
pub const MREMAP: u64 = 25;

const PAGE_MASK: u64 = 4095;
const HUGE_PAGE: u64 = 2 << 20;
const PROT_WRITE: u64 = 2;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
const MREMAP_FIXED: u64 = 2;
/// The last errors that a system call can return begin here (MAX_ERRNO).
const ERRORS: u64 = -4095_i64 as u64;
/// BPF_RB_NO_WAKEUP: the reader looks at the ring by itself.
const NO_WAKEUP: u64 = 1;

/// What became of a call.
struct Outcome {
    /// It did what it was asked for.
    done: bool,
    /// Where the kernel put the mapping; 0 if that is not known.
    place: u64,
    /// End of the heap before and after.
    brk: (u64, u64),
    /// How many calls this one stands for.
    weight: u32,
}

#[inline(always)]
fn slot(thread: u64) -> Option<&'static mut MappingCall> {
    let call = MAPPING_CALLS.get_ptr_mut(thread as u32 & (CALLS - 1))?;
    // SAFETY: a map value of plain numbers. Another thread with these bits of the id may write at the same time: the one that comes later
    // wins, and the other finds that the entry is not its own.
    Some(unsafe { &mut *call })
}

/// The current thread begins a call: its entry. `weight` is 0 if the call is passed over.
#[inline(always)]
fn begin() -> Option<&'static mut MappingCall> {
    control()?;
    let thread = bpf_get_current_pid_tgid();
    let call = slot(thread)?;
    // SAFETY: plain helper; on all kernels that have BTF (5.5).
    if !call.begin(thread, unsafe { bpf_jiffies64() }) {
        lost();
    }
    Some(call)
}

/// Some call of some process is missing from what user space is told.
#[inline(always)]
fn lost() {
    loss::count(Loss::MappingEventLost, 0);
    if let Some(count) = MAPPINGS_LOST.get_ptr_mut(0) {
        // SAFETY: a map value.
        unsafe { atomic::add(count, 1) };
    }
}

/// Remembers what the call is compared with when it ends.
#[inline(always)]
fn remember(call: &mut MappingCall, mm: u64) {
    call.mm = mm;
    call.total_vm = word(mm, layout!(mm_total_vm));
    call.brk = word(mm, layout!(mm_brk));
}

/// Tracepoints: the current task has the lock of `mm` for writing.
#[inline(always)]
pub fn locked(mm: u64) {
    let Some(call) = begin() else { return };
    call.mm = mm;
    if call.weight != 0 {
        remember(call, mm);
    }
}

/// Tracepoints: the kernel has looked for a free place of the current task's, described at `wish`. Nothing is mapped there yet.
#[inline(always)]
pub fn found(address: u64, wish: u64) {
    let thread = bpf_get_current_pid_tgid();
    let Some(call) = slot(thread) else { return };
    if call.thread != thread {
        return;
    }
    call.found = if address >= ERRORS { 0 } else { address };
    call.found_length = word(wish, layout!(unmapped_length));
    let passed_over = call.weight == 0;
    call.is_for(call.found_length);
    if passed_over && call.weight != 0 {
        remember(call, call.mm);
    }
}

/// Tracepoints: the current task lets go of the lock of `mm`, for writing or, at the end of munmap, for reading.
#[inline(always)]
pub fn unlocking(ctx: *mut c_void, mm: u64) {
    let thread = bpf_get_current_pid_tgid();
    let Some(call) = slot(thread) else { return };
    if call.thread != thread || call.mm != mm {
        return;
    }
    // Passed over, and no free place was looked for: perhaps a large one where the program wished it, which is not passed over either.
    let was_passed_over = call.weight == 0;
    if was_passed_over && (call.found != 0 || !wished_for(call)) {
        return;
    }
    let weight = call.weight;
    call.weight = 0;
    // Another's memory: that of a child or of a program to be.
    // SAFETY: plain helper.
    if word(unsafe { bpf_get_current_task() }, layout!(task_mm)) != mm {
        return;
    }
    let Some(registers) = registers::of_current() else { return };
    let number = registers.call();
    let pages = word(mm, layout!(mm_total_vm)).wrapping_sub(call.total_vm) as i64;
    let length = whole_pages(if number == MREMAP { registers.third } else { registers.second });
    let done = match number {
        // Over what was reserved before nothing is added.
        // What there was before is not known of what was to be passed over. It fails where there is no room, and then another is looked for.
        MMAP => was_passed_over || pages > 0 || (pages == 0 && registers.fourth & MAP_FIXED != 0),
        MREMAP => pages != 0 || call.found != 0 || registers.fourth & MREMAP_FIXED != 0,
        MUNMAP => pages < 0,
        // What it was before is the right's business: it fails rarely, and then nothing is written there.
        _ => true,
    };
    let brk = (call.brk, word(mm, layout!(mm_brk)));
    let place = free_place(call, length);
    finished(ctx, &registers, number, &Outcome { done, place, brk, weight });
}

/// Whether the running call maps much at an address that the program gives without insisting on it. It stands for itself then.
#[inline(always)]
fn wished_for(call: &mut MappingCall) -> bool {
    let Some(registers) = registers::of_current() else { return false };
    if registers.call() != MMAP || registers.first == 0 || registers.fourth & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0 {
        return false;
    }
    call.is_for(whole_pages(registers.second));
    call.weight != 0
}

/// Where a mapping of that length is: the kernel looks for 2 MiB more where it wants to align to a huge page, and moves up
/// (`thp_get_unmapped_area_vmflags`, 6.7 and later).
#[inline(always)]
fn free_place(call: &MappingCall, length: u64) -> u64 {
    if call.found == 0 || call.found_length != length + HUGE_PAGE {
        return call.found;
    }
    (call.found + HUGE_PAGE) & !(HUGE_PAGE - 1)
}

/// fentry: the system call brk begins.
#[inline(always)]
pub fn brk_entered() {
    let Some(call) = begin() else { return };
    if call.weight != 0 {
        // SAFETY: plain helper.
        remember(call, pointer(unsafe { bpf_get_current_task() }, layout!(task_mm)));
    }
}

/// fexit: a system call with the registers at `pt_regs` has returned `result`.
#[inline(always)]
pub fn returned(ctx: *mut c_void, number: u64, pt_regs: u64, result: u64) {
    let thread = bpf_get_current_pid_tgid();
    // brk has begun before.
    let Some(call) = (if number == BRK { slot(thread) } else { begin() }) else { return };
    if call.thread != thread {
        return;
    }
    let Some(registers) = registers::read(pt_regs) else { return };
    if number == MMAP {
        call.is_for(registers.second);
    }
    conclude(ctx, call, &registers, number, result);
}

/// kprobe: one of the system calls begins, with the registers at `pt_regs`.
#[inline(always)]
pub fn entered(pt_regs: u64) {
    let Some(call) = begin() else { return };
    // The kernel tells of so many returns at once only.
    if call.registers != 0 {
        lost();
    }
    call.registers = 0;
    let Some(registers) = registers::read(pt_regs) else { return };
    if registers.number == MMAP {
        call.is_for(registers.second);
    }
    if call.weight == 0 {
        return;
    }
    call.registers = pt_regs;
    if registers.number == BRK {
        // SAFETY: plain helper.
        remember(call, pointer(unsafe { bpf_get_current_task() }, layout!(task_mm)));
    }
}

/// kprobe: it has returned `result`.
#[inline(always)]
pub fn left(ctx: *mut c_void, result: u64) {
    let thread = bpf_get_current_pid_tgid();
    let Some(call) = slot(thread) else { return };
    if call.thread != thread || call.registers == 0 {
        return;
    }
    let registers = registers::read(call.registers);
    call.registers = 0;
    let Some(registers) = registers else { return };
    conclude(ctx, call, &registers, registers.number, result);
}

/// A hooked system call ends.
#[inline(always)]
fn conclude(ctx: *mut c_void, call: &mut MappingCall, registers: &Registers, number: u64, result: u64) {
    let weight = call.weight;
    call.weight = 0;
    if weight == 0 || result >= ERRORS {
        return;
    }
    finished(ctx, registers, number, &Outcome { done: true, place: result, brk: (call.brk, result), weight });
}

/// Every tier: the current task has made the task at `child`, which has not run yet. What its process has mapped is the child's too.
#[inline(always)]
pub fn forked(child: u64) {
    // SAFETY: plain helpers.
    let (current, ids) = unsafe { (bpf_get_current_task(), bpf_get_current_pid_tgid()) };
    let own = (ids >> 32) as u32;
    let Some(tgid) = read::<u32>(child, layout!(task_tgid)) else { return };
    // A thread, or a child that borrows the memory until it executes.
    if tgid == own || pointer(child, layout!(task_mm)) == pointer(current, layout!(task_mm)) {
        return;
    }
    let Some(mapper) = MAPPERS.get_ptr(own) else { return };
    // SAFETY: a map value of plain numbers.
    let grown = unsafe { (*mapper).grown };
    if grown < FOLLOWED_FROM || control().is_none() {
        return;
    }
    // What is left of an earlier process with this id is replaced; a full table makes room by itself.
    let _ = MAPPERS.insert(tgid, Mapper { window: 0, calls: 0, large: 0, grown }, 0);
    // SAFETY: plain helper.
    let now = unsafe { bpf_ktime_get_ns() };
    let leader = pointer(current, layout!(task_group_leader));
    let event = MappingEvent {
        process: task::of(child, now).process,
        from: task::identity(leader, own),
        from_length: own as u64,
        at_ns: now,
        tgid,
        tid: tgid,
        change: Change::Forked as u32,
        weight: 1,
        ..MappingEvent::default()
    };
    tell(&event);
}

#[inline(always)]
fn tell(event: &MappingEvent) {
    if MAPPING_EVENTS.output::<MappingEvent>(event, NO_WAKEUP).is_err() {
        lost();
    }
}

#[inline(always)]
fn whole_pages(bytes: u64) -> u64 {
    bytes.wrapping_add(PAGE_MASK) & !PAGE_MASK
}

/// Says what the call did, and records it.
#[inline(always)]
fn finished(ctx: *mut c_void, registers: &Registers, number: u64, outcome: &Outcome) {
    if !outcome.done {
        return;
    }
    let Registers { first, second, third, fourth, fifth, .. } = *registers;
    let mut event = MappingEvent { start: first & !PAGE_MASK, length: whole_pages(second), ..MappingEvent::default() };
    // How much more address space the process has.
    let mut growth = 0;
    let change = match number {
        MMAP => {
            let replaces = fourth & MAP_FIXED != 0;
            // Without a place that was looked for it is where the program wanted it.
            if !replaces && fourth & MAP_FIXED_NOREPLACE == 0 && outcome.place != 0 {
                event.start = outcome.place;
            }
            if !replaces && fourth & MAP_ANONYMOUS != 0 {
                growth = event.length;
            }
            if replaces { Change::Placed } else { Change::Mapped }
        }
        BRK => {
            let (before, after) = (whole_pages(outcome.brk.0), whole_pages(outcome.brk.1));
            event.start = if after > before { before } else { after };
            event.length = if after > before { after - before } else { before - after };
            if after > before {
                growth = event.length;
                Change::Grown
            } else {
                Change::Unmapped
            }
        }
        MREMAP => {
            let (before, after) = (whole_pages(second), whole_pages(third));
            event.from = first;
            event.from_length = before;
            event.length = after;
            event.start = if fourth & MREMAP_FIXED != 0 {
                fifth
            } else if outcome.place != 0 {
                outcome.place
            } else {
                first
            };
            if after > before {
                growth = after - before;
            }
            Change::Moved
        }
        MPROTECT if third & PROT_WRITE != 0 => Change::Opened,
        MUNMAP => Change::Unmapped,
        _ => return,
    };
    if event.length == 0 {
        return;
    }
    event.change = change as u32;
    event.weight = outcome.weight;
    record(ctx, &mut event, growth);
}

const MAPPED: u32 = Change::Mapped as u32;
const PLACED: u32 = Change::Placed as u32;
const GROWN: u32 = Change::Grown as u32;

/// Decides, walks the stack, adds to the table, and tells user space.
#[inline(always)]
fn record(ctx: *mut c_void, event: &mut MappingEvent, growth: u64) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if tgid == setting!(own_tgid) {
        return;
    }
    if !followed::wants(0) {
        return;
    }
    // SAFETY: plain helper.
    let owner = match memcg::id_of_task(unsafe { bpf_get_current_task() }) {
        UNKNOWN => 0,
        owner => owner,
    };
    if commit::refused(owner) {
        return;
    }
    // Every process's, also the small ones'.
    match event.change {
        MAPPED | PLACED => histogram::add_weighted(owner, Metric::MappingBytes, event.length, event.weight as u64),
        GROWN => histogram::add_weighted(owner, Metric::BrkBytes, event.length, event.weight as u64),
        _ => {}
    }
    let weight = admit(tgid as u64, growth, event.weight as u64);
    if weight == 0 {
        return;
    }
    let Some(scratch) = scratch::enter(Slot::Mapping) else { return };
    // SAFETY: plain helper.
    let now = unsafe { bpf_ktime_get_ns() };
    let toucher = task::current(now);
    if event.change != Change::Unmapped as u32 {
        event.user_stack = stack::record(ctx, Slot::Mapping, Side::User, scratch);
    }
    event.process = toucher.process;
    event.at_ns = now;
    event.tgid = tgid;
    event.tid = toucher.tid;
    event.weight = weight as u32;
    if growth != 0 {
        let key = MappingKey { owner, process: event.process, user_stack: event.user_stack, change: event.change, reserved: 0 };
        add(&mut scratch.mapping, &key, growth, weight, now);
    }
    tell(event);
    scratch::leave(scratch);
}

/// How many calls one of that weight stands for; 0 if it is not recorded. A global function, so that it is verified once (see
/// [`crate::attribute::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admit(tgid: u64, growth: u64, weight: u64) -> u64 {
    let mut mapper = MAPPERS.get_ptr_mut(tgid as u32);
    if mapper.is_none() {
        if growth == 0 {
            return 0;
        }
        // Another CPU may have been first; a full table makes room by itself.
        let _ = MAPPERS.insert(tgid as u32, Mapper { window: 0, calls: 0, large: 0, grown: 0 }, 1);
        mapper = MAPPERS.get_ptr_mut(tgid as u32);
    }
    let Some(mapper) = mapper else { return 0 };
    // SAFETY: a map value of plain numbers. Threads of one process count in it together: a count that gets lost takes a call more.
    let mapper = unsafe { &mut *mapper };
    mapper.grown += addend(mapper.grown, asked_for(growth, weight));
    if mapper.grown < FOLLOWED_FROM {
        return 0;
    }
    // SAFETY: plain helper.
    let weight = weight * mapper.weight(growth, unsafe { bpf_jiffies64() }, decide::random());
    if let Some(counts) = MAPPING_COUNTS.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        unsafe {
            (*counts).calls += weight;
            (*counts).thinned += if weight == 0 { 0 } else { weight - 1 };
        }
    }
    weight
}

/// Adds to the record of a key, making it if it is new.
#[inline(always)]
fn add(scratch: &mut MappingRecord, key: &MappingKey, growth: u64, weight: u64, now: u64) {
    let identity = key.hash();
    let mut record = MAPPINGS.get_ptr_mut(identity);
    if record.is_none() {
        scratch.key = *key;
        scratch.bytes = 0;
        scratch.calls = 0;
        scratch.variance = 0;
        scratch.last_ns = now;
        if let Err(error) = MAPPINGS.insert(identity, &*scratch, 1) {
            const EEXIST: i32 = -17;
            if error != EEXIST {
                loss::count(loss::of_insert(error, Loss::MappingTableFull), asked_for(growth, weight));
                return;
            }
        }
        record = MAPPINGS.get_ptr_mut(identity);
    }
    let Some(record) = record else { return };
    // SAFETY: a map value; counters are only added to, atomically.
    unsafe {
        if (*record).key != *key {
            loss::count(Loss::KeyCollision, asked_for(growth, weight));
            return;
        }
        atomic::add(&raw mut (*record).bytes, addend((*record).bytes, asked_for(growth, weight)));
        atomic::add(&raw mut (*record).calls, weight);
        atomic::add(&raw mut (*record).variance, addend((*record).variance, variance_in_pages(growth, weight)));
        (*record).last_ns = now;
    }
}
