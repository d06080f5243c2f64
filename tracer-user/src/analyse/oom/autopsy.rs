//! The autopsy: what came from the kernel, the frozen picture, the readings and their history, put together. Pure.

use super::{
    evidence,
    facts::{KillFacts, ancestry, comm, is_below, levels, path},
    figures::{self, Figure},
    growth,
    judge::{self, Judgement},
    source,
};

use crate::{
    kernel_half::events::oom::{known, pages},
    report::autopsy::{Autopsy, Level, LiveStack, Moment, Sibling, Trigger, Victim},
};
use std::collections::{BTreeMap, HashMap};
use tracer_common::oom::{OOM_CONTROL, OOM_CUT, OOM_EARLY, OOM_NOT_FROZEN, OOM_REFUSED, OomLevel, OomVictim};

/// Stacks, siblings and rows of growth that an autopsy keeps.
const MOST_ROWS: usize = 20;

/// Makes the autopsy.
#[must_use]
pub fn autopsy(facts: &KillFacts) -> Autopsy {
    let kill = &facts.kill;
    let judgement = judge::judge(kill, facts.kernel_stack.as_deref(), facts.one_node);
    let level = levels(kill).iter().find(|level| Some(level.cgroup) == judgement.limit);
    let mut sources = BTreeMap::new();
    let mut from = |field: &str, source: Option<&str>| {
        if let Some(source) = source {
            sources.insert(field.to_owned(), source.to_owned());
        }
    };
    from("constraint", judgement.constraint_source.filter(|_| facts.warning.is_none()));
    let mut autopsy = Autopsy {
        time: facts.time.clone(),
        at_s: facts.at_s,
        event: if facts.warning.is_some() { "warning" } else { "kill" }.to_owned(),
        constraint: judgement.constraint.map(str::to_owned),
        trigger: facts.warning.is_none().then(|| trigger(facts)),
        victims: facts.victims.iter().map(|victim| self::victim(facts, victim)).collect(),
        group_kill: group_kill(facts, &judgement),
        levels: levels(kill).iter().map(|level| self::level(facts, level)).collect(),
        picture: picture(facts).to_owned(),
        ..Autopsy::default()
    };
    let probe = if facts.warning.is_some() { source::NOW } else { source::PROBE };
    from("levels", Some(probe));
    if facts.warning.is_none() {
        from("trigger", Some(probe));
        from("victims", Some(probe));
    }
    if kill.flags & OOM_CONTROL != 0 && facts.warning.is_none() {
        autopsy.order = Some(kill.order).filter(|order| *order != u32::MAX);
        autopsy.gfp_mask = Some(kill.gfp_mask).filter(|mask| *mask != u32::MAX);
        autopsy.total_pages = known(kill.total_pages);
        for field in ["order", "gfp_mask", "total_pages"] {
            from(field, Some(source::PROBE));
        }
    }
    if let Some(id) = judgement.limit {
        autopsy.limit_cgroup = Some(path(facts, id));
        from("limit_cgroup", if facts.warning.is_some() { Some(probe) } else { judgement.limit_source });
    } else if judgement.constraint == Some("memcg") && facts.logged_limit.is_some() {
        autopsy.limit_cgroup.clone_from(&facts.logged_limit);
        from("limit_cgroup", Some(source::LOG));
    }
    // The limit's own level, or for a global kill the outermost one: the root's, if it is among them.
    let whole = level.or_else(|| levels(kill).last().filter(|_| judgement.constraint == Some("none") && kill.flags & OOM_CUT == 0));
    if let Some(level) = level {
        autopsy.limit_bytes = figures::limit_pages(level).and_then(|max| pages(max, facts.page_bytes));
        autopsy.usage_bytes = figures::usage(level, facts.page_bytes);
        autopsy.failcnt = figures::failcnt(level, facts.version);
        for field in ["limit_bytes", "usage_bytes", "failcnt"] {
            from(field, Some(probe));
        }
    }
    if let Some(whole) = whole {
        let mut kinds = figures::by_kind(whole, facts.version, &facts.trusted, facts.page_bytes, &older(facts, whole.cgroup));
        evidence::correct_stale(facts, whole, &mut kinds);
        for (kind, figure) in kinds {
            from(&format!("before.{kind}"), Some(&figure.source));
            autopsy.before.insert(kind, Some(figure.bytes));
        }
        autopsy.siblings = siblings(facts, whole.cgroup);
        autopsy.series = series(facts, whole, &autopsy);
    }
    if let Some(stacks) = &facts.stacks {
        let within = |owner: u64| whole.is_none_or(|whole| is_below(facts, owner, whole.cgroup));
        let mut rows: Vec<&LiveStack> = stacks.iter().filter(|(owner, _)| within(*owner)).map(|(_, row)| row).collect();
        rows.sort_by(|a, b| b.live.cmp(&a.live).then_with(|| a.frames.cmp(&b.frames)));
        autopsy.stacks = rows.into_iter().take(MOST_ROWS).cloned().collect();
        from("stacks", Some(if facts.warning.is_some() { source::LIVE } else { source::PICTURE }));
    }
    autopsy.sources = sources;
    if let Some(whole) = whole {
        autopsy.growth = growth::rows(facts, whole, &autopsy);
    }
    evidence::add(facts, whole, &mut autopsy);
    autopsy.verdict = Some(super::sentence::sentence(&autopsy, facts.warning));
    evidence::shorten(&mut autopsy);
    autopsy
}

