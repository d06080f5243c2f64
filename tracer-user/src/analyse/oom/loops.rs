//! Kills that repeat, and the limits of the whole host against its memory: who grew, not only who died. Pure.

use super::growth::OWN;
use crate::report::autopsy::{Autopsy, Finding, Growth, Victim};
pub use crate::report::loops::{Grower, Killed, Loops, Unlimited};
use crate::{
    cgroup::{CgroupPath, container},
    text::units,
};
use serde_json::json;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Kills so long before now count, seconds.
pub const WINDOW_S: f64 = 900.0;
/// Kills of one unit from which on it is a loop.
const LOOP_KILLS: u64 = 3;
/// The host is short of memory when less than this share of it is available.
const SHORT: f64 = 0.10;
/// A cgroup without a limit counts if it holds this share of the host's memory.
const LARGE: f64 = 0.05;
/// A cgroup whose limit is this share of the host's memory or more stands for the host: /kubepods.
const HOST_LIKE: f64 = 0.5;
/// Rows that are kept of each sort.
const MOST_ROWS: usize = 20;

const LOOP: &str = "oom-loop";
const NO_LIMIT: &str = "no-limit";
const OVERCOMMITTED: &str = "overcommitted-limits";
/// Ids of the verdicts that are made here.
pub const IDS: [&str; 3] = [LOOP, NO_LIMIT, OVERCOMMITTED];

/// A cgroup as last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    /// kernfs id.
    pub id: u64,
    /// kernfs id of the cgroup above.
    pub parent: Option<u64>,
    /// Path.
    pub path: String,
    /// Usage, bytes.
    pub usage: Option<u64>,
    /// Its own limit, bytes; `None` for none.
    pub limit: Option<u64>,
}

/// The host's memory, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// MemTotal.
    pub total: u64,
    /// MemAvailable.
    pub available: u64,
}

/// Looks at the kills of the last quarter of an hour before `now_s` (seconds since the recording began).
#[must_use]
pub fn look(kills: &[Autopsy], now_s: f64, memory: Option<Memory>, cgroups: &[Limited]) -> Loops {
    let kills: Vec<&Autopsy> = kills.iter().filter(|kill| kill.event == "kill" && now_s - kill.at_s <= WINDOW_S).collect();
    let of = |constraint: &str| kills.iter().filter(|kill| kill.constraint.as_deref() == Some(constraint)).count() as u64;
    let tree = Tree::new(cgroups);
    let mut loops = Loops {
        window_s: WINDOW_S,
        kills: kills.len() as u64,
        memcg: of("memcg"),
        global: of("none"),
        victims: victims(&kills),
        growers: growers(&kills),
        memory_bytes: memory.map(|memory| memory.total),
        available_bytes: memory.map(|memory| memory.available),
        ..Loops::default()
    };
    if let Some(memory) = memory {
        loops.unlimited = tree.unlimited(memory.total);
        loops.reserve_bytes =
            tree.promised(None).map(|promised| i64::try_from(i128::from(memory.total) - i128::from(promised)).unwrap_or(i64::MIN));
        if let Some((path, promised, _)) = tree.tightest(memory.total) {
            (loops.limits_bytes, loops.limits_of) = (Some(promised), Some(path));
        }
    }
    loops.verdicts = loops.victims.iter().filter_map(|killed| repeated(killed, &tree)).collect();
    if let Some(memory) = memory.filter(|memory| loops.global > 0 || (memory.available as f64) < SHORT * memory.total as f64) {
        loops.verdicts.extend(no_limit(&loops, memory));
        loops.verdicts.extend(overcommitted(&tree, memory));
    }
    loops
}

/// Pod or container, where the path tells; else the path.
fn unit(cgroup: &str) -> String {
    let identity = CgroupPath::from_bytes(cgroup.as_bytes()).as_ref().and_then(container::identify);
    let identity = identity
        .and_then(|identity| identity.pod.map(|pod| format!("pod {pod}")).or(identity.container.map(|id| format!("container {id}"))));
    identity.unwrap_or_else(|| cgroup.to_owned())
}

/// What grew most before a kill, over its longest window.
pub(super) fn grower(kill: &Autopsy) -> Option<&Growth> {
    let own = || kill.growth.iter().filter(|row| row.kind == OWN && row.bytes > 0);
    let longest = own().map(|row| row.window_s).fold(0.0, f64::max);
    own().filter(|row| row.window_s >= longest).max_by_key(|row| row.bytes)
}

/// Unit and name.
type Named = (String, Option<String>);

