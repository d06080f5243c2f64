//! A program that runs beside the storms: started until it says that it is ready, stopped as Ctrl-C does.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// Generous: a loaded machine is slow.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// What is kept of a program's words for an error.
const KEPT_BYTES: usize = 4096;

/// A running program. Dropping it kills it.
pub struct Background {
    child: Child,
    readers: Vec<JoinHandle<()>>,
    said: Arc<Mutex<String>>,
    name: String,
}

impl Background {
    /// Starts it and waits for a line that contains `ready`, on either of its outputs.
    pub fn start(mut command: Command, ready: &'static str) -> Result<Background> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = command::line(&command);
        let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        let said = Arc::new(Mutex::new(String::new()));
        let (sender, receiver) = channel();
        let outputs: [Option<Box<dyn Read + Send>>; 2] =
            [child.stdout.take().map(|o| Box::new(o) as Box<_>), child.stderr.take().map(|o| Box::new(o) as Box<_>)];
        let readers = outputs.into_iter().flatten().map(|output| {
            let (sender, said) = (sender.clone(), Arc::clone(&said));
            thread::spawn(move || {
                command::read_lines(output, |line| {
                    let line = String::from_utf8_lossy(&line);
                    if line.contains(ready) {
                        // Nobody waits for it any more when it says so again.
                        let _ = sender.send(());
                    }
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    if said.len() < KEPT_BYTES {
                        said.push_str(&line);
                        said.push('\n');
                    }
                    true
                });
            })
        });
        let readers = readers.collect();
        drop(sender);
        let background = Background { child, readers, said, name };
        match receiver.recv_timeout(START_TIMEOUT) {
            Ok(()) => Ok(background),
            Err(RecvTimeoutError::Timeout) => bail!("{} does not start; it said: {}", background.name, background.said()),
            Err(RecvTimeoutError::Disconnected) => bail!("{} ended at once; it said: {}", background.name, background.said()),
        }
    }

    /// What it has said.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).trim_end().to_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Interrupts it and waits for its end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).context("process id")?;
        // SAFETY: kill takes no pointers; the child has not been waited for, so the id is still its own.
        if unsafe { libc::kill(pid, libc::SIGINT) } != 0 {
            return Err(std::io::Error::last_os_error()).with_context(|| format!("SIGINT to {}", self.name));
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().with_context(|| format!("waiting for {}", self.name))? {
                for reader in self.readers.drain(..) {
                    // A reader does not panic; if it did, only words are lost.
                    let _ = reader.join();
                }
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} does not end; it said: {}", self.name, self.said());
            }
            sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn it_is_ready_when_it_says_so_and_ends_at_the_signal() {
        let background = Background::start(shell("trap 'exit 7' INT; echo now attached >&2; while :; do sleep 0.02; done"), "attached");
        assert_eq!(background.expect("it starts").stop().expect("it ends").code(), Some(7));
    }

    #[test]
    fn an_early_end_is_an_error_with_what_was_said() {
        let error = Background::start(shell("echo no such hook; exit 1"), "attached").err().expect("it ended");
        assert!(format!("{error:#}").contains("no such hook"), "{error:#}");
    }
}
