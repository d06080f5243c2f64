//! What the tests need to know of the running kernel. Asks for functions, never for a version.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::sync::OnceLock;

const MEMCG_TRACEPOINT: &str = "__traceiter_mod_memcg_lruvec_state";
/// Names that tell of flushed `memory.stat`, on one kernel or another.
const FLUSHED: [&str; 4] = ["mem_cgroup_flush_stats", "__mem_cgroup_flush_stats", "mem_cgroup_css_rstat_flush", "do_flush_stats"];
/// Pages a CPU and figure that kernels without a flush keep back.
const BATCH_PAGES: u64 = 32;

fn known() -> Result<&'static BTreeSet<String>> {
    static KNOWN: OnceLock<BTreeSet<String>> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known);
    }
    let all = std::fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
    let names = all.lines().filter_map(|line| line.split_whitespace().nth(2));
    let wanted = names.filter(|name| *name == MEMCG_TRACEPOINT || FLUSHED.contains(name)).map(str::to_owned).collect();
    Ok(KNOWN.get_or_init(|| wanted))
}

/// Whether the memory cgroup has tracepoints of its own (6.13 and later).
pub fn has_memcg_tracepoints() -> Result<bool> {
    Ok(known()?.contains(MEMCG_TRACEPOINT))
}

/// Bytes that each figure of `memory.stat` may lag behind, however long one waits: zero where a reading flushes the per-CPU counters.
pub fn stat_batching() -> Result<u64> {
    let known = known()?;
    if FLUSHED.iter().any(|name| known.contains(*name)) {
        return Ok(0);
    }
    let cpus = std::thread::available_parallelism().context("number of CPUs")?.get() as u64;
    Ok(BATCH_PAGES * 4096 * cpus)
}

/// Whether kprobes are configured.
pub fn has_kprobes() -> bool {
    std::path::Path::new("/sys/bus/event_source/devices/kprobe/type").exists()
}

/// Whether this is a virtual machine of `cargo xtask test`: nobody else's, so that it may run out of memory. The runner says so.
pub fn in_own_machine() -> bool {
    std::env::var_os("MEMTRAIL_TEST_MACHINE").is_some()
}
