//! The files whose tables stand in the kernel half's, and which of them makes room for another. Pure but for what it writes to.

use super::rows::Rows;
use super::space::{Blocks, Entries, Extent};
use std::collections::HashMap;
use std::io;
use tracer_common::unwind::{CLOSED, FileKey, FileTable, PAGE_BYTES, PageRows, Rule, WITHOUT};

/// A file that a walk used this long ago makes no room for another, seconds of the kernel half's (2^30 nanoseconds).
const USED_LATELY_S: u32 = 10;

/// What no walk met for this long may be forgotten, alike.
const FORGOTTEN_AFTER_S: u32 = 60;

/// Where tables are written to.
pub trait Target {
    /// Writes rows into a chunk, from that one on.
    fn write_rows(&mut self, chunk: u32, first: usize, rows: &[u32]) -> io::Result<()>;
    /// Writes entries of the directory.
    fn write_pages(&mut self, first: usize, pages: &[PageRows]) -> io::Result<()>;
    /// Writes rules, from that number on.
    fn write_rules(&mut self, first: usize, rules: &[Rule]) -> io::Result<()>;
    /// What stands there of a file.
    fn file(&self, key: &FileKey) -> Option<FileTable>;
    /// Says what is known of a file; whether there was room.
    fn set_file(&mut self, key: &FileKey, table: &FileTable) -> bool;
    /// What stands there of all files.
    fn files(&self) -> Vec<(FileKey, FileTable)>;
    /// Takes a file's entry back.
    fn remove_file(&mut self, key: &FileKey);
    /// Waits until nobody uses what was taken back.
    fn wait_for_readers(&self);
}

/// What became of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It stands there.
    Done,
    /// All of the room is in use by files that were walked through lately.
    Full,
}

/// What a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A walk met the file.
    Met,
    /// None has yet: it takes what is free, and makes room for any other.
    Ahead,
}

/// Where a file's table stands.
#[derive(Clone, Debug)]
struct Placed {
    extents: Vec<Extent>,
    entry: usize,
    pages: usize,
}

/// The tables that stand there.
#[derive(Debug)]
pub struct Store {
    blocks: Blocks,
    entries: Entries,
    rules: HashMap<Rule, u16>,
    most_rules: usize,
    placed: HashMap<FileKey, Placed>,
    /// Rules that found no room: their places are unknown.
    rules_left_out: u64,
    /// Files that made room.
    evicted: u64,
}

impl Store {
    /// An empty one, of so many chunks of rows, entries of the directory and rules.
    #[must_use]
    pub fn new(chunks: usize, pages: usize, rules: usize) -> Store {
        Store {
            blocks: Blocks::new(chunks),
            entries: Entries::new(pages),
            rules: HashMap::new(),
            most_rules: rules.min(usize::from(u16::MAX) + 1),
            placed: HashMap::new(),
            rules_left_out: 0,
            evicted: 0,
        }
    }

    /// Whether a file's table is there.
    #[must_use]
    pub fn has(&self, key: &FileKey) -> bool {
        self.placed.contains_key(key)
    }

    /// Files whose tables are there.
    #[must_use]
    pub fn files(&self) -> usize {
        self.placed.len()
    }

    /// Rows in use, rounded up to blocks.
    #[must_use]
    pub fn used_rows(&self) -> usize {
        self.blocks.used_rows()
    }

    /// Files that made room for others.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Rules that found no room.
    #[must_use]
    pub fn rules_left_out(&self) -> u64 {
        self.rules_left_out
    }

    /// Writes a file's table, for walks to find from now on. `now_s` is the kernel half's time.
    ///
    /// # Errors
    /// The target's; the file has no table then.
    pub fn put(&mut self, target: &mut impl Target, key: &FileKey, file: &Rows, used: Use, now_s: u32) -> io::Result<Put> {
        let (Some(first), Some(last)) = (file.rows.first(), file.rows.last()) else {
            self.without(target, key);
            return Ok(Put::Done);
        };
        if self.has(key) {
            return Ok(Put::Done);
        }
        let first_page = u64::from(first.offset) / PAGE_BYTES;
        let pages = (u64::from(last.offset) / PAGE_BYTES - first_page + 1) as usize;
        // Nothing makes room for what no room is enough for.
        if file.rows.len() + pages > self.blocks.room() {
            return Ok(Put::Full);
        }
        let numbers = self.number(target, &file.rules)?;
        let placed = loop {
            match self.place(target, file, &numbers, pages)? {
                Some(placed) => break placed,
                None if used == Use::Met && self.evict(target, now_s) => {}
                None => return Ok(Put::Full),
            }
        };
        let table = FileTable {
            first_page: first_page as u32,
            pages: pages as u32,
            entry: placed.entry as u32,
            // Who meets a file that was read ahead tells of it: it is not kept open.
            state: if used == Use::Met { 0 } else { CLOSED },
            // At once, also in the second in which the table was made.
            asked_s: 0,
            used_s: if used == Use::Met { now_s } else { 0 },
        };
        if !target.set_file(key, &table) {
            self.give_back(&placed);
            return Ok(Put::Full);
        }
        self.placed.insert(*key, placed);
        Ok(Put::Done)
    }

