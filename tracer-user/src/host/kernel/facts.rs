//! What this host is and has. Reads only; nothing is decided here. What must be tried (does a program type load?) is not a fact of
//! this kind: attaching tries it.

use super::{
    btf::{Btf, BtfError, tracepoint_functions},
    targets::Targets,
};
use crate::host::proc::Process;
use serde::Serialize;
use std::{collections::HashSet, fs, io, path::Path};
use tracer_common::layout::{KernelLayout, Lookup};

/// Where the running kernel's type information is.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Facts about the host.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// Kernel release.
    pub release: String,
    /// "x86_64", ...
    pub machine: String,
    /// CPUs online.
    pub cpus_online: u32,
    /// CPUs that may ever be: per-CPU map values are that many.
    pub cpus_possible: u32,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// One more than the highest page frame number.
    pub frames: u64,
    /// Base page size, bytes.
    pub page_size: u32,
    /// Capabilities in effect that memtrail asks about.
    pub capabilities: Capabilities,
    /// Kprobes are configured: the kprobe event source exists.
    pub kprobes: bool,
    /// Kernel lockdown mode, where it can be read.
    pub lockdown: Option<String>,
    /// `struct page` in bytes, from the type information.
    pub page_struct_bytes: Option<u32>,
    /// In the initial pid namespace.
    pub initial_pid_namespace: Option<bool>,
    /// In the initial cgroup namespace.
    pub initial_cgroup_namespace: Option<bool>,
}

/// Effective capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "one flag a capability")]
pub struct Capabilities {
    /// CAP_BPF, or CAP_SYS_ADMIN which includes it.
    pub bpf: bool,
    /// CAP_PERFMON, or CAP_SYS_ADMIN.
    pub perfmon: bool,
    /// CAP_SYS_PTRACE: maps and files of other users' processes.
    pub ptrace: bool,
    /// CAP_SYS_RESOURCE: raising RLIMIT_MEMLOCK on kernels before 5.11.
    pub resource: bool,
    /// CAP_SYS_ADMIN.
    pub admin: bool,
    /// CAP_SYSLOG: kernel addresses in /proc/kallsyms.
    pub syslog: bool,
}

impl Capabilities {
    /// From the hexadecimal mask of /proc/PID/status (bit numbers: include/uapi/linux/capability.h).
    #[must_use]
    pub fn from_mask(mask: u64) -> Capabilities {
        let has = |bit: u32| mask >> bit & 1 == 1;
        let admin = has(21);
        Capabilities { bpf: has(39) || admin, perfmon: has(38) || admin, ptrace: has(19), resource: has(24), admin, syslog: has(34) }
    }
}

/// Reads the facts. `btf` is parsed once by the caller.
pub fn read(btf: &Btf) -> io::Result<Facts> {
    let mask = Process::own()?.status()?.capabilities.unwrap_or(0);
    Ok(Facts {
        release: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        machine: std::env::consts::ARCH.to_owned(),
        cpus_online: count_cpus("/sys/devices/system/cpu/online")?,
        cpus_possible: count_cpus("/sys/devices/system/cpu/possible")?,
        ram_bytes: field(&fs::read_to_string("/proc/meminfo")?, "MemTotal:").and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024,
        frames: highest_frame(&fs::read_to_string("/proc/zoneinfo")?),
        page_size: page_size(),
        capabilities: Capabilities::from_mask(mask),
        kprobes: Path::new("/sys/bus/event_source/devices/kprobe/type").exists(),
        lockdown: fs::read_to_string("/sys/kernel/security/lockdown").ok().and_then(|text| selected(&text)),
        page_struct_bytes: btf.size("page"),
        initial_pid_namespace: is_initial_namespace("/proc/self/ns/pid", 0xEFFF_FFFC),
        initial_cgroup_namespace: is_initial_namespace("/proc/self/ns/cgroup", 0xEFFF_FFFB),
    })
}

