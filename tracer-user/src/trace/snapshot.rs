//! The snapshot that a report is made from: the tables as they are now, the kernel's figures beside them, and the names.

use super::{
    histograms,
    mappings::Space,
    names::Names,
    regions::{self, Surveys},
    session::{MOST_DEAD, Session, SessionError, moved_frames},
};
use crate::{
    analyse::oom::Autopsy,
    cgroup::CgroupId,
    host::clock::monotonic_ns,
    kernel_half::{
        self,
        tables::{self, SweepVerdict},
    },
    process::{Feed, give_memory_back},
    report::{MappingSummary, Report},
};
use crate::{
    analyse::rows::{self, Inputs, Mapped},
    host::phases::Phases,
};
use std::collections::{HashMap, HashSet};
use tracer_common::mapping::MappingRecord;

/// Longest wait for process records before a report.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);

/// With fewer readings of dirty page cache nothing can be said of how long it lasts.
const LEAST_SUSTAINED: usize = 3;

impl Session {
    /// The report as of now.
    pub fn report(&mut self) -> Result<Report, SessionError> {
        let (mut phases, reporting_ns) = (Phases::begin(), monotonic_ns());
        self.cpu.reporting = crate::host::clock::process_cpu_ns();
        self.drain_events()?;
        self.drain_oom()?;
        // What a runtime writes a moment after it has made the cgroup.
        self.name_containers()?;
        if let Some(feed) = &self.feed {
            // Names of processes that began a moment ago; without them their frames would be unknown.
            if !feed.settle(SETTLE) {
                log::warn!("process records are behind: some names may be missing");
            }
        }
        phases.end("process records in");
        // What intervals needed for a moment is not needed beside what a report needs.
        give_memory_back();
        // A folio may wait in a CPU's batch: the sweep settles those, and finds what is charged but not mapped.
        let slots: Vec<u64> = tables::samples(&self.running.bpf)?.keys().copied().collect();
        let swept = tables::sweep(&mut self.running.bpf, slots.into_iter())?;
        self.pending = swept.values().filter(|s| s.verdict == SweepVerdict::Pending && s.owner != 0).count() as u64;
        phases.end("samples swept");
        let readings = self.poll();
        let above = self.above(&readings);
        let mut keys = tables::keys(&self.running.bpf)?;
        let samples = tables::samples(&self.running.bpf)?;
        let processes = tables::processes(&self.running.bpf)?;
        let mut dirtied = tables::dirtied(&self.running.bpf)?;
        let files = self.files_of(&samples, &dirtied)?;
        let members = self.members(readings.iter().map(|(id, _)| *id));
        self.ahead.stop();
        let records = if self.mappings.is_some() { kernel_half::mappings::records(&self.running.bpf)? } else { HashMap::new() };
        let reserved = self.reserved_by_jvms(&members, &processes)?;
        let surveys = regions::read(
            &self.surveying,
            &regions::Tables { keys: &keys, samples: &samples, processes: &processes, mappings: &records },
            &members,
            self.feed.as_ref().map(Feed::opened_files),
            reserved,
        );
        let mapped = self.mapped(&surveys, records)?;
        // After whoever names some.
        let stacks = tables::stacks(&self.running.bpf)?;
        let totals = tables::owner_totals(&self.running.bpf)?;
        // What a cgroup was charged for is told by its name, also when nothing of it is left.
        let owning: HashSet<u64> =
            keys.values().map(|record| record.key.owner).chain(self.retired.rows().map(|(row, _)| row.owner)).collect();
        self.name_the_dead(&keys, &samples)?;
        self.registry.retain_dead(|id| owning.contains(&id.0), MOST_DEAD);
        self.fold_for_report(&mut keys, &mut dirtied);
        self.moments.observe(&self.running.bpf);
        self.histograms.read(&self.running.bpf)?;
        self.histograms.read_waits(&self.running.bpf)?;
        let histogram_losses = histograms::lost(&self.running.bpf)?;
        let sustained = self.unwritten.iter().filter(|(_, last)| last.len() >= LEAST_SUSTAINED);
        let sustained = sustained.filter_map(|(id, last)| Some((*id, *last.iter().min()?))).collect();
        let inputs = Inputs {
            facts: &self.host.facts,
            hierarchy: &self.hierarchy,
            registry: &self.registry,
            names: &self.names,
            above: &above,
            filter: &self.filter,
            following: &self.following,
            running: &self.running,
            readings: &readings,
            first: &self.first,
            keys: &keys,
            samples: &samples,
            swept: &swept,
            stacks: &stacks,
            processes: &processes,
            files: &files,
            totals: &totals,
            retired: &self.retired,
            dirtied: &dirtied,
            dirtied_before: &self.dirtied,
            unwritten_first: &self.unwritten_first,
            losses: self.losses()?,
            surveys: &surveys,
            histograms: &self.histograms,
            histogram_losses: &histogram_losses,
            mapped: mapped.as_ref(),
            programs: self.moments.estimate(monotonic_ns().saturating_sub(self.started_ns)),
            sustained: &sustained,
            slopes: &self.slopes,
            moved_frames: moved_frames().zip(self.moved_at_start).map(|(now, then)| now.saturating_sub(then)),
            started: self.started,
            started_ns: self.started_ns,
            reporting_ns,
            now_ns: monotonic_ns(),
            cpu: self.cpu,
        };
        phases.end("tables read");
        let mut names = Names::new(self.feed.as_ref(), &mut self.symbolizer);
        names.learn(keys.values().filter(|record| rows::wanted(&inputs, CgroupId(record.key.owner))), &processes, &stacks);
        names.learn_stacks(mapped.iter().flat_map(Mapped::stacks), &processes, &stacks);
        phases.end("names looked up");
        let mut report = rows::report(&inputs, &mut names);
        phases.end("report made");
        report.oom = self.autopsies().iter().map(Autopsy::to_value).collect();
        report.oom_loops = Some(self.loops()).filter(|loops| loops.kills > 0 || !loops.verdicts.is_empty());
        Ok(report)
    }

