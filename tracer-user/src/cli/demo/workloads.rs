//! The workloads of `memtrail demo`: what each does, in a process of its own. They touch memory and nothing else of the host.
//!
//! Their function names are what the demo's stacks show, so none may be inlined.

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use std::{
    fs::{self, File},
    hint::black_box,
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
    thread,
};

/// Threads of the first workload, each with a malloc arena of its own.
pub const THREADS: u64 = 4;
/// What each thread keeps, bytes.
pub const THREAD_BYTES: u64 = 24 << 20;
/// Size of the log file and of the tmpfs file, bytes.
pub const FILE_BYTES: u64 = 64 << 20;
/// What the log is written by: an entry of some lines. Several go into a page, as with any log.
const ENTRY_LINES: usize = 16;
/// Below glibc's threshold for mappings of their own, so that blocks come from an arena.
const BLOCK: usize = 96 << 10;

/// Arguments of the hidden verb.
#[derive(Debug, Args)]
pub struct WorkloadArgs {
    /// Which.
    pub workload: Workload,
    /// `cgroup.procs` of the cgroup to run in.
    pub procs: PathBuf,
    /// Files to remove at the end: memtrail is gone then.
    pub files: Vec<PathBuf>,
}

/// The workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Threads that malloc.
    Arenas,
    /// A log that grows, on standard output.
    Log,
    /// A file filled and left, on standard output.
    Tmpfs,
}

impl Workload {
    /// Its name, and that of its cgroup.
    pub const fn name(self) -> &'static str {
        match self {
            Workload::Arenas => "arenas",
            Workload::Log => "log",
            Workload::Tmpfs => "tmpfs",
        }
    }

    /// The function that touches its memory, as stacks name it.
    pub const fn function(self) -> &'static str {
        match self {
            Workload::Arenas => "fill_arena",
            Workload::Log => "append_to_log",
            Workload::Tmpfs => "fill_tmpfs",
        }
    }

    /// Kind of its memory.
    pub const fn kind(self) -> &'static str {
        match self {
            Workload::Arenas => "anon",
            Workload::Log => "file",
            Workload::Tmpfs => "shmem",
        }
    }

    /// Bytes it leaves charged.
    pub const fn bytes(self) -> u64 {
        match self {
            Workload::Arenas => THREADS * THREAD_BYTES,
            Workload::Log | Workload::Tmpfs => FILE_BYTES,
        }
    }
}

/// Does the work, says so with one line on standard error, and stays until standard input ends.
pub fn run(args: &WorkloadArgs) -> Result<u8> {
    enter(&args.procs)?;
    let kept = match args.workload {
        Workload::Arenas => arenas()?,
        Workload::Log => keep_log(&mut standard_output()?).map(|()| Vec::new()).context("cannot keep the log file")?,
        Workload::Tmpfs => fill_tmpfs(&mut standard_output()?).map(|()| Vec::new()).context("cannot write the tmpfs file")?,
    };
    eprintln!("ready");
    io::stdin().read_to_end(&mut Vec::new()).context("cannot wait")?;
    drop(black_box(kept));
    for file in &args.files {
        // memtrail may have removed it itself.
        drop(fs::remove_file(file));
    }
    Ok(0)
}

fn enter(procs: &Path) -> Result<()> {
    // 0 means the writer.
    fs::write(procs, "0").with_context(|| format!("cannot enter {}", procs.display()))
}

/// Without the buffer of [`io::stdout`], which would be most of each stack.
fn standard_output() -> Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned().context("cannot use standard output")?))
}

type Blocks = Vec<Vec<u8>>;

/// glibc gives a thread an arena of its own as long as there are fewer than eight for each CPU.
#[inline(never)]
fn arenas() -> Result<Vec<Blocks>> {
    let threads: Vec<_> = (0..THREADS).map(|_| thread::Builder::new().spawn(fill_arena)).collect::<Result<_, _>>()?;
    threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread failed"))).collect()
}

#[inline(never)]
fn fill_arena() -> Blocks {
    let mut blocks = Vec::new();
    let mut left = THREAD_BYTES;
    while left > 0 {
        blocks.push(touched_block());
        left = left.saturating_sub(BLOCK as u64);
    }
    black_box(blocks)
}

#[inline(never)]
fn touched_block() -> Vec<u8> {
    // Not zeros: those could come from calloc, untouched.
    black_box(vec![0xa5; BLOCK])
}

/// Writes the log and follows it, as a log shipper would: what is read again becomes active page cache.
#[inline(never)]
fn keep_log(log: &mut File) -> io::Result<()> {
    append_to_log(log)?;
    let mut piece = [0; 4096];
    for at in (0..2 * FILE_BYTES).step_by(piece.len()) {
        log.read_exact_at(&mut piece, at % FILE_BYTES)?;
    }
    Ok(())
}

#[inline(never)]
fn append_to_log(log: &mut File) -> io::Result<()> {
    let line = b"2026-01-01T00:00:00Z INFO request served status=200 bytes=5120\n\n";
    write_whole(log, &line.repeat(ENTRY_LINES))
}

#[inline(never)]
fn fill_tmpfs(file: &mut File) -> io::Result<()> {
    write_whole(file, &[0xa5; BLOCK])
}

/// In its caller: one frame less to read.
#[inline(always)]
fn write_whole(file: &mut File, piece: &[u8]) -> io::Result<()> {
    let mut left = usize::try_from(FILE_BYTES).map_err(io::Error::other)?;
    while left > 0 {
        let now = left.min(piece.len());
        file.write_all(&piece[..now])?;
        left -= now;
    }
    file.flush()?;
    // A call behind the loop, so that no write is a tail call that takes this frame off the stack.
    black_box(left);
    Ok(())
}
