//! Memory older than the trace. The sampling rule picks folios that /proc/kpageflags says are in use, and the kernel half reads owner
//! and kind of each and keeps it like any other sample, so that its uncharge cancels like any other.
//!
//! The picking comes before the looking, since the kernel takes some 70 ns for the flags of a frame and a host has millions: see
//! [`each_taken`]. Where only some cgroups are wanted, /proc/kpagecgroup is asked first, so that the frames of all others are neither
//! looked at nor handed over.

use super::{BpfError, loaded::KernelHalf, tables};
use aya::{RawTracePointRunOptions, TestRun as _, programs::RawTracePoint};
use std::{collections::HashSet, fs::File, io, os::unix::fs::FileExt as _, time::Duration, time::Instant};
use tracer_common::sampling::{MIN_LOG2_MEAN, Sampler, always_taken, weight_per_frame};

/// Flag bits of /proc/kpageflags (include/uapi/linux/kernel-page-flags.h).
mod flag {
    pub const LRU: u64 = 1 << 5;
    pub const SLAB: u64 = 1 << 7;
    pub const BUDDY: u64 = 1 << 10;
    pub const ANON: u64 = 1 << 12;
    pub const SWAPBACKED: u64 = 1 << 14;
    pub const COMPOUND_HEAD: u64 = 1 << 15;
    pub const COMPOUND_TAIL: u64 = 1 << 16;
    pub const HUGE: u64 = 1 << 17;
    pub const NOPAGE: u64 = 1 << 20;
    pub const PGTABLE: u64 = 1 << 26;
}

/// Frames read at a time where most are looked at: 1 MiB of flags.
const CHUNK: u64 = 1 << 17;
/// From this log2 of M on a frame is read alone: at most one in nine is looked at then, and a read costs as much as five frames.
const SPARSE_LOG2_MEAN: u32 = MIN_LOG2_MEAN + 5;

const FLAGS: &str = "/proc/kpageflags";
/// Inode number of the cgroup that each frame is charged to, which is its id: 0 for none, a living ancestor's for a removed one.
const OWNERS: &str = "/proc/kpagecgroup";

/// What the pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Frames looked at.
    pub frames: u64,
    /// Folios handed to the kernel half.
    pub offered: u64,
    /// Folios it kept: charged, and not charged since the start.
    pub kept: u64,
    /// How long it took.
    pub took: Duration,
}

/// Takes the baseline, of the cgroups in `wanted` or of all. `seed` makes the choice of folios differ between runs.
pub fn take(half: &mut KernelHalf, frames: u64, log2_mean: u32, seed: u64, wanted: Option<&HashSet<u64>>) -> Result<Scan, BpfError> {
    let program: &mut RawTracePoint = half
        .bpf
        .program_mut("run_baseline")
        .ok_or(BpfError::Missing("program run_baseline"))?
        .try_into()
        .map_err(|error| BpfError::Run { program: "run_baseline", error: Box::new(error) })?;
    let failed = |error| BpfError::Run { program: "run_baseline", error: Box::new(error) };
    program.load().map_err(failed)?;
    let started = Instant::now();
    let mut scan = Scan::default();
    let mut sampler = Sampler::seeded(seed, log2_mean);
    let mut failure = None;
    let mut offered = 0;
    let window = if log2_mean < SPARSE_LOG2_MEAN { CHUNK } else { 1 };
    let mut flags = Words::open(FLAGS, if wanted.is_some() { 1 } else { window })?;
    let mut owners = wanted.map(|_| Words::open(OWNERS, window)).transpose()?;
    let look = |frame, part| {
        // Not of tails: only some kernels tell their owner.
        if let (Part::Head, Some(wanted), Some(owners)) = (part, wanted, &mut owners) {
            match owners.of(frame)? {
                Some(owner) if wanted.contains(&owner) => {}
                other => return Ok(other.map(|_| flag::NOPAGE)),
            }
        }
        flags.of(frame)
    };
    each_taken(frames, log2_mean, &mut sampler, look, |frame, order| {
        offered += 1;
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = frame;
        options.args[1] = u64::from(order);
        options.args[2] = weight_per_frame(order, log2_mean);
        failure = program.test_run(options).err();
        failure.is_none()
    })
    .map_err(|source| BpfError::Proc { path: FLAGS, source })?;
    if let Some(source) = failure {
        return Err(failed(source));
    }
    (scan.frames, scan.offered) = (owners.map_or(flags.looked_at, |owners| owners.looked_at), offered);
    scan.kept = tables::run_result(half, 1)?[0];
    scan.took = started.elapsed();
    Ok(scan)
}

/// A file with a word for each frame.
struct Words {
    file: File,
    /// Words of the frames from `first` on.
    buffer: Vec<u8>,
    first: u64,
    window: u64,
    looked_at: u64,
}

impl Words {
    fn open(path: &'static str, window: u64) -> Result<Words, BpfError> {
        let file = File::open(path).map_err(|source| BpfError::Proc { path, source })?;
        Ok(Words { file, buffer: Vec::new(), first: 0, window, looked_at: 0 })
    }

    /// The word of a frame; `None` beyond the last one.
    fn of(&mut self, frame: u64) -> io::Result<Option<u64>> {
        self.looked_at += 1;
        if frame < self.first || frame >= self.first + (self.buffer.len() / 8) as u64 {
            self.buffer.resize(self.window as usize * 8, 0);
            let got = self.file.read_at(&mut self.buffer, frame * 8)?;
            self.buffer.truncate(got / 8 * 8);
            self.first = frame;
        }
        let at = (frame - self.first) as usize * 8;
        Ok(self.buffer.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes))
    }
}

