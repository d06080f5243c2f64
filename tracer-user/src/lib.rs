//! memtrail's user half: facts about the host, the plan, the programs, the ledger, symbols and outputs.
//!
//! `kernel` (facts, I/O) -> `plan` (pure) -> `bpf` (attach, tables) -> snapshot -> `ledger` (pure) -> `symbolize` -> `output`.

pub mod bpf;
pub mod cgroup;
pub mod glob;
pub mod kernel;
pub mod model;
pub mod output;
pub mod plan;
pub mod probes;
pub mod recording;
pub mod units;
