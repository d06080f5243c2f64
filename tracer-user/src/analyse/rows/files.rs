//! Page cache and shmem by file: what the live samples of an owner say, and who brought it in.
//!
//! Sums are those of the samples that the ledger's figures come from, so a cgroup's rows add up to its live and baseline bytes of
//! file and shmem. What has no record of its file, or no room among the rows, is in one row `[other]`.

use super::dirtied::{Part, Parts};
use crate::{
    analyse::accounts,
    cgroup::CgroupId,
    report::{Cgroup, FileOwner, FileRow, FileToucher, OTHER},
    snapshot::{File, Names, Snapshot},
};
use std::collections::HashMap;
use tracer_common::{
    attribution::{KEY_BASELINE, KEY_OWN},
    kind::Kind,
    stack::{BY_FAULT, BY_READ, BY_WRITE},
};

/// Most rows of a cgroup. JSON shows fewer; a recording keeps these.
const MOST_ROWS: usize = 1000;
/// Most processes named for a file, of each sort.
const MOST_TOUCHERS: usize = 10;

/// Of how many files of a cgroup the touchers have stacks, and how many touchers of each sort.
const FILES_WITH_STACKS: usize = 20;
const STACKS: usize = 3;
/// Most writes looked at for a file's pattern. Samples come in no order, so these are as good as any.
const MOST_WRITES: usize = 4096;
/// Fewer tell nothing.
const LEAST_WRITES: usize = 8;
/// So many of a hundred writes must lie behind the one before: a log of several writers is not quite in order.
const SEQUENTIAL_PERCENT: usize = 90;

/// How a process made a file's memory resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum How {
    Write,
    Read,
    Map,
}

impl How {
    const fn name(self) -> &'static str {
        match self {
            How::Write => "write",
            How::Read => "read",
            How::Map => "map",
        }
    }
}

#[derive(Default)]
struct Sum {
    live: u64,
    live_variance: u64,
    baseline: u64,
    baseline_variance: u64,
    dirty: u64,
    writeback: u64,
    touchers: HashMap<(u64, Option<How>), Touched>,
    /// What of it was made dirty.
    dirtied: Part,
    /// When and where it was written: nanoseconds and offsets.
    writes: Vec<(u64, u64)>,
}

/// What one process made resident of a file.
#[derive(Default)]
struct Touched {
    bytes: u64,
    /// By key: each has its own stacks.
    keys: HashMap<u64, u64>,
}

/// The file rows of every wanted owner, largest first.
pub(super) fn by_owner(snapshot: &Snapshot, dirtied: &Parts) -> HashMap<u64, Vec<FileRow>> {
    let mut owners: HashMap<u64, HashMap<(Kind, u64), Sum>> = HashMap::new();
    let mut hows: HashMap<u64, Option<How>> = HashMap::new();
    for (slot, sample) in &snapshot.charges.samples {
        let Some(record) = snapshot.charges.keys.get(&sample.key) else { continue };
        let key = &record.key;
        let kind = u8::try_from(key.kind).ok().and_then(Kind::from_number);
        let Some(kind) = kind.filter(|kind| matches!(kind, Kind::File | Kind::Shmem)) else { continue };
        if !snapshot.cgroups.wanted(CgroupId(key.owner)) {
            continue;
        }
        let file = if snapshot.files.known.contains_key(&sample.file) { sample.file } else { 0 };
        let sum = owners.entry(key.owner).or_default().entry((kind, file)).or_default();
        let (bytes, variance) = accounts::left(sample);
        // Every tmpfs page is dirty by name, and none ever goes to disk.
        if let Some(swept) = snapshot.charges.swept.get(slot).filter(|_| kind == Kind::File) {
            sum.dirty += if swept.dirty { bytes } else { 0 };
            sum.writeback += if swept.writeback { bytes } else { 0 };
        }
        if key.flags & KEY_BASELINE != 0 {
            sum.baseline += bytes;
            sum.baseline_variance += variance;
        } else {
            sum.live += bytes;
            sum.live_variance += variance;
            let how = *hows.entry(key.kernel_stack).or_insert_with(|| match key.kernel_stack {
                BY_WRITE => Some(How::Write),
                // A read makes nothing resident that its buffer does not fault in.
                BY_FAULT | BY_READ => Some(How::Map),
                identity => how(innermost_first(&snapshot.names, identity)),
            });
            let process = if key.flags & KEY_OWN != 0 { 0 } else { key.process };
            let touched = sum.touchers.entry((process, how)).or_default();
            touched.bytes += bytes;
            *touched.keys.entry(sample.key).or_default() += bytes;
            if how == Some(How::Write) && sum.writes.len() < MOST_WRITES {
                sum.writes.push((sample.charged_ns, sample.address));
            }
        }
    }
    // Also what is no longer in memory.
    for (owner, files) in dirtied.iter() {
        let rows = owners.entry(owner).or_default();
        for (file, part) in files {
            rows.entry((Kind::File, *file)).or_default().dirtied = part.clone();
        }
    }
    owners.into_iter().map(|(owner, files)| (owner, rows(snapshot, dirtied, files))).collect()
}