/// Offsets and values of the running kernel.
#[must_use]
pub fn layout(btf: &Btf) -> KernelLayout {
    KernelLayout::filled(|lookup| match lookup {
        Lookup::Member(type_name, member) => btf.member_offset(type_name, member),
        Lookup::Size(type_name) => btf.size(type_name),
        Lookup::Value(enum_name, enumerator) => btf.enumerator(enum_name, enumerator),
        Lookup::Arguments(tracepoint) => btf.tracepoint_arguments(tracepoint),
        Lookup::Argument(tracepoint, argument) => btf.tracepoint_argument(tracepoint, argument),
        Lookup::Variable(name) => btf.variable(name),
        Lookup::Parameters(function) => btf.function(function).map(|function| function.parameters),
    })
}

/// Parses the running kernel's type information, for the names that memtrail asks for: those of the layout, and those of the functions and
/// tracepoints in `wanted`.
pub fn running_btf(wanted: impl Iterator<Item = &'static str>) -> Result<Btf, BtfError> {
    let mut names: HashSet<Vec<u8>> = HashSet::new();
    KernelLayout::UNKNOWN.for_each(|_, lookup, _| match lookup {
        Lookup::Member(name, _) | Lookup::Size(name) | Lookup::Value(name, _) | Lookup::Variable(name) | Lookup::Parameters(name) => {
            names.extend([name.as_bytes().to_vec()])
        }
        Lookup::Arguments(name) => names.extend([format!("btf_trace_{name}").into_bytes()]),
        Lookup::Argument(name, _) => names.extend(tracepoint_functions(name).map(String::into_bytes)),
    });
    for target in wanted {
        names.insert(target.as_bytes().to_vec());
        names.insert(format!("btf_trace_{target}").into_bytes());
    }
    Btf::from_file(Path::new(VMLINUX_BTF), |name| names.contains(name))
}

/// Which of the `wanted` functions and tracepoints there are to attach to.
#[must_use]
pub fn targets(btf: &Btf, wanted: impl Iterator<Item = &'static str>) -> Targets {
    Targets::of(btf, wanted)
}

/// Highest page frame number plus one: the largest start plus span over all zones of /proc/zoneinfo.
#[must_use]
pub fn highest_frame(zoneinfo: &str) -> u64 {
    let (mut spanned, mut highest) = (0_u64, 0_u64);
    for line in zoneinfo.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next().and_then(|word| word.parse::<u64>().ok())) {
            (Some("spanned"), Some(value)) => spanned = value,
            (Some("start_pfn:"), Some(value)) => {
                highest = highest.max(value.saturating_add(spanned));
                spanned = 0;
            }
            _ => {}
        }
    }
    highest
}

/// The word in brackets, as in `none [integrity] confidentiality`.
fn selected(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()
}

fn count_cpus(path: &str) -> io::Result<u32> {
    let text = fs::read_to_string(path)?;
    count_list(text.trim()).ok_or_else(|| io::Error::other(format!("{path}: not a CPU list: {text:?}")))
}

/// Number of entries of a list such as `0-3,8`.
fn count_list(list: &str) -> Option<u32> {
    list.split(',').try_fold(0_u32, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

fn is_initial_namespace(path: &str, inode: u64) -> Option<bool> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).ok().map(|metadata| metadata.ino() == inode)
}

fn page_size() -> u32 {
    // SAFETY: a plain query without pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!(count_list("0"), Some(1));
        assert_eq!(count_list("0-3,8,10-11"), Some(7));
        assert_eq!(count_list("3-1"), None);
        assert_eq!(count_list("x"), None);
    }

    #[test]
    fn the_highest_frame_is_the_end_of_the_last_zone() {
        let zoneinfo = "Node 0, zone DMA\n  spanned 4095\n  start_pfn: 1\nNode 0, zone Normal\n  spanned 1000\n  start_pfn: 9000\n";
        assert_eq!(highest_frame(zoneinfo), 10000);
        assert_eq!(highest_frame(""), 0);
    }

    #[test]
    fn admin_includes_the_later_capabilities() {
        let admin = Capabilities::from_mask(1 << 21);
        assert!(admin.bpf && admin.perfmon && !admin.ptrace);
        assert!(!Capabilities::from_mask(0).bpf);
    }
}
