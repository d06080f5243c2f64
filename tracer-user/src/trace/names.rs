//! Names for a report: addresses through the process feed and the symboliser, in the form that [`super::words`] asks for.

use super::words::{Resolved, Symbols};
use crate::{
    host::{
        elf,
        proc::{self, comm},
    },
    kernel_half::stack::Stack,
    process::{Feed, Image, thread},
    report::BinaryRow,
    symbols::{Binary, Symbolizer, SymbolizerOptions, Unknown, UserStack, Waiting},
};
use std::collections::{BTreeMap, HashMap, HashSet};
use tracer_common::{
    attribution::{KEY_OWN, KeyRecord},
    process::ProcessRecord,
    stack::Bases,
};

/// Looks names up in what the feed has seen.
pub struct Names<'a> {
    feed: Option<&'a Feed>,
    symbolizer: &'a mut Symbolizer,
}

impl<'a> Names<'a> {
    /// Names as of now, for stacks that leave the tables or are those of an OOM kill: files are waited for a moment only. Without a feed,
    /// user frames stay unknown.
    pub fn new(feed: Option<&'a Feed>, symbolizer: &'a mut Symbolizer) -> Names<'a> {
        symbolizer.refresh(Waiting::Batch);
        Names { feed, symbolizer }
    }

    /// The same for a report, which waits longer.
    pub fn for_report(feed: Option<&'a Feed>, symbolizer: &'a mut Symbolizer) -> Names<'a> {
        symbolizer.refresh(Waiting::Report);
        Names { feed, symbolizer }
    }

    /// Looks up the stacks of these keys, so that each file is read once for all of them.
    pub fn learn<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k KeyRecord>,
        processes: &HashMap<u64, ProcessRecord>,
        stacks: &HashMap<u64, Stack>,
    ) {
        let mut unknown = Unknown::default();
        for KeyRecord { key, .. } in keys.filter(|record| record.key.flags & KEY_OWN == 0) {
            if let Some(stack) = stacks.get(&key.kernel_stack) {
                self.symbolizer.gather_kernel(&stack.frames, &mut unknown);
            }
            self.gather(processes.get(&key.process), stacks.get(&key.user_stack), &mut unknown);
        }
        self.symbolizer.learn(unknown);
    }

    /// Whether functions of the key's stack are being read: they have names at a later moment.
    pub fn is_reading(&mut self, KeyRecord { key, .. }: &KeyRecord, process: Option<&ProcessRecord>, stacks: &HashMap<u64, Stack>) -> bool {
        self.is_reading_stack(process, stacks.get(&key.user_stack))
    }

    /// The same of functions of a user stack.
    pub fn is_reading_stack(&mut self, process: Option<&ProcessRecord>, stack: Option<&Stack>) -> bool {
        if !self.symbolizer.is_busy() {
            return false;
        }
        let mut unknown = Unknown::default();
        self.gather(process, stack, &mut unknown);
        self.symbolizer.is_reading(&unknown)
    }

    /// Looks up user stacks alike: process and stack by identity.
    pub fn learn_stacks(
        &mut self,
        wanted: impl Iterator<Item = (u64, u64)>,
        processes: &HashMap<u64, ProcessRecord>,
        stacks: &HashMap<u64, Stack>,
    ) {
        let mut unknown = Unknown::default();
        for (process, stack) in wanted {
            self.gather(processes.get(&process), stacks.get(&stack), &mut unknown);
        }
        self.symbolizer.learn(unknown);
    }

    /// Looks up user stacks of programs that map one of these files, by device and inode: afterwards their names are known without the
    /// files.
    pub fn learn_of_files(
        &mut self,
        files: &HashSet<(u64, u64)>,
        wanted: impl Iterator<Item = (u64, u64)>,
        processes: &HashMap<u64, ProcessRecord>,
        stacks: &HashMap<u64, Stack>,
    ) {
        let mut unknown = Unknown::default();
        let mut images: HashMap<u64, Option<Image>> = HashMap::new();
        let maps_one = |image: &Image| image.mappings.iter().any(|mapping| files.contains(&mapping.file.identity.place()));
        for (identity, stack) in wanted {
            let (Some(process), Some(stack), Some(feed)) = (processes.get(&identity), stacks.get(&stack), self.feed) else { continue };
            if let Some(image) = images.entry(identity).or_insert_with(|| self.image(process).filter(maps_one)) {
                self.symbolizer.gather_user(image, &user_addresses(process, stack), feed.file_store(), &mut unknown);
            }
        }
        self.symbolizer.learn(unknown);
    }

    /// Notes what of a user stack is not known yet.
    fn gather(&mut self, process: Option<&ProcessRecord>, stack: Option<&Stack>, unknown: &mut Unknown) {
        if let (Some(process), Some(stack)) = (process, stack)
            && let (Some(image), Some(feed)) = (self.image(process), self.feed)
        {
            self.symbolizer.gather_user(&image, &user_addresses(process, stack), feed.file_store(), unknown);
        }
    }

    /// Whether what a process ran is remembered.
    pub fn knows(&self, process: &ProcessRecord) -> bool {
        self.image(process).is_some()
    }

    /// What a process ran when it was first seen.
    fn image(&self, process: &ProcessRecord) -> Option<Image> {
        // The guard is held only for the copy: the reader of the rings waits for it.
        self.feed.and_then(|feed| feed.registry().image_at(process.tgid, process.first_seen_ns).cloned())
    }

    /// A symboliser with its defaults. Says what it will not be able to name.
    #[must_use]
    pub fn symbolizer() -> Symbolizer {
        let mut symbolizer = Symbolizer::new(SymbolizerOptions::default());
        if let Some(warning) = symbolizer.kernel_warning() {
            log::warn!("{warning}");
        }
        symbolizer
    }
}