/// Names of a kernel stack's frames; none if it has no words.
fn innermost_first(names: &Names, stack: u64) -> impl Iterator<Item = &str> {
    names.kernel.get(&stack).into_iter().flatten().rev().map(|frame| names.frame(*frame))
}

/// Paths of the files that have a row, by identity.
pub(super) fn paths(snapshot: &Snapshot, rows: &HashMap<u64, Vec<FileRow>>) -> HashMap<u64, String> {
    let of = |row: &FileRow| Some(((row.dev.clone()?, row.inode.clone()?), row.path.clone()));
    let paths: HashMap<(String, String), String> = rows.values().flatten().filter_map(of).collect();
    let path = |file: &File| paths.get(&(file.device.clone(), file.inode.to_string())).cloned();
    snapshot.files.known.iter().filter_map(|(identity, file)| Some((*identity, path(file)?))).collect()
}

fn rows(snapshot: &Snapshot, dirtied: &Parts, files: HashMap<(Kind, u64), Sum>) -> Vec<FileRow> {
    let mut files: Vec<((Kind, u64), Sum)> = files.into_iter().collect();
    let size = |sum: &Sum| std::cmp::Reverse((sum.live + sum.baseline, sum.dirtied.bytes()));
    files.sort_by_key(|((kind, file), sum)| (*file == 0, size(sum), *kind, *file));
    let mut other = Sum::default();
    let mut rows = Vec::new();
    for ((kind, file), sum) in files {
        match snapshot.files.known.get(&file) {
            Some(record) if rows.len() < MOST_ROWS => {
                let stacks = if rows.len() < FILES_WITH_STACKS { STACKS } else { 0 };
                let part = (kind == Kind::File).then(|| sum.dirtied.clone());
                let mut row = row(snapshot, (kind, record), sum, stacks);
                if let Some(part) = part {
                    dirtied.describe_file(snapshot, &part, stacks, &mut row);
                }
                rows.push(row);
            }
            _ => {
                other.live += sum.live;
                other.live_variance += sum.live_variance;
                other.baseline += sum.baseline;
                other.baseline_variance += sum.baseline_variance;
                other.dirty += sum.dirty;
                other.writeback += sum.writeback;
                other.dirtied.merge(&sum.dirtied);
            }
        }
    }
    if other.live + other.baseline + other.dirtied.bytes() > 0 {
        let mut row = FileRow { path: OTHER.to_owned(), kind: "other".to_owned(), ..figures(&other) };
        dirtied.figures(snapshot, &other.dirtied, &mut row);
        rows.push(row);
    }
    rows
}

fn figures(sum: &Sum) -> FileRow {
    FileRow {
        live: sum.live,
        live_stderr: accounts::standard_error(sum.live_variance),
        baseline: sum.baseline,
        baseline_stderr: accounts::standard_error(sum.baseline_variance),
        dirty: Some(sum.dirty),
        writeback: Some(sum.writeback),
        ..FileRow::default()
    }
}

fn row(snapshot: &Snapshot, (kind, file): (Kind, &File), mut sum: Sum, stacks: usize) -> FileRow {
    let is_reader = |how: Option<How>| how == Some(How::Read) || how == Some(How::Map) && kind == Kind::File;
    let of = |reader: bool| sum.touchers.iter().filter(move |((_, how), _)| is_reader(*how) == reader);
    let write_pattern = pattern(&mut sum.writes).map(str::to_owned);
    FileRow {
        path: file.path.clone(),
        dev: Some(file.device.clone()),
        inode: Some(file.inode.to_string()),
        kind: kind.name().to_owned(),
        file_system: file.file_system.clone(),
        mount: file.mount.clone(),
        path_inside: file.path_inside.clone(),
        volume: file.volume.clone(),
        size: Some(file.size),
        state: file.state.clone(),
        write_pattern,
        writers: touchers(snapshot, of(false), stacks),
        readers: touchers(snapshot, of(true), stacks),
        ..figures(&sum)
    }
}

