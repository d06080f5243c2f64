//! A JVM's own account of its memory (`jcmd PID VM.native_memory detail`), and how much of what it speaks of is resident: the truth that
//! regions are compared with.

use crate::pagemap::PageMap;
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;
use std::process::Command;

const PAGE: u64 = 4096;

/// Ranges by category, as the JVM names them.
#[derive(Debug, Default)]
pub struct Account {
    /// What was reserved.
    pub reserved: BTreeMap<String, Vec<(u64, u64)>>,
    /// What of it may be used.
    pub committed: BTreeMap<String, Vec<(u64, u64)>>,
}

impl Account {
    /// Asks a JVM that was started with `-XX:NativeMemoryTracking=detail`.
    ///
    /// # Errors
    /// `jcmd` cannot be run or does not tell.
    pub fn ask(pid: u32) -> Result<Account> {
        let output = Command::new("jcmd").arg(pid.to_string()).args(["VM.native_memory", "detail"]).output().context("jcmd")?;
        let account = Account::parse(&String::from_utf8_lossy(&output.stdout));
        ensure!(!account.committed.is_empty(), "jcmd tells no ranges: {}", String::from_utf8_lossy(&output.stdout));
        Ok(account)
    }

    /// Reads the ranges of the account's virtual memory map: `[0xFROM - 0xTO] reserved [and committed] NKB for CATEGORY from`, and below it
    /// `[0xFROM - 0xTO] committed NKB from`.
    #[must_use]
    pub fn parse(text: &str) -> Account {
        let (mut account, mut category) = (Account::default(), None);
        for line in text.lines().map(str::trim) {
            let Some((range, rest)) = line.strip_prefix('[').and_then(|line| line.split_once("] ")) else { continue };
            let Some(range) = range.split_once(" - ").and_then(|(from, to)| Some((address(from)?, address(to)?))) else { continue };
            if let Some((_, name)) = rest.split_once("KB for ") {
                let name = name.strip_suffix(" from").unwrap_or(name).to_owned();
                account.reserved.entry(name.clone()).or_default().push(range);
                // What is committed as a whole is listed in its parts too.
                category = if rest.starts_with("reserved and committed") {
                    account.committed.entry(name).or_default().push(range);
                    None
                } else {
                    Some(name)
                };
            } else if let Some(name) = category.as_ref().filter(|_| rest.starts_with("committed ")) {
                account.committed.entry(name.clone()).or_default().push(range);
            }
        }
        account
    }
}

fn address(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Bytes of anonymous memory in these ranges of a process.
///
/// # Errors
/// The process is gone or its page map cannot be read.
pub fn resident(pid: u32, ranges: &[(u64, u64)]) -> Result<u64> {
    let map = PageMap::open(pid)?;
    let mut pages = 0;
    for (start, end) in ranges {
        pages += map.pages(*start, *end)?.into_iter().filter(|page| page.is_anonymous()).count() as u64;
    }
    Ok(pages * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As JDK 17 prints it.
    #[test]
    fn ranges_have_their_category() {
        let account = Account::parse(
            "-                 Java Heap (reserved=131072KB, committed=131072KB)\n\nVirtual memory map:\n \n\
             [0x00000000f8000000 - 0x0000000100000000] reserved and committed 131072KB for Java Heap from\n\
             \u{20}   [0x00007f7bced1a27c] ReservedSpace::reserve(unsigned long)+0xac\n\n\
             \t[0x00000000f8000000 - 0x0000000100000000] committed 131072KB from\n\
             [0x0000000100000000 - 0x0000000140000000] reserved 1048576KB for Class from\n\n\
             \t[0x0000000100000000 - 0x0000000100010000] committed 64KB from\n\
             \u{20}           [0x00007f7bced18b75] metaspace::VirtualSpaceNode::commit_range(MetaWordImpl**, unsigned long)+0x135\n\
             [0x00007f7b7b0f2000 - 0x00007f7b7b1f2000] reserved 1024KB for Thread Stack from\n",
        );
        assert_eq!(account.committed["Java Heap"], [(0xf800_0000, 0x1_0000_0000)]);
        assert_eq!(account.committed["Class"], [(0x1_0000_0000, 0x1_0001_0000)]);
        assert_eq!(account.reserved["Thread Stack"], [(0x7f7b_7b0f_2000, 0x7f7b_7b1f_2000)]);
        assert_eq!((account.reserved.len(), account.committed.len()), (3, 2));
    }

    #[test]
    fn a_page_that_was_touched_is_resident() {
        let memory = vec![1_u8; 64 * PAGE as usize];
        let start = (memory.as_ptr() as u64).next_multiple_of(PAGE);
        let found = resident(std::process::id(), &[(start, start + 32 * PAGE)]).unwrap();
        assert_eq!(found, 32 * PAGE);
        assert!(resident(std::process::id(), &[(PAGE, 2 * PAGE)]).unwrap() == 0);
    }
}
