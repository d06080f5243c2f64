//! The printed tables: Markdown, so that they can be pasted.

use anyhow::{Context as _, Result};

use super::{
    Cell, Row,
    condition::Condition,
    figures::{cost_ratio, percent_more},
    storm::Storm,
};
use crate::command;

/// Of the extra time over that of empty programs on the same hooks.
const RATIO_GOAL: f64 = 1.5;
/// Of the untraced time, percent.
const SHARE_GOAL: f64 = 10.0;
const GETPPID_GOAL: f64 = 3.0;
const MMAP_GOAL: f64 = 25.0;

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
        "| storm | under | median ns | more | least ns | more | of empty's cost: medians, leasts | goal |\n|---|---|---|---|---|---|---|---|"
    );
    for (storm, cells) in results {
        let find = |condition| cells.iter().find(|cell| cell.condition == condition).map(|cell| &cell.samples);
        let Some(untraced) = find(Condition::Untraced) else { continue };
        for condition in Condition::ALL {
            let Some(samples) = find(condition) else { continue };
            let (median, least) = (samples.median(), samples.least());
            let more = percent_more(untraced.median(), median);
            let more_least = percent_more(untraced.least(), least);
            let memtrail = matches!(condition, Condition::Memtrail | Condition::Other);
            let ratios = find(Condition::Empty)
                .filter(|_| memtrail)
                .map(|empty| (cost_ratio(untraced.median(), empty.median(), median), cost_ratio(untraced.least(), empty.least(), least)));
            let goal = if memtrail { goals(storm.row, more, ratios.and_then(|(ratio, _)| ratio)) } else { String::new() };
            let ratios = ratios.map_or(String::new(), |(median, least)| format!("{}, {}", ratio(median), ratio(least)));
            let name = condition.name();
            let storm_name = format!("{} (a {})", storm.name, storm.unit);
            if condition == Condition::Untraced {
                println!("| {storm_name} | {name} | {median:.0} | | {least:.0} | | | |");
            } else {
                println!("| | {name} | {median:.0} | {more:+.1} % | {least:.0} | {more_least:+.1} % | {ratios} | {goal} |");
            }
        }
    }
    println!(
        "\nGoals are judged by the medians. Where other work on the machine makes a median less than that of the untraced storm, the least times say more."
    );
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("unknown".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn goals(row: Row, share: f64, ratio: Option<f64>) -> String {
    // The empty programs are not on hooks that these meet.
    let goal = match row {
        Row::Getppid => Some(GETPPID_GOAL),
        Row::Mmap => Some(MMAP_GOAL),
        _ => None,
    };
    if let Some(goal) = goal {
        return format!("{goal} %: {}", verdict(share, goal));
    }
    let ratio = ratio.map_or("unknown", |ratio| verdict(ratio, RATIO_GOAL));
    format!("{RATIO_GOAL} times empty: {ratio}; {SHARE_GOAL} %: {}", verdict(share, SHARE_GOAL))
}
