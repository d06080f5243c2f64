//! The snapshot of now: the tables as they are, the kernel's figures beside them, and the names. All reading of a moment is here.

use super::{
    capture::{self, Tables, Words},
    cost,
    names::Names,
    regions::{self, Surveys},
    session::{MOST_DEAD, Session, SessionError, moved_frames},
};
use crate::{
    analyse::rows,
    cgroup::{
        CgroupId, StatReading, Version,
        history::{KEPT_S, Point},
    },
    host::{clock::monotonic_ns, phases::Phases},
    kernel_half::{
        self,
        probes::ProbeId,
        tables::{self, TableId},
    },
    process::give_memory_back,
    region::{Survey, Vma, maps},
    report::{Cost, MappingSummary, Migration, Report, Table},
    snapshot::{self, Cgroups, DirtiedBefore, Known, Retired, Snapshot, Space, Spaces, Taken, Tracing},
    symbols::Waiting,
    text::date,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::SystemTime,
};
use tracer_common::{FRAME_BYTES, mapping::MappingRecord, sampling::MIN_LOG2_MEAN};

/// Longest wait for files that walks met, before a report.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);

/// With fewer readings of dirty page cache nothing can be said of how long it lasts.
const LEAST_SUSTAINED: usize = 3;

/// What a moment has besides the tables.
pub(super) struct Beside<'a> {
    /// The kernel's figures.
    pub readings: &'a [(CgroupId, StatReading)],
    /// Figures of cgroups that are not wanted, but above one that is.
    pub above: HashMap<CgroupId, StatReading>,
    /// Processes' regions.
    pub surveys: &'a Surveys,
    /// Who mapped what.
    pub spaces: Option<Spaces>,
    /// The moment, monotonic nanoseconds.
    pub now_ns: u64,
    /// How much is looked at.
    pub depth: Depth,
}

/// How much a snapshot looks at, and what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// All, for a report that somebody reads: names are waited for, and processes are looked into.
    Report,
    /// What the tables and the kernel's figures say, for a view that is made anew all the time: no process is looked into, and names come when
    /// they are there.
    Glance,
    /// What was live at a kill.
    Kill,
}

impl Session {
    /// The report as of now.
    pub fn report(&mut self) -> Result<Report, SessionError> {
        let snapshot = self.snapshot()?;
        Ok(self.report_of(&snapshot))
    }

    /// The report of a snapshot of this trace, with the kills so far.
    #[must_use]
    pub fn report_of(&self, snapshot: &Snapshot) -> Report {
        let mut phases = Phases::begin();
        let mut report = rows::report(snapshot);
        phases.end("report made");
        report.cost.report_cpu_ms = Some(self.cpu.report_ms());
        report.oom = self.autopsies();
        report.oom_loops = Some(self.loops_of(&report.oom)).filter(|loops| loops.kills > 0 || !loops.verdicts.is_empty());
        report
    }

    /// The report as of now without what takes long: no process is looked into, so that there are neither regions nor what is concluded from
    /// them, and names that are still looked up are missing.
    ///
    /// # Errors
    /// As [`Session::report`].
    pub fn glance(&mut self) -> Result<Report, SessionError> {
        let snapshot = self.snapshot_to(Depth::Glance)?;
        Ok(self.report_of(&snapshot))
    }

    /// The snapshot of now, for a report.
    pub fn snapshot(&mut self) -> Result<Snapshot, SessionError> {
        self.snapshot_to(Depth::Report)
    }

