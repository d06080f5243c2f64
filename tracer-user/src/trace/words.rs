//! Keys and stacks in words, as of now: what a snapshot and a retirement are told by.

use super::retired;
use crate::{
    kernel_half::stack::Stack,
    report::{BinaryRow, UNKNOWN_PROCESS},
};
use std::collections::HashMap;
use tracer_common::{
    attribution::{KEY_OWN, KeyRecord},
    process::ProcessRecord,
};

/// A stack in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resolved {
    /// Outermost first.
    pub frames: Vec<String>,
    /// "complete", "cut: REASON" or "none".
    pub status: String,
}

/// Turns addresses into names. One for all stacks of a moment; looks things up as they are asked for.
pub trait Symbols {
    /// A user stack of a process; `None` is a stack that does not exist.
    fn user(&mut self, process: &ProcessRecord, stack: Option<&Stack>) -> Resolved;
    /// A kernel stack, outermost first, without the `_[k]` that outputs know it by.
    fn kernel(&mut self, stack: &Stack) -> Vec<String>;
    /// The frame at an offset of a file that stacks went through, by its path; `None` where none did.
    fn place(&mut self, path: &[u8], offset: u64) -> Option<u64>;
    /// The name of a process by now: that of its first charge may be older than its exec.
    fn comm(&mut self, process: &ProcessRecord) -> String;
    /// The name of one of its threads, if it still runs and ran at that moment (monotonic nanoseconds) already.
    fn thread(&mut self, process: &ProcessRecord, tid: u32, at_ns: u64) -> Option<String>;
    /// Whether that image of the process is known to be gone.
    fn is_gone(&mut self, process: &ProcessRecord) -> bool;
    /// The files in which frames were found so far, and the kernel.
    fn binaries(&self) -> Vec<BinaryRow>;
}

/// A key in words.
pub fn describe(
    symbols: &mut dyn Symbols,
    record: &KeyRecord,
    process: Option<&ProcessRecord>,
    stacks: &HashMap<u64, Stack>,
) -> retired::Row {
    let key = &record.key;
    let comm = process.map_or_else(|| UNKNOWN_PROCESS.to_owned(), |process| symbols.comm(process));
    let row = |status: String, frames| retired::Row { owner: key.owner, kind: key.kind, flags: key.flags, comm, status, frames };
    if key.flags & KEY_OWN != 0 {
        return row("none".to_owned(), vec!["[memtrail's own]".to_owned()]);
    }
    let mut resolved = user_stack(symbols, process, key.user_stack, stacks);
    if let Some(stack) = stacks.get(&key.kernel_stack) {
        resolved.frames.extend(symbols.kernel(stack).into_iter().map(|name| format!("{name}_[k]")));
    }
    root_cut(&resolved.status, &mut resolved.frames);
    row(resolved.status, resolved.frames)
}

/// A user stack of a process, by its identity, without the root of a cut one.
pub fn user_stack(symbols: &mut dyn Symbols, process: Option<&ProcessRecord>, stack: u64, stacks: &HashMap<u64, Stack>) -> Resolved {
    let mut resolved = match process {
        Some(process) => symbols.user(process, stacks.get(&stack)),
        None => Resolved { frames: Vec::new(), status: "none".to_owned() },
    };
    if stack != 0 && !stacks.contains_key(&stack) {
        // Counted where it was lost; here it must not pass for a process without a stack.
        resolved.status = "cut: stack lost".to_owned();
    }
    resolved
}

/// Gives a cut stack a root of its own, so that it never merges with a whole one.
pub fn root_cut(status: &str, frames: &mut Vec<String>) {
    if status.starts_with("cut") {
        frames.insert(0, format!("[{status}]"));
    }
}
