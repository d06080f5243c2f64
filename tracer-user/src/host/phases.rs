//! Where the time of a start or a report goes, and what memory it takes: one line a phase for those who ask (`-vv`).

use super::proc::Process;
use std::time::Instant;

/// Times of phases that follow one another.
pub struct Phases {
    last: Instant,
}

impl Phases {
    /// The first phase begins.
    pub fn begin() -> Phases {
        Phases { last: Instant::now() }
    }

    /// A phase ends and the next begins.
    pub fn end(&mut self, phase: &str) {
        let took = self.last.elapsed();
        if log::log_enabled!(log::Level::Debug) {
            log::debug!("{phase} in {:.1} ms; {}", took.as_secs_f64() * 1000.0, resident());
        }
        self.last = Instant::now();
    }
}

/// Resident memory now and at most, as the kernel says it.
fn resident() -> String {
    let status = Process::own().and_then(|own| own.status()).unwrap_or_default();
    let kilobytes = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), |bytes| format!("{} kB", bytes / 1024));
    format!("{} resident, at most {}", kilobytes(status.resident), kilobytes(status.peak_resident))
}
