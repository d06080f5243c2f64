//! What to load: for each probe the providers that this kernel may have, best first, with the reason for each that it cannot.
//!
//! Pure: arguments and facts in, plan out. Attaching then takes the first that the kernel really loads.

use crate::kernel_half::probes::{Attach, CATALOGUE, FOLLOW, Hook, Probe, ProbeId, Provider, Tier};

/// What the kernel has by name; a trait so that plans can be made from captured facts.
pub trait Names {
    /// Number of parameters of a kernel function that can be traced by type, `None` if there is no such function.
    fn function(&self, name: &str) -> Option<u32>;
    /// Whether the tracepoint exists.
    fn tracepoint(&self, name: &str) -> bool;
    /// Number of arguments of a tracepoint, `None` if it is not known.
    fn tracepoint_arguments(&self, name: &str) -> Option<u32>;
    /// Whether kprobes are configured.
    fn kprobes(&self) -> bool;
}

/// One probe with the providers to try, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedProbe {
    /// Which.
    pub id: ProbeId,
    /// The probe must have a provider: without one a kind of memory is not followed.
    pub required: bool,
    /// What to try.
    pub candidates: Vec<Candidate>,
    /// Why better providers are not among them.
    pub refused: Vec<String>,
}

/// A provider bound to this kernel's function names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its tier.
    pub tier: Tier,
    /// Programs and what they attach to; all of them or none.
    pub programs: Vec<Target>,
}

/// One program and its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the program in the object.
    pub program: &'static str,
    /// How it attaches.
    pub attach: Attach,
    /// Function or tracepoint.
    pub target: &'static str,
}

/// A wish that cannot be planned.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A forced tier is not to be had.
    #[error("provider {tier} cannot be had for probe {probe}: {reason}")]
    Forced {
        /// Which.
        tier: Tier,
        /// For which probe.
        probe: ProbeId,
        /// Why.
        reason: String,
    },
}

/// Plans all probes. `forced` keeps only that tier for each probe that has a provider in it; probes that exist only as
/// tracepoints keep theirs. `follow` adds what following processes needs.
pub fn plan(names: &impl Names, forced: Option<Tier>, follow: bool) -> Result<Vec<PlannedProbe>, PlanError> {
    CATALOGUE.iter().chain(follow.then_some(&FOLLOW)).map(|probe| plan_one(names, probe, forced)).collect()
}

fn plan_one(names: &impl Names, probe: &Probe, forced: Option<Tier>) -> Result<PlannedProbe, PlanError> {
    let mut planned = PlannedProbe { id: probe.id, required: probe.required, candidates: Vec::new(), refused: Vec::new() };
    let has_forced = forced.is_some_and(|tier| probe.providers.iter().any(|provider| provider.tier == tier));
    for provider in probe.providers {
        if has_forced && forced != Some(provider.tier) {
            continue;
        }
        match bind(names, provider) {
            Ok(candidate) => planned.candidates.push(candidate),
            Err(reason) => planned.refused.push(format!("{}: {reason}", provider.tier)),
        }
    }
    match forced {
        Some(tier) if has_forced && probe.required && planned.candidates.is_empty() => {
            Err(PlanError::Forced { tier, probe: probe.id, reason: planned.refused.join("; ") })
        }
        _ => Ok(planned),
    }
}

