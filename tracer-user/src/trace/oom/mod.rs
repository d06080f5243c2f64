//! OOM kills in a running trace: takes the kernel half's events, reads the frozen picture at once and closes it, and keeps what an autopsy
//! is made from, within bounds. The autopsy itself is [`crate::analyse::oom::autopsy`].
//!
//! | file | what |
//! |---|---|
//! | [`killed`] | the kills so far |
//! | [`kills`] | waiting for more |
//! | `facts` | what is known of one kill, put together |
//! | `late` | names that come after the kill was looked at |
//! | `evidence` | files and regions of the picture |
//! | `verify` | whether the kernel half reads the kernel's figures rightly |
//! | `warning` | the same evidence before a kill |
//! | `loops` | kills that repeat, and the limits of the whole host |

mod evidence;
mod facts;
pub mod killed;
pub mod kills;
mod late;
mod loops;
mod verify;
mod warning;

pub use killed::OomLog;
pub use kills::Kills;
pub use warning::Wish;

use super::{
    names::Names,
    session::{Session, SessionError},
};
use crate::trace::words::Symbols as _;
use crate::{
    analyse::oom::Autopsy,
    cgroup::{CgroupId, CgroupPath},
    host::clock::monotonic_ns,
    kernel_half::{events::oom::Event, picture, picture::Picture, stack::Stack, tables},
    symbols::Waiting,
};
use facts::Tables;
use killed::Kept;
use late::Late;
use std::{collections::HashMap, time::Duration};
use tracer_common::{attribution::KeyRecord, loss::Loss, oom::UNKNOWN};

/// Longest that a kill waits for names until it is told of.
const NAMES: Duration = Duration::from_secs(5);
/// From the moment in which a kill's picture is opened its event takes far less to be in the ring, or lost: one program does both. Nanoseconds.
const EVENT_NS: u64 = 100_000_000;

/// Open pictures after events were lost.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unclaimed {
    /// Those whose event will not come.
    lost: Vec<u64>,
    /// Those younger than the last event: theirs may be on its way.
    suspects: Vec<u64>,
}

/// Which of the `open` pictures have lost their event, by their epochs. `batch` are those of the events that were just read, `last` that of the
/// last one ever, and `ripe` were suspects long enough before the ring was read: their event would have been in it. Kills are one after the
/// other, and so are their epochs and events.
fn unclaimed(open: &[u64], batch: &[u64], last: Option<u64>, ripe: &[u64]) -> Unclaimed {
    let without = open.iter().copied().filter(|epoch| !batch.contains(epoch));
    let (lost, suspects) = without.partition(|epoch| last.is_some_and(|last| *epoch <= last) || ripe.contains(epoch));
    Unclaimed { lost, suspects }
}

impl Session {
    /// Takes OOM events in; the number of kills among them. To be called as soon as [`Kills::next`] returns: a picture that is read is
    /// closed, and makes room for the next.
    pub fn drain_oom(&mut self) -> Result<usize, SessionError> {
        let events: Vec<Event> = self.oom.ring.by_ref().collect();
        self.oom.ask_log();
        self.oom.seal();
        self.close_unclaimed(&events)?;
        if events.is_empty() {
            return Ok(0);
        }
        let began_ns = monotonic_ns();
        // First of all what cannot wait: pictures hold memory of the kernel half's, and refuse further ones.
        let mut pictures: HashMap<u64, Picture> = HashMap::new();
        let bpf = &mut self.running.bpf;
        let keys = tables::keys(bpf)?;
        for event in &events {
            if let Event::Kill(kill) = event
                && kill.epoch != UNKNOWN
            {
                if let Some(picture) = picture::read(bpf, kill.epoch)? {
                    pictures.insert(kill.number, picture);
                }
                picture::close(bpf, kill.epoch)?;
            }
        }
        let frozen_ns = monotonic_ns();
        let tables = Tables { keys, stacks: tables::stacks(bpf)?, processes: HashMap::new() };
        let tables = Tables { processes: self.processes()?, ..tables };
        let read = pictures.len();
        if !self.unwinding.settle_files(Duration::from_millis(500)) {
            ::log::debug!("files are opened slowly: some names of the kill may be missing");
        }
        // Cgroups that were made and killed since the last reading are in the other ring.
        self.drain_events()?;
        self.settle_names()?;
        self.name_owners(&tables.keys)?;
        let mut kills = 0;
        for event in events {
            match event {
                Event::Kill(kill) => {
                    kills += 1;
                    let (case, late) = self.facts(kill, pictures.remove(&kill.number), &tables)?;
                    let cgroups = [kill.levels[0].cgroup, kill.trigger.cgroup].into_iter().filter_map(|id| self.path_of(id)).collect();
                    self.oom.keep(case, late, cgroups);
                }
                Event::Victim(victim) => {
                    let stack = tables.stacks.get(&victim.kernel_stack);
                    let mut names = Names::new(self.unwinding.files(), &mut self.symbolizer);
                    let stack = stack.map(|stack| names.kernel(stack));
                    self.oom.add_victim(&victim, stack);
                    self.add_place(&victim);
                }
            }
        }
        ::log::debug!(
            "{kills} OOM kills: {} pictures read and closed in {} us, the rest in {} us more",
            read,
            frozen_ns.saturating_sub(began_ns) / 1000,
            monotonic_ns().saturating_sub(frozen_ns) / 1000
        );
        Ok(kills)
    }

