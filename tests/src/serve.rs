//! A memtrail that serves, and those who ask it: requests as bytes, so that a test can also send wrong ones.

use crate::{child::KilledChild, memtrail, watchdog};
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest for one answer; emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running `memtrail serve` on a free port of loopback. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: KilledChild,
    address: String,
    _folder: tempfile::TempDir,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head, as it came.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Server {
    /// Starts `memtrail serve ARGS` and waits until it serves.
    pub fn start(args: &[&str]) -> Result<Server> {
        let folder = tempfile::tempdir()?;
        let command = memtrail::command()?;
        Server::start_by(command, folder, args)
    }

    /// The same by a command that ends with the program. In the folder it makes its socket.
    pub fn start_by(mut command: Command, folder: tempfile::TempDir, args: &[&str]) -> Result<Server> {
        let socket = folder.path().join("socket").join("serve.sock");
        command.args(["serve", "--listen", "127.0.0.1:0", "--socket"]).arg(&socket).args(args);
        command.args(memtrail::forced_provider().iter().flat_map(|provider| ["--provider", provider]));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting memtrail serve")?;
        let mut said = BufReader::new(child.stderr.take().context("stderr of memtrail")?);
        let child = KilledChild(child);
        let _wait = watchdog::waiting("memtrail serves");
        let mut all = String::new();
        loop {
            let mut line = String::new();
            ensure!(said.read_line(&mut line)? > 0, "memtrail ended: {all}");
            all.push_str(&line);
            if let Some((_, rest)) = line.split_once("serving http://") {
                let address = rest.split_whitespace().next().context("an address")?.to_owned();
                std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::stderr()));
                return Ok(Server { child, address, _folder: folder });
            }
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks for a path.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.get_with(path, &[])
    }

    /// Asks with more lines in the head.
    pub fn get_with(&self, path: &str, lines: &[&str]) -> Result<Answer> {
        let more: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{more}Connection: close\r\n\r\n", self.address).as_bytes())
    }

    /// Sends bytes and reads what comes back to its end.
    pub fn send(&self, request: &[u8]) -> Result<Answer> {
        send(&self.address, request)
    }

    /// A connection.
    pub fn connect(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(&self.address)?)
    }

    /// Ends it by SIGTERM; how long that took.
    pub fn stop(mut self) -> Result<Duration> {
        let began = Instant::now();
        // SAFETY: a signal to a child that has not been waited for.
        ensure!(unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) } == 0, "cannot end memtrail");
        let _wait = watchdog::waiting("memtrail ends");
        let status = self.child.wait()?;
        ensure!(matches!(status.code(), Some(0 | 3)), "memtrail ended with {status}");
        Ok(began.elapsed())
    }
}

/// Sends bytes to an address and reads what comes back to its end.
pub fn send(address: &str, request: &[u8]) -> Result<Answer> {
    let _wait = watchdog::waiting("an answer");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let at = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .with_context(|| format!("no answer: {:?}", String::from_utf8_lossy(&bytes)))?;
    let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status")?;
    Ok(Answer { status, head, body: bytes[at + 4..].to_vec() })
}

/// The value of a series in a text, by its beginning: `name{a="b"}`.
pub fn series(text: &str, beginning: &str) -> Result<f64> {
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(beginning)).collect();
    let [line] = lines.as_slice() else { bail!("{} series begin with {beginning}:\n{text}", lines.len()) };
    let (_, value) = line.rsplit_once(' ').context("a value")?;
    Ok(value.parse()?)
}