fn bind(names: &impl Names, provider: &Provider) -> Result<Candidate, String> {
    if provider.tier == Tier::Kprobe && !names.kprobes() {
        return Err("this kernel has no kprobes (CONFIG_KPROBES)".to_owned());
    }
    let mut programs = Vec::new();
    let is_for = |hook: &&Hook| hook.beside.is_none_or(|(name, count)| names.tracepoint_arguments(name) == Some(count));
    for hook in provider.hooks.iter().filter(is_for) {
        let found = hook.targets.iter().find(|target| match hook.attach {
            Attach::RawTracepoint | Attach::TypedTracepoint => names.tracepoint(target),
            _ => names.function(target).is_some_and(|count| hook.parameters.is_none_or(|wanted| wanted == count)),
        });
        match found {
            Some(target) => programs.push(Target { program: hook.program, attach: hook.attach, target }),
            None if hook.optional => {}
            None => return Err(format!("this kernel has no {}", hook.targets.join(" or "))),
        }
    }
    if programs.is_empty() { Err("this kernel has none of its hooks".to_owned()) } else { Ok(Candidate { tier: provider.tier, programs }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that has everything, less what a test takes away.
    struct Kernel {
        without: &'static [&'static str],
        kprobes: bool,
        /// Its tracepoint of OOM victims tells a thread id.
        old: bool,
    }

    const ALL: Kernel = Kernel { without: &[], kprobes: true, old: false };

    impl Names for Kernel {
        fn function(&self, name: &str) -> Option<u32> {
            let parameters = if name == "shmem_add_to_page_cache" { 5 } else { 4 };
            (!self.without.contains(&name)).then_some(parameters)
        }
        fn tracepoint(&self, name: &str) -> bool {
            !self.without.contains(&name)
        }
        fn tracepoint_arguments(&self, _: &str) -> Option<u32> {
            Some(if self.old { 1 } else { 2 })
        }
        fn kprobes(&self) -> bool {
            self.kprobes
        }
    }

    fn tiers(plan: &[PlannedProbe], probe: ProbeId) -> Vec<Tier> {
        plan.iter().find(|p| p.id == probe).unwrap().candidates.iter().map(|c| c.tier).collect()
    }

    #[test]
    fn a_capable_kernel_gets_every_tier_best_first() {
        let plan = plan(&ALL, None, false).unwrap();
        assert_eq!(tiers(&plan, ProbeId::AnonCommit), [Tier::Fentry, Tier::Kprobe, Tier::Tracepoint]);
        assert_eq!(tiers(&plan, ProbeId::FileCommit), [Tier::Tracepoint]);
    }

    #[test]
    fn without_kprobes_the_reason_is_kept() {
        let plan = plan(&Kernel { kprobes: false, ..ALL }, None, false).unwrap();
        let anon = plan.iter().find(|p| p.id == ProbeId::AnonCommit).unwrap();
        assert_eq!(tiers(&plan, ProbeId::AnonCommit), [Tier::Fentry, Tier::Tracepoint]);
        assert!(anon.refused[0].contains("CONFIG_KPROBES"), "{:?}", anon.refused);
    }

    #[test]
    fn a_forced_tier_that_cannot_be_had_is_an_error_with_the_reason() {
        let error = plan(&Kernel { kprobes: false, ..ALL }, Some(Tier::Kprobe), false).unwrap_err();
        assert!(error.to_string().contains("CONFIG_KPROBES"), "{error}");
        let error = plan(&Kernel { without: &["mm_lru_insertion"], ..ALL }, Some(Tier::Tracepoint), false).unwrap_err();
        assert!(error.to_string().contains("mm_lru_insertion"), "{error}");
    }

    #[test]
    fn a_forced_tier_leaves_probes_that_exist_only_as_tracepoints() {
        let plan = plan(&ALL, Some(Tier::Kprobe), false).unwrap();
        assert_eq!(tiers(&plan, ProbeId::FileCommit), [Tier::Tracepoint]);
        assert_eq!(tiers(&plan, ProbeId::AnonCommit), [Tier::Kprobe]);
    }

    #[test]
    fn signals_are_watched_only_where_a_victims_task_is_not_told() {
        for old in [false, true] {
            let plan = plan(&Kernel { old, ..ALL }, None, false).unwrap();
            let oom = plan.iter().find(|probe| probe.id == ProbeId::Oom).unwrap();
            let watched = |candidate: &Candidate| candidate.programs.iter().any(|program| program.target == "signal_generate");
            assert_eq!((oom.candidates.len(), oom.candidates.iter().all(watched), oom.candidates.iter().any(watched)), (3, old, old));
        }
    }

    #[test]
    fn following_is_planned_only_when_asked_for() {
        let kernel = ALL;
        let has =
            |follow| plan(&kernel, Some(Tier::Kprobe), follow).unwrap().iter().any(|probe| probe.id == ProbeId::Follow && probe.required);
        assert!(has(true));
        assert!(!has(false));
    }
}
