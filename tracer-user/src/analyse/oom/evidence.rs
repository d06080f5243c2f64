//! Files, regions and verdicts of a kill: what the picture says of the cgroups below the limit, with the kernel's figures as of the kill
//! beside it. Pure.

use super::{
    facts::{KillFacts, is_below, levels},
    figures::{self, Figure},
    source,
};
use crate::report::OTHER;
use crate::report::autopsy::{Autopsy, Dead, Finding, LiveStack, RegionsOf};
use crate::{
    analyse::verdicts,
    cgroup::Version,
    report::{Cgroup, FileOwner, FileRow, Host, Report, StackRow},
};
use std::collections::BTreeMap;
use tracer_common::oom::OomLevel;

/// Files that an autopsy keeps, and those of them whose touchers keep their stacks.
const MOST_FILES: (usize, usize) = (20, 5);
/// Rows of regions that a cgroup keeps.
const MOST_REGIONS: usize = 20;
/// Dirty page cache that lasts over the last readings is more than a burst: fewest and most of them, none older than so many seconds.
const SUSTAINED: (usize, usize) = (3, 5);
const SUSTAINED_S: f64 = 15.0;

/// Figures that leave more than one in so many bytes of the usage unexplained are old.
const STALE: u64 = 50;

/// Adds what the evidence says of the cgroups below `whole`, the limit's level; of all if it is not known.
pub(super) fn add(facts: &KillFacts, whole: Option<&OomLevel>, autopsy: &mut Autopsy) {
    let Some(evidence) = &facts.evidence else { return };
    let within = |owner: u64| whole.is_none_or(|whole| is_below(facts, owner, whole.cgroup));
    let rows: Vec<&(u64, Cgroup)> = evidence.cgroups.iter().filter(|(owner, _)| within(*owner)).collect();
    let mut all: Vec<FileRow> = rows.iter().flat_map(|(_, row)| files_of(row)).collect();
    all.sort_by(|a, b| b.bytes().cmp(&a.bytes()).then_with(|| a.path.cmp(&b.path)));
    autopsy.regions = rows.iter().filter_map(|(owner, row)| regions_of(row, evidence.surveyed_before_s.get(owner).copied()?)).collect();
    autopsy.regions.sort_by(|a, b| a.cgroup.cmp(&b.cgroup));
    let dead = rows.iter().filter(|(_, row)| row.state == "dead").map(|(_, row)| Dead {
        cgroup: row.path.clone(),
        container: row.container.clone(),
        for_s: row.dead_for_s,
    });
    autopsy.dead = dead.collect();
    autopsy.dead.sort_by(|a, b| a.cgroup.cmp(&b.cgroup));
    autopsy.verdicts = verdicts(facts, whole, &rows, &all);
    autopsy.files = all;
    let live = facts.warning.is_some();
    let files = if live { source::LIVE.to_owned() } else { source::swept(evidence.swept_after_s) };
    autopsy.sources.insert("files".to_owned(), files);
    let regions = match (evidence.surveyed_before_s.is_empty(), live) {
        (true, _) => "unknown: no process was looked into before",
        (false, true) => source::LIVE,
        (false, false) => source::SURVEYED,
    };
    autopsy.sources.insert("regions".to_owned(), regions.to_owned());
}

