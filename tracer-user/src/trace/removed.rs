//! Removed cgroups that own nothing any more. The latest keep a row of their own; of the others only sums stay, in one row for all of them,
//! so that a host on which containers come and go by the thousand needs no more memory for them than for a few hundred.

use super::{
    dirtied,
    filter::Filter,
    session::{MOST_DEAD, Session, SessionError},
};
use crate::{
    analyse::accounts,
    cgroup::{
        CgroupId, Registry, Version,
        registry::{REMOVED, State},
    },
    kernel_half::{
        BpfError,
        tables::{self, TableId},
    },
};
use std::collections::{HashMap, HashSet};
use tracer_common::{
    attribution::KeyRecord,
    dirty::{DirtyKey, DirtyRecord},
    kind::Kind,
};

/// How many of them keep a row.
const MOST_ROWS: usize = 128;
/// How long the name of a removed cgroup is kept also when it owns nothing, nanoseconds: its last charge may be on its way.
const GRACE_NS: u64 = 10_000_000_000;

/// Which of `named` are folded: removed ones that are not `owning`, but for those that were removed last.
fn folding(registry: &Registry, named: impl Iterator<Item = u64>, owning: &HashSet<u64>) -> HashSet<u64> {
    let removed = |id: u64| match registry.get(CgroupId(id))?.state {
        State::Dead { at_ns, .. } if !owning.contains(&id) => Some((at_ns, id)),
        _ => None,
    };
    let removed: HashSet<(u64, u64)> = named.filter_map(removed).collect();
    let mut removed: Vec<(u64, u64)> = removed.into_iter().collect();
    removed.sort_unstable_by(|a, b| b.cmp(a));
    removed.into_iter().skip(MOST_ROWS).map(|(_, id)| id).collect()
}

fn wanted(registry: &Registry, filter: &Filter, id: u64) -> bool {
    registry.get(CgroupId(id)).is_some_and(|cgroup| filter.wants(&cgroup.path))
}

impl Session {
    /// For a report: puts under one owner, in the tables as they were read for it, what removed cgroups with nothing live were charged, but for
    /// those that were removed last. In the kernel's tables that waits for their retirement.
    pub(super) fn fold_for_report(&mut self, keys: &mut HashMap<u64, KeyRecord>, dirtied: &mut HashMap<DirtyKey, DirtyRecord>) {
        let owning: HashSet<u64> = keys.values().filter(|record| accounts::live(record) != 0).map(|record| record.key.owner).collect();
        let charged: Vec<u64> = keys.values().map(|record| record.key.owner).collect();
        let folded = self.fold(charged.into_iter().chain(dirtied.keys().map(|key| key.owner)), &owning);
        let wanted = |id| wanted(&self.registry, &self.filter, id);
        keys.retain(|_, record| !folded.contains(&record.key.owner) || wanted(record.key.owner));
        for record in keys.values_mut().filter(|record| folded.contains(&record.key.owner)) {
            record.key.owner = REMOVED.0;
        }
        let leaving: Vec<(DirtyKey, DirtyRecord)> = dirtied.extract_if(|key, _| folded.contains(&key.owner)).collect();
        for (_, record) in leaving.into_iter().filter(|(key, _)| wanted(key.owner)) {
            let sum = DirtyKey { owner: REMOVED.0, file: 0, process: 0, user_stack: 0 };
            dirtied.entry(sum).and_modify(|sum| sum.add(&record)).or_insert(record);
        }
    }

    /// Folds what user space keeps of removed cgroups that are not `owning`, but for those that were removed last. Which they are; `named` are
    /// known by the kernel's tables.
    fn fold(&mut self, named: impl Iterator<Item = u64>, owning: &HashSet<u64>) -> HashSet<u64> {
        let named = named.chain(self.retired.owners()).chain(self.histograms.owners());
        let folded = folding(&self.registry, named.chain(self.dirtied.rows().map(|(row, _)| row.owner)), owning);
        let wanted = |id| wanted(&self.registry, &self.filter, id);
        self.retired.fold(&folded, wanted);
        self.histograms.fold(&folded, wanted);
        self.dirtied.fold(&folded, wanted);
        folded
    }

