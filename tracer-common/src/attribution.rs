//! Keys, their counters, and the samples that feed them.
//!
//! A *key* says who: owner, kind, process, stacks. A *sample* is one taken folio and belongs to one key until its last frame is
//! uncharged. Keys are found by a 64-bit hash of their fields; the fields stand in the record and are compared, so that a
//! collision is counted instead of merged.

use crate::{FRAME_BYTES, mix64};

/// Number of frozen pictures that can be open at once.
pub const PICTURES: usize = 4;

/// Banks that rotate with the epoch. A power of two, so that the verifier sees the bound of a masked index. Each open picture holds one,
/// and the current epoch counts in another: with more banks than both, a new epoch always finds one that is free.
pub const ROTATING_BANKS: usize = 8;

/// The bank of everything older than the oldest open picture.
pub const BASE_BANK: usize = ROTATING_BANKS;

/// Banks of a key's counters. What was live when epoch e ended is the sum of the base bank and those whose epoch is not later than e
/// (see [`crate::settings::Control::bank_epochs`]).
pub const BANKS: usize = ROTATING_BANKS + 1;

/// The bank that counts in `epoch`.
#[inline(always)]
#[must_use]
pub const fn bank_of(epoch: u64) -> usize {
    (epoch & (ROTATING_BANKS as u64 - 1)) as usize
}

/// Who made memory resident. All fields are compared when two keys meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Key {
    /// kernfs id of the memory cgroup charged; 0 while unknown (a pending sample).
    pub owner: u64,
    /// Identity of the toucher's process (see [`crate::process`]); 0 for memory older than the trace.
    pub process: u64,
    /// Identity of the user stack (see [`crate::stack`]); 0 for none.
    pub user_stack: u64,
    /// Identity of the kernel stack; 0 for none; even: how the kernel was entered ([`crate::stack::BY_FAULT`]).
    pub kernel_stack: u64,
    /// Number of the [`crate::kind::Kind`].
    pub kind: u32,
    /// [`KEY_BASELINE`] and later flags.
    pub flags: u32,
}
crate::assert_size!(Key, 40);

/// The memory was resident before the trace began.
pub const KEY_BASELINE: u32 = 1;
/// The memory belongs to the tracer's own process.
pub const KEY_OWN: u32 = 2;
/// khugepaged put the folio together from smaller ones: page cache that no insertion announces.
pub const KEY_COLLAPSED: u32 = 4;

impl Key {
    /// The 64-bit identity under which the key is stored; never 0.
    #[inline(always)]
    #[must_use]
    pub const fn hash(&self) -> u64 {
        let mut h = mix64(0x6d65_6d74, self.owner);
        h = mix64(h, self.process);
        h = mix64(h, self.user_stack);
        h = mix64(h, self.kernel_stack);
        h = mix64(h, (self.kind as u64) << 32 | self.flags as u64);
        h | 1
    }
}

/// A key and its counters. What is live is the sum over banks of `charged - uncharged`.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct KeyRecord {
    /// Who.
    pub key: Key,
    /// Estimated bytes charged, by bank: sums of weights.
    pub charged: [u64; BANKS],
    /// Estimated bytes uncharged, by bank.
    pub uncharged: [u64; BANKS],
    /// Change of the variance of what is live, in frames squared, by bank, two's complement.
    pub live_variance: [u64; BANKS],
    /// Variance of all that was charged, in frames squared: the sum of w (w - size).
    pub charged_variance: u64,
    /// Samples taken.
    pub samples: u64,
    /// Monotonic nanoseconds of the last sample.
    pub last_ns: u64,
    /// [`Peak::mark`] of the peak that the next two figures are of; see [`KeyRecord::at_peak`].
    #[cfg_attr(feature = "user", serde(default))]
    pub peak_mark: u64,
    /// Bytes live at that peak, two's complement.
    #[cfg_attr(feature = "user", serde(default))]
    pub peak_live: u64,
    /// Variance of `peak_live`, in frames squared, two's complement.
    #[cfg_attr(feature = "user", serde(default))]
    pub peak_variance: u64,
}
crate::assert_size!(KeyRecord, 40 + 8 * 27 + 24 + 24);

