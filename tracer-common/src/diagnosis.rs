//! What the kernel half tells of itself with `-vv`: rare events, as a number and two more. The words are made in the user half, since
//! each text costs a program hundreds of instructions.

use crate::loss::Loss;

/// What happened. The number is the first one of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Diagnosis {
    /// The first loss of a cause on this CPU: cause, bytes.
    FirstLoss = 1,
    /// A table refused an entry, for the first time for that cause on this CPU: cause, error of the kernel.
    RefusedEntry = 2,
    /// A picture was opened: epoch that it shows, epoch that begins.
    PictureOpened = 3,
    /// A picture was closed: its epoch, pictures still open.
    PictureClosed = 4,
}

impl Diagnosis {
    /// The event with that number.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Diagnosis> {
        match number {
            1 => Some(Diagnosis::FirstLoss),
            2 => Some(Diagnosis::RefusedEntry),
            3 => Some(Diagnosis::PictureOpened),
            4 => Some(Diagnosis::PictureClosed),
            _ => None,
        }
    }
}

/// Name of the cause with that number.
#[must_use]
pub fn cause(number: u64) -> Option<&'static str> {
    Loss::ALL.get(usize::try_from(number).ok()?).map(|cause| cause.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_comes_back_from_its_number_and_no_other_number_is_one() {
        let all = [Diagnosis::FirstLoss, Diagnosis::RefusedEntry, Diagnosis::PictureOpened, Diagnosis::PictureClosed];
        for event in all {
            assert_eq!(Diagnosis::from_number(event as u64), Some(event));
        }
        for number in [0, 5, 1 << 32 | 1, u64::MAX] {
            assert_eq!(Diagnosis::from_number(number), None, "{number}");
        }
    }

    #[test]
    fn a_cause_has_the_name_that_it_has_in_outputs_and_an_unknown_one_none() {
        for loss in Loss::ALL {
            assert_eq!(cause(loss as u64), Some(loss.name()));
        }
        for number in [Loss::ALL.len() as u64, 1 << 32, u64::MAX] {
            assert_eq!(cause(number), None, "{number}");
        }
    }
}
