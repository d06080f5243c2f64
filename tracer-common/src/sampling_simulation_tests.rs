//! The estimates of simulated workloads, held against what their standard errors promise. The code that decides is the kernel half's own.

extern crate std;

use super::*;
use std::vec::Vec;

/// Estimates of one simulated run: charged and live bytes with their variances, in bytes and bytes squared.
#[derive(Default)]
struct Estimate {
    charged: f64,
    charged_variance: f64,
    live: f64,
    live_variance: f64,
}

/// One folio of a workload: its order, and whether it is still there at the end.
type Folio = (u32, bool);

fn estimate(folios: impl Iterator<Item = Folio>, seed: u64, log2_mean: impl Fn(usize) -> u32) -> Estimate {
    let mut sampler = Sampler::seeded(seed, log2_mean(0));
    let mut sum = Estimate::default();
    let mut rate = log2_mean(0);
    for (i, (order, live)) in folios.enumerate() {
        if log2_mean(i) != rate {
            // A change of M draws all gaps anew; each sample keeps its weight.
            rate = log2_mean(i);
            for order in 0..ORDERS as u32 {
                sampler.redraw(order, rate);
            }
        }
        if sampler.take(order, rate) {
            let weight = (weight_per_frame(order, rate) << order) as f64;
            let size = (FRAME_BYTES << order) as f64;
            sum.charged += weight;
            sum.charged_variance += weight * (weight - size);
            if live {
                sum.live += weight;
                sum.live_variance += weight * (weight - size);
            }
        }
    }
    sum
}

fn prove(name: &str, folios: &[Folio], log2_mean: impl Fn(usize) -> u32 + Copy) {
    prove_of(name, folios, |seed| estimate(folios.iter().copied(), seed, log2_mean));
}

/// Runs the workload with 2,000 seeds and holds the errors against what the standard errors promise.
fn prove_of(name: &str, folios: &[Folio], estimate: impl Fn(u64) -> Estimate) {
    const RUNS: u64 = 2000;
    let size = |order: u32| (FRAME_BYTES << order) as f64;
    let charged: f64 = folios.iter().map(|(order, _)| size(*order)).sum();
    let live: f64 = folios.iter().filter(|(_, live)| *live).map(|(order, _)| size(*order)).sum();
    let (mut errors, mut live_errors) = (Vec::new(), Vec::new());
    for seed in 0..RUNS {
        let e = estimate(seed * 7919 + 1);
        errors.push((e.charged - charged, e.charged_variance.sqrt()));
        live_errors.push((e.live - live, e.live_variance.sqrt()));
    }
    for (what, errors) in [("charged", errors), ("live", live_errors)] {
        let n = errors.len() as f64;
        let within = |times: f64| errors.iter().filter(|(e, s)| e.abs() <= times * s).count() as f64 / n;
        let typical = errors.iter().map(|(_, s)| s).sum::<f64>() / n;
        let mean = errors.iter().map(|(e, _)| e).sum::<f64>() / n;
        let (one, two) = (within(1.0), within(2.0));
        assert!((0.65..=0.71).contains(&one), "{name} {what}: {one} within one standard error");
        assert!((0.94..=0.97).contains(&two), "{name} {what}: {two} within two standard errors");
        assert!(mean.abs() < 0.1 * typical, "{name} {what}: mean error {mean}, standard error {typical}");
    }
}

#[test]
fn small_folios_of_which_half_stay() {
    let folios: Vec<Folio> = (0..65_536).map(|i| (0, i % 2 == 0)).collect();
    prove("4 KiB folios", &folios, |_| 17);
}

#[test]
fn mixed_sizes() {
    let folios: Vec<Folio> =
        (0..40_000_u32).map(|i| ([0, 0, 0, 2, 4, 0, 1, 9][(i % 8) as usize].min(if i % 64 == 7 { 9 } else { 4 }), i % 3 == 0)).collect();
    prove("mixed folios", &folios, |_| 18);
}

#[test]
fn recycling_the_same_few_pages_in_phase_with_the_sampler() {
    // 64 pages, again and again, of which the same 16 stay at the end of the last round: with every n-th page taken, or with
    // pages chosen by frame, the stayers would be seen always or never.
    let rounds = 2000;
    let folios: Vec<Folio> = (0..rounds * 64).map(|i| (0, i % 64 < 16 && i >= (rounds - 600) * 64)).collect();
    prove("recycled pages", &folios, |_| 18);
}

#[test]
fn a_skewed_stack_is_as_unbiased_as_the_rest() {
    // The live ones are a rare stack: one charge in 29.
    let folios: Vec<Folio> = (0..200_000).map(|i| (0, i % 29 == 0)).collect();
    prove("rare stack", &folios, |_| 17);
}

#[test]
fn the_rate_may_change_on_the_way() {
    let folios: Vec<Folio> = (0..80_000).map(|i| (0, i % 2 == 0)).collect();
    prove("changing M", &folios, |i| if i < 40_000 { 16 } else { 18 });
}

/// As [`estimate`], with one M for all and the owner's own on top: `log2_mean` gives it by the folio's number and the samples kept
/// so far. Each sample is thinned twice, as where the owner expected and the real one are asked.
fn estimate_thinned(folios: &[Folio], seed: u64, log2_fine: u32, log2_mean: impl Fn(usize, u64) -> u32) -> Estimate {
    let mut sampler = Sampler::seeded(seed, log2_fine);
    let mut sum = Estimate::default();
    let mut kept = 0;
    for (i, (order, live)) in folios.iter().copied().enumerate() {
        if !sampler.take(order, log2_fine) {
            continue;
        }
        let mut weight = weight_per_frame(order, log2_fine);
        for coarser in [0, 1] {
            weight = if weight == 0 { 0 } else { thinned(weight, order, log2_mean(i, kept) + coarser, sampler.next_random()) };
        }
        if weight != 0 {
            kept += 1;
            let (weight, size) = ((weight << order) as f64, (FRAME_BYTES << order) as f64);
            sum.charged += weight;
            sum.charged_variance += weight * (weight - size);
            sum.live += if live { weight } else { 0.0 };
            sum.live_variance += if live { weight * (weight - size) } else { 0.0 };
        }
    }
    sum
}

#[test]
fn an_owner_may_be_thinned_and_that_may_change_on_the_way() {
    let folios: Vec<Folio> = (0..60_000_u32).map(|i| ([0, 0, 2, 0, 0, 4][(i % 6) as usize], i % 2 == 0)).collect();
    prove_of("thinning", &folios, |seed| estimate_thinned(&folios, seed, 15, |i, _| if i < 30_000 { 15 } else { 18 }));
}

#[test]
fn an_owner_may_be_thinned_by_how_many_samples_it_has() {
    let folios: Vec<Folio> = (0..60_000).map(|i| (0, i % 2 == 0)).collect();
    prove_of("thinning by samples kept", &folios, |seed| estimate_thinned(&folios, seed, 14, |_, kept| (14 + (kept >> 8) as u32).min(17)));
}
