//! Address space in words: who mapped the regions of a process and who took them into use, and what each stack asked for since the start.

use crate::{
    analyse::accounts,
    cgroup::CgroupId,
    region::Class,
    report::{MappingRow, OriginRow},
    snapshot::{MappedRange, Snapshot, StackWords, SurveyedProcess, between},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};
use tracer_common::mapping::Change;

/// Stacks shown for the regions of one class in one process.
const MOST_ORIGINS: usize = 5;
/// Rows of a cgroup.
const MOST_ROWS: usize = 200;

/// Regions of one class, told in one way.
type Place<'a> = (Class, Option<&'a str>);

/// Who mapped the regions of one process, and who took them into use.
#[derive(Debug, Default)]
pub(super) struct Known<'a> {
    origins: BTreeMap<Place<'a>, Vec<OriginRow>>,
    growers: BTreeMap<Place<'a>, Vec<OriginRow>>,
}

impl<'a> Known<'a> {
    /// Largest first.
    pub fn origins(&self, class: Class, by: Option<&'a str>) -> &[OriginRow] {
        self.origins.get(&(class, by)).map_or(&[], Vec::as_slice)
    }

    /// Largest first.
    pub fn growers(&self, class: Class, by: Option<&'a str>) -> &[OriginRow] {
        self.growers.get(&(class, by)).map_or(&[], Vec::as_slice)
    }
}

/// What is known of a process; nothing if it runs another program by now.
pub(super) fn of_process<'a>(snapshot: &Snapshot, process: &'a SurveyedProcess) -> Known<'a> {
    let Some(space) = snapshot.spaces.as_ref().and_then(|spaces| spaces.processes.get(&process.tgid)) else { return Known::default() };
    match snapshot.names.processes.get(&space.process) {
        Some(known) if !known.gone => {}
        _ => return Known::default(),
    }
    let rows = |ranges: &[MappedRange]| {
        let places = sums(process, ranges).into_iter();
        places.map(|(place, sums)| (place, origin_rows(snapshot, space.process, sums))).collect()
    };
    Known { origins: rows(&space.mapped), growers: rows(&space.opened) }
}

/// Address space of one stack.
#[derive(Clone, Copy, Debug)]
struct Sum {
    bytes: u64,
    /// `None` if there were several.
    tid: Option<u32>,
    oldest_ns: u64,
}

/// By stack, call, and the address of the function that the thread began with.
type Sums = HashMap<(u64, Change, Option<u64>), Sum>;

/// Joins the ranges with the regions that exist.
fn sums<'a>(process: &'a SurveyedProcess, ranges: &[MappedRange]) -> BTreeMap<Place<'a>, Sums> {
    let mut places: BTreeMap<Place<'a>, Sums> = BTreeMap::new();
    for region in &process.regions {
        for MappedRange { start, end, stack, change, tid, at_ns } in between(ranges, region.start, region.end) {
            let sums = places.entry((region.class, region.by.as_deref())).or_default();
            let function = process.thread_functions.get(&tid).copied();
            let sum = sums.entry((stack, change, function)).or_insert(Sum { bytes: 0, tid: Some(tid), oldest_ns: at_ns });
            sum.bytes = sum.bytes.saturating_add(end - start);
            sum.tid = sum.tid.filter(|known| *known == tid);
            sum.oldest_ns = sum.oldest_ns.min(at_ns);
        }
    }
    places
}

/// Stacks in words; those that read alike are one.
fn origin_rows(snapshot: &Snapshot, process: u64, sums: Sums) -> Vec<OriginRow> {
    let mut rows: HashMap<(&'static str, StackWords, Option<String>), Sum> = HashMap::new();
    for ((stack, change, function), sum) in sums {
        let function = function.and_then(|address| snapshot.names.functions.get(&(process, address)).cloned());
        let row = rows.entry((change.call(), in_words(snapshot, process, stack), function)).or_insert(Sum { bytes: 0, ..sum });
        row.bytes = row.bytes.saturating_add(sum.bytes);
        row.tid = row.tid.filter(|known| Some(*known) == sum.tid);
        row.oldest_ns = row.oldest_ns.min(sum.oldest_ns);
    }
    let row = |((call, words, thread_function), sum): ((&'static str, StackWords, Option<String>), Sum)| OriginRow {
        call: call.to_owned(),
        status: words.status,
        frames: snapshot.names.in_words(&words.frames),
        bytes: sum.bytes,
        tid: sum.tid,
        thread_function,
        oldest_s: snapshot.taken.seconds_since(sum.oldest_ns),
    };
    let mut rows: Vec<OriginRow> = rows.into_iter().map(row).collect();
    rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| (&a.frames, &a.call).cmp(&(&b.frames, &b.call))));
    rows.truncate(MOST_ORIGINS);
    rows
}

