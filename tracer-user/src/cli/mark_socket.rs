//! Marks: named moments of a running recording, asked for through a Unix socket or by a signal.
//!
//! The socket is `/run/memtrail/PID.sock`, for root alone: the folder has mode 0700, the socket 0600, and the peer's user is asked for too.
//! A request is a line with the name; the answer, `ok SECONDS` or `error TEXT`, comes when the snapshot is in the recording, so that what the
//! asker does next is after the mark. Requests are served one after the other, each bounded in bytes and time; none keeps the collector
//! from its work.

use crate::text;
use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

/// Where the sockets are.
pub const DIRECTORY: &str = "/run/memtrail";
/// Longest name, bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Most marks of a recording: each is a whole snapshot.
pub const MOST_MARKS: usize = 1000;
/// Longest that a client may take to say its name, or to take its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says what is wrong with the name of a mark: it is part of `FILE@MARK`, of outputs and of command lines.
pub fn check_name(name: &str) -> Result<(), String> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "it has more than 64 bytes"
    } else if text::escape(name) != name {
        "it has characters that do not show"
    } else if name.contains('@') || name.contains('/') {
        "it has an @ or a /, which stand before marks and in paths"
    } else if name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) {
        "it begins or ends with a space"
    } else {
        return Ok(());
    };
    Err(format!("{:?} cannot be a mark: {problem}", name.chars().take(MAX_NAME_BYTES).collect::<String>()))
}

/// Somebody wants a mark.
#[derive(Debug)]
pub struct Request {
    /// The name as it came in, at most [`MAX_NAME_BYTES`] bytes and a little more; not checked.
    pub name: String,
    answer: oneshot::Sender<Result<f64, String>>,
}

impl Request {
    /// Tells the asker: the time of the mark in seconds, or why there is none.
    pub fn answer(self, result: Result<f64, String>) {
        // An asker that went away needs no answer.
        let _ = self.answer.send(result);
    }
}

/// The socket of this recording. Dropped, it is removed.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    requests: mpsc::Receiver<Request>,
    server: tokio::task::JoinHandle<()>,
}

impl Listener {
    /// Listens in [`DIRECTORY`], and removes what dead recordings left there. Needs a running tokio.
    ///
    /// # Errors
    /// When the folder cannot be made, or is not for root alone.
    pub fn start() -> io::Result<Listener> {
        Listener::start_in(Path::new(DIRECTORY))
    }

