//! Stacks as user space keeps them: a record of the kernel's table has room for the longest, and most are an eighth of that.

use tracer_common::{
    stack::{GAP, INNERMOST, INNERMOST_BESIDE, LEFT_OUT, MANAGED_CUT, MANAGED_SHIFT, MAX_FRAMES, OLDEST_SHIFT, StackRecord, StackStatus},
    unwind::End,
};

/// A stack that was walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// How the walk ended.
    pub status: Walked,
    /// Frames as recorded (see [`tracer_common::stack`]), innermost first; behind those of the machine those of an interpreter, alike.
    pub frames: Box<[u64]>,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// In order, by frame pointers: names tell whether the last frame is a root.
    Ended,
    /// After as many frames as are recorded.
    TooDeep,
    /// There is no such stack.
    None,
    /// At a frame that nothing called.
    Root,
    /// The innermost frame's caller was guessed.
    Guessed,
    /// Before a root, and why.
    Cut(End),
}

impl Walked {
    /// By the number of a [`StackStatus`]. A number that stands for none is that of a walk which says nothing.
    #[must_use]
    pub fn of(number: u32) -> Walked {
        let known = |status: StackStatus| number == status as u32;
        match number.checked_sub(StackStatus::CUT) {
            Some(end) => End::ALL.get(end as usize).map_or(Walked::Ended, |end| Walked::Cut(*end)),
            None if known(StackStatus::TooDeep) => Walked::TooDeep,
            None if known(StackStatus::None) => Walked::None,
            None if known(StackStatus::Root) => Walked::Root,
            None if known(StackStatus::Guessed) => Walked::Guessed,
            None => Walked::Ended,
        }
    }
}

impl From<&StackRecord> for Stack {
    fn from(record: &StackRecord) -> Stack {
        let length = (record.length as usize).min(MAX_FRAMES);
        let managed = ((record.status >> MANAGED_SHIFT) as usize).min(MAX_FRAMES - length);
        let native = &record.frames[..length];
        let native = match native.split_at_checked(INNERMOST_BESIDE) {
            Some((inner, outer)) if record.status & GAP != 0 => [inner, &[LEFT_OUT], outer].concat().into(),
            _ => in_order(native, (record.status >> OLDEST_SHIFT & PLACE_BITS) as usize),
        };
        let left_out: &[u64] = if record.status & MANAGED_CUT != 0 { &[LEFT_OUT] } else { &[] };
        let frames = [&*native, &record.frames[length..length + managed], left_out].concat().into();
        Stack { status: Walked::of(record.status & ((1 << OLDEST_SHIFT) - 1)), frames }
    }
}

/// What of a status is the place of the oldest frame in the ring.
const PLACE_BITS: u32 = 63;

/// The frames with the outermost ones, which may stand in a ring, in order, and a mark before them. `oldest` is one more than the place of the first
/// of them in the ring; 0: nothing was left out.
fn in_order(frames: &[u64], oldest: usize) -> Box<[u64]> {
    match oldest.checked_sub(1).and_then(|oldest| Some((frames.get(..INNERMOST)?, frames.get(INNERMOST..)?, oldest))) {
        Some((inner, outer, oldest)) if oldest < outer.len() => {
            let (last, first) = outer.split_at(oldest);
            [inner, &[LEFT_OUT], first, last].concat().into()
        }
        _ => frames.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_walk_has_its_number() {
        for (number, end) in End::ALL.into_iter().enumerate() {
            assert_eq!(end as usize, number);
            assert_eq!(Walked::of(StackStatus::CUT | end as u32), Walked::Cut(end));
        }
        let known = [StackStatus::Ended, StackStatus::TooDeep, StackStatus::None, StackStatus::Root, StackStatus::Guessed];
        let walked = [Walked::Ended, Walked::TooDeep, Walked::None, Walked::Root, Walked::Guessed];
        assert_eq!(known.map(|status| Walked::of(status as u32)), walked);
        assert_eq!([5, 0x7f, 0x80 + 13, u32::MAX].map(Walked::of), [Walked::Ended; 4]);
    }

    #[test]
    fn the_outermost_frames_of_a_deep_stack_come_in_order_behind_a_mark() {
        let frames: Vec<u64> = (1..=127).collect();
        assert_eq!(*in_order(&frames, 0), frames);
        let marked = |outer: &[u64]| [&frames[..96], &[LEFT_OUT], outer].concat();
        assert_eq!(*in_order(&frames, 1), marked(&frames[96..]));
        assert_eq!(*in_order(&frames, 31), marked(&[&[127], &frames[96..126]].concat()));
        assert_eq!(*in_order(&frames, 32), frames, "no such place");
        assert_eq!(*in_order(&frames[..50], 3), frames[..50]);
        let record = StackRecord { check: 1, length: 127, status: StackStatus::Root as u32 | 2 << OLDEST_SHIFT, frames: [9; MAX_FRAMES] };
        assert_eq!((Stack::from(&record).status, Stack::from(&record).frames.len()), (Walked::Root, 128));
    }

    #[test]
    fn frames_in_use_are_kept() {
        let mut record = StackRecord { check: 1, length: 2, status: StackStatus::TooDeep as u32, frames: [0; MAX_FRAMES] };
        record.frames[..3].copy_from_slice(&[7, 8, 9]);
        assert_eq!(Stack::from(&record), Stack { status: Walked::TooDeep, frames: [7, 8].into() });
        record.length = u32::MAX;
        assert_eq!(Stack::from(&record).frames.len(), MAX_FRAMES);
    }

    #[test]
    fn managed_frames_stand_behind_those_of_the_machine() {
        let mut record =
            StackRecord { check: 1, length: 2, status: StackStatus::Root as u32 | 3 << MANAGED_SHIFT, frames: [0; MAX_FRAMES] };
        record.frames[..6].copy_from_slice(&[7, 8, 1 << 62, 2 << 62 >> 1 | 5, 1 << 62 | 9, 77]);
        assert_eq!(Stack::from(&record), Stack { status: Walked::Root, frames: record.frames[..5].into() });
        record.status |= MANAGED_CUT;
        assert_eq!(Stack::from(&record).frames.last(), Some(&LEFT_OUT));
        record.status = u32::MAX;
        assert_eq!(Stack::from(&record).frames.len(), MAX_FRAMES + 1, "whatever it says");
        let frames: [u64; MAX_FRAMES] = std::array::from_fn(|at| at as u64 + 1);
        record = StackRecord { check: 1, length: 72, status: StackStatus::Root as u32 | GAP | 56 << MANAGED_SHIFT, frames };
        assert_eq!(*Stack::from(&record).frames, *[&frames[..48], &[LEFT_OUT], &frames[48..]].concat());
    }
}
