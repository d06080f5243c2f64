//! What is known of one kill, put together: its cgroups with their last readings, and what was live by stack.

use super::late::{Known, Late};
use crate::trace::words::{self, Symbols as _};
use crate::{
    analyse::{
        accounts,
        oom::{
            KillFacts,
            facts::{Place, Reading, WINDOWS_S},
            figures, growth, judge,
        },
    },
    cgroup::{
        CgroupId, container,
        registry::{Cgroup, State},
    },
    host::clock::monotonic_ns,
    kernel_half::{
        events::oom::known,
        picture::{Picture, Seen},
        stack::Stack,
    },
    report::autopsy::{Growth, LiveStack},
    text::date,
    trace::{
        names::Names,
        session::{Session, SessionError},
    },
};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};
use tracer_common::{
    attribution::{KEY_BASELINE, KEY_OWN, KeyRecord},
    kind::Kind,
    oom::{OomKill, OomVictim, UNKNOWN},
    process::ProcessRecord,
};

/// Stacks kept of a picture.
const MOST_STACKS: usize = 64;
/// Cgroups that an autopsy knows besides the levels: those below the limit.
const MOST_PLACES: usize = 1024;

/// The kernel half's tables, read once for all kills of a batch.
pub(super) struct Tables {
    pub(super) keys: HashMap<u64, KeyRecord>,
    pub(super) stacks: HashMap<u64, Stack>,
    pub(super) processes: HashMap<u64, ProcessRecord>,
}

impl Tables {
    fn known(&self) -> Known<'_> {
        Known { stacks: &self.stacks, processes: &self.processes }
    }
}

impl Session {
    /// Everything that the autopsy of this kill is made from, but for its victims, which come later.
    ///
    /// With it come the stacks whose names are still looked for.
    pub(super) fn facts(
        &mut self,
        kill: OomKill,
        picture: Option<Picture>,
        tables: &Tables,
    ) -> Result<(KillFacts, Vec<Late>), SessionError> {
        let now_ns = monotonic_ns();
        let ago = Duration::from_nanos(now_ns.saturating_sub(kill.at_ns));
        let time = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut places = HashMap::new();
        let ids = kill.levels.iter().take(kill.level_count as usize).map(|level| level.cgroup);
        for id in ids.chain(kill.trigger_levels).chain([kill.limit, kill.trigger.cgroup]).filter(|id| *id != 0 && *id != UNKNOWN) {
            places.entry(id).or_insert_with(|| self.place(id, kill.at_ns));
        }
        let levels: HashSet<u64> = places.keys().copied().collect();
        // Those right below a level: the limit is one of them.
        let below: Vec<u64> = self
            .registry
            .iter()
            .filter(|cgroup| cgroup.parent.is_some_and(|parent| levels.contains(&parent.0)))
            .map(|cgroup| cgroup.id.0)
            .take(MOST_PLACES)
            .collect();
        for id in below {
            places.entry(id).or_insert_with(|| self.place(id, kill.at_ns));
        }
        let mut names = Names::new(self.unwinding.files(), &mut self.symbolizer);
        let user_stack = tables
            .stacks
            .get(&kill.user_stack)
            .and_then(|stack| Some(names.user(tables.processes.get(&kill.trigger.process)?, Some(stack)).frames));
        let mut late: Vec<Late> = Late::trigger(kill.trigger.process, kill.user_stack, &tables.known(), &mut names).into_iter().collect();
        let kernel_stack = tables.stacks.get(&kill.kernel_stack).map(|stack| names.kernel(stack));
        // Probes on the way: they say nothing of the kernel's own.
        let kernel_stack = kernel_stack.map(|frames| frames.into_iter().filter(|frame| !frame.starts_with("bpf_")).collect());
        let judgement = judge::judge(&kill, kernel_stack.as_deref(), self.oom.one_node);
        let top = outermost(&kill).filter(|_| judgement.constraint != Some("none"));
        let (stacks, evidence) = match &picture {
            Some(picture) => {
                let (stacks, late_rows) = self.live_stacks(&kill, top, picture, tables);
                late.extend(late_rows);
                (Some(stacks), Some(self.evidence(&kill, top, picture, tables)?))
            }
            None => (None, None),
        };
        let growers = self.growers(kill.at_ns);
        // Owners of stacks and what grew, down to which the tree must be known.
        let owners = stacks.iter().flatten().map(|(owner, _)| *owner).chain(growers.iter().map(|(id, _)| *id));
        let owners = owners.chain(evidence.iter().flat_map(|evidence| evidence.cgroups.iter().map(|(owner, _)| *owner)));
        for owner in owners.collect::<HashSet<u64>>() {
            let line: Vec<u64> = self.registry.ancestry(CgroupId(owner)).map(|cgroup| cgroup.id.0).collect();
            for id in line {
                places.entry(id).or_insert_with(|| self.place(id, kill.at_ns));
            }
        }
        let facts = KillFacts {
            warning: None,
            victims: Vec::new(),
            time: date::rfc3339(time),
            at_s: kill.at_ns.saturating_sub(self.started_ns) as f64 / 1e9,
            version: self.hierarchy.version,
            page_bytes: u64::from(self.host.facts.page_size),
            one_node: self.oom.one_node,
            trusted: self.oom.trusted,
            places,
            stacks,
            evidence,
            growers,
            user_stack,
            kernel_stack,
            victim_stacks: HashMap::new(),
            logged_limit: None,
            kill,
        };
        Ok((facts, late))
    }

