//! Files behind page-cache and shmem folios.

use super::{read, read_pointer};
use crate::globals::layout;
use tracer_common::mix64;

/// Identity of a folio's file: hash of device, inode and generation; 0 if it cannot be read.
#[inline(always)]
pub fn identity(folio: u64) -> u64 {
    match numbers(folio) {
        Some((device, inode, generation)) => mix64(mix64(device as u64, inode), generation as u64) | 1,
        None => 0,
    }
}

#[inline(always)]
fn numbers(folio: u64) -> Option<(u32, u64, u32)> {
    let mapping = read_pointer(folio, layout!(page_mapping))?;
    let inode = read_pointer(mapping, layout!(mapping_host))?;
    let superblock = read_pointer(inode, layout!(inode_sb))?;
    Some((read(superblock, layout!(sb_dev))?, read(inode, layout!(inode_ino))?, read(inode, layout!(inode_generation))?))
}
