//! Frozen pictures: what was live at one moment, readable later, whatever is charged and freed meanwhile and though nobody read then.
//!
//! A picture is the epoch that ended when it was opened. Its keys are the banks up to that epoch; its samples are those charged in it or
//! before that live still, and those that ended later, which the kernel half kept in its graveyard. At most
//! [`tracer_common::attribution::PICTURES`] are open at once: each holds one bank of every key, and the graveyard is bounded.
//!
//! The kernel half opens them, at an OOM kill; one thread reads and closes them here. Nothing here looks at names.

use super::{BpfError, loaded::KernelHalf, tables};
use std::collections::HashMap;
use tracer_common::{
    attribution::{BASE_BANK, Grave, Sample, bank_of},
    settings::Control,
};

/// What was live when an epoch ended.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Live bytes by identity of the key, as its counters say. Keys with none are left out.
    pub keys: HashMap<u64, i64>,
    /// Frames that were live, with the sample that stands for them: as it is now, or as it was when it ended.
    pub samples: Vec<Seen>,
}

/// A sample of a picture. One slot may have several: frames that ended since, and those that are still there.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Where it was: first frame and order.
    pub slot: u64,
    /// What is known of it.
    pub sample: Sample,
    /// Its frames that were live.
    pub frames: u64,
}

impl Picture {
    /// Live bytes of one key by its samples.
    #[must_use]
    pub fn bytes_by_samples(&self, key: u64) -> u64 {
        self.samples.iter().filter(|seen| seen.sample.key == key).map(|seen| seen.sample.weight_per_frame * seen.frames).sum()
    }
}

/// Reads an open picture; `None` if `epoch` is that of none.
pub fn read(half: &KernelHalf, epoch: u64) -> Result<Option<Picture>, BpfError> {
    let control = tables::control(half)?;
    if !open_epochs(&control).contains(&epoch) {
        return Ok(None);
    }
    // Samples before graves: one that ends in between is then found twice, and not missed.
    let samples = tables::samples(half)?;
    let graves = tables::graveyard(half)?;
    let keys = tables::keys(half)?;
    let live = keys.iter().map(|(identity, record)| (*identity, record.live_at(epoch, &control.bank_epochs)));
    Ok(Some(Picture { keys: live.filter(|(_, bytes)| *bytes != 0).collect(), samples: samples_at(epoch, &samples, &graves) }))
}

/// Closes a picture; nothing happens if it is not open. Pictures that are open still keep reading the same.
pub fn close(half: &mut KernelHalf, epoch: u64) -> Result<(), BpfError> {
    let control = tables::control(half)?;
    let open = open_epochs(&control);
    if !open.contains(&epoch) {
        return Ok(());
    }
    let into = fold_target(&open, epoch, control.epoch) as u64;
    let identities: Vec<u64> = tables::keys(half)?.into_keys().collect();
    for identity in identities {
        tables::run(half, "run_fold", [identity, bank_of(epoch) as u64, into])?;
    }
    tables::run(half, "run_close_picture", [epoch, 0, 0])?;
    // Now, so that what was buried while the bank was folded goes too.
    let rest: Vec<u64> = open.into_iter().filter(|other| *other != epoch).collect();
    let unneeded: Vec<Grave> = tables::graveyard(half)?
        .into_iter()
        .filter(|(grave, sample)| {
            !rest.iter().any(|epoch| was_live(sample, grave.ended_epoch, *epoch)) && grave.ended_epoch <= control.epoch
        })
        .map(|(grave, _)| grave)
        .collect();
    tables::remove_graves(half, &unneeded)
}

/// Epochs of the open pictures, oldest first.
pub fn epochs(half: &KernelHalf) -> Result<Vec<u64>, BpfError> {
    tables::control(half).map(|control| open_epochs(&control))
}

