//! Which ranges of an address space carry what: a map of disjoint intervals, in which the later one replaces what it covers. Pure, bounded.

use std::collections::BTreeMap;

/// Disjoint intervals, each with a mark.
#[derive(Clone, Debug)]
pub struct Intervals<M> {
    /// By first address: the address after the last, and the mark.
    pieces: BTreeMap<u64, (u64, M)>,
    most: usize,
    dropped: u64,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval<M> {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// What was put there.
    pub mark: M,
}

impl<M: Clone + PartialEq> Intervals<M> {
    /// None yet, and never more than `most`.
    #[must_use]
    pub fn new(most: usize) -> Intervals<M> {
        Intervals { pieces: BTreeMap::new(), most, dropped: 0 }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Pieces that found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a range out; what it cuts keeps the rest.
    pub fn cut(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // The one that begins before may reach into the range, or beyond it.
        if let Some((_, (last, mark))) = self.pieces.range_mut(..start).next_back()
            && *last > start
        {
            let (old_end, mark) = (std::mem::replace(last, start), mark.clone());
            if old_end > end {
                self.insert(end, old_end, mark);
            }
        }
        let covered: Vec<u64> = self.pieces.range(start..end).map(|(&at, _)| at).collect();
        for at in covered {
            if let Some((last, mark)) = self.pieces.remove(&at)
                && last > end
            {
                self.insert(end, last, mark);
            }
        }
    }

    /// Puts a mark on a range, in the place of what was there. Grows the one before it where that has the same mark.
    pub fn put(&mut self, start: u64, end: u64, mark: M) {
        if start >= end {
            return;
        }
        self.cut(start, end);
        if let Some((_, (last, before))) = self.pieces.range_mut(..start).next_back()
            && *last == start
            && *before == mark
        {
            *last = end;
            return;
        }
        self.insert(start, end, mark);
    }

    /// Moves what is in a range of `length` at `from` to `to`, in the place of what was there.
    pub fn shift(&mut self, from: u64, length: u64, to: u64) {
        let moved: Vec<Interval<M>> = self.over(from, from.saturating_add(length)).collect();
        self.cut(from, from.saturating_add(length));
        self.cut(to, to.saturating_add(length));
        for piece in moved {
            let at = |address: u64| to.saturating_add(address - from);
            self.put(at(piece.start), at(piece.end), piece.mark);
        }
    }

    /// What is in a range, clipped to it, by address.
    pub fn over(&self, start: u64, end: u64) -> impl Iterator<Item = Interval<M>> + '_ {
        let before = self.pieces.range(..start).next_back().filter(|(_, (last, _))| *last > start);
        let within = self.pieces.range(start..end.max(start));
        before.into_iter().filter(move |_| start < end).chain(within).map(move |(&first, (last, mark))| Interval {
            start: first.max(start),
            end: (*last).min(end),
            mark: mark.clone(),
        })
    }

    /// What of a range has no mark, by address.
    #[must_use]
    pub fn gaps(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = start;
        for piece in self.over(start, end) {
            if piece.start > at {
                gaps.push((at, piece.start));
            }
            at = piece.end;
        }
        if at < end {
            gaps.push((at, end));
        }
        gaps
    }

    /// Whether a range has a mark everywhere.
    #[must_use]
    pub fn covers(&self, start: u64, end: u64) -> bool {
        self.gaps(start, end).is_empty()
    }

    /// All marks.
    pub fn marks(&self) -> impl Iterator<Item = &M> {
        self.pieces.values().map(|(_, mark)| mark)
    }

