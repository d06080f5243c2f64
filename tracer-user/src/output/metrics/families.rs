//! The table of families: every metric that there is. A new one is a row here and a line in [`super::collect`].

/// What a family's series are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// It goes up and down.
    Gauge,
    /// It only grows while its series lasts.
    Counter,
    /// Always 1: its labels say something.
    Info,
    /// A distribution.
    Histogram,
}

impl Type {
    /// As the text formats call it. The older one has no infos.
    #[must_use]
    pub fn word(self, is_open_metrics: bool) -> &'static str {
        match self {
            Type::Gauge => "gauge",
            Type::Counter => "counter",
            Type::Info if is_open_metrics => "info",
            Type::Info => "gauge",
            Type::Histogram => "histogram",
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Which.
    pub id: FamilyId,
    /// Name, without what a counter's or info's series end with (`_total`, `_info`).
    pub name: &'static str,
    /// What its series are.
    pub kind: Type,
    /// Unit, which the name ends with; empty for none.
    pub unit: &'static str,
    /// Labels besides those that say whose memory it is.
    pub labels: &'static [&'static str],
    /// Its series say whose memory they are of.
    pub of_containers: bool,
    /// A sentence.
    pub help: &'static str,
}

/// Makes the table and the enumeration of its rows from one list.
macro_rules! families {
    ($($id:ident $name:literal $kind:ident $unit:literal $of:ident [$($label:literal),*] $help:literal;)+) => {
        /// The families by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "the table says what each is")]
        pub enum FamilyId { $($id,)+ }

        /// The table, in the order in which it is written.
        pub static FAMILIES: &[Family] = &[$(Family {
            id: FamilyId::$id,
            name: concat!("memtrail_", $name),
            kind: Type::$kind,
            unit: $unit,
            labels: &[$($label),*],
            of_containers: families!(@$of),
            help: $help,
        },)+];
    };
    (@container) => { true };
    (@node) => { false };
}

