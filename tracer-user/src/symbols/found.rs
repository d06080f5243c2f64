//! In which files the frames of a report are. Pure.

use super::BinaryId;
use crate::report::CodeRow;
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
    /// Where its code is.
    pub code: Vec<CodeRow>,
}

/// What a file says of itself, as far as outputs tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Hexadecimal digits.
    pub build_id: Option<String>,
    /// Where its code is.
    pub code: Vec<CodeRow>,
}

/// Files by their ids, and the frames that were found in each.
#[derive(Debug, Default)]
pub struct FoundIn {
    paths: HashMap<BinaryId, String>,
    about: HashMap<BinaryId, About>,
    frames: HashMap<BinaryId, HashSet<Arc<str>>>,
    names: usize,
}

impl FoundIn {
    /// Forgets the frames, and the files if they are many. Whether it did: then they have to be read again for their build ids.
    pub fn refresh(&mut self) -> bool {
        self.frames.clear();
        self.names = 0;
        let are_many = self.paths.len().max(self.about.len()) >= MOST_BINARIES;
        if are_many {
            self.paths.clear();
            self.about.clear();
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

    /// It was read what a file says of itself.
    pub fn learn(&mut self, binary: BinaryId, about: About) {
        if self.about.len() < MOST_BINARIES {
            self.about.insert(binary, about);
        }
    }

    /// The files. Two openings of one build under one path are one file.
    #[must_use]
    pub fn binaries(&self) -> Vec<Binary> {
        /// What is kept of the openings of one build under one path.
        type Row<'f> = (BTreeSet<&'f str>, &'f About);
        let nothing = About::default();
        let mut rows: BTreeMap<(&str, Option<&str>), Row<'_>> = BTreeMap::new();
        for (id, names) in &self.frames {
            if let Some(path) = self.paths.get(id) {
                let about = self.about.get(id).unwrap_or(&nothing);
                let (frames, _) = rows.entry((path, about.build_id.as_deref())).or_insert_with(|| (BTreeSet::new(), about));
                frames.extend(names.iter().map(|name| &**name));
            }
        }
        let row = |((path, build_id), (frames, about)): ((&str, Option<&str>), Row<'_>)| Binary {
            path: path.to_owned(),
            build_id: build_id.map(str::to_owned),
            frames: frames.into_iter().map(str::to_owned).collect(),
            code: about.code.clone(),
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
            found.learn(BinaryId(id), About { build_id: Some(build_id.to_owned()), ..About::default() });
        }
        let binary = |path: &str, build_id: &str, frames: &[&str]| Binary {
            path: path.to_owned(),
            build_id: Some(build_id.to_owned()),
            frames: frames.iter().map(|name| (*name).to_owned()).collect(),
            code: vec![],
        };
        assert_eq!(found.binaries(), [binary("/bin/a", "aa", &["[a+0x10]", "main", "run"]), binary("/bin/b", "bb", &["main", "run"])]);
        assert!(!found.refresh());
        assert_eq!(found.binaries(), []);
        found.add(BinaryId(2), b"/bin/b", &names[1]);
        assert_eq!(found.binaries(), [binary("/bin/b", "bb", &["run"])], "what file it is stays known");
    }
}
