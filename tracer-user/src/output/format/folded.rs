//! Folded stacks: `cgroup;comm;frame;...;frame;[kind region] BYTES`, root first.
//!
//! Each live (or charged) byte of the report is in exactly one line, so the sum of the lines equals the report's, without the lines
//! `[before start]` and `[unattributed]`, which give width to what has no stack. Nothing is dropped and nothing else is added. The format is
//! described in docs/folded.md.

use crate::output::Value;
use crate::report::{Cgroup, KindRow, Report, StackRow};
use crate::text;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Frame in place of the process for memory older than the recording.
pub const BEFORE_START: &str = "[before start]";

/// Frame in place of the process for memory that the kernel counts and no stack explains.
pub const UNATTRIBUTED: &str = "[unattributed]";

/// Name of a frame whose name is empty.
const UNKNOWN: &str = "[unknown]";

/// Stacks and their bytes, equal ones merged, in the order of the stacks' bytes. No line has zero bytes.
#[must_use]
pub fn stacks(report: &Report, value: Value) -> BTreeMap<String, u64> {
    let mut stacks = BTreeMap::new();
    for cgroup in &report.cgroups {
        let root = root(&cgroup.path);
        for row in &cgroup.stacks {
            add(&mut stacks, || stack(&root, row), value.of(row));
        }
        // They complete the live picture; beside charged bytes they would compare what cannot be compared.
        if value == Value::Live {
            add_missing(&mut stacks, &root, cgroup);
        }
    }
    stacks
}

/// Writes the lines, sorted bytewise.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, value: Value, mut writer: impl Write) -> io::Result<()> {
    let mut lines: Vec<String> = stacks(report, value).into_iter().map(|(stack, bytes)| format!("{stack} {bytes}\n")).collect();
    lines.sort_unstable();
    for line in lines {
        writer.write_all(line.as_bytes())?;
    }
    writer.flush()
}

fn add(stacks: &mut BTreeMap<String, u64>, stack: impl FnOnce() -> String, bytes: u64) {
    if bytes > 0 {
        let sum = stacks.entry(stack()).or_default();
        // Only a forged recording gets there.
        *sum = sum.saturating_add(bytes);
    }
}

fn add_missing(stacks: &mut BTreeMap<String, u64>, root: &str, cgroup: &Cgroup) {
    for (kind, row) in &cgroup.kinds {
        let KindRow { baseline, unattributed, .. } = row;
        let line = |what: &str| format!("{root};{what};[{}]", frame(kind));
        add(stacks, || line(BEFORE_START), baseline.unwrap_or(0));
        add(stacks, || line(UNATTRIBUTED), unattributed.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0));
    }
}

/// The stack of a row, as its line has it.
pub(in crate::output) fn stack_of(cgroup: &str, row: &StackRow) -> String {
    stack(&root(cgroup), row)
}

fn stack(root: &str, row: &StackRow) -> String {
    let mut stack = String::from(root);
    let mut push = |name: &str| {
        stack.push(';');
        stack.push_str(name);
    };
    push(&comm(&row.comm));
    if let Some(root) = cut_root(row) {
        push(&root);
    }
    for name in &row.frames {
        push(&frame(name));
    }
    push(&leaf(&row.kind, &row.region));
    stack
}

/// The root frame of a cut stack, unless its frames begin with one.
fn cut_root(row: &StackRow) -> Option<String> {
    let reason = row.status.strip_prefix("cut")?.trim_start_matches([':', ' ']);
    let root = if reason.is_empty() { "[cut]".to_owned() } else { format!("[cut: {}]", frame(reason)) };
    (row.frames.first().map(|first| frame(first)) != Some(root.clone())).then_some(root)
}

/// The last frame: `[anon REGION]`, `[file]`, `[shmem]`, ...
fn leaf(kind: &str, region: &str) -> String {
    match (kind, region) {
        ("anon", "") => "[anon other]".to_owned(),
        ("anon", region) => format!("[anon {}]", frame(region)),
        ("", _) => UNKNOWN.to_owned(),
        (kind, _) => format!("[{}]", frame(kind)),
    }
}

/// A cgroup as the first frame. Readers trim lines and skip those that begin with `#`, which no path does, but a forged recording may.
fn root(path: &str) -> String {
    let root = frame(path);
    match root.chars().next() {
        Some(first) if first.is_whitespace() || first == '#' => {
            let (first, rest) = root.split_at(first.len_utf8());
            format!("{}{rest}", text::hex(first))
        }
        _ => root,
    }
}

/// A process must not pass for the lines that stand beside the sum.
fn comm(name: &str) -> String {
    if name == BEFORE_START || name == UNATTRIBUTED { format!("{}{}", text::hex("["), &name[1..]) } else { frame(name) }
}

/// A name as one frame: `;` separates frames, and what breaks a line or XML is escaped.
fn frame(name: &str) -> String {
    if name.is_empty() { UNKNOWN.to_owned() } else { text::escape(name).replace(';', ":") }
}
