//! One boot of one virtual machine, by software emulation: `/dev/kvm` may exist and still hang a guest.
//!
//! The first serial port carries the kernel's messages into a file, the second the command's output, so that they do not mix.
//! Never without a deadline, and never outliving this process.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{command::read_lines, supervise};

/// What a boot is made of.
pub struct Boot<'a> {
    /// The kernel image.
    pub vmlinuz: &'a Path,
    /// The initramfs.
    pub initramfs: &'a Path,
    /// A raw disk image; what the guest writes is thrown away.
    pub disk: &'a Path,
    /// Where the kernel's messages go.
    pub console: &'a Path,
    /// Wall time after which the machine is killed.
    pub timeout: Duration,
}

/// Time between two looks at whether this run is interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What the init program prints last, followed by the command's exit status. Must equal the one there. Not necessarily at the start of a
/// line: the command's last line may have no end.
const END: &[u8] = b"\x1ememtrail-vm-end ";
/// Quiet, because each character costs an exit of the emulator; a panic ends the machine at once. The timer is not checked: where the host
/// gives the emulator too little time, newer kernels find at boot that it does not tick, and panic.
const CMDLINE: &str = "console=ttyS0 no_timer_check quiet panic=-1 mitigations=off random.trust_cpu=on audit=0 swapaccount=1";

/// A processor without `cmpxchg16b` and the newer vector and bit instructions, which none of the kernels needs. QEMU 7.2 leaves garbage
/// in the flags register after `cmpxchg16b`, which SLUB's fast path uses where the processor has it (an oops of 6.12: `RIP:
/// __kmalloc_noprof`, right behind `cmpxchg16b %gs:(%rsi)`, `EFLAGS: 7fcbaf62`, `RAX: ffff88c57fcbad60`). A kernel then faults in `iret`,
/// or takes a task for one in virtual-8086 mode, whose stacks `perf_callchain_user` does not walk.
const CPU: &str = "Nehalem,-cx16";

impl Boot<'_> {
    /// Boots, hands each line that the command prints to `line`, and returns the command's exit status.
    pub fn run(&self, mut line: impl FnMut(&[u8])) -> Result<i32> {
        let mut machine = Machine(self.command().spawn().context("cannot run qemu-system-x86_64")?);
        let output = machine.0.stdout.take().context("no output from QEMU")?;
        let (sender, lines) = mpsc::sync_channel(64);
        let reader = std::thread::spawn(move || read_lines(output, |line| sender.send(line).is_ok()));
        let deadline = Instant::now() + self.timeout;
        let mut status = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left.min(LOOK_EVERY)) {
                Ok(text) => match end(&text) {
                    Some((before, end)) => {
                        status = Some(end);
                        if !before.is_empty() {
                            line(before);
                        }
                    }
                    None => line(&text),
                },
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if supervise::interrupted().is_some() => {
                    drop(machine);
                    bail!("interrupted, killed");
                }
                Err(RecvTimeoutError::Timeout) if left > LOOK_EVERY => {}
                Err(RecvTimeoutError::Timeout) if status.is_some() => break,
                Err(RecvTimeoutError::Timeout) => {
                    drop(machine);
                    bail!("no end after {} s, killed{}", self.timeout.as_secs(), self.last_messages());
                }
            }
        }
        drop(machine);
        if reader.join().is_err() {
            bail!("the reader of the machine's output panicked");
        }
        status.with_context(|| format!("the machine ended before its command did{}", self.last_messages()))
    }

    fn command(&self) -> Command {
        let mut qemu = Command::new("qemu-system-x86_64");
        // One thread for both CPUs: with one each, a kernel that changes its own code on one of them (static keys, BPF trampolines) may
        // run into its own break point on the other and panic, seen with 7.3. Machines run side by side instead.
        qemu.args(["-M", "pc", "-cpu", CPU, "-accel", "tcg,thread=single", "-smp", "2", "-m", "2048"]);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none", "-nic", "none"]);
        qemu.args(["-serial", &format!("file:{}", self.console.display())]);
        qemu.args(["-chardev", "stdio,id=output,signal=off", "-serial", "chardev:output"]);
        qemu.args(["-drive", &format!("file={},if=virtio,format=raw,snapshot=on", self.disk.display())]);
        qemu.arg("-kernel").arg(self.vmlinuz).arg("-initrd").arg(self.initramfs).args(["-append", CMDLINE]);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: between fork and exec the closure makes one system call that changes the child alone, and allocates nothing.
        unsafe {
            qemu.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        qemu
    }

    /// The end of the kernel's messages, to be put behind an error.
    fn last_messages(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = File::open(self.console).and_then(|mut file| file.read_to_end(&mut text)) {
            return format!("; {}: {error}", self.console.display());
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len().saturating_sub(20);
        format!("; the kernel's last messages (all in {}):\n{}", self.console.display(), lines[last..].join("\n"))
    }
}

/// A running emulator; killed when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Ended already, or killed here: either way waited for, so that nothing is left behind.
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            let _ = writeln!(io::stderr(), "cannot end QEMU: {error}");
        }
    }
}

/// The end marker in a line: what stands before it, and the exit status after it.
fn end(line: &[u8]) -> Option<(&[u8], i32)> {
    let at = line.windows(END.len()).position(|window| window == END)?;
    let status = std::str::from_utf8(&line[at + END.len()..]).ok()?.trim().parse().ok()?;
    Some((&line[..at], status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_ends_a_run_also_behind_a_line_without_end() {
        assert_eq!(end(b"\x1ememtrail-vm-end 3"), Some((&b""[..], 3)));
        assert_eq!(end(b"\xffrest\x1ememtrail-vm-end 0"), Some((&b"\xffrest"[..], 0)));
        assert_eq!(end(b"memtrail-vm-end 3"), None);
        assert_eq!(end(b"\x1ememtrail-vm-end x"), None);
        assert_eq!(end(b""), None);
    }
}