    /// Notes that a file has nothing that a table can be made of.
    pub fn without(&self, target: &mut impl Target, key: &FileKey) {
        // Where there is no room for that, it is asked for again.
        let _has_room = target.set_file(key, &FileTable { state: WITHOUT, ..FileTable::default() });
    }

    /// Removes what is known of files that no walk met lately, so that the table of files does not fill with those of the past: entries without a
    /// table at once, and tables while more than `most` files are left. Programs that run meet theirs again.
    pub fn forget(&mut self, target: &mut impl Target, most: usize, now_s: u32) {
        let is_old = |at_s: u32| now_s.saturating_sub(at_s) >= FORGOTTEN_AFTER_S;
        let (with, without): (Vec<_>, Vec<_>) = target.files().into_iter().partition(|(_, table)| table.pages > 0);
        let mut left = with.len() + without.len();
        for (key, _) in without.into_iter().filter(|(_, table)| is_old(table.asked_s)) {
            target.remove_file(&key);
            left -= 1;
        }
        let mut old: Vec<_> = with.into_iter().filter(|(_, table)| is_old(table.used_s)).collect();
        old.sort_by_key(|(_, table)| table.used_s);
        for (key, _) in old.into_iter().take(left.saturating_sub(most)) {
            self.take_back(target, &key);
            self.evicted += 1;
        }
    }

    /// The numbers of rules in the table of all. Number 0 says that nothing is known.
    fn number(&mut self, target: &mut impl Target, rules: &[Rule]) -> io::Result<Vec<u16>> {
        let known = self.rules.len();
        let mut added = Vec::new();
        let mut numbers = Vec::with_capacity(rules.len());
        for rule in std::iter::once(&Rule::default()).chain(rules) {
            let next = self.rules.len();
            let number = match self.rules.get(rule) {
                Some(number) => *number,
                None if next >= self.most_rules => {
                    self.rules_left_out += 1;
                    0
                }
                None => {
                    added.push(*rule);
                    self.rules.insert(*rule, next as u16);
                    next as u16
                }
            };
            numbers.push(number);
        }
        if let Err(error) = target.write_rules(known, &added) {
            for rule in &added {
                self.rules.remove(rule);
            }
            return Err(error);
        }
        numbers.remove(0);
        Ok(numbers)
    }

    /// Writes rows and directory; `None` if there is no room.
    fn place(&mut self, target: &mut impl Target, file: &Rows, numbers: &[u16], pages: usize) -> io::Result<Option<Placed>> {
        let Some(entry) = self.entries.take(pages) else { return Ok(None) };
        let mut placed = Placed { extents: Vec::new(), entry, pages };
        let written = self.write(target, file, numbers, &mut placed);
        if !matches!(written, Ok(true)) {
            self.give_back(&placed);
        }
        Ok(written?.then_some(placed))
    }

    /// Writes them where they are going to stand, and notes that. False if there is no room.
    fn write(&mut self, target: &mut impl Target, file: &Rows, numbers: &[u16], placed: &mut Placed) -> io::Result<bool> {
        let mut directory = Vec::with_capacity(placed.pages);
        let mut left = file.rows.len() + placed.pages;
        let (mut rest, mut before) = (&file.rows[..], 0_u16);
        let first_page = u64::from(file.rows[0].offset) / PAGE_BYTES;
        // What stands in the last extent.
        let mut filled: Vec<u32> = Vec::new();
        for page in first_page..first_page + placed.pages as u64 {
            let count = rest.partition_point(|row| u64::from(row.offset) / PAGE_BYTES <= page);
            let (here, after) = rest.split_at(count);
            rest = after;
            // What is in force where the page begins.
            let carried = here.first().is_none_or(|row| u64::from(row.offset) % PAGE_BYTES != 0);
            let rows = here.len() + usize::from(carried);
            if placed.extents.last().is_none_or(|extent| filled.len() + rows > extent.rows()) {
                if let Some(extent) = placed.extents.last() {
                    target.write_rows(extent.chunk, extent.first_row(), &filled)?;
                }
                filled.clear();
                let Some(extent) = self.blocks.take(left, rows) else { return Ok(false) };
                placed.extents.push(extent);
            }
            let Some(extent) = placed.extents.last() else { return Ok(false) };
            directory.push(PageRows { chunk: extent.chunk, first: (extent.first_row() + filled.len()) as u16, count: rows as u16 });
            filled.extend(carried.then_some(u32::from(before) << 16));
            filled.extend(here.iter().map(|row| (u32::from(numbers[usize::from(row.rule)]) << 16) | (row.offset % PAGE_BYTES as u32)));
            before = here.last().map_or(before, |row| numbers[usize::from(row.rule)]);
            left = left.saturating_sub(rows).max(1);
        }
        if let Some(extent) = placed.extents.last() {
            target.write_rows(extent.chunk, extent.first_row(), &filled)?;
        }
        target.write_pages(placed.entry, &directory)?;
        Ok(true)
    }

