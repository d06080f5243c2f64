//! Keys in words, and the stack rows of each owner.

use super::{Inputs, Resolved, Symbols, threads, wanted};
use crate::{cgroup::CgroupId, collector::retired, ledger, model::StackRow};
use std::collections::HashMap;
use tracer_common::{
    attribution::{KEY_BASELINE, KEY_OWN, KeyRecord},
    kind::Kind,
    process::ProcessRecord,
    stack::StackRecord,
};

/// Bytes that each key has charged but not mapped.
pub(super) fn unmapped_by_key(inputs: &Inputs<'_>) -> HashMap<u64, u64> {
    let mut unmapped = HashMap::new();
    for (slot, swept) in inputs.swept {
        let Some(sample) = inputs.samples.get(slot) else { continue };
        let frames = swept.frames_left.saturating_sub(swept.mapped_frames);
        if sample.key != 0 && frames > 0 {
            *unmapped.entry(sample.key).or_default() += frames.saturating_mul(sample.weight_per_frame);
        }
    }
    unmapped
}

/// What tells rows apart: equal code of one process adds up, whatever addresses it ran at, and so does that of processes that are
/// gone and left nothing.
type RowKey = (retired::Row, Option<Pids>);

/// Thread-group id on the host, and in its own pid namespace where that is known.
type Pids = (u32, Option<u32>);

#[derive(Default)]
struct RowSum {
    live: i64,
    live_variance: u64,
    charged: u64,
    samples: u64,
    oldest_ns: Option<u64>,
    threads: threads::Parts,
    process: Option<ProcessRecord>,
}

/// The stack rows of every wanted owner, largest first.
pub(super) fn by_owner(inputs: &Inputs<'_>, symbols: &mut dyn Symbols) -> HashMap<u64, Vec<StackRow>> {
    let mut oldest: HashMap<u64, u64> = HashMap::new();
    for sample in inputs.samples.values().filter(|sample| sample.key != 0) {
        let at = oldest.entry(sample.key).or_insert(sample.charged_ns);
        *at = (*at).min(sample.charged_ns);
    }
    let mut by_thread = threads::by_key(inputs.samples.values());
    let mut sums: HashMap<RowKey, RowSum> = HashMap::new();
    for (identity, record) in inputs.keys {
        let key = &record.key;
        if key.flags & KEY_BASELINE != 0 || !wanted(inputs, CgroupId(key.owner)) {
            continue;
        }
        let live = ledger::live(record);
        let process = inputs.processes.get(&key.process);
        let named = process.filter(|process| live != 0 || !symbols.is_gone(process));
        let pids = named.map(|process| (process.tgid, (process.ns_tgid != 0).then_some(process.ns_tgid)));
        let row = describe(symbols, record, process, inputs.stacks);
        let sum = sums.entry((row, pids)).or_default();
        sum.live += live;
        sum.live_variance += ledger::live_variance(record);
        sum.charged += ledger::charged(record);
        sum.samples += record.samples;
        sum.oldest_ns = [sum.oldest_ns, oldest.get(identity).copied()].into_iter().flatten().min();
        threads::merge(&mut sum.threads, by_thread.remove(identity).unwrap_or_default());
        sum.process = sum.process.or(process.copied());
    }
    for (row, charged) in inputs.retired.rows().filter(|(row, _)| wanted(inputs, CgroupId(row.owner))) {
        let sum = sums.entry((row.clone(), None)).or_default();
        sum.charged += charged.bytes;
        sum.samples += charged.samples;
    }
    let mut rows: HashMap<u64, Vec<StackRow>> = HashMap::new();
    let mut sums: Vec<(RowKey, RowSum)> = sums.into_iter().collect();
    // Largest first: if there are too many threads, theirs are kept.
    sums.sort_unstable_by_key(|(_, sum)| std::cmp::Reverse(sum.live));
    let mut room = threads::MOST_ROWS;
    for ((key, pids), sum) in sums {
        let live = u64::try_from(sum.live).unwrap_or(0);
        let name = |tid: u32, at_ns: u64| sum.process.as_ref().and_then(|process| symbols.thread(process, tid, at_ns));
        let threads = threads::rows(&sum.threads, live, &mut room, name);
        let kind = u8::try_from(key.kind).ok().and_then(Kind::from_number).map_or("unknown", Kind::name);
        rows.entry(key.owner).or_default().push(StackRow {
            kind: kind.to_owned(),
            region: "other".to_owned(),
            pid: pids.map(|(pid, _)| pid),
            ns_pid: pids.and_then(|(_, ns_pid)| ns_pid),
            comm: key.comm,
            status: key.status,
            frames: key.frames,
            live,
            live_stderr: ledger::standard_error(sum.live_variance),
            charged: sum.charged,
            samples: sum.samples,
            oldest_s: sum.oldest_ns.map(|at| inputs.now_ns.saturating_sub(at) as f64 / 1e9),
            threads: Some(threads),
        });
    }
    for list in rows.values_mut() {
        list.sort_by(|a, b| {
            (b.live, b.charged).cmp(&(a.live, a.charged)).then_with(|| a.frames.cmp(&b.frames)).then_with(|| a.pid.cmp(&b.pid))
        });
    }
    rows
}

/// A key in words.
pub fn describe(
    symbols: &mut dyn Symbols,
    record: &KeyRecord,
    process: Option<&ProcessRecord>,
    stacks: &HashMap<u64, StackRecord>,
) -> retired::Row {
    let key = &record.key;
    let comm = process.map_or_else(|| "[unknown process]".to_owned(), |process| symbols.comm(process));
    let row = |status: String, frames| retired::Row { owner: key.owner, kind: key.kind, flags: key.flags, comm, status, frames };
    if key.flags & KEY_OWN != 0 {
        return row("none".to_owned(), vec!["[memtrail's own]".to_owned()]);
    }
    let mut resolved = match process {
        Some(process) => symbols.user(process, stacks.get(&key.user_stack)),
        None => Resolved { frames: Vec::new(), status: "none".to_owned() },
    };
    if key.user_stack != 0 && !stacks.contains_key(&key.user_stack) {
        // Counted where it was lost; here it must not pass for a process without a stack.
        resolved.status = "cut: stack lost".to_owned();
    }
    if let Some(stack) = stacks.get(&key.kernel_stack) {
        resolved.frames.extend(symbols.kernel(stack).into_iter().map(|name| format!("{name}_[k]")));
    }
    if resolved.status.starts_with("cut") {
        // Its own root, so that it never merges with a whole stack.
        resolved.frames.insert(0, format!("[{}]", resolved.status));
    }
    row(resolved.status, resolved.frames)
}
