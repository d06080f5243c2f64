//! `memtrail bench-walk`, hidden: what a walk of one user stack takes, by tables with every safeguard and by the kernel's own walker along frame
//! pointers, of the same stack in the same run. `cargo xtask bench` shows it.

use crate::{
    kernel_half::{
        Loader,
        start::{self, Host, Running, StartOptions},
        tables,
        unwind::Tables,
    },
    unwind::Builder,
};
use anyhow::{Context as _, Result, ensure};
use std::{hint::black_box, time::Duration};
use tracer_common::{stack::StackStatus, unwind::WALKED};

/// Frames of the stack, as of a server at work.
const FRAMES: u64 = 36;
/// Walks of each kind. They take turns.
const WALKS: usize = 20_000;
/// Frames by which the recursion is made deeper, until there are enough.
const DEEPEST: u64 = 64;
/// The program.
const WALK: &str = "run_walk";
/// How long tables are waited for.
const LONGEST: Duration = Duration::from_secs(60);

/// Nanoseconds of a walk, its frames, and how it ended.
fn walk(running: &mut Running, by_helper: bool) -> Result<[u64; 3]> {
    tables::run(&mut running.bpf, WALK, [u64::from(by_helper), 0, 0])?;
    let [took_ns, frames, status, _] = tables::run_result(&running.bpf, WALKED)?;
    Ok([took_ns, frames, status])
}

/// Calls itself, and then `at_the_bottom`. Every call is a frame.
#[inline(never)]
fn deeper<T>(frames: u64, at_the_bottom: &mut dyn FnMut() -> T) -> T {
    let result = if frames == 0 { at_the_bottom() } else { deeper(black_box(frames - 1), at_the_bottom) };
    black_box(result)
}

/// Walks by turns, and prints what they took.
pub fn run() -> Result<u8> {
    let host = Host::look()?;
    let loader = Loader::prepare()?;
    let mut running = start::start(&host, loader, &StartOptions::default(), |_| Ok(None))?;
    let (taken, misses) = Tables::take(&mut running.bpf)?;
    let builder = Builder::start_with_own(taken, misses).context("the thread of tables")?;
    let own = std::env::current_exe().context("this program")?;
    ensure!(builder.prepare(&own, LONGEST) && builder.settle(LONGEST), "the tables were not there in time");
    let depth = (0..DEEPEST).find(|depth| deeper(*depth, &mut || walk(&mut running, false)).is_ok_and(|[_, frames, _]| frames == FRAMES));
    let depth = depth.with_context(|| format!("no stack of this program has {FRAMES} frames"))?;
    let mut took = [Vec::with_capacity(WALKS), Vec::with_capacity(WALKS)];
    let mut ended = [[0; 2]; 2];
    deeper(depth, &mut || -> Result<()> {
        for _ in 0..WALKS {
            for (kind, took) in took.iter_mut().enumerate() {
                let [ns, frames, status] = walk(&mut running, kind == 1)?;
                took.push(ns);
                ended[kind] = [frames, status];
            }
        }
        Ok(())
    })?;
    for (kind, (name, took)) in ["by tables", "by frame pointers"].into_iter().zip(&mut took).enumerate() {
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        let [frames, status] = ended[kind];
        let whole = if kind == 0 && status == StackStatus::Root as u64 { ", whole" } else { "" };
        println!(
            "walk {name}: {frames} frames{whole}: median {} ns, 90 % {} ns, 99 % {} ns, 99.9 % {} ns ({WALKS} walks)",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999)
        );
    }
    Ok(0)
}
