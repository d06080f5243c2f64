//! What many small stacks have in common: where none of them says much, the frames that they share do. Pure.

use super::comparison::merged::Merged;
use std::collections::BTreeMap;

/// No stack holds so much of the bytes: below, one in so many.
const LARGE: u64 = 10;
/// The common part holds at least one in so many of the bytes.
const MOST: u64 = 2;
/// Fewer stacks are shown themselves.
const FEWEST: usize = 10;

/// The common part of stacks of one program and kind.
#[derive(Clone, Debug)]
pub struct Common<'a> {
    /// One of them, with the processes of all.
    pub of: Merged<'a>,
    /// Frames that all of them begin with, outermost first.
    pub frames: &'a [String],
    /// How many.
    pub stacks: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Standard error; `None` where that of a stack is unknown.
    pub stderr: Option<u64>,
}

impl Common<'_> {
    /// `java[4711], anon brk-heap`.
    #[must_use]
    pub fn whose(&self) -> String {
        format!("{}, {}", self.of.process(), self.of.kind())
    }
}

/// The common part, where no stack holds a tenth of the bytes and one program's stacks hold half of them.
#[must_use]
pub fn common<'a>(stacks: &[Merged<'a>]) -> Option<Common<'a>> {
    let total = stacks.iter().fold(0_u64, |sum, stack| sum.saturating_add(stack.bytes));
    let largest = stacks.iter().map(|stack| stack.bytes).max()?;
    if stacks.len() < FEWEST || largest >= total / LARGE {
        return None;
    }
    let heavy = |part: &[&Merged<'a>]| part.iter().fold(0_u64, |sum, stack| sum.saturating_add(stack.bytes)) >= total.div_ceil(MOST);
    let mut part = heaviest(stacks.iter(), |stack| Some((&stack.row.comm, &stack.row.kind, &stack.row.region)))?;
    if !heavy(&part) {
        return None;
    }
    let mut depth = 0;
    while let Some(deeper) = heaviest(part.iter().copied(), |stack| stack.row.frames.get(depth)).filter(|deeper| heavy(deeper)) {
        part = deeper;
        depth += 1;
    }
    let variance: Option<f64> = part.iter().map(|stack| Some((stack.stderr? as f64).powi(2))).sum();
    let of = *part.first()?;
    let mut whole = of.clone();
    whole.pids = part.iter().flat_map(|stack| &stack.pids).copied().collect();
    Some(Common {
        frames: &of.row.frames[..depth],
        of: whole,
        stacks: part.len(),
        bytes: part.iter().fold(0, |sum, stack| sum.saturating_add(stack.bytes)),
        stderr: variance.map(|variance| variance.sqrt().round() as u64),
    })
}

/// Of the parts that a key divides stacks into, the one with most bytes.
fn heaviest<'s, 'a: 's, K: Ord>(
    stacks: impl Iterator<Item = &'s Merged<'a>>,
    key: impl Fn(&'s Merged<'a>) -> Option<K>,
) -> Option<Vec<&'s Merged<'a>>> {
    let mut parts: BTreeMap<K, (u64, Vec<&'s Merged<'a>>)> = BTreeMap::new();
    for stack in stacks {
        if let Some(key) = key(stack) {
            let part = parts.entry(key).or_default();
            part.0 = part.0.saturating_add(stack.bytes);
            part.1.push(stack);
        }
    }
    parts.into_values().max_by_key(|(bytes, _)| *bytes).map(|(_, part)| part)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{
        analyse::comparison::merged::merge,
        report::{Cgroup, StackRow, Value},
    };

    fn cgroup(rows: impl Iterator<Item = (String, u64)>) -> Cgroup {
        let row = |(leaf, live): (String, u64)| StackRow {
            comm: "app".into(),
            kind: "anon".into(),
            pid: Some(7),
            frames: vec!["main".into(), "serve".into(), leaf],
            live,
            live_stderr: 3,
            ..StackRow::default()
        };
        Cgroup { stacks: rows.map(row).collect(), ..Cgroup::default() }
    }

    /// Whose, the frames, how many stacks, bytes, error.
    type Found = (String, Vec<String>, usize, u64, Option<u64>);

    fn found(cgroup: &Cgroup) -> Option<Found> {
        let stacks = merge(cgroup.stacks.iter().map(|row| (cgroup, row)), Value::Live);
        let common = common(&stacks)?;
        Some((common.whose(), common.frames.to_vec(), common.stacks, common.bytes, common.stderr))
    }

    #[test]
    fn many_small_stacks_are_told_by_what_they_share() {
        let many = cgroup((0..400).map(|leaf| (format!("leaf_{leaf}"), 4096)));
        let frames = vec!["main".to_owned(), "serve".to_owned()];
        assert_eq!(found(&many), Some(("app[7], anon".to_owned(), frames, 400, 400 * 4096, Some(60))));
    }

    #[test]
    fn few_stacks_and_a_large_one_speak_for_themselves() {
        assert_eq!(found(&cgroup((0..9).map(|leaf| (format!("leaf_{leaf}"), 4096)))), None);
        assert_eq!(found(&cgroup((0..30).map(|leaf| (format!("leaf_{leaf}"), if leaf == 0 { 1 << 20 } else { 4096 })))), None);
    }
}
