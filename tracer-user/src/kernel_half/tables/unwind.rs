//! Tables for unwinding (see [`tracer_common::unwind`]). They are written by [`crate::kernel_half::unwind`], through mappings.

use super::row::{ArrayTable, HashTable, RingTable};
use crate::kernel_half::wish::Wish;
use tracer_common::{
    loss::Loss,
    unwind::{CHUNK_ROWS, Chunk, FILES, FileKey, FileTable, PageRows, RULES, Rule},
};

/// Entries of the directory for each chunk of rows: a page of code has 85 rows on the average, and the least that a large library's has is 24.
const PAGES_PER_CHUNK: u32 = 512;
/// Fewest chunks.
const FEWEST_CHUNKS: u32 = 1;

/// Chunks of rows that fit in the memory for them.
fn chunks(wish: &Wish) -> u32 {
    u32::try_from(wish.unwind_memory / (4 * CHUNK_ROWS as u64)).unwrap_or(u32::MAX).max(FEWEST_CHUNKS)
}

/// Files that walks met.
pub static UNWIND_FILES: HashTable<FileKey, FileTable> = HashTable::named("UNWIND_FILES").fixed(FILES).loses(&[Loss::UnwindFileTableFull]);

/// Where the rows of a file's pages are.
pub static UNWIND_PAGES: ArrayTable<PageRows> =
    ArrayTable::named("UNWIND_PAGES").planned(|wish| chunks(wish).saturating_mul(PAGES_PER_CHUNK));

/// Rows, in chunks.
pub static UNWIND_ROWS: ArrayTable<Chunk> = ArrayTable::named("UNWIND_ROWS").planned(chunks);

/// Rules, each once.
pub static UNWIND_RULES: ArrayTable<Rule> = ArrayTable::named("UNWIND_RULES").fixed(RULES);

/// Files whose tables are wanted: room for a thousand.
pub static UNWIND_MISSES: RingTable = RingTable::named("UNWIND_MISSES").fixed(64 << 10).loses(&[Loss::UnwindMissLost]);