/// Where the kernel had not flushed its figures (it does for its own log, which it does not print for each kill), they are too small, and
/// the remainder tells: then the picture says how much there was of each kind.
pub(super) fn correct_stale(facts: &KillFacts, whole: &OomLevel, kinds: &mut BTreeMap<String, Figure>) {
    let Some(evidence) = facts.evidence.as_ref().filter(|_| facts.warning.is_none()) else { return };
    let Some((usage, rest)) = figures::usage(whole, facts.page_bytes).zip(kinds.get("remainder").map(|figure| figure.bytes)) else {
        return;
    };
    if rest.unsigned_abs() <= usage / STALE {
        return;
    }
    let within = evidence.cgroups.iter().filter(|(owner, _)| is_below(facts, *owner, whole.cgroup)).map(|(_, row)| row);
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for row in within {
        for (kind, figure) in row.kinds.iter().filter(|(kind, _)| matches!(kind.as_str(), "anon" | "file" | "shmem")) {
            let bytes = figure.live.unwrap_or(0).saturating_add(figure.baseline.unwrap_or(0));
            *sums.entry(kind).or_default() += i64::try_from(bytes).unwrap_or(i64::MAX);
        }
    }
    let change: i64 = sums.iter().map(|(kind, bytes)| bytes - kinds.get(*kind).map_or(0, |figure| figure.bytes)).sum();
    if (rest - change).unsigned_abs() >= rest.unsigned_abs() {
        return;
    }
    for (kind, bytes) in sums {
        kinds.insert(kind.to_owned(), Figure { bytes, source: source::NOT_FLUSHED.to_owned() });
    }
    kinds.insert("remainder".to_owned(), Figure { bytes: rest - change, source: source::REMAINDER.to_owned() });
}

/// Leaves as many files as an autopsy keeps, after all of them were looked at.
pub(super) fn shorten(autopsy: &mut Autopsy) {
    autopsy.files.truncate(MOST_FILES.0);
    for file in autopsy.files.iter_mut().skip(MOST_FILES.1) {
        file.writers.iter_mut().chain(&mut file.readers).chain(&mut file.dirtiers).for_each(|toucher| toucher.frames.clear());
    }
}

/// The files of one cgroup, each with its owner.
fn files_of(row: &Cgroup) -> impl Iterator<Item = FileRow> + '_ {
    let owner = FileOwner { cgroup: row.path.clone(), container: row.container.clone(), state: row.state.clone() };
    let known = row.files.iter().filter(|file| !(file.path == OTHER && file.inode.is_none()));
    known.map(move |file| FileRow { owner: Some(owner.clone()), ..file.clone() })
}

fn regions_of(row: &Cgroup, before_s: f64) -> Option<RegionsOf> {
    let regions = row.regions.iter().take(MOST_REGIONS).cloned().collect();
    let found = RegionsOf { cgroup: row.path.clone(), before_s, regions, arenas: row.arenas.clone() };
    (!found.regions.is_empty() || !found.arenas.is_empty()).then_some(found)
}

/// The verdicts on the dead below the limit, and on the limit's cgroup with all that is below it; after a kill of the whole host on each
/// cgroup for itself.
fn verdicts(facts: &KillFacts, whole: Option<&OomLevel>, rows: &[&(u64, Cgroup)], files: &[FileRow]) -> Vec<Finding> {
    let limited = whole.filter(|whole| figures::limit_pages(whole).is_some());
    let mut judged: Vec<Cgroup> = Vec::new();
    if let Some(whole) = limited {
        judged.push(at_limit(facts, whole, rows, files));
    }
    judged
        .extend(rows.iter().filter(|(_, row)| limited.is_none() || row.state == "dead").map(|(owner, row)| as_of_kill(facts, *owner, row)));
    let cgroup = match facts.version {
        Version::V1 => "v1",
        Version::V2 => "v2",
    };
    let report = Report { host: Host { cgroup: cgroup.to_owned(), ..Host::default() }, cgroups: judged, ..Report::default() };
    let mut found = Vec::new();
    for row in &report.cgroups {
        for verdict in verdicts::of_kill(row, &report) {
            let crate::report::Verdict { id, severity, text, evidence } = verdict;
            found.push(Finding { cgroup: row.path.clone(), id, severity, text, evidence });
        }
    }
    found
}

