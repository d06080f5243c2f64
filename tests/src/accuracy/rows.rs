//! The rows. Data only.

use super::{Charged, NEAR_ZERO, Relation, Row, Stop, USUAL};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const HUGE: u64 = 2 * MIB;

const LIVE: Row = Row {
    name: "",
    kind: "anon",
    args: &[],
    bytes: 256 * MIB,
    start_after: "ready",
    stop: Stop::Exit,
    relation: Relation::Live,
    charged: Charged::Equal,
    folio: PAGE,
    compare_usage: false,
    bounds: USUAL,
};
// Page cache is in folios as large as the file system and the reader like.
const FILE: Row = Row { kind: "file", args: &["file", "--pin"], folio: HUGE, ..LIVE };
const ZERO: Row = Row { bounds: NEAR_ZERO, ..LIVE };

/// All rows that one cgroup and one workload can show.
pub const ROWS: &[Row] = &[
    Row { name: "anon", args: &["anon"], stop: Stop::Step("freed"), ..LIVE },
    Row { name: "anon_whole", args: &["anon"], stop: Stop::Step("touched"), ..LIVE },
    Row { name: "fork_cow_at_peak", args: &["fork-cow"], stop: Stop::Step("parent-wrote"), bytes: 128 * MIB, ..LIVE },
    Row { name: "fork_cow", args: &["fork-cow"], stop: Stop::Step("freed"), ..LIVE },
    Row { name: "thp_whole", args: &["thp-whole"], folio: HUGE, stop: Stop::Step("freed"), ..LIVE },
    Row { name: "thp_holes", args: &["thp-holes"], folio: HUGE, stop: Stop::Step("holes"), compare_usage: true, ..LIVE },
    Row { name: "file_write", stop: Stop::Step("written"), ..FILE },
    Row { name: "file_truncate", stop: Stop::Step("truncated"), ..FILE },
    Row { name: "file_read", stop: Stop::Step("read"), ..FILE },
    Row { name: "tmpfs", kind: "shmem", args: &["tmpfs"], stop: Stop::Step("unlinked"), ..LIVE },
    Row { name: "memfd", kind: "shmem", args: &["memfd"], stop: Stop::Step("punched"), ..LIVE },
    Row { name: "shared_anon", kind: "shmem", args: &["shared-anon"], stop: Stop::Step("removed"), ..LIVE },
    Row { name: "mremap", args: &["mremap"], stop: Stop::Step("shrunk"), ..LIVE },
    Row { name: "mremap_end", args: &["mremap"], stop: Stop::Step("ended"), ..ZERO },
    Row { name: "mlock", args: &["mlock"], stop: Stop::Step("freed"), ..LIVE },
    Row { name: "mlock_end", args: &["mlock"], stop: Stop::Step("ended"), ..ZERO },
    Row { name: "holes", args: &["holes"], stop: Stop::Step("holes"), ..LIVE },
    Row { name: "holes_end", args: &["holes"], stop: Stop::Step("ended"), ..ZERO },
    Row { name: "exit_without_free", args: &["exit-without-free"], stop: Stop::Exit, relation: Relation::OnlyBaseline, ..ZERO },
    Row { name: "baseline", args: &["anon"], start_after: "touched", stop: Stop::Step("freed"), relation: Relation::OnlyBaseline, ..LIVE },
    Row {
        name: "baseline_file",
        kind: "file",
        args: &["file", "--pin"],
        folio: HUGE,
        start_after: "written",
        stop: Stop::Step("truncated"),
        relation: Relation::OnlyBaseline,
        ..LIVE
    },
    Row {
        name: "baseline_shmem",
        kind: "shmem",
        args: &["tmpfs"],
        start_after: "written",
        stop: Stop::Step("unlinked"),
        relation: Relation::OnlyBaseline,
        ..LIVE
    },
    // 64 pages 20,000 times; in the long form 100,000 times.
    Row { name: "recycle", args: &["recycle"], bytes: 20_000 * 64 * 4096, stop: Stop::Step("recycled"), ..ZERO },
    Row {
        name: "spawn_short",
        args: &["spawn-short", "--processes", "1000"],
        bytes: 64 * MIB,
        stop: Stop::Step("spawned"),
        charged: Charged::AtLeast,
        ..ZERO
    },
];

/// The row of that name.
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_list_of_cells_has_these_rows() {
        let cells = include_str!("../../cells.txt");
        let listed: Vec<&str> = cells.lines().find_map(|line| line.strip_prefix("rows ")).unwrap().split_whitespace().collect();
        assert_eq!(listed, ROWS.iter().map(|row| row.name).collect::<Vec<_>>());
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        assert!(!names.contains(""));
    }
}
