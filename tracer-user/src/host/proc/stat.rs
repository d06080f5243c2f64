//! `/proc/PID/stat`. Pure but for the kernel's clock ticks and clocks.

use crate::host::clock;

/// Start times that differ by less are the same, nanoseconds: the kernel tells them in ticks of 10 ms.
pub const SLACK_NS: u64 = 30_000_000;
/// The same in ticks, where both are known in them.
const TICKS_APART: u64 = 2;

/// The fields that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Name of the task. Hostile.
    pub comm: Box<[u8]>,
    /// Thread-group id of the parent.
    pub parent_tgid: u32,
    /// Start of the task in clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// The name can hold any byte, also parentheses and spaces: it ends at the last `)`.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Stat> {
        let open = bytes.iter().position(|&b| b == b'(')?;
        let close = bytes.iter().rposition(|&b| b == b')')?;
        let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        // Counted from the field after the name: state, ppid, ..., starttime is the 20th.
        let parent_tgid = fields.nth(1)?.parse().ok()?;
        let start_ticks = fields.nth(17)?.parse().ok()?;
        Some(Stat { comm: bytes.get(open + 1..close)?.into(), parent_tgid, start_ticks })
    }

    /// Start of the task on the boot clock, nanoseconds, exact to a tick.
    #[must_use]
    pub fn boot_ns(&self) -> u64 {
        let since_boot = u128::from(self.start_ticks) * 1_000_000_000 / u128::from(rustix::param::clock_ticks_per_second().max(1));
        u64::try_from(since_boot).unwrap_or(u64::MAX)
    }

    /// The same on the monotonic clock, which stands still while the machine sleeps.
    #[must_use]
    pub fn monotonic_ns(&self) -> u64 {
        let suspended = clock::boot_ns().saturating_sub(clock::monotonic_ns());
        self.boot_ns().saturating_sub(suspended)
    }

    /// Whether it is the task that began at that moment of the boot clock.
    #[must_use]
    pub fn began_at(&self, boot_ns: u64) -> bool {
        let ticks = u128::from(boot_ns) * u128::from(rustix::param::clock_ticks_per_second()) / 1_000_000_000;
        self.start_ticks.abs_diff(u64::try_from(ticks).unwrap_or(u64::MAX)) <= TICKS_APART
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_spaces() {
        let line = b"42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2\n";
        assert_eq!(Stat::parse(line), Some(Stat { comm: Box::from(*b"a) b"), parent_tgid: 7, start_ticks: 12345 }));
        assert_eq!(Stat::parse(b"42 (a S 7"), None);
        assert_eq!(Stat::parse(b""), None);
        assert_eq!(Stat::parse(b")("), None);
    }

    #[test]
    fn a_start_is_known_to_a_tick() {
        let stat = Stat { comm: Box::default(), parent_tgid: 1, start_ticks: 12345 };
        let at = stat.boot_ns();
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        assert_eq!(at, 12345 * tick);
        assert!(stat.began_at(at) && stat.began_at(at + tick) && !stat.began_at(at + 10 * tick) && !stat.began_at(at - 10 * tick));
        assert!(stat.monotonic_ns() <= at);
    }
}
