//! What the kernel half told of functions, by number.

use super::{
    java, lines,
    scripts::{self, Script},
};
use crate::{kernel_half::events::Ring, text::source};
use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::OwnedFd,
    sync::Arc,
};
use tracer_common::managed::{
    FAR, FunctionEvent, LINES_BYTES, Text,
    hotspot::{LINES, LINES_WITHOUT_ZERO, STUB},
    v8::POSITIONS,
};
#[cfg(test)]
use tracer_common::managed::{FILE_BYTES, NAME_BYTES};

/// Functions that are remembered: some 10 MB with their lines.
const MOST_FUNCTIONS: usize = 65_536;
/// Scripts that are read for their lines.
const MOST_SCRIPTS: usize = 4096;
/// Bytes of all functions' tables of lines, and of all lines of scripts.
const MOST_LINES: usize = 12 << 20;
const MOST_SCRIPT_LINES: usize = 4 << 20;
/// Events that are taken in at once: more than the ring holds.
const MOST_AT_ONCE: usize = 512;
/// Directories below which the path of a file says whose it is: the rest of it is told.
const LIBRARIES: [&str; 3] = ["/site-packages/", "/dist-packages/", "/node_modules/"];

/// A function. All texts are hostile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, with those of the classes and functions that it is in where the runtime keeps them.
    pub name: Box<str>,
    /// The path of its file as the runtime has it; the end of a long one.
    pub file: Box<str>,
    lines: Lines,
}

/// How lines are known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lines {
    /// By a table of the function's.
    Table {
        format: u32,
        first_line: u32,
        bytes: Box<[u8]>,
        /// It has no more bytes than are here.
        is_whole: bool,
    },
    /// It has none: it is a part of the runtime.
    Never,
    /// By the text of its script, which is so long, in which it begins there. Where in it the frame is, is not known.
    Script { length: u32, begins: u32 },
}

impl Function {
    /// Whether it is none of a program's: from 3.13 on CPython runs a few instructions of its own before `__init__` of a class.
    #[must_use]
    pub fn is_of_interpreter(&self) -> bool {
        &*self.name == "__init__" && &*self.file == "__init__"
    }

    /// The line of a place in its code; `None` if that is not known.
    fn line(&self, place: u32, scripts: &HashMap<Script, scripts::Lines>) -> Option<u32> {
        match &self.lines {
            _ if u64::from(place) == FAR => None,
            Lines::Table { format, first_line, bytes, is_whole } => lines::line(*format, bytes, *is_whole, *first_line, place),
            Lines::Never => None,
            Lines::Script { begins, .. } => Some(scripts.get(&self.script()?)?.line(*begins)),
        }
    }

    /// The script that says its lines.
    fn script(&self) -> Option<Script> {
        let Lines::Script { length, .. } = self.lines else { return None };
        Some(Script { name: self.file.clone(), length })
    }

    /// Bytes of its table of lines.
    fn lines_bytes(&self) -> usize {
        if let Lines::Table { bytes, .. } = &self.lines { bytes.len() } else { 0 }
    }

    /// `name (file:line)`: the file without the directories in which all files of its kind are, and the line of the place.
    fn described(&self, place: u32, is_near: bool, scripts: &HashMap<Script, scripts::Lines>) -> String {
        if self.lines == Lines::Never {
            return source::of_runtime(&self.name);
        }
        let name = if self.name.is_empty() { "(anonymous)" } else { &self.name };
        let file = if self.file.is_empty() { "[eval]" } else { short(&self.file) };
        source::named(name, file, self.line(place, scripts), is_near)
    }
}

impl From<&FunctionEvent> for Function {
    fn from(event: &FunctionEvent) -> Function {
        if event.lines_format == STUB {
            return Function { name: text(event.name_text, &event.name).into(), file: Box::default(), lines: Lines::Never };
        }
        let lines = if event.lines_format == POSITIONS {
            Lines::Script { length: event.lines_bytes, begins: event.first_line }
        } else {
            let in_table = event.lines_bytes as usize;
            // What is longer has filled all bytes but one.
            let bytes: Box<[u8]> = event.lines[..in_table.min(LINES_BYTES - 1)].into();
            let is_whole = bytes.len() == in_table;
            Lines::Table { format: event.lines_format, first_line: event.first_line, bytes, is_whole }
        };
        let [name, file] = match event.lines_format {
            LINES | LINES_WITHOUT_ZERO => java::name_and_source(event),
            _ => [text(event.name_text, &event.name), text(event.file_text, &event.file)],
        };
        Function { name: name.into(), file: file.into(), lines }
    }
}

