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
    host::clock::monotonic_ns,
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
        let (Some(mappings), Some(feed)) = (&self.mappings, &self.feed) else { return Ok(Reserved::new()) };
        let is_jvm = |tgid: u32| {
            let registry = feed.registry();
            let image = registry.image_at(tgid, monotonic_ns());
            image.is_some_and(|image| image.mappings.iter().any(|mapping| jvm::is_jvm(&mapping.file.path)))
        };
        let jvms: Vec<u32> = members.keys().copied().filter(|tgid| is_jvm(*tgid)).take(MOST_JVMS).collect();
        let spaces: Vec<(u32, Space)> =
            mappings.with(|spaces| jvms.iter().filter_map(|tgid| Some((*tgid, spaces.of(*tgid)?.settled()))).collect());
        if spaces.is_empty() {
            return Ok(Reserved::new());
        }
        let stacks = tables::stacks(&self.running.bpf)?;
        let mut names = Names::new(self.feed.as_ref(), &mut self.symbolizer);
        let named = spaces.iter().flat_map(|(_, space)| space.stacks().map(|stack| (space.process, stack)));
        names.learn_stacks(named, processes, &stacks);
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
