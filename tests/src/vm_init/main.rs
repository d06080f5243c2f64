//! The init program of the virtual machines that `cargo xtask vm` boots. Static, so that the machine needs no libraries.
//!
//! Mounts what a host has, runs the command that the runner put into the initramfs, prints a marker with its exit status and powers
//! off. What goes wrong here is printed where the command's output goes; the runner sees that the marker is missing.

use std::{
    ffi::{CString, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStringExt as _, process::ExitStatusExt as _},
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// What ends the output; the runner looks for the same. Begins with a control character, not a new line: the command's last line may
/// have no end.
const END: &str = "\x1ememtrail-vm-end ";
/// The second serial port: the first has the kernel's messages.
const OUTPUT: &str = "/dev/ttyS1";

fn main() {
    // Whatever happens, the machine must go off: the runner would wait for its deadline.
    if let Err(error) = work() {
        // Without the output device the kernel's console is what is left.
        let line = format!("memtrail-vm-init: {error:#}\n");
        let told = OpenOptions::new().write(true).open(OUTPUT).and_then(|mut output| output.write_all(line.as_bytes()));
        if told.is_err() {
            eprint!("{line}");
        }
    }
    // SAFETY: sync takes nothing; reboot with a valid command ends this machine, which is all that is wanted.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
        libc::reboot(libc::RB_AUTOBOOT);
    }
}

fn work() -> Result<()> {
    mount("devtmpfs", "/dev", "devtmpfs", "")?;
    let output = OpenOptions::new().read(true).write(true).open(OUTPUT).context(OUTPUT)?;
    raw(&output)?;
    mounts()?;
    load_modules()?;
    mount("/dev/vda", "/disk", "ext4", "noinit_itable")?;
    match fs::read_to_string("/vm/hierarchy")?.as_str() {
        "v1" => cgroup_v1()?,
        "v2" => cgroup_v2()?,
        other => bail!("unknown hierarchy {other}"),
    }
    let status = run(&output)?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).context("the command has no status")?;
    let mut output = output;
    writeln!(output, "{END}{code}").context("cannot print the end marker")?;
    // SAFETY: the descriptor is open; tcdrain only waits until all is sent.
    unsafe { libc::tcdrain(output.as_raw_fd()) };
    Ok(())
}

fn mounts() -> Result<()> {
    mount("proc", "/proc", "proc", "")?;
    mount("sysfs", "/sys", "sysfs", "")?;
    mount("devpts", "/dev/pts", "devpts", "")?;
    // Places that programs expect, if only to mount on them.
    for folder in ["/mnt", "/root", "/var/tmp"] {
        fs::create_dir_all(folder).context(folder)?;
    }
    for folder in ["/dev/shm", "/tmp", "/run"] {
        mount("tmpfs", folder, "tmpfs", "mode=1777")?;
    }
    mount("debugfs", "/sys/kernel/debug", "debugfs", "")?;
    mount("tracefs", "/sys/kernel/tracing", "tracefs", "")?;
    mount("bpf", "/sys/fs/bpf", "bpf", "")
}

fn cgroup_v1() -> Result<()> {
    mount("tmpfs", "/sys/fs/cgroup", "tmpfs", "mode=755")?;
    mount("cgroup", "/sys/fs/cgroup/memory", "cgroup", "memory")?;
    mount("cgroup2", "/sys/fs/cgroup/unified", "cgroup2", "")?;
    // Before 5.11 a hierarchy is flat unless one asks; everybody asks.
    let hierarchical = "/sys/fs/cgroup/memory/memory.use_hierarchy";
    if Path::new(hierarchical).exists() && fs::read_to_string(hierarchical)?.trim() == "0" {
        fs::write(hierarchical, "1").context(hierarchical)?;
    }
    Ok(())
}

fn cgroup_v2() -> Result<()> {
    // Charges huge pages where the kernel can (6.7 and later); the others do not know the word.
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", "memory_hugetlb_accounting")
        .or_else(|_| mount("cgroup2", "/sys/fs/cgroup", "cgroup2", ""))?;
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?;
    for controller in controllers.split_whitespace().filter(|name| ["memory", "pids", "io", "cpu"].contains(name)) {
        fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{controller}")).with_context(|| format!("controller {controller}"))?;
    }
    Ok(())
}

fn mount(source: &str, target: &str, kind: &str, options: &str) -> Result<()> {
    fs::create_dir_all(target).context(target.to_owned())?;
    let [source, place, name, data] = [source, target, kind, options].map(CString::new);
    let (source, place, name, data) = (source?, place?, name?, data?);
    // SAFETY: four strings that end in a zero and live until the call returns.
    let result = unsafe { libc::mount(source.as_ptr(), place.as_ptr(), name.as_ptr(), 0, data.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).with_context(|| format!("mount {kind} on {target}")) }
}

/// The runner numbered them in load order.
fn load_modules() -> Result<()> {
    let Ok(folder) = fs::read_dir("/vm/modules") else { return Ok(()) };
    let mut modules = folder.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    modules.sort();
    for module in modules {
        let file = File::open(&module).with_context(|| module.display().to_string())?;
        // SAFETY: an open descriptor and an empty string that ends in a zero.
        let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        let error = io::Error::last_os_error();
        if result != 0 && error.raw_os_error() != Some(libc::EEXIST) {
            return Err(error).with_context(|| module.display().to_string());
        }
    }
    Ok(())
}

/// Runs the command and reaps every other orphan meanwhile, as an init must.
fn run(output: &File) -> Result<ExitStatus> {
    let words = list("/vm/command")?;
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", "/bin").env("HOME", "/tmp").current_dir("/tmp");
    for variable in list("/vm/environment")? {
        let text = variable.to_string_lossy().into_owned();
        let (name, value) = text.split_once('=').with_context(|| format!("not a variable: {text}"))?;
        command.env(name, value);
    }
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    let child = command.spawn().with_context(|| program.to_string_lossy().into_owned())?;
    let child = i32::try_from(child.id())?;
    loop {
        let mut status = 0;
        // SAFETY: waits for any child and writes only to `status`.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if pid == child {
            return Ok(ExitStatus::from_raw(status));
        }
        if pid < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error).context("waitpid");
            }
        }
    }
}

/// Words separated by zeros.
fn list(path: &str) -> Result<Vec<OsString>> {
    let bytes = fs::read(path).context(path.to_owned())?;
    Ok(bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(|word| OsString::from_vec(word.to_vec())).collect())
}

/// No line discipline: bytes arrive on the host as they were written.
fn raw(terminal: &File) -> Result<()> {
    // SAFETY: termios is plain data for which zeros are valid; both calls get an open descriptor and write only to it.
    let result = unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        libc::tcgetattr(terminal.as_raw_fd(), &raw mut settings);
        libc::cfmakeraw(&raw mut settings);
        libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw const settings)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context(OUTPUT) }
}