    fn snapshot_to(&mut self, depth: Depth) -> Result<Snapshot, SessionError> {
        let (mut phases, reporting_ns) = (Phases::begin(), monotonic_ns());
        self.cpu.reporting = crate::host::clock::process_cpu_ns();
        self.drain_events()?;
        self.drain_oom()?;
        if depth == Depth::Report {
            // What a runtime writes a moment after it has made the cgroup.
            self.settle_names()?;
            // Programs that began a moment ago; without their files their frames would be unknown.
            if !self.unwinding.settle_files(SETTLE) {
                log::warn!("files are opened slowly: some names may be missing");
            }
            phases.end("files open");
            self.name_late(Waiting::Report);
            // What intervals needed for a moment is not needed beside what a report needs.
            give_memory_back();
        } else {
            self.take_names_in()?;
        }
        // A folio may wait in a CPU's batch: the sweep settles those, and finds what is charged but not mapped.
        let slots: Vec<u64> = tables::samples(&self.running.bpf)?.keys().copied().collect();
        let swept = tables::sweep(&mut self.running.bpf, slots.into_iter())?;
        phases.end("samples swept");
        self.hand_over_totals()?;
        let readings = self.poll();
        // At once: to look at a process may bring back memory of it that is swapped out.
        let totals = tables::owner_totals(&self.running.bpf)?;
        let above = self.above(&readings);
        // Before the keys: what changes in between is noted for a peak that is known by then.
        let peaks = tables::peaks(&self.running.bpf)?;
        let mut keys = tables::keys(&self.running.bpf)?;
        let samples = tables::samples(&self.running.bpf)?;
        let processes = self.processes()?;
        let mut dirtied = tables::dirtied(&self.running.bpf)?;
        let files = self.files_of(&samples, &dirtied)?;
        let members = self.members(readings.iter().map(|(id, _)| *id));
        self.ahead.stop();
        let records = if self.mappings.is_some() { kernel_half::mappings::records(&self.running.bpf)? } else { HashMap::new() };
        let surveys = if depth == Depth::Report {
            let reserved = self.reserved_by_jvms(&members, &processes)?;
            let tables = regions::Tables { keys: &keys, samples: &samples, processes: &processes, mappings: &records };
            regions::read(&self.surveying, &tables, &members, reserved)
        } else {
            Surveys::default()
        };
        let spaces = self.spaces(&surveys, records)?;
        // After whoever names some.
        let stacks = tables::stacks(&self.running.bpf)?;
        // What a cgroup was charged for is told by its name, also when nothing of it is left.
        let owning: HashSet<u64> = keys.values().map(|record| record.key.owner).chain(self.retired.owners()).collect();
        self.name_the_dead(&keys, &samples)?;
        self.registry.retain_dead(|id| owning.contains(&id.0), MOST_DEAD);
        self.fold_for_report(&mut keys, &mut dirtied);
        self.moments.observe(&self.running.bpf);
        self.histograms.read(&self.running.bpf)?;
        self.histograms.read_waits(&self.running.bpf)?;
        let tables = Tables {
            keys: &keys,
            samples: &samples,
            swept: &swept,
            stacks: &stacks,
            processes: &processes,
            files: &files,
            totals: &totals,
            dirtied: &dirtied,
        };
        self.pending = tables.pending();
        phases.end("tables read");
        let beside = Beside { readings: &readings, above, surveys: &surveys, spaces, now_ns: monotonic_ns(), depth };
        let mut snapshot = self.capture(&tables, beside, |_| true);
        snapshot.cgroups.recent = self.recent(&readings);
        snapshot.cgroups.kernel_peaks = self.kernel_peaks(&readings);
        snapshot.charges.peaks = peaks;
        snapshot.cgroups.histograms = self.histograms.owners().map(|owner| (CgroupId(owner), self.histograms.of(owner))).collect();
        snapshot.cgroups.histogram_losses =
            tables::histogram_losses(&self.running.bpf)?.into_iter().map(|(owner, lost)| (CgroupId(owner), lost)).collect();
        let sustained = self.unwritten.iter().filter(|(_, last)| last.len() >= LEAST_SUSTAINED);
        snapshot.cgroups.sustained = sustained.filter_map(|(id, last)| Some((*id, *last.iter().min()?))).collect();
        snapshot.files.dirtied_before = self.dirtied_before();
        snapshot.tracing.losses = self.losses()?;
        snapshot.tracing.losses.insert("regions_cut_short".to_owned(), Some(surveys.cut_short()));
        snapshot.tracing.cost = self.cost_of(&tables, &snapshot, reporting_ns);
        phases.end("names looked up");
        Ok(snapshot)
    }

