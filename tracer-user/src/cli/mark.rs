//! `memtrail mark NAME`: names this moment in the recordings that run.

use super::status::Conflict;
use crate::{cli::mark_socket, text};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Longest that a recording may take for its snapshot. The first one reads the symbols of every program that owns memory.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest answer, bytes.
const MAX_ANSWER: u64 = 4096;

/// Arguments of `mark`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct MarkArgs {
    /// What to call this moment: up to 64 bytes, without @ and /.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Only in the recording of this memtrail; without it, in all that run.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
}

const EXAMPLES: &str = "\
Examples:
  memtrail record -o load.mtrail &
  memtrail mark warm; ./load-test; memtrail mark loaded
      name two moments; each command returns when its snapshot is taken
  memtrail report load.mtrail --from warm --to loaded
      what grew in between

It needs root, as the recording does. Exit status: 0 marked in each of them;
1 in none, or not in all.";

/// Makes the mark.
pub fn run(args: &MarkArgs) -> Result<u8> {
    mark_socket::check_name(&args.name).map_err(Conflict)?;
    let directory = Path::new(mark_socket::DIRECTORY);
    let sockets = match mark_socket::sockets_in(directory) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!("{}: marks are for root alone", directory.display()),
        sockets => sockets.with_context(|| directory.display().to_string())?,
    };
    let chosen = sockets.into_iter().filter(|(pid, _)| args.pid.is_none_or(|wanted| wanted == *pid));
    let (mut marked, mut failure) = (0, None);
    for (pid, path) in chosen {
        match ask(&path, &args.name) {
            Ok(Some(seconds)) => {
                marked += 1;
                println!("{} at {seconds} s in the recording of memtrail {pid}", args.name);
            }
            // The next recording removes it.
            Ok(None) => {}
            Err(error) => failure = failure.or(Some(error.context(format!("the recording of memtrail {pid}")))),
        }
    }
    match (failure, marked, args.pid) {
        (Some(error), ..) => Err(error),
        (None, 0, Some(pid)) => bail!("memtrail {pid} does not record to a file that holds marks (memtrail record -o FILE.mtrail does)"),
        (None, 0, None) => bail!("no recording runs that holds marks (memtrail record -o FILE.mtrail does)"),
        _ => Ok(0),
    }
}

/// The time of the mark as the recording tells it; `None` if nobody listens there any more.
fn ask(path: &Path, name: &str) -> Result<Option<String>> {
    let mut stream = match UnixStream::connect(path) {
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => return Ok(None),
        stream => stream?,
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{name}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).take(MAX_ANSWER).read_line(&mut answer).context("no answer")?;
    match answer.trim_end().split_once(' ') {
        Some(("ok", seconds)) => Ok(Some(text::escape(seconds))),
        Some(("error", problem)) => bail!("{}", text::escape(problem)),
        _ => bail!("it ended before it answered"),
    }
}
