//! The printed tables: Markdown, so that they can be pasted.

use anyhow::{Context as _, Result};

use super::{
    Cell, Row,
    condition::Condition,
    figures::{Rounds, cost_ratio},
    storm::Storm,
};
use crate::command;

/// Of the extra time over that of empty programs on the same hooks.
const RATIO_GOAL: f64 = 1.5;
/// Of the untraced time, percent.
const SHARE_GOAL: f64 = 10.0;
const GETPPID_GOAL: f64 = 3.0;
const MMAP_GOAL: f64 = 25.0;
const STARTS_GOAL: f64 = 6.0;

/// Where it was measured.
pub fn heading(cpu: u32) -> Result<String> {
    let kernel = command::output(std::process::Command::new("uname").arg("-r"))?;
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    Ok(format!("Kernel {kernel}, {cpus} CPUs, storms on CPU {cpu}. {}\n", load()?))
}

/// How busy the machine is: with other work on it, the least times say more than the medians.
pub fn load() -> Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    Ok(format!("Load average now: {}.", load.split(' ').take(3).collect::<Vec<_>>().join(" ")))
}

/// `met` or `missed`.
pub fn verdict(value: f64, most: f64) -> &'static str {
    if value <= most { "met" } else { "missed" }
}

/// One line a storm and condition; times as median and least.
pub fn storms(results: &[(Storm, Vec<Cell>)]) {
    println!(
        "| storm | under | median ns | more, by round | least ns | more | of empty's cost: by round, leasts | goal |\n|---|---|---|---|---|---|---|---|"
    );
    for (storm, cells) in results {
        let find = |condition| cells.iter().find(|cell| cell.condition == condition).map(|cell| &cell.rounds);
        let Some(untraced) = find(Condition::Untraced) else { continue };
        let extra = |rounds: &Rounds| (rounds.more_than(untraced), rounds.least() - untraced.least());
        for condition in Condition::ALL {
            let Some(rounds) = find(condition) else { continue };
            let (more, more_least) = extra(rounds);
            let share = percent(more, untraced.median());
            let memtrail = matches!(condition, Condition::Memtrail | Condition::Other);
            let ratios = find(Condition::Empty).filter(|_| memtrail).map(extra);
            let ratios = ratios.map(|(empty, empty_least)| (cost_ratio(empty, more), cost_ratio(empty_least, more_least)));
            let goal = if memtrail { goals(storm.row, share, ratios.and_then(|(ratio, _)| ratio)) } else { String::new() };
            let ratios = ratios.map_or(String::new(), |(by_round, least)| format!("{}, {}", ratio(by_round), ratio(least)));
            let (name, median, least) = (condition.name(), rounds.median(), rounds.least());
            if condition == Condition::Untraced {
                println!("| {} (a {}) | {name} | {median:.0} | | {least:.0} | | | |", storm.name, storm.unit);
            } else {
                let share_least = percent(more_least, untraced.least());
                println!("| | {name} | {median:.0} | {share:+.1} % | {least:.0} | {share_least:+.1} % | {ratios} | {goal} |");
            }
        }
    }
    println!("\nGoals are judged by what the medians of a round differ by, the median of all rounds.");
}

fn percent(part: f64, whole: f64) -> f64 {
    part / whole * 100.0
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("unknown".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn goals(row: Row, share: f64, ratio: Option<f64>) -> String {
    // The empty programs are not on hooks that the first two meet. A large folio meets few hooks and is many pages to sample.
    let goal = match row {
        Row::Getppid => Some(GETPPID_GOAL),
        Row::Mmap => Some(MMAP_GOAL),
        Row::Starts => Some(STARTS_GOAL),
        Row::LargeWrites => Some(SHARE_GOAL),
        _ => None,
    };
    if let Some(goal) = goal {
        return format!("{goal} %: {}", verdict(share, goal));
    }
    let ratio = ratio.map_or("unknown", |ratio| verdict(ratio, RATIO_GOAL));
    format!("{RATIO_GOAL} times empty: {ratio}; {SHARE_GOAL} %: {}", verdict(share, SHARE_GOAL))
}