    /// Puts a moment in words, of its keys those that are to be `in_words`.
    pub(super) fn capture(&mut self, tables: &Tables<'_>, beside: Beside<'_>, in_words: impl Fn(u64) -> bool) -> Snapshot {
        let cgroups = self.cgroups(beside.readings, beside.above);
        let wanted = |id: CgroupId| cgroups.wanted(id);
        let names = if beside.depth == Depth::Report { Names::for_report } else { Names::new };
        let mut symbols = names(self.unwinding.files(), &mut self.symbolizer);
        let of_wanted = tables.keys.iter().filter(|(identity, record)| wanted(CgroupId(record.key.owner)) && in_words(**identity));
        symbols.learn(of_wanted.map(|(_, record)| record), tables.stacks);
        let mut named: Vec<(u64, u64)> = beside.spaces.iter().flat_map(stacks_of).collect();
        symbols.learn_stacks(named.iter().map(|(_, stack)| *stack), tables.stacks);
        named.extend(tables.dirtied.keys().filter(|key| wanted(CgroupId(key.owner))).map(|key| (key.process, key.user_stack)));
        let mut words = Words::new(&mut symbols, tables);
        words.processes(named.iter().map(|(process, _)| *process));
        words.keys(wanted, in_words);
        words.stacks(named.into_iter());
        if beside.depth == Depth::Report {
            words.threads();
        }
        words.functions(beside.spaces.iter().flat_map(|spaces| functions_of(spaces, beside.surveys)));
        let retired =
            self.retired.rows(|owner| beside.depth != Depth::Kill && cgroups.wanted(CgroupId(owner))).map(|(row, charged)| Retired {
                owner: row.owner,
                kind: row.kind,
                comm: row.comm,
                status: row.status,
                frames: row.frames.into_iter().map(|frame| words.frame(frame)).collect(),
                bytes: charged.bytes,
                variance: charged.variance,
                samples: charged.samples,
                peak: charged.peak,
                peak_mark: charged.peak_mark,
            });
        let retired: Vec<Retired> = retired.collect();
        let names = words.names();
        let files = capture::files(tables, &names, wanted, self.dirtied.rows().map(|(row, _)| row.file));
        Snapshot {
            taken: Taken {
                started: date::rfc3339(self.started),
                now: date::rfc3339(SystemTime::now()),
                started_ns: self.started_ns,
                now_ns: beside.now_ns,
            },
            host: capture::host(&self.host.facts, &self.hierarchy),
            tracing: Tracing {
                plan: self.running.plan_rows(),
                exact: self.running.sizes.log2_mean == MIN_LOG2_MEAN,
                mean_bytes: self.running.sizes.mean_bytes(),
                totals: self.running.totals,
                followed: self.following.tgids().collect(),
                command: self.of_command,
                migration: self.migration(),
                ..Tracing::default()
            },
            charges: snapshot::Charges { retired, ..tables.charges() },
            cgroups,
            names,
            files,
            surveys: capture::surveys(beside.surveys),
            spaces: beside.spaces,
        }
    }

