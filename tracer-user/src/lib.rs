//! memtrail's user half: facts about the host, the plan, the programs, the ledger, symbols and outputs.
//!
//! `facts` (I/O) -> `plan` (pure) -> attach -> snapshot -> `ledger` (pure) -> symbols -> `output`.

pub mod glob;
pub mod model;
pub mod output;
pub mod recording;
pub mod units;