    /// What grew for itself, of all cgroups with a history.
    fn growers(&self, at_ns: u64) -> Vec<(u64, Growth)> {
        let nodes: Vec<growth::Node<'_>> = self
            .oom
            .histories
            .iter()
            .filter_map(|(id, history)| {
                let parent = self.registry.get(*id)?.parent.map(|parent| parent.0);
                Some(growth::Node { id: id.0, parent, path: self.registry.name(*id), history })
            })
            .collect();
        growth::of_their_own(&nodes, at_ns.saturating_sub(self.started_ns) as f64 / 1e9)
    }

    /// A further victim of a group may lie in a cgroup of its own.
    pub(super) fn add_place(&mut self, victim: &OomVictim) {
        let Some(id) = known(victim.task.cgroup).filter(|id| *id != 0) else { return };
        let place = self.place(id, victim.at_ns);
        let path = self.path_of(id);
        if let Some(kept) = self.oom.cases.iter_mut().rfind(|kept| kept.number == victim.number) {
            kept.cgroups.extend(path.filter(|path| !kept.cgroups.contains(path)));
            if let Some(case) = kept.facts() {
                case.places.entry(id).or_insert(place);
            }
        }
    }

    /// Whether a cgroup is `top` or below it; without one, every cgroup is.
    pub(super) fn is_below(&self, id: u64, top: Option<u64>) -> bool {
        top.is_none_or(|top| self.registry.ancestry(CgroupId(id)).any(|cgroup| cgroup.id.0 == top))
    }

    fn place(&self, id: u64, at_ns: u64) -> Place {
        let cgroup = self.registry.get(CgroupId(id));
        let identity = cgroup.and_then(|cgroup| container::identify(&cgroup.path));
        let read = self.oom.last.get(&CgroupId(id)).filter(|(read_ns, _)| *read_ns < at_ns);
        Place {
            path: self.registry.name(CgroupId(id)),
            pod: identity.as_ref().and_then(|identity| identity.pod.clone()),
            container: identity.and_then(|identity| identity.container),
            dead: cgroup.is_some_and(|cgroup| was_dead(cgroup, at_ns)),
            parent: cgroup.and_then(|cgroup| cgroup.parent).map(|parent| parent.0),
            read: read.map(|(read_ns, reading)| Reading {
                age_s: at_ns.saturating_sub(*read_ns) as f64 / 1e9,
                usage: reading.usage,
                kinds: reading.subtree.kinds.iter().map(|(kind, figure)| ((*kind).to_owned(), figure.bytes)).collect(),
                active_file: reading.subtree.active_file,
                inactive_file: reading.subtree.inactive_file,
                dirty: reading.subtree.dirty,
                writeback: reading.subtree.writeback,
            }),
            history: self.oom.histories.get(&CgroupId(id)).cloned().unwrap_or_default(),
        }
    }