    /// The last quarter of an hour of each cgroup that was read, up to these readings. One that was made meanwhile began with nothing.
    fn recent(&self, readings: &[(CgroupId, StatReading)]) -> HashMap<CgroupId, Vec<Point>> {
        let since_start_s = |ns: u64| ns.saturating_sub(self.started_ns) as f64 / 1e9;
        let recent = readings.iter().map(|(id, reading)| {
            let now = Point::of(since_start_s(reading.at_ns), reading);
            let kept = self.oom.history(*id).into_iter().flat_map(|history| history.points());
            let mut points: Vec<Point> = kept.filter(|point| point.at_s < now.at_s).copied().collect();
            let made_ns = self.registry.get(*id).map(|cgroup| cgroup.seen_ns).filter(|seen_ns| *seen_ns > self.started_ns);
            let made = made_ns.map(|seen_ns| Point::nothing(since_start_s(seen_ns)));
            let first_s = points.first().map_or(now.at_s, |point| point.at_s);
            if let Some(made) = made.filter(|made| made.at_s < first_s && now.at_s - made.at_s < KEPT_S) {
                points.insert(0, made);
            }
            points.push(now);
            (*id, points)
        });
        recent.collect()
    }

    /// The most that the kernel says each cgroup ever used, with what is below it; of kernels that do not say, none.
    fn kernel_peaks(&self, readings: &[(CgroupId, StatReading)]) -> HashMap<CgroupId, u64> {
        let file = match self.hierarchy.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        };
        let peak = |id: &CgroupId| {
            let directory = self.hierarchy.directory(&self.registry.get(*id)?.path);
            std::fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
        };
        readings.iter().filter_map(|(id, _)| Some((*id, peak(id)?))).collect()
    }

    /// What was made dirty and has left the tables.
    fn dirtied_before(&self) -> Vec<DirtiedBefore> {
        let before = self.dirtied.rows().map(|(row, record)| DirtiedBefore {
            owner: row.owner,
            file: row.file,
            tgid: row.tgid,
            comm: row.comm.clone(),
            record: *record,
        });
        before.collect()
    }

    /// Cgroups with their names and figures. Distributions are not among them, nor what lasts.
    fn cgroups(&self, readings: &[(CgroupId, StatReading)], above: HashMap<CgroupId, StatReading>) -> Cgroups {
        let known = |cgroup: &crate::cgroup::registry::Cgroup| Known {
            id: cgroup.id,
            path: cgroup.path.clone(),
            path_cut: cgroup.path_cut,
            parent: cgroup.parent,
            depth: cgroup.depth,
            state: cgroup.state,
            wanted: self.filter.wants(&cgroup.path),
            names: self.names.names(&cgroup.path).map(capture::names_of_cgroup).unwrap_or_default(),
        };
        Cgroups {
            known: self.registry.iter().map(|cgroup| (cgroup.id, known(cgroup))).collect(),
            nameless_wanted: self.filter.is_open(),
            readings: capture::by_cgroup(readings),
            above,
            first: self.first.iter().map(|(id, figures)| (*id, capture::bytes_by_kind(figures))).collect(),
            unwritten_first: self.unwritten_first.clone(),
            first_counts: self.first_counts.clone(),
            ..Cgroups::default()
        }
    }

    fn migration(&self) -> Migration {
        let tier = self.running.attached.tier(ProbeId::Migrate);
        let followed = match tier {
            Some(tier) if tier.is_typed() => "all",
            Some(_) => "mapped",
            None => "none",
        };
        let moved = moved_frames().zip(self.moved_at_start).map(|(now, then)| now.saturating_sub(then));
        Migration { moved_bytes: moved.map(|frames| frames * FRAME_BYTES), followed: followed.to_owned() }
    }

    /// What it cost until the report began; what the report costs is not known yet.
    fn cost_of(&self, tables: &Tables<'_>, snapshot: &Snapshot, reporting_ns: u64) -> Cost {
        let programs = self.moments.estimate(monotonic_ns().saturating_sub(self.started_ns));
        Cost {
            bpf_ns: programs.map(|estimate| estimate.run_ns),
            events: programs.map(|estimate| estimate.runs),
            cpu_percent: self.cpu.percent(reporting_ns.saturating_sub(self.started_ns)),
            start_cpu_ms: Some(self.cpu.start_ms()),
            report_cpu_ms: Some(self.cpu.report_ms()),
            collector_rss_bytes: cost::peak_resident_bytes(),
            map_bytes: self.running.sizes.bytes,
            tables: self.tables_of(tables, snapshot.spaces.as_ref(), snapshot.charges.peaks.len()),
        }
    }

    fn tables_of(&self, tables: &Tables<'_>, spaces: Option<&Spaces>, peaks: usize) -> BTreeMap<String, Table> {
        let entries = |table: TableId| match table {
            TableId::Samples => Some(tables.samples.len()),
            TableId::Keys => Some(tables.keys.len()),
            TableId::Stacks => Some(tables.stacks.len()),
            TableId::Processes => Some(tables.processes.len()),
            TableId::Files => Some(tables.files.len()),
            TableId::OwnerTotals => Some(tables.totals.len()),
            TableId::Peaks => Some(peaks),
            TableId::Dirtied => Some(tables.dirtied.len()),
            TableId::Histograms => Some(self.histograms.counters()),
            TableId::Mappings => spaces.map(|spaces| spaces.records.len()),
            _ => None,
        };
        let table = |(table, max_entries): (TableId, u32)| {
            let entries = entries(table).map(|count| count as u64);
            (table.name().to_owned(), Table { entries, max_entries: u64::from(max_entries), forced: self.running.forced.has(table) })
        };
        let planned = self.running.sizes.entries().filter(|(table, _)| !table.is_of_frames()).map(table);
        let waits = self.histograms.waits().map(|(name, threads, room)| {
            (name.to_owned(), Table { entries: Some(threads as u64), max_entries: u64::from(room), forced: false })
        });
        planned.chain(waits).collect()
    }

    /// Who mapped what is in the surveys, and what was asked for; `None` where that is not followed.
    fn spaces(&self, surveys: &Surveys, records: HashMap<u64, MappingRecord>) -> Result<Option<Spaces>, SessionError> {
        let Some(mappings) = &self.mappings else { return Ok(None) };
        mappings.settle(surveys.processes.iter().map(|process| process.tgid));
        let counts = kernel_half::mappings::counts(&self.running.bpf)?;
        let mut summary = MappingSummary { calls: counts.calls, thinned: counts.thinned, ..MappingSummary::default() };
        let processes: HashMap<u32, Space> = mappings.with(|spaces| {
            (summary.ranges, summary.dropped) = (spaces.len() as u64, spaces.dropped());
            (summary.repaired, summary.repaired_bytes) = spaces.repaired();
            let known = surveys.processes.iter().filter_map(|process| Some((process, spaces.of(process.tgid)?.settled())));
            let known = known.map(|(process, space)| {
                summary.differing_bytes += space.differs(&process.survey.maps.asked_for());
                (process.tgid, capture::space(&space))
            });
            known.collect()
        });
        Ok(Some(Spaces { processes, records, summary }))
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

/// Processes and stacks that are named.
fn stacks_of(spaces: &Spaces) -> impl Iterator<Item = (u64, u64)> + '_ {
    let of_space =
        |space: &Space| -> Vec<(u64, u64)> { space.mapped.iter().chain(&space.opened).map(|range| (space.process, range.stack)).collect() };
    let of_records = spaces.records.values().map(|record| (record.key.process, record.key.user_stack));
    spaces.processes.values().flat_map(of_space).chain(of_records)
}

/// Addresses of the functions that threads began with, with their process, and what it has mapped there.
fn functions_of<'s>(spaces: &Spaces, surveys: &'s Surveys) -> Vec<(u64, u64, &'s Vma)> {
    let known = surveys.processes.iter().filter_map(|process| Some((spaces.processes.get(&process.tgid)?.process, &process.survey)));
    let functions = known.flat_map(|(identity, survey)| survey.thread_functions.values().map(move |address| (identity, *address, survey)));
    let mapped = |survey: &'s Survey, address| maps::index_at(&survey.maps.vmas, address).and_then(|at| survey.maps.vmas.get(at));
    functions.filter_map(|(identity, address, survey)| Some((identity, address, mapped(survey, address)?))).collect()
}
