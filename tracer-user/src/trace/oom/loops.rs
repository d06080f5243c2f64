//! Kills that repeat, and the limits of the whole host: what is known of them, put together for [`crate::analyse::oom::loops`].

use crate::{
    analyse::oom::{
        Autopsy,
        loops::{self, Limited, Loops},
    },
    cgroup::{CgroupId, StatReading, stat::Limit},
    trace::session::Session,
};

impl Session {
    /// The kills of the last quarter of an hour, with who grew. What the host's limits promise is known only where all cgroups are traced.
    #[must_use]
    pub fn loops(&self) -> Loops {
        self.loops_of(&self.autopsies())
    }

    /// The same of these `kills`, which are all so far.
    pub(in crate::trace) fn loops_of(&self, kills: &[Autopsy]) -> Loops {
        let limited = |(id, (_, reading)): (&CgroupId, &(u64, StatReading))| Limited {
            id: id.0,
            parent: self.registry.get(*id).and_then(|cgroup| cgroup.parent).map(|parent| parent.0),
            path: self.registry.name(*id),
            usage: reading.usage,
            limit: reading.limit.and_then(Limit::bytes),
        };
        let cgroups: Vec<Limited> = self.oom.last.iter().map(limited).collect();
        loops::look(kills, self.elapsed_s(), self.oom.memory.filter(|_| self.filter.is_open()), &cgroups)
    }
}