fn victims(kills: &[&Autopsy]) -> Vec<Killed> {
    let mut found: BTreeMap<Named, (Killed, HashSet<Option<u32>>)> = BTreeMap::new();
    let all = kills.iter().enumerate().flat_map(|(at, kill)| kill.victims.iter().map(move |victim| (at, *kill, victim)));
    // All of a group die in one kill.
    let mut counted: HashSet<(usize, Named)> = HashSet::new();
    for (at, kill, victim) in all.filter(|(_, _, victim)| victim.already_ending != Some(true)) {
        let Victim { pid, comm, cgroup, oom_score_adj, .. } = victim;
        let unit = cgroup.as_deref().map_or_else(|| "unknown".to_owned(), unit);
        if !counted.insert((at, (unit.clone(), comm.clone()))) {
            continue;
        }
        let (killed, pids) = found
            .entry((unit.clone(), comm.clone()))
            .or_insert_with(|| (Killed { unit, comm: comm.clone(), first_s: kill.at_s, ..Killed::default() }, HashSet::new()));
        pids.insert(*pid);
        killed.kills += 1;
        killed.restarts = (pids.len() as u64).saturating_sub(1);
        killed.last_s = kill.at_s;
        (killed.cgroup, killed.oom_score_adj) = (cgroup.clone(), *oom_score_adj);
        killed.grower = grower(kill).cloned().or(killed.grower.take());
    }
    let mut rows: Vec<Killed> = found.into_values().map(|(killed, _)| killed).collect();
    rows.sort_by(|a, b| b.kills.cmp(&a.kills).then_with(|| (&a.unit, &a.comm).cmp(&(&b.unit, &b.comm))));
    rows.truncate(MOST_ROWS);
    rows
}

fn growers(kills: &[&Autopsy]) -> Vec<Grower> {
    let mut found: BTreeMap<&str, Grower> = BTreeMap::new();
    for row in kills.iter().filter_map(|kill| grower(kill)) {
        let grower = found.entry(&row.cgroup).or_insert_with(|| Grower { cgroup: row.cgroup.clone(), ..Grower::default() });
        grower.kills += 1;
        (grower.bytes, grower.window_s) = (row.bytes, row.window_s);
    }
    let mut rows: Vec<Grower> = found.into_values().collect();
    rows.sort_by(|a, b| b.kills.cmp(&a.kills).then_with(|| b.bytes.cmp(&a.bytes)));
    rows.truncate(MOST_ROWS);
    rows
}

/// The living cgroups by what is above and below them.
struct Tree<'a> {
    by_id: HashMap<u64, &'a Limited>,
    children: HashMap<Option<u64>, Vec<&'a Limited>>,
}

