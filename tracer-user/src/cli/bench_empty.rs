//! `memtrail bench-empty`, hidden: programs that return at once on the hooks of the tracepoint tier. What they cost is what any tracer
//! on these hooks costs; `cargo xtask bench` measures memtrail against it.

use crate::bpf::{self, BpfError};
use anyhow::{Context as _, Result};
use aya::{EbpfLoader, programs::RawTracePoint};
use tokio::signal::unix::{SignalKind, signal};

/// The hooks that a storm meets.
const HOOKS: [&str; 4] = ["mm_page_alloc", "mm_page_free", "mm_lru_insertion", "mm_filemap_add_to_page_cache"];

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
        for hook in HOOKS {
            program.attach(hook).with_context(|| format!("program empty on {hook}"))?;
        }
        println!("attached");
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(0)
    })
}
