//! memtrail's user half: facts about the host, the plan, the programs, the ledger, symbols and outputs.
//!
//! `facts` (I/O) -> `plan` (pure) -> attach -> snapshot -> `ledger` (pure) -> symbols -> `output`.

pub mod cgroup;
pub mod command;
pub mod model;
