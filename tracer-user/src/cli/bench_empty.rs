//! `memtrail bench-empty`, hidden: programs that return at once on the hooks of the tracepoint tier. What they cost is what any tracer
//! on these hooks costs; `cargo xtask bench` measures memtrail against it.

use crate::{
    bpf::{self, BpfError},
    probes::{Attach, CATALOGUE, Hook, Tier},
};
use anyhow::{Context as _, Result, ensure};
use aya::{EbpfLoader, programs::RawTracePoint};
use std::collections::BTreeSet;
use tokio::signal::unix::{SignalKind, signal};

/// The hooks of the tracepoint tier, as memtrail itself would take them.
fn hooks() -> impl Iterator<Item = &'static Hook> {
    let providers = CATALOGUE.iter().flat_map(|probe| probe.providers).filter(|provider| provider.tier == Tier::Tracepoint);
    providers.flat_map(|provider| provider.hooks).filter(|hook| matches!(hook.attach, Attach::RawTracepoint | Attach::TypedTracepoint))
}

/// Attaches them, says `attached`, and waits for Ctrl-C.
pub fn run() -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut bpf = EbpfLoader::new().load(bpf::OBJECT).map_err(BpfError::Load)?;
        let program = bpf.program_mut("empty").ok_or(BpfError::Missing("program empty"))?;
        let program: &mut RawTracePoint = program.try_into().context("program empty")?;
        program.load().context("program empty")?;
        let mut attached: BTreeSet<&str> = BTreeSet::new();
        for hook in hooks() {
            // The first that the kernel has.
            attached.extend(hook.targets.iter().find(|target| attached.contains(*target) || program.attach(target).is_ok()));
        }
        ensure!(!attached.is_empty(), "program empty attaches nowhere");
        println!("attached to {}", attached.into_iter().collect::<Vec<_>>().join(" "));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(0)
    })
}
