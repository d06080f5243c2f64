//! Process identity: thread-group id, start time and exec count, since ids are reused and exec changes the program.

use crate::mix64;

/// Length of a command name, as in the kernel (TASK_COMM_LEN).
pub const COMM_BYTES: usize = 16;

/// A process image, stored under its 64-bit identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ProcessRecord {
    /// Start of the thread-group leader, nanoseconds of the boot clock (`task_struct.start_boottime`).
    pub start_ns: u64,
    /// Monotonic nanoseconds at which the image was first seen.
    pub first_seen_ns: u64,
    /// When the image ended, by its last thread's exit or an exec, alike; 0: it runs, as far as was seen.
    pub ended_ns: u64,
    /// `task_struct.self_exec_id`: changes with each exec. 64 bits wide since 5.7, of which these do.
    pub exec_id: u32,
    /// Thread-group id in the initial pid namespace.
    pub tgid: u32,
    /// The same in the process's own pid namespace; 0 if it could not be read.
    pub ns_tgid: u32,
    /// 1 for a kernel thread.
    pub kernel_thread: u32,
    /// Name of the thread-group leader when it was last seen, NUL-padded, as raw bytes.
    pub comm: [u8; COMM_BYTES],
}
crate::assert_size!(ProcessRecord, 56);
crate::plain_data!(ProcessRecord);

/// The identity of a process image; never 0.
#[inline(always)]
#[must_use]
pub const fn process_identity(tgid: u32, start_ns: u64, exec_id: u64) -> u64 {
    mix64(mix64(mix64(0x7072_6f63, tgid as u64), start_ns), exec_id) | 1
}

#[cfg(test)]
mod tests {
    use super::process_identity;

    #[test]
    fn an_image_has_another_identity_when_id_start_or_exec_count_is_another() {
        let images = [(1, 2, 3), (2, 1, 3), (1, 3, 2), (3, 2, 1), (1, 2, 0), (1, 0, 3), (0, 2, 3), (1, 2, 3 << 32)];
        let identities = images.map(|(tgid, start_ns, exec_id)| process_identity(tgid, start_ns, exec_id));
        for (at, identity) in identities.iter().enumerate() {
            assert!(!identities[at + 1..].contains(identity), "{:?} is taken for another process", images[at]);
        }
    }

    #[test]
    fn no_image_has_the_identity_that_stands_for_none() {
        for tgid in 0..1000 {
            assert_eq!(process_identity(tgid, 0, 0) & 1, 1, "identities are odd: {tgid}");
        }
    }
}
