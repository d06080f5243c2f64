//! Memory of the host, as the kernel counts it (`/proc/meminfo`).

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meminfo {
    /// MemTotal.
    pub total: u64,
    /// MemAvailable: what the kernel thinks that new processes could have without swapping.
    pub available: u64,
}

/// The host's memory now; `None` if it cannot be read.
#[must_use]
pub fn now() -> Option<Meminfo> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Meminfo { total: field("MemTotal:")?, available: field("MemAvailable:")? })
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_hosts_memory() {
        assert!(super::now().is_some_and(|memory| memory.total > memory.available && memory.available > 0));
    }
}
