//! The thread that takes in what the kernel half tells of functions, so that its ring does not fill between two reports.

use super::{Functions, scripts};
use crate::{
    host::{lock, privileges},
    process::sys,
};
use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long the thread sleeps where nothing is told.
const REST: Duration = Duration::from_millis(200);

/// The running thread. It ends soon after this is dropped.
#[derive(Debug)]
pub struct Listener {
    stop: Arc<AtomicBool>,
}

impl Listener {
    /// Starts it.
    ///
    /// # Errors
    /// There is no ring, or there can be no thread.
    pub fn start(functions: &Arc<Mutex<Functions>>) -> io::Result<Listener> {
        let descriptor = lock(functions).descriptor().ok_or(io::ErrorKind::NotFound)??;
        let (stop, functions) = (Arc::new(AtomicBool::new(false)), Arc::clone(functions));
        let listener = Listener { stop: Arc::clone(&stop) };
        std::thread::Builder::new().name("memtrail-runtime".into()).spawn(move || run(&descriptor, &functions, &stop))?;
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn run(descriptor: &OwnedFd, functions: &Arc<Mutex<Functions>>, stop: &AtomicBool) {
    // It reads memory that it shares with the kernel half; who reads files needs more, and is started first.
    let scripts = scripts::start(functions).inspect_err(|error| log::warn!("functions of scripts have no lines: {error}")).ok();
    privileges::keep_only_or_warn(&[]);
    while !stop.load(Ordering::Acquire) {
        if let Err(error) = sys::poll_readable(std::slice::from_ref(descriptor), REST) {
            log::warn!("functions of interpreters that are met from now on may have no names: {error}");
            return;
        }
        let unread = {
            let mut functions = lock(functions);
            functions.listen();
            functions.take_unread()
        };
        for (tgid, script) in unread {
            let Some(scripts) = &scripts else { break };
            if scripts.try_send((tgid, script.clone())).is_err() {
                lock(functions).forget_script(&script);
            }
        }
    }
}