/// The limit's cgroup with everything below it, its figures as of the kill.
fn at_limit(facts: &KillFacts, whole: &OomLevel, rows: &[&(u64, Cgroup)], files: &[FileRow]) -> Cgroup {
    let place = facts.places.get(&whole.cgroup);
    let own = rows.iter().find(|(owner, _)| *owner == whole.cgroup).map(|(_, row)| row.clone());
    let row = own.unwrap_or_else(|| Cgroup {
        path: place.map(|place| place.path.clone()).unwrap_or_default(),
        pod: place.and_then(|place| place.pod.clone()),
        container: place.and_then(|place| place.container.clone()),
        state: "alive".to_owned(),
        ..Cgroup::default()
    });
    let alive = rows.iter().filter(|(_, row)| row.state != "dead");
    let row = Cgroup {
        files: files.iter().filter(|file| file.owner.as_ref().is_none_or(|owner| owner.state != "dead")).cloned().collect(),
        arenas: alive.flat_map(|(_, row)| row.arenas.iter().cloned()).collect(),
        stacks: stacks(facts, whole),
        ..row
    };
    with_level(facts, whole, row)
}

/// What stacks of the living below the limit had at the kill.
fn stacks(facts: &KillFacts, whole: &OomLevel) -> Vec<StackRow> {
    let is_within = |(owner, row): &&(u64, LiveStack)| row.state != "dead" && is_below(facts, *owner, whole.cgroup);
    let of = |(_, row): &(u64, LiveStack)| StackRow {
        kind: row.kind.clone(),
        pid: row.pid,
        comm: row.comm.clone(),
        status: row.status.clone(),
        frames: row.frames.clone(),
        live: row.live,
        live_stderr: row.live_stderr,
        ..StackRow::default()
    };
    facts.stacks.iter().flatten().filter(is_within).map(of).collect()
}

/// The row with the figures of its level, where the kill has that.
fn as_of_kill(facts: &KillFacts, owner: u64, row: &Cgroup) -> Cgroup {
    match levels(&facts.kill).iter().find(|level| level.cgroup == owner) {
        Some(level) => with_level(facts, level, row.clone()),
        None => row.clone(),
    }
}

/// Figures as of the kill take the place of older ones. Lists of page cache are as last read, and no longer than the page cache was then.
fn with_level(facts: &KillFacts, level: &OomLevel, row: Cgroup) -> Cgroup {
    let stat = |name| figures::stat(level, name, &facts.trusted, facts.page_bytes);
    let place = facts.places.get(&level.cgroup);
    let read = place.and_then(|place| place.read.as_ref());
    let cache = stat("file").and_then(|file| Some(file.saturating_sub(stat("shmem")?)));
    let at_most = |bytes: Option<u64>| bytes.map(|bytes| cache.map_or(bytes, |cache| bytes.min(cache)));
    let active = at_most(read.and_then(|read| read.active_file));
    let inactive = at_most(read.and_then(|read| read.inactive_file));
    let usage = figures::usage(level, facts.page_bytes);
    let (dirty, writeback) = (stat("file_dirty"), stat("file_writeback"));
    let sustained = place.and_then(|place| place.history.least_unwritten((facts.at_s - SUSTAINED_S, facts.at_s), SUSTAINED));
    Cgroup {
        usage_bytes: usage.or(row.usage_bytes),
        limit_bytes: figures::limit_pages(level).map(|pages| pages.saturating_mul(facts.page_bytes)),
        dirty_bytes: dirty.or(read.and_then(|read| read.dirty)),
        writeback_bytes: writeback.or(read.and_then(|read| read.writeback)),
        dirty_sustained_bytes: sustained,
        working_set_bytes: usage.zip(inactive).map(|(usage, inactive)| usage.saturating_sub(inactive)),
        active_file_bytes: active,
        kubelet_reclaimable_bytes: inactive,
        droppable_bytes: cache.zip(dirty).zip(writeback).map(|((cache, dirty), writeback)| cache.saturating_sub(dirty + writeback)),
        ..row
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "evidence_tests.rs"]
mod tests;
