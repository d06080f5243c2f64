//! Retirement: what nobody needs any more leaves the kernel's tables, so that they stay as they are under churn.

use super::words::{self, Symbols as _};
use super::{
    dirtied::{self, Dirtied},
    names::{Names, is_gone},
    retired::Charged,
    session::{Session, SessionError},
};
use crate::report::UNKNOWN_PROCESS;
use crate::{
    cgroup::{CgroupId, registry::State},
    host::{clock::monotonic_ns, lock},
    kernel_half::{
        self,
        tables::{self, TableId},
    },
};
use std::collections::{HashMap, HashSet};
use tracer_common::{
    attribution::KeyRecord,
    dirty::{DirtyKey, DirtyRecord},
    mapping::MappingRecord,
    process::ProcessRecord,
};

/// Longest that one retirement keeps the collector from its readings, nanoseconds, but for the time that the tables take to read, and one
/// batch: what was looked up for it must not be for nothing.
const RETIREMENT_BUDGET_NS: u64 = 400_000_000;
/// Keys whose stacks are named together in a retirement: many, since files and the kernel's symbols may be read for each batch; but the
/// budget is looked at between two.
const RETIREMENT_BATCH: usize = 2048;

/// Most files let go in one retirement: the names in them are looked up before, which takes a reading of each.
const MOST_LET_GO: usize = 64;

impl Session {
    /// Takes what nobody needs any more out of the kernel's tables.
    pub(super) fn retire(&mut self) -> Result<(), SessionError> {
        let began_ns = monotonic_ns();
        // What has nothing live now may have had when an open picture was taken.
        if tables::control(&self.running.bpf)?.open_pictures != 0 {
            return Ok(());
        }
        // Before the tables: whatever stacks go through these files is there.
        let unmet = lock(self.unwinding.files()).idle(usize::MAX, |_| true);
        // Processes after what names them: whatever is named has its record by then, unless it is gone.
        let mapped = self.mappings.as_ref().map(|mappings| mappings.with(|spaces| spaces.named().1)).unwrap_or_default();
        let mappings = if self.mappings.is_some() { kernel_half::mappings::records(&self.running.bpf)? } else { HashMap::new() };
        let keys = tables::keys(&self.running.bpf)?;
        let stacks = tables::stacks(&self.running.bpf)?;
        let processes = self.processes()?;
        let dirtied = tables::dirtied(&self.running.bpf)?;
        let read_ns = monotonic_ns();
        self.occupancy = [
            (TableId::Keys, keys.len()),
            (TableId::Stacks, stacks.len()),
            (TableId::Processes, processes.len()),
            (TableId::Dirtied, dirtied.len()),
        ]
        .map(|(table, entries)| (table.name().to_owned(), entries as u64))
        .into();
        self.marks.named = self.retire_mappings(mappings, &mapped, &processes)?;
        let has_ended = |process: u64| processes.get(&process).is_none_or(is_gone);
        let mut idle = lock(self.unwinding.files()).idle(MOST_LET_GO, has_ended);
        idle.retain(|number| unmet.contains(number));
        if !idle.is_empty() {
            Names::new(self.unwinding.files(), &mut self.symbolizer).learn_of_files(&idle, &stacks);
            // They stay open until what is being read of them is there or is given up.
            if !self.symbolizer.is_reading_any(idle.iter().copied()) {
                self.symbolizer.settle(idle.iter().copied());
                lock(self.unwinding.files()).let_go(&idle);
            }
        }
        let leaving = self.marks.pass(&keys, &stacks, &processes, &dirtied, is_gone, monotonic_ns());
        // Rows are made once and for all, so they wait for their names, unless the tables need the room.
        let may_wait = !self.is_filling();
        let mut names = Names::new(self.unwinding.files(), &mut self.symbolizer);
        let mut left = 0;
        for (n, identity) in leaving.keys.iter().enumerate() {
            if n % RETIREMENT_BATCH == 0 {
                // Naming stacks may take long; those that are over now leave at the next interval, with their marks as old as they are.
                if n > 0 && monotonic_ns().saturating_sub(began_ns) > RETIREMENT_BUDGET_NS {
                    self.last_retirement_ns = 0;
                    break;
                }
                let batch = leaving.keys[n..].iter().take(RETIREMENT_BATCH);
                names.learn(batch.filter_map(|identity| keys.get(identity)), &stacks);
            }
            if may_wait && keys.get(identity).is_some_and(|record| names.is_reading(stacks.get(&record.key.user_stack))) {
                continue;
            }
            left += 1;
            // Read again at the removal: a charge may have come since the pass.
            let Some(record) = tables::take_key(&mut self.running.bpf, *identity)? else { continue };
            let row = words::describe(&mut names, &record, processes.get(&record.key.process), &stacks);
            let charged = Charged {
                bytes: crate::analyse::accounts::charged(&record),
                variance: record.charged_variance,
                samples: record.samples,
                peak: u64::try_from(record.peak_live as i64).unwrap_or(0),
                peak_mark: record.peak_mark,
            };
            self.retired.add(row, charged);
        }
        for key in Dirtied::leaving(&dirtied, self.running.sizes.of(TableId::Dirtied) as usize, read_ns) {
            let process = processes.get(&key.process);
            let comm = process.map_or_else(|| UNKNOWN_PROCESS.to_owned(), |process| names.comm(process));
            let row = dirtied::Row { owner: key.owner, file: key.file, tgid: process.map(|process| process.tgid), comm };
            if let Some(record) = tables::take_dirtied(&mut self.running.bpf, &key)? {
                self.dirtied.add(row, &record);
            }
        }
        self.retire_files(&dirtied)?;
        self.retire_histograms(&keys)?;
        self.fold_removed(&keys, &dirtied, read_ns)?;
        tables::remove_stacks(&mut self.running.bpf, &leaving.stacks)?;
        tables::remove_processes(&mut self.running.bpf, &leaving.processes)?;
        log::debug!(
            "retirement: {} keys, {} stacks, {} processes read in {} us; {}, {} and {} left in {} us more",
            keys.len(),
            stacks.len(),
            processes.len(),
            read_ns.saturating_sub(began_ns) / 1000,
            left,
            leaving.stacks.len(),
            leaving.processes.len(),
            monotonic_ns().saturating_sub(read_ns) / 1000
        );
        Ok(())
    }

