//! The file beside an eBPF object that says what it was made from, with what, and what is in it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{object::ProgramFacts, toolchain::Versions};
use crate::inputs;

/// Manifest of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Hash of the sources, see [`inputs`].
    pub inputs_sha256: String,
    /// Hash of the object itself.
    pub object_sha256: String,
    /// What built it.
    pub toolchain: Versions,
    /// Its programs: a lost or grown program shows in a review.
    pub programs: BTreeMap<String, ProgramFacts>,
    /// Its maps.
    pub maps: Vec<String>,
}

impl Manifest {
    /// Reads the manifest in `folder`.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(inputs::MANIFEST);
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// Writes the manifest and its object to `folder`. The object first: a reader in between sees an old manifest, which does not match.
    pub fn write(&self, folder: &Path, object: &[u8]) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        for (name, bytes) in [(inputs::OBJECT, object), (inputs::MANIFEST, text.as_bytes())] {
            let path = folder.join(name);
            // Unchanged files keep their time, so that cargo does not rebuild what embeds them.
            if fs::read(&path).is_ok_and(|old| old == bytes) {
                continue;
            }
            let temporary = folder.join(format!(".{name}.new"));
            fs::write(&temporary, bytes).with_context(|| temporary.display().to_string())?;
            fs::rename(&temporary, &path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}
