//! The signal dispositions that a child begins with. They are inherited through exec: what is ignored in this process would be ignored in memtrail and in
//! its command, and a shell cannot even trap a signal that was ignored when it began. Test programs are started with ignored signals wherever a script
//! runs them in the background (SIGINT, SIGQUIT) or under nohup (SIGHUP).

use std::{io, os::unix::process::CommandExt as _, process::Command};

#[path = "../../xtask/src/signals.rs"]
mod plain;

pub use plain::plain;

/// Lets the child begin with these signals ignored, and all others plain.
pub fn ignoring<'a>(command: &'a mut Command, signals: &'static [i32]) -> &'a mut Command {
    // SAFETY: between fork and exec the closure makes async-signal-safe system calls on memory of its own, and allocates nothing.
    unsafe {
        plain(command).pre_exec(move || {
            for signal in signals {
                if libc::signal(*signal, libc::SIG_IGN) == libc::SIG_ERR {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mask of ignored signals of a child that prints its own status; of those from 32 on glibc has two for itself.
    fn ignored(command: &mut Command) -> u64 {
        let output = command.args(["^SigIgn:", "/proc/self/status"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        u64::from_str_radix(text.trim_start_matches("SigIgn:").trim(), 16).unwrap() & 0x7fff_ffff
    }

    #[test]
    fn children_begin_plain_or_as_asked() {
        if std::env::var_os("MEMTRAIL_TEST_PLAYED").is_some() {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let own = u64::from_str_radix(status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim(), 16).unwrap();
            println!("own {:x}, child's {:x}", own & 7, ignored(plain(&mut Command::new("grep"))));
            return;
        }
        let bit = |signal: i32| 1_u64 << (signal - 1);
        let asked = ignored(ignoring(&mut Command::new("grep"), &[libc::SIGINT, libc::SIGHUP]));
        assert_eq!(asked, bit(libc::SIGINT) | bit(libc::SIGHUP));
        // This test once more, in a process that begins with ignored signals, so that there is something to reset.
        let mut played = Command::new(std::env::current_exe().unwrap());
        ignoring(&mut played, &[libc::SIGINT, libc::SIGHUP, libc::SIGQUIT]).env("MEMTRAIL_TEST_PLAYED", "1");
        let output = played.args(["--exact", "signals::tests::children_begin_plain_or_as_asked", "--nocapture"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("own 7, child's 0"), "{text}");
    }
}
