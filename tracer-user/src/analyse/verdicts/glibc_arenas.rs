//! `glibc-arenas`: malloc's arenas keep much memory that the program gave back.
//!
//! Fires when the arenas other than the main one of processes with at least four of them hold 20 % of the cgroup's limit, or 256 MiB
//! where it has none, and a quarter of what was looked through is free blocks. Where blocks cannot be followed: when a fifth of it
//! came since the start and is still there.
//!
//! Silent for arenas that are in use, however many: fewer arenas would not make a program need less. Growth alone does not fire it where
//! the fill is known, for the same reason.

use super::{Severity, percent_of};
use crate::report::{ArenaRow, Cgroup, Verdict};
use crate::text::units;
use serde_json::json;

/// Identifier in docs and outputs.
pub const ID: &str = "glibc-arenas";

/// Held, in percent of the limit.
const HELD_PERCENT: u64 = 20;
/// Held where there is no limit, bytes.
const HELD_BYTES: u64 = 256 << 20;
/// Held, in percent of the limit, from which it is critical.
const CRITICAL_PERCENT: u64 = 50;
/// Free blocks, in percent of what was looked through.
const FREE_PERCENT: u64 = 25;
/// Still there of what came since the start, in percent of what is held, where blocks cannot be followed.
const GROWN_PERCENT: u64 = 20;
/// Other arenas of one process, from which fewer would make a difference.
const ARENAS: u64 = 4;

/// The verdict on a cgroup.
#[must_use]
pub fn verdict(cgroup: &Cgroup) -> Option<Verdict> {
    let rows: Vec<&ArenaRow> = cgroup.arenas.iter().filter(|row| others(row) >= ARENAS).collect();
    let largest = rows.iter().max_by_key(|row| row.resident)?;
    let sum = |of: fn(&ArenaRow) -> Option<u64>| rows.iter().filter_map(|row| of(row)).fold(0, u64::saturating_add);
    let held = sum(|row| row.resident);
    let percent_of_limit = cgroup.limit_bytes.map(|limit| percent_of(held, limit));
    if percent_of_limit.map_or(held < HELD_BYTES, |percent| percent < HELD_PERCENT) {
        return None;
    }
    let (free, looked_through, live) = (sum(|row| row.free), sum(|row| row.looked_through), sum(|row| Some(row.live)));
    let observed = if looked_through > 0 {
        let share = percent_of(free, looked_through);
        if share < FREE_PERCENT {
            return None;
        }
        format!("{share} % of it free blocks")
    } else {
        if percent_of(live, held) < GROWN_PERCENT {
            return None;
        }
        format!("{} of it since the start", units::bytes(live))
    };
    let critical = percent_of_limit.is_some_and(|percent| percent >= CRITICAL_PERCENT);
    Some(super::verdict(
        ID,
        if critical { Severity::Critical } else { Severity::Warning },
        text(largest, rows.len(), held, percent_of_limit, &observed),
        [
            ("processes", json!(rows.len())),
            ("held_bytes", json!(held)),
            ("limit_bytes", json!(cgroup.limit_bytes)),
            ("free_bytes", json!((looked_through > 0).then_some(free))),
            ("looked_through_bytes", json!((looked_through > 0).then_some(looked_through))),
            ("live_bytes", json!(live)),
            ("reserved_bytes", json!(sum(|row| Some(row.reserved)))),
            ("committed_bytes", json!(sum(|row| Some(row.committed)))),
            (
                "largest",
                json!({
                    "pid": largest.pid, "comm": largest.comm, "arenas": largest.arenas, "heaps": largest.heaps,
                    "threads": largest.threads, "default_limit": largest.default_limit, "environment_limit": largest.environment_limit,
                }),
            ),
        ],
    ))
}

/// Arenas other than the main one: where they cannot be told, at least as many as would explain the heaps of a lone program.
fn others(row: &ArenaRow) -> u64 {
    row.arenas.map_or(row.heaps, |arenas| arenas.saturating_sub(1))
}

fn text(largest: &ArenaRow, processes: usize, held: u64, percent_of_limit: Option<u64>, observed: &str) -> String {
    let of_limit = percent_of_limit.map(|percent| format!(", {percent} % of the limit")).unwrap_or_default();
    let whose = match processes {
        1 => format!("{} glibc arenas of {}[{}]", others(largest), largest.comm, largest.pid),
        more => format!("glibc arenas of {more} processes, {} in {}[{}]", others(largest), largest.comm, largest.pid),
    };
    let threads =
        largest.threads.map(|threads| format!("{threads} threads that allocate")).unwrap_or_else(|| "threads that allocate".to_owned());
    let now = match largest.environment_limit {
        Some(limit) => format!("it allows {limit} now"),
        None => format!("glibc allows {} here", largest.default_limit),
    };
    format!(
        "{whose} hold {}{of_limit}, {observed}; consistent with {threads} and free in an arena each. Set MALLOC_ARENA_MAX=2 ({now}), or \
         call malloc_trim.",
        units::bytes(held)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn row() -> ArenaRow {
        ArenaRow {
            pid: 12,
            comm: "java".into(),
            arenas: Some(33),
            heaps: 40,
            resident: Some(400 * MIB),
            free: Some(120 * MIB),
            looked_through: Some(400 * MIB),
            threads: Some(70),
            default_limit: 32,
            ..ArenaRow::default()
        }
    }

    fn cgroup(limit: Option<u64>, row: ArenaRow) -> Cgroup {
        Cgroup { limit_bytes: limit, arenas: vec![row], ..Cgroup::default() }
    }

    #[test]
    fn free_blocks_in_many_arenas_fire() {
        let verdict = verdict(&cgroup(Some(1000 * MIB), row())).unwrap();
        assert_eq!((verdict.id.as_str(), verdict.severity.as_str()), (ID, "warning"));
        assert_eq!(
            verdict.text,
            "32 glibc arenas of java[12] hold 400.0 MiB, 40 % of the limit, 30 % of it free blocks; consistent with 70 threads that allocate \
             and free in an arena each. Set MALLOC_ARENA_MAX=2 (glibc allows 32 here), or call malloc_trim."
        );
        assert_eq!(verdict.evidence["free_bytes"], 120 * MIB);
        assert_eq!(super::verdict(&cgroup(Some(700 * MIB), row())).unwrap().severity, "critical");
        assert!(super::verdict(&cgroup(None, row())).is_some());
    }

    #[test]
    fn silent_below_each_threshold() {
        let silent = |limit, change: fn(&mut ArenaRow)| {
            let mut row = row();
            change(&mut row);
            verdict(&cgroup(limit, row)).is_none()
        };
        assert!(silent(Some(2100 * MIB), |_| {}), "little of the limit");
        assert!(silent(None, |row| row.resident = Some(255 * MIB)));
        assert!(silent(None, |row| row.free = Some(99 * MIB)), "in use");
        assert!(silent(None, |row| row.arenas = Some(4)), "few arenas");
        assert!(silent(None, |row| row.resident = None), "unknown");
        assert!(verdict(&Cgroup::default()).is_none());
    }

    #[test]
    fn unknown_fill_needs_growth() {
        let unknown = |live| {
            let row = ArenaRow { free: None, looked_through: None, arenas: None, live, ..row() };
            verdict(&cgroup(None, row))
        };
        assert!(unknown(79 * MIB).is_none());
        let text = unknown(80 * MIB).unwrap().text;
        assert!(text.contains("hold 400.0 MiB, 80.0 MiB of it since the start"), "{text}");
    }
}
