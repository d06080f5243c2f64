//! What the sizes of the tables are planned from, and what is given instead of planned.

use tracer_common::FRAME_BYTES;

/// What sizes are planned from.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Take every charge.
    pub exact: bool,
    /// Most bytes that the traced cgroups can hold: the sum of their limits, or RAM.
    pub traced_bytes: u64,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// One more than the highest frame number.
    pub frames: u64,
    /// Possible CPUs.
    pub cpus_possible: u32,
    /// Bound for all maps, bytes.
    pub map_memory: u64,
    /// Memory for the rows of tables for unwinding, bytes; 0: user stacks are walked by frame pointers.
    pub unwind_memory: u64,
    /// Processes are followed.
    pub follow: bool,
    /// The kernel half tells of rare events.
    pub diagnose: bool,
}

impl Wish {
    /// Most frames that the traced cgroups can hold.
    #[must_use]
    pub fn traced_frames(&self) -> u64 {
        self.traced_bytes.min(self.ram_bytes).div_ceil(FRAME_BYTES)
    }
}
