//! `/proc/PID/smaps_rollup`: sums over all mappings of a process. Pure.

use super::status::kilobytes;

/// The sums that matter, bytes; `None` where the kernel does not show one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollup {
    /// Anonymous memory in huge pages.
    pub anonymous_huge: Option<u64>,
    /// Anonymous memory that was freed with MADV_FREE, and that the kernel has not taken yet.
    pub lazily_freed: Option<u64>,
}

impl Rollup {
    /// Lines that are not understood are passed over.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Rollup {
        let mut rollup = Rollup::default();
        for line in bytes.split(|&byte| byte == b'\n') {
            let Some((name, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(':')) else { continue };
            match name {
                "AnonHugePages" => rollup.anonymous_huge = kilobytes(value),
                "LazyFree" => rollup.lazily_freed = kilobytes(value),
                _ => {}
            }
        }
        rollup
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_found_and_unknown_ones_stay_unknown() {
        let text = b"55e0-7fff ---p 00000000 00:00 0   [rollup]\nRss:  1584 kB\nLazyFree:   32 kB\nAnonHugePages:   2048 kB\n\xff:\n";
        assert_eq!(Rollup::parse(text), Rollup { anonymous_huge: Some(2 << 20), lazily_freed: Some(32 << 10) });
        assert_eq!(Rollup::parse(b"AnonHugePages: x kB\nLazyFree: 5\n"), Rollup::default());
    }
}
