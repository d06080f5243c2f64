//! Names for a report: frames through the files that are known and the symboliser, in the form that [`super::words`] asks for.

use super::words::{Resolved, Symbols};
use crate::{
    host::{elf, lock, proc::comm},
    kernel_half::stack::Stack,
    managed::Functions,
    process::{FileStore, thread},
    report::BinaryRow,
    symbols::{Binary, Symbolizer, SymbolizerOptions, Traced, Unknown, UserStack, Waiting},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
};
use tracer_common::{
    attribution::{KEY_OWN, KeyRecord},
    process::ProcessRecord,
    stack::UserFrame,
};

/// Looks names up.
pub struct Names<'a> {
    files: &'a Mutex<FileStore>,
    symbolizer: &'a mut Symbolizer,
}

impl<'a> Names<'a> {
    /// Names as of now, for stacks that leave the tables or are those of an OOM kill: files are waited for a moment only.
    pub fn new(files: &'a Mutex<FileStore>, symbolizer: &'a mut Symbolizer) -> Names<'a> {
        symbolizer.refresh(Waiting::Batch);
        Names { files, symbolizer }
    }

    /// The same for a report, which waits longer.
    pub fn for_report(files: &'a Mutex<FileStore>, symbolizer: &'a mut Symbolizer) -> Names<'a> {
        symbolizer.refresh(Waiting::Report);
        Names { files, symbolizer }
    }

    /// Looks up the stacks of these keys, so that each file is read once for all of them.
    pub fn learn<'k>(&mut self, keys: impl Iterator<Item = &'k KeyRecord>, stacks: &HashMap<u64, Stack>) {
        let mut unknown = Unknown::default();
        for KeyRecord { key, .. } in keys.filter(|record| record.key.flags & KEY_OWN == 0) {
            if let Some(stack) = stacks.get(&key.kernel_stack) {
                self.symbolizer.gather_kernel(&stack.frames, &mut unknown);
            }
            self.gather(stacks.get(&key.user_stack), &mut unknown);
        }
        self.symbolizer.learn(unknown);
    }

    /// Whether functions of a user stack are being read: they have names at a later moment.
    pub fn is_reading(&mut self, stack: Option<&Stack>) -> bool {
        if !self.symbolizer.is_busy() {
            return false;
        }
        let mut unknown = Unknown::default();
        self.gather(stack, &mut unknown);
        self.symbolizer.is_reading(&unknown)
    }

    /// Looks up user stacks alike, by identity.
    pub fn learn_stacks(&mut self, wanted: impl Iterator<Item = u64>, stacks: &HashMap<u64, Stack>) {
        let mut unknown = Unknown::default();
        for stack in wanted {
            self.gather(stacks.get(&stack), &mut unknown);
        }
        self.symbolizer.learn(unknown);
    }

    /// Looks up user stacks that go through one of these files, by number: afterwards their names are known without the files.
    pub fn learn_of_files(&mut self, files: &HashSet<u32>, stacks: &HashMap<u64, Stack>) {
        let mut unknown = Unknown::default();
        let is_in_one = |frame: &u64| matches!(UserFrame::of(*frame), UserFrame::InFile { file, .. } if files.contains(&file));
        for stack in stacks.values().filter(|stack| stack.frames.iter().any(is_in_one)) {
            self.gather(Some(stack), &mut unknown);
        }
        self.symbolizer.learn(unknown);
    }

    /// Whether a user stack goes through a file of which that is true, by its path.
    pub fn goes_through(&self, stack: &Stack, is_it: impl Fn(&[u8]) -> bool) -> bool {
        let mut files = lock(self.files);
        stack.frames.iter().any(|frame| match UserFrame::of(*frame) {
            UserFrame::InFile { file, .. } => files.get(file).is_some_and(|known| is_it(&known.path)),
            _ => false,
        })
    }

    /// Notes what of a user stack is not known yet.
    fn gather(&mut self, stack: Option<&Stack>, unknown: &mut Unknown) {
        if let Some(stack) = stack {
            self.symbolizer.gather_user(&stack.frames, self.files, unknown);
        }
    }

    /// A symboliser with its defaults. Says what it will not be able to name.
    #[must_use]
    pub fn symbolizer(functions: Arc<Mutex<Functions>>) -> Symbolizer {
        let mut symbolizer = Symbolizer::new(SymbolizerOptions::default()).with_functions(functions);
        if let Some(warning) = symbolizer.kernel_warning() {
            log::warn!("{warning}");
        }
        symbolizer
    }
}

impl Symbols for Names<'_> {
    fn user(&mut self, process: &ProcessRecord, stack: Option<&Stack>) -> Resolved {
        let Some(stack) = stack else { return Resolved { frames: Vec::new(), status: "none".to_owned() } };
        let traced = Traced { tgid: process.tgid, since_ns: process.first_seen_ns, has_ended: is_gone(process) };
        let UserStack { frames, status } = self.symbolizer.user_stack(traced, &stack.frames, stack.status, self.files);
        Resolved { frames: frames.into_iter().rev().map(|frame| frame.name.as_ref().to_owned()).collect(), status: status.text() }
    }

    fn kernel(&mut self, stack: &Stack) -> Vec<String> {
        let mut names: Vec<String> = self.symbolizer.kernel(&stack.frames).iter().map(|frame| frame.name.as_ref().to_owned()).collect();
        names.drain(..tracing_frames(&names));
        names.reverse();
        names
    }

    fn place(&mut self, path: &[u8], offset: u64) -> Option<u64> {
        let file = lock(self.files).number_of(path)?;
        Some(UserFrame::InFile { file, offset }.number())
    }

    fn comm(&mut self, process: &ProcessRecord) -> String {
        comm::text(&process.comm)
    }

    fn thread(&mut self, process: &ProcessRecord, tid: u32, at_ns: u64) -> Option<String> {
        if is_gone(process) {
            return None;
        }
        thread::name_at(process.tgid, tid, at_ns)
    }

    fn is_gone(&mut self, process: &ProcessRecord) -> bool {
        is_gone(process)
    }

    fn binaries(&self) -> Vec<BinaryRow> {
        let kernel = BinaryRow { path: BinaryRow::KERNEL.to_owned(), build_id: elf::build_id_of_kernel(), ..BinaryRow::default() };
        let files = self.symbolizer.binaries().into_iter();
        files.map(|Binary { path, build_id, frames, code }| BinaryRow { path, build_id, frames, code }).chain([kernel]).collect()
    }
}

/// What names are missing for so far, by cause.
#[must_use]
pub fn losses(symbolizer: &Symbolizer) -> BTreeMap<String, Option<u64>> {
    symbolizer.counters().losses().into_iter().map(|(cause, count)| (cause.to_owned(), Some(count))).collect()
}

/// Whether the process image has ended.
#[must_use]
pub fn is_gone(process: &ProcessRecord) -> bool {
    process.ended_ns != 0
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
