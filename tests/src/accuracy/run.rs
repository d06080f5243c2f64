//! Runs a row: workload in a cgroup of its own, tracer around a part of it, figures compared, row printed.

use super::{Bound, Bounds, Column, Expected, Filled, Observed, Row, Stop, judge};
use crate::cgroup::TestCgroup;
use crate::memtrail::{Memtrail, Mode, Outcome, record_args_of};
use crate::place::Folder;
use crate::stat::Kinds;
use crate::workload::{Step, Workload};
use crate::{kernel, report};
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;

/// Begins a line that fills a cell in: row, column, "ok" or "FAIL". `cargo xtask test` collects them.
const CELL: &str = "CELL ";

/// Begins a line that belongs in the summary of a run. `cargo xtask test` collects them.
const NOTE: &str = "NOTE ";

/// A row on its way: its workload runs in a cgroup of its own.
struct Started<'a> {
    row: &'a Row,
    cgroup: TestCgroup,
    workload: Option<Workload>,
    usage_start: Option<i64>,
    /// Kept until the row is done: the workload's files are in it.
    _folder: Folder,
}

/// Runs these rows side by side, traced by one memtrail for each column, all at once; fails if a figure is out of bounds. A number in
/// `MEMTRAIL_TEST_BYTES` scales sizes down, for emulated machines, and one in `MEMTRAIL_TEST_AT_ONCE` bounds how many rows run together;
/// names in `MEMTRAIL_TEST_ROWS` choose among the rows.
///
/// In default mode a row that is out of bounds is run once more: three standard errors leave one figure in 370 outside by nature,
/// and a table has many. Out of bounds twice is a failure, and so is once by twice as much, which chance does not do.
pub fn run_rows(rows: &[&Row], columns: &[Column]) -> Result<()> {
    let mut failed = Vec::new();
    let rows = chosen(rows)?;
    for together in rows.chunks(at_once()?) {
        failed.extend(run_together(together, columns)?);
    }
    let again: Vec<&Row> = failed.iter().filter(|cell| cell.column.mode == Mode::Default && !cell.gross).map(|cell| cell.row).collect();
    if !again.is_empty() {
        println!("once more: {}", again.iter().map(|row| row.name).collect::<Vec<_>>().join(" "));
        let sampled: Vec<Column> = columns.iter().copied().filter(|column| column.mode == Mode::Default).collect();
        failed.retain(|cell| cell.column.mode == Mode::Exact || cell.gross);
        failed.extend(run_together(&again, &sampled)?);
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.into_iter().map(|cell| cell.why).collect::<Vec<_>>().join("\n")) }
}

/// A cell of the table that is not as it should be.
struct Failed<'a> {
    row: &'a Row,
    column: Column,
    gross: bool,
    why: String,
}

fn at_once() -> Result<usize> {
    let Ok(text) = std::env::var("MEMTRAIL_TEST_AT_ONCE") else { return Ok(usize::MAX) };
    let rows = text.parse().with_context(|| format!("MEMTRAIL_TEST_AT_ONCE is {text:?}"))?;
    ensure!(rows > 0, "MEMTRAIL_TEST_AT_ONCE is 0");
    Ok(rows)
}

fn chosen<'a>(rows: &[&'a Row]) -> Result<Vec<&'a Row>> {
    let Some(names) = std::env::var("MEMTRAIL_TEST_ROWS").ok().filter(|names| !names.is_empty()) else { return Ok(rows.to_vec()) };
    let names: Vec<&str> = names.split(',').collect();
    let chosen: Vec<&Row> = rows.iter().copied().filter(|row| names.contains(&row.name)).collect();
    ensure!(!chosen.is_empty(), "MEMTRAIL_TEST_ROWS names none of these rows");
    Ok(chosen)
}

