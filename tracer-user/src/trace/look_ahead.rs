//! When processes are looked into ahead of an OOM kill: at an interval at which their cgroup is close to its limit.

use super::{regions::Reserved, session::Session};
use crate::{
    cgroup::{CgroupId, StatReading},
    host::clock::monotonic_ns,
};
use std::collections::HashSet;

impl Session {
    /// Looks into the processes of cgroups that come close to their limits. At each interval; it never waits for a process.
    pub(super) fn look_ahead(&mut self, readings: &[(CgroupId, StatReading)]) {
        let (now_ns, busy_ns) = (monotonic_ns(), self.surveying.busy_ns());
        self.ahead.poll(now_ns);
        let due = self.ahead.due(readings, now_ns, busy_ns);
        if due.is_empty() {
            return;
        }
        let close: HashSet<CgroupId> = due.iter().map(|(id, _)| *id).collect();
        let below = |id: &CgroupId| self.registry.ancestry(*id).any(|cgroup| close.contains(&cgroup.id));
        let members = self.members(readings.iter().map(|(id, _)| *id).filter(below));
        let registry = &self.registry;
        self.ahead.note(due, |id| registry.get(id).is_some(), now_ns, busy_ns);
        let reserved = self.processes().and_then(|processes| self.reserved_by_jvms(&members, &processes)).unwrap_or_else(|error| {
            log::warn!("what JVMs reserved has no class: {error}");
            Reserved::new()
        });
        self.ahead.begin(&self.surveying, members, reserved, now_ns);
    }
}
