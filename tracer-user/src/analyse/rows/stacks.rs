//! Keys in words, and the stack rows of each owner.

use super::{
    regions::{self, Part},
    threads,
};
use crate::{
    analyse::{accounts, figures::NO_JAVA_FRAMES},
    cgroup::CgroupId,
    region::Class,
    report::{StackFile, StackRow},
    snapshot::{FrameId, KeyWords, Names, Process, Snapshot, StackWords},
    text::source,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use tracer_common::{
    attribution::{KEY_BASELINE, KeyRecord},
    kind::Kind,
};

/// Most files of a stack row.
const MOST_FILES: usize = 8;

/// Bytes that each key has charged but not mapped.
pub(super) fn unmapped_by_key(snapshot: &Snapshot) -> HashMap<u64, u64> {
    let mut unmapped = HashMap::new();
    for (slot, swept) in &snapshot.charges.swept {
        let Some(sample) = snapshot.charges.samples.get(slot) else { continue };
        if sample.key != 0 && swept.unmapped_frames > 0 {
            *unmapped.entry(sample.key).or_default() += swept.unmapped_frames.saturating_mul(sample.weight_per_frame);
        }
    }
    unmapped
}

/// What tells rows apart: equal code of one process adds up, whatever addresses it ran at, and so does that of processes that are
/// gone and left nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RowKey {
    owner: u64,
    kind: u32,
    words: KeyWords,
    /// Methods are missing in its stack.
    java_cut: bool,
    pids: Option<Pids>,
    class: Class,
}

/// Thread-group id on the host, and in its own pid namespace where that is known.
type Pids = (u32, Option<u32>);

#[derive(Default)]
struct RowSum {
    live: i64,
    peak: i64,
    peak_variance: u64,
    live_variance: u64,
    charged: u64,
    samples: u64,
    oldest_ns: Option<u64>,
    threads: threads::Parts,
    /// Live bytes by identity of the file.
    files: HashMap<u64, u64>,
    /// Identity of its process.
    process: Option<u64>,
}

/// What a key has in one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    live: i64,
    peak: i64,
    peak_variance: u64,
    live_variance: u64,
    charged: u64,
    samples: u64,
    oldest_ns: Option<u64>,
}

impl RowSum {
    fn add(&mut self, share: &Share) {
        self.live += share.live;
        self.peak += share.peak;
        self.peak_variance += share.peak_variance;
        self.live_variance += share.live_variance;
        self.charged += share.charged;
        self.samples += share.samples;
        self.oldest_ns = [self.oldest_ns, share.oldest_ns].into_iter().flatten().min();
    }
}

/// A key's figures by class. What its live samples do not tell is of class other: bytes that are gone, whose region nobody knows any
/// more, and what changed between the reading of the two tables. The shares add up to the key.
fn split(record: &KeyRecord, at_peak: (i64, u64), parts: BTreeMap<Class, Part>) -> BTreeMap<Class, Share> {
    let mut rest = Share {
        live: accounts::live(record),
        peak: at_peak.0,
        peak_variance: at_peak.1,
        live_variance: accounts::live_variance(record),
        charged: accounts::charged(record),
        samples: record.samples,
        oldest_ns: None,
    };
    let mut shares: BTreeMap<Class, Share> = BTreeMap::new();
    // The largest first: samples newer than the key's figures must not take more than there is.
    let mut parts: Vec<(Class, Part)> = parts.into_iter().collect();
    parts.sort_by_key(|(_, part)| std::cmp::Reverse(part.live));
    for (class, part) in parts {
        let live = i64::try_from(part.live).unwrap_or(i64::MAX).min(rest.live.max(0));
        let share = Share {
            live,
            // What is there now was there then, as far as the key had as much.
            peak: live.min(rest.peak.max(0)),
            peak_variance: part.live_variance.min(rest.peak_variance),
            live_variance: part.live_variance.min(rest.live_variance),
            charged: part.charged.min(rest.charged),
            samples: part.samples.min(rest.samples),
            oldest_ns: part.oldest_ns,
        };
        rest.live -= share.live;
        rest.peak -= share.peak;
        rest.peak_variance -= share.peak_variance;
        rest.live_variance -= share.live_variance;
        rest.charged -= share.charged;
        rest.samples -= share.samples;
        shares.insert(class, share);
    }
    if (rest.live, rest.peak, rest.charged, rest.samples) != (0, 0, 0, 0) || shares.is_empty() {
        let other = shares.entry(Class::Other).or_default();
        other.live += rest.live;
        other.peak += rest.peak;
        other.peak_variance += rest.peak_variance;
        other.live_variance += rest.live_variance;
        other.charged += rest.charged;
        other.samples += rest.samples;
    }
    shares
}