/// One recording a column over all rows; the cells that failed, with why.
fn run_together<'a>(rows: &[&'a Row], columns: &[Column]) -> Result<Vec<Failed<'a>>> {
    let mut started = Vec::new();
    for row in rows {
        started.push(start_row(row)?);
    }
    let starts = settled_all(&started)?;
    for one in &mut started {
        one.usage_start = usage_without_kernel(&one.cgroup)?;
    }
    let paths: Vec<&str> = started.iter().map(|one| one.cgroup.path()).collect();
    let mut tracers = Vec::new();
    for column in columns {
        tracers.push(Memtrail::start(&record_args_of(&paths, column.mode, column.provider))?);
    }
    let mut steps = Vec::new();
    for one in &mut started {
        let mut workload = one.workload.take().context("a workload is started once")?;
        steps.push(match one.row.stop {
            Stop::Step(name) => {
                let steps = workload.run_to(name)?;
                one.workload = Some(workload);
                steps
            }
            Stop::Exit => workload.finish()?,
        });
    }
    let ends = settled_all(&started)?;
    let usages = started.iter().map(|one| usage_without_kernel(&one.cgroup)).collect::<Result<Vec<_>>>()?;
    let outcomes = tracers.into_iter().map(Memtrail::stop).collect::<Result<Vec<_>>>()?;
    let mut failed = Vec::new();
    for (column, outcome) in columns.iter().zip(&outcomes) {
        for (index, one) in started.iter().enumerate() {
            let usage_change = one.usage_start.zip(usages[index]).map(|(start, end)| end - start);
            let filled = fill(one.row, column.mode, &one.cgroup, &steps[index], (starts[index], ends[index]), usage_change, outcome)?;
            let gross = filled.gross;
            if filled.laid_to_passed_over > 0 {
                let (bytes, calls) = (filled.laid_to_passed_over, filled.observed.recursion_misses);
                println!(
                    "{NOTE}{} {}: {bytes} bytes of missed are laid to {calls} calls that the kernel passed over",
                    one.row.name,
                    column.name()
                );
            }
            let done = finish_row(filled, outcome);
            if done.is_err() {
                largest_stacks(&outcome.report, one.cgroup.path())?;
            }
            println!("{CELL}{} {} {}", one.row.name, column.name(), if done.is_ok() { "ok" } else { "FAIL" });
            if let Err(error) = done {
                failed.push(Failed { row: one.row, column: *column, gross, why: error.to_string() });
            }
        }
    }
    Ok(failed)
}

/// Prints the stacks with most bytes, for whoever looks into a row that failed.
fn largest_stacks(report: &serde_json::Value, cgroup: &str) -> Result<()> {
    let mut stacks = report::stacks(report, cgroup)?;
    stacks.sort_by_key(|stack| std::cmp::Reverse(stack.charged));
    for stack in stacks.iter().take(3) {
        println!(
            "  {} charged, {} live by {} {:?}, {}: {:?}",
            stack.charged, stack.live, stack.comm, stack.pid, stack.status, stack.frames
        );
    }
    Ok(())
}

fn start_row(row: &Row) -> Result<Started<'_>> {
    let cgroup = TestCgroup::new(row.name)?;
    cgroup.limit((4 * size(row.bytes)?).clamp(64 << 20, 1 << 30))?;
    let folder = Folder::new(row.name)?;
    let mut args: Vec<String> = row.args.iter().map(|arg| (*arg).to_owned()).collect();
    // What is charged again and again needs no memory, only time.
    let times = if row.name == "recycle" && std::env::var_os("MEMTRAIL_TEST_LONG").is_some() { 5 } else { 1 };
    args.extend(["--bytes".to_owned(), (times * size(row.bytes)?).to_string()]);
    if row.args[0] == "file" {
        args.extend(["--dir".to_owned(), folder.path().display().to_string()]);
    }
    let mut workload = Workload::start(&cgroup, &args)?;
    workload.run_to(row.start_after)?;
    Ok(Started { row, cgroup, workload: Some(workload), usage_start: None, _folder: folder })
}

