//! Pictures: a new epoch begins, and what was live when the old one ended stays readable.

use crate::{
    atomic, diagnose, loss,
    maps::{CONTROL, KEYS},
};
use tracer_common::{
    attribution::{BANKS, PICTURES, ROTATING_BANKS, bank_of},
    diagnosis::Diagnosis,
    loss::Loss,
};

/// Ends the current epoch and opens a picture of it; its number, or `None` if all pictures are open.
///
/// The caller holds the OOM lock (mm/oom_kill.c, `oom_lock`): two that opened at once would both add the bit of the epoch that they end, which
/// carries into another bank's. No kernel before 5.12 lets a program set a bit atomically in any other way.
#[inline(always)]
pub fn open() -> Option<u64> {
    let control = CONTROL.get_ptr_mut(0)?;
    // SAFETY: a map value, which only the OOM lock's holder opens pictures in. Closing may run at the same time: it only frees banks.
    unsafe {
        if (*control).open_pictures >= PICTURES as u64 {
            loss::count(Loss::PictureRefused, 0);
            return None;
        }
        let ended = (*control).epoch;
        let held = (*control).held_banks | bit(ended);
        // The next epoch whose bank no picture holds. There is one: pictures hold four of eight banks at most.
        let mut next = ended + 1;
        let mut tries = 0;
        while tries < ROTATING_BANKS {
            if held & bit(next) == 0 {
                break;
            }
            next += 1;
            tries += 1;
        }
        // The graveyard opens before the new epoch begins, so that no end is missed.
        atomic::add(&raw mut (*control).open_pictures, 1);
        atomic::add(&raw mut (*control).held_banks, bit(ended));
        (*control).bank_epochs[bank_of(next)] = next;
        (*control).epoch = next;
        diagnose::tell(Diagnosis::PictureOpened, ended, next);
        Some(ended)
    }
}

/// Closes the picture of `epoch`. User space has folded its bank and emptied the graveyard of what no other picture needs.
#[inline(always)]
pub fn close(epoch: u64) {
    let Some(control) = CONTROL.get_ptr_mut(0) else { return };
    // SAFETY: a map value; one thread closes pictures.
    unsafe {
        if (*control).held_banks & bit(epoch) != 0 && (*control).open_pictures != 0 {
            atomic::subtract(&raw mut (*control).held_banks, bit(epoch));
            atomic::subtract(&raw mut (*control).open_pictures, 1);
            diagnose::tell(Diagnosis::PictureClosed, epoch, (*control).open_pictures);
        }
    }
}

/// The bit of an epoch's bank.
#[inline(always)]
fn bit(epoch: u64) -> u64 {
    1 << bank_of(epoch)
}

/// Moves one bank of a key to another, when no open picture tells them apart any more.
#[inline(always)]
pub fn fold(identity: u64, from: u64, to: u64) {
    let Some(record) = KEYS.get_ptr_mut(identity) else { return };
    if from >= BANKS as u64 || to >= BANKS as u64 {
        return;
    }
    let (from, to) = (from as usize, to as usize);
    // SAFETY: a map value. The bank is quiet: its epoch is over. The other one is added to atomically.
    unsafe {
        move_bank(&raw mut (*record).charged, from, to);
        move_bank(&raw mut (*record).uncharged, from, to);
        move_bank(&raw mut (*record).live_variance, from, to);
    }
}

/// # Safety
/// `banks` is a map value; both numbers are below [`BANKS`].
#[inline(always)]
unsafe fn move_bank(banks: *mut [u64; BANKS], from: usize, to: usize) {
    // SAFETY: by the caller.
    unsafe {
        let value = (*banks)[from];
        atomic::add(&raw mut (*banks)[to], value);
        atomic::subtract(&raw mut (*banks)[from], value);
    }
}