/// Live bytes of each key by file.
fn files_by_key(snapshot: &Snapshot) -> HashMap<u64, HashMap<u64, u64>> {
    let mut keys: HashMap<u64, HashMap<u64, u64>> = HashMap::new();
    for sample in snapshot.charges.samples.values().filter(|sample| sample.key != 0 && sample.file != 0) {
        *keys.entry(sample.key).or_default().entry(sample.file).or_default() += accounts::left(sample).0;
    }
    keys
}

/// The largest files of a row that has `live` bytes. Samples are read after the keys: they are cut to what the keys say.
fn file_rows(files: &HashMap<u64, u64>, mut live: u64, paths: &HashMap<u64, String>) -> Vec<StackFile> {
    let mut files: Vec<(&String, u64)> = files.iter().filter_map(|(file, bytes)| Some((paths.get(file)?, *bytes))).collect();
    files.sort_unstable_by_key(|(path, bytes)| (std::cmp::Reverse(*bytes), *path));
    let rows = files.into_iter().take(MOST_FILES).map(|(path, bytes)| {
        let bytes = bytes.min(live);
        live -= bytes;
        StackFile { path: path.clone(), live: bytes }
    });
    rows.filter(|file| file.live > 0).collect()
}

/// The stack rows of every wanted owner, largest first. `paths` are those of the files that are shown.
pub(super) fn by_owner(snapshot: &Snapshot, paths: &HashMap<u64, String>) -> HashMap<u64, Vec<StackRow>> {
    let mut by_file = files_by_key(snapshot);
    let mut parts = regions::by_key(snapshot);
    let mut by_thread = threads::by_key(snapshot.charges.samples.iter(), |slot| snapshot.surveys.class(slot));
    let mut sums: HashMap<RowKey, RowSum> = HashMap::new();
    let surveyed = snapshot.surveys.processes.iter();
    let without_java_frames: HashSet<u32> =
        surveyed.filter(|process| process.java_frames == Some(false)).map(|process| process.tgid).collect();
    for (identity, record) in &snapshot.charges.keys {
        let key = &record.key;
        if key.flags & KEY_BASELINE != 0 || !snapshot.cgroups.wanted(CgroupId(key.owner)) {
            continue;
        }
        let process = snapshot.names.processes.get(&key.process);
        let pids = process.filter(|process| accounts::live(record) != 0 || !process.gone).map(pids);
        let words = snapshot.names.keys.get(identity).cloned().unwrap_or_default();
        let java_cut = pids.is_some_and(|(tgid, _)| without_java_frames.contains(&tgid)) && is_java_missing(&snapshot.names, &words.stack);
        for (class, part) in split(record, snapshot.charges.at_peak(record).unwrap_or_default(), parts.remove(identity).unwrap_or_default())
        {
            let row = RowKey { owner: key.owner, kind: key.kind, words: words.clone(), java_cut, pids, class };
            let sum = sums.entry(row).or_default();
            sum.add(&part);
            threads::merge(&mut sum.threads, by_thread.remove(&(*identity, class)).unwrap_or_default());
            // Page cache and shmem are of one class.
            for (file, bytes) in by_file.remove(identity).unwrap_or_default() {
                *sum.files.entry(file).or_default() += bytes;
            }
            sum.process = sum.process.or(process.map(|_| key.process));
        }
    }
    for row in snapshot.charges.retired.iter().filter(|row| snapshot.cgroups.wanted(CgroupId(row.owner))) {
        let stack = StackWords { frames: row.frames.clone(), status: row.status.clone() };
        let words = KeyWords { comm: row.comm.clone(), stack };
        let key = RowKey { owner: row.owner, kind: row.kind, words, java_cut: false, pids: None, class: Class::Other };
        let sum = sums.entry(key).or_default();
        sum.charged += row.bytes;
        sum.samples += row.samples;
        sum.peak += i64::try_from(snapshot.charges.retired_at_peak(row)).unwrap_or(i64::MAX);
    }
    rows(snapshot, sums, paths)
}