/// The moment at which an owner's keys held most, all together: what was live then is kept by each key when it changes for the first time
/// after it (copy on write), so that a peak costs nothing at the moment that it is reached, however short it lasts.
///
/// While an owner is at its peak, what its keys hold *now* is the peak. The first end of memory after that fixes it: the mark goes up, and the
/// owner is below its peak until it holds more again. Several CPUs that change an owner at once may note a key a moment early or late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Peak {
    /// Bytes live now, by the samples, memory from before the trace included; two's complement.
    pub live: u64,
    /// The most that it was, bytes.
    pub top: u64,
    /// Counts peaks that were left.
    pub mark: u64,
    /// 1: it is below its peak.
    pub is_below: u64,
    /// Monotonic nanoseconds at which the top was reached.
    pub at_ns: u64,
}
crate::assert_size!(Peak, 40);

/// A taken folio, stored under its [`sample_slot`].
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Sample {
    /// Identity of the key; 0 while `pending` (owner and kind not yet known).
    pub key: u64,
    /// Weight in bytes that each frame stands for.
    pub weight_per_frame: u64,
    /// User address of the first byte for anonymous memory, else the offset in the file, bytes. While the sample is pending: the
    /// owner expected, which is the toucher's own memory cgroup.
    pub address: u64,
    /// Identity of the file: hash of device, inode and generation; 0 for anonymous memory. While the sample is pending: the flags
    /// of the key to be.
    pub file: u64,
    /// Monotonic nanoseconds of the charge.
    pub charged_ns: u64,
    /// Epoch of the charge.
    pub epoch: u64,
    /// Process and stacks of a pending sample, until the key can be made.
    pub process: u64,
    /// See `process`.
    pub user_stack: u64,
    /// See `process`.
    pub kernel_stack: u64,
    /// Frames not yet uncharged.
    pub frames_left: i64,
    /// Thread id of the toucher, initial namespace.
    pub tid: u32,
    /// Folio order at the charge.
    pub order: u32,
}
crate::assert_size!(Sample, 88);

/// Under what a folio's sample is stored: first frame number and order. Two live samples can never share it, also after splits:
/// a smaller folio inside an older, larger one has a smaller order.
#[inline(always)]
#[must_use]
pub const fn sample_slot(frame: u64, order: u32) -> u64 {
    frame << 8 | order as u64
}

/// First frame and order of a sample's slot.
#[must_use]
pub const fn frame_and_order(slot: u64) -> (u64, u32) {
    (slot >> 8, (slot & 255) as u32)
}

/// What the sweep finds of a folio besides its verdict, in the same word.
pub const SWEPT_DIRTY: u64 = 1 << 8;
/// See [`SWEPT_DIRTY`]: on its way to disk.
pub const SWEPT_WRITEBACK: u64 = 1 << 9;

/// Variance of a taken folio's weight in frames squared: w (w - size), both in frames.
#[inline(always)]
#[must_use]
pub const fn variance_in_frames(weight_per_frame: u64, order: u32) -> u64 {
    let size = 1 << order;
    let weight = (weight_per_frame / FRAME_BYTES) << order;
    weight * (weight - size)
}

/// Under what a sample that ended while a picture was open is kept; the value is the sample as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Grave {
    /// Slot of the sample.
    pub slot: u64,
    /// Epoch of the end.
    pub ended_epoch: u64,
    /// Monotonic nanoseconds of the charge: tells successive samples in one slot apart.
    pub charged_ns: u64,
    /// First frame that ended, relative to the folio's first: pieces of a split folio end one by one.
    pub first: u32,
    /// Frames that ended.
    pub frames: u32,
}
crate::assert_size!(Grave, 32);

/// Bytes of an owner counted without sampling, one such record a CPU.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct OwnerTotals {
    /// Bytes committed, by kind.
    pub charged: [u64; crate::kind::KINDS],
    /// Bytes uncharged, by kind.
    pub uncharged: [u64; crate::kind::KINDS],
}
crate::assert_size!(OwnerTotals, 64);

impl OwnerTotals {
    /// Adds another CPU's.
    pub fn add(&mut self, other: &OwnerTotals) {
        for kind in 0..crate::kind::KINDS {
            self.charged[kind] = self.charged[kind].wrapping_add(other.charged[kind]);
            self.uncharged[kind] = self.uncharged[kind].wrapping_add(other.uncharged[kind]);
        }
    }

