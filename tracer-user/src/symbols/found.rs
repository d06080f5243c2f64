//! In which files the frames of a report are. Pure.

use super::BinaryId;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// Files remembered.
const MOST_BINARIES: usize = 4096;
/// Names remembered of all files together.
const MOST_NAMES: usize = 65_536;

/// A file in which frames were found since [`super::Symbolizer::refresh`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binary {
    /// Path seen from the process. Hostile.
    pub path: String,
    /// Hexadecimal digits.
    pub build_id: Option<String>,
    /// Names of the frames that are in it, sorted. One that is in two files is a frame of both.
    pub frames: Vec<String>,
}

/// Files by their ids, and the frames that were found in each.
#[derive(Debug, Default)]
pub struct FoundIn {
    paths: HashMap<BinaryId, String>,
    build_ids: HashMap<BinaryId, String>,
    frames: HashMap<BinaryId, HashSet<Arc<str>>>,
    names: usize,
}

impl FoundIn {
    /// Forgets the frames, and the files if they are many. Whether it did: then they have to be read again for their build ids.
    pub fn refresh(&mut self) -> bool {
        self.frames.clear();
        self.names = 0;
        let are_many = self.paths.len().max(self.build_ids.len()) >= MOST_BINARIES;
        if are_many {
            self.paths.clear();
            self.build_ids.clear();
        }
        are_many
    }

    /// A frame was found in a file.
    pub fn add(&mut self, binary: BinaryId, path: &[u8], name: &Arc<str>) {
        if !self.paths.contains_key(&binary) {
            if self.paths.len() >= MOST_BINARIES {
                return;
            }
            self.paths.insert(binary, String::from_utf8_lossy(path).into_owned());
        }
        let frames = self.frames.entry(binary).or_default();
        if self.names < MOST_NAMES && !frames.contains(name) {
            frames.insert(Arc::clone(name));
            self.names += 1;
        }
    }

    /// The build id of a file was read.
    pub fn has_build_id(&mut self, binary: BinaryId, build_id: Option<String>) {
        if let Some(build_id) = build_id.filter(|_| self.build_ids.len() < MOST_BINARIES) {
            self.build_ids.insert(binary, build_id);
        }
    }

    /// The files. Two openings of one build under one path are one file.
    #[must_use]
    pub fn binaries(&self) -> Vec<Binary> {
        let mut rows: BTreeMap<(&str, Option<&str>), BTreeSet<&str>> = BTreeMap::new();
        for (id, names) in &self.frames {
            if let Some(path) = self.paths.get(id) {
                let row = rows.entry((path, self.build_ids.get(id).map(String::as_str))).or_default();
                row.extend(names.iter().map(|name| &**name));
            }
        }
        let row = |((path, build_id), frames): ((&str, Option<&str>), BTreeSet<&str>)| Binary {
            path: path.to_owned(),
            build_id: build_id.map(str::to_owned),
            frames: frames.into_iter().map(str::to_owned).collect(),
        };
        rows.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_in_two_files_is_a_frame_of_both() {
        let mut found = FoundIn::default();
        let names: [Arc<str>; 3] = ["main".into(), "run".into(), "[a+0x10]".into()];
        for (id, path, name) in [(1, "/bin/a", 0), (1, "/bin/a", 2), (2, "/bin/b", 0), (2, "/bin/b", 1), (3, "/bin/a", 1), (1, "/bin/a", 0)]
        {
            found.add(BinaryId(id), path.as_bytes(), &names[name]);
        }
        for (id, build_id) in [(1, "aa"), (2, "bb"), (3, "aa")] {
            found.has_build_id(BinaryId(id), Some(build_id.to_owned()));
        }
        let binary = |path: &str, build_id: &str, frames: &[&str]| Binary {
            path: path.to_owned(),
            build_id: Some(build_id.to_owned()),
            frames: frames.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(found.binaries(), [binary("/bin/a", "aa", &["[a+0x10]", "main", "run"]), binary("/bin/b", "bb", &["main", "run"])]);
        assert!(!found.refresh());
        assert_eq!(found.binaries(), []);
        found.add(BinaryId(2), b"/bin/b", &names[1]);
        assert_eq!(found.binaries(), [binary("/bin/b", "bb", &["run"])], "what file it is stays known");
    }
}