fn pids(process: &Process) -> Pids {
    (process.tgid, (process.ns_tgid != 0).then_some(process.ns_tgid))
}

fn rows(snapshot: &Snapshot, sums: HashMap<RowKey, RowSum>, paths: &HashMap<u64, String>) -> HashMap<u64, Vec<StackRow>> {
    let mut rows: HashMap<u64, Vec<StackRow>> = HashMap::new();
    let mut sums: Vec<(RowKey, RowSum)> = sums.into_iter().collect();
    // Largest first: if there are too many threads, theirs are kept.
    sums.sort_unstable_by_key(|(_, sum)| std::cmp::Reverse(sum.live));
    let mut room = threads::MOST_ROWS;
    for (RowKey { owner, kind, words, java_cut, pids, class }, sum) in sums {
        let live = u64::try_from(sum.live).unwrap_or(0);
        let name = |tid: u32| sum.process.and_then(|process| snapshot.names.threads.get(&(process, tid)).cloned());
        let threads = threads::rows(&sum.threads, live, &mut room, name);
        let kind = u8::try_from(kind).ok().and_then(Kind::from_number).map_or("unknown", Kind::name);
        let mut frames = snapshot.names.in_words(&words.stack.frames);
        let mut status = words.stack.status;
        if java_cut {
            NO_JAVA_FRAMES.clone_into(&mut status);
            frames.insert(0, format!("[{NO_JAVA_FRAMES}]"));
        }
        rows.entry(owner).or_default().push(StackRow {
            kind: kind.to_owned(),
            region: class.name().to_owned(),
            pid: pids.map(|(pid, _)| pid),
            ns_pid: pids.and_then(|(_, ns_pid)| ns_pid),
            comm: words.comm,
            status,
            frames,
            live,
            live_stderr: accounts::standard_error(sum.live_variance),
            peak: u64::try_from(sum.peak).unwrap_or(0),
            peak_stderr: accounts::standard_error(sum.peak_variance),
            charged: sum.charged,
            samples: sum.samples,
            oldest_s: sum.oldest_ns.map(|at| snapshot.taken.seconds_since(at)),
            threads: Some(threads),
            files: file_rows(&sum.files, live, paths),
        });
    }
    for list in rows.values_mut() {
        list.sort_by(|a, b| {
            let by_size = (b.live, b.peak, b.charged).cmp(&(a.live, a.peak, a.charged));
            by_size.then_with(|| (&a.frames, a.pid, &a.region).cmp(&(&b.frames, b.pid, &b.region)))
        });
    }
    rows
}

