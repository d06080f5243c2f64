//! All entries of a hash table in a few system calls: the loader's crate reads them one by one, two calls an entry, which is too slow for
//! tables that are read every second.

use super::{
    busy::Refusal,
    calls::{self, Step},
};
use aya::{Pod, maps::MapError};
use std::{io, os::fd::BorrowedFd, time::Duration};

/// Bytes of keys and values that the first call has room for. One call gives whole hash buckets, so more is made where one does not fit.
const ROOM: usize = 1 << 18;
/// More do not stand in one bucket of any table here.
const MOST_ENTRIES: usize = 1 << 20;
/// How often a busy bucket is looked at, with a pause between two looks.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_micros(500);

/// Shows `look` each entry; the number of buckets that stayed busy, whose entries are left out. The map's keys and values must be of these
/// types' sizes.
pub(super) fn read<K: Pod, V: Pod>(map: BorrowedFd<'_>, mut look: impl FnMut(&K, &V)) -> io::Result<u64> {
    let room = ROOM / (size_of::<K>() + size_of::<V>()).max(1);
    let (mut keys, mut values) = (Vec::<K>::new(), Vec::<V>::new());
    walk(
        room,
        |from, room| {
            let step = calls::lookup_batch(map, from, room, &mut keys, &mut values)?;
            keys.iter().zip(&values).for_each(|(key, value)| look(key, value));
            Ok(step)
        },
        std::thread::sleep,
    )
}

/// Goes from bucket to bucket with `step`, which takes in what it finds.
fn walk(mut room: usize, mut step: impl FnMut(Option<u32>, usize) -> io::Result<Step>, mut pause: impl FnMut(Duration)) -> io::Result<u64> {
    let (mut from, mut busy, mut passed_over) = (None, 0, 0);
    loop {
        let Step { next, error } = step(from, room)?;
        let Some(error) = error else {
            (from, busy) = (Some(next), 0);
            continue;
        };
        match error.raw_os_error() {
            // The end of the table.
            Some(libc::ENOENT) => return Ok(passed_over),
            Some(libc::ENOSPC) if room < MOST_ENTRIES => room *= 2,
            Some(libc::EINTR) => {}
            _ => {
                let error = MapError::IoError(error);
                if Refusal::of(&error) != Refusal::Busy {
                    let MapError::IoError(error) = error else { return Err(io::Error::from_raw_os_error(libc::EIO)) };
                    return Err(error);
                }
                // What was read before the busy bucket is taken in; it goes on with that one.
                busy = if from == Some(next) { busy + 1 } else { 1 };
                from = Some(next);
                if busy < LOOKS {
                    pause(PAUSE);
                } else {
                    passed_over += 1;
                    (from, busy) = (Some(next.wrapping_add(1)), 0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of one entry a bucket, as the kernel reads it, in which some buckets are busy for so many looks.
    fn read_of(buckets: u32, mut busy: Vec<(u32, u32)>, last: i32) -> (io::Result<u64>, Vec<u32>, usize) {
        let (mut seen, mut pauses) = (Vec::new(), 0);
        let step = |from: Option<u32>, _: usize| {
            for bucket in from.unwrap_or(0)..buckets {
                if let Some((_, looks)) = busy.iter_mut().find(|(of, looks)| *of == bucket && *looks > 0) {
                    *looks -= 1;
                    return Ok(Step { next: bucket, error: Some(io::Error::from_raw_os_error(libc::ETIMEDOUT)) });
                }
                seen.push(bucket);
            }
            Ok(Step { next: buckets, error: Some(io::Error::from_raw_os_error(last)) })
        };
        let outcome = walk(1, step, |_| pauses += 1);
        (outcome, seen, pauses)
    }

    #[test]
    fn a_bucket_that_is_busy_for_a_moment_is_read_later_and_nothing_twice() {
        let (outcome, seen, pauses) = read_of(6, vec![(0, 1), (3, 2)], libc::ENOENT);
        assert_eq!((outcome.unwrap(), seen, pauses), (0, vec![0, 1, 2, 3, 4, 5], 3));
    }

    #[test]
    fn a_bucket_that_stays_busy_is_passed_over_and_counted_and_the_others_are_read() {
        let (outcome, seen, _) = read_of(6, vec![(2, u32::MAX), (5, u32::MAX)], libc::ENOENT);
        assert_eq!((outcome.unwrap(), seen), (2, vec![0, 1, 3, 4]));
    }

    #[test]
    fn other_errors_end_the_reading() {
        let (outcome, seen, pauses) = read_of(2, Vec::new(), libc::EPERM);
        assert_eq!((outcome.unwrap_err().raw_os_error(), seen, pauses), (Some(libc::EPERM), vec![0, 1], 0));
    }

    #[test]
    fn a_bucket_for_which_there_is_no_room_is_asked_for_with_more() {
        let mut asked = Vec::new();
        let step = |from: Option<u32>, room: usize| {
            asked.push((from, room));
            let code = if room < 8 { libc::ENOSPC } else { libc::ENOENT };
            Ok(Step { next: 0, error: Some(io::Error::from_raw_os_error(code)) })
        };
        assert_eq!(walk(2, step, |_| {}).unwrap(), 0);
        assert_eq!(asked, [(None, 2), (None, 4), (None, 8)]);
    }
}
