//! Address space in words: who mapped the regions of a process and who took them into use, and what each stack asked for since the start.

use super::{Inputs, Resolved, Symbols, stacks, wanted};
use crate::{
    analyse::accounts,
    cgroup::CgroupId,
    kernel_half::stack::Stack,
    region::{Class, intervals::Intervals},
    report::{MappingRow, MappingSummary, OriginRow},
    trace::{
        mappings::{Origin, Space},
        regions::Process,
    },
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};
use tracer_common::{
    mapping::{Change, MappingRecord},
    stack::StackStatus,
};

/// Stacks shown for the regions of one class in one process.
const MOST_ORIGINS: usize = 5;
/// Rows of a cgroup.
const MOST_ROWS: usize = 200;

/// What is known of address spaces.
pub struct Mapped {
    /// Of the processes that were surveyed, by thread-group id.
    pub spaces: HashMap<u32, Space>,
    /// What was asked for, by identity of who did.
    pub records: HashMap<u64, MappingRecord>,
    /// How far that goes.
    pub summary: MappingSummary,
}

impl Mapped {
    /// Processes and stacks that are named.
    pub fn stacks(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let of_spaces = self.spaces.values().flat_map(|space| space.stacks().map(|stack| (space.process, stack)));
        of_spaces.chain(self.records.values().map(|record| (record.key.process, record.key.user_stack)))
    }
}

