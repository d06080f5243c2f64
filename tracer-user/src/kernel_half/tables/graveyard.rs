//! Samples that ended while a picture was open.

use super::{row::HashTable, samples};
use crate::kernel_half::{BpfError, loaded::KernelHalf, wish::Wish};
use std::collections::HashMap;
use tracer_common::{
    attribution::{Grave, Sample},
    loss::Loss,
};

fn planned(wish: &Wish) -> u32 {
    // What a victim frees while its picture is read is a folio a grave; beyond this its bytes stay right, their age is lost.
    if wish.exact { samples::planned(wish).min(52 << 10) } else { 1 << 13 }
}

/// By slot and end; the value is the sample as it was.
pub static GRAVEYARD: HashTable<Grave, Sample> =
    HashTable::named("GRAVEYARD").planned(planned).halved().forcible().loses(&[Loss::GraveyardFull]);

/// Samples kept for open pictures.
pub fn graveyard(half: &KernelHalf) -> Result<HashMap<Grave, Sample>, BpfError> {
    GRAVEYARD.entries(half)
}

/// Removes samples from the graveyard; those that are gone already are passed over.
pub fn remove_graves(half: &mut KernelHalf, graves: &[Grave]) -> Result<(), BpfError> {
    GRAVEYARD.remove(half, graves)
}