    /// How much more was charged than uncharged.
    #[must_use]
    pub const fn net(&self, kind: crate::kind::Kind) -> i64 {
        self.charged[kind as usize].wrapping_sub(self.uncharged[kind as usize]) as i64
    }
}

crate::plain_data!(Key, KeyRecord, Sample, Grave, OwnerTotals, Peak);

impl KeyRecord {
    /// Live bytes: charged less uncharged over all banks. Signed: uncharges that race with the reading may come first.
    #[must_use]
    pub fn live(&self) -> i64 {
        sum(&self.charged).wrapping_sub(sum(&self.uncharged)) as i64
    }

    /// Live bytes when `epoch` ended: the banks of later epochs are left out. `bank_epochs` says which those are; see
    /// [`crate::settings::Control::bank_epochs`].
    #[must_use]
    pub fn live_at(&self, epoch: u64, bank_epochs: &[u64; ROTATING_BANKS]) -> i64 {
        let later = bank_epochs.iter().enumerate().filter(|(_, of)| **of > epoch);
        later.fold(self.live(), |live, (bank, _)| live.wrapping_sub(self.charged[bank].wrapping_sub(self.uncharged[bank]) as i64))
    }

    /// Bytes that were live at the peak of its owner, and their variance in frames squared.
    #[must_use]
    pub fn at_peak(&self, peak: &Peak) -> (i64, u64) {
        // The peak is read first: what was noted since, when it was left, is of it too.
        let left_since = peak.is_below == 0 && self.peak_mark == peak.mark.wrapping_add(1);
        if left_since || (peak.is_below != 0 && self.peak_mark == peak.mark) {
            (self.peak_live as i64, u64::try_from(self.peak_variance as i64).unwrap_or(0))
        } else {
            // Nothing of it has changed since.
            (self.live(), self.live_variance())
        }
    }

    /// Charged bytes.
    #[must_use]
    pub fn charged(&self) -> u64 {
        sum(&self.charged)
    }

    /// Variance of what is live, in frames squared. Never below zero, though a torn reading may be.
    #[must_use]
    pub fn live_variance(&self) -> u64 {
        u64::try_from(sum(&self.live_variance) as i64).unwrap_or(0)
    }
}