    /// Names owners that were gone before the start, if there are any: what is still charged to them knows.
    fn name_owners(&mut self, keys: &HashMap<u64, KeyRecord>) -> Result<(), SessionError> {
        if keys.values().all(|record| self.registry.get(CgroupId(record.key.owner)).is_some()) {
            return Ok(());
        }
        let now = tables::samples(&self.running.bpf)?;
        Ok(self.name_the_dead(keys, &now)?)
    }

    /// Closes pictures whose event found no room in the ring: nobody else would, and there are only so many.
    fn close_unclaimed(&mut self, events: &[Event]) -> Result<(), SessionError> {
        let kills = events.iter().filter_map(|event| match event {
            Event::Kill(kill) => Some(kill.epoch).filter(|epoch| *epoch != UNKNOWN),
            Event::Victim(_) => None,
        });
        let batch: Vec<u64> = kills.collect();
        self.oom.last_epoch = self.oom.last_epoch.max(batch.iter().copied().max());
        let lost = tables::losses(&self.running.bpf)?.into_iter().find(|(cause, _)| *cause == Loss::OomEventLost);
        let lost = lost.map_or(0, |(_, count)| count.events);
        let before = std::mem::take(&mut self.oom.suspects);
        if lost == self.oom.events_lost && before.is_empty() {
            return Ok(());
        }
        self.oom.events_lost = lost;
        let now_ns = monotonic_ns();
        let ripe: Vec<u64> =
            before.iter().filter(|(_, since_ns)| now_ns.saturating_sub(**since_ns) > EVENT_NS).map(|(epoch, _)| *epoch).collect();
        let Unclaimed { lost, suspects } = unclaimed(&picture::epochs(&self.running.bpf)?, &batch, self.oom.last_epoch, &ripe);
        self.oom.suspects = suspects.into_iter().map(|epoch| (epoch, before.get(&epoch).copied().unwrap_or(now_ns))).collect();
        for epoch in lost {
            picture::close(&mut self.running.bpf, epoch)?;
        }
        Ok(())
    }

    fn path_of(&self, id: u64) -> Option<CgroupPath> {
        self.registry.get(CgroupId(id)).map(|cgroup| cgroup.path.clone())
    }

    /// Autopsies of the kills that concern what is traced, as far as names tell by now.
    #[must_use]
    pub fn autopsies(&self) -> Vec<Autopsy> {
        self.oom.cases.iter().filter(|kept| kept.is_wanted(&self.filter)).map(Kept::autopsy).collect()
    }

    /// Names what was late, of all kills; files are waited for as long as said.
    pub(in crate::trace) fn name_late(&mut self, waiting: Waiting) {
        if self.oom.cases.iter().all(|kept| kept.late.is_empty()) {
            return;
        }
        let files = self.unwinding.files();
        let mut names = match waiting {
            Waiting::Batch => Names::new(files, &mut self.symbolizer),
            Waiting::ForAll | Waiting::Report => Names::for_report(files, &mut self.symbolizer),
        };
        // All at once: a file is read once for all that is asked of it.
        let late = self.oom.cases.iter().flat_map(|kept| &kept.late);
        let wanted = late.filter_map(Late::user_stack);
        let stacks: HashMap<u64, Stack> = wanted.map(|(identity, stack)| (identity, stack.clone())).collect();
        names.learn_stacks(stacks.keys().copied(), &stacks);
        for kept in &mut self.oom.cases {
            let mut late = std::mem::take(&mut kept.late);
            match kept.facts() {
                Some(case) => late.retain(|late| late.name(case, &mut names)),
                None => late.clear(),
            }
            kept.late = late;
        }
    }

    /// Those of them that were not asked for before, once their victims have had `age` to come. A pod may get its name after the kill.
    pub fn new_autopsies(&mut self, age: Duration) -> Vec<Autopsy> {
        self.name_late(Waiting::Batch);
        let now = monotonic_ns();
        // Names are waited for where victims are.
        let least = |kept: &Kept| if kept.is_late() && !age.is_zero() { age.max(NAMES) } else { age };
        let is_old = |kept: &Kept| u128::from(now.saturating_sub(kept.last_ns)) >= least(kept).as_nanos();
        let filter = &self.filter;
        let new = self.oom.cases.iter_mut().filter(|kept| !kept.told && kept.is_wanted(filter) && is_old(kept));
        new.map(|kept| {
            kept.told = true;
            kept.autopsy()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lost: &[u64], suspects: &[u64]) -> Unclaimed {
        Unclaimed { lost: lost.to_vec(), suspects: suspects.to_vec() }
    }

    #[test]
    fn only_a_picture_whose_event_cannot_come_any_more_is_closed() {
        // 3 was lost; the kill of 5 came after the ring was read, and its event waits there.
        assert_eq!(unclaimed(&[3, 4, 5], &[4], Some(4), &[]), found(&[3], &[5]));
        // At the next look it was there,
        assert_eq!(unclaimed(&[5], &[5], Some(5), &[5]), found(&[], &[]));
        // or it was not, though there was time enough.
        assert_eq!(unclaimed(&[5, 6], &[], Some(4), &[5]), found(&[5], &[6]));
        // Nothing was ever read: which one was lost is not known yet.
        assert_eq!(unclaimed(&[1, 2], &[], None, &[]), found(&[], &[1, 2]));
        assert_eq!(unclaimed(&[], &[], Some(9), &[1]), found(&[], &[]));
    }
}