/// The kinds of all cgroups, once two readings 2.5 s apart agree: the kernel adds up its per-CPU batches every two seconds.
fn settled_all(started: &[Started<'_>]) -> Result<Vec<Kinds>> {
    let read = || started.iter().map(|one| one.cgroup.kinds()).collect::<Result<Vec<_>>>();
    let mut last = read()?;
    for _ in 0..8 {
        std::thread::sleep(std::time::Duration::from_millis(2500));
        let now = read()?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
    bail!("memory.stat of the rows' cgroups does not come to rest within 20 s")
}

/// A size, or less where `MEMTRAIL_TEST_BYTES` says so.
pub fn size(bytes: u64) -> Result<u64> {
    match std::env::var("MEMTRAIL_TEST_BYTES") {
        Ok(text) => Ok(bytes.min(text.parse().with_context(|| format!("MEMTRAIL_TEST_BYTES is {text:?}"))?)),
        Err(_) => Ok(bytes),
    }
}

fn usage_without_kernel(cgroup: &TestCgroup) -> Result<Option<i64>> {
    let Some(kernel) = cgroup.kernel_usage()? else { return Ok(None) };
    Ok(Some(i64::try_from(cgroup.usage()?)? - i64::try_from(kernel)?))
}

fn fill(
    row: &Row,
    mode: Mode,
    cgroup: &TestCgroup,
    steps: &[Step],
    (start, end): (Kinds, Kinds),
    usage_change: Option<i64>,
    outcome: &Outcome,
) -> Result<Filled> {
    let of_kind = |kinds: Kinds| kinds.get(row.kind).with_context(|| format!("no workload has kind {}", row.kind));
    let mut expected = Expected::default();
    for step in steps {
        expected.resident += of_kind(step.resident)?;
        expected.charged += u64::try_from(of_kind(step.charged)?)?;
        // Only anonymous memory is charged without being mapped.
        expected.unmapped += if row.kind == "anon" { step.unmapped } else { 0 };
    }
    if row.stop == Stop::Exit {
        (expected.resident, expected.unmapped) = (0, 0);
    }
    let functions: Vec<&str> = steps.iter().filter_map(|step| step.function.as_deref()).collect();
    let (report, path) = (&outcome.report, cgroup.path());
    let live = report::stack_sum(report, path, row.kind, None, |stack| stack.live)?;
    let live_known = report::stack_sum(report, path, row.kind, Some(&functions), |stack| stack.live)?;
    let tier = report::tier(report)?;
    let observed = Observed {
        stat_start: of_kind(start)?,
        stat_end: of_kind(end)?,
        usage_change,
        ledger: report::kind(report, path, row.kind)?.with_context(|| format!("the report has no {} for {path}", row.kind))?,
        mean_bytes: report["sampling"]["mean_bytes"].as_u64().context("sampling.mean_bytes of the report")?,
        share: (live > 0).then(|| live_known as f64 / live as f64),
        function_charged: report::stack_sum(report, path, row.kind, Some(&functions), |stack| stack.charged)?,
        batching: kernel::stat_batching()?,
        charge_batching: kernel::charge_batching()?,
        recursion_misses: report["losses"]["recursion_misses"].as_u64().unwrap_or(0),
    };
    let mode_name = if mode == Mode::Exact { "exact" } else { "sampled" };
    ensure!(report["sampling"]["mode"] == mode_name, "the report's mode is {}, asked for {mode_name}", report["sampling"]["mode"]);
    Ok(judge(row, mode, &tier, bound(&tier, row.bounds)?, expected, observed))
}

/// The bound that holds for a report's tier on this kernel.
pub fn bound(tier: &str, bounds: Bounds) -> Result<Bound> {
    Ok(match tier {
        "tracepoint" if kernel::has_memcg_tracepoints()? => bounds.tracepoint,
        "tracepoint" => bounds.tracepoint_before_6_13,
        _ => bounds.typed,
    })
}

/// Prints the row, also to the end of the file that `MEMTRAIL_TEST_TABLE` names, and fails if it is not right or anything was lost.
pub fn finish_row(mut filled: Filled, outcome: &Outcome) -> Result<()> {
    let losses = report::losses(&outcome.report)?;
    if !losses.is_empty() {
        filled.failures.push(format!("losses {losses:?}"));
    }
    if !report::is_whole(outcome)? {
        filled.failures.push(format!("memtrail ended with {}", outcome.status));
    }
    println!("{filled}");
    if let Some(path) = std::env::var_os("MEMTRAIL_TEST_TABLE") {
        let mut table = std::fs::OpenOptions::new().append(true).create(true).open(&path).with_context(|| format!("{path:?}"))?;
        // In one write: rows run side by side.
        table.write_all(format!("{filled}\n").as_bytes()).with_context(|| format!("{path:?}"))?;
    }
    if !filled.failures.is_empty() {
        bail!("{}: {}\nmemtrail said: {}", filled.title, filled.failures.join("; "), outcome.stderr);
    }
    Ok(())
}
