//! Lines of JavaScript: V8 keeps where in its script a function begins, and the script's text says on which line that is.
//!
//! The text is read from the file that the script is called by, in the root of the process, by a thread of its own for which nobody waits: a file
//! server that never answers costs the lines of scripts that are met later. A file that has another length than the script is another text.

use super::Functions;
use crate::{
    host::{lock, privileges, proc::Process},
    process::{opener, sys},
};
use std::{
    io::{self, Read as _},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

/// Scripts that wait to be read.
const MOST_WAITING: usize = 256;
/// Bytes of a script.
const MOST_BYTES: u64 = 8 << 20;
/// Lines of one.
const MOST_LINES: usize = 1 << 20;

/// A script that has functions, as a process calls it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Script {
    /// Its path, or the URL of one.
    pub name: Box<str>,
    /// UTF-16 units of its text.
    pub length: u32,
}

impl Script {
    /// Whether its name is that of a file.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.name.starts_with('/') || self.name.starts_with("file:///")
    }
}

/// Where each line of a script but the first begins, in UTF-16 units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines(Box<[u32]>);

impl Lines {
    /// Those of a text; `None` if it has not that length.
    #[must_use]
    pub fn of(text: &str, length: u32) -> Option<Lines> {
        // Node cuts a mark of the byte order off.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (mut at, mut begins, mut before) = (0_u32, Vec::new(), ' ');
        for character in text.chars() {
            let is_pair = before == '\r' && character == '\n';
            if matches!(before, '\n' | '\r' | '\u{2028}' | '\u{2029}') && !is_pair {
                begins.push(at);
                if begins.len() > MOST_LINES {
                    return None;
                }
            }
            at = at.checked_add(character.len_utf16() as u32)?;
            before = character;
        }
        (at == length).then(|| Lines(begins.into()))
    }

    /// The line of a place.
    #[must_use]
    pub fn line(&self, unit: u32) -> u32 {
        self.0.partition_point(|begin| *begin <= unit) as u32 + 1
    }

    /// Bytes that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// Starts the thread. It ends when what is given is dropped.
///
/// # Errors
/// There can be no thread.
pub fn start(functions: &Arc<Mutex<Functions>>) -> io::Result<SyncSender<(u32, Script)>> {
    let (sender, asked) = sync_channel(MOST_WAITING);
    let functions = Arc::clone(functions);
    std::thread::Builder::new().name("memtrail-script".into()).spawn(move || run(&asked, &functions))?;
    Ok(sender)
}

fn run(asked: &Receiver<(u32, Script)>, functions: &Mutex<Functions>) {
    privileges::keep_only_or_warn(&[privileges::SYMBOLS]);
    // Nobody waits for it.
    if let Err(error) = sys::give_way() {
        log::debug!("lines of scripts take the host's time: {error}");
    }
    for (tgid, script) in asked {
        match read(tgid, &script) {
            Ok(lines) => lock(functions).learn_lines(script, lines),
            Err(error) => log::debug!("lines of {}: {error}", crate::text::escape(&script.name)),
        }
    }
}

fn read(tgid: u32, script: &Script) -> io::Result<Lines> {
    let path = script.name.strip_prefix("file://").unwrap_or(&script.name);
    // Of a URL in which characters are encoded nothing is decoded.
    if !path.starts_with('/') || path.contains('%') && path.len() != script.name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (file, metadata) = opener::open_in_root_of(&Process::open(tgid)?, path)?;
    if metadata.len() > MOST_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Lines::of(&String::from_utf8_lossy(&bytes), script.length).ok_or_else(|| io::Error::other("its file has another text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_that_v8_counts() {
        let text = "a\nb\r\nc\rd\u{2028}é😀\n\nf";
        let length = text.encode_utf16().count() as u32;
        let lines = Lines::of(text, length).unwrap();
        let units: Vec<u16> = text.encode_utf16().collect();
        let expected = [1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5, 5, 6, 7];
        let found: Vec<u32> = (0..units.len() as u32).map(|unit| lines.line(unit)).collect();
        assert_eq!(found, expected);
        assert_eq!(lines.line(u32::MAX), 7);
    }

    #[test]
    fn another_text_has_no_lines() {
        assert_eq!(Lines::of("abc\n", 3), None);
        assert!(Lines::of("\u{feff}abc", 3).is_some() && Lines::of("", 0).is_some());
        let script = |name: &str| Script { name: name.into(), length: 0 };
        for name in ["node:fs", "evalmachine.<anonymous>", "file:///a%20b.mjs", ""] {
            assert_eq!(read(std::process::id(), &script(name)).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert!(read(std::process::id(), &script("/proc/self/nothing")).is_err());
    }

    #[test]
    fn the_file_of_a_script_is_read_in_the_root_of_its_process() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"one\ntwo").unwrap();
        let script = Script { name: file.path().to_str().unwrap().into(), length: 7 };
        assert_eq!(read(std::process::id(), &script).unwrap().line(4), 2);
    }
}
