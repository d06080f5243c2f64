//! `java-direct-memory`: direct buffers of Java hold much memory, outside of the Java heap.
//!
//! Fires when live bytes in stacks that make such buffers are 20 % of the cgroup's limit, or 256 MiB where it has none, and more than two of their
//! standard errors. Java writes zeros into a buffer as it is made, so that its memory is charged there.
//!
//! Silent for buffers that libraries make of memory that they asked for themselves, and for files that are mapped: those have other stacks.

use super::{Severity, percent_of};
use crate::report::{Cgroup, StackRow, Verdict};
use crate::text::{source, units};
use serde_json::json;

/// Identifier in docs and outputs.
pub const ID: &str = "java-direct-memory";

/// The method that makes a buffer.
const MAKES: &str = "java.nio.DirectByteBuffer.<init>";
/// Held, in percent of the limit.
const HELD_PERCENT: u64 = 20;
/// Held where there is no limit, bytes.
const HELD_BYTES: u64 = 256 << 20;
/// Held, in percent of the limit, from which it is critical.
const CRITICAL_PERCENT: u64 = 50;

/// The verdict on a cgroup.
#[must_use]
pub fn verdict(cgroup: &Cgroup) -> Option<Verdict> {
    let rows: Vec<&StackRow> = cgroup.stacks.iter().filter(|row| row.frames.iter().any(|frame| makes(frame))).collect();
    let held = rows.iter().fold(0, |sum: u64, row| sum.saturating_add(row.live));
    let error = rows.iter().map(|row| (row.live_stderr as f64).powi(2)).sum::<f64>().sqrt();
    let of_limit = cgroup.limit_bytes.map(|limit| percent_of(held, limit));
    if of_limit.map_or(held < HELD_BYTES, |percent| percent < HELD_PERCENT) || (held as f64) < 2.0 * error {
        return None;
    }
    let largest = rows.iter().max_by_key(|row| row.live)?;
    let through = source::innermost(&largest.frames).map(|at| largest.frames[at].clone());
    let text = format!(
        "direct buffers of {} hold {}{}, outside of the Java heap, {} % of it made through {}. They are given back when the collector finds \
         their objects: keep fewer, or bound them by -XX:MaxDirectMemorySize (else as much as -Xmx is allowed), and leave -XX:+DisableExplicitGC out.",
        largest.pid.map_or_else(|| largest.comm.clone(), |pid| format!("{}[{pid}]", largest.comm)),
        units::bytes(held),
        of_limit.map(|percent| format!(", {percent} % of the limit")).unwrap_or_default(),
        percent_of(largest.live, held),
        through.as_deref().unwrap_or(MAKES),
    );
    let severity = if of_limit.is_some_and(|percent| percent >= CRITICAL_PERCENT) { Severity::Critical } else { Severity::Warning };
    Some(super::verdict(
        ID,
        severity,
        text,
        [
            ("held_bytes", json!(held)),
            ("held_stderr", json!(error.round() as u64)),
            ("limit_bytes", json!(cgroup.limit_bytes)),
            ("through", json!(through)),
            ("largest", json!({ "pid": largest.pid, "comm": largest.comm, "live_bytes": largest.live, "frames": largest.frames })),
        ],
    ))
}

fn makes(frame: &str) -> bool {
    source::of(frame).is_some_and(|source| source.function == MAKES)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn row(live: u64, frames: &[&str]) -> StackRow {
        StackRow {
            comm: "java".into(),
            pid: Some(12),
            live,
            live_stderr: 3 * MIB,
            frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
            ..StackRow::default()
        }
    }

    fn cgroup(limit: Option<u64>) -> Cgroup {
        let buffers = ["start_thread", "Session.readSession (Session.java:6)", "java.nio.ByteBuffer.allocateDirect (ByteBuffer.java:332)"];
        let made = [buffers.as_slice(), &["java.nio.DirectByteBuffer.<init> (DirectByteBuffer.java:130)", "Unsafe_SetMemory0"]].concat();
        let other = ["start_thread", "Other.run (Other.java:~3)", "java.nio.DirectByteBuffer.<init> (DirectByteBuffer.java:~125)"];
        let stacks = vec![row(90 * MIB, &made), row(500 * MIB, &["Session.cacheRow (Session.java:9)"]), row(30 * MIB, &other)];
        Cgroup { limit_bytes: limit, stacks, ..Cgroup::default() }
    }

    #[test]
    fn direct_buffers_are_told_by_who_makes_them() {
        let verdict = verdict(&cgroup(Some(400 * MIB))).unwrap();
        assert_eq!((verdict.id.as_str(), verdict.severity.as_str()), (ID, "warning"));
        assert!(
            verdict.text.starts_with(
                "direct buffers of java[12] hold 120.0 MiB, 30 % of the limit, outside of the Java heap, 75 % of it made through \
                 Session.readSession (Session.java:6). "
            ),
            "{}",
            verdict.text
        );
        assert_eq!(verdict.evidence["held_bytes"], 120 * MIB);
        assert_eq!(super::verdict(&cgroup(Some(240 * MIB))).unwrap().severity, "critical");
    }

    #[test]
    fn silent_below_each_threshold() {
        assert!(verdict(&cgroup(Some(601 * MIB))).is_none(), "little of the limit");
        assert!(verdict(&cgroup(None)).is_none(), "little, without one");
        let uncertain = |row: &StackRow| StackRow { live_stderr: 60 * MIB, ..row.clone() };
        let whole = cgroup(Some(400 * MIB));
        assert!(verdict(&Cgroup { stacks: whole.stacks.iter().map(uncertain).collect(), ..whole }).is_none(), "it may be half of that");
        assert!(verdict(&Cgroup::default()).is_none());
    }
}
