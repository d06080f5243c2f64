//! The autopsy: what came from the kernel, the frozen picture, the readings and their history, put together. Pure.

use super::{
    evidence::{self, Evidence},
    figures::{self, Figure},
    growth,
    judge::{self, Judgement},
    source,
};
use crate::{analyse::accounts::history::History, cgroup::Version, text::units};
use crate::{
    kernel_half::events::oom::{known, pages},
    report::autopsy::{Autopsy, Growth, Level, LiveStack, Moment, Sibling, Trigger, Victim},
};
use std::collections::{BTreeMap, HashMap};
use tracer_common::oom::{OOM_CONTROL, OOM_CUT, OOM_EARLY, OOM_NOT_FROZEN, OOM_REFUSED, OOM_STATS, OomKill, OomLevel, OomTask, OomVictim};

/// Windows of growth, seconds.
pub const WINDOWS_S: [f64; 3] = [60.0, 300.0, 900.0];
/// Stacks, siblings and rows of growth that an autopsy keeps.
const MOST_ROWS: usize = 20;

/// What is known of a cgroup by its id.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Path, or that it is unknown.
    pub path: String,
    /// Pod.
    pub pod: Option<String>,
    /// Container.
    pub container: Option<String>,
    /// It was removed.
    pub dead: bool,
    /// kernfs id of the cgroup above.
    pub parent: Option<u64>,
    /// The last reading of its files before the kill.
    pub read: Option<Reading>,
    /// Readings over time.
    pub history: History,
}

/// A reading of a cgroup's files.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Seconds before the kill.
    pub age_s: f64,
    /// Usage.
    pub usage: Option<u64>,
    /// Bytes by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Page cache on the active list, bytes.
    pub active_file: Option<u64>,
    /// Page cache on the inactive list, bytes.
    pub inactive_file: Option<u64>,
    /// Dirty page cache, bytes.
    pub dirty: Option<u64>,
    /// Under writeback, bytes.
    pub writeback: Option<u64>,
}

/// Why a warning is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warning {
    /// This share of the limit is held, or more.
    Share(f64),
    /// At its present slope the limit is reached in so many seconds.
    Within(f64),
    /// v1: the limit is met, killing is off there, and tasks wait for memory.
    Waiting,
}

/// Everything that an autopsy is made from.
#[derive(Clone, Debug)]
pub struct Case {
    /// Nobody was killed: why this is told.
    pub warning: Option<Warning>,
    /// The kernel half's event; for a warning, made from a reading.
    pub kill: OomKill,
    /// Its victims, in order.
    pub victims: Vec<OomVictim>,
    /// Wall clock, RFC 3339.
    pub time: String,
    /// Seconds since the start of the recording.
    pub at_s: f64,
    /// Interface of the memory hierarchy.
    pub version: Version,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// The host has one memory node.
    pub one_node: bool,
    /// Which figures of memory.stat are read rightly by their number (see [`figures::stat`]).
    pub trusted: [bool; OOM_STATS],
    /// Cgroups by kernfs id: all levels, and those below the innermost limit.
    pub places: HashMap<u64, Place>,
    /// What was live, by owner; `None` without a picture. Dead owners included.
    pub stacks: Option<Vec<(u64, LiveStack)>>,
    /// Files and regions; `None` without a picture.
    pub evidence: Option<Evidence>,
    /// Cgroups by what they grew for themselves (see [`growth::of_their_own`]).
    pub growers: Vec<(u64, Growth)>,
    /// The trigger's stacks, outermost first.
    pub user_stack: Option<Vec<String>>,
    /// See `user_stack`.
    pub kernel_stack: Option<Vec<String>>,
    /// Kernel stacks of victims by identity.
    pub victim_stacks: HashMap<u64, Vec<String>>,
    /// What only the kernel's log told: limit's path. `None` where it was not asked.
    pub logged_limit: Option<String>,
}

