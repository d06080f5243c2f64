//! A word to whoever waits: what takes longer than two seconds says what it is and for how long, where standard error is a terminal.

use crate::text::{escape, units};
use std::{
    io::IsTerminal as _,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What is done by then needs no word.
const QUIET: Duration = Duration::from_secs(2);
/// Time between two words.
const PACE: Duration = Duration::from_secs(1);

/// Says what is being done until it is dropped; the line is cleared then.
pub(super) struct Patience {
    words: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Patience {
    /// `what` goes on after the program's name: "reading run.mtrail".
    pub(super) fn with(what: &str) -> Patience {
        let is_seen = std::io::stderr().is_terminal();
        Patience { words: is_seen.then(|| start(escape(what), QUIET, |line| eprint!("\r\x1b[K{line}"))) }
    }
}

/// A thread that says it.
fn start(what: String, quiet: Duration, mut say: impl FnMut(&str) + Send + 'static) -> (Sender<()>, JoinHandle<()>) {
    let (end, ended) = channel();
    let began = Instant::now();
    let thread = std::thread::spawn(move || {
        let mut wait = quiet;
        let mut has_said = false;
        while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            say(&format!("memtrail: {what}: {} ", units::duration(Duration::from_secs(began.elapsed().as_secs()))));
            (wait, has_said) = (PACE, true);
        }
        if has_said {
            say("");
        }
    });
    (end, thread)
}

impl Drop for Patience {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.words.take() {
            drop(end);
            // It has nothing to return, and a line that stays is no harm.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn said(quiet: Duration, takes: Duration) -> Vec<String> {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let (end, thread) = start("reading x".into(), quiet, move |line| heard.lock().unwrap().push(line.to_owned()));
        std::thread::sleep(takes);
        drop(Patience { words: Some((end, thread)) });
        said.lock().unwrap().clone()
    }

    #[test]
    fn what_is_quick_says_nothing_and_what_is_not_clears_its_line() {
        assert!(said(Duration::from_secs(60), Duration::ZERO).is_empty());
        assert_eq!(said(Duration::ZERO, Duration::from_millis(300)), ["memtrail: reading x: 0 ms ", ""]);
    }
}
