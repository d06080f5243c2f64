//! What a recording costs when nothing happens: its start, its end, its memory, its own CPU time.

use std::{
    fs,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{background::Background, condition::Bench, figures::Samples, table};

/// Seconds over which the idle collector is watched.
const IDLE: Duration = Duration::from_secs(20);
const ATTACH_GOAL_MS: f64 = 1000.0;
const MEMORY_GOAL_BYTES: f64 = (64 << 20) as f64;

/// Measures and prints.
pub fn measure(bench: &Bench, rounds: u32) -> Result<()> {
    let mut attach: Option<Samples> = None;
    let mut detach: Option<Samples> = None;
    for _ in 0..rounds.min(10) {
        let started = Instant::now();
        let memtrail = Background::start(bench.record(&bench.memtrail), "recording")?;
        add(&mut attach, started.elapsed());
        let stopped = Instant::now();
        memtrail.stop()?;
        add(&mut detach, stopped.elapsed());
    }
    let recording = idle(bench.record(&bench.memtrail), "recording")?;
    let following = idle(bench.follow_oom(&bench.memtrail), "waiting for OOM kills")?;
    let report = fs::read_to_string(bench.report()).context("memtrail's report")?;
    let report: Value = serde_json::from_str(&report).context("memtrail's report")?;
    let cost = |name: &str| report["cost"][name].as_f64().with_context(|| format!("cost.{name} of memtrail's report"));
    println!("| recording | median | least | goal |\n|---|---|---|---|");
    if let (Some(attach), Some(detach)) = (attach, detach) {
        let verdict = table::verdict(attach.median(), ATTACH_GOAL_MS);
        println!("| start until it records, ms | {:.0} | {:.0} | {ATTACH_GOAL_MS:.0}: {verdict} |", attach.median(), attach.least());
        println!("| end, with the report, ms | {:.0} | {:.0} | |", detach.median(), detach.least());
    }
    for (what, name) in [("collector's largest resident set", "collector_rss_bytes"), ("maps", "map_bytes")] {
        let bytes = cost(name)?;
        println!("| {what}, MiB | {:.1} | | 64: {} |", bytes / 1_048_576.0, table::verdict(bytes, MEMORY_GOAL_BYTES));
    }
    let over = IDLE.as_secs();
    println!("| CPU of the collector while no storm runs, % of one CPU over {over} s | {recording:.2} | | |");
    println!("| the same of `memtrail oom --follow` while nothing is killed | {following:.2} | | |\n");
    Ok(())
}

/// CPU time that a program takes while nothing happens, percent of one CPU.
fn idle(command: Command, ready: &'static str) -> Result<f64> {
    let memtrail = Background::start(command, ready)?;
    // The start's own work must be over.
    sleep(Duration::from_secs(2));
    let before = cpu_ticks(memtrail.pid())?;
    sleep(IDLE);
    let ticks = cpu_ticks(memtrail.pid())? - before;
    memtrail.stop()?;
    Ok(ticks as f64 / ticks_per_second() * 100.0 / IDLE.as_secs_f64())
}

fn add(samples: &mut Option<Samples>, time: Duration) {
    let ms = time.as_secs_f64() * 1000.0;
    match samples {
        Some(samples) => samples.add(ms),
        None => *samples = Some(Samples::of(ms)),
    }
}

/// User and system time of a process.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // Fields after the name, which is in brackets and may hold anything; utime and stime are 14 and 15.
    let (_, fields) = stat.rsplit_once(") ").context(path.clone())?;
    let mut fields = fields.split(' ').skip(11);
    let mut field = || fields.next().and_then(|field| field.parse::<u64>().ok()).context(path.clone());
    Ok(field()? + field()?)
}

fn ticks_per_second() -> f64 {
    // SAFETY: sysconf takes a number and returns one.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}
