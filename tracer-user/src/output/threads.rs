//! Stacks split by thread: a report whose rows are one thread's each, for every output that shows stacks.
//!
//! Only live bytes have a thread, so the rows are without charged bytes: such a report is for `live` alone. No live byte is lost.

use crate::report::{Report, StackRow};

/// The recording keeps no threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has no threads: an older memtrail made it")]
pub struct NoThreads;

/// The report with a row for each thread of a stack. Its process is called `comm/tid`, by the thread's own name where that is known, else
/// by the leader's; `comm/?` is what the threads beyond those kept hold.
///
/// # Errors
/// When a row with live bytes does not know its threads.
pub fn split(report: &Report) -> Result<Report, NoThreads> {
    let mut report = report.clone();
    for cgroup in &mut report.cgroups {
        let mut rows = Vec::with_capacity(cgroup.stacks.len());
        for row in cgroup.stacks.iter().filter(|row| row.live > 0) {
            rows.extend(threads(row)?);
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.live));
        cgroup.stacks = rows;
    }
    Ok(report)
}

fn threads(row: &StackRow) -> Result<impl Iterator<Item = StackRow> + '_, NoThreads> {
    let threads = row.threads.as_ref().ok_or(NoThreads)?;
    Ok(threads.iter().map(|thread| {
        let name = thread.comm.as_ref().unwrap_or(&row.comm);
        let tid = thread.tid.map_or_else(|| "?".to_owned(), |tid| tid.to_string());
        StackRow {
            comm: format!("{name}/{tid}"),
            live: thread.live,
            live_stderr: thread.live_stderr,
            charged: 0,
            threads: None,
            files: Vec::new(),
            oldest_s: None,
            samples: 0,
            kind: row.kind.clone(),
            region: row.region.clone(),
            status: row.status.clone(),
            frames: row.frames.clone(),
            ..*row
        }
    }))
}