/// The characters that were read of a text: its last ones if it has more.
fn text(text: Text, bytes: &[u8]) -> String {
    let width = text.width as usize;
    // Whole characters of any width have room.
    let read = (text.characters as usize).saturating_mul(width).min(bytes.len() - 4);
    let number = |unit: &[u8]| unit.iter().rev().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    let is_cut = text.characters as usize * width.max(1) > read;
    let units = bytes[..read].chunks_exact(width.max(1)).map(number);
    let mut text: String = is_cut.then_some('…').into_iter().collect();
    if width == 2 {
        let units = units.map(|unit| unit as u16);
        text.extend(char::decode_utf16(units).map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER)));
    } else {
        text.extend(units.map(|unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)));
    }
    text
}

/// The part of a path that tells files of one installation apart.
fn short(path: &str) -> &str {
    // Node's own modules have a name of their own each.
    if path.starts_with("node:") {
        return path;
    }
    let in_packages = LIBRARIES.iter().find_map(|directory| path.rfind(directory).map(|at| &path[at + directory.len()..]));
    let in_library = || {
        let (_, rest) = path.rsplit_once("/lib/python3").or_else(|| path.rsplit_once("/lib64/python3"))?;
        rest.split_once('/').map(|(_, rest)| rest)
    };
    in_packages.or_else(in_library).unwrap_or_else(|| path.rsplit('/').next().unwrap_or(path))
}

/// The functions, and the ring by which they come.
#[derive(Default)]
pub struct Functions {
    events: Option<Ring<FunctionEvent>>,
    known: HashMap<u64, Arc<Function>>,
    /// Lines of scripts.
    scripts: HashMap<Script, scripts::Lines>,
    /// Scripts that were met and are to be read, with a process that has them.
    unread: Vec<(u32, Script)>,
    /// Those that were asked for.
    asked: HashSet<Script>,
    /// Bytes of all tables of functions, and of all lines of scripts.
    lines: usize,
    script_lines: usize,
    forgotten: u64,
}

impl Functions {
    /// Those that come by this ring.
    #[must_use]
    pub fn by(events: Ring<FunctionEvent>) -> Functions {
        Functions { events: Some(events), ..Functions::default() }
    }

    /// Readable while functions wait to be taken in; `None` without a ring.
    pub fn descriptor(&self) -> Option<io::Result<OwnedFd>> {
        self.events.as_ref().map(Ring::descriptor)
    }

    /// Takes in what the kernel half has told by now.
    pub fn listen(&mut self) {
        for _ in 0..MOST_AT_ONCE {
            let Some(event) = self.events.as_mut().and_then(Iterator::next) else { return };
            let function = Function::from(&event);
            if let Some(script) = function.script().filter(|script| script.has_file() && self.asked.len() < MOST_SCRIPTS)
                && self.asked.insert(script.clone())
            {
                self.unread.push((event.tgid, script));
            }
            self.insert(event.number, function);
        }
    }

    /// Scripts that were met since this was last asked, and a process that has each.
    pub fn take_unread(&mut self) -> Vec<(u32, Script)> {
        std::mem::take(&mut self.unread)
    }

    /// A script is not going to be read now: it is asked for again when it is met again.
    pub fn forget_script(&mut self, script: &Script) {
        self.asked.remove(script);
    }

    /// The lines of a script are known.
    pub fn learn_lines(&mut self, script: Script, lines: scripts::Lines) {
        if self.script_lines + lines.bytes() <= MOST_SCRIPT_LINES {
            self.script_lines += lines.bytes();
            self.scripts.insert(script, lines);
        }
    }

    /// What a frame in a function is called: `name (file:line)`, with `~` before a line that is only near; `None` if it was not told.
    pub fn described(&mut self, number: u64, place: u32, is_near: bool) -> Option<String> {
        Some(self.get(number)?.described(place, is_near, &self.scripts))
    }

    /// The function with that number, if it was told.
    pub fn get(&mut self, number: u64) -> Option<Arc<Function>> {
        if !self.known.contains_key(&number) {
            self.listen();
        }
        self.known.get(&number).cloned()
    }

