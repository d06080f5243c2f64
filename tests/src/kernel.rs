//! What the tests need to know of the running kernel. Asks for functions, never for a version.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::sync::OnceLock;

const MEMCG_TRACEPOINT: &str = "__traceiter_mod_memcg_lruvec_state";
/// Names that tell of flushed `memory.stat`, on one kernel or another.
const FLUSHED: [&str; 4] = ["mem_cgroup_flush_stats", "__mem_cgroup_flush_stats", "mem_cgroup_css_rstat_flush", "do_flush_stats"];
/// Pages a CPU and figure that kernels without a flush keep back.
const BATCH_PAGES: u64 = 32;
/// Pages that a CPU charges in advance (MEMCG_CHARGE_BATCH): 32 up to 5.15, 64 in 6.1 and later.
const CHARGE_BATCH_PAGES: u64 = 64;

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
    on_all_cpus(BATCH_PAGES)
}

/// Bytes that the counter of a cgroup's usage may be ahead of what is charged to its pages. Waiting does not bring them back: a CPU keeps
/// what it took in advance, by now for several cgroups at once (`struct memcg_stock_pcp` has seven places in 6.18's BTF).
pub fn charge_batching() -> Result<u64> {
    on_all_cpus(CHARGE_BATCH_PAGES)
}

fn on_all_cpus(pages: u64) -> Result<u64> {
    Ok(pages * 4096 * std::thread::available_parallelism().context("number of CPUs")?.get() as u64)
}

/// Whether kprobes are configured.
pub fn has_kprobes() -> bool {
    std::path::Path::new("/sys/bus/event_source/devices/kprobe/type").exists()
}

/// Whether this is a virtual machine of `cargo xtask test`: nobody else's, so that it may run out of memory. The runner says so.
pub fn in_own_machine() -> bool {
    std::env::var_os("MEMTRAIL_TEST_MACHINE").is_some()
}
