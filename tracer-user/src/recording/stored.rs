//! Snapshots in files: what tests of the analysis run on, taken on real kernels. One magic word, one length, one payload as in a recording.

use super::payload;
use crate::snapshot::Snapshot;
use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

/// The first bytes of such a file.
const MAGIC: [u8; 8] = *b"mtsnap\0\x01";
/// Largest file that is read.
const MOST_BYTES: u64 = 64 << 20;

/// Writes a snapshot.
///
/// # Errors
/// The system's; also when the snapshot is larger than any reader takes.
pub fn write(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let packed = payload::pack(snapshot, "the snapshot").map_err(|problem| io::Error::other(problem.to_string()))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(packed.plain.to_le_bytes());
    bytes.extend(packed.bytes);
    fs::write(path, bytes)
}

/// Reads a snapshot.
///
/// # Errors
/// The system's; also for a file that is no snapshot, or one of another version.
pub fn read(path: &Path) -> io::Result<Snapshot> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    let rest = bytes.strip_prefix(&MAGIC).ok_or_else(|| wrong("not a snapshot of this version"))?;
    let (length, stored) = rest.split_first_chunk::<4>().ok_or_else(|| wrong("cut"))?;
    let plain = payload::decompress(stored, u32::from_le_bytes(*length)).map_err(|error| wrong(&error))?;
    let items = payload::count_items(&plain).map_err(|error| wrong(&error))?;
    if items > payload::MAX_ITEMS {
        return Err(wrong("more values than a snapshot has"));
    }
    payload::decode(&plain, "the snapshot").map_err(|error| wrong(&error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.mtsnap");
        let mut snapshot = Snapshot::default();
        snapshot.host.kernel = "6.18".into();
        snapshot.names.frames = vec!["main".into()];
        snapshot.names.threads.insert((1, 2), "worker".into());
        write(&path, &snapshot).unwrap();
        let read_back = read(&path).unwrap();
        assert_eq!((&read_back.host, &read_back.names), (&snapshot.host, &snapshot.names));
        let whole = fs::read(&path).unwrap();
        for length in [0, 7, 11, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{length} bytes");
        }
    }
}