families! {
    Memory "container_memory_bytes" Gauge "bytes" container ["kind"]
        "Memory charged to the container itself, by the kernel's figures; the kinds do not overlap and can be added up.";
    Unattributed "container_memory_unattributed_bytes" Gauge "bytes" container []
        "Of the anonymous memory, page cache and tmpfs among it, what no sample and no older page accounts for; below zero where they account for more.";
    Charged "container_memory_charged_bytes" Counter "bytes" container ["kind"]
        "Memory charged to the container itself since it was first seen, by samples.";
    LimitLeft "container_memory_limit_left_bytes" Gauge "bytes" container []
        "What may still be charged before the limit that is met first: its own, the pod's or one above.";
    Limit "container_memory_limit_bytes" Gauge "bytes" container []
        "The limit that is met first.";
    LimitReached "container_memory_limit_reached_seconds" Gauge "seconds" container []
        "Time until that limit is met at the growth of the last half minute; there is no series where nothing grows beyond its error.";
    Dirty "container_memory_dirty_bytes" Gauge "bytes" container []
        "Page cache that waits to be written to disk; on cgroup v2 with all below it.";
    Droppable "container_memory_droppable_bytes" Gauge "bytes" container []
        "Page cache with all below it that the kernel can drop at once: clean, and not locked.";
    OomKills "container_oom_kills" Counter "" container []
        "OOM kills of which the container's processes were victims.";
    OomLast "container_oom_last_timestamp_seconds" Gauge "seconds" container []
        "Unix time of the last of them.";
    Verdicts "container_verdict" Gauge "" container ["verdict", "severity"]
        "1 while memtrail concludes this of the container; docs/verdicts.md tells each.";
    Reclaim "container_reclaim_seconds" Histogram "seconds" container []
        "Reclaims that the container's processes had to do themselves; the series of containers are native histograms alone.";
    ChargeStall "container_charge_stall_seconds" Histogram "seconds" container []
        "Waits of its processes for memory at a limit.";
    HighThrottle "container_high_throttle_seconds" Histogram "seconds" container []
        "Waits of its processes for being over memory.high.";
    DirtyThrottle "container_dirty_throttle_seconds" Histogram "seconds" container []
        "Waits of its processes because too much page cache was dirty.";
    ContainerInfo "container" Info "" container ["id", "uid", "container_id", "image"]
        "Names that would make series grow in number if each had them.";
    Dead "dead_memory_bytes" Gauge "bytes" container ["kind"]
        "Memory still charged to cgroups that were removed, by whose they were.";
    NodeMemory "node_memory_bytes" Gauge "bytes" node ["kind"]
        "The sum of all cgroups' memory, removed ones included.";
    NodeUnattributed "node_memory_unattributed_bytes" Gauge "bytes" node []
        "The sum of what is unattributed.";
    NodeOomKills "node_oom_kills" Counter "" node ["constraint"]
        "OOM kills, by what was at its limit: a cgroup (memcg), the host (none), or a part of its memory.";
    NodeReclaim "node_reclaim_seconds" Histogram "seconds" node []
        "The sum of what containers have of these.";
    NodeChargeStall "node_charge_stall_seconds" Histogram "seconds" node []
        "Likewise.";
    NodeHighThrottle "node_high_throttle_seconds" Histogram "seconds" node []
        "Likewise.";
    NodeDirtyThrottle "node_dirty_throttle_seconds" Histogram "seconds" node []
        "Likewise.";
    Losses "losses" Counter "" node ["cause"]
        "What was not counted, or has no name, by cause; docs/limits.md tells each.";
    TableEntries "table_entries" Gauge "" node ["table"]
        "Entries of the tables in the kernel.";
    TableLimit "table_limit" Gauge "" node ["table"]
        "Entries that they have room for.";
    KernelMaps "kernel_map_bytes" Gauge "bytes" node []
        "Memory of the tables in the kernel.";
    Resident "resident_bytes" Gauge "bytes" node []
        "Largest resident memory of memtrail's own process.";
    Cpu "cpu_seconds" Counter "seconds" node ["part"]
        "CPU time of memtrail: of its programs in the kernel, by estimate, and of its own process.";
    SampleInterval "sample_interval_bytes" Gauge "bytes" node []
        "Mean bytes that a sample stands for where nothing finer is set.";
    ContainersSeen "containers_seen" Gauge "" node []
        "Containers and cgroups with series of their own, or folded into (others).";
    ContainersLeftOut "containers_left_out" Gauge "" node []
        "Of these, folded into (others) for want of room (--metrics-series).";
    HttpRequests "http_requests" Counter "" node ["route", "code"]
        "Requests answered, by route and class of status.";
    LookAge "look_age_seconds" Gauge "seconds" node []
        "Age of the look into processes that verdicts are from.";
    ProbeInfo "probe" Info "" node ["probe", "provider"]
        "How each probe is attached.";
    BuildInfo "build" Info "" node ["version", "kernel"]
        "Version of memtrail and release of the kernel.";
}

impl Family {
    /// The row of a family.
    #[must_use]
    pub fn of(id: FamilyId) -> &'static Family {
        &FAMILIES[id as usize]
    }

    /// What its series are called.
    #[must_use]
    pub fn series_name(&self) -> String {
        match self.kind {
            Type::Counter => format!("{}_total", self.name),
            Type::Info => format!("{}_info", self.name),
            Type::Gauge | Type::Histogram => self.name.to_owned(),
        }
    }
}

/// docs/metrics.md, as it is committed.
#[must_use]
pub fn markdown() -> String {
    let mut text = "| metric | type | labels | what |\n|---|---|---|---|\n".to_owned();
    for family in FAMILIES {
        let owner = family.of_containers.then_some("*T*");
        let labels: Vec<String> =
            owner.map(str::to_owned).into_iter().chain(family.labels.iter().map(|label| format!("`{label}`"))).collect();
        let help = family.help.replace('|', "\\|");
        text.push_str(&format!("| `{}` | {} | {} | {help} |\n", family.series_name(), family.kind.word(true), labels.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_are_as_the_formats_want_them() {
        let names: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), FAMILIES.len(), "two families have one name");
        for (index, family) in FAMILIES.iter().enumerate() {
            assert_eq!(Family::of(family.id), family);
            assert_eq!(family.id as usize, index);
            // OpenMetrics 1.0: the name of a family with a unit ends with it.
            assert!(family.unit.is_empty() || family.name.ends_with(&format!("_{}", family.unit)), "{}", family.name);
            let plain_ends = ["_total", "_count", "_sum", "_bucket", "_created", "_info"];
            assert!(!plain_ends.iter().any(|end| family.name.ends_with(end)), "{}", family.name);
            assert!(family.help.ends_with('.') && !family.help.contains('\n') && !family.help.contains('"'), "{}", family.help);
            assert!(family.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", family.name);
        }
    }
}