/// As [`epochs`], of a control that was read.
fn open_epochs(control: &Control) -> Vec<u64> {
    let held = control.bank_epochs.iter().enumerate().filter(|(bank, _)| control.held_banks >> bank & 1 != 0);
    let mut epochs: Vec<u64> = held.map(|(_, epoch)| *epoch).collect();
    epochs.sort_unstable();
    epochs
}

/// The bank that takes the closed picture's: nobody needs it apart from what is older if it is the oldest, else from what comes next.
fn fold_target(open: &[u64], closed: u64, current: u64) -> usize {
    match open.iter().position(|epoch| *epoch == closed) {
        None | Some(0) => BASE_BANK,
        Some(at) => bank_of(open.get(at + 1).copied().unwrap_or(current)),
    }
}

fn was_live(sample: &Sample, ended_epoch: u64, epoch: u64) -> bool {
    sample.epoch <= epoch && epoch < ended_epoch
}

fn samples_at(epoch: u64, samples: &HashMap<u64, Sample>, graves: &HashMap<Grave, Sample>) -> Vec<Seen> {
    let mut found = Vec::new();
    let mut buried: HashMap<(u64, u64), u64> = HashMap::new();
    for (grave, sample) in graves {
        *buried.entry((grave.slot, grave.charged_ns)).or_default() += u64::from(grave.frames);
        if was_live(sample, grave.ended_epoch, epoch) {
            found.push(Seen { slot: grave.slot, sample: *sample, frames: u64::from(grave.frames) });
        }
    }
    for (slot, sample) in samples.iter().filter(|(_, sample)| sample.key != 0 && sample.epoch <= epoch) {
        // Frames that were buried since the sample was read are no longer in it.
        let gone = buried.get(&(*slot, sample.charged_ns)).copied().unwrap_or(0);
        let left = u64::try_from(sample.frames_left).unwrap_or(0).min((1_u64 << (sample.order & 31)).saturating_sub(gone));
        if left > 0 {
            found.push(Seen { slot: *slot, sample: *sample, frames: left });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::attribution::sample_slot;

    fn sample(epoch: u64, order: u32, frames_left: i64) -> Sample {
        Sample {
            key: 1,
            weight_per_frame: 4096,
            address: 0,
            file: 0,
            charged_ns: 5,
            epoch,
            process: 0,
            user_stack: 0,
            kernel_stack: 0,
            frames_left,
            tid: 0,
            order,
        }
    }

    #[test]
    fn the_oldest_goes_to_the_base_and_others_go_forward() {
        assert_eq!(fold_target(&[3, 5, 9], 3, 10), BASE_BANK);
        assert_eq!(fold_target(&[3, 5, 9], 5, 10), bank_of(9));
        assert_eq!(fold_target(&[3, 5, 9], 9, 10), bank_of(10));
    }

    #[test]
    fn open_pictures_are_the_held_banks_by_age() {
        let control = Control { held_banks: 0b1010, bank_epochs: [8, 9, 2, 3, 4, 5, 6, 7], ..Control::default() };
        assert_eq!(open_epochs(&control), [3, 9]);
    }

    #[test]
    fn a_sample_that_ends_while_it_is_read_counts_once() {
        let slot = sample_slot(512, 2);
        let samples = HashMap::from([(slot, sample(0, 2, 4))]);
        let grave = Grave { slot, ended_epoch: 1, charged_ns: 5, first: 0, frames: 3 };
        let graves = HashMap::from([(grave, sample(0, 2, 4))]);
        let frames = |epoch| samples_at(epoch, &samples, &graves).iter().map(|seen| seen.frames).sum::<u64>();
        assert_eq!(frames(0), 4);
        assert_eq!(frames(1), 1);
    }

    #[test]
    fn later_samples_are_not_in_an_older_picture() {
        let samples = HashMap::from([(sample_slot(1, 0), sample(2, 0, 1))]);
        assert!(samples_at(1, &samples, &HashMap::new()).is_empty());
        assert_eq!(samples_at(2, &samples, &HashMap::new()).len(), 1);
    }
}
