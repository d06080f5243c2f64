//! Names that were not there yet when a kill was looked at. Files are read on a thread of their own, and a host that is out of memory is busy:
//! the stacks of a kill whose functions are still being looked up are put into words again later, until all names are there or the autopsy is
//! sealed.

use crate::{
    analyse::oom::KillFacts,
    kernel_half::stack::Stack,
    trace::{
        names::Names,
        words::{self, Symbols as _},
    },
};
use std::collections::HashMap;
use tracer_common::{attribution::KeyRecord, process::ProcessRecord};

/// The kernel half's tables, by identity.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) stacks: &'a HashMap<u64, Stack>,
    pub(super) processes: &'a HashMap<u64, ProcessRecord>,
}

/// A stack of a kill without all its names, with all that is needed to name it.
pub(super) struct Late {
    at: At,
    process: ProcessRecord,
    stacks: HashMap<u64, Stack>,
}

/// Where its words stand.
enum At {
    /// In the row of that number of what was live.
    Row(usize, Box<KeyRecord>),
    /// Where the trigger was; the identity of its user stack.
    Trigger(u64),
}

impl Late {
    /// The row of that number, which stands for that key, if its names are still looked for.
    pub(super) fn row(row: usize, record: &KeyRecord, tables: &Known<'_>, names: &mut Names<'_>) -> Option<Late> {
        let key = &record.key;
        let process = tables.processes.get(&key.process)?;
        if !names.is_reading(tables.stacks.get(&key.user_stack)) {
            return None;
        }
        let at = At::Row(row, Box::new(*record));
        Some(Late { at, process: *process, stacks: kept(&[key.user_stack, key.kernel_stack], tables) })
    }

    /// The trigger's own stack, if its names are still looked for.
    pub(super) fn trigger(identity: u64, user_stack: u64, tables: &Known<'_>, names: &mut Names<'_>) -> Option<Late> {
        let process = tables.processes.get(&identity)?;
        if !names.is_reading(tables.stacks.get(&user_stack)) {
            return None;
        }
        Some(Late { at: At::Trigger(user_stack), process: *process, stacks: kept(&[user_stack], tables) })
    }

    /// Its user stack, by identity.
    pub(super) fn user_stack(&self) -> Option<(u64, &Stack)> {
        let identity = match &self.at {
            At::Row(_, record) => record.key.user_stack,
            At::Trigger(identity) => *identity,
        };
        self.stacks.get(&identity).map(|stack| (identity, stack))
    }

    /// Puts the words of now in their place; whether some names are still looked for.
    pub(super) fn name(&self, case: &mut KillFacts, names: &mut Names<'_>) -> bool {
        let user_stack = self.user_stack().map(|(_, stack)| stack);
        match &self.at {
            At::Row(row, record) => {
                let words = words::describe(names, record, Some(&self.process), &self.stacks);
                if let Some((_, row)) = case.stacks.as_mut().and_then(|rows| rows.get_mut(*row)) {
                    (row.frames, row.status, row.comm) = (words.frames, words.status, words.comm);
                }
            }
            At::Trigger(_) => case.user_stack = Some(names.user(&self.process, user_stack).frames),
        }
        names.is_reading(user_stack)
    }
}

fn kept(identities: &[u64], tables: &Known<'_>) -> HashMap<u64, Stack> {
    identities.iter().filter_map(|identity| Some((*identity, tables.stacks.get(identity)?.clone()))).collect()
}
