//! The kernel's process records: one dummy software event per CPU with a bounded ring each. Opens, waits, drains; keeps no state.
//!
//! perf-event2 owns the rings and hands out whole records; their bytes are read by [`super::record`].

use super::event::ProcessEvent;
use super::{record, sys};
use perf_event::events::Software;
use perf_event::{Builder, Clock, SampleFlag, Sampler};
use std::fs;
use std::time::Duration;

/// The smallest ring that is still of use, bytes.
const MIN_RING_BYTES: usize = 32 << 10;

/// Why the rings cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RingsError {
    /// The list of CPUs.
    #[error("cannot read which CPUs are online: {0}")]
    Cpus(std::io::Error),
    /// The event itself.
    #[error("cannot open a perf event on CPU {cpu}: {source} (needs CAP_PERFMON or root)")]
    Open {
        /// Which CPU.
        cpu: usize,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// Its ring.
    #[error("cannot map the ring of CPU {cpu}: {source} (locked memory, see kernel.perf_event_mlock_kb)")]
    Ring {
        /// Which CPU.
        cpu: usize,
        /// The kernel's error.
        source: std::io::Error,
    },
}

/// The rings of all CPUs that were online.
pub struct Rings {
    samplers: Vec<Sampler>,
    ring_bytes: usize,
}

impl Rings {
    /// Opens an event on every online CPU, with rings of `ring_bytes` if all fit in `total_bytes`, else smaller ones. Records are
    /// written from here on.
    pub fn open(ring_bytes: usize, total_bytes: usize, watermark_bytes: usize) -> Result<Rings, RingsError> {
        let cpus = fs::read_to_string("/sys/devices/system/cpu/online").map_err(RingsError::Cpus)?;
        let cpus = parse_cpus(&cpus);
        if cpus.is_empty() {
            return Err(RingsError::Cpus(std::io::Error::other("no CPU is online")));
        }
        let mut size = ring_bytes.min(total_bytes / cpus.len()).max(MIN_RING_BYTES);
        size = if size.is_power_of_two() { size } else { size.next_power_of_two() / 2 };
        loop {
            match open_all(&cpus, size, watermark_bytes) {
                Ok(mut samplers) => {
                    for sampler in &mut samplers {
                        sampler.enable().map_err(|source| RingsError::Open { cpu: 0, source })?;
                    }
                    return Ok(Rings { samplers, ring_bytes: size });
                }
                // Rings are locked memory: without the right to lock more, smaller ones have to do.
                Err(RingsError::Ring { .. }) if size > MIN_RING_BYTES => size /= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes of all rings together.
    pub fn total_bytes(&self) -> usize {
        self.ring_bytes * self.samplers.len()
    }

    /// Waits until a ring holds enough, or the time is over.
    pub fn wait(&self, timeout: Duration) -> std::io::Result<bool> {
        sys::poll_readable(&self.samplers, timeout)
    }

    /// Hands over what the rings hold now. A ring is left after as many bytes as it holds, so that a fast writer cannot keep the
    /// reader from the other CPUs. Records that are not understood are passed over.
    pub fn drain(&mut self, mut each: impl FnMut(ProcessEvent)) {
        for sampler in &mut self.samplers {
            let mut left = self.ring_bytes;
            while let Some(found) = sampler.next_record() {
                left = left.saturating_sub(found.len().max(1));
                if let Some(event) = record::parse(found.ty(), found.misc(), &found.to_contiguous()) {
                    each(event);
                }
                if left == 0 {
                    break;
                }
            }
        }
    }
}

fn open_all(cpus: &[usize], ring_bytes: usize, watermark_bytes: usize) -> Result<Vec<Sampler>, RingsError> {
    cpus.iter()
        .map(|&cpu| {
            let counter = Builder::new(Software::DUMMY)
                .any_pid()
                .one_cpu(cpu)
                .include_kernel()
                .include_hv()
                .mmap(true)
                // Not of data, which nobody needs for names: a program that maps in a storm would fill the rings.
                .mmap2(true)
                .comm(true)
                .comm_exec(true)
                .task(true)
                .sample(SampleFlag::TID | SampleFlag::TIME)
                .sample_id_all(true)
                .clockid(Clock::MONOTONIC)
                .wakeup_watermark(watermark_bytes)
                .build()
                .map_err(|source| RingsError::Open { cpu, source })?;
            counter.sampled(ring_bytes).map_err(|source| RingsError::Ring { cpu, source })
        })
        .collect()
}

/// The CPUs of a list such as `0-3,8`.
fn parse_cpus(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpus("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse_cpus("0"), [0]);
        assert!(parse_cpus("").is_empty() && parse_cpus("x-2").is_empty());
    }
}
