//! Ranges of JVMs that only the stack which reserved them tells: metaspace, and the collector's tables. Looked up before the processes are
//! surveyed, so that samples find their class there.

use super::words::Symbols as _;
use super::{
    mappings::Space,
    names::Names,
    regions::Reserved,
    session::{Session, SessionError},
};
use crate::{
    cgroup::CgroupId,
    kernel_half::tables,
    region::{
        Class,
        classify::{Claim, by},
        jvm,
    },
};
use std::collections::HashMap;
use tracer_common::process::ProcessRecord;

/// Most JVMs whose reservations are looked at.
const MOST_JVMS: usize = 64;

impl Session {
    /// Ranges of JVMs whose class the stack that reserved them tells.
    pub(super) fn reserved_by_jvms(
        &mut self,
        members: &HashMap<u32, CgroupId>,
        processes: &HashMap<u64, ProcessRecord>,
    ) -> Result<Reserved, SessionError> {
        let Some(mappings) = &self.mappings else { return Ok(Reserved::new()) };
        let stacks = tables::stacks(&self.running.bpf)?;
        let mut names = Names::new(self.unwinding.files(), &mut self.symbolizer);
        // What a JVM maps, it maps by its library.
        let is_jvm = |space: &Space| {
            let mut mapped_by = space.stacks().filter_map(|stack| stacks.get(&stack));
            mapped_by.any(|stack| names.goes_through(stack, jvm::is_jvm))
        };
        let spaces: Vec<(u32, Space)> = mappings.with(|spaces| {
            let of = members.keys().filter_map(|tgid| Some((*tgid, spaces.of(*tgid).filter(|space| is_jvm(space))?)));
            of.take(MOST_JVMS).map(|(tgid, space)| (tgid, space.settled())).collect()
        });
        if spaces.is_empty() {
            return Ok(Reserved::new());
        }
        names.learn_stacks(spaces.iter().flat_map(|(_, space)| space.stacks()), &stacks);
        let mut classes: HashMap<(u64, u64), Option<Class>> = HashMap::new();
        let mut claims = |space: &Space| -> Vec<Claim> {
            let Some(process) = processes.get(&space.process) else { return Vec::new() };
            let mut class = |stack: u64| {
                let told = classes.entry((space.process, stack));
                *told.or_insert_with(|| jvm::reserved_by(&names.user(process, stacks.get(&stack)).frames))
            };
            let pieces = space.mapped.over(0, u64::MAX);
            pieces
                .filter_map(|piece| {
                    let class = class(piece.mark?.stack)?;
                    Some(Claim { start: piece.start, end: piece.end, class, by: by::RESERVED_BY })
                })
                .collect()
        };
        Ok(spaces.iter().map(|(tgid, space)| (*tgid, claims(space))).collect())
    }
}