/// What each wanted cgroup's processes asked for; `None` where that is not followed.
pub(super) fn by_owner(snapshot: &Snapshot) -> Option<HashMap<u64, Vec<MappingRow>>> {
    #[derive(Default)]
    struct Sum {
        bytes: u64,
        variance: u64,
        calls: u64,
        last_ns: u64,
    }
    let mut sums: HashMap<(u64, u32, String, &'static str, StackWords), Sum> = HashMap::new();
    for record in snapshot.spaces.as_ref()?.records.values().filter(|record| snapshot.cgroups.wanted(CgroupId(record.key.owner))) {
        let key = &record.key;
        let Some(process) = snapshot.names.processes.get(&key.process) else { continue };
        let Some(change) = Change::from_number(key.change) else { continue };
        let words = in_words(snapshot, key.process, key.user_stack);
        let sum = sums.entry((key.owner, process.tgid, process.comm.clone(), change.call(), words)).or_default();
        sum.bytes = sum.bytes.saturating_add(record.bytes);
        sum.variance = sum.variance.saturating_add(record.variance);
        sum.calls = sum.calls.saturating_add(record.calls);
        sum.last_ns = sum.last_ns.max(record.last_ns);
    }
    let mut owners: HashMap<u64, Vec<MappingRow>> = HashMap::new();
    for ((owner, pid, comm, call, words), sum) in sums {
        owners.entry(owner).or_default().push(MappingRow {
            pid,
            comm,
            call: call.to_owned(),
            status: words.status,
            frames: snapshot.names.in_words(&words.frames),
            bytes: sum.bytes,
            bytes_stderr: accounts::standard_error(sum.variance),
            calls: sum.calls,
            last_s: snapshot.taken.seconds_since(sum.last_ns),
        });
    }
    for rows in owners.values_mut() {
        rows.sort_by(|a, b| (Reverse(a.bytes), a.pid, &a.frames, &a.call).cmp(&(Reverse(b.bytes), b.pid, &b.frames, &b.call)));
        rows.truncate(MOST_ROWS);
    }
    Some(owners)
}

/// A user stack in words.
fn in_words(snapshot: &Snapshot, process: u64, stack: u64) -> StackWords {
    let none = || StackWords { frames: Vec::new(), status: "none".to_owned() };
    snapshot.names.stacks.get(&(process, stack)).cloned().unwrap_or_else(none)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::snapshot::Region;

    #[test]
    fn ranges_are_joined_with_what_exists() {
        let region = |start, end, class, accessible| Region { start, end, class, by: None, accessible, private: true, resident: None };
        let regions = vec![
            region(0x1000, 0x5000, Class::Other, true),
            region(0x5000, 0x9000, Class::Other, false),
            region(0xa000, 0xb000, Class::BrkHeap, true),
        ];
        let process = SurveyedProcess { tgid: 7, comm: "x".into(), regions, ..SurveyedProcess::default() };
        let range = |start, end, stack, tid| MappedRange { start, end, stack, change: Change::Mapped, tid, at_ns: 100 - stack };
        let places = sums(&process, &[range(0x2000, 0x6000, 1, 7), range(0x6000, 0x7000, 1, 8), range(0x8000, 0x20000, 2, 7)]);
        let other = &places[&(Class::Other, None)];
        let of = |sum: &Sum| (sum.bytes, sum.tid, sum.oldest_ns);
        assert_eq!(of(&other[&(1, Change::Mapped, None)]), (0x5000, None, 99));
        assert_eq!(of(&other[&(2, Change::Mapped, None)]), (0x1000, Some(7), 98));
        let heap: u64 =
            places.iter().filter(|((class, _), _)| *class == Class::BrkHeap).flat_map(|(_, sums)| sums.values()).map(|sum| sum.bytes).sum();
        assert_eq!(heap, 0x1000);
    }
}