/// Regions of one class, told in one way.
type Place = (Class, Option<&'static str>);

/// Who mapped the regions of one process, and who took them into use.
#[derive(Debug, Default)]
pub(super) struct Known {
    origins: BTreeMap<Place, Vec<OriginRow>>,
    growers: BTreeMap<Place, Vec<OriginRow>>,
}

impl Known {
    /// Largest first.
    pub fn origins(&self, class: Class, by: Option<&'static str>) -> &[OriginRow] {
        self.origins.get(&(class, by)).map_or(&[], Vec::as_slice)
    }

    /// Largest first.
    pub fn growers(&self, class: Class, by: Option<&'static str>) -> &[OriginRow] {
        self.growers.get(&(class, by)).map_or(&[], Vec::as_slice)
    }
}

/// What is known of a process; nothing if it runs another program by now.
pub(super) fn of_process(inputs: &Inputs<'_>, symbols: &mut dyn Symbols, process: &Process) -> Known {
    let Some(space) = inputs.mapped.and_then(|mapped| mapped.spaces.get(&process.tgid)) else { return Known::default() };
    match inputs.processes.get(&space.process) {
        Some(record) if !symbols.is_gone(record) => {}
        _ => return Known::default(),
    }
    let mut rows = |intervals: &Intervals<Origin>| {
        let places = sums(process, intervals).into_iter();
        places.map(|(place, sums)| (place, origin_rows(inputs, symbols, space.process, sums))).collect()
    };
    Known { origins: rows(&space.origins()), growers: rows(&space.opened) }
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

/// Joins the intervals with the regions that exist.
fn sums(process: &Process, intervals: &Intervals<Origin>) -> BTreeMap<Place, Sums> {
    let mut places: BTreeMap<Place, Sums> = BTreeMap::new();
    for region in &process.survey.classified.regions {
        for piece in intervals.over(region.start, region.end) {
            let Origin { stack, change, tid, at_ns } = piece.mark;
            let sums = places.entry((region.class, region.by)).or_default();
            let function = process.survey.thread_functions.get(&tid).copied();
            let sum = sums.entry((stack, change, function)).or_insert(Sum { bytes: 0, tid: Some(tid), oldest_ns: at_ns });
            sum.bytes = sum.bytes.saturating_add(piece.end - piece.start);
            sum.tid = sum.tid.filter(|known| *known == tid);
            sum.oldest_ns = sum.oldest_ns.min(at_ns);
        }
    }
    places
}

/// Stacks in words; those that read alike are one.
fn origin_rows(inputs: &Inputs<'_>, symbols: &mut dyn Symbols, process: u64, sums: Sums) -> Vec<OriginRow> {
    let mut rows: HashMap<(&'static str, Resolved, Option<String>), Sum> = HashMap::new();
    for ((stack, change, function), sum) in sums {
        let function = function.and_then(|address| function_name(inputs, symbols, process, address));
        let row = rows.entry((change.call(), in_words(inputs, symbols, process, stack), function)).or_insert(Sum { bytes: 0, ..sum });
        row.bytes = row.bytes.saturating_add(sum.bytes);
        row.tid = row.tid.filter(|known| Some(*known) == sum.tid);
        row.oldest_ns = row.oldest_ns.min(sum.oldest_ns);
    }
    let row = |((call, words, thread_function), sum): ((&'static str, Resolved, Option<String>), Sum)| OriginRow {
        call: call.to_owned(),
        status: words.status,
        frames: words.frames,
        bytes: sum.bytes,
        tid: sum.tid,
        thread_function,
        oldest_s: seconds_since(inputs, sum.oldest_ns),
    };
    let mut rows: Vec<OriginRow> = rows.into_iter().map(row).collect();
    rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| (&a.frames, &a.call).cmp(&(&b.frames, &b.call))));
    rows.truncate(MOST_ORIGINS);
    rows
}

/// The function at an address of a process.
fn function_name(inputs: &Inputs<'_>, symbols: &mut dyn Symbols, process: u64, address: u64) -> Option<String> {
    let stack = Stack { status: StackStatus::Ended, frames: [address].into() };
    let name = symbols.user(inputs.processes.get(&process)?, Some(&stack)).frames.pop()?;
    (name != "[unknown]").then_some(name)
}

/// What each wanted cgroup's processes asked for; `None` where that is not followed.
pub(super) fn by_owner(inputs: &Inputs<'_>, symbols: &mut dyn Symbols) -> Option<HashMap<u64, Vec<MappingRow>>> {
    #[derive(Default)]
    struct Sum {
        bytes: u64,
        variance: u64,
        calls: u64,
        last_ns: u64,
    }
    let mut sums: HashMap<(u64, u32, String, &'static str, Resolved), Sum> = HashMap::new();
    for record in inputs.mapped?.records.values().filter(|record| wanted(inputs, CgroupId(record.key.owner))) {
        let key = &record.key;
        let Some(process) = inputs.processes.get(&key.process) else { continue };
        let Some(change) = Change::from_number(key.change) else { continue };
        let words = in_words(inputs, symbols, key.process, key.user_stack);
        let sum = sums.entry((key.owner, process.tgid, symbols.comm(process), change.call(), words)).or_default();
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
            frames: words.frames,
            bytes: sum.bytes,
            bytes_stderr: accounts::standard_error(sum.variance),
            calls: sum.calls,
            last_s: seconds_since(inputs, sum.last_ns),
        });
    }
    for rows in owners.values_mut() {
        rows.sort_by(|a, b| (Reverse(a.bytes), a.pid, &a.frames, &a.call).cmp(&(Reverse(b.bytes), b.pid, &b.frames, &b.call)));
        rows.truncate(MOST_ROWS);
    }
    Some(owners)
}

/// A user stack in words.
fn in_words(inputs: &Inputs<'_>, symbols: &mut dyn Symbols, process: u64, stack: u64) -> Resolved {
    let none = || Resolved { frames: Vec::new(), status: "none".to_owned() };
    let Some(record) = inputs.processes.get(&process) else { return none() };
    let mut words = symbols.user(record, inputs.stacks.get(&stack));
    if stack != 0 && !inputs.stacks.contains_key(&stack) {
        words.status = "cut: stack lost".to_owned();
    }
    stacks::root_cut(&words.status, &mut words.frames);
    words
}

fn seconds_since(inputs: &Inputs<'_>, at_ns: u64) -> f64 {
    inputs.now_ns.saturating_sub(at_ns) as f64 / 1e9
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::region::{Survey, maps::Maps};
    use std::sync::Arc;

    #[test]
    fn intervals_are_joined_with_what_exists() {
        let text = "1000-5000 rw-p 0 0:0 0 \n5000-9000 ---p 0 0:0 0 \na000-b000 rw-p 0 0:0 0 [heap]\n";
        let survey = Survey::of_maps(Maps::parse(text.as_bytes()).unwrap(), &[]);
        let process = Process { tgid: 7, comm: "x".into(), owner: None, survey: Arc::new(survey) };
        let origin = |stack, tid| Origin { stack, change: Change::Mapped, tid, at_ns: 100 - stack };
        let mut intervals = Intervals::new(10);
        intervals.put(0x2000, 0x6000, origin(1, 7));
        intervals.put(0x6000, 0x7000, origin(1, 8));
        intervals.put(0x8000, 0x20000, origin(2, 7));
        let places = sums(&process, &intervals);
        let other = &places[&(Class::Other, None)];
        let of = |sum: &Sum| (sum.bytes, sum.tid, sum.oldest_ns);
        assert_eq!(of(&other[&(1, Change::Mapped, None)]), (0x5000, None, 99));
        assert_eq!(of(&other[&(2, Change::Mapped, None)]), (0x1000, Some(7), 98));
        let heap: u64 =
            places.iter().filter(|((class, _), _)| *class == Class::BrkHeap).flat_map(|(_, sums)| sums.values()).map(|sum| sum.bytes).sum();
        assert_eq!(heap, 0x1000);
    }
}