/// Makes the autopsy.
#[must_use]
pub fn autopsy(case: &Case) -> Autopsy {
    let kill = &case.kill;
    let judgement = judge::judge(kill, case.kernel_stack.as_deref(), case.one_node);
    let level = levels(kill).iter().find(|level| Some(level.cgroup) == judgement.limit);
    let mut sources = BTreeMap::new();
    let mut from = |field: &str, source: Option<&str>| {
        if let Some(source) = source {
            sources.insert(field.to_owned(), source.to_owned());
        }
    };
    from("constraint", judgement.constraint_source.filter(|_| case.warning.is_none()));
    let mut autopsy = Autopsy {
        time: case.time.clone(),
        at_s: case.at_s,
        event: if case.warning.is_some() { "warning" } else { "kill" }.to_owned(),
        constraint: judgement.constraint.map(str::to_owned),
        trigger: case.warning.is_none().then(|| trigger(case)),
        victims: case.victims.iter().map(|victim| self::victim(case, victim)).collect(),
        group_kill: group_kill(case, &judgement),
        levels: levels(kill).iter().map(|level| self::level(case, level)).collect(),
        picture: picture(case).to_owned(),
        ..Autopsy::default()
    };
    let probe = if case.warning.is_some() { source::NOW } else { source::PROBE };
    from("levels", Some(probe));
    if case.warning.is_none() {
        from("trigger", Some(probe));
        from("victims", Some(probe));
    }
    if kill.flags & OOM_CONTROL != 0 && case.warning.is_none() {
        autopsy.order = Some(kill.order).filter(|order| *order != u32::MAX);
        autopsy.gfp_mask = Some(kill.gfp_mask).filter(|mask| *mask != u32::MAX);
        autopsy.total_pages = known(kill.total_pages);
        for field in ["order", "gfp_mask", "total_pages"] {
            from(field, Some(source::PROBE));
        }
    }
    if let Some(id) = judgement.limit {
        autopsy.limit_cgroup = Some(path(case, id));
        from("limit_cgroup", if case.warning.is_some() { Some(probe) } else { judgement.limit_source });
    } else if judgement.constraint == Some("memcg") && case.logged_limit.is_some() {
        autopsy.limit_cgroup.clone_from(&case.logged_limit);
        from("limit_cgroup", Some(source::LOG));
    }
    // The limit's own level, or for a global kill the outermost one: the root's, if it is among them.
    let whole = level.or_else(|| levels(kill).last().filter(|_| judgement.constraint == Some("none") && kill.flags & OOM_CUT == 0));
    if let Some(level) = level {
        autopsy.limit_bytes = figures::limit_pages(level).and_then(|max| pages(max, case.page_bytes));
        autopsy.usage_bytes = figures::usage(level, case.page_bytes);
        autopsy.failcnt = figures::failcnt(level, case.version);
        for field in ["limit_bytes", "usage_bytes", "failcnt"] {
            from(field, Some(probe));
        }
    }
    if let Some(whole) = whole {
        let mut kinds = figures::by_kind(whole, case.version, &case.trusted, case.page_bytes, &older(case, whole.cgroup));
        evidence::correct_stale(case, whole, &mut kinds);
        for (kind, figure) in kinds {
            from(&format!("before.{kind}"), Some(&figure.source));
            autopsy.before.insert(kind, Some(figure.bytes));
        }
        autopsy.siblings = siblings(case, whole.cgroup);
        autopsy.series = series(case, whole, &autopsy);
    }
    if let Some(stacks) = &case.stacks {
        let within = |owner: u64| whole.is_none_or(|whole| is_below(case, owner, whole.cgroup));
        let mut rows: Vec<&LiveStack> = stacks.iter().filter(|(owner, _)| within(*owner)).map(|(_, row)| row).collect();
        rows.sort_by(|a, b| b.live.cmp(&a.live).then_with(|| a.frames.cmp(&b.frames)));
        autopsy.stacks = rows.into_iter().take(MOST_ROWS).cloned().collect();
        from("stacks", Some(if case.warning.is_some() { source::LIVE } else { source::PICTURE }));
    }
    autopsy.sources = sources;
    if let Some(whole) = whole {
        autopsy.growth = growth::rows(case, whole, &autopsy);
    }
    evidence::add(case, whole, &mut autopsy);
    autopsy.verdict = Some(super::sentence::sentence(&autopsy, case.warning));
    evidence::shorten(&mut autopsy);
    autopsy
}

