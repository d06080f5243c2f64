//! `memtrail doctor`: what this host can do, tried and not guessed, to be pasted into a bug report.

use crate::{
    cgroup::Hierarchy,
    kernel_half::{
        Loader,
        probes::Tier,
        rates::Rates,
        sizes,
        start::{self, Follow, Host, StartOptions},
        tables::TableId,
    },
    report::PlanRow,
    text::units,
};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::{collections::BTreeMap, time::Instant};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
    /// Force a class of providers.
    #[arg(long, value_name = "TIER")]
    pub provider: Option<super::tracing::ProviderArg>,
}

const EXAMPLES: &str = "\
Examples:
  memtrail doctor                        what works here, and why not better
  memtrail doctor --provider tracepoint  the same with one class of providers
  memtrail doctor --json                 for a bug report

Everything is tried, and taken back. Exit status: 0 tracing works, 1 it does not.";

/// What the doctor found.
#[derive(Serialize)]
struct Findings {
    tool: String,
    facts: crate::host::kernel::facts::Facts,
    memory_hierarchy: Option<Memory>,
    /// Providers, as really attached (and detached again); empty if that failed.
    plan: Vec<PlanRow>,
    /// Whether the kernel may preempt programs on tracepoints, so that a spare stands by for allocations; null where it cannot be told.
    preemptible: Option<bool>,
    /// Instructions of the loaded programs, as the kernel has them after removing what can never run; null where it does not say.
    instructions: BTreeMap<String, Option<u32>>,
    sizes: Option<sizes::Sizes>,
    attach_ms: Option<f64>,
    /// Members and values that this kernel does not have; most belong to other versions.
    absent: Vec<&'static str>,
    /// What is missing, with the way out.
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Memory {
    kind: &'static str,
    mount: String,
    notes: Vec<String>,
}

/// Looks, tries, and prints.
pub fn run(args: &DoctorArgs) -> Result<u8> {
    let began = Instant::now();
    let loader = Loader::prepare()?;
    let host = Host::look()?;
    let mut problems = Vec::new();
    let memory = match Hierarchy::find() {
        Ok(hierarchy) => {
            Some(Memory { kind: hierarchy.kind_label, mount: hierarchy.mount.display().to_string(), notes: hierarchy.facts() })
        }
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    };
    let options = StartOptions { provider: args.provider.map(Tier::from), follow: Follow::Tried, ..StartOptions::default() };
    let (mut plan, mut attach_ms, mut preemptible, mut instructions) = (Vec::new(), None, None, BTreeMap::new());
    match start::start(&host, loader, &options, |_| Ok(None)) {
        Ok(running) => {
            attach_ms = Some(began.elapsed().as_secs_f64() * 1000.0);
            plan = running.plan_rows();
            preemptible = running.preemptible;
            instructions = instructions_of(&running);
        }
        Err(error) => problems.push(error.to_string()),
    }
    if !host.facts.capabilities.resource {
        problems.push("no CAP_SYS_RESOURCE: kernels before 5.11 may refuse the tables; raise `ulimit -l` there".to_owned());
    }
    if host.facts.initial_pid_namespace == Some(false) {
        problems.push("not in the initial pid namespace: process ids in reports are the host's (run with --pid=host)".to_owned());
    }
    if host.facts.initial_cgroup_namespace == Some(false) {
        problems.push("not in the initial cgroup namespace: paths are the namespace's (run with --cgroupns=host)".to_owned());
    }
    let mut absent = Vec::new();
    host.layout.for_each(|name, _, value| {
        if value.is_none() {
            absent.push(name);
        }
    });
    let findings = Findings {
        tool: format!("memtrail {}", env!("CARGO_PKG_VERSION")),
        sizes: host.sizes(&options).ok(),
        facts: host.facts,
        memory_hierarchy: memory,
        plan,
        preemptible,
        instructions,
        attach_ms,
        absent,
        problems,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print(&findings);
    }
    Ok(u8::from(findings.plan.is_empty()))
}

/// An instruction is eight bytes.
fn instructions_of(running: &start::Running) -> BTreeMap<String, Option<u32>> {
    running.bpf.instructions()
}

fn print(findings: &Findings) {
    let facts = &findings.facts;
    println!("{} on Linux {} ({})", findings.tool, facts.release, facts.machine);
    println!("  CPUs {} online, {} possible; RAM {}", facts.cpus_online, facts.cpus_possible, units::bytes(facts.ram_bytes));
    match &findings.memory_hierarchy {
        Some(memory) => {
            println!("  memory cgroups: {} at {}", memory.kind, memory.mount);
            for note in &memory.notes {
                println!("    {note}");
            }
        }
        None => println!("  memory cgroups: none"),
    }
    println!("  kprobes: {}; lockdown: {}", yes(facts.kprobes), facts.lockdown.as_deref().unwrap_or("unknown"));
    if !findings.plan.is_empty() {
        println!("\nProbes, each tried:");
        for row in &findings.plan {
            println!("  {:<13} {}", row.probe, row.provider);
            for reason in row.note.split("; ").filter(|reason| !reason.is_empty()) {
                println!("  {:<13}   not {reason}", "");
            }
        }
        let preemptible = match findings.preemptible {
            Some(true) => "yes; a spare program stands by for allocations, if they are traced by tracepoints",
            Some(false) => "no",
            None => "unknown",
        };
        println!("The kernel may preempt programs on tracepoints: {preemptible}");
    }
    if let Some(sizes) = &findings.sizes {
        println!(
            "\nBy default: a sample every {}, {} of tables ({} samples, {} keys, {} stacks)",
            units::bytes(sizes.mean_bytes()),
            units::bytes(sizes.bytes),
            sizes.of(TableId::Samples),
            sizes.of(TableId::Keys),
            sizes.of(TableId::Stacks)
        );
        let rates = Rates::plan(1, sizes.log2_mean, sizes.of(TableId::Samples));
        if rates.differ() {
            println!("With --cgroup or a command: small cgroups more finely, from every {} on", units::bytes(1 << rates.log2_finest));
        }
    }
    if let Some(ms) = findings.attach_ms {
        println!("Attaching and taking the baseline took {ms:.0} ms");
    }
    for problem in &findings.problems {
        println!("! {problem}");
    }
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}
