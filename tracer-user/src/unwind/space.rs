//! Room in the tables: blocks of rows in chunks, and entries of the directory. Pure.

use tracer_common::unwind::CHUNK_ROWS;

/// Rows of a block. What a file does not fill of its last one stays empty.
pub const BLOCK_ROWS: usize = 1024;
/// Blocks of a chunk.
const CHUNK_BLOCKS: usize = CHUNK_ROWS / BLOCK_ROWS;

/// Blocks side by side in one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The chunk.
    pub chunk: u32,
    /// Its first block.
    pub block: u8,
    /// How many.
    pub blocks: u8,
}

impl Extent {
    /// The first row in the chunk.
    #[must_use]
    pub fn first_row(self) -> usize {
        usize::from(self.block) * BLOCK_ROWS
    }

    /// Rows that it has room for.
    #[must_use]
    pub fn rows(self) -> usize {
        usize::from(self.blocks) * BLOCK_ROWS
    }

    fn mask(self) -> u16 {
        (((1_u32 << self.blocks) - 1) << self.block) as u16
    }
}

/// Blocks that are free.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// A bit for each block of a chunk that is in use.
    used: Vec<u16>,
    count: usize,
}

impl Blocks {
    /// So many chunks, all free.
    #[must_use]
    pub fn new(chunks: usize) -> Blocks {
        Blocks { used: vec![0; chunks], count: 0 }
    }

    /// Rows that there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.used.len() * CHUNK_ROWS
    }

    /// Rows in use, as blocks.
    #[must_use]
    pub fn used_rows(&self) -> usize {
        self.count * BLOCK_ROWS
    }

    /// Blocks for `rows` rows side by side, as far as one chunk has them: fewer than asked for, but never fewer than for `least` rows.
    /// `None` if there is no such place.
    pub fn take(&mut self, rows: usize, least: usize) -> Option<Extent> {
        let wanted = rows.div_ceil(BLOCK_ROWS).clamp(1, CHUNK_BLOCKS);
        let least = least.div_ceil(BLOCK_ROWS).clamp(1, CHUNK_BLOCKS);
        (least..=wanted).rev().find_map(|blocks| {
            let extent = self.find(blocks)?;
            self.used[extent.chunk as usize] |= extent.mask();
            self.count += blocks;
            Some(extent)
        })
    }

    /// The place that leaves the least beside it.
    fn find(&self, blocks: usize) -> Option<Extent> {
        let fits = |(chunk, used): (usize, &u16)| {
            (0..=CHUNK_BLOCKS - blocks)
                .map(move |block| Extent { chunk: chunk as u32, block: block as u8, blocks: blocks as u8 })
                .find(|extent| used & extent.mask() == 0)
                .map(|extent| (CHUNK_BLOCKS as u32 - used.count_ones(), extent))
        };
        self.used.iter().enumerate().filter_map(fits).min_by_key(|(free, _)| *free).map(|(_, extent)| extent)
    }

    /// Gives blocks back.
    pub fn give(&mut self, extent: Extent) {
        self.used[extent.chunk as usize] &= !extent.mask();
        self.count -= usize::from(extent.blocks);
    }
}

/// Entries of the directory that are free: where and how many, by place.
#[derive(Clone, Debug)]
pub struct Entries {
    free: Vec<(usize, usize)>,
}

impl Entries {
    /// So many, all free.
    #[must_use]
    pub fn new(count: usize) -> Entries {
        Entries { free: if count == 0 { Vec::new() } else { vec![(0, count)] } }
    }

    /// The first of `count` entries side by side.
    pub fn take(&mut self, count: usize) -> Option<usize> {
        let at = self.free.iter().position(|(_, room)| *room >= count)?;
        let (first, room) = self.free[at];
        if room == count {
            self.free.remove(at);
        } else {
            self.free[at] = (first + count, room - count);
        }
        Some(first)
    }

