//! Where the running kernel keeps what the programs read: byte offsets and enum values, from its BTF, by name.
//!
//! Declared once, here: the macro makes the struct that the kernel half reads as read-only globals and the table by which the
//! user half fills it. A member that the running kernel does not have stays [`ABSENT`]; readers return `None` for it.

/// Offset or value that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// In the object, the constant that stands for the address of `preempt_count`: the user half puts the variable's type id in its place before
/// it loads the object.
pub const VARIABLE: u64 = 0x6d74_0001_0000_0000;

/// What a field of [`KernelLayout`] is looked up as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Byte offset of a member, found through anonymous members too: type, member.
    Member(&'static str, &'static str),
    /// Size in bytes of a struct.
    Size(&'static str),
    /// Value of an enumerator: enum, enumerator.
    Value(&'static str, &'static str),
    /// Number of arguments of a tracepoint.
    Arguments(&'static str),
    /// Position of an argument of a tracepoint, from 0: tracepoint, name.
    Argument(&'static str, &'static str),
    /// Type id of a variable: what a program's instruction names it by.
    Variable(&'static str),
    /// Number of parameters of a function.
    Parameters(&'static str),
}

macro_rules! kernel_layout {
    ($($(#[$doc:meta])* $field:ident = $lookup:expr;)+) => {
        /// Offsets and values of the running kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct KernelLayout { $($(#[$doc])* pub $field: u32,)+ }
        crate::plain_data!(KernelLayout);

        impl KernelLayout {
            /// A layout in which nothing is known.
            pub const UNKNOWN: KernelLayout = KernelLayout { $($field: ABSENT,)+ };

            /// The layout in which each field has the value that `find` gives for it; `None` becomes [`ABSENT`].
            pub fn filled(mut find: impl FnMut(Lookup) -> Option<u32>) -> KernelLayout {
                KernelLayout { $($field: find($lookup).unwrap_or(ABSENT),)+ }
            }

            /// Calls `each` with the name, look-up and value of every field.
            pub fn for_each(&self, mut each: impl FnMut(&'static str, Lookup, Option<u32>)) {
                $(each(stringify!($field), $lookup, if self.$field == ABSENT { None } else { Some(self.$field) });)+
            }
        }
    };
}

use Lookup::{Argument, Arguments, Member, Parameters, Size, Value, Variable};

kernel_layout! {
    /// Owner word of a folio (5.15 and later with `struct folio`: 5.16).
    folio_memcg_data = Member("folio", "memcg_data");
    /// Owner word of a page (5.11 and later).
    page_memcg_data = Member("page", "memcg_data");
    /// Owner pointer of a page (up to 5.10).
    page_mem_cgroup = Member("page", "mem_cgroup");
    /// Page flags.
    page_flags = Member("page", "flags");
    /// Mapping of a page: address_space pointer with tag bits, bit 0 is anonymous.
    page_mapping = Member("page", "mapping");
    /// Index in the mapping, frames.
    page_index = Member("page", "index");
    /// `__folio_index` of later kernels.
    page_folio_index = Member("page", "__folio_index");
    /// Compound head pointer of a tail page, tagged with bit 0.
    page_compound_head = Member("page", "compound_head");
    /// Map count of one frame, minus one.
    page_mapcount = Member("page", "_mapcount");
    /// Size of `struct page`.
    page_size = Size("page");
    /// Order in the low byte of the second page's flags (6.6 and later).
    folio_flags_1 = Member("folio", "_flags_1");
    /// Order byte (6.0 to 6.5).
    folio_order_byte = Member("folio", "_folio_order");
    /// Order byte of the second page (up to 5.19).
    page_compound_order = Member("page", "compound_order");
    /// Whole-folio map count, minus one.
    folio_entire_mapcount = Member("folio", "_entire_mapcount");
    /// The same before `struct folio` had it, in the second page.
    page_compound_mapcount = Member("page", "compound_mapcount");
    /// PG_head.
    pg_head = Value("pageflags", "PG_head");
    /// PG_swapbacked.
    pg_swapbacked = Value("pageflags", "PG_swapbacked");
    /// PG_swapcache.
    pg_swapcache = Value("pageflags", "PG_swapcache");
    /// PG_dirty.
    pg_dirty = Value("pageflags", "PG_dirty");
    /// PG_writeback.
    pg_writeback = Value("pageflags", "PG_writeback");
    /// PG_lru.
    pg_lru = Value("pageflags", "PG_lru");
    /// PG_locked.
    pg_locked = Value("pageflags", "PG_locked");
    /// PG_hugetlb, in the second page's flags (6.6 to 6.9).
    pg_hugetlb = Value("pageflags", "PG_hugetlb");
    /// PGTY_hugetlb, in the highest byte of the word that the map count stands in (6.12 and later).
    page_type_hugetlb = Value("pagetype", "PGTY_hugetlb");
    /// `mem_cgroup_replace_folio`, which came in 6.7: with it `mem_cgroup_migrate` moves a charge, without it that charges a second time.
    replace_folio = Parameters("mem_cgroup_replace_folio");
    /// Since 7.1 LRU folios hold an obj_cgroup: told by this member.
    per_node_objcg = Member("mem_cgroup_per_node", "objcg");
    /// Owner of an obj_cgroup.
    objcg_memcg = Member("obj_cgroup", "memcg");
    /// cgroup of a css; the css is the first member of a mem_cgroup.
    css_cgroup = Member("cgroup_subsys_state", "cgroup");
    /// Parent css; the css that every cgroup embeds (`cgroup.self`) is its first member, so this holds for cgroups too.
    css_parent = Member("cgroup_subsys_state", "parent");
    /// Offset of the css in a mem_cgroup.
    memcg_css = Member("mem_cgroup", "css");
    /// kernfs node of a cgroup.
    cgroup_kn = Member("cgroup", "kn");
    /// Depth of a cgroup (5.x and later).
    cgroup_level = Member("cgroup", "level");
    /// Root of a cgroup.
    cgroup_root = Member("cgroup", "root");
    /// Hierarchy number.
    root_hierarchy_id = Member("cgroup_root", "hierarchy_id");
    /// 64-bit id of a kernfs node.
    kn_id = Member("kernfs_node", "id");
    /// Name of a kernfs node.
    kn_name = Member("kernfs_node", "name");
    /// Node above (6.15 and later).
    kn_parent_rcu = Member("kernfs_node", "__parent");
    /// The same before.
    kn_parent = Member("kernfs_node", "parent");
    /// Index of the memory controller in css_set.subsys.
    memory_cgrp_id = Value("cgroup_subsys_id", "memory_cgrp_id");
    /// Number of the helper that gives a task's registers (since 5.15).
    task_pt_regs = Value("bpf_func_id", "BPF_FUNC_task_pt_regs");
    /// What keeps the current task on its CPU is counted here, for each CPU (x86_64: to 6.1, and since 6.15).
    preempt_count = Variable("__preempt_count");
    /// css_set of a task.
    task_cgroups = Member("task_struct", "cgroups");
    /// Controllers' states of a css_set.
    css_set_subsys = Member("css_set", "subsys");
    /// Thread-group leader.
    task_group_leader = Member("task_struct", "group_leader");
    /// Thread-group id.
    task_tgid = Member("task_struct", "tgid");
    /// Start on the boot clock, nanoseconds.
    task_start_boottime = Member("task_struct", "start_boottime");
    /// Exec count.
    task_self_exec_id = Member("task_struct", "self_exec_id");
    /// Command name.
    task_comm = Member("task_struct", "comm");
    /// Pages over memory.high for which it has yet to wait.
    task_over_high = Member("task_struct", "memcg_nr_pages_over_high");
    /// Memory descriptor, null for kernel threads.
    task_mm = Member("task_struct", "mm");
    /// Task flags (PF_KTHREAD).
    task_flags = Member("task_struct", "flags");
    /// Ids of a task, one for each pid namespace that it is seen from.
    task_thread_pid = Member("task_struct", "thread_pid");
    /// Depth of the innermost of those namespaces.
    pid_level = Member("pid", "level");
    /// The ids, outermost namespace first.
    pid_numbers = Member("pid", "numbers");
    /// Size of one.
    upid_size = Size("upid");
    /// Its number.
    upid_nr = Member("upid", "nr");
    /// What the threads of a group share.
    task_signal = Member("task_struct", "signal");
    /// Threads of the group that have not begun to exit.
    signal_live = Member("signal_struct", "live");
    /// Memory descriptor of a mapping.
    vma_mm = Member("vm_area_struct", "vm_mm");
    /// Where the program's code begins in memory.
    mm_start_code = Member("mm_struct", "start_code");
    /// The program that a task executes.
    mm_exe_file = Member("mm_struct", "exe_file");
    /// The task that a memory descriptor's charges go by.
    mm_owner = Member("mm_struct", "owner");
    /// inode of an address_space.
    mapping_host = Member("address_space", "host");
    /// inode number.
    inode_ino = Member("inode", "i_ino");
    /// Superblock.
    inode_sb = Member("inode", "i_sb");
    /// Generation.
    inode_generation = Member("inode", "i_generation");
    /// When an inode's file was last written to: seconds and nanoseconds side by side (up to 6.10; under the second name from 6.7 on).
    inode_mtime = Member("inode", "i_mtime");
    /// The same.
    inode_mtime_private = Member("inode", "__i_mtime");
    /// The same as two members (6.11 and later).
    inode_mtime_sec = Member("inode", "i_mtime_sec");
    /// Its nanoseconds.
    inode_mtime_nsec = Member("inode", "i_mtime_nsec");
    /// Links of an inode.
    inode_nlink = Member("inode", "i_nlink");
    /// Size of a file.
    inode_size = Member("inode", "i_size");
    /// Directory entries of an inode: head of a list.
    inode_dentry = Member("inode", "i_dentry");
    /// Device of a superblock.
    sb_dev = Member("super_block", "s_dev");
    /// Memory counter of a memory cgroup.
    memcg_memory = Member("mem_cgroup", "memory");
    /// Counter of swap (v2), in a union with `memsw` (v1).
    memcg_swap = Member("mem_cgroup", "swap");
    /// Counter of kernel memory (charged on v1 only).
    memcg_kmem = Member("mem_cgroup", "kmem");
    /// Counter of socket buffers (v1).
    memcg_tcpmem = Member("mem_cgroup", "tcpmem");
    /// Pages charged.
    counter_usage = Member("page_counter", "usage");
    /// Limit, pages.
    counter_max = Member("page_counter", "max");
    /// Charges that met the limit.
    counter_failcnt = Member("page_counter", "failcnt");
    /// Event counts of a memory cgroup, one word each.
    memcg_memory_events = Member("mem_cgroup", "memory_events");
    /// Which of them counts calls of the OOM killer.
    memcg_oom_event = Value("memcg_memory_event", "MEMCG_OOM");
    /// Which of them counts charges that met the limit.
    memcg_max_event = Value("memcg_memory_event", "MEMCG_MAX");
    /// memory.oom.group.
    memcg_oom_group = Member("mem_cgroup", "oom_group");
    /// v1: locked for an OOM kill.
    memcg_oom_lock = Member("mem_cgroup", "oom_lock");
    /// v1: tasks are told that it is out of memory.
    memcg_under_oom = Member("mem_cgroup", "under_oom");
    /// v1: killing is off.
    memcg_oom_kill_disable = Member("mem_cgroup", "oom_kill_disable");
    /// Figures of memory.stat: an array up to 5.12, a struct up to 5.18, since then a pointer to one.
    memcg_vmstats = Member("mem_cgroup", "vmstats");
    /// Size of that struct.
    memcg_vmstats_size = Size("memcg_vmstats");
    /// Offset behind its figures: their number.
    vmstats_events = Member("memcg_vmstats", "events");
    /// Figures by number, as the enumerators count them.
    stat_anon = Value("node_stat_item", "NR_ANON_MAPPED");
    /// See `stat_anon`; page cache with shmem.
    stat_file = Value("node_stat_item", "NR_FILE_PAGES");
    /// See `stat_anon`.
    stat_shmem = Value("node_stat_item", "NR_SHMEM");
    /// See `stat_anon`.
    stat_dirty = Value("node_stat_item", "NR_FILE_DIRTY");
    /// See `stat_anon`.
    stat_writeback = Value("node_stat_item", "NR_WRITEBACK");
    /// See `stat_anon`.
    stat_slab_reclaimable = Value("node_stat_item", "NR_SLAB_RECLAIMABLE_B");
    /// See `stat_anon`.
    stat_slab_unreclaimable = Value("node_stat_item", "NR_SLAB_UNRECLAIMABLE_B");
    /// See `stat_anon`.
    stat_kernel_stack = Value("node_stat_item", "NR_KERNEL_STACK_KB");
    /// See `stat_anon`.
    stat_swap = Value("memcg_stat_item", "MEMCG_SWAP");
    /// See `stat_anon`.
    stat_sock = Value("memcg_stat_item", "MEMCG_SOCK");
    /// See `stat_anon`.
    stat_percpu = Value("memcg_stat_item", "MEMCG_PERCPU_B");
    /// See `stat_anon`.
    stat_kernel = Value("memcg_stat_item", "MEMCG_KMEM");
    /// One more than the last figure's number.
    stat_count = Value("memcg_stat_item", "MEMCG_NR_STAT");
    /// The cgroup whose limit was met.
    oom_memcg = Member("oom_control", "memcg");
    /// Flags of the allocation that failed.
    oom_gfp_mask = Member("oom_control", "gfp_mask");
    /// Its order.
    oom_order = Member("oom_control", "order");
    /// Pages allowed in all.
    oom_totalpages = Member("oom_control", "totalpages");
    /// The task to be killed.
    oom_chosen = Member("oom_control", "chosen");
    /// The victim's tracepoint gives the task and its user (2), or the thread id alone (1: up to 6.8).
    mark_victim_arguments = Arguments("mark_victim");
    /// Kind of limit.
    oom_constraint = Member("oom_control", "constraint");
    /// Resident pages by kind: an array of percpu counters since 6.2, a struct of its own before.
    mm_rss_stat = Member("mm_struct", "rss_stat");
    /// Counts in that struct.
    rss_stat_count = Member("mm_rss_stat", "count");
    /// Size of a percpu counter.
    percpu_counter_size = Size("percpu_counter");
    /// Its count, without what CPUs keep to themselves.
    percpu_counter_count = Member("percpu_counter", "count");
    /// Bytes of page tables.
    mm_pgtables = Member("mm_struct", "pgtables_bytes");
    /// Mapped address space, pages.
    mm_total_vm = Member("mm_struct", "total_vm");
    /// End of the heap.
    mm_brk = Member("mm_struct", "brk");
    /// Length that a free place is looked for.
    unmapped_length = Member("vm_unmapped_area_info", "length");
    /// The tracepoints of the mmap lock give the memory descriptor and how it is locked (2), or the cgroup's path between them (3: 5.11 up
    /// to 6.13, where enabling them makes each locking walk that path).
    mmap_lock_arguments = Arguments("mmap_lock_released");
    /// Which argument of the tracepoint says how long a task is held up, in jiffies; it moved in 6.16.
    throttle_pause = Argument("balance_dirty_pages", "pause");
    /// oom_score_adj.
    signal_oom_score_adj = Member("signal_struct", "oom_score_adj");
    /// Thread id.
    task_pid = Member("task_struct", "pid");
    /// Type of a file system.
    sb_type = Member("super_block", "s_type");
    /// Its name.
    fs_type_name = Member("file_system_type", "name");
    /// Directory above.
    dentry_parent = Member("dentry", "d_parent");
    /// Name of a directory entry.
    dentry_name = Member("dentry", "d_name");
    /// Place in the list of an inode's entries.
    dentry_alias = Member("dentry", "d_u");
    /// The same where that union has no name.
    dentry_alias_unnamed = Member("dentry", "d_alias");
    /// Kernel stack of a task.
    task_stack = Member("task_struct", "stack");
    /// Size of the registers that are saved at its top.
    pt_regs_size = Size("pt_regs");
    /// Registers of a task that the processor does not save by itself.
    task_thread = Member("task_struct", "thread");
    /// Where its thread-local storage is: for glibc and musl its `pthread_t`.
    thread_fsbase = Member("thread_struct", "fsbase");
    /// Tree of mappings (6.1 and later).
    mm_mt = Member("mm_struct", "mm_mt");
    /// Its root entry.
    maple_root = Member("maple_tree", "ma_root");
    /// Entries of a node or leaf of 16; the pivots stand before, from the second word on.
    range64_slot = Member("maple_range_64", "slot");
    /// Entries of a node that keeps gaps, of 10.
    arange64_slot = Member("maple_arange_64", "slot");
    /// Kinds of nodes.
    maple_leaf = Value("maple_type", "maple_leaf_64");
    /// See `maple_leaf`.
    maple_range = Value("maple_type", "maple_range_64");
    /// See `maple_leaf`.
    maple_arange = Value("maple_type", "maple_arange_64");
    /// Tree of mappings (up to 6.0).
    mm_rb = Member("mm_struct", "mm_rb");
    /// A mapping's node in it.
    vma_rb = Member("vm_area_struct", "vm_rb");
    /// Mappings below.
    rb_left = Member("rb_node", "rb_left");
    /// Mappings above.
    rb_right = Member("rb_node", "rb_right");
    /// First address of a mapping.
    vma_start = Member("vm_area_struct", "vm_start");
    /// End of it.
    vma_end = Member("vm_area_struct", "vm_end");
    /// Offset in the file, pages.
    vma_pgoff = Member("vm_area_struct", "vm_pgoff");
    /// What may be done with it.
    vma_flags = Member("vm_area_struct", "vm_flags");
    /// The file.
    vma_file = Member("vm_area_struct", "vm_file");
    /// Operations: none for anonymous memory.
    vma_ops = Member("vm_area_struct", "vm_ops");
    /// Size of a mapping's descriptor.
    vma_size = Size("vm_area_struct");
    /// inode of an open file.
    file_inode = Member("file", "f_inode");
    /// String of a name.
    qstr_name = Member("qstr", "name");
}

/// Byte offsets of the figures that an OOM kill carries, from the start of a memory cgroup's figures; [`ABSENT`] for what this kernel
/// does not have. The user half works them out from the layout ([`KernelLayout::stat_offsets`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct StatOffsets {
    /// In the order of [`STAT_NAMES`].
    pub offsets: [u32; crate::oom::OOM_STATS],
}
crate::assert_size!(StatOffsets, 48);
crate::plain_data!(StatOffsets);

/// What the figures are: lines of memory.stat.
pub const STAT_NAMES: [&str; crate::oom::OOM_STATS] = [
    "anon",
    "file",
    "shmem",
    "file_dirty",
    "file_writeback",
    "kernel",
    "sock",
    "swap",
    "kernel_stack",
    "slab_reclaimable",
    "slab_unreclaimable",
    "percpu",
];

/// Figures of nodes that memory cgroups keep since 6.10, in the order of `memcg_node_stat_items` (mm/memcontrol.c), as far as no
/// configuration changes it. What is read by these numbers is compared with memory.stat before it is believed.
const COMPACT: [(&str, u32); 8] = [
    ("anon", 14),
    ("file", 16),
    ("shmem", 19),
    ("file_dirty", 17),
    ("file_writeback", 18),
    ("kernel_stack", 23),
    ("slab_reclaimable", 5),
    ("slab_unreclaimable", 6),
];

impl KernelLayout {
    /// Where the figures of memory.stat stand.
    #[must_use]
    pub fn stat_offsets(&self) -> StatOffsets {
        let numbers = [
            self.stat_anon,
            self.stat_file,
            self.stat_shmem,
            self.stat_dirty,
            self.stat_writeback,
            self.stat_kernel,
            self.stat_sock,
            self.stat_swap,
            self.stat_kernel_stack,
            self.stat_slab_reclaimable,
            self.stat_slab_unreclaimable,
            self.stat_percpu,
        ];
        // Up to 5.12 the member is the array itself, as long as the enumeration.
        let kept = if self.vmstats_events == ABSENT { self.stat_count } else { self.vmstats_events / 8 };
        let compact = kept < self.stat_count;
        let mut offsets = [ABSENT; crate::oom::OOM_STATS];
        for ((offset, number), name) in offsets.iter_mut().zip(numbers).zip(STAT_NAMES) {
            if number == ABSENT || self.stat_count == ABSENT {
                continue;
            }
            let index = if !compact {
                Some(number)
            } else if number >= self.stat_swap {
                // Those of cgroups alone stand at the end, all of them.
                kept.checked_sub(self.stat_count.wrapping_sub(number))
            } else {
                COMPACT.iter().find(|(known, _)| *known == name).map(|(_, index)| *index)
            };
            *offset = index.filter(|index| *index < kept).map_or(ABSENT, |index| index * 8);
        }
        StatOffsets { offsets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enumerators and the length of the figures as in the BTF of Linux 6.18.
    const LINUX_6_18: KernelLayout = KernelLayout {
        vmstats_events: 40 * 8,
        stat_anon: 17,
        stat_file: 19,
        stat_shmem: 22,
        stat_dirty: 20,
        stat_writeback: 21,
        stat_slab_reclaimable: 5,
        stat_slab_unreclaimable: 6,
        stat_kernel_stack: 36,
        stat_swap: 51,
        stat_sock: 52,
        stat_percpu: 53,
        stat_kernel: 55,
        stat_count: 58,
        ..KernelLayout::UNKNOWN
    };

    fn index(layout: &KernelLayout, name: &str) -> Option<u32> {
        let at = STAT_NAMES.iter().position(|known| *known == name)?;
        let offset = layout.stat_offsets().offsets[at];
        assert!(offset == ABSENT || offset.is_multiple_of(8), "{name} at {offset}: figures are words");
        (offset != ABSENT).then_some(offset / 8)
    }

    #[test]
    fn figures_without_gaps_stand_at_the_numbers_of_the_enumeration() {
        // Up to 5.12 the member of the cgroup is an array; up to 6.9 a struct with all of them before its events.
        for vmstats_events in [ABSENT, LINUX_6_18.stat_count * 8] {
            let layout = KernelLayout { vmstats_events, ..LINUX_6_18 };
            assert_eq!(index(&layout, "anon"), Some(17), "{vmstats_events}");
            assert_eq!(index(&layout, "kernel_stack"), Some(36), "{vmstats_events}");
            assert_eq!(index(&layout, "swap"), Some(51), "{vmstats_events}");
            assert_eq!(index(&layout, "kernel"), Some(55), "{vmstats_events}");
        }
    }

    #[test]
    fn figures_with_gaps_closed_stand_in_the_order_of_the_kernels_own_list() {
        // The seven of cgroups alone, swap to zswapped, are the last of forty.
        let expected = [
            ("slab_reclaimable", 5),
            ("slab_unreclaimable", 6),
            ("anon", 14),
            ("file", 16),
            ("file_dirty", 17),
            ("file_writeback", 18),
            ("shmem", 19),
            ("kernel_stack", 23),
            ("swap", 33),
            ("sock", 34),
            ("percpu", 35),
            ("kernel", 37),
        ];
        assert_eq!(expected.len(), STAT_NAMES.len());
        for (name, at) in expected {
            assert_eq!(index(&LINUX_6_18, name), Some(at), "{name}");
        }
    }

    #[test]
    fn a_figure_that_the_kernel_does_not_have_stands_nowhere() {
        let layout = KernelLayout { stat_percpu: ABSENT, ..LINUX_6_18 };
        assert_eq!((index(&layout, "percpu"), index(&layout, "sock")), (None, Some(34)));
        let unknown_length = KernelLayout { stat_count: ABSENT, ..LINUX_6_18 };
        assert_eq!(unknown_length.stat_offsets().offsets, [ABSENT; crate::oom::OOM_STATS]);
        assert_eq!(KernelLayout::UNKNOWN.stat_offsets().offsets, [ABSENT; crate::oom::OOM_STATS]);
    }

    #[test]
    fn no_figure_is_read_behind_the_last_one() {
        for kept in 0..80 {
            let layout = KernelLayout { vmstats_events: kept * 8, ..LINUX_6_18 };
            for name in STAT_NAMES {
                assert!(index(&layout, name).is_none_or(|at| at < kept), "{name} of {kept} figures");
            }
        }
    }

    #[test]
    fn every_field_gets_what_is_found_for_its_own_look_up() {
        let mut looked_up = 0;
        let layout = KernelLayout::filled(|lookup| {
            looked_up += 1;
            match lookup {
                Member("folio", "memcg_data") => Some(56),
                Size("page") => Some(64),
                _ => None,
            }
        });
        assert_eq!(layout, KernelLayout { folio_memcg_data: 56, page_size: 64, ..KernelLayout::UNKNOWN });
        let mut told = 0;
        layout.for_each(|name, lookup, value| {
            told += 1;
            let known = match (name, lookup) {
                ("folio_memcg_data", Member("folio", "memcg_data")) => Some(56),
                ("page_size", Size("page")) => Some(64),
                _ => None,
            };
            assert_eq!(value, known, "{name}: {lookup:?}");
        });
        assert_eq!((looked_up, told), (size_of::<KernelLayout>() / 4, looked_up));
    }
}
