//! A file that grows while a recording runs, piece by piece.
//!
//! It takes its name when its beginning is whole, so what had the name before is replaced, never overwritten in the hands of its reader. It
//! never keeps half a piece: what a full disk cuts is cut off.

use super::write::{Access, directory_of, temporary_in};
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// An open file that only grows.
#[derive(Debug)]
pub struct AppendFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole pieces.
    length: u64,
    /// A failed write could not be undone.
    broken: bool,
}

/// Why a piece is not in the file.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The system refused; the file is as before.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An earlier write failed and could not be undone, so that nothing may follow.
    #[error("an earlier write failed and left half a piece at its end")]
    Broken,
}

impl AppendFile {
    /// Begins the file under its final name.
    ///
    /// # Errors
    /// When the directory does not take the file.
    pub fn create(path: &Path, access: Access, beginning: &[u8]) -> io::Result<AppendFile> {
        let mut temporary = temporary_in(directory_of(path), access)?;
        temporary.write_all(beginning)?;
        let file = temporary.persist(path).map_err(|error| error.error)?;
        Ok(AppendFile { path: path.to_owned(), file, length: beginning.len() as u64, broken: false })
    }

    /// Appends one piece whole, or leaves the file as it was.
    ///
    /// # Errors
    /// When the disk is full. A later call may succeed.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), AppendError> {
        if self.broken {
            return Err(AppendError::Broken);
        }
        if let Err(error) = self.file.write_all(piece) {
            let restored = self.file.set_len(self.length).and_then(|()| self.file.seek(io::SeekFrom::Start(self.length)));
            self.broken = restored.is_err();
            return Err(error.into());
        }
        self.length += piece.len() as u64;
        Ok(())
    }

    /// Waits until all of it is on the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }
}
