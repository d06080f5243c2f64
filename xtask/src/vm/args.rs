//! The command line of `cargo xtask vm`.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Hierarchy, Job, Kernel, machines};
use crate::{command::show, programs};

/// Run a command on the kernels under test.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel to boot; may be given several times [default: all]
    #[arg(long)]
    kernel: Vec<Kernel>,
    /// Hierarchy of the memory controller; may be given several times [default: all that the kernel has]
    #[arg(long)]
    cgroup: Vec<Hierarchy>,
    /// Host file to put into the machine, in /bin or where GUEST says
    #[arg(long, value_name = "HOST[=GUEST]")]
    file: Vec<String>,
    /// Build memtrail and the test workloads and put them into /bin
    #[arg(long)]
    programs: bool,
    /// Seconds after which a machine is killed
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Command and its arguments: a program of busybox, or one of the files
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs the command on each kernel with each hierarchy.
pub fn command(args: Args) -> Result<()> {
    let mut files = args.file.iter().map(|file| placed(file)).collect::<Result<Vec<_>>>()?;
    if args.programs {
        files.extend(in_bin(programs::binaries(None)?));
    }
    let job =
        Job { init: programs::init()?, files, command: args.command, environment: Vec::new(), timeout: Duration::from_secs(args.timeout) };
    let mut failed = Vec::new();
    for (kernel, hierarchy) in machines(&args.kernel, &args.cgroup)? {
        let name = format!("kernel {}, cgroup {}", kernel.name(), hierarchy.name());
        println!("== {name}");
        let start = Instant::now();
        let status = job.run(kernel, hierarchy, show)?;
        println!("== {name}: exit status {status}, {:.1} s", start.elapsed().as_secs_f64());
        if status != 0 {
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "the command failed: {}", failed.join("; "));
    Ok(())
}

/// Programs as files of a [`Job`].
pub fn in_bin(programs: programs::Programs) -> impl Iterator<Item = (PathBuf, String)> {
    programs.into_iter().map(|(name, path)| (path, format!("/bin/{name}")))
}

/// `HOST=GUEST`, or `HOST` for `/bin/` and its last part.
fn placed(file: &str) -> Result<(PathBuf, String)> {
    if let Some((host, guest)) = file.split_once('=') {
        return Ok((PathBuf::from(host), guest.to_owned()));
    }
    let host = PathBuf::from(file);
    let name = host.file_name().and_then(|name| name.to_str()).with_context(|| format!("{file} names no file"))?;
    let guest = format!("/bin/{name}");
    Ok((host, guest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_to_bin_unless_told_otherwise() {
        assert_eq!(placed("a/b.sh").expect("a file"), (PathBuf::from("a/b.sh"), "/bin/b.sh".to_owned()));
        assert_eq!(placed("a/b=/etc/c").expect("a file"), (PathBuf::from("a/b"), "/etc/c".to_owned()));
        assert!(placed("..").is_err());
    }
}
