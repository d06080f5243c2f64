//! `memtrail bench-empty`, hidden: programs that return at once on the hooks of the tracepoint tier. What they cost is what any tracer
//! on these hooks costs; `cargo xtask bench` measures memtrail against it.

use crate::kernel_half::{
    self, BpfError,
    plan::Target,
    probes::{Attach, Tier},
    start::{Follow, Host},
};
use anyhow::{Context as _, Result};
use aya::{EbpfLoader, programs::RawTracePoint};
use std::collections::BTreeSet;
use tokio::signal::unix::{SignalKind, signal};

/// The tracepoints that memtrail itself would take in that tier.
fn hooks() -> Result<BTreeSet<&'static str>> {
    let plan = Host::look()?.plan(Some(Tier::Tracepoint), Follow::No)?;
    let first = plan.iter().filter_map(|probe| probe.candidates.first()).flat_map(|candidate| &candidate.programs);
    let is_tracepoint = |target: &&Target| matches!(target.attach, Attach::RawTracepoint | Attach::TypedTracepoint);
    Ok(first.filter(is_tracepoint).map(|target| target.target).collect())
}

/// Attaches them, says `attached`, and waits for Ctrl-C.
pub fn run() -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut bpf = EbpfLoader::new().load(kernel_half::OBJECT).map_err(BpfError::Load)?;
        let program = bpf.program_mut("empty").ok_or(BpfError::Missing("program empty"))?;
        let program: &mut RawTracePoint = program.try_into().context("program empty")?;
        program.load().context("program empty")?;
        let hooks = hooks()?;
        for hook in &hooks {
            program.attach(hook).with_context(|| format!("program empty on {hook}"))?;
        }
        println!("attached to {}", hooks.into_iter().collect::<Vec<_>>().join(" "));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(0)
    })
}
