//! A process that does not outlive what it was started for, and all that descends from one.

use std::{
    collections::BTreeMap,
    fs,
    ops::{Deref, DerefMut},
    process::Child,
};

/// Killed and waited for when dropped.
#[derive(Debug)]
pub struct KilledChild(pub Child);

impl Deref for KilledChild {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for KilledChild {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for KilledChild {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that this one started, or one of its children did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descendant {
    pub(crate) pid: i32,
    comm: String,
    state: char,
}

impl Descendant {
    /// Whether it is what removes a command's cgroup after memtrail and the command: it ends by itself then, and killed it would leave the cgroup.
    pub(crate) fn is_janitor(&self) -> bool {
        self.comm == "memtrail-clean"
    }
}

impl std::fmt::Display for Descendant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}] ({})", self.comm, self.pid, self.state)
    }
}

/// The living processes that descend from that one; not those whose parents are gone.
pub(crate) fn descendants_of(root: u32) -> Vec<Descendant> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        // A process that is gone by now is none.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((process, parent)) = parse(&stat) {
            all.insert(process.pid, (process, parent));
        }
    }
    let root = root.cast_signed();
    let below = |pid: i32| {
        let mut at = pid;
        // Longer than any chain of parents; a reading that is not of one moment may even have a circle.
        for _ in 0..all.len() {
            match all.get(&at) {
                Some((_, parent)) if *parent == root => return true,
                Some((_, parent)) => at = *parent,
                None => return false,
            }
        }
        false
    };
    all.values().map(|(process, _)| process).filter(|process| process.state != 'Z' && below(process.pid)).cloned().collect()
}

/// A process and its parent, as /proc/PID/stat has them. The name may have anything in it, parentheses too.
fn parse(stat: &str) -> Option<(Descendant, i32)> {
    let (pid, rest) = stat.split_once(" (")?;
    let (comm, rest) = rest.rsplit_once(") ")?;
    let mut rest = rest.split(' ');
    let (state, parent) = (rest.next()?.chars().next()?, rest.next()?.parse().ok()?);
    Some((Descendant { pid: pid.parse().ok()?, comm: comm.to_owned(), state }, parent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn names_may_have_anything_in_them() {
        let (process, parent) = parse("7 (a) b (c) S 3 7 7 0 -1").unwrap();
        assert_eq!((process.to_string(), parent), ("a) b (c[7] (S)".to_owned(), 3));
    }

    #[test]
    fn children_of_children_are_found() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 60 & echo $!; wait"]).stdout(Stdio::piped());
        let mut shell = KilledChild(shell.spawn().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(shell.0.stdout.take().unwrap()), &mut line).unwrap();
        let sleep: i32 = line.trim().parse().unwrap();
        let found: Vec<i32> = descendants_of(std::process::id()).into_iter().map(|process| process.pid).collect();
        assert!(found.contains(&sleep) && found.contains(&shell.0.id().cast_signed()), "{found:?}");
        assert_eq!(descendants_of(shell.0.id()).iter().map(|process| process.pid).collect::<Vec<_>>(), [sleep]);
        // SAFETY: kill takes no pointers; the shell was not waited for, so that its child is still its own.
        unsafe { libc::kill(sleep, libc::SIGKILL) };
    }
}
