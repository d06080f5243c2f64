//! OOM kills since the start: how many, of whom, and the autopsies of the last ones. Pure.

use crate::output::metrics::{Owner, collect::Kills};
use crate::report::{Cgroup, Report, autopsy::Autopsy};
use crate::text::date;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Autopsies kept; each is some 40 kB.
const MOST_AUTOPSIES: usize = 256;
/// Owners whose kills are counted apart; of further ones together.
const MOST_OWNERS: usize = 1024;

/// What is known of kills.
#[derive(Clone, Debug, Default)]
pub struct Killed {
    /// Autopsies by their ids, the oldest first.
    pub autopsies: VecDeque<(String, Arc<Autopsy>)>,
    /// By whose processes were the victims.
    pub by_owner: BTreeMap<Owner, Kills>,
    /// By what was at its limit.
    pub by_constraint: BTreeMap<String, u64>,
    total: u64,
}

impl Killed {
    /// Takes a kill in. The report tells whose the victims' cgroups are.
    pub fn add(&mut self, autopsy: Autopsy, report: Option<&Report>) {
        self.total += 1;
        let id = format!("{}-{}", date::compact(&autopsy.time), self.total);
        let constraint = autopsy.constraint.clone().unwrap_or_else(|| "unknown".to_owned());
        *self.by_constraint.entry(constraint).or_default() += 1;
        let last_s = date::parse_rfc3339(&autopsy.time).unwrap_or(0) as f64;
        let mut owners: Vec<Owner> = autopsy.victims.iter().filter_map(|victim| owner(victim.cgroup.as_deref()?, report)).collect();
        owners.sort();
        // A kill of several processes of one container is one kill of it.
        owners.dedup();
        for owner in owners {
            if self.by_owner.len() >= MOST_OWNERS && !self.by_owner.contains_key(&owner) {
                self.fold_the_oldest();
            }
            let kills = self.by_owner.entry(owner).or_default();
            (kills.count, kills.last_s) = (kills.count + 1, last_s);
            kills.last_id.clone_from(&id);
        }
        self.autopsies.push_back((id, Arc::new(autopsy)));
        if self.autopsies.len() > MOST_AUTOPSIES {
            self.autopsies.pop_front();
        }
    }

    /// Makes room: the owner of whom nobody was killed for the longest time is counted with the others.
    fn fold_the_oldest(&mut self) {
        let apart = self.by_owner.iter().filter(|(owner, _)| **owner != owner.folded());
        let Some(oldest) = apart.min_by(|a, b| a.1.last_s.total_cmp(&b.1.last_s)).map(|(owner, _)| owner.clone()) else { return };
        if let Some(gone) = self.by_owner.remove(&oldest) {
            let others = self.by_owner.entry(oldest.folded()).or_default();
            others.count += gone.count;
            if gone.last_s >= others.last_s {
                (others.last_s, others.last_id) = (gone.last_s, gone.last_id);
            }
        }
    }

    /// The autopsy of an id.
    #[must_use]
    pub fn autopsy(&self, id: &str) -> Option<&Arc<Autopsy>> {
        self.autopsies.iter().find(|(other, _)| other == id).map(|(_, autopsy)| autopsy)
    }
}

/// Whose a cgroup is, by its path.
fn owner(path: &str, report: Option<&Report>) -> Option<Owner> {
    let row = report.and_then(|report| report.cgroups.iter().find(|cgroup| cgroup.path == path));
    Some(row.map_or_else(|| Owner::of(&Cgroup { path: path.to_owned(), ..Cgroup::default() }), Owner::of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::autopsy::Victim;

    fn kill(cgroups: &[&str]) -> Autopsy {
        let victim = |path: &&str| Victim { cgroup: Some((*path).to_owned()), ..Victim::default() };
        let victims = cgroups.iter().map(victim).collect();
        Autopsy { time: "2026-12-01T10:11:12Z".to_owned(), constraint: Some("memcg".to_owned()), victims, ..Autopsy::default() }
    }

    #[test]
    fn victims_are_counted_by_container_once_a_kill() {
        let row = Cgroup { path: "/kubepods/a".to_owned(), pod_name: Some("cart".to_owned()), ..Cgroup::default() };
        let report = Report { cgroups: vec![row.clone()], ..Report::default() };
        let mut killed = Killed::default();
        killed.add(kill(&["/kubepods/a", "/kubepods/a", "/b"]), Some(&report));
        killed.add(kill(&["/kubepods/a"]), Some(&report));
        assert_eq!(killed.by_owner[&Owner::of(&row)].count, 2);
        assert_eq!(killed.by_owner[&Owner::of(&row)].last_id, "20261201T101112Z-2");
        assert_eq!(killed.by_owner.values().map(|kills| kills.count).sum::<u64>(), 3);
        assert_eq!(killed.by_constraint, BTreeMap::from([("memcg".to_owned(), 2)]));
        assert!(killed.autopsy("20261201T101112Z-1").is_some() && killed.autopsy("x").is_none());
    }

    #[test]
    fn storms_are_bounded() {
        let mut killed = Killed::default();
        for number in 0..3000 {
            killed.add(kill(&[&format!("/c{number}")]), None);
        }
        assert_eq!(killed.autopsies.len(), MOST_AUTOPSIES);
        assert!(killed.by_owner.len() <= MOST_OWNERS + 1, "{}", killed.by_owner.len());
        assert!(
            killed.by_owner.keys().any(|owner| *owner == Owner::Cgroup { path: "/c2999".to_owned(), name: String::new() }),
            "the last is told"
        );
        assert_eq!(killed.by_owner.values().map(|kills| kills.count).sum::<u64>(), 3000, "each is counted");
    }
}