    /// What was live, by owner and stack, largest first: as many as are kept, of those below `top`, or of all; and those of them whose names
    /// are still looked for.
    fn live_stacks(&mut self, kill: &OomKill, top: Option<u64>, picture: &Picture, tables: &Tables) -> (Vec<(u64, LiveStack)>, Vec<Late>) {
        #[derive(Default)]
        struct Sum {
            live: i64,
            variance: u64,
            young: [u64; 3],
        }
        let within = |owner: u64| self.is_below(owner, top);
        let mut sums: HashMap<u64, Sum> = HashMap::new();
        for (identity, live) in &picture.keys {
            if tables.keys.get(identity).is_some_and(|record| within(record.key.owner)) {
                sums.entry(*identity).or_default().live += live;
            }
        }
        for Seen { sample, frames, .. } in &picture.samples {
            let Some(sum) = sums.get_mut(&sample.key) else { continue };
            let (bytes, variance) = accounts::of_frames(sample, *frames);
            sum.variance += variance;
            let age_s = kill.at_ns.saturating_sub(sample.charged_ns) as f64 / 1e9;
            for (young, window) in sum.young.iter_mut().zip(WINDOWS_S) {
                *young += if age_s <= window { bytes } else { 0 };
            }
        }
        let mut largest: Vec<(u64, Sum)> = sums.into_iter().filter(|(_, sum)| sum.live > 0).collect();
        largest.sort_by(|a, b| b.1.live.cmp(&a.1.live).then_with(|| a.0.cmp(&b.0)));
        // Rows of equal words are added up below; twice as many keys make rows enough.
        largest.truncate(4 * MOST_STACKS);
        let mut names = Names::new(self.unwinding.files(), &mut self.symbolizer);
        names.learn(largest.iter().filter_map(|(identity, _)| tables.keys.get(identity)), &tables.stacks);
        let mut rows: Vec<(u64, LiveStack, u64, &KeyRecord)> = Vec::new();
        for (identity, sum) in largest {
            let Some(record) = tables.keys.get(&identity) else { continue };
            let process = tables.processes.get(&record.key.process);
            let baseline = record.key.flags & KEY_BASELINE != 0;
            let words = words::describe(&mut names, record, process, &tables.stacks);
            let dead = self.registry.get(CgroupId(record.key.owner)).is_some_and(|cgroup| was_dead(cgroup, kill.at_ns));
            let kind = u8::try_from(record.key.kind).ok().and_then(Kind::from_number).map_or("unknown", Kind::name);
            let own = record.key.flags & KEY_OWN != 0;
            let row = LiveStack {
                cgroup: self.registry.name(CgroupId(record.key.owner)),
                state: if dead { "dead" } else { "alive" }.to_owned(),
                kind: kind.to_owned(),
                pid: if baseline || own { None } else { process.map(|process| process.tgid) },
                comm: if baseline { "[before start]".to_owned() } else { words.comm },
                status: words.status,
                frames: if baseline { vec!["[before start]".to_owned()] } else { words.frames },
                live: u64::try_from(sum.live).unwrap_or(0),
                live_stderr: 0,
                young: sum.young,
            };
            let same = |other: &LiveStack| {
                (&other.cgroup, &other.kind, other.pid, &other.comm, &other.frames)
                    == (&row.cgroup, &row.kind, row.pid, &row.comm, &row.frames)
            };
            match rows.iter_mut().find(|(owner, other, ..)| *owner == record.key.owner && same(other)) {
                Some((_, other, variance, _)) => {
                    other.live += row.live;
                    *variance += sum.variance;
                    other.young.iter_mut().zip(row.young).for_each(|(sum, young)| *sum += young);
                }
                None => rows.push((record.key.owner, row, sum.variance, record)),
            }
        }
        rows.sort_by_key(|(_, row, ..)| std::cmp::Reverse(row.live));
        rows.truncate(MOST_STACKS);
        let is_named = |record: &KeyRecord| record.key.flags & (KEY_BASELINE | KEY_OWN) == 0;
        let named = rows.iter().enumerate().filter(|(_, (.., record))| is_named(record));
        let late = named.filter_map(|(at, (.., record))| Late::row(at, record, &tables.known(), &mut names)).collect();
        let with_error = |(owner, row, variance, _)| (owner, LiveStack { live_stderr: accounts::standard_error(variance), ..row });
        (rows.into_iter().map(with_error).collect(), late)
    }
}

/// The outermost of the victim's cgroups that has a limit: that of the kill is it or below it.
fn outermost(kill: &OomKill) -> Option<u64> {
    let levels = &kill.levels[..(kill.level_count as usize).min(kill.levels.len())];
    levels.iter().rfind(|level| figures::limit_pages(level).is_some()).map(|level| level.cgroup)
}

/// Whether the cgroup was gone at that moment. One that was removed since was alive then; one that was never seen alive was gone before.
pub(super) fn was_dead(cgroup: &Cgroup, then_ns: u64) -> bool {
    match cgroup.state {
        State::Alive => false,
        State::Dead { at_ns, exact } => at_ns <= then_ns || (!exact && cgroup.seen_ns == at_ns),
    }
}
