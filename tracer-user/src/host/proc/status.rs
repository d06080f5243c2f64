//! `/proc/PID/status`. Pure.

/// The fields that matter; `None` where the kernel does not show one: kernel threads have no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Thread-group id in the reader's namespace.
    pub tgid: Option<u32>,
    /// Letter of the state.
    pub state: Option<u8>,
    /// Threads.
    pub threads: Option<u64>,
    /// Thread-group ids from the outermost visible pid namespace inwards; none without CONFIG_PID_NS.
    pub tgid_by_namespace: Vec<u32>,
    /// The same of the task itself.
    pub pid_by_namespace: Vec<u32>,
    /// Largest resident memory so far, bytes.
    pub peak_resident: Option<u64>,
    /// Resident memory, bytes.
    pub resident: Option<u64>,
    /// Resident anonymous memory, bytes.
    pub resident_anonymous: Option<u64>,
    /// Locked memory, bytes.
    pub locked: Option<u64>,
    /// Pinned memory, bytes.
    pub pinned: Option<u64>,
    /// Huge pages of hugetlbfs, bytes.
    pub hugetlb: Option<u64>,
    /// Memory in swap, bytes.
    pub swapped: Option<u64>,
    /// Effective capabilities, a bit each.
    pub capabilities: Option<u64>,
}

impl Status {
    /// Lines that are not understood are passed over. The name can hold any byte but a newline, which the kernel escapes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Status {
        let mut status = Status::default();
        for line in bytes.split(|&byte| byte == b'\n') {
            let Some(at) = line.iter().position(|&byte| byte == b':') else { continue };
            let Ok(value) = std::str::from_utf8(&line[at + 1..]) else { continue };
            let value = value.trim();
            match &line[..at] {
                b"Tgid" => status.tgid = value.parse().ok(),
                b"State" => status.state = value.bytes().next(),
                b"Threads" => status.threads = value.parse().ok(),
                b"NStgid" => status.tgid_by_namespace = ids(value),
                b"NSpid" => status.pid_by_namespace = ids(value),
                b"VmHWM" => status.peak_resident = kilobytes(value),
                b"VmRSS" => status.resident = kilobytes(value),
                b"RssAnon" => status.resident_anonymous = kilobytes(value),
                b"VmLck" => status.locked = kilobytes(value),
                b"VmPin" => status.pinned = kilobytes(value),
                b"HugetlbPages" => status.hugetlb = kilobytes(value),
                b"VmSwap" => status.swapped = kilobytes(value),
                b"CapEff" => status.capabilities = u64::from_str_radix(value, 16).ok(),
                _ => {}
            }
        }
        status
    }
}

fn ids(value: &str) -> Vec<u32> {
    value.split_ascii_whitespace().map_while(|id| id.parse().ok()).collect()
}

/// `132 kB`, in bytes.
pub(super) fn kilobytes(value: &str) -> Option<u64> {
    value.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let status = Status::parse(
            b"Name:\tx\\nTgid:\t9\nState:\tS (sleeping)\nTgid:\t12\nPid:\t12\nNStgid:\t4711\t12\nNSpid:\t4711\t13\n\
              VmHWM:\t     900 kB\nVmRSS:\t     800 kB\nRssAnon:\t  34 kB\nVmLck:\t 4 kB\nVmPin:\t 8 kB\nHugetlbPages:\t 2048 kB\nThreads:\t12\nCapEff:\t000001ffffffffff\n",
        );
        assert_eq!((status.tgid, status.state, status.threads), (Some(12), Some(b'S'), Some(12)));
        assert_eq!((status.tgid_by_namespace.as_slice(), status.pid_by_namespace.as_slice()), (&[4711, 12][..], &[4711, 13][..]));
        assert_eq!((status.peak_resident, status.resident, status.resident_anonymous), (Some(921_600), Some(819_200), Some(34 << 10)));
        assert_eq!((status.locked, status.pinned, status.hugetlb), (Some(4096), Some(8192), Some(2 << 20)));
        assert_eq!(status.capabilities, Some(0x1ff_ffff_ffff));
    }

    #[test]
    fn what_is_not_understood_is_unknown() {
        assert_eq!(
            Status::parse(b"Threads:\tx\nTgid:\t-1\nRssAnon:\t 5\nVmRSS:\t18446744073709551615 kB\nCapEff:\nnonsense\n\xff:\xff\n"),
            Status::default()
        );
        // A name cannot pass for another line.
        assert_eq!(Status::parse(b"Name:\tTgid:\t9\n"), Status::default());
    }
}