/// Whether methods are missing in a whole stack of a JVM whose compiled code leaves no frames: what runs Java is in it, and what that called has no name. A
/// JVM that is known has its own code there.
fn is_java_missing(names: &Names, stack: &StackWords) -> bool {
    let runs_java = |frame: &FrameId| names.frame(*frame).starts_with("JavaCalls::call_helper(");
    let has_name = |frame: &FrameId| source::is_of_runtime(names.frame(*frame)) || source::of(names.frame(*frame)).is_some();
    // What is left out or could not be read is said there itself.
    let is_said = |frame: &FrameId| ["[frames left out]", "[interpreted]"].contains(&names.frame(*frame));
    let is_missing = |pair: &[FrameId]| runs_java(&pair[0]) && !has_name(&pair[1]) && !is_said(&pair[1]);
    stack.status == "complete" && stack.frames.windows(2).any(is_missing) && !stack.frames.iter().any(has_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::attribution::{BANKS, Key};

    fn record(live: u64, gone: u64, samples: u64) -> KeyRecord {
        let key = Key { owner: 1, process: 2, user_stack: 3, kernel_stack: 0, kind: Kind::Anon as u32, flags: 0 };
        let (mut charged, mut uncharged) = ([0; BANKS], [0; BANKS]);
        (charged[0], uncharged[0]) = (live + gone, gone);
        let mut live_variance = [0; BANKS];
        live_variance[0] = 100;
        KeyRecord {
            key,
            charged,
            uncharged,
            live_variance,
            charged_variance: 200,
            samples,
            last_ns: 2,
            peak_mark: 0,
            peak_live: 0,
            peak_variance: 0,
        }
    }

    fn part(live: u64, charged: u64, live_variance: u64, samples: u64) -> Part {
        Part { live, live_variance, charged, samples, oldest_ns: Some(live) }
    }

    fn sums(shares: &BTreeMap<Class, Share>) -> (i64, u64, u64, u64) {
        let sum = |of: fn(&Share) -> u64| shares.values().map(of).sum();
        (shares.values().map(|s| s.live).sum(), sum(|s| s.charged), sum(|s| s.live_variance), sum(|s| s.samples))
    }

    #[test]
    fn shares_add_up_and_what_is_gone_has_no_class() {
        let parts = BTreeMap::from([(Class::GlibcArena, part(600, 700, 60, 6)), (Class::BrkHeap, part(400, 400, 40, 4))]);
        let shares = split(&record(1000, 500, 15), (1200, 110), parts);
        assert_eq!(
            shares[&Class::GlibcArena],
            Share { live: 600, peak: 600, peak_variance: 60, live_variance: 60, charged: 700, samples: 6, oldest_ns: Some(600) }
        );
        assert_eq!(
            shares[&Class::Other],
            Share { live: 0, peak: 200, peak_variance: 10, live_variance: 0, charged: 400, samples: 5, oldest_ns: None }
        );
        assert_eq!(sums(&shares), (1000, 1500, 100, 15));
        // Nothing gone: no row for it.
        let whole = split(&record(600, 0, 6), (0, 0), BTreeMap::from([(Class::GlibcArena, part(600, 600, 100, 6))]));
        assert_eq!(whole.len(), 1);
    }

    #[test]
    fn files_of_a_stack_are_its_largest_and_within_it() {
        let paths = (1..=20).map(|file| (file, format!("/f{file}"))).collect();
        let files: HashMap<u64, u64> = (1..=30).map(|file| (file, file * 100)).collect();
        let rows = file_rows(&files, 1 << 20, &paths);
        assert_eq!(rows.len(), MOST_FILES);
        assert_eq!((rows[0].path.as_str(), rows[0].live), ("/f20", 2000), "those without a path are not among them");
        let cut = file_rows(&files, 2500, &paths);
        assert_eq!(cut.iter().map(|row| row.live).collect::<Vec<_>>(), [2000, 500]);
    }

    #[test]
    fn samples_of_another_moment_do_not_change_the_sum() {
        // Taken after the key was read, and ended after it was read.
        let newer = BTreeMap::from([(Class::GlibcArena, part(900, 900, 900, 9)), (Class::Other, part(500, 500, 500, 5))]);
        assert_eq!(sums(&split(&record(1000, 0, 10), (0, 0), newer)), (1000, 1000, 100, 10));
        assert_eq!(sums(&split(&record(1000, 0, 10), (0, 0), BTreeMap::new())), (1000, 1000, 100, 10));
        // More uncharged than charged, as a torn reading may be.
        let mut torn = record(0, 0, 1);
        torn.uncharged[0] = 4096;
        assert_eq!(sums(&split(&torn, (0, 0), BTreeMap::from([(Class::BrkHeap, part(4096, 4096, 0, 1))]))).0, -4096);
    }
}
