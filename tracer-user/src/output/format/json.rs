//! The report as JSON. docs/report.schema.json is its contract.
//!
//! Unknown is null and present. Never changes a figure: what a list leaves out is summed in one row, so that lists add up.

use crate::analyse::rows::binaries;
use crate::report::OTHER;
use crate::report::{Cgroup, FileRow, Report, StackRow};
use std::io::{self, Write};

/// Rows of a cgroup's stacks and files that are kept, by live bytes.
pub const KEPT: usize = 200;

/// Writes the shortened report, indented by two spaces, with a newline at the end.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, mut writer: impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut writer, &shortened(report)).map_err(io::Error::from)?;
    writer.write_all(b"\n")?;
    writer.flush()
}

/// The report with at most [`KEPT`] stacks and files a cgroup, largest live first, and one row `[other]` for the rest.
/// Shortening again changes nothing.
#[must_use]
pub fn shortened(report: &Report) -> Report {
    let cgroups: Vec<Cgroup> = report.cgroups.iter().map(shortened_cgroup).collect();
    // Everything but the cgroups is small; the rows are copied once, above.
    let Report {
        schema,
        tool,
        host,
        started,
        ended,
        duration_s,
        filter,
        plan,
        sampling,
        cost,
        losses,
        cgroups: _,
        oom,
        oom_loops,
        migration,
        mapping,
        surveyed,
        binaries,
    } = report;
    Report {
        schema: *schema,
        tool: tool.clone(),
        host: host.clone(),
        started: started.clone(),
        ended: ended.clone(),
        duration_s: *duration_s,
        filter: filter.clone(),
        plan: plan.clone(),
        sampling: sampling.clone(),
        cost: cost.clone(),
        migration: migration.clone(),
        losses: losses.clone(),
        binaries: binaries::of_stacks(binaries, &cgroups),
        cgroups,
        oom: oom.clone(),
        oom_loops: oom_loops.clone(),
        mapping: mapping.clone(),
        surveyed: surveyed.clone(),
    }
}

fn shortened_cgroup(cgroup: &Cgroup) -> Cgroup {
    Cgroup {
        stacks: keep(&cgroup.stacks, |row| row.live.max(row.peak), is_other_stack, other_stack),
        files: keep(&cgroup.files, file_bytes, is_other_file, other_file),
        path: cgroup.path.clone(),
        trend: cgroup.trend.clone(),
        processes: cgroup.processes.clone(),
        id: cgroup.id.clone(),
        state: cgroup.state.clone(),
        pod: cgroup.pod.clone(),
        container: cgroup.container.clone(),
        pod_name: cgroup.pod_name.clone(),
        namespace: cgroup.namespace.clone(),
        container_name: cgroup.container_name.clone(),
        image: cgroup.image.clone(),
        runtime: cgroup.runtime.clone(),
        limits: cgroup.limits.clone(),
        binding_limit: cgroup.binding_limit.clone(),
        kinds: cgroup.kinds.clone(),
        subtree: cgroup.subtree.clone(),
        regions: cgroup.regions.clone(),
        mappings: cgroup.mappings.clone(),
        arenas: cgroup.arenas.clone(),
        dirty_held: cgroup.dirty_held.clone(),
        histograms: cgroup.histograms.clone(),
        verdicts: cgroup.verdicts.clone(),
        // Figures; a new list does not compile here.
        ..*cgroup
    }
}

/// The largest rows in order, then the sum of all others. A sum made before is not a row of its own.
fn keep<T: Clone>(rows: &[T], live: impl Fn(&T) -> u64, is_other: impl Fn(&T) -> bool, sum: impl Fn(&[&T]) -> T) -> Vec<T> {
    let (mut rest, mut own): (Vec<&T>, Vec<&T>) = rows.iter().partition(|row| is_other(row));
    own.sort_by_key(|row| std::cmp::Reverse(live(row)));
    rest.extend(own.drain(own.len().min(KEPT)..));
    let mut kept: Vec<T> = own.into_iter().cloned().collect();
    if !rest.is_empty() {
        kept.push(sum(&rest));
    }
    kept
}

fn is_other_stack(row: &StackRow) -> bool {
    row.status == "none" && row.pid.is_none() && row.frames == [OTHER]
}

fn other_stack(rest: &[&StackRow]) -> StackRow {
    let sum = |of: fn(&StackRow) -> u64| rest.iter().fold(0_u64, |sum, row| sum.saturating_add(of(row)));
    // Samples are independent, so variances add up.
    let variance: f64 = rest.iter().map(|row| (row.live_stderr as f64).powi(2)).sum();
    StackRow {
        kind: "other".to_owned(),
        region: "other".to_owned(),
        pid: None,
        ns_pid: None,
        comm: OTHER.to_owned(),
        status: "none".to_owned(),
        frames: vec![OTHER.to_owned()],
        live: sum(|row| row.live),
        live_stderr: variance.sqrt().round() as u64,
        peak: sum(|row| row.peak),
        peak_stderr: rest.iter().map(|row| (row.peak_stderr as f64).powi(2)).sum::<f64>().sqrt().round() as u64,
        charged: sum(|row| row.charged),
        samples: sum(|row| row.samples),
        oldest_s: rest.iter().filter_map(|row| row.oldest_s).max_by(f64::total_cmp),
        threads: None,
        files: Vec::new(),
    }
}

fn file_bytes(file: &FileRow) -> u64 {
    file.live.saturating_add(file.baseline)
}

fn is_other_file(file: &FileRow) -> bool {
    file.path == OTHER && file.inode.is_none()
}

fn other_file(rest: &[&FileRow]) -> FileRow {
    let sum = |of: fn(&FileRow) -> u64| rest.iter().fold(0_u64, |sum, file| sum.saturating_add(of(file)));
    // Samples are independent, so variances add up.
    let error = |of: fn(&FileRow) -> u64| rest.iter().map(|file| (of(file) as f64).powi(2)).sum::<f64>().sqrt().round() as u64;
    FileRow {
        path: OTHER.to_owned(),
        kind: "other".to_owned(),
        live: sum(|file| file.live),
        live_stderr: error(|file| file.live_stderr),
        baseline: sum(|file| file.baseline),
        baseline_stderr: error(|file| file.baseline_stderr),
        // Unknown as soon as one row does not know.
        dirty: rest.iter().try_fold(0_u64, |sum, file| Some(sum.saturating_add(file.dirty?))),
        dirtied: rest.iter().try_fold(0_u64, |sum, file| Some(sum.saturating_add(file.dirtied?))),
        dirtied_stderr: rest.iter().all(|file| file.dirtied_stderr.is_some()).then(|| error(|file| file.dirtied_stderr.unwrap_or(0))),
        writeback: rest.iter().try_fold(0_u64, |sum, file| Some(sum.saturating_add(file.writeback?))),
        ..FileRow::default()
    }
}