impl Symbols for Names<'_> {
    fn user(&mut self, process: &ProcessRecord, stack: Option<&Stack>) -> Resolved {
        let none = || Resolved { frames: Vec::new(), status: "none".to_owned() };
        let Some(stack) = stack else { return none() };
        let addresses = user_addresses(process, stack);
        let (Some(image), Some(feed)) = (self.image(process), self.feed) else {
            let frames = addresses.iter().rev().map(|_| "[unknown]".to_owned()).collect();
            return Resolved { frames, status: "cut: process unknown".to_owned() };
        };
        let UserStack { frames, status } = self.symbolizer.user_stack(&image, &addresses, stack.status, feed.file_store());
        Resolved { frames: frames.into_iter().rev().map(|frame| frame.name.as_ref().to_owned()).collect(), status: status.text() }
    }

    fn kernel(&mut self, stack: &Stack) -> Vec<String> {
        let mut names: Vec<String> = self.symbolizer.kernel(&stack.frames).iter().map(|frame| frame.name.as_ref().to_owned()).collect();
        names.drain(..tracing_frames(&names));
        names.reverse();
        names
    }

    fn comm(&mut self, process: &ProcessRecord) -> String {
        self.image(process).map_or_else(|| comm::text(&process.comm), |image| comm::text(&image.comm))
    }

    fn thread(&mut self, process: &ProcessRecord, tid: u32, at_ns: u64) -> Option<String> {
        if self.is_gone(process) {
            return None;
        }
        thread::name_at(process.tgid, tid, at_ns)
    }

    fn is_gone(&mut self, process: &ProcessRecord) -> bool {
        is_gone(self.feed, process)
    }

    fn binaries(&self) -> Vec<BinaryRow> {
        let kernel = BinaryRow { path: BinaryRow::KERNEL.to_owned(), build_id: elf::build_id_of_kernel(), frames: Vec::new() };
        let files = self.symbolizer.binaries().into_iter();
        files.map(|Binary { path, build_id, frames }| BinaryRow { path, build_id, frames }).chain([kernel]).collect()
    }
}

/// What names are missing for so far, by cause.
#[must_use]
pub fn losses(symbolizer: &Symbolizer) -> BTreeMap<String, Option<u64>> {
    symbolizer.counters().losses().into_iter().map(|(cause, count)| (cause.to_owned(), Some(count))).collect()
}

/// Whether the process image has ended, as far as the feed knows; else whether that very process is gone: ids are used again.
#[must_use]
pub fn is_gone(feed: Option<&Feed>, process: &ProcessRecord) -> bool {
    match feed.and_then(|feed| feed.registry().image_at(process.tgid, process.first_seen_ns).map(|image| image.to_ns.is_some())) {
        Some(ended) => ended,
        None => !proc::runs_since(process.tgid, process.start_ns),
    }
}

/// Innermost frames that are the tracing itself: BPF programs, and what runs them. They say nothing of the traced code, and the
/// name of a program changes with each build.
fn tracing_frames(innermost_first: &[String]) -> usize {
    const RUNNERS: [&str; 12] = [
        "bpf_prog_",
        "bpf_trace_run",
        "bpf_trampoline_",
        "__bpf_trace_",
        "__traceiter_",
        "trace_call_bpf",
        "kprobe_perf_func",
        "kretprobe_perf_func",
        "kprobe_dispatcher",
        "kprobe_ftrace_handler",
        "ftrace_",
        "__bpf_prog_",
    ];
    innermost_first.iter().take_while(|name| RUNNERS.iter().any(|runner| name.starts_with(runner))).count()
}

/// Where the frames of a user stack are in this process; what has no address is unknown, as zero is.
fn user_addresses(process: &ProcessRecord, stack: &Stack) -> Vec<u64> {
    let bases = Bases { code_start: process.code_start, code_length: 0, mmap_base: process.mmap_base };
    stack.frames.iter().map(|frame| bases.absolute(*frame).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::tracing_frames;

    #[test]
    fn the_tracing_itself_is_cut_off_and_nothing_else() {
        let frames = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(tracing_frames(&frames(&["bpf_prog_1f_page_alloc", "bpf_trace_run4", "alloc_pages", "bpf_prog_x"])), 2);
        assert_eq!(tracing_frames(&frames(&["do_anonymous_page"])), 0);
        assert_eq!(tracing_frames(&[]), 0);
    }
}