    /// Gives entries back.
    pub fn give(&mut self, first: usize, count: usize) {
        if count == 0 {
            return;
        }
        let at = self.free.partition_point(|(other, _)| *other < first);
        self.free.insert(at, (first, count));
        if at + 1 < self.free.len() && first + count == self.free[at + 1].0 {
            self.free[at].1 += self.free.remove(at + 1).1;
        }
        if at > 0 && self.free[at - 1].0 + self.free[at - 1].1 == first {
            self.free[at - 1].1 += self.free.remove(at).1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_side_by_side_in_one_chunk_and_never_twice() {
        let mut blocks = Blocks::new(2);
        let first = blocks.take(BLOCK_ROWS * 3, 1).unwrap();
        assert_eq!(first, Extent { chunk: 0, block: 0, blocks: 3 });
        assert_eq!(blocks.take(1, 1).unwrap(), Extent { chunk: 0, block: 3, blocks: 1 });
        // A whole chunk is asked for: the other one.
        assert_eq!(blocks.take(CHUNK_ROWS, 1).unwrap(), Extent { chunk: 1, block: 0, blocks: 16 });
        // What is left is less than asked for.
        assert_eq!(blocks.take(CHUNK_ROWS, BLOCK_ROWS).unwrap(), Extent { chunk: 0, block: 4, blocks: 12 });
        assert_eq!(blocks.take(1, 1), None);
        blocks.give(first);
        assert_eq!(blocks.take(CHUNK_ROWS, 4 * BLOCK_ROWS), None, "less than the least");
        assert_eq!(blocks.take(2 * BLOCK_ROWS, 1).unwrap(), Extent { chunk: 0, block: 0, blocks: 2 });
        assert_eq!(blocks.used_rows(), 31 * BLOCK_ROWS);
    }

    #[test]
    fn a_small_file_goes_where_little_is_free() {
        let mut blocks = Blocks::new(3);
        blocks.take(CHUNK_ROWS - BLOCK_ROWS, 1).unwrap();
        assert_eq!(blocks.take(1, 1).unwrap(), Extent { chunk: 0, block: 15, blocks: 1 });
    }

    #[test]
    fn entries_come_back_and_join() {
        let mut entries = Entries::new(100);
        let taken: Vec<usize> = [30, 30, 40].map(|count| entries.take(count).unwrap()).to_vec();
        assert_eq!((taken, entries.take(1)), (vec![0, 30, 60], None));
        entries.give(0, 30);
        entries.give(60, 40);
        assert_eq!(entries.take(41), None);
        entries.give(30, 30);
        assert_eq!(entries.free, [(0, 100)]);
        assert_eq!(entries.take(100), Some(0));
        assert_eq!(Entries::new(0).take(1), None);
    }

    /// A model: which of all blocks and entries are in use.
    #[test]
    fn any_order_of_taking_and_giving_keeps_both_apart() {
        let mut seed = 5_u64;
        let mut random = |below: usize| {
            seed = tracer_common::mix64(seed, 3);
            (seed % below as u64) as usize
        };
        let (mut blocks, mut entries) = (Blocks::new(4), Entries::new(64));
        let (mut extents, mut runs): (Vec<Extent>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
        for _ in 0..4000 {
            if random(2) == 0 {
                extents.extend(blocks.take(random(CHUNK_ROWS) + 1, 1));
                let count = random(20) + 1;
                runs.extend(entries.take(count).map(|first| (first, count)));
            } else if !extents.is_empty() && !runs.is_empty() {
                blocks.give(extents.swap_remove(random(extents.len())));
                let (first, count) = runs.swap_remove(random(runs.len()));
                entries.give(first, count);
            }
            let mut used = [0_u16; 4];
            for extent in &extents {
                assert_eq!(used[extent.chunk as usize] & extent.mask(), 0);
                used[extent.chunk as usize] |= extent.mask();
            }
            assert_eq!(blocks.used, used);
            let mut taken = [false; 64];
            for (first, count) in &runs {
                for entry in &mut taken[*first..first + count] {
                    assert!(!*entry);
                    *entry = true;
                }
            }
            let free: usize = entries.free.iter().map(|(_, count)| count).sum();
            assert_eq!(free, taken.iter().filter(|taken| !**taken).count());
        }
    }
}
