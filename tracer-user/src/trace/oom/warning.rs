//! Warnings: the evidence of an autopsy while nobody has been killed yet: when a cgroup holds a given share of its limit, when it reaches it
//! soon, and where tasks wait at the limit because killing is off.

use super::{facts::Tables, killed::Warned};
use crate::{
    analyse::{
        accounts,
        oom::{Autopsy, KillFacts, Warning, autopsy, forecast},
    },
    cgroup::{CgroupId, StatReading, stat::Limit},
    host::clock::monotonic_ns,
    kernel_half::{
        picture::{Picture, Seen},
        tables,
    },
    trace::session::{Session, SessionError},
};
use std::collections::HashMap;
use tracer_common::{
    attribution::Sample,
    oom::{OOM_CONTROL, OOM_KILL, OOM_LEVELS, OOM_STATS, OomKill, OomLevel, OomTask, UNKNOWN},
};

/// A cgroup is warned of again when it has been this share of its limit below the threshold.
const REARM: f64 = 0.05;

/// When to warn.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wish {
    /// A cgroup holds this share of its limit.
    pub share: Option<f64>,
    /// It reaches its limit within so many seconds, if it goes on as in the last half minute.
    pub within_s: Option<f64>,
}

impl Session {
    /// Warnings of wanted cgroups, as last read: each once, until what it warns of has passed. Where killing is off, that tasks wait is always
    /// told.
    pub fn warnings(&mut self, wish: Wish) -> Result<Vec<Autopsy>, SessionError> {
        let mut due: Vec<(CgroupId, Warning)> = Vec::new();
        let ids: Vec<CgroupId> = self.oom.last.keys().copied().collect();
        for id in ids {
            for (what, state) in self.states(id, wish) {
                match state {
                    State::Due(warning) => {
                        if self.oom.warned.insert((id, what)) {
                            due.push((id, warning));
                        }
                    }
                    State::Near => {}
                    State::Passed => {
                        self.oom.warned.remove(&(id, what));
                    }
                }
            }
        }
        let alive = &self.oom.last;
        self.oom.warned.retain(|(id, _)| alive.contains_key(id));
        if due.is_empty() {
            return Ok(Vec::new());
        }
        due.sort_by_key(|(id, _)| *id);
        self.evidence_of(due)
    }

    /// What there is to say of a cgroup.
    fn states(&self, id: CgroupId, wish: Wish) -> Vec<(Warned, State)> {
        let Some((_, reading)) = self.oom.last.get(&id) else { return Vec::new() };
        let mut states = Vec::new();
        let waits = reading.under_oom == Some(true) && reading.oom_kill_disabled == Some(true);
        states.push((Warned::Waiting, if waits { State::Due(Warning::Waiting) } else { State::Passed }));
        let (Some(usage), Some(limit)) = (reading.usage, reading.limit.and_then(Limit::bytes)) else { return states };
        if let Some(share) = wish.share {
            let state = if usage as f64 >= share * limit as f64 {
                State::Due(Warning::Share(share))
            } else if (usage as f64) < (share - REARM) * limit as f64 {
                State::Passed
            } else {
                State::Near
            };
            states.push((Warned::Share, state));
        }
        if let Some(within_s) = wish.within_s {
            let readings = self.oom.histories.get(&id).into_iter().flat_map(|history| history.points());
            let readings: Vec<(f64, u64)> = readings.filter_map(|point| Some((point.at_s, point.usage()?))).collect();
            let state = match forecast::seconds_to_limit(&readings, limit) {
                Some(seconds) if seconds <= within_s => State::Due(Warning::Within(seconds)),
                // At the limit there is no slope.
                None if usage as f64 >= (1.0 - REARM) * limit as f64 => State::Near,
                Some(seconds) if seconds <= 2.0 * within_s => State::Near,
                _ => State::Passed,
            };
            states.push((Warned::Within, state));
        }
        states
    }

    /// The same evidence as of a kill, of now.
    fn evidence_of(&mut self, due: Vec<(CgroupId, Warning)>) -> Result<Vec<Autopsy>, SessionError> {
        let page = u64::from(self.host.facts.page_size);
        let bpf = &self.running.bpf;
        let tables = Tables { keys: tables::keys(bpf)?, stacks: tables::stacks(bpf)?, processes: HashMap::new() };
        let tables = Tables { processes: self.processes()?, ..tables };
        let samples = tables::samples(bpf)?;
        self.name_the_dead(&tables.keys, &samples)?;
        let now_ns = monotonic_ns();
        let keys: HashMap<u64, i64> = tables.keys.iter().map(|(identity, record)| (*identity, accounts::live(record))).collect();
        let frames = |sample: &Sample| u64::try_from(sample.frames_left).unwrap_or(0);
        let live = samples.iter().filter(|(_, sample)| sample.key != 0);
        let samples: Vec<Seen> = live.map(|(slot, sample)| Seen { slot: *slot, sample: *sample, frames: frames(sample) }).collect();
        let picture = Picture { keys, samples };
        let mut warnings = Vec::new();
        for (id, warning) in due {
            let Some((_, reading)) = self.oom.last.get(&id) else { continue };
            let event = from_reading(id, reading, now_ns, page);
            let (facts, _) = self.facts(event, Some(picture.clone()), &tables)?;
            let case = KillFacts { warning: Some(warning), ..facts };
            warnings.push(autopsy(&case));
        }
        Ok(warnings)
    }
}

/// Whether to warn.
enum State {
    Due(Warning),
    /// Not to be told, nor to be forgotten.
    Near,
    Passed,
}

/// A kill that did not happen: the cgroup at its limit, as read from its files.
fn from_reading(id: CgroupId, reading: &StatReading, at_ns: u64, page_bytes: u64) -> OomKill {
    let nothing = OomLevel {
        cgroup: 0,
        usage: UNKNOWN,
        max: UNKNOWN,
        failcnt: UNKNOWN,
        swap: UNKNOWN,
        kernel: UNKNOWN,
        sockets: UNKNOWN,
        oom_events: UNKNOWN,
        limit_events: UNKNOWN,
        flags: 0,
        depth: u32::MAX,
        stats: [UNKNOWN; OOM_STATS],
    };
    let mut levels = [nothing; OOM_LEVELS];
    levels[0] = OomLevel {
        cgroup: id.0,
        usage: reading.usage.map_or(UNKNOWN, |bytes| bytes / page_bytes),
        max: reading.limit.and_then(Limit::bytes).map_or(UNKNOWN, |bytes| bytes / page_bytes),
        failcnt: reading.events.limit_hits.unwrap_or(UNKNOWN),
        ..nothing
    };
    OomKill {
        event: OOM_KILL,
        flags: OOM_CONTROL,
        number: 0,
        at_ns,
        epoch: UNKNOWN,
        limit: id.0,
        total_pages: UNKNOWN,
        constraint: u32::MAX,
        order: u32::MAX,
        gfp_mask: u32::MAX,
        level_count: 1,
        trigger: OomTask { process: 0, cgroup: id.0, tgid: 0, tid: 0, comm: [0; 16] },
        user_stack: 0,
        kernel_stack: 0,
        trigger_levels: [0; OOM_LEVELS],
        levels,
    }
}