    /// Folds what is over, and forgets the names that nothing needs any more. `keys` and `dirtied` are the tables as of this retirement.
    pub(super) fn fold_removed(
        &mut self,
        keys: &HashMap<u64, KeyRecord>,
        dirtied: &HashMap<DirtyKey, DirtyRecord>,
        now_ns: u64,
    ) -> Result<(), SessionError> {
        self.hand_over_totals()?;
        let owning: HashSet<u64> = keys.values().map(|record| record.key.owner).collect();
        let folded = self.fold(dirtied.keys().map(|key| key.owner), &owning);
        for key in dirtied.keys().filter(|key| folded.contains(&key.owner)) {
            if let Some(record) = tables::take_dirtied(&mut self.running.bpf, key)?
                && wanted(&self.registry, &self.filter, key.owner)
            {
                self.dirtied.add(dirtied::Row::other(REMOVED.0), &record);
            }
        }
        let (rows, kib) = (self.retired.len(), self.retired.bytes() >> 10);
        log::debug!("retirement: {} removed cgroups folded; {rows} rows of what left take {kib} KiB", folded.len());
        let mut kept = owning;
        kept.extend(self.retired.owners().chain(self.histograms.owners()));
        let late = |state| matches!(state, State::Dead { at_ns, .. } if now_ns.saturating_sub(at_ns) < GRACE_NS);
        kept.extend(self.registry.iter().filter(|cgroup| late(cgroup.state)).map(|cgroup| cgroup.id.0));
        // One that is not known may be a new one of which no event has come yet: only those that are forgotten now leave the table of peaks, and
        // where it fills, those of the removed.
        let before: Vec<(u64, State)> = self.registry.iter().map(|cgroup| (cgroup.id.0, cgroup.state)).collect();
        self.registry.retain_dead(|id| kept.contains(&id.0), MOST_DEAD);
        let crowded = tables::peaks(&self.running.bpf)?.len() > self.running.sizes.of(TableId::Peaks) as usize / 2;
        let is_leaving = |(id, state): &(u64, State)| *state != State::Alive && (crowded || self.registry.get(CgroupId(*id)).is_none());
        let gone: Vec<u64> = before.iter().filter(|row| is_leaving(row)).map(|(id, _)| *id).collect();
        tables::remove_peaks(&mut self.running.bpf, &gone)?;
        self.names.retain(self.registry.iter().map(|cgroup| &cgroup.path));
        self.filter.retain(self.registry.iter().map(|cgroup| &cgroup.path));
        Ok(())
    }

    /// Exact totals are compared with the figures of the living: those of the removed leave their table. On v2 they go to the cgroup above that
    /// lives, which is where the kernel counts what they still hold, and where later kernels (7.1) uncharge it. With them goes what they had when
    /// counting began. A late uncharge may bring some back under an id that nobody knows any more, which leave when the table is half full: it may
    /// be that of a new cgroup, too.
    pub(super) fn hand_over_totals(&mut self) -> Result<(), BpfError> {
        if !self.running.totals {
            return Ok(());
        }
        let mut owners: HashSet<u64> = tables::owners_with_totals(&self.running.bpf)?.into_iter().collect();
        let crowded = owners.len() > self.running.sizes.of(TableId::OwnerTotals) as usize / 2;
        owners.extend(self.first.keys().map(|id| id.0).filter(|id| self.registry.get(CgroupId(*id)).is_some()));
        owners.retain(|id| self.registry.get(CgroupId(*id)).map_or(crowded, |cgroup| cgroup.state != State::Alive));
        for owner in owners {
            let totals = tables::take_owner_totals(&mut self.running.bpf, owner)?.unwrap_or_default();
            let first = self.first.remove(&CgroupId(owner));
            let heir = self.registry.ancestry(CgroupId(owner)).find(|cgroup| cgroup.state == State::Alive).map(|cgroup| cgroup.id.0);
            let Some(heir) = heir.filter(|_| self.hierarchy.version == Version::V2) else { continue };
            for kind in Kind::ALL {
                let before = first.as_ref().and_then(|figures| figures.kinds.get(kind.name())).map_or(0, |figure| figure.bytes);
                match totals.net(kind) + before {
                    0 => {}
                    bytes => tables::hand_over(&mut self.running.bpf, heir, kind, bytes)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{CgroupPath, registry::Cgroup};

    #[test]
    fn only_the_longest_removed_that_own_nothing_are_folded() {
        let mut registry = Registry::new(1, 10_000);
        let most = MOST_ROWS as u64;
        for id in 1..=most + 4 {
            let state = if id == 2 { State::Alive } else { State::Dead { at_ns: id, exact: true } };
            let Some(path) = CgroupPath::from_bytes(format!("/c{id}").as_bytes()) else { continue };
            registry.insert_unless_known(Cgroup { id: CgroupId(id), path, path_cut: false, parent: None, depth: 1, state, seen_ns: 0 });
        }
        // Known twice, as by its rows and its distributions; one that is not in the registry at all.
        let named = (1..=most + 4).chain([1, 77_777]);
        assert_eq!(folding(&registry, named, &HashSet::from([1])), HashSet::from([3, 4]));
        assert_eq!(folding(&registry, 1..=most, &HashSet::new()), HashSet::new());
    }
}