fn sum(banks: &[u64; BANKS]) -> u64 {
    banks.iter().fold(0, |sum, bank| sum.wrapping_add(*bank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_take_the_rotating_banks_in_turn_and_never_the_base() {
        for epoch in [0, 1, 100, u64::MAX - 100] {
            let banks: [usize; ROTATING_BANKS] = core::array::from_fn(|n| bank_of(epoch + n as u64));
            for bank in 0..ROTATING_BANKS {
                assert!(banks.contains(&bank), "bank {bank} is passed over by the epochs from {epoch} on: {banks:?}");
            }
            assert_eq!(bank_of(epoch + ROTATING_BANKS as u64), banks[0], "the bank comes round");
        }
        const {
            assert!(BASE_BANK >= ROTATING_BANKS && BASE_BANK < BANKS);
            assert!(PICTURES < ROTATING_BANKS, "with all pictures open a new epoch must still find a free bank");
        }
    }

    #[test]
    fn a_key_has_another_identity_when_any_field_is_another() {
        let key = Key { owner: 1, process: 2, user_stack: 3, kernel_stack: 4, kind: 1, flags: 1 };
        let keys = [
            key,
            Key { owner: 2, ..key },
            Key { process: 1, ..key },
            Key { user_stack: 4, ..key },
            Key { kernel_stack: 3, ..key },
            Key { kind: 0, ..key },
            Key { kind: 2, ..key },
            Key { flags: 0, ..key },
            Key { flags: 2, ..key },
            Key { owner: 2, process: 1, ..key },
            Key { user_stack: 4, kernel_stack: 3, ..key },
            Key { kind: 2, flags: 0, ..key },
            Key { kind: 0, flags: 2, ..key },
        ];
        for (at, one) in keys.iter().enumerate() {
            for other in &keys[at + 1..] {
                assert_ne!(one.hash(), other.hash(), "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn no_key_has_the_identity_that_stands_for_none() {
        for owner in 0..1000 {
            let key = Key { owner, process: 0, user_stack: 0, kernel_stack: 0, kind: 0, flags: 0 };
            assert_eq!(key.hash() & 1, 1, "identities are odd: {key:?}");
        }
    }

    #[test]
    fn a_slot_gives_its_frame_and_order_back() {
        // The last frame of 52 address bits.
        for frame in [0, 1, 255, 256, 0x1234_5678, (1 << 40) - 1] {
            for order in [0, 1, 9, 11, 255] {
                assert_eq!(frame_and_order(sample_slot(frame, order)), (frame, order));
            }
        }
    }

    #[test]
    fn what_the_sweep_finds_besides_its_verdict_leaves_the_verdict_readable() {
        assert_eq!((SWEPT_DIRTY.count_ones(), SWEPT_WRITEBACK.count_ones(), SWEPT_DIRTY & SWEPT_WRITEBACK), (1, 1, 0));
        assert_eq!((SWEPT_DIRTY | SWEPT_WRITEBACK) & 0xff, 0, "the verdict has the low byte");
    }

    #[test]
    fn the_variance_of_a_taken_folio_is_its_weight_times_what_it_stands_for_besides_itself() {
        // One frame that stands for eight: 8 * 7. Four frames that stand for 32: 32 * 28.
        assert_eq!(variance_in_frames(8 * FRAME_BYTES, 0), 56);
        assert_eq!(variance_in_frames(8 * FRAME_BYTES, 2), 896);
        // The largest M, 1 GiB, on the smallest folio and on the largest that is not always taken.
        assert_eq!(variance_in_frames(1 << 30, 0), (1 << 36) - (1 << 18));
        assert_eq!(variance_in_frames(1 << 19, 11), (1 << 36) - (1 << 29));
        for order in 0..16 {
            assert_eq!(variance_in_frames(FRAME_BYTES, order), 0, "order {order}: what stands for itself is certain");
        }
    }

    fn record() -> KeyRecord {
        KeyRecord {
            key: Key { owner: 7, process: 1, user_stack: 2, kernel_stack: 3, kind: 0, flags: 0 },
            charged: [0; BANKS],
            uncharged: [0; BANKS],
            live_variance: [0; BANKS],
            charged_variance: 16,
            samples: 3,
            last_ns: 2,
            peak_mark: 0,
            peak_live: 0,
            peak_variance: 0,
        }
    }

    #[test]
    fn what_has_not_changed_since_the_peak_is_as_it_was() {
        let mut key = record();
        key.charged[bank_of(0)] = 1000;
        key.live_variance[bank_of(0)] = 9;
        (key.peak_mark, key.peak_live, key.peak_variance) = (3, 700, (-1_i64) as u64);
        let below = Peak { mark: 3, is_below: 1, ..Peak::default() };
        assert_eq!(key.at_peak(&below), (700, 0), "noted when it changed");
        assert_eq!(key.at_peak(&Peak { mark: 4, ..below }), (1000, 9), "noted at an earlier peak, and not changed since this one");
        assert_eq!(key.at_peak(&Peak { is_below: 0, ..below }), (1000, 9), "the peak is now");
        assert_eq!(key.at_peak(&Peak { is_below: 0, mark: 2, ..below }), (700, 0), "it was left after the peak was read");
    }

    #[test]
    fn a_frozen_picture_leaves_later_epochs_out() {
        let mut key = record();
        key.charged[bank_of(0)] = 1000;
        key.uncharged[bank_of(1)] = 900;
        key.charged[bank_of(2)] = 50;
        assert_eq!((key.live(), key.charged()), (150, 1050));
        let bank_epochs = [0, 1, 2, 0, 0, 0, 0, 0];
        assert_eq!(key.live_at(0, &bank_epochs), 1000);
        assert_eq!(key.live_at(1, &bank_epochs), 100);
        assert_eq!(key.live_at(2, &bank_epochs), 150);
        // The same banks after the epochs have gone round: bank 0 is the latest one now.
        assert_eq!(key.live_at(2, &[8, 1, 2, 0, 0, 0, 0, 0]), -850);
    }

    #[test]
    fn a_variance_that_was_torn_below_zero_is_none() {
        let mut key = record();
        key.live_variance[bank_of(0)] = 5;
        assert_eq!(key.live_variance(), 5);
        key.live_variance[BASE_BANK] = (-9_i64) as u64;
        assert_eq!(key.live_variance(), 0);
    }
}
