//! What an error of a table's system call means, and patience where it says that the table is busy.
//!
//! A table's bucket has a lock that programs take too, in any context. Where the kernel fears a deadlock, or has waited too long, it refuses the
//! call: EBUSY before 6.18, EDEADLK and ETIMEDOUT since (kernel/bpf/hashtab.c, kernel/bpf/rqspinlock.c). The kernel half counts the same
//! as [`tracer_common::loss::Loss::TableBusy`].

use aya::maps::MapError;
use std::time::Duration;

/// Pauses between the attempts: a lock is held for microseconds.
const PAUSES: [Duration; 4] = [Duration::from_micros(50), Duration::from_micros(200), Duration::from_millis(1), Duration::from_millis(5)];

/// What a refused call says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no such entry.
    Gone,
    /// There is one already.
    There,
    /// The table has no room for another.
    Full,
    /// Its lock is busy: the same call may succeed in a moment.
    Busy,
    /// This kernel does not have the call for this type of table.
    Unknown,
    /// Anything else, which no patience will mend.
    Fatal,
}

/// ENOTSUPP (include/linux/errno.h), which is not meant for user space but reaches it here, before 5.14.
const ENOTSUPP: i32 = 524;

impl Refusal {
    pub(super) fn of(error: &MapError) -> Refusal {
        let code = match error {
            MapError::KeyNotFound | MapError::ElementNotFound => return Refusal::Gone,
            MapError::SyscallError(error) => error.io_error.raw_os_error(),
            MapError::IoError(error) => error.raw_os_error(),
            _ => None,
        };
        code.map_or(Refusal::Fatal, Refusal::of_code)
    }

    fn of_code(code: i32) -> Refusal {
        match code {
            libc::ENOENT => Refusal::Gone,
            libc::EEXIST => Refusal::There,
            libc::E2BIG => Refusal::Full,
            libc::EBUSY | libc::EDEADLK | libc::ETIMEDOUT => Refusal::Busy,
            ENOTSUPP | libc::EOPNOTSUPP => Refusal::Unknown,
            _ => Refusal::Fatal,
        }
    }
}

/// Makes a call until the table is not busy, a few times; then the error stands.
pub(super) fn patiently<T>(attempt: impl FnMut() -> Result<T, MapError>) -> Result<T, MapError> {
    patiently_with(attempt, std::thread::sleep)
}

fn patiently_with<T>(mut attempt: impl FnMut() -> Result<T, MapError>, mut pause: impl FnMut(Duration)) -> Result<T, MapError> {
    for length in PAUSES {
        match attempt() {
            Err(error) if Refusal::of(&error) == Refusal::Busy => pause(length),
            outcome => return outcome,
        }
    }
    attempt()
}

/// Removes entries; those that are gone already are passed over. Returns how many stayed because the table was busy all the while.
pub(super) fn remove_all<K>(keys: &[K], mut remove: impl FnMut(&K) -> Result<(), MapError>) -> Result<u64, MapError> {
    let mut busy = 0;
    for key in keys {
        if let Err(error) = patiently(|| remove(key)) {
            match Refusal::of(&error) {
                Refusal::Gone => {}
                Refusal::Busy => busy += 1,
                _ => return Err(error),
            }
        }
    }
    Ok(busy)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io;

    pub(crate) fn refused(code: i32) -> MapError {
        MapError::IoError(io::Error::from_raw_os_error(code))
    }

    #[test]
    fn only_what_passes_is_busy() {
        for code in [libc::EBUSY, libc::EDEADLK, libc::ETIMEDOUT] {
            assert_eq!(Refusal::of(&refused(code)), Refusal::Busy, "{code}");
        }
        assert_eq!(Refusal::of(&refused(libc::E2BIG)), Refusal::Full);
        assert_eq!(Refusal::of(&refused(libc::EEXIST)), Refusal::There);
        assert_eq!(Refusal::of(&refused(524)), Refusal::Unknown);
        for error in [refused(libc::ENOENT), MapError::KeyNotFound, MapError::ElementNotFound] {
            assert_eq!(Refusal::of(&error), Refusal::Gone);
        }
        for error in [refused(libc::EPERM), refused(libc::ENOMEM), refused(libc::EFAULT), MapError::ProgramNotLoaded] {
            assert_eq!(Refusal::of(&error), Refusal::Fatal);
        }
    }

    #[test]
    fn removal_passes_over_what_is_gone_counts_what_is_busy_and_ends_at_anything_else() {
        let answer = |code: &i32| if *code == 0 { Ok(()) } else { Err(refused(*code)) };
        assert_eq!(remove_all(&[0, libc::ENOENT, libc::EBUSY, 0, libc::EBUSY], answer).unwrap(), 2);
        let mut asked = Vec::new();
        let outcome = remove_all(&[libc::ENOENT, libc::EPERM, 0], |code| {
            asked.push(*code);
            answer(code)
        });
        assert_eq!((Refusal::of(&outcome.unwrap_err()), asked), (Refusal::Fatal, vec![libc::ENOENT, libc::EPERM]));
    }

    #[test]
    fn a_busy_table_is_asked_again_and_others_are_not() {
        let ask = |answers: &[Result<u32, i32>]| {
            let (mut asked, mut pauses) = (0, Vec::new());
            let attempt = || {
                asked += 1;
                answers[(asked - 1).min(answers.len() - 1)].map_err(refused)
            };
            let outcome = patiently_with(attempt, |pause| pauses.push(pause));
            (outcome.map_err(|error| Refusal::of(&error)), asked, pauses.len())
        };
        assert_eq!(ask(&[Ok(7)]), (Ok(7), 1, 0));
        assert_eq!(ask(&[Err(libc::EBUSY), Err(libc::ETIMEDOUT), Ok(7)]), (Ok(7), 3, 2));
        assert_eq!(ask(&[Err(libc::EPERM), Ok(7)]), (Err(Refusal::Fatal), 1, 0));
        // It ends, and says why.
        assert_eq!(ask(&[Err(libc::EDEADLK)]), (Err(Refusal::Busy), PAUSES.len() + 1, PAUSES.len()));
    }
}
