//! Where the running kernel keeps what the programs read: byte offsets and enum values, from its BTF, by name.
//!
//! Declared once, here: the macro makes the struct that the kernel half reads as read-only globals and the table by which the
//! user half fills it. A member that the running kernel does not have stays [`ABSENT`]; readers return `None` for it.

/// Offset or value that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// What a field of [`KernelLayout`] is looked up as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Byte offset of a member, found through anonymous members too: type, member.
    Member(&'static str, &'static str),
    /// Size in bytes of a struct.
    Size(&'static str),
    /// Value of an enumerator: enum, enumerator.
    Value(&'static str, &'static str),
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

use Lookup::{Member, Size, Value};

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
    /// Since 7.1 LRU folios hold an obj_cgroup: told by this member (KERNEL.md 2).
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
    /// The same before 5.5.
    task_real_start_time = Member("task_struct", "real_start_time");
    /// Exec count.
    task_self_exec_id = Member("task_struct", "self_exec_id");
    /// Command name.
    task_comm = Member("task_struct", "comm");
    /// Memory descriptor, null for kernel threads.
    task_mm = Member("task_struct", "mm");
    /// Task flags (PF_KTHREAD).
    task_flags = Member("task_struct", "flags");
    /// Memory descriptor of a mapping.
    vma_mm = Member("vm_area_struct", "vm_mm");
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
    /// Links of an inode.
    inode_nlink = Member("inode", "i_nlink");
    /// Size of a file.
    inode_size = Member("inode", "i_size");
    /// Directory entries of an inode: head of a list.
    inode_dentry = Member("inode", "i_dentry");
    /// Device of a superblock.
    sb_dev = Member("super_block", "s_dev");
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
    /// String of a name.
    qstr_name = Member("qstr", "name");
}