    /// Whether a table of what processes leave behind was a quarter full at the last retirement.
    pub(super) fn is_filling(&self) -> bool {
        let sizes = &self.running.sizes;
        let tables = [TableId::Keys, TableId::Stacks, TableId::Processes];
        tables.into_iter().any(|table| self.occupancy.get(table.name()).is_some_and(|entries| *entries > u64::from(sizes.of(table)) / 4))
    }

    /// Distributions of cgroups that are gone and own nothing.
    fn retire_histograms(&mut self, keys: &HashMap<u64, KeyRecord>) -> Result<(), SessionError> {
        let owning: HashSet<u64> = keys.values().map(|record| record.key.owner).collect();
        let state = |owner: u64| self.registry.get(CgroupId(owner)).map(|cgroup| cgroup.state);
        // One without a name may be a new one of which no event has come yet.
        let is_over = |owner| matches!(state(owner), Some(State::Dead { .. })) && !owning.contains(&owner);
        let is_gone = |owner| state(owner) != Some(State::Alive);
        Ok(self.histograms.retire(&mut self.running.bpf, self.running.sizes.of(TableId::Histograms), is_over, is_gone)?)
    }

    /// Forgets the mappings of processes that are gone: their ranges at once if they were known `before` the processes were read, what they
    /// asked for when its table is a quarter full. The stacks and processes that the others name.
    fn retire_mappings(
        &mut self,
        mut records: HashMap<u64, MappingRecord>,
        before: &HashSet<u64>,
        processes: &HashMap<u64, ProcessRecord>,
    ) -> Result<(HashSet<u64>, HashSet<u64>), SessionError> {
        let Some(mappings) = &self.mappings else { return Ok(Default::default()) };
        let gone = |process: &u64| processes.get(process).is_none_or(is_gone);
        let (mut stacks, mut named) = mappings.with(|spaces| {
            spaces.retain(|process| !before.contains(&process) || !gone(&process));
            spaces.named()
        });
        self.occupancy.insert(TableId::Mappings.name().to_owned(), records.len() as u64);
        if records.len() > self.running.sizes.of(TableId::Mappings) as usize / 4 {
            let leaving: Vec<u64> = records.extract_if(|_, record| gone(&record.key.process)).map(|(identity, _)| identity).collect();
            kernel_half::mappings::remove(&mut self.running.bpf, &leaving)?;
        }
        for record in records.values() {
            stacks.insert(record.key.user_stack);
            named.insert(record.key.process);
        }
        Ok((stacks, named))
    }

    /// Files of which nothing is live leave their table, once it is half full: finding them takes a look at every sample. Those of which most
    /// was made dirty stay, as many as fill a quarter of it: nothing else names them any more.
    fn retire_files(&mut self, dirtied: &HashMap<DirtyKey, DirtyRecord>) -> Result<(), SessionError> {
        let files = tables::known_files(&self.running.bpf)?;
        self.occupancy.insert(TableId::Files.name().to_owned(), files.len() as u64);
        if files.len() < self.running.sizes.of(TableId::Files) as usize / 2 {
            return Ok(());
        }
        let mut named = tables::files_of_samples(&self.running.bpf)?;
        let mut by_bytes: Vec<(u64, u64)> = self.dirtied_by_file(dirtied).into_iter().map(|(file, bytes)| (bytes, file)).collect();
        by_bytes.sort_unstable_by(|a, b| b.cmp(a));
        named.extend(by_bytes.into_iter().take(self.running.sizes.of(TableId::Files) as usize / 4).map(|(_, file)| file));
        let leaving = self.marks.files(files.into_iter(), &named, monotonic_ns());
        tables::remove_files(&mut self.running.bpf, &leaving)?;
        log::debug!("retirement: {} files left", leaving.len());
        Ok(())
    }
}
