//! Memory older than the trace. One pass over /proc/kpageflags finds the folios that are in use, the sampling rule picks among them,
//! and the kernel half reads owner and kind of each and keeps it like any other sample, so that its uncharge cancels like any other.

use super::BpfError;
use aya::{Ebpf, RawTracePointRunOptions, TestRun as _, programs::RawTracePoint};
use std::{fs::File, io, os::unix::fs::FileExt as _, time::Duration, time::Instant};
use tracer_common::sampling::{Sampler, weight_per_frame};

/// Flag bits of /proc/kpageflags (include/uapi/linux/kernel-page-flags.h).
mod flag {
    pub const LRU: u64 = 1 << 5;
    pub const SLAB: u64 = 1 << 7;
    pub const BUDDY: u64 = 1 << 10;
    pub const ANON: u64 = 1 << 12;
    pub const SWAPBACKED: u64 = 1 << 14;
    pub const COMPOUND_TAIL: u64 = 1 << 16;
    pub const HUGE: u64 = 1 << 17;
    pub const NOPAGE: u64 = 1 << 20;
    pub const PGTABLE: u64 = 1 << 26;
}

/// Frames read at a time: 1 MiB of flags.
const CHUNK: usize = 1 << 17;

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

/// Takes the baseline. `seed` makes the choice of folios differ between runs.
pub fn take(bpf: &mut Ebpf, frames: u64, log2_mean: u32, seed: u64) -> Result<Scan, BpfError> {
    let program: &mut RawTracePoint = bpf
        .program_mut("run_baseline")
        .ok_or(BpfError::Missing("program run_baseline"))?
        .try_into()
        .map_err(|source| BpfError::Run { program: "run_baseline", source })?;
    let failed = |source| BpfError::Run { program: "run_baseline", source };
    program.load().map_err(failed)?;
    let started = Instant::now();
    let mut scan = Scan::default();
    let mut sampler = Sampler::seeded(seed, log2_mean);
    let mut failure = None;
    each_folio(frames, &mut scan.frames, |frame, order| {
        if !sampler.take(order, log2_mean) {
            return true;
        }
        scan.offered += 1;
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = frame;
        options.args[1] = u64::from(order);
        options.args[2] = weight_per_frame(order, log2_mean);
        failure = program.test_run(options).err();
        failure.is_none()
    })
    .map_err(|source| BpfError::Proc { path: "/proc/kpageflags", source })?;
    if let Some(source) = failure {
        return Err(failed(source));
    }
    scan.kept = super::tables::run_result(bpf, 1)?[0];
    scan.took = started.elapsed();
    Ok(scan)
}

/// Calls `visit` with first frame and order of every folio that may be charged user memory, until it says `false`.
fn each_folio(frames: u64, looked_at: &mut u64, mut visit: impl FnMut(u64, u32) -> bool) -> io::Result<()> {
    let file = File::open("/proc/kpageflags")?;
    let mut bytes = vec![0; CHUNK * 8];
    // A folio may cross chunks: its head waits here with the frames counted so far.
    let mut head: Option<(u64, u64)> = None;
    let mut frame = 0_u64;
    while frame < frames {
        let want = ((frames - frame) as usize).min(CHUNK) * 8;
        let got = file.read_at(&mut bytes[..want], frame * 8)?;
        if got < 8 {
            break;
        }
        for word in bytes[..got / 8 * 8].chunks_exact(8) {
            let flags = u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
            *looked_at += 1;
            if flags & flag::COMPOUND_TAIL != 0 {
                if let Some((_, count)) = &mut head {
                    *count += 1;
                }
            } else {
                if let Some((first, count)) = head.take()
                    && !visit(first, count.ilog2())
                {
                    return Ok(());
                }
                if is_candidate(flags) {
                    head = Some((frame, 1));
                }
            }
            frame += 1;
        }
    }
    if let Some((first, count)) = head {
        visit(first, count.ilog2());
    }
    Ok(())
}

/// Anonymous, shmem or page cache. Not what only the kernel uses.
fn is_candidate(flags: u64) -> bool {
    flags & (flag::SLAB | flag::BUDDY | flag::NOPAGE | flag::PGTABLE | flag::HUGE) == 0
        && flags & (flag::LRU | flag::ANON | flag::SWAPBACKED) != 0
}