    fn give_back(&mut self, placed: &Placed) {
        for extent in &placed.extents {
            self.blocks.give(*extent);
        }
        self.entries.give(placed.entry, placed.pages);
    }

    /// Takes back the table that was not used for longest, if that is long enough ago. Whether there was one.
    fn evict(&mut self, target: &mut impl Target, now_s: u32) -> bool {
        let used = |key: &FileKey| target.file(key).map_or(0, |table| table.used_s);
        let oldest = self.placed.keys().map(|key| (used(key), *key)).min_by_key(|(used_s, _)| *used_s);
        let Some((_, key)) = oldest.filter(|(used_s, _)| now_s.saturating_sub(*used_s) >= USED_LATELY_S) else { return false };
        self.take_back(target, &key);
        self.evicted += 1;
        true
    }

    /// Takes a file's table back.
    fn take_back(&mut self, target: &mut impl Target, key: &FileKey) {
        target.remove_file(key);
        target.wait_for_readers();
        if let Some(placed) = self.placed.remove(key) {
            self.give_back(&placed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::rows::Row;
    use tracer_common::unwind::{CHUNK_ROWS, kind, search};

    /// The tables as the kernel half has them.
    struct Memory {
        rows: Vec<u32>,
        pages: Vec<PageRows>,
        rules: Vec<Rule>,
        files: HashMap<FileKey, FileTable>,
        waited: std::cell::Cell<u32>,
        fails: bool,
    }

    impl Memory {
        fn new(chunks: usize, pages: usize, rules: usize) -> Memory {
            Memory {
                rows: vec![u32::MAX; chunks * CHUNK_ROWS],
                pages: vec![PageRows::default(); pages],
                rules: vec![Rule::default(); rules],
                files: HashMap::new(),
                waited: std::cell::Cell::new(0),
                fails: false,
            }
        }

        /// What a walk finds at an offset in a file.
        fn rule(&self, key: &FileKey, offset: u64) -> Option<Rule> {
            let table = self.files.get(key)?;
            let page = (offset / PAGE_BYTES).checked_sub(table.first_page.into()).filter(|page| *page < table.pages.into())?;
            let place = self.pages[table.entry as usize + page as usize];
            let chunk = &self.rows[place.chunk as usize * CHUNK_ROWS..][..CHUNK_ROWS];
            assert!(place.count > 0 && usize::from(place.first) + usize::from(place.count) <= CHUNK_ROWS);
            let row = search::find(|n| chunk[n as usize], place.first.into(), place.count.into(), offset % PAGE_BYTES);
            Some(self.rules[row as usize >> 16])
        }
    }

    impl Target for Memory {
        fn write_rows(&mut self, chunk: u32, first: usize, rows: &[u32]) -> io::Result<()> {
            if self.fails {
                return Err(io::ErrorKind::Other.into());
            }
            self.rows[chunk as usize * CHUNK_ROWS + first..][..rows.len()].copy_from_slice(rows);
            Ok(())
        }
        fn write_pages(&mut self, first: usize, pages: &[PageRows]) -> io::Result<()> {
            self.pages[first..][..pages.len()].copy_from_slice(pages);
            Ok(())
        }
        fn write_rules(&mut self, first: usize, rules: &[Rule]) -> io::Result<()> {
            self.rules[first..][..rules.len()].copy_from_slice(rules);
            Ok(())
        }
        fn file(&self, key: &FileKey) -> Option<FileTable> {
            self.files.get(key).copied()
        }
        fn set_file(&mut self, key: &FileKey, table: &FileTable) -> bool {
            self.files.insert(*key, *table);
            true
        }
        fn files(&self) -> Vec<(FileKey, FileTable)> {
            self.files.iter().map(|(key, table)| (*key, *table)).collect()
        }
        fn remove_file(&mut self, key: &FileKey) {
            self.files.remove(key);
        }
        fn wait_for_readers(&self) {
            self.waited.set(self.waited.get() + 1);
        }
    }

    fn key(inode: u64) -> FileKey {
        FileKey { inode, written: 1, device: 8 << 20, generation: 7 }
    }

    fn rule(cfa: i32) -> Rule {
        Rule { cfa, kind: kind::REGISTER, ..Rule::default() }
    }

    /// Rows at these distances, each with another rule than the one before.
    fn rows(start: u32, distances: impl Iterator<Item = u32>) -> Rows {
        let mut offset = start;
        let rows = distances.enumerate().map(|(n, distance)| {
            let row = Row { offset, rule: (n % 5) as u16 };
            offset += distance;
            row
        });
        Rows { rows: rows.collect(), rules: (0..5).map(|n| if n == 4 { Rule::default() } else { rule(n * 8) }).collect(), unread: 0 }
    }

    fn expected(file: &Rows, offset: u64) -> Rule {
        let after = file.rows.partition_point(|row| u64::from(row.offset) <= offset);
        after.checked_sub(1).map_or(Rule::default(), |at| file.rules[usize::from(file.rows[at].rule)])
    }

    #[test]
    fn every_place_of_a_file_has_its_rule_whatever_else_is_there() {
        let mut memory = Memory::new(8, 2000, 64);
        let mut store = Store::new(8, 2000, 64);
        let files = [
            // A page full, gaps of several pages, and more rows than a chunk has.
            rows(0x1ff0, (0..5000).map(|_| 1)),
            rows(0x3_0123, [1, 16, 4096, 20_000, 3, 70_000, 1].into_iter()),
            rows(0, (0..40_000).map(|n| n % 40 + 1)),
        ];
        for (n, file) in files.iter().enumerate() {
            assert_eq!(store.put(&mut memory, &key(n as u64), file, Use::Met, 1).unwrap(), Put::Done);
        }
        for (n, file) in files.iter().enumerate() {
            let (first, last) = (file.rows[0].offset, file.rows[file.rows.len() - 1].offset);
            let begin = u64::from(first) / PAGE_BYTES * PAGE_BYTES;
            for offset in begin..=u64::from(last) {
                assert_eq!(memory.rule(&key(n as u64), offset), Some(expected(file, offset)), "{offset:x} of file {n}");
            }
            assert_eq!(memory.rule(&key(n as u64), begin.wrapping_sub(1)), None);
            assert_eq!(memory.rule(&key(n as u64), (u64::from(last) / PAGE_BYTES + 1) * PAGE_BYTES), None);
        }
        assert_eq!(store.files(), 3);
    }

    #[test]
    fn what_was_not_used_for_long_makes_room_and_what_was_does_not() {
        let (mut memory, mut store) = (Memory::new(2, 100, 64), Store::new(2, 100, 64));
        let large = rows(0, (0..CHUNK_ROWS as u32 - 100).map(|_| 4));
        for n in 0..2 {
            assert_eq!(store.put(&mut memory, &key(n), &large, Use::Met, n as u32).unwrap(), Put::Done);
        }
        assert_eq!(store.put(&mut memory, &key(2), &large, Use::Met, 9).unwrap(), Put::Full, "both were used lately");
        assert_eq!((memory.file(&key(2)), memory.waited.get()), (None, 0));
        memory.files.get_mut(&key(0)).unwrap().used_s = 19;
        assert_eq!(store.put(&mut memory, &key(2), &large, Use::Met, 20).unwrap(), Put::Done);
        assert_eq!((memory.file(&key(1)), store.evicted(), memory.waited.get()), (None, 1, 1));
        for offset in [0, 5, 40_000] {
            assert_eq!(memory.rule(&key(0), offset), Some(expected(&large, offset)));
            assert_eq!(memory.rule(&key(2), offset), Some(expected(&large, offset)));
        }
    }

    #[test]
    fn what_was_made_ahead_makes_room_and_takes_none() {
        let (mut memory, mut store) = (Memory::new(2, 100, 64), Store::new(2, 100, 64));
        let large = rows(0, (0..CHUNK_ROWS as u32 - 100).map(|_| 4));
        assert_eq!(store.put(&mut memory, &key(0), &large, Use::Ahead, 100).unwrap(), Put::Done);
        assert_eq!(store.put(&mut memory, &key(1), &large, Use::Met, 100).unwrap(), Put::Done);
        assert_eq!(store.put(&mut memory, &key(2), &large, Use::Ahead, 200).unwrap(), Put::Full);
        assert_eq!(store.put(&mut memory, &key(3), &large, Use::Met, 101).unwrap(), Put::Done);
        assert_eq!((store.has(&key(0)), store.has(&key(1)), store.evicted()), (false, true, 1));
    }

    #[test]
    fn a_file_larger_than_all_room_takes_none_of_it() {
        let (mut memory, mut store) = (Memory::new(2, 1000, 64), Store::new(2, 1000, 64));
        let huge = rows(0, (0..3 * CHUNK_ROWS as u32).map(|_| 8));
        assert_eq!(store.put(&mut memory, &key(1), &huge, Use::Met, 100).unwrap(), Put::Full);
        assert_eq!(store.used_rows(), 0);
        let wide = rows(0, [4096 * 1000, 1].into_iter());
        assert_eq!(store.put(&mut memory, &key(1), &wide, Use::Met, 100).unwrap(), Put::Full);
        assert_eq!(store.put(&mut memory, &key(1), &rows(0, [1, 1].into_iter()), Use::Met, 100).unwrap(), Put::Done);
    }

    #[test]
    fn rules_are_kept_once_and_those_without_room_are_unknown() {
        let (mut memory, mut store) = (Memory::new(1, 10, 4), Store::new(1, 10, 4));
        let file = rows(0, [16; 5].into_iter());
        assert_eq!(store.put(&mut memory, &key(1), &file, Use::Met, 1).unwrap(), Put::Done);
        // Number 0, and three of the four others.
        assert_eq!((store.rules.len(), store.rules_left_out()), (4, 1));
        let found: Vec<Rule> = (0..5).map(|n| memory.rule(&key(1), n * 16).unwrap()).collect();
        assert_eq!(found, [rule(0), rule(8), rule(16), Rule::default(), Rule::default()]);
        assert_eq!(store.put(&mut memory, &key(2), &file, Use::Met, 1).unwrap(), Put::Done);
        assert_eq!(store.rules.len(), 4);
    }

    #[test]
    fn files_of_the_past_are_forgotten_and_those_in_use_are_not() {
        let (mut memory, mut store) = (Memory::new(4, 100, 64), Store::new(4, 100, 64));
        let file = rows(0, [16; 5].into_iter());
        for n in 0..4 {
            assert_eq!(store.put(&mut memory, &key(n), &file, Use::Met, 100 + n as u32).unwrap(), Put::Done);
        }
        memory.files.insert(key(8), FileTable { asked_s: 100, ..FileTable::default() });
        memory.files.insert(key(9), FileTable { asked_s: 150, ..FileTable::default() });
        store.forget(&mut memory, 100, 163);
        assert!(!memory.files.contains_key(&key(8)) && memory.files.contains_key(&key(9)) && store.files() == 4);
        // Of five files three may stay; the fourth was used a minute ago, to the second.
        store.forget(&mut memory, 3, 163);
        assert_eq!([0, 1, 2, 3].map(|n| store.has(&key(n))), [false, false, true, true]);
        store.forget(&mut memory, 0, 162);
        assert_eq!([2, 3].map(|n| store.has(&key(n))), [false, true]);
        assert_eq!(store.used_rows(), super::super::space::BLOCK_ROWS);
    }

    #[test]
    fn what_cannot_be_written_takes_no_room() {
        let (mut memory, mut store) = (Memory::new(1, 10, 4), Store::new(1, 10, 4));
        memory.fails = true;
        let file = rows(0, [16; 5].into_iter());
        assert!(store.put(&mut memory, &key(1), &file, Use::Met, 1).is_err());
        assert_eq!((store.used_rows(), store.has(&key(1)), memory.file(&key(1))), (0, false, None));
        memory.fails = false;
        assert_eq!(store.put(&mut memory, &key(1), &file, Use::Met, 1).unwrap(), Put::Done);
        assert_eq!(memory.rule(&key(1), 17), Some(rule(8)));
    }

    #[test]
    fn a_file_without_rows_is_not_asked_for_again() {
        let (mut memory, mut store) = (Memory::new(1, 10, 4), Store::new(1, 10, 4));
        assert_eq!(store.put(&mut memory, &key(1), &Rows::default(), Use::Met, 1).unwrap(), Put::Done);
        assert_eq!((memory.files[&key(1)].state, memory.files[&key(1)].pages, store.has(&key(1))), (WITHOUT, 0, false));
    }
}