fn trigger(facts: &KillFacts) -> Trigger {
    let task = &facts.kill.trigger;
    Trigger {
        pid: Some(task.tgid).filter(|pid| *pid != 0),
        tid: Some(task.tid).filter(|tid| *tid != 0),
        comm: comm(task),
        cgroup: known(task.cgroup).map(|id| path(facts, id)),
        user_stack: facts.user_stack.clone(),
        kernel_stack: facts.kernel_stack.clone(),
    }
}

fn victim(facts: &KillFacts, victim: &OomVictim) -> Victim {
    let place = facts.places.get(&victim.task.cgroup);
    let bytes = |number| pages(number, facts.page_bytes);
    let killed = facts.victim_stacks.get(&victim.kernel_stack).and_then(|stack| was_killed(stack));
    Victim {
        pid: [victim.task.tgid, victim.task.tid].into_iter().find(|pid| *pid != 0),
        comm: comm(&victim.task),
        cgroup: known(victim.task.cgroup).map(|id| path(facts, id)),
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
fn group_kill(facts: &KillFacts, judgement: &Judgement) -> Option<bool> {
    use tracer_common::oom::LEVEL_GROUP;
    judgement.constraint?;
    let end = match judgement.limit {
        Some(id) => levels(&facts.kill).iter().position(|level| level.cgroup == id)? + 1,
        None => levels(&facts.kill).len(),
    };
    Some(levels(&facts.kill)[..end].iter().any(|level| level.flags & LEVEL_GROUP != 0))
}

fn level(facts: &KillFacts, level: &OomLevel) -> Level {
    Level {
        cgroup: path(facts, level.cgroup),
        usage_bytes: figures::usage(level, facts.page_bytes),
        limit_bytes: figures::limit_pages(level).and_then(|max| pages(max, facts.page_bytes)),
        failcnt: figures::failcnt(level, facts.version),
    }
}

fn picture(facts: &KillFacts) -> &'static str {
    if facts.warning.is_some() {
        "live"
    } else if facts.stacks.is_some() {
        "frozen"
    } else if facts.kill.flags & OOM_NOT_FROZEN != 0 {
        "not frozen: as many as there can be were open"
    } else if facts.kill.flags & OOM_REFUSED != 0 {
        "not frozen: outside the filter"
    } else if facts.kill.flags & OOM_EARLY != 0 {
        "not frozen: the recording was beginning"
    } else {
        "not frozen"
    }
}

/// Kinds of the last reading of its files, for those that the kernel half could not read.
fn older(facts: &KillFacts, id: u64) -> BTreeMap<String, Figure> {
    let Some(reading) = facts.places.get(&id).and_then(|place| place.read.as_ref()) else { return BTreeMap::new() };
    let source = source::files(reading.age_s);
    // Parts of `kernel` are in it.
    let kinds = reading.kinds.iter().filter(|(kind, _)| !kind.contains('.'));
    kinds.filter_map(|(kind, bytes)| Some((kind.clone(), Figure { bytes: i64::try_from(*bytes).ok()?, source: source.clone() }))).collect()
}

/// Cgroups right below the limit's: those on the victim's path as of the kill, others as last read, the dead by what they still hold.
fn siblings(facts: &KillFacts, above: u64) -> Vec<Sibling> {
    // What the picture found in each, with the variance.
    let mut held: HashMap<u64, (u64, f64)> = HashMap::new();
    for (owner, row) in facts.stacks.iter().flatten() {
        let below = ancestry(facts, *owner).find(|id| facts.places.get(id).is_some_and(|place| place.parent == Some(above)));
        let (sum, variance) = held.entry(below.unwrap_or(*owner)).or_default();
        *sum += row.live;
        *variance += (row.live_stderr as f64).powi(2);
    }
    // A reading that is older than the growth of a cgroup says less than the picture.
    let outgrown =
        |id: &u64, read: u64| held.get(id).filter(|(sum, variance)| *sum as f64 > read as f64 + 3.0 * variance.sqrt()).map(|(sum, _)| *sum);
    let below = facts.places.iter().filter(|(_, place)| place.parent == Some(above));
    let mut siblings: Vec<Sibling> = below
        .filter_map(|(id, place)| {
            let at_kill =
                levels(&facts.kill).iter().find(|level| level.cgroup == *id).and_then(|level| figures::usage(level, facts.page_bytes));
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
fn series(facts: &KillFacts, whole: &OomLevel, autopsy: &Autopsy) -> Vec<Moment> {
    let Some(place) = facts.places.get(&whole.cgroup) else { return Vec::new() };
    let before = place.history.points().filter(|point| point.at_s < facts.at_s);
    let mut moments: Vec<Moment> =
        before.map(|point| Moment { before_s: facts.at_s - point.at_s, usage_bytes: point.usage(), kinds: point.kinds() }).collect();
    let kinds = autopsy.before.iter().filter(|(kind, _)| crate::cgroup::history::KINDS.contains(&kind.as_str()));
    let kinds = kinds.filter_map(|(kind, bytes)| Some((kind.clone(), u64::try_from((*bytes)?).ok()?)));
    moments.push(Moment { before_s: 0.0, usage_bytes: figures::usage(whole, facts.page_bytes), kinds: kinds.collect() });
    moments
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "autopsy_tests.rs"]
mod tests;
