//! Names that only the kernel half has: of files, and of cgroups that were gone before the start.

use super::session::{MOST_DEAD, Session};
use crate::{
    analyse::accounts,
    cgroup::CgroupId,
    host::clock::monotonic_ns,
    kernel_half::{BpfError, tables},
};
use std::collections::HashMap;
use tracer_common::{
    attribution::{KeyRecord, Sample},
    dirty::{DirtyKey, DirtyRecord},
    file::FileRecord,
};

/// Most files that are given a place in their table for a report.
const MOST_RENAMED: usize = 1000;

impl Session {
    /// The files of the live samples. Where their table was too small for all, the largest that it does not have take the places of the
    /// smallest: many small files must not hide the one that matters. A file counts with what was made dirty of it too: one of which nothing is
    /// live can be named by nothing else.
    pub(super) fn files_of(
        &mut self,
        samples: &HashMap<u64, Sample>,
        dirtied: &HashMap<DirtyKey, DirtyRecord>,
    ) -> Result<HashMap<u64, FileRecord>, BpfError> {
        let mut files = tables::files(&self.running.bpf)?;
        let mut bytes: HashMap<u64, (u64, u64)> = HashMap::new();
        for (slot, sample) in samples.iter().filter(|(_, sample)| sample.key != 0 && sample.file != 0) {
            bytes.entry(sample.file).or_insert((0, *slot)).0 += accounts::left(sample).0;
        }
        let mut unnamed: Vec<(u64, u64)> = bytes.iter().filter(|(file, _)| !files.contains_key(file)).map(|(_, sum)| *sum).collect();
        if unnamed.is_empty() {
            return Ok(files);
        }
        unnamed.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        unnamed.truncate(MOST_RENAMED);
        let dirtied = self.dirtied_by_file(dirtied);
        let worth = |file: &u64| bytes.get(file).map_or(0, |(bytes, _)| *bytes).max(dirtied.get(file).copied().unwrap_or(0));
        let mut named: Vec<(u64, u64)> = files.keys().map(|file| (worth(file), *file)).collect();
        named.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (bytes, slot) in unnamed {
            let Some((_, file)) = named.pop_if(|(smaller, _)| *smaller < bytes) else { break };
            tables::remove_files(&mut self.running.bpf, &[file])?;
            tables::sweep(&mut self.running.bpf, std::iter::once(slot))?;
        }
        // The records that had to leave were read before.
        files.extend(tables::files(&self.running.bpf)?);
        Ok(files)
    }

    /// Bytes that were made dirty of each file, by those that left the kernel's table too.
    pub(super) fn dirtied_by_file(&self, dirtied: &HashMap<DirtyKey, DirtyRecord>) -> HashMap<u64, u64> {
        let mut bytes: HashMap<u64, u64> = HashMap::new();
        let now = dirtied.iter().map(|(key, record)| (key.file, record));
        for (file, record) in now.chain(self.dirtied.rows().map(|(row, record)| (row.file, record))).filter(|(file, _)| *file != 0) {
            let sum = bytes.entry(file).or_default();
            *sum = sum.saturating_add(record.bytes);
        }
        bytes
    }

    /// Owners that no event and no listing named were removed before the start: the kernel knows their names through what is charged
    /// to them.
    pub(super) fn name_the_dead(&mut self, keys: &HashMap<u64, KeyRecord>, samples: &HashMap<u64, Sample>) -> Result<(), BpfError> {
        let owner_of = |sample: &Sample| keys.get(&sample.key).map(|record| CgroupId(record.key.owner));
        let unknown: HashMap<CgroupId, u64> = samples
            .iter()
            .filter_map(|(slot, sample)| Some((owner_of(sample)?, *slot)))
            .filter(|(owner, _)| self.registry.get(*owner).is_none())
            .collect();
        for slot in unknown.into_values().take(MOST_DEAD) {
            match tables::owner_name(&mut self.running.bpf, slot) {
                Ok(name) => self.registry.learn_dead(&name, monotonic_ns()),
                // A kernel that refuses the program costs the names, nothing else.
                Err(error @ BpfError::Run { .. }) => {
                    log::warn!("cgroups that were removed before the start have no names: {error}");
                    break;
                }
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }
}
