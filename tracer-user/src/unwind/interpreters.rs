//! Interpreters that were found in files, as the kernel half knows them: by number.

use crate::{
    kernel_half::unwind::Tables,
    managed::{Found, Interpreter},
    process::Loop,
};
use std::{
    collections::{HashMap, HashSet},
    io,
};
use tracer_common::{
    managed::{
        hotspot::{HOTSPOTS, HotSpot},
        python::{PYTHONS, Python},
        v8::{V8, V8S},
    },
    unwind::{FileKey, HOTSPOT_SHIFT, INTERPRETER, PYTHON_SHIFT, V8_SHIFT},
};

/// Files that are remembered.
const MOST_FILES: usize = 16_384;

/// Builds of each kind, by number, what files have, and what was said of those that are not known.
#[derive(Debug, Default)]
pub struct Interpreters {
    pythons: Vec<Python>,
    v8s: Vec<V8>,
    hotspots: Vec<HotSpot>,
    /// JVMs that have not described themselves, and how often processes of theirs were asked.
    jvms: HashMap<FileKey, u32>,
    /// Of each file what its entry in the kernel half's table has besides ([`tracer_common::unwind::FileTable::state`]); 0 for most.
    files: HashMap<FileKey, u32>,
    said: HashSet<String>,
}

/// What of a file's state is said here.
pub const STATE: u32 = INTERPRETER << PYTHON_SHIFT | INTERPRETER << V8_SHIFT | INTERPRETER << HOTSPOT_SHIFT;

impl Interpreters {
    /// Whether a file was looked at.
    #[must_use]
    pub fn has(&self, key: &FileKey) -> bool {
        self.files.contains_key(key)
    }

    /// What is said of a file that has some.
    #[must_use]
    pub fn state(&self, key: &FileKey) -> Option<u32> {
        self.files.get(key).copied().filter(|state| *state != 0)
    }

    /// Tells the kernel half how the functions of what was found in a file are read. Gives the code that runs an interpreter's frames, of one that has
    /// frames of its own.
    pub fn tell(&mut self, tables: &mut Tables, key: &FileKey, found: Found) -> Option<Loop> {
        let (mut state, mut loops) = (0, None);
        for found in found {
            let told = match found {
                Ok(Interpreter::Python(python, code)) => {
                    let told = number(&mut self.pythons, python, PYTHONS, |number| tables.set_python(number, &python));
                    told.map(|number| {
                        state |= (number + 1) << PYTHON_SHIFT;
                        loops = Some(code);
                    })
                }
                Ok(Interpreter::V8(v8)) => {
                    number(&mut self.v8s, v8, V8S, |number| tables.set_v8(number, &v8)).map(|number| state |= (number + 1) << V8_SHIFT)
                }
                Ok(Interpreter::HotSpot) => {
                    self.jvms.insert(*key, 0);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = told {
                self.say(error);
            }
        }
        if self.files.len() >= MOST_FILES {
            self.files.clear();
            self.jvms.clear();
        }
        self.files.insert(*key, state);
        loops
    }

    /// Whether a file holds a JVM that has not described itself.
    #[must_use]
    pub fn is_wanted(&self, key: &FileKey) -> bool {
        self.jvms.contains_key(key)
    }

    /// A process was asked in vain; how often that happened.
    pub fn note_try(&mut self, key: &FileKey) -> u32 {
        self.jvms.get_mut(key).map_or(0, |tries| {
            *tries += 1;
            *tries
        })
    }

    /// Tells the kernel half what a JVM said of itself, or that it is not known.
    pub fn tell_jvm(&mut self, tables: &mut Tables, key: &FileKey, said: Result<HotSpot, String>) {
        self.jvms.remove(key);
        let said = said.and_then(|hotspot| number(&mut self.hotspots, hotspot, HOTSPOTS, |number| tables.set_hotspot(number, &hotspot)));
        match said {
            Ok(number) => {
                let state = self.files.entry(*key).or_default();
                *state = *state & !(INTERPRETER << HOTSPOT_SHIFT) | (number + 1) << HOTSPOT_SHIFT;
            }
            Err(error) => self.say(error),
        }
    }

    /// Once.
    fn say(&mut self, text: String) {
        if !self.said.contains(&text) {
            log::warn!("{text}");
            self.said.insert(text);
        }
    }
}

/// The number of a build, which is told if it is new.
fn number<T: PartialEq>(builds: &mut Vec<T>, build: T, most: u32, tell: impl FnOnce(u32) -> io::Result<()>) -> Result<u32, String> {
    if let Some(known) = builds.iter().position(|known| *known == build) {
        return Ok(known as u32);
    }
    let number = builds.len() as u32;
    if number >= most {
        return Err(format!("more than {most} builds of an interpreter: the stacks of some have native frames only"));
    }
    tell(number).map_err(|error| format!("functions of an interpreter are not read: {error}"))?;
    builds.push(build);
    Ok(number)
}