pub(super) fn levels(kill: &OomKill) -> &[OomLevel] {
    kill.levels.get(..kill.level_count as usize).unwrap_or_default()
}

fn path(case: &Case, id: u64) -> String {
    case.places.get(&id).map_or_else(|| format!("[unknown cgroup {id}]"), |place| place.path.clone())
}

fn comm(task: &OomTask) -> Option<String> {
    let end = task.comm.iter().position(|byte| *byte == 0).unwrap_or(task.comm.len());
    (end > 0).then(|| crate::text::escape_bytes(&task.comm[..end]))
}

fn trigger(case: &Case) -> Trigger {
    let task = &case.kill.trigger;
    Trigger {
        pid: Some(task.tgid).filter(|pid| *pid != 0),
        tid: Some(task.tid).filter(|tid| *tid != 0),
        comm: comm(task),
        cgroup: known(task.cgroup).map(|id| path(case, id)),
        user_stack: case.user_stack.clone(),
        kernel_stack: case.kernel_stack.clone(),
    }
}

fn victim(case: &Case, victim: &OomVictim) -> Victim {
    let place = case.places.get(&victim.task.cgroup);
    let bytes = |number| pages(number, case.page_bytes);
    let killed = case.victim_stacks.get(&victim.kernel_stack).and_then(|stack| was_killed(stack));
    Victim {
        pid: [victim.task.tgid, victim.task.tid].into_iter().find(|pid| *pid != 0),
        comm: comm(&victim.task),
        cgroup: known(victim.task.cgroup).map(|id| path(case, id)),
        container: place.and_then(|place| place.container.clone()),
        oom_score_adj: Some(victim.score_adj).filter(|adjustment| *adjustment != i32::MAX),
        anon: bytes(victim.anon),
        file: bytes(victim.file),
        shmem: bytes(victim.shmem),
        swap: bytes(victim.swap),
        pagetables: known(victim.pagetables),
        total_vm: bytes(victim.total_vm),
        already_ending: killed.map(|killed| !killed),
    }
}

/// Whether the marking came from a kill; `None` if the stack does not tell.
fn was_killed(stack: &[String]) -> Option<bool> {
    let has = |name: &str| stack.iter().any(|frame| frame.trim_end_matches("_[k]").starts_with(name));
    if has("__oom_kill_process") || has("oom_kill_memcg_member") {
        Some(true)
    } else if has("out_of_memory") || has("oom_kill_process") {
        Some(false)
    } else {
        None
    }
}

/// The kernel kills a whole group if one of the cgroups from the victim's up to the limit's says so.
fn group_kill(case: &Case, judgement: &Judgement) -> Option<bool> {
    use tracer_common::oom::LEVEL_GROUP;
    judgement.constraint?;
    let end = match judgement.limit {
        Some(id) => levels(&case.kill).iter().position(|level| level.cgroup == id)? + 1,
        None => levels(&case.kill).len(),
    };
    Some(levels(&case.kill)[..end].iter().any(|level| level.flags & LEVEL_GROUP != 0))
}

fn level(case: &Case, level: &OomLevel) -> Level {
    Level {
        cgroup: path(case, level.cgroup),
        usage_bytes: figures::usage(level, case.page_bytes),
        limit_bytes: figures::limit_pages(level).and_then(|max| pages(max, case.page_bytes)),
        failcnt: figures::failcnt(level, case.version),
    }
}

fn picture(case: &Case) -> &'static str {
    if case.warning.is_some() {
        "live"
    } else if case.stacks.is_some() {
        "frozen"
    } else if case.kill.flags & OOM_NOT_FROZEN != 0 {
        "not frozen: as many as there can be were open"
    } else if case.kill.flags & OOM_REFUSED != 0 {
        "not frozen: outside the filter"
    } else if case.kill.flags & OOM_EARLY != 0 {
        "not frozen: the recording was beginning"
    } else {
        "not frozen"
    }
}

/// Kinds of the last reading of its files, for those that the kernel half could not read.
fn older(case: &Case, id: u64) -> BTreeMap<String, Figure> {
    let Some(reading) = case.places.get(&id).and_then(|place| place.read.as_ref()) else { return BTreeMap::new() };
    let source = source::files(reading.age_s);
    // Parts of `kernel` are in it.
    let kinds = reading.kinds.iter().filter(|(kind, _)| !kind.contains('.'));
    kinds.filter_map(|(kind, bytes)| Some((kind.clone(), Figure { bytes: i64::try_from(*bytes).ok()?, source: source.clone() }))).collect()
}

