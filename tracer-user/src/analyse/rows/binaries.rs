//! Which files the frames of stacks are in.

use crate::report::{BinaryRow, Cgroup};
use std::collections::HashSet;

/// The files of these stacks' frames, and the kernel.
#[must_use]
pub fn of_stacks(binaries: &[BinaryRow], cgroups: &[Cgroup]) -> Vec<BinaryRow> {
    let frames: HashSet<&str> = cgroups.iter().flat_map(|cgroup| &cgroup.stacks).flat_map(|row| &row.frames).map(String::as_str).collect();
    let shown = |binary: &BinaryRow| {
        let frames: Vec<String> = binary.frames.iter().filter(|frame| frames.contains(frame.as_str())).cloned().collect();
        let kept = !frames.is_empty() || binary.path == BinaryRow::KERNEL;
        kept.then(|| BinaryRow { frames, ..binary.clone() })
    };
    binaries.iter().filter_map(shown).collect()
}
