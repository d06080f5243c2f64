//! The signals that end what memtrail does by itself, in one place. SIGTERM always ends it. SIGINT, which is Ctrl-C, and SIGHUP, which a terminal
//! sends when it closes, do unless memtrail was started with them ignored, as a shell and `nohup` start what goes on in the background.
//!
//! With a command its signals are caught and passed on in [`crate::command`] instead.

use crate::command::signals;
use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for a signal that ends.
pub(super) struct Interrupts {
    /// `None` where it was ignored at the start, and stays so.
    interrupt: Option<Signal>,
    /// The same.
    hangup: Option<Signal>,
    terminate: Signal,
}

/// A terminal that has closed takes no more words, and printing one would be an error: what goes to it goes nowhere from now on.
fn without_terminal() {
    use std::io::IsTerminal as _;
    let nowhere = std::fs::File::options().write(true).open("/dev/null");
    let redirect = |is_closed: bool, redirect: fn(&std::fs::File) -> rustix::io::Result<()>| match &nowhere {
        Ok(nowhere) if is_closed => redirect(nowhere).map_err(std::io::Error::from),
        _ => Ok(()),
    };
    // A terminal that is gone does not say that it is one; a file and a pipe take bytes as before.
    let is_gone = |is_terminal: bool, fd: std::os::fd::BorrowedFd<'_>| {
        is_terminal || rustix::fs::fstat(fd).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device())
    };
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let results = [
        redirect(is_gone(stdout.is_terminal(), std::os::fd::AsFd::as_fd(&stdout)), |file| rustix::stdio::dup2_stdout(file)),
        redirect(is_gone(stderr.is_terminal(), std::os::fd::AsFd::as_fd(&stderr)), |file| rustix::stdio::dup2_stderr(file)),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        log::debug!("a closed terminal stays open: {error}");
    }
}

impl Interrupts {
    /// Catches them from now on.
    pub(super) fn catch() -> Result<Interrupts> {
        let wanted = |number: i32| -> Result<Option<Signal>> {
            let is_wanted = !signals::is_ignored(number).context("cannot look at SIGINT and SIGHUP")?;
            is_wanted.then(|| signal(SignalKind::from_raw(number))).transpose().context("cannot wait for SIGINT and SIGHUP")
        };
        let (interrupt, hangup) = (wanted(libc::SIGINT)?, wanted(libc::SIGHUP)?);
        Ok(Interrupts { interrupt, hangup, terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")? })
    }

    /// The same without SIGHUP, which then has another meaning.
    pub(super) fn without_hangup(self) -> Interrupts {
        Interrupts { hangup: None, ..self }
    }

    /// Returns when one came. May be dropped at any time.
    pub(super) async fn next(&mut self) {
        async fn of(signal: &mut Option<Signal>) {
            match signal {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            };
        }
        let Interrupts { interrupt, hangup, terminate } = self;
        tokio::select! {
            () = of(interrupt) => {}
            () = of(hangup) => without_terminal(),
            _ = terminate.recv() => {}
        }
    }
}
