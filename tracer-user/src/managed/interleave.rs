//! Puts an interpreter's frames among those of the machine. Pure.
//!
//! Each call of the evaluation loop runs one or more frames of the interpreter, and its own frame stands for all of them. From 3.11 on CPython
//! runs a function that another calls in the same call of the loop. The frames come in one list, and the outermost of each call is marked.

use std::ops::Range;

/// A frame of the whole stack, by its place in one of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// One of the machine's.
    Native(usize),
    /// One of the interpreter's.
    Managed(usize),
}

/// From which end the calls of the loop are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Both lists are whole: the outermost call is the outermost in both. At the inner end one may be ahead of the other, since a call of the
    /// loop has a frame of the machine before it has one of the interpreter.
    Root,
    /// Outer frames are missing in one of them.
    Leaf,
    /// Frames of the machine are missing before that one: those behind it are counted from the root, the others from the leaf.
    Gap(usize),
    /// The same where outer frames are missing in the interpreter's list, too: what is behind it stands for itself.
    GapOfBoth(usize),
}

/// The whole stack, innermost first: `is_loop` says of each frame of the machine whether it is the evaluation loop's, `is_outermost` of each of the
/// interpreter's whether it is the outermost one of its call. Where the loop is met more often than the interpreter has calls, it stands for
/// itself; frames of calls that no frame of the machine stands for are put behind those before them.
#[must_use]
pub fn interleave(is_loop: &[bool], is_outermost: &[bool], from: From) -> Vec<Slot> {
    let calls = calls(is_outermost);
    let loops: Vec<usize> = is_loop.iter().enumerate().filter(|(_, is_loop)| **is_loop).map(|(at, _)| at).collect();
    let inner = match from {
        From::Root => 0,
        From::Leaf => loops.len(),
        From::Gap(gap) | From::GapOfBoth(gap) => loops.iter().filter(|at| **at < gap).count(),
    };
    // From the leaf on, and from the root on, as far as there are calls: one is never counted from both ends.
    let inner = inner.min(calls.len());
    let outer = (loops.len() - inner).min(calls.len() - inner);
    let outer = if matches!(from, From::Leaf | From::GapOfBoth(_)) { 0 } else { outer };
    let mut places: Vec<(usize, &[Range<usize>])> = (0..inner).map(|n| (loops[n], &calls[n..=n])).collect();
    places.extend((0..outer).rev().map(|n| (loops[loops.len() - 1 - n], &calls[calls.len() - 1 - n..calls.len() - n])));
    // Those that are left stand at the gap; without one, beside their neighbours.
    let left = &calls[inner..calls.len() - outer];
    let mut slots = Vec::with_capacity(is_loop.len() + is_outermost.len());
    let put = |slots: &mut Vec<Slot>, calls: &[Range<usize>]| slots.extend(calls.iter().cloned().flatten().map(Slot::Managed));
    let mut next = places.iter().enumerate().peekable();
    for at in 0..is_loop.len() {
        if from == From::Gap(at) || from == From::GapOfBoth(at) {
            put(&mut slots, left);
        }
        match next.next_if(|(_, (place, _))| *place == at) {
            None => slots.push(Slot::Native(at)),
            Some((number, (_, call))) => {
                if from == From::Root && number == 0 {
                    put(&mut slots, left);
                }
                put(&mut slots, call);
                if from == From::Leaf && number + 1 == inner {
                    put(&mut slots, left);
                }
            }
        }
    }
    slots
}

/// The frames of each call, innermost first. The last one's outermost frame may be missing.
fn calls(is_outermost: &[bool]) -> Vec<Range<usize>> {
    let mut begin = 0;
    let by_call = is_outermost.split_inclusive(|is_outermost| *is_outermost);
    by_call
        .map(|call| {
            begin += call.len();
            begin - call.len()..begin
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack in letters, innermost first: `n` is a frame of the machine, `L` the loop's; of the interpreter's `.` is one, `|` an outermost one.
    fn whole(native: &str, managed: &str, from: From) -> String {
        let is_loop: Vec<bool> = native.chars().map(|frame| frame == 'L').collect();
        let is_outermost: Vec<bool> = managed.chars().map(|frame| frame == '|').collect();
        let name = |slot| match slot {
            Slot::Native(at) => native.chars().nth(at).unwrap(),
            Slot::Managed(at) => char::from(b'a' + at as u8),
        };
        interleave(&is_loop, &is_outermost, from).into_iter().map(name).collect()
    }

    #[test]
    fn each_call_of_the_loop_gives_its_place_to_its_frames() {
        for from in [From::Root, From::Leaf] {
            assert_eq!(whole("nnLnnLn", "..|.|", from), "nnabcnnden");
            assert_eq!(whole("Ln", "|", from), "an");
            assert_eq!(whole("nn", "", from), "nn");
        }
    }

    #[test]
    fn a_loop_that_has_begun_no_frame_yet_stands_for_itself() {
        assert_eq!(whole("nLnLn", ".|", From::Root), "nLnabn");
        assert_eq!(whole("nLnLn", ".|", From::Leaf), "nabnLn");
        assert_eq!(whole("nLn", "", From::Root), "nLn");
    }

    #[test]
    fn calls_that_no_loop_is_seen_of_stand_beside_others() {
        assert_eq!(whole("nLn", "||.|", From::Root), "nabcdn", "inner ones");
        assert_eq!(whole("nLn", "||.|", From::Leaf), "nabcdn", "outer ones");
        assert_eq!(whole("nLnLn", "|||", From::Root), "nabncn");
        assert_eq!(whole("nLnLn", "|||", From::Leaf), "nanbcn");
        assert_eq!(whole("nnn", "|", From::Root), "nnn", "whose loop is nowhere has no place");
    }

    #[test]
    fn around_a_gap_each_side_is_counted_from_its_end() {
        // The mark of what is left out is a frame of the machine, too.
        assert_eq!(whole("nLnL*nLnL", "|||||||", From::Gap(5)), "nanb*cdenfng");
        assert_eq!(whole("nLnL*nLnL", "||||", From::Gap(5)), "nanb*ncnd");
        assert_eq!(whole("nLnL*nLnL", "|", From::Gap(5)), "nanL*nLnL");
        assert_eq!(whole("nn*nL", "|||", From::Gap(3)), "nn*abnc");
        assert_eq!(whole("nLnL*nLnL", "|||||", From::GapOfBoth(5)), "nanb*cdenLnL");
    }

    #[test]
    fn the_last_call_may_lack_its_outermost_frame() {
        assert_eq!(whole("nLnLn", "|..", From::Leaf), "nanbcn");
    }
}
