//! Warnings: the evidence of an autopsy while nobody has been killed yet, when a cgroup holds a given share of its limit.

use super::case::Tables;
use crate::{
    bpf::{picture::Picture, tables},
    cgroup::{CgroupId, StatReading, monotonic_ns, stat::Limit},
    collector::session::{Session, SessionError},
    ledger,
    oom::{Autopsy, Case, autopsy},
};
use tracer_common::{
    attribution::Sample,
    oom::{OOM_CONTROL, OOM_KILL, OOM_LEVELS, OOM_STATS, OomKill, OomLevel, OomTask, UNKNOWN},
};

/// A cgroup is warned of again when it has been this share of its limit below the threshold.
const REARM: f64 = 0.05;

impl Session {
    /// Warnings of wanted cgroups that hold `share` of their limit or more, as last read: each once, until it has fallen below again.
    pub fn warnings(&mut self, share: f64) -> Result<Vec<Autopsy>, SessionError> {
        let page = u64::from(self.host.facts.page_size);
        let mut close: Vec<(CgroupId, StatReading)> = Vec::new();
        for (id, (_, reading)) in &self.oom.last {
            let (Some(usage), Some(limit)) = (reading.usage, reading.limit.and_then(Limit::bytes)) else { continue };
            if usage as f64 >= share * limit as f64 && self.oom.warned.insert(*id) {
                close.push((*id, reading.clone()));
            } else if (usage as f64) < (share - REARM) * limit as f64 {
                self.oom.warned.remove(id);
            }
        }
        let alive = &self.oom.last;
        self.oom.warned.retain(|id| alive.contains_key(id));
        if close.is_empty() {
            return Ok(Vec::new());
        }
        close.sort_by_key(|(id, _)| *id);
        let bpf = &self.running.bpf;
        let tables = Tables { keys: tables::keys(bpf)?, stacks: tables::stacks(bpf)?, processes: tables::processes(bpf)? };
        let now_ns = monotonic_ns();
        let samples = tables::samples(bpf)?;
        let mut warnings = Vec::new();
        for (id, reading) in close {
            let keys = tables.keys.iter().map(|(identity, record)| (*identity, ledger::live(record))).collect();
            let frames = |sample: &Sample| u64::try_from(sample.frames_left).unwrap_or(0);
            let samples = samples.values().filter(|sample| sample.key != 0).map(|sample| (*sample, frames(sample))).collect();
            let event = from_reading(id, &reading, now_ns, page);
            let case = Case { warning: Some(share), ..self.case(event, Some(Picture { keys, samples }), &tables) };
            warnings.push(autopsy(&case));
        }
        Ok(warnings)
    }
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
