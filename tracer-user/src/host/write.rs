//! Files that memtrail makes: who may read them, and the one way in which they appear, whole or not at all.
//!
//! The bytes go to a temporary file in the same directory, which replaces the target when they are on the disk. A symbolic link at the
//! target is replaced, not followed. What had the name before is gone with its mode: the new file has the mode that its [`Access`] says.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr;

/// Mode of files that only the user who traced may read: they hold what processes of other users do.
const OWNER_ONLY: u32 = 0o600;
/// Mode of other files, before the umask.
const EVERYBODY: u32 = 0o666;

/// The permission bits of a file, as a user gives them: reading and writing only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mode(u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        let bits = Some(text).filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
        match bits.and_then(|text| u32::from_str_radix(text, 8).ok()) {
            Some(bits) if bits & !EVERYBODY == 0 && bits & OWNER_ONLY == OWNER_ONLY => Ok(Mode(bits)),
            _ => Err(format!("{text:?} is not a mode for these files: write it as chmod does, between 0600 and 0666, such as 0640")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04o}", self.0)
    }
}

/// Who may read and write a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Its owner alone.
    Owner,
    /// Whom the umask lets: the mode is 0666 without the bits of the umask.
    Umask,
    /// Whom this mode names, whatever the umask.
    Given(Mode),
}

impl Access {
    /// The mode that a user gave, else what fits the content: private or not.
    #[must_use]
    pub fn of(given: Option<Mode>, is_private: bool) -> Access {
        match given {
            Some(mode) => Access::Given(mode),
            None if is_private => Access::Owner,
            None => Access::Umask,
        }
    }

    /// The mode to create with. The kernel takes the bits of the umask away.
    fn when_created(self) -> u32 {
        match self {
            Access::Umask => EVERYBODY,
            // Never wider than asked for, not even for a moment.
            Access::Owner | Access::Given(_) => OWNER_ONLY,
        }
    }

    /// Gives an open file the mode that creating it cannot give.
    fn apply(self, file: &File) -> io::Result<()> {
        match self {
            Access::Given(Mode(bits)) => file.set_permissions(Permissions::from_mode(bits)),
            Access::Owner | Access::Umask => Ok(()),
        }
    }
}

/// Makes a directory, with those above it, for its owner alone: what is put there tells what every user of the host runs. One that is there stays as
/// it is.
///
/// # Errors
/// When it cannot be made.
pub fn make_private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The directory that holds a file: `.` for a bare name.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the file appear at once with all its bytes, or not at all.
///
/// # Errors
/// When `fill` fails, or the system refuses.
pub fn write_whole(path: &Path, access: Access, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_in(directory_of(path), access)?;
    let mut writer = BufWriter::with_capacity(1 << 16, temporary.as_file());
    fill(&mut writer)?;
    writer.flush()?;
    drop(writer);
    temporary.as_file().sync_all()?;
    temporary.persist(path).map(drop).map_err(|error| error.error)
}

/// A file without its final name, with its final mode. It vanishes when dropped.
///
/// # Errors
/// When the directory takes no file.
pub fn temporary_in(directory: &Path, access: Access) -> io::Result<tempfile::NamedTempFile> {
    let mode = Permissions::from_mode(access.when_created());
    let temporary = tempfile::Builder::new().prefix(".memtrail-").permissions(mode).tempfile_in(directory)?;
    access.apply(temporary.as_file())?;
    Ok(temporary)
}

/// Opens a file to be written from its beginning in the hands of whoever reads it already: it keeps its inode, a symbolic link is followed,
/// and a device stays one. A regular file that was there with a wider mode gets the narrower one before anything is written.
///
/// # Errors
/// When the system refuses.
pub fn open_in_place(path: &Path, access: Access) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(access.when_created()).open(path)?;
    let found = file.metadata()?;
    if found.is_file() {
        let is_too_wide = access == Access::Owner && found.permissions().mode() & 0o777 & !OWNER_ONLY != 0;
        if is_too_wide {
            file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
        }
        access.apply(&file)?;
        file.set_len(0)?;
    }
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_failed_write_leaves_what_was_there_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.json");
        std::fs::write(&path, "before").unwrap();
        let full = |writer: &mut dyn Write| {
            writer.write_all(&[b'x'; 200_000])?;
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        };
        let error = write_whole(&path, Access::Umask, full).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_mode_is_octal_and_lets_its_owner_read_and_write() {
        assert_eq!("0640".parse::<Mode>().unwrap().to_string(), "0640");
        assert_eq!("600".parse::<Mode>().unwrap().to_string(), "0600");
        for bad in ["", "rw", "0755", "0440", "4600", "+640", "0o640", "648", "99999999999999"] {
            assert!(bad.parse::<Mode>().unwrap_err().contains("0640"), "{bad}");
        }
    }

    #[test]
    fn a_replaced_file_has_the_new_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let given = Access::Given("0646".parse().unwrap());
        for (access, mode) in [(given, 0o646), (Access::Owner, 0o600), (given, 0o646)] {
            write_whole(&path, access, |writer| writer.write_all(b"x")).unwrap();
            assert_eq!(mode_of(&path), mode);
        }
    }

    #[test]
    fn a_file_written_in_place_is_narrowed_before_its_first_byte() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "what was there before").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        drop(open_in_place(&path, Access::Owner).unwrap());
        assert_eq!((mode_of(&path), path.metadata().unwrap().len()), (0o600, 0));
        drop(open_in_place(&path, Access::Given("0640".parse().unwrap())).unwrap());
        assert_eq!(mode_of(&path), 0o640);
        // A device is nobody's to change.
        let before = mode_of(Path::new("/dev/null"));
        drop(open_in_place(Path::new("/dev/null"), Access::Owner).unwrap());
        assert_eq!(mode_of(Path::new("/dev/null")), before);
    }
}
