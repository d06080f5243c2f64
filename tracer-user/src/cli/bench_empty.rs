//! `memtrail bench-empty`, hidden: programs that return at once on the hooks of the tracepoint tier. What they cost is what any tracer
//! on these hooks costs; `cargo xtask bench` measures memtrail against it.

use crate::kernel_half::{
    empty::Empty,
    plan::Target,
    probes::{Attach, Tier},
    start::{Follow, Host},
};
use anyhow::{Context as _, Result};
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
        let hooks = hooks()?;
        let _attached = Empty::attach(hooks.iter().copied())?;
        println!("attached to {}", hooks.into_iter().collect::<Vec<_>>().join(" "));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(0)
    })
}