    /// The same in another folder.
    ///
    /// # Errors
    /// As [`Listener::start`].
    pub fn start_in(directory: &Path) -> io::Result<Listener> {
        prepare(directory)?;
        for (pid, path) in sockets_in(directory)? {
            if is_stale(pid, &path) {
                fs::remove_file(&path)?;
            }
        }
        let path = directory.join(format!("{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let (sender, requests) = mpsc::channel(1);
        Ok(Listener { path, requests, server: tokio::spawn(serve(listener, sender)) })
    }

    /// The next request. Can be dropped at any point.
    pub async fn next(&mut self) -> Option<Request> {
        self.requests.recv().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.server.abort();
        // What cannot be removed is stale for the next recording.
        let _ = fs::remove_file(&self.path);
    }
}

/// The folder, made if it is not there. One that others may enter is refused: they could put a socket of theirs in it.
pub fn prepare(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    if !found.is_dir() || found.uid() != own_user()? || found.mode() & 0o077 != 0 {
        let problem = format!("{} is not a folder for this user alone (mode 0700)", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok(())
}

/// The user that this process acts for.
fn own_user() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

/// Process ids and sockets of recordings, by id; also those that are stale.
///
/// # Errors
/// When the folder cannot be read; one that does not exist holds none.
pub fn sockets_in(directory: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut sockets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let pid = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".sock")?.parse::<u32>().ok());
        sockets.extend(pid.map(|pid| (pid, path)));
    }
    sockets.sort_unstable();
    Ok(sockets)
}

/// Whether the process is gone and nobody listens: another pid namespace may share the folder, so both are asked. One of this very process
/// id is from an earlier process.
#[must_use]
pub fn is_stale(pid: u32, path: &Path) -> bool {
    let is_gone = pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists();
    is_gone && std::os::unix::net::UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

async fn serve(listener: UnixListener, requests: mpsc::Sender<Request>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = serve_one(stream, &requests).await {
                    log::info!("a request for a mark failed: {error}");
                }
            }
            Err(error) => {
                // Out of descriptors, say: there is no hurry.
                log::warn!("marks cannot be taken now: {error}");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

async fn serve_one(stream: UnixStream, requests: &mpsc::Sender<Request>) -> io::Result<()> {
    if stream.peer_cred()?.uid() != own_user()? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    let mut bounded = (&mut stream).take(MAX_NAME_BYTES as u64 + 2);
    tokio::time::timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await??;
    if line.pop_if(|last| *last == b'\n').is_none() && line.len() <= MAX_NAME_BYTES {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let name = String::from_utf8_lossy(&line).into_owned();
    let (answer, answered) = oneshot::channel();
    let gone = || io::Error::other("the recording ends");
    requests.send(Request { name, answer }).await.map_err(|_| gone())?;
    let answer = match answered.await.map_err(|_| gone())? {
        Ok(seconds) => format!("ok {seconds:.3}\n"),
        Err(problem) => format!("error {}\n", text::escape(&problem)),
    };
    tokio::time::timeout(PATIENCE, stream.write_all(answer.as_bytes())).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, Read as _, Write as _};

    #[test]
    fn names_are_short_and_show() {
        for name in ["peak", "phase 2: 100 users", "größte Last", &"x".repeat(64)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "a\nb", "a\u{202e}b", "a@b", "a/b", " a", &"x".repeat(65), "\x1b[2J"] {
            let problem = check_name(name).unwrap_err();
            assert!(!problem.chars().any(char::is_control) && problem.contains("cannot be a mark"), "{problem}");
        }
    }

    /// What a client that says these bytes is answered.
    fn ask(path: &Path, bytes: &[u8]) -> String {
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        std::io::BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_request_is_answered_when_the_mark_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("run");
        runtime().block_on(async {
            let mut listener = Listener::start_in(&directory).unwrap();
            let path = listener.path.clone();
            let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
            assert_eq!((mode(&directory), mode(&path)), (0o700, 0o600));
            let client = tokio::task::spawn_blocking({
                let path = path.clone();
                move || [ask(&path, b"peak\n"), ask(&path, b"again\n"), ask(&path, &[b'x'; 66]), ask(&path, b"\xff\n")]
            });
            for (name, answer) in
                [("peak", Ok(1.5)), ("again", Err("no\nroom".to_owned())), (&"x".repeat(66), Ok(2.0)), ("\u{fffd}", Ok(3.0))]
            {
                let request = listener.next().await.unwrap();
                assert_eq!(request.name, name);
                request.answer(answer);
            }
            assert_eq!(client.await.unwrap(), ["ok 1.500\n", "error no\\x0aroom\n", "ok 2.000\n", "ok 3.000\n"]);
            drop(listener);
            assert!(!path.exists());
        });
    }

    #[test]
    fn a_client_that_says_nothing_does_not_keep_the_next_one_out() {
        let folder = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mut listener = Listener::start_in(&folder.path().join("run")).unwrap();
            let mut silent = std::os::unix::net::UnixStream::connect(&listener.path).unwrap();
            let path = listener.path.clone();
            let client = tokio::task::spawn_blocking(move || ask(&path, b"next\n"));
            listener.next().await.unwrap().answer(Ok(0.0));
            assert_eq!(client.await.unwrap(), "ok 0.000\n");
            assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0, "it was hung up on");
        });
    }

    #[test]
    fn sockets_of_the_dead_go_and_those_of_the_living_stay() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("run");
        prepare(&directory).unwrap();
        // Ids above the largest that there can be.
        let dead = directory.join("4194305.sock");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let elsewhere = directory.join("4194306.sock");
        let _listens = std::os::unix::net::UnixListener::bind(&elsewhere).unwrap();
        let living = directory.join("1.sock");
        drop(std::os::unix::net::UnixListener::bind(&living).unwrap());
        fs::write(directory.join("notes.txt"), "").unwrap();
        runtime().block_on(async {
            let listener = Listener::start_in(&directory).unwrap();
            let found: Vec<u32> = sockets_in(&directory).unwrap().into_iter().map(|(pid, _)| pid).collect();
            let mut expected = vec![1, std::process::id(), 4_194_306];
            expected.sort_unstable();
            assert_eq!(found, expected);
            drop(listener);
        });
        assert!(sockets_in(&folder.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        runtime().block_on(async {
            for directory in [open, link, folder.path().join("no/such")] {
                assert!(Listener::start_in(&directory).is_err(), "{}", directory.display());
            }
        });
    }
}
