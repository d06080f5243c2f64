//! Where the time of a start or a report goes, and what memory it takes: one line a phase for those who ask (`-vv`).

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
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map_or("?", str::trim);
    format!("{} resident, at most {}", field("VmRSS:"), field("VmHWM:"))
}
