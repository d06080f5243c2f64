//! memtrail's user half: facts about the host, the plan, the programs, the ledger, symbols and outputs.
//!
//! `kernel` (facts, I/O) -> `plan` (pure) -> `bpf` (attach, tables) -> snapshot -> `ledger` (pure) -> `symbolize` -> `output`.

pub mod bpf;
pub mod cgroup;
pub mod cli;
pub mod collector;
pub mod command;
pub mod containers;
pub mod date;
pub mod diagnose;
pub mod files;
pub mod glob;
pub mod histogram;
pub mod kernel;
pub mod ledger;
pub mod model;
pub mod oom;
pub mod output;
pub mod plan;
pub mod privileges;
pub mod probes;
pub mod process;
pub mod recording;
pub mod region;
pub mod symbolize;
pub mod units;
