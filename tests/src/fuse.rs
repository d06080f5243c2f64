//! A file system whose server stops answering: files that can be opened, and that nobody ever gets a byte of. The server is a thread of the test
//! and speaks the kernel's protocol (include/uapi/linux/fuse.h) over /dev/fuse by hand.
//!
//! Whoever waits for it can be killed only once the connection is ended: what has been started on such a file must be dropped after the mount. The
//! connection ends by itself after [`LIFETIME`], and with the test's process.

use anyhow::{Context, Result, bail};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What such a server still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// It finds and opens files of any name. The first descriptor of each is read through the page cache, the later ones past it. Reads are
    /// never answered.
    AllButReads,
    /// It answers nothing once it is mounted.
    Nothing,
}

/// Requests, by their numbers.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const BATCH_FORGET: u32 = 42;

/// Longest that a connection lasts: nothing that waits for it outlives that.
const LIFETIME: Duration = Duration::from_secs(120);

/// `FOPEN_DIRECT_IO`.
const PAST_THE_CACHE: u32 = 1;
const ROOT: u64 = 1;
const THE_FILE: u64 = 2;
const FILE_BYTES: u64 = 1 << 20;
/// Least room that the kernel asks for (`FUSE_MIN_READ_BUFFER`), and that of the largest request.
const REQUEST_BYTES: usize = 256 << 10;

/// The mount. Dropping it ends the connection: whoever waits for an answer gets an error.
#[derive(Debug)]
pub struct Fuse {
    path: PathBuf,
    server: Option<JoinHandle<()>>,
    unanswered: Arc<AtomicU64>,
}

impl Fuse {
    /// Mounts one at a folder that exists.
    pub fn mount(path: &Path, answers: Answers) -> Result<Fuse> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").context("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let (target, options) = (CString::new(path.as_os_str().as_bytes())?, CString::new(options)?);
        // SAFETY: strings that end in a zero byte and outlive the call.
        let failed =
            unsafe { libc::mount(c"memtrail-test".as_ptr(), target.as_ptr(), c"fuse".as_ptr(), libc::MS_NOSUID, options.as_ptr().cast()) };
        if failed != 0 {
            return Err(std::io::Error::last_os_error()).with_context(|| format!("mounting at {}", path.display()));
        }
        let unanswered = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&unanswered);
        let server = std::thread::Builder::new().name("fuse".into()).spawn(move || serve(device, answers, &counter));
        let mut fuse = Fuse { path: path.to_owned(), server: None, unanswered };
        fuse.server = Some(server.context("the server's thread")?);
        Ok(fuse)
    }

    /// Requests that will never be answered, so far.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Acquire)
    }

    /// Waits for the first of them.
    pub fn wait_until_asked(&self) -> Result<()> {
        for _ in 0..1000 {
            if self.unanswered() > 0 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("nobody asks the file system at {}", self.path.display())
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let Ok(target) = CString::new(self.path.as_os_str().as_bytes()) else { return };
        // SAFETY: a string that ends in a zero byte and outlives the call. MNT_FORCE ends the connection.
        if unsafe { libc::umount2(target.as_ptr(), libc::MNT_FORCE | libc::MNT_DETACH) } != 0 {
            eprintln!("left behind: {}: {}", self.path.display(), std::io::Error::last_os_error());
            return;
        }
        if let Some(server) = self.server.take() {
            // It ends with the connection; a panic of its own was printed.
            let _ = server.join();
        }
    }
}

/// Whether a request comes, or the connection ends, before then.
fn is_asked(device: &File, until: Instant) -> bool {
    let wait = until.saturating_duration_since(Instant::now()).as_millis().try_into().unwrap_or(0);
    let mut wanted = libc::pollfd { fd: device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one open descriptor.
    unsafe { libc::poll(&raw mut wanted, 1, wait) != 0 }
}

/// Until the connection ends: with the device, which is closed here, if nobody ends it before.
fn serve(mut device: File, answers: Answers, unanswered: &AtomicU64) {
    let (mut request, mut opened, until) = (vec![0; REQUEST_BYTES], 0, Instant::now() + LIFETIME);
    while is_asked(&device, until) {
        let length = match device.read(&mut request) {
            Ok(length) => length,
            // ENOENT: the request was taken back.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::ENOENT)) => continue,
            Err(_) => return,
        };
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap_or_default());
        let long = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap_or_default());
        assert!(length >= 40, "a request of {length} bytes");
        let (operation, unique, node) = (word(4), long(8), long(16));
        let silent = operation != INIT && answers == Answers::Nothing;
        let answer = match operation {
            FORGET | BATCH_FORGET => continue,
            READ => None,
            _ if silent => None,
            INIT => Some(Ok(words(&[7, 31, 1 << 16, 0, 0, 1 << 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]))),
            LOOKUP => Some(Ok([longs(&[THE_FILE, 1, 60, 60, 0]), attributes(THE_FILE)].concat())),
            GETATTR => Some(Ok([longs(&[60, 0]), attributes(node)].concat())),
            OPEN => {
                opened += 1;
                Some(Ok(words(&[0, 0, if opened > 1 { PAST_THE_CACHE } else { 0 }, 0])))
            }
            RELEASE | FLUSH => Some(Ok(Vec::new())),
            _ => Some(Err(libc::ENOSYS)),
        };
        let Some(answer) = answer else {
            unanswered.fetch_add(1, Ordering::Release);
            continue;
        };
        let (body, error) = match answer {
            Ok(body) => (body, 0),
            Err(error) => (Vec::new(), -error),
        };
        let header = [&(16 + body.len() as u32).to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes()].concat();
        // Who asked may be gone by now.
        let _ = device.write(&[header, body].concat());
    }
}

/// `struct fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == ROOT { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o644 };
    [longs(&[node, FILE_BYTES, FILE_BYTES / 512, 0, 0, 0]), words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}