impl<'a> Tree<'a> {
    fn new(cgroups: &'a [Limited]) -> Tree<'a> {
        let by_id: HashMap<u64, &Limited> = cgroups.iter().map(|cgroup| (cgroup.id, cgroup)).collect();
        let mut children: HashMap<Option<u64>, Vec<&Limited>> = HashMap::new();
        for cgroup in cgroups {
            // Above it is nothing that was read: the root is not, where only some are recorded.
            children.entry(cgroup.parent.filter(|parent| by_id.contains_key(parent))).or_default().push(cgroup);
        }
        Tree { by_id, children }
    }

    fn below(&self, id: Option<u64>) -> &[&'a Limited] {
        self.children.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Sum of the outermost limits below a cgroup, or of all that were read; `None` if there is none.
    fn promised(&self, id: Option<u64>) -> Option<u64> {
        let mut sum = None;
        let mut open: Vec<&Limited> = self.below(id).to_vec();
        // Each cgroup is seen once: it has one parent, and a cycle hangs on nothing.
        while let Some(cgroup) = open.pop() {
            match cgroup.limit {
                Some(limit) => sum = Some(sum.unwrap_or(0_u64).saturating_add(limit)),
                None => open.extend(self.below(Some(cgroup.id))),
            }
        }
        sum
    }

    /// Of the host and the cgroups whose limit is most of it, the one whose outermost limits below promise the largest share of it: its
    /// path, the sum, and what it has.
    fn tightest(&self, total: u64) -> Option<(String, u64, u64)> {
        let host = self.promised(None).map(|promised| ("/".to_owned(), promised, total));
        let alike = self.by_id.values().filter_map(|cgroup| {
            let limit = cgroup.limit.filter(|limit| *limit as f64 >= HOST_LIKE * total as f64)?;
            Some((cgroup.path.clone(), self.promised(Some(cgroup.id))?, limit.min(total)))
        });
        let share = |row: &(String, u64, u64)| row.1 as f64 / row.2.max(1) as f64;
        host.into_iter().chain(alike).max_by(|a, b| share(a).total_cmp(&share(b)).then_with(|| b.0.cmp(&a.0)))
    }

    fn is_limited(&self, id: u64) -> bool {
        let line = std::iter::successors(self.by_id.get(&id), |cgroup| self.by_id.get(&cgroup.parent?));
        line.take(256).any(|cgroup| cgroup.limit.is_some())
    }

    fn unlimited(&self, total: u64) -> Vec<Unlimited> {
        let innermost = self.by_id.values().filter(|cgroup| self.below(Some(cgroup.id)).is_empty() && cgroup.path != "/");
        let mut rows: Vec<Unlimited> = innermost
            .filter(|cgroup| !self.is_limited(cgroup.id))
            .filter_map(|cgroup| Some(Unlimited { cgroup: cgroup.path.clone(), usage_bytes: cgroup.usage? }))
            .filter(|row| row.usage_bytes as f64 >= LARGE * total as f64)
            .collect();
        rows.sort_by(|a, b| b.usage_bytes.cmp(&a.usage_bytes).then_with(|| a.cgroup.cmp(&b.cgroup)));
        rows.truncate(MOST_ROWS);
        rows
    }

    /// A cgroup's own limit, `Some(None)` for none; `None` if the cgroup is not there to be asked.
    fn own_limit(&self, path: &str) -> Option<Option<u64>> {
        self.by_id.values().find(|cgroup| cgroup.path == path).map(|cgroup| cgroup.limit)
    }
}

fn finding(cgroup: &str, id: &str, severity: &str, text: String, evidence: &[(&str, serde_json::Value)]) -> Finding {
    let evidence = evidence.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Finding { cgroup: cgroup.to_owned(), id: id.to_owned(), severity: severity.to_owned(), text, evidence }
}

fn lasting(seconds: f64) -> String {
    units::seconds(seconds.round().max(1.0)).unwrap_or_else(|| "?".to_owned())
}

/// A unit that is killed again and again.
fn repeated(killed: &Killed, tree: &Tree<'_>) -> Option<Finding> {
    if killed.kills < LOOP_KILLS {
        return None;
    }
    let comm = killed.comm.as_deref().unwrap_or("a process");
    let again = match killed.restarts {
        0 => String::new(),
        1 => ", started again once".to_owned(),
        n => format!(", started again {n} times"),
    };
    let time = lasting(killed.last_s - killed.first_s);
    let what = format!("{comm} of {} was killed {} times in {time}{again}", killed.unit, killed.kills);
    let own = |grower: &Growth| unit(&grower.cgroup) == killed.unit;
    let (why, action) = match &killed.grower {
        Some(grower) => {
            let grew = format!("by {} in {}", units::bytes(grower.bytes.unsigned_abs()), lasting(grower.window_s));
            if own(grower) {
                (format!("it grew itself, {grew}"), "Find what grows in it, or raise its limit; starting it again does neither.".to_owned())
            } else {
                let path = &grower.cgroup;
                let action = match tree.own_limit(path) {
                    Some(Some(limit)) => format!(
                        "Look at {path} (limit {}) and not at the victim: killing that frees what the other takes.",
                        units::bytes(limit)
                    ),
                    Some(None) => format!("Set a limit on {path}, which has none: killing the victim frees what the other takes."),
                    None => format!("Look at {path} and not at the victim: killing that frees what the other takes."),
                };
                (format!("what grew is {path}, {grew}"), action)
            }
        }
        None => ("what grew is not known".to_owned(), "Record longer, or with a shorter --interval.".to_owned()),
    };
    let evidence = [
        ("kills", json!(killed.kills)),
        ("restarts", json!(killed.restarts)),
        ("unit", json!(killed.unit)),
        ("oom_score_adj", json!(killed.oom_score_adj)),
        ("grower", json!(killed.grower.as_ref().map(|grower| &grower.cgroup))),
        ("grower_bytes", json!(killed.grower.as_ref().map(|grower| grower.bytes))),
        ("grower_window_s", json!(killed.grower.as_ref().map(|grower| grower.window_s))),
    ];
    Some(finding(killed.cgroup.as_deref().unwrap_or("/"), LOOP, "critical", format!("{what}; {why}. {action}"), &evidence))
}

fn no_limit(loops: &Loops, memory: Memory) -> Option<Finding> {
    let largest = loops.unlimited.first()?;
    let sum = loops.unlimited.iter().fold(0_u64, |sum, row| sum.saturating_add(row.usage_bytes));
    let others = match loops.unlimited.len() {
        1 => String::new(),
        n => format!(" and {} more, {} together,", n - 1, units::bytes(sum)),
    };
    let text = format!(
        "{} of {} has no limit, nor has anything above it: it{others} can take all of the host's {}. Set limits on them.",
        largest.cgroup,
        units::bytes(largest.usage_bytes),
        units::bytes(memory.total)
    );
    let evidence =
        [("unlimited", json!(loops.unlimited)), ("memory_bytes", json!(memory.total)), ("available_bytes", json!(memory.available))];
    Some(finding(&largest.cgroup, NO_LIMIT, "warning", text, &evidence))
}

fn overcommitted(tree: &Tree<'_>, memory: Memory) -> Option<Finding> {
    let (path, promised, has) = tree.tightest(memory.total).filter(|(_, promised, has)| promised > has)?;
    let whole = if path == "/" { "the host".to_owned() } else { path.clone() };
    let text = format!(
        "The limits right below {whole} sum to {}, {} % of the {} that it has: cgroups within their limits can run it out of memory. Lower \
         limits, or put less on it, and leave room for the kernel and the system.",
        units::bytes(promised),
        u128::from(promised) * 100 / u128::from(has.max(1)),
        units::bytes(has),
    );
    let evidence = [
        ("limits_bytes", json!(promised)),
        ("capacity_bytes", json!(has)),
        ("memory_bytes", json!(memory.total)),
        ("available_bytes", json!(memory.available)),
    ];
    Some(finding(&path, OVERCOMMITTED, "warning", text, &evidence))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "loops_tests.rs"]
mod tests;
