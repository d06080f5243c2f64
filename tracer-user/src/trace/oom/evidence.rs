//! What a picture says of the cgroups below the limit, beyond stacks: their files, and the regions that their processes were last known to
//! have. Reads the kernel half's tables, and asks it which pages of files wait for the disk; `/proc` only for names.

use super::facts::{Tables, was_dead};
use crate::{
    analyse::{accounts, oom::facts::Evidence, rows},
    cgroup::{CgroupId, StatReading},
    host::clock::monotonic_ns,
    kernel_half::{
        picture::{Picture, Seen},
        tables,
    },
    trace::{
        capture, regions,
        session::{Session, SessionError},
        snapshot::{Beside, Depth},
    },
};
use std::collections::{HashMap, HashSet};
use tracer_common::{
    attribution::{BANKS, KeyRecord, Sample},
    kind::Kind,
    oom::OomKill,
};

/// Owners that are looked at, those with most live bytes first.
const MOST_OWNERS: usize = 64;
/// Samples of page cache of which is asked whether they wait for the disk. Each takes a microsecond.
const MOST_SWEPT: usize = 65_536;
/// Keys of files whose stacks are put in words.
const MOST_IN_WORDS: usize = 256;

impl Session {
    /// The evidence for a kill, from its picture: of what is below `top`, or of the whole host.
    pub(super) fn evidence(
        &mut self,
        kill: &OomKill,
        top: Option<u64>,
        picture: &Picture,
        tables: &Tables,
    ) -> Result<Evidence, SessionError> {
        let keys = self.keys_of(top, picture, tables);
        let mut samples: HashMap<u64, Sample> = HashMap::new();
        for Seen { slot, sample, frames } in picture.samples.iter().filter(|seen| keys.contains_key(&seen.sample.key)) {
            let left = i64::try_from(*frames).unwrap_or(i64::MAX);
            samples
                .entry(*slot)
                .and_modify(|known| known.frames_left = known.frames_left.saturating_add(left))
                .or_insert(Sample { frames_left: left, ..*sample });
        }
        let is_file = |sample: &Sample| keys.get(&sample.key).is_some_and(|record| record.key.kind == Kind::File as u32);
        let of_files: Vec<u64> = samples.iter().filter(|(_, sample)| is_file(sample)).map(|(slot, _)| *slot).take(MOST_SWEPT).collect();
        let swept_after_s = monotonic_ns().saturating_sub(kill.at_ns) as f64 / 1e9;
        let swept = tables::sweep(&mut self.running.bpf, of_files.into_iter())?;
        let mut dirtied = tables::dirtied(&self.running.bpf)?;
        let files = self.files_of(&samples, &dirtied)?;
        let owners: HashSet<u64> = keys.values().map(|record| record.key.owner).collect();
        let joined = regions::Tables { keys: &keys, samples: &samples, processes: &tables.processes, mappings: &HashMap::new() };
        let (surveys, ages) = self.ahead.at(kill.at_ns, &joined, |known| owners.contains(&known.owner.0));
        let readings: Vec<(CgroupId, StatReading)> = self
            .oom
            .last
            .iter()
            .filter(|(id, (at_ns, _))| owners.contains(&id.0) && *at_ns < kill.at_ns)
            .map(|(id, (_, reading))| (*id, reading.clone()))
            .collect();
        dirtied.retain(|key, _| owners.contains(&key.owner));
        let in_words = largest_of_files(&keys);
        let tables = capture::Tables {
            keys: &keys,
            samples: &samples,
            swept: &swept,
            stacks: &tables.stacks,
            processes: &tables.processes,
            files: &files,
            totals: &HashMap::new(),
            dirtied: &dirtied,
        };
        // Who mapped a region is told of the living.
        let beside =
            Beside { readings: &readings, above: HashMap::new(), surveys: &surveys, spaces: None, now_ns: kill.at_ns, depth: Depth::Kill };
        let snapshot = self.capture(&tables, beside, |identity| in_words.contains(&identity));
        let rows = rows::evidence(&snapshot).into_iter().map(|(id, mut row)| {
            let dead = self.registry.get(id).is_some_and(|cgroup| was_dead(cgroup, kill.at_ns));
            row.state = if dead { "dead" } else { "alive" }.to_owned();
            (id.0, row)
        });
        Ok(Evidence { cgroups: rows.collect(), swept_after_s, surveyed_before_s: ages })
    }

    /// Keys of what was live, of the largest owners below `top`, or of all: as they were then.
    fn keys_of(&self, top: Option<u64>, picture: &Picture, tables: &Tables) -> HashMap<u64, KeyRecord> {
        let mut owners: HashMap<u64, i64> = HashMap::new();
        for (identity, live) in &picture.keys {
            if let Some(record) = tables.keys.get(identity) {
                *owners.entry(record.key.owner).or_default() += live;
            }
        }
        let mut largest: Vec<(i64, u64)> =
            owners.into_iter().filter(|(owner, _)| self.is_below(*owner, top)).map(|(owner, live)| (live, owner)).collect();
        largest.sort_unstable_by(|a, b| b.cmp(a));
        let kept: HashSet<u64> = largest.into_iter().take(MOST_OWNERS).map(|(_, owner)| owner).collect();
        let mut variances: HashMap<u64, u64> = HashMap::new();
        for Seen { sample, frames, .. } in &picture.samples {
            *variances.entry(sample.key).or_default() += accounts::of_frames(sample, *frames).1;
        }
        let of_then = |(identity, live): (&u64, &i64)| {
            let record = tables.keys.get(identity).filter(|record| kept.contains(&record.key.owner))?;
            Some((*identity, then(record, *live, variances.get(identity).copied().unwrap_or(0))))
        };
        picture.keys.iter().filter_map(of_then).collect()
    }
}

/// The keys of page cache and shmem with most live bytes: whose stacks the rows of files may show.
fn largest_of_files(keys: &HashMap<u64, KeyRecord>) -> HashSet<u64> {
    let of_files = |record: &KeyRecord| record.key.kind == Kind::File as u32 || record.key.kind == Kind::Shmem as u32;
    let live = |(identity, record): (&u64, &KeyRecord)| (accounts::live(record), *identity);
    let mut largest: Vec<(i64, u64)> = keys.iter().filter(|(_, record)| of_files(record)).map(live).collect();
    largest.sort_unstable_by(|a, b| b.cmp(a));
    largest.into_iter().take(MOST_IN_WORDS).map(|(_, identity)| identity).collect()
}

/// The key with so much live and nothing else; its variance in frames squared.
fn then(record: &KeyRecord, live: i64, variance: u64) -> KeyRecord {
    let (mut charged, mut live_variance) = ([0; BANKS], [0; BANKS]);
    (charged[0], live_variance[0]) = (u64::try_from(live).unwrap_or(0), variance);
    KeyRecord { charged, uncharged: [0; BANKS], live_variance, ..*record }
}