/// Processes by bytes, the first `stacks` with their stack; those beyond the bound are one row.
fn touchers<'a>(snapshot: &Snapshot, of: impl Iterator<Item = (&'a (u64, Option<How>), &'a Touched)>, stacks: usize) -> Vec<FileToucher> {
    let mut found: Vec<(FileToucher, &Touched)> = of
        .map(|((process, how), touched)| {
            let toucher = FileToucher {
                pid: snapshot.names.processes.get(process).map(|process| process.tgid),
                comm: snapshot.names.comm(*process),
                bytes: touched.bytes,
                how: how.map(|how| how.name().to_owned()),
                frames: Vec::new(),
            };
            (toucher, touched)
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| b.bytes.cmp(&a.bytes).then_with(|| (a.pid, &a.comm, &a.how).cmp(&(b.pid, &b.comm, &b.how))));
    for (toucher, touched) in found.iter_mut().take(stacks) {
        let largest = touched.keys.iter().max_by_key(|(key, bytes)| (**bytes, **key)).and_then(|(key, _)| snapshot.names.keys.get(key));
        if let Some(words) = largest {
            toucher.frames = snapshot.names.in_words(&words.stack.frames);
        }
    }
    let mut touchers: Vec<FileToucher> = found.into_iter().map(|(toucher, _)| toucher).collect();
    if touchers.len() > MOST_TOUCHERS {
        let bytes = touchers.drain(MOST_TOUCHERS - 1..).map(|toucher| toucher.bytes).sum();
        touchers.push(FileToucher { comm: OTHER.to_owned(), bytes, ..FileToucher::default() });
    }
    touchers
}

/// In which order a file was written; `None` if there are too few writes to tell.
fn pattern(writes: &mut [(u64, u64)]) -> Option<&'static str> {
    if writes.len() < LEAST_WRITES {
        return None;
    }
    writes.sort_unstable();
    let forward = writes.windows(2).filter(|pair| pair[0].1 < pair[1].1).count();
    Some(if forward * 100 >= (writes.len() - 1) * SEQUENTIAL_PERCENT { "sequential" } else { "scattered" })
}

/// How a kernel stack, innermost frame first, made a file's memory resident: by the first frame that tells. Readahead does not: both
/// reads and faults begin it.
fn how<'a>(mut innermost_first: impl Iterator<Item = &'a str>) -> Option<How> {
    innermost_first.find_map(|frame| {
        let starts = |names: &[&str]| names.iter().any(|name| frame.starts_with(name));
        if starts(&["filemap_fault", "shmem_fault", "handle_mm_fault", "__handle_mm_fault", "do_user_addr_fault", "asm_exc_page_fault"]) {
            Some(How::Map)
        } else if starts(&["generic_perform_write", "iomap_file_buffered_write", "vfs_write", "do_iter_write", "vfs_iter_write"])
            || starts(&["shmem_fallocate", "vfs_fallocate", "shmem_symlink", "vfs_truncate", "do_truncate"])
            || frame.ends_with("_write_iter")
            || frame.ends_with("_write_begin")
        {
            Some(How::Write)
        } else if starts(&[
            "filemap_read",
            "generic_file_buffered_read",
            "filemap_splice_read",
            "vfs_read",
            "vfs_iter_read",
            "do_iter_read",
        ]) || starts(&["ksys_readahead", "vfs_fadvise", "generic_fadvise", "madvise_willneed"])
            || frame.ends_with("_read_iter")
        {
            Some(How::Read)
        } else {
            None
        }
    })
}

/// Writes the cgroup into its file rows, once it is known what it is.
pub(super) fn set_owner(cgroup: &mut Cgroup) {
    let owner = FileOwner {
        cgroup: cgroup.path.clone(),
        container: cgroup.container_name.clone().or_else(|| cgroup.container.clone()),
        state: cgroup.state.clone(),
    };
    for file in &mut cgroup.files {
        file.owner = Some(owner.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(outermost_first: &[&str]) -> Option<How> {
        how(outermost_first.iter().rev().copied())
    }

    #[test]
    fn the_innermost_frame_that_tells_decides() {
        assert_eq!(
            of(&["ksys_write", "vfs_write", "ext4_buffered_write_iter", "generic_perform_write", "ext4_da_write_begin"]),
            Some(How::Write)
        );
        assert_eq!(of(&["vfs_read", "ext4_file_read_iter", "filemap_read", "page_cache_ra_order", "filemap_add_folio"]), Some(How::Read));
        assert_eq!(of(&["handle_mm_fault", "filemap_fault", "page_cache_ra_order", "filemap_add_folio"]), Some(How::Map));
        // The buffer of a write is faulted in from a mapped file.
        assert_eq!(of(&["vfs_write", "generic_perform_write", "fault_in_readable", "asm_exc_page_fault", "filemap_fault"]), Some(How::Map));
        assert_eq!(of(&["kthread", "worker_thread"]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_log_is_written_from_front_to_back() {
        let mut log: Vec<(u64, u64)> = (0..20).rev().map(|n| (n, n * 4096)).collect();
        assert_eq!(pattern(&mut log), Some("sequential"));
        let mut database: Vec<(u64, u64)> = (0..20).map(|n| (n, n * 7919 % 20)).collect();
        assert_eq!(pattern(&mut database), Some("scattered"));
        assert_eq!(pattern(&mut log[..7]), None);
    }
}
