//! Giving up what is not needed once tracing is on. Capabilities belong to threads: each thread that outlives the start calls
//! [`keep_only`] for itself, before it starts others. The traced command and the janitor are forked before, and keep what the caller had.
//!
//! Nothing here runs another program, and `PR_SET_NO_NEW_PRIVS` makes that so for what may come.

use std::io;

/// Capabilities by name and number (include/uapi/linux/capability.h).
macro_rules! capabilities {
    ($($name:ident = $number:literal,)+) => {
        /// A capability.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, non_camel_case_types, reason = "the kernel's names; see capabilities(7)")]
        pub enum Capability { $($name = $number,)+ }

        const NAMED: &[Capability] = &[$(Capability::$name,)+];
    };
}
capabilities! {
    CAP_DAC_OVERRIDE = 1,
    CAP_DAC_READ_SEARCH = 2,
    CAP_KILL = 5,
    CAP_SYS_PTRACE = 19,
    CAP_SYS_ADMIN = 21,
    CAP_SYSLOG = 34,
    CAP_PERFMON = 38,
    CAP_BPF = 39,
    CAP_CHECKPOINT_RESTORE = 40,
}
use Capability::*;

/// Looking at processes and opening their files: /proc/PID/maps and root of other users' (ptrace), map_files (checkpoint/restore, since
/// 5.9), and files that only their owner may read.
pub const PROCESSES: &[Capability] = &[CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE, CAP_DAC_READ_SEARCH];

/// Reading files that only their owner may read: what names containers.
pub const FILES: &[Capability] = &[CAP_DAC_READ_SEARCH];

/// Looking into processes' memory: which frames a process maps (/proc/PID/pagemap tells them to this capability alone), and what stands
/// in them.
pub const SURVEY: &[Capability] = &[CAP_SYS_ADMIN];

/// The thread that reads symbols: perf maps in the roots of processes. The files are open already.
pub const SYMBOLS: &[Capability] = &[CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH];

/// The collector: tables, and the programs that are loaded when they are first run (the sweep, pictures); addresses in
/// /proc/kallsyms; what the thread that reads symbols has, since that is made by the collector. Frame numbers and flags (CAP_SYS_ADMIN) were read at the start, and
/// programs are attached.
pub const COLLECTOR: &[Capability] = &[CAP_BPF, CAP_PERFMON, CAP_SYSLOG, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH];

/// Filling tables for unwinding: system calls on them, and the program that says which file is mapped.
pub const UNWIND: &[Capability] = &[CAP_BPF, CAP_PERFMON];

/// Ending a command that became another user.
pub const COMMAND: &[Capability] = &[CAP_KILL];

/// Writing reports where root has no right but this one: in a user's own folder.
pub const OUTPUTS: &[Capability] = &[CAP_DAC_OVERRIDE];

/// What of the permitted set is kept. Where CAP_SYS_ADMIN stands in for the younger CAP_BPF or CAP_PERFMON, it is kept.
fn kept(permitted: u64, wanted: &[&[Capability]]) -> u64 {
    let mut mask = 0;
    for capability in wanted.iter().copied().flatten() {
        let bit = 1_u64 << *capability as u32;
        let by_admin = matches!(capability, CAP_BPF | CAP_PERFMON) && permitted & bit == 0;
        mask |= if by_admin { 1 << CAP_SYS_ADMIN as u32 } else { bit };
    }
    mask & permitted
}

/// Gives up all capabilities of this thread but these, for good. Returns the names of what it has left.
///
/// # Errors
/// The kernel's; nothing changed then, or only the bounding set.
pub fn keep_only(wanted: &[&[Capability]]) -> io::Result<Vec<String>> {
    let mask = kept(permitted()?, wanted);
    limit_bounding_set(mask);
    // The ambient set goes with the others: what is not permitted and inheritable cannot be in it.
    set(mask)?;
    // SAFETY: plain integers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(NAMED.iter().filter(|capability| mask >> **capability as u32 & 1 == 1).map(|capability| format!("{capability:?}")).collect())
}

/// As [`keep_only`], for a thread that goes on without it: tracing with too many rights is better than none.
pub fn keep_only_or_warn(wanted: &[&[Capability]]) {
    match keep_only(wanted) {
        Ok(left) => log::info!("{}: privileges left: {}", std::thread::current().name().unwrap_or("thread"), left.join(" ")),
        Err(error) => log::warn!("privileges that are not needed could not be given up: {error}"),
    }
}

/// Takes the others out of the bounding set, as far as that is allowed (CAP_SETPCAP): root could win them back by an exec.
fn limit_bounding_set(mask: u64) {
    for capability in 0..64 {
        // SAFETY: plain integers.
        let failed = mask >> capability & 1 == 0 && unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0;
        // EINVAL: this kernel has no more.
        if failed {
            return;
        }
    }
}

/// Header of capget and capset (include/uapi/linux/capability.h): version 3, this thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// One of the two words of each set.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

fn permitted() -> io::Result<u64> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: a header and two words of data, as version 3 asks for.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from(data[1].permitted) << 32 | u64::from(data[0].permitted))
}

fn set(mask: u64) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let word = |bits: u64| Data { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
    let data = [word(mask & u64::from(u32::MAX)), word(mask >> 32)];
    // SAFETY: a header and two words of data, as version 3 asks for.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMIN: u64 = 1 << 21;
    const BPF: u64 = 1 << 39;
    const PERFMON: u64 = 1 << 38;

    #[test]
    fn the_collector_can_make_a_thread_that_reads_symbols() {
        assert!(SYMBOLS.iter().all(|capability| COLLECTOR.contains(capability)));
    }

    #[test]
    fn only_what_is_wanted_and_permitted_is_kept() {
        assert_eq!(kept(u64::MAX, &[&[CAP_BPF, CAP_PERFMON], COMMAND]), BPF | PERFMON | 1 << 5);
        assert_eq!(kept(BPF, &[COLLECTOR]), BPF);
        assert_eq!(kept(0, &[COLLECTOR]), 0);
    }

    #[test]
    fn admin_stays_where_it_stands_in_for_a_younger_one() {
        assert_eq!(kept(ADMIN, &[COLLECTOR]), ADMIN);
        assert_eq!(kept(ADMIN | BPF, &[&[CAP_BPF]]), BPF);
        assert_eq!(kept(ADMIN, &[PROCESSES]), 0);
    }

    /// On a thread of its own: it cannot be taken back.
    #[test]
    fn a_thread_has_no_more_than_it_kept_and_the_others_are_as_before() {
        let before = permitted().unwrap();
        let inside = std::thread::spawn(|| (keep_only(&[COMMAND]).unwrap(), permitted().unwrap())).join().unwrap();
        assert_eq!(inside.1, before & 1 << 5);
        assert_eq!(inside.0.len() as u32, inside.1.count_ones());
        assert_eq!(permitted().unwrap(), before);
    }
}
