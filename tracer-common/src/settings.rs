//! What the user half tells the kernel half before it starts (read-only globals) and while it runs (one map entry).

/// Read-only settings, frozen at load.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Settings {
    /// [`crate::ABI_VERSION`] of the user half.
    pub abi_version: u32,
    /// log2 of M, the mean distance in bytes between two samples; 12 takes every frame.
    pub log2_mean: u32,
    /// Frames that the frame table covers.
    pub frames: u64,
    /// Address of the `struct page` of frame 0 (x86_64 `vmemmap_base`).
    pub vmemmap: u64,
    /// Size of a `struct page`, bytes.
    pub page_struct_bytes: u32,
    /// Whether filters are in force: unknown owners are then looked up in `OWNERS`.
    pub filtered: u32,
    /// Thread-group id of the tracer, initial namespace.
    pub own_tgid: u32,
    /// 1: record kernel stacks.
    pub kernel_stacks: u32,
    /// 1: keep exact totals per owner and kind in the commit and uncharge programs.
    pub owner_totals: u32,
    /// The gfp bit of movable memory; only such allocations can become anon, file or shmem on the tracepoint tier.
    pub gfp_movable: u32,
}
crate::assert_size!(Settings, 48);
crate::plain_data!(Settings);

/// State that changes while the trace runs; entry 0 of the `CONTROL` array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// 1: count and sample. Set last, after everything is attached.
    pub enabled: u32,
    /// 1: remember the frames charged from now on in `NEW_FRAMES`, so that the baseline scan passes over them.
    pub baseline: u32,
    /// Current epoch; the bank of counters in use is its remainder by `PICTURES + 1`.
    pub epoch: u64,
    /// Pictures that are open: while not 0, ended samples move to the graveyard.
    pub open_pictures: u32,
    /// Reserved, zero.
    pub reserved: u32,
}
crate::assert_size!(Control, 24);
crate::plain_data!(Control);