/// The cgroup and those above it.
fn ancestry(case: &Case, id: u64) -> impl Iterator<Item = u64> {
    // As deep as paths can be; a cycle in what came from outside ends there.
    std::iter::successors(Some(id), |id| case.places.get(id).and_then(|place| place.parent)).take(256)
}

pub(super) fn is_below(case: &Case, id: u64, above: u64) -> bool {
    ancestry(case, id).any(|id| id == above)
}

/// Cgroups right below the limit's: those on the victim's path as of the kill, others as last read, the dead by what they still hold.
fn siblings(case: &Case, above: u64) -> Vec<Sibling> {
    // What the picture found in each, with the variance.
    let mut held: HashMap<u64, (u64, f64)> = HashMap::new();
    for (owner, row) in case.stacks.iter().flatten() {
        let below = ancestry(case, *owner).find(|id| case.places.get(id).is_some_and(|place| place.parent == Some(above)));
        let (sum, variance) = held.entry(below.unwrap_or(*owner)).or_default();
        *sum += row.live;
        *variance += (row.live_stderr as f64).powi(2);
    }
    // A reading that is older than the growth of a cgroup says less than the picture.
    let outgrown =
        |id: &u64, read: u64| held.get(id).filter(|(sum, variance)| *sum as f64 > read as f64 + 3.0 * variance.sqrt()).map(|(sum, _)| *sum);
    let below = case.places.iter().filter(|(_, place)| place.parent == Some(above));
    let mut siblings: Vec<Sibling> = below
        .filter_map(|(id, place)| {
            let at_kill =
                levels(&case.kill).iter().find(|level| level.cgroup == *id).and_then(|level| figures::usage(level, case.page_bytes));
            let read = || place.read.as_ref().and_then(|reading| Some((reading.usage?, source::files(reading.age_s))));
            let (usage, source) = match (at_kill, read()) {
                (Some(usage), _) => (usage, source::PROBE.to_owned()),
                (None, _) if place.dead => (held.get(id)?.0, source::PICTURE.to_owned()),
                (None, Some((read, source))) => match outgrown(id, read) {
                    Some(sum) => (sum, source::PICTURE.to_owned()),
                    None => (read, source),
                },
                (None, None) => (held.get(id)?.0, source::PICTURE.to_owned()),
            };
            let state = if place.dead { "dead" } else { "alive" }.to_owned();
            Some(Sibling { cgroup: place.path.clone(), state, usage_bytes: Some(usage), source })
        })
        .collect();
    siblings.sort_by(|a, b| b.usage_bytes.cmp(&a.usage_bytes).then_with(|| a.cgroup.cmp(&b.cgroup)));
    siblings.truncate(MOST_ROWS);
    siblings
}

/// Readings up to the kill, and the kill itself.
fn series(case: &Case, whole: &OomLevel, autopsy: &Autopsy) -> Vec<Moment> {
    let Some(place) = case.places.get(&whole.cgroup) else { return Vec::new() };
    let before = place.history.points().filter(|point| point.at_s < case.at_s);
    let mut moments: Vec<Moment> =
        before.map(|point| Moment { before_s: case.at_s - point.at_s, usage_bytes: point.usage(), kinds: point.kinds() }).collect();
    let kinds = autopsy.before.iter().filter(|(kind, _)| crate::analyse::accounts::history::KINDS.contains(&kind.as_str()));
    let kinds = kinds.filter_map(|(kind, bytes)| Some((kind.clone(), u64::try_from((*bytes)?).ok()?)));
    moments.push(Moment { before_s: 0.0, usage_bytes: figures::usage(whole, case.page_bytes), kinds: kinds.collect() });
    moments
}

/// `1 min`, or as long as there was something to compare with.
#[must_use]
pub fn window_text(window_s: f64) -> String {
    units::seconds(window_s.round().max(1.0)).unwrap_or_else(|| "?".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "autopsy_tests.rs"]
mod tests;