    /// Functions for which there was no room: they have no names in what is named later.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn insert(&mut self, number: u64, mut function: Function) {
        if self.lines + function.lines_bytes() > MOST_LINES {
            // Rather without its lines than without its name.
            function.lines = Lines::Table { format: 0, first_line: 0, bytes: Box::default(), is_whole: false };
        }
        let lines = function.lines_bytes();
        if self.known.len() >= MOST_FUNCTIONS {
            self.forgotten += u64::from(!self.known.contains_key(&number));
            return;
        }
        self.lines += lines;
        if let Some(before) = self.known.insert(number, Arc::new(function)) {
            self.lines -= before.lines_bytes();
        }
    }
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Functions").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &[u8], width: u32, file: &[u8]) -> FunctionEvent {
        let held = |bytes: &[u8]| Text { characters: bytes.len() as u32 / width, width };
        let mut event = FunctionEvent {
            number: 7,
            lines_format: 11,
            first_line: 3,
            code_units: 4,
            lines_bytes: 0,
            tgid: 1,
            reserved: 0,
            name_text: held(name),
            file_text: Text { characters: file.len() as u32, width: 1 },
            name: [0; NAME_BYTES],
            file: [0; FILE_BYTES],
            lines: [0; LINES_BYTES],
        };
        event.name[..name.len().min(NAME_BYTES)].copy_from_slice(&name[..name.len().min(NAME_BYTES)]);
        event.file[..file.len()].copy_from_slice(file);
        event
    }

    #[test]
    fn characters_of_any_width_are_read_and_a_long_text_is_marked() {
        let name = |bytes: &[u8], width| Function::from(&event(bytes, width, b"/app/a.py")).name.to_string();
        assert_eq!(name(b"Handler.load_rows", 1), "Handler.load_rows");
        assert_eq!(name(b"caf\xe9", 1), "café");
        assert_eq!(name(&[0x4a, 0x30, 0x41, 0], 2), "\u{304a}A");
        assert_eq!(name(&[0x3d, 0xd8, 0x00, 0xde, 0x41, 0, 0x3d, 0xd8], 2), "\u{1f600}A\u{fffd}", "pairs, as in V8");
        assert_eq!(name(&[0x00, 0xf6, 0x01, 0, 0x00, 0xd8, 0, 0], 4), "\u{1f600}\u{fffd}");
        let long = Function::from(&event(&[b'x'; 200], 1, b""));
        assert_eq!((long.name.chars().count(), long.name.starts_with('…')), (NAME_BYTES - 4 + 1, true));
        let hostile =
            FunctionEvent { name_text: Text { characters: u32::MAX, width: u32::MAX }, lines_bytes: u32::MAX, ..event(b"", 1, b"") };
        assert!(Function::from(&hostile).name.len() < 16);
        assert!(Function::from(&hostile).line(5, &HashMap::new()).is_none());
    }

    #[test]
    fn files_are_told_from_others_of_their_installation() {
        let paths = [
            ("/usr/lib/python3.11/json/decoder.py", "json/decoder.py"),
            ("/usr/lib64/python3.12/json/decoder.py", "json/decoder.py"),
            ("/venv/lib/python3.12/site-packages/django/db/query.py", "django/db/query.py"),
            ("/usr/lib/python3/dist-packages/yaml/__init__.py", "yaml/__init__.py"),
            ("/srv/app/handlers.py", "handlers.py"),
            ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap>"),
            ("app.py", "app.py"),
            ("node:internal/modules/cjs/loader", "node:internal/modules/cjs/loader"),
            ("file:///srv/app/node_modules/pg/lib/client.mjs", "pg/lib/client.mjs"),
        ];
        for (path, expected) in paths {
            assert_eq!(short(path), expected);
        }
    }

    #[test]
    fn a_script_is_asked_for_once_and_says_the_line_of_its_functions() {
        let mut functions = Functions::default();
        let of_script = FunctionEvent { lines_format: POSITIONS, first_line: 9, lines_bytes: 12, ..event(b"grow", 1, b"/app/a.js") };
        functions.insert(3, Function::from(&of_script));
        assert_eq!(functions.described(3, 0, false).unwrap(), "grow (a.js:?)");
        let script = functions.get(3).unwrap().script().unwrap();
        functions.learn_lines(script, scripts::Lines::of("one\ntwo\nfour", 12).unwrap());
        assert_eq!(functions.described(3, 0, false).unwrap(), "grow (a.js:3)");
    }

    #[test]
    fn functions_are_remembered_up_to_a_bound() {
        let mut functions = Functions::default();
        for number in 0..MOST_FUNCTIONS as u64 + 5 {
            functions.insert(number, Function::from(&event(b"f", 1, b"a.py")));
        }
        assert_eq!((functions.known.len(), functions.forgotten()), (MOST_FUNCTIONS, 5));
        assert_eq!(functions.described(1, 0, false).unwrap(), "f (a.py:?)");
        assert!(functions.get(MOST_FUNCTIONS as u64 + 1).is_none());
    }
}
