//! The rings to user space. Their events are decoded in [`crate::kernel_half::events`].

use super::row::RingTable;
use tracer_common::loss::Loss;

/// Bytes of the ring of messages that nothing is written to: one page is the least that there can be.
const SILENT_BYTES: u32 = 4096;
/// The same with messages: one takes 192, and a loss tells of itself once a cause and CPU.
const TELLING_BYTES: u32 = 64 << 10;

/// Cgroups that were made and removed.
pub static EVENTS: RingTable = RingTable::named("EVENTS").planned(|_| 256 << 10).forcible().loses(&[Loss::RingFull]);

/// The kernel half's own messages.
pub static LOGS: RingTable = RingTable::named("AYA_LOGS").planned(|wish| if wish.diagnose { TELLING_BYTES } else { SILENT_BYTES });

/// OOM kills: room for two hundred, their victims included.
pub static OOM_EVENTS: RingTable = RingTable::named("OOM_EVENTS").planned(|_| 512 << 10).forcible().loses(&[Loss::OomEventLost]);

/// Changes of address spaces: room for seven thousand. A thread in a storm sends some 3000 a second, and the ring is looked at twenty times.
pub static MAPPING_EVENTS: RingTable =
    RingTable::named("MAPPING_EVENTS").planned(|_| 512 << 10).forcible().loses(&[Loss::MappingEventLost]);