    fn insert(&mut self, start: u64, end: u64, mark: M) {
        if self.pieces.len() >= self.most {
            self.dropped += 1;
            return;
        }
        self.pieces.insert(start, (end, mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::mix64;

    const PAGES: u64 = 64;

    /// A call, in pages.
    #[derive(Clone, Copy, Debug)]
    enum Call {
        Put(u64, u64, u8),
        Cut(u64, u64),
        Shift(u64, u64, u64),
    }

    /// Calls that a seed stands for.
    fn calls(seed: u64) -> impl Iterator<Item = Call> {
        let mut state = seed;
        let mut random = move |below: u64| {
            state = mix64(state, 1);
            (state >> 16) % below
        };
        (0..200).map(move |_| {
            let (start, length) = (random(PAGES), random(PAGES / 2));
            match random(3) {
                0 => Call::Put(start, start + length, random(4) as u8),
                1 => Call::Cut(start, start + length),
                _ => Call::Shift(start, length, random(PAGES)),
            }
        })
    }

    fn make(intervals: &mut Intervals<u8>, call: Call) {
        match call {
            Call::Put(start, end, mark) => intervals.put(start, end, mark),
            Call::Cut(start, end) => intervals.cut(start, end),
            Call::Shift(from, length, to) => intervals.shift(from, length, to),
        }
    }

    /// The same, page by page.
    fn apply(pages: &mut [Option<u8>], call: Call) {
        let range = |start: u64, end: u64| start as usize..end as usize;
        match call {
            Call::Put(start, end, mark) => pages[range(start, end)].fill(Some(mark)),
            Call::Cut(start, end) => pages[range(start, end)].fill(None),
            Call::Shift(from, length, to) => {
                let moved = pages[range(from, from + length)].to_vec();
                pages[range(from, from + length)].fill(None);
                pages[range(to, to + length)].copy_from_slice(&moved);
            }
        }
    }

    #[test]
    fn as_a_plain_model_page_by_page() {
        for seed in 0..500 {
            let mut intervals = Intervals::new(usize::MAX);
            let mut pages = vec![None; 2 * PAGES as usize];
            for call in calls(seed) {
                make(&mut intervals, call);
                apply(&mut pages, call);
                let mark = |page| intervals.over(page, page + 1).next().map(|piece| piece.mark);
                let found: Vec<Option<u8>> = (0..2 * PAGES).map(mark).collect();
                assert_eq!(found, pages, "seed {seed}, after {call:?}");
                let sum: u64 = intervals.over(0, u64::MAX).map(|piece| piece.end - piece.start).sum();
                assert_eq!(sum as usize, pages.iter().flatten().count(), "seed {seed}");
                for (start, end) in [(0, 5), (10, 30), (7, 7)] {
                    let whole = pages[start as usize..end as usize].iter().all(Option::is_some);
                    assert_eq!(intervals.covers(start, end), whole, "seed {seed}, after {call:?}");
                    let missing = pages[start as usize..end as usize].iter().filter(|page| page.is_none()).count();
                    let gaps: u64 = intervals.gaps(start, end).iter().map(|gap| gap.1 - gap.0).sum();
                    assert_eq!(gaps as usize, missing, "seed {seed}, after {call:?}");
                }
            }
        }
    }

    #[test]
    fn never_more_than_allowed() {
        for seed in 0..200 {
            let mut intervals = Intervals::new(3);
            for call in calls(seed) {
                make(&mut intervals, call);
                assert!(intervals.len() <= 3, "seed {seed}");
                let pieces: Vec<_> = intervals.over(0, u64::MAX).collect();
                assert!(pieces.windows(2).all(|pair| pair[0].end <= pair[1].start), "seed {seed}");
            }
            assert!(intervals.dropped() > 0, "seed {seed}");
        }
    }

    #[test]
    fn the_end_of_the_address_space_is_no_trap() {
        let mut intervals = Intervals::new(10);
        intervals.put(u64::MAX - 10, u64::MAX, 1);
        intervals.shift(u64::MAX - 10, 20, u64::MAX - 5);
        intervals.cut(5, 5);
        intervals.put(9, 3, 2);
        assert!(intervals.over(9, 3).next().is_none() && intervals.len() <= 1);
    }

    #[test]
    fn neighbours_with_one_mark_are_one() {
        let mut intervals = Intervals::new(2);
        for page in 0..100 {
            intervals.put(page, page + 1, 'a');
        }
        assert_eq!((intervals.len(), intervals.dropped()), (1, 0));
        intervals.put(100, 101, 'b');
        intervals.put(200, 201, 'c');
        assert_eq!((intervals.len(), intervals.dropped()), (2, 1));
    }
}
