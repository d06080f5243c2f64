//! The storms: programs that do one thing as often as they can and say how long one took.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Row,
    condition::{Bench, Condition},
};
use crate::command;

/// One storm. Short, so that many fit into a round: about 0.1 s each.
#[derive(Clone, Copy)]
pub struct Storm {
    pub row: Row,
    /// Subcommand of memtrail-workload.
    pub name: &'static str,
    /// What one operation is.
    pub unit: &'static str,
    arguments: &'static [&'static str],
    /// Whether it writes to the bench's folder, which is on a disk. The other storms that write make a tmpfs of their own.
    on_disk: bool,
    figure: &'static str,
}

/// All of them.
pub const ALL: [Storm; 7] = [
    storm(Row::Fault, "fault-storm", "fault", &["--bytes", "64M", "--rounds", "2"], "ns_per_fault"),
    Storm { on_disk: true, ..storm(Row::File, "file-storm", "page", WRITES, "ns_per_page") },
    Storm { on_disk: true, ..storm(Row::LargeWrites, "large-write-storm", "page", WRITES, "ns_per_page") },
    storm(Row::Tmpfs, "tmpfs-storm", "page", WRITES, "ns_per_page"),
    storm(Row::Mmap, "mmap-storm", "pair", &["--rounds", "100000"], "ns_per_pair"),
    storm(Row::Getppid, "getppid-storm", "call", &["--rounds", "500000"], "ns_per_call"),
    storm(Row::Starts, "start-storm", "start", &["--rounds", "400"], "ns_per_start"),
];

const WRITES: &[&str] = &["--bytes", "32M", "--rounds", "4"];

const fn storm(row: Row, name: &'static str, unit: &'static str, arguments: &'static [&'static str], figure: &'static str) -> Storm {
    Storm { row, name, unit, arguments, on_disk: false, figure }
}

/// Runs in a shell: enters the cgroup, then becomes the storm, on one CPU and before everybody else on it, since other work on the
/// machine is not what is measured.
const ENTER: &str = r#"echo $$ > "$1" && cpu=$2 && shift 2 && exec taskset -c "$cpu" nice -n -20 "$@""#;

impl Bench {
    /// Runs the storm once; nanoseconds of one operation.
    pub fn run(&self, condition: Condition, storm: &Storm) -> Result<f64> {
        let mut command = match self.wrapper(condition) {
            Some(mut wrapper) => {
                wrapper.arg("sh");
                wrapper
            }
            None => Command::new("sh"),
        };
        command.args(["-c", ENTER, "sh"]).arg(self.cgroup.procs()).arg(self.cpu.to_string()).arg(&self.workload);
        command.arg(storm.name).args(storm.arguments).arg("--no-wait");
        if storm.on_disk {
            command.arg("--dir").arg(&self.folder);
        }
        let said = command::output(&mut command)?;
        figure(&said, storm.figure).with_context(|| format!("{} said {said}", storm.name))
    }
}

fn figure(said: &str, name: &str) -> Option<f64> {
    said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|step| step.get(name)?.as_f64())
}

/// The CPU for the storms: the last one, since interrupts are mostly handled by the first.
pub fn last_cpu() -> Result<u32> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").context("/sys/devices/system/cpu/online")?;
    online.trim().rsplit([',', '-']).next().and_then(|last| last.parse().ok()).with_context(|| format!("CPUs online: {online:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_found_among_other_lines() {
        let said = "{\"step\":\"ready\"}\n[ perf record: Woken up ]\n{\"step\":\"ended\",\"ns\":7,\"ns_per_fault\":12.5}";
        assert_eq!(figure(said, "ns_per_fault"), Some(12.5));
        assert_eq!(figure(said, "ns_per_call"), None);
    }
}
