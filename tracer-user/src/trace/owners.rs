//! What the kernel half is told of cgroups: which are wanted, and how finely each is sampled.

use super::filter::Filter;
use crate::kernel_half::rates::Rates;
use crate::{
    cgroup::{CgroupId, CgroupPath, Registry, local::LocalFigures, poll::Poller},
    kernel_half::{
        BpfError, KernelHalf,
        tables::{OWNERS, Written},
    },
};
use std::collections::HashMap;
use tracer_common::{
    kind::Kind,
    settings::{OWNER_REFUSED, OWNER_REFUSED_ALONE, OWNER_WANTED, OwnerFilter},
};

/// Bytes of the kinds that are followed.
pub(super) fn bytes_of(figures: &HashMap<CgroupId, LocalFigures>) -> HashMap<CgroupId, u64> {
    let bytes = |figures: &LocalFigures| {
        let followed = Kind::ALL.iter().filter_map(|kind| figures.kinds.get(kind.name()));
        followed.fold(0_u64, |sum, figure| sum.saturating_add(u64::try_from(figure.bytes).unwrap_or(0)))
    };
    figures.iter().map(|(id, figures)| (*id, bytes(figures))).collect()
}

/// Tells the kernel half what is decided: wanted subtrees, those in which nothing can ever match, and cgroups that do not match though
/// one below them may; and how finely each is sampled, by its bytes. One whose bytes are not known keeps the M that it has by now: the
/// kernel half gave it one when it was made. What finds no room stays undecided: recorded with the host's M, and left out of the report.
pub(super) fn write<'a>(
    bpf: &mut KernelHalf,
    filter: &Filter,
    rates: &Rates,
    bytes: &HashMap<CgroupId, u64>,
    cgroups: impl Iterator<Item = (CgroupId, &'a CgroupPath)>,
) -> Result<(), BpfError> {
    if filter.is_open() && !rates.differ() {
        return Ok(());
    }
    // Wanted ones first: only those without room may be undecided that do not matter.
    let (wanted, others): (Vec<_>, Vec<_>) = cgroups.partition(|(_, path)| filter.wants(path));
    for (id, path) in wanted.into_iter().chain(others) {
        // Recorded until its name is known.
        if filter.is_undecided(path) {
            continue;
        }
        let verdict = if filter.wants(path) {
            OWNER_WANTED
        } else if filter.refuses_below(path) {
            OWNER_REFUSED
        } else {
            OWNER_REFUSED_ALONE
        };
        let bytes = bytes.get(&id).copied();
        if bytes.is_none() && OWNERS.get(bpf, &id.0)?.is_some_and(|filter| filter.verdict == verdict) {
            continue;
        }
        let log2_mean = rates.log2_mean(bytes.unwrap_or(0));
        let written = OWNERS.insert(bpf, &id.0, &OwnerFilter { verdict, log2_mean, kept: 0 })?;
        if written != Written::Done {
            log::debug!("the filter's table is full or busy ({written:?}): cgroup {} stays as it is there", id.0);
        }
    }
    Ok(())
}

/// All that are in the table. An entry that goes while it is walked may be left out.
pub(super) fn known(bpf: &mut KernelHalf) -> Result<Vec<u64>, BpfError> {
    OWNERS.keys(bpf)
}

/// Makes room in the table: nobody is charged there any more.
pub(super) fn forget(bpf: &mut KernelHalf, removed: &[u64]) -> Result<(), BpfError> {
    // Most were never in it.
    OWNERS.remove(bpf, removed)
}

/// Most that the wanted cgroups can hold: the sum of the limits of those that match themselves; `None` if one has no limit.
pub(super) fn limits_of(filter: &Filter, registry: &Registry, poller: &mut Poller) -> Option<u64> {
    let mut sum = 0_u64;
    let mut any = false;
    for cgroup in registry.iter().filter(|cgroup| filter.wants(&cgroup.path)) {
        let parent_wanted = cgroup.path.parent().is_some_and(|parent| filter.wants(&parent));
        if parent_wanted {
            continue;
        }
        any = true;
        let limit = poller.read_one(cgroup.id, &cgroup.path).ok().flatten()?.limit?.bytes()?;
        sum = sum.saturating_add(limit);
    }
    any.then_some(sum)
}