/// What a frame is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A folio may begin there.
    Head,
    /// It may belong to one that was found.
    Tail,
}

/// Calls `visit` with first frame and order of folios that may be charged user memory, each with the probability that the sampling
/// rule gives its order, until it says `false`.
///
/// A folio begins at a multiple of its length. So a frame whose number is a multiple of 2^k and no more is looked at with the
/// probability of a folio of order k, the largest that can begin there; if a smaller one of order i does, it is taken with what is left
/// of its own probability: p(i) / p(k). With a mean of 1 MiB that looks at one frame in fifty.
fn each_taken(
    frames: u64,
    log2_mean: u32,
    sampler: &mut Sampler,
    mut flags: impl FnMut(u64, Part) -> io::Result<Option<u64>>,
    mut visit: impl FnMut(u64, u32) -> bool,
) -> io::Result<()> {
    for frame in 0..frames {
        let alignment = frame.trailing_zeros();
        if !sampler.take(alignment, log2_mean) {
            continue;
        }
        let Some(seen) = flags(frame, Part::Head)? else { return Ok(()) };
        if !is_candidate(seen) {
            continue;
        }
        let mut order = 0;
        // What is a multiple of 2^order away is the folio's own tail or the head of something else.
        while seen & flag::COMPOUND_HEAD != 0
            && order < alignment
            && flags(frame + (1 << order), Part::Tail)?.is_some_and(|tail| tail & flag::COMPOUND_TAIL != 0)
        {
            order += 1;
        }
        let left = halvings(order, log2_mean) - halvings(alignment, log2_mean);
        if sampler.next_random() >> (64 - left - 1) >> 1 == 0 && !visit(frame, order) {
            return Ok(());
        }
    }
    Ok(())
}

/// k, where the sampling rule takes a folio of that order with probability 2^-k.
fn halvings(order: u32, log2_mean: u32) -> u32 {
    if always_taken(order, log2_mean) { 0 } else { log2_mean - MIN_LOG2_MEAN - order }
}

/// Anonymous, shmem or page cache. Not what only the kernel uses, nor the tail of what began before.
fn is_candidate(flags: u64) -> bool {
    flags & (flag::COMPOUND_TAIL | flag::SLAB | flag::BUDDY | flag::NOPAGE | flag::PGTABLE | flag::HUGE) == 0
        && flags & (flag::LRU | flag::ANON | flag::SWAPBACKED) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: u64 = 1 << 15;

    /// Blocks of 1024 frames, each filled with folios of one order from 0 to 10; every fourth folio of a block is free memory.
    fn memory() -> (Vec<u64>, [u64; 11]) {
        let (mut flags, mut folios) = (Vec::new(), [0; 11]);
        while (flags.len() as u64) < FRAMES {
            let order = flags.len() / 1024 * 7 % 11;
            for folio in 0..1024 >> order {
                if folio % 4 == 3 {
                    flags.extend((0..1 << order).map(|_| flag::BUDDY));
                    continue;
                }
                folios[order] += 1;
                flags.push(flag::LRU | if order > 0 { flag::COMPOUND_HEAD } else { 0 });
                flags.extend((1..1 << order).map(|_| flag::LRU | flag::COMPOUND_TAIL));
            }
        }
        (flags, folios)
    }

    fn taken(flags: &[u64], log2_mean: u32, seed: u64) -> ([u64; 11], u64) {
        let (mut taken, mut looked_at) = ([0; 11], 0);
        let mut sampler = Sampler::seeded(seed, log2_mean);
        let look = |frame: u64, _| {
            looked_at += 1;
            Ok(flags.get(frame as usize).copied())
        };
        each_taken(FRAMES, log2_mean, &mut sampler, look, |frame, order| {
            assert_eq!(frame.trailing_zeros().min(order), order);
            taken[order as usize] += 1;
            true
        })
        .unwrap();
        (taken, looked_at)
    }

    #[test]
    fn without_sampling_every_folio_is_found_once_and_nothing_else() {
        let (flags, folios) = memory();
        assert!(folios.iter().all(|count| *count > 0), "{folios:?}");
        assert_eq!(taken(&flags, MIN_LOG2_MEAN, 1).0, folios);
    }

    /// The number taken of each order is binomial: over many runs its mean is within four of its own standard errors.
    #[test]
    fn each_order_is_taken_with_the_probability_that_its_weight_stands_for() {
        const RUNS: u64 = 400;
        let (flags, folios) = memory();
        let mut sums = [0; 11];
        let mut looked_at = 0;
        for seed in 0..RUNS {
            let (one, looks) = taken(&flags, 20, seed);
            looked_at += looks;
            sums.iter_mut().zip(one).for_each(|(sum, count)| *sum += count);
        }
        for (order, (sum, count)) in sums.iter().zip(folios).enumerate() {
            let p = f64::from(1 << order.min(8)) / 256.0;
            let trials = (count * RUNS) as f64;
            let error = (*sum as f64 - trials * p).abs();
            assert!(error <= 4.0 * (trials * p * (1.0 - p)).sqrt(), "order {order}: {sum} of {trials}, p {p}");
        }
        assert!(looked_at < RUNS * FRAMES / 15, "{looked_at}");
    }
}