    /// Who mapped what is in the surveys, and what was asked for; `None` where that is not followed.
    fn mapped(&self, surveys: &Surveys, records: HashMap<u64, MappingRecord>) -> Result<Option<Mapped>, SessionError> {
        let Some(mappings) = &self.mappings else { return Ok(None) };
        mappings.settle(surveys.processes.iter().map(|process| process.tgid));
        let counts = kernel_half::mappings::counts(&self.running.bpf)?;
        let mut summary = MappingSummary { calls: counts.calls, thinned: counts.thinned, ..MappingSummary::default() };
        let spaces: HashMap<u32, Space> = mappings.with(|spaces| {
            (summary.ranges, summary.dropped) = (spaces.len() as u64, spaces.dropped());
            (summary.repaired, summary.repaired_bytes) = spaces.repaired();
            surveys.processes.iter().filter_map(|process| Some((process.tgid, spaces.of(process.tgid)?.clone()))).collect()
        });
        for process in &surveys.processes {
            if let Some(space) = spaces.get(&process.tgid) {
                summary.differing_bytes += space.differs(&process.survey.maps.asked_for());
            }
        }
        Ok(Some(Mapped { spaces, records, summary }))
    }

    /// Processes of these cgroups. One that moves meanwhile may be seen twice: the later one stands.
    pub(super) fn members(&self, cgroups: impl Iterator<Item = CgroupId>) -> HashMap<u32, CgroupId> {
        let mut members = HashMap::new();
        for id in cgroups {
            let Some(cgroup) = self.registry.get(id) else { continue };
            // A cgroup that went meanwhile has none; a threaded one on v2 tells none.
            let procs = std::fs::read_to_string(self.hierarchy.directory(&cgroup.path).join("cgroup.procs")).unwrap_or_default();
            members.extend(procs.lines().filter_map(|line| Some((line.parse().ok()?, id))));
        }
        members
    }
}
