//! Whether a user stack reaches the beginning of its thread. Pure.
//!
//! A walk by tables says so itself. Frame-pointer walks end in order also where code without frame pointers broke the chain, so that the end itself has to be
//! recognised. Evidence, glibc 2.36 (Debian 12), C with `-fno-omit-frame-pointer`, stacks taken with `perf record -e page-faults -c 1
//! --call-graph fp`; outermost frames seen:
//! - main thread, dynamic: `__libc_start_call_main` after `main` in 1201 of 1201 stacks of the program's own code; `_start` never;
//! - main thread, static: the same frame, then what happened to be in rbp: `__do_global_dtors_aux` and an address in no mapping. So
//!   the root ends the stack wherever it stands, and what lies beyond it is dropped;
//! - pthread, static and dynamic, C, Rust and JVM (after `thread_native_entry` and `ThreadJavaMain`): `start_thread`; `clone3` never;
//! - the dynamic loader before `main`: `_dl_start_user`;
//! - a child of fork: as its parent's.
//!
//! Both glibc functions are local and stripped libraries do not name them, so that the code around the return address is
//! recognised too: see [`is_root_call`].
//!
//! Known limit: a function without frame pointers that is called from one with them (malloc, memset) hides its caller when the
//! walk starts in it: rbp still is the caller's, whose own return address is taken for the next frame.

use super::{Frame, FrameKind};
use crate::kernel_half::stack::Walked;
use tracer_common::unwind::End;

/// How far a stack can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Reaches the beginning of the thread.
    Complete,
    /// Does not, and why.
    Cut(&'static str),
    /// There is no user stack.
    None,
}

impl Status {
    /// The word of the reports.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Status::Complete => "complete".to_owned(),
            Status::Cut(reason) => format!("cut: {reason}"),
            Status::None => "none".to_owned(),
        }
    }
}

/// What stands at one recorded address.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The outermost function there.
    pub frame: &'a Frame,
    /// It lies in an executable mapping.
    pub mapped: bool,
    /// The code there calls a thread's first function (see [`is_root_call`]).
    pub root_call: bool,
}

/// The status of a stack and how many of its addresses are real, innermost first: what lies beyond the root, and addresses in no
/// mapping at the outer end, are what a register happened to hold.
#[must_use]
pub fn judge_user_stack(places: &[Place<'_>], walked: Walked) -> (Status, usize) {
    if walked == Walked::None || places.is_empty() {
        return (Status::None, 0);
    }
    // The frames behind a thread's first function are the C library's start: with and without them a stack is the same.
    if walked == Walked::Root {
        return (Status::Complete, root_of(places).map_or(places.len(), |root| root + 1));
    }
    if let Walked::Cut(end) = walked {
        // Start code has no description in some C libraries, and nothing calls it.
        let is_root = places.last().is_some_and(|place| place.mapped && is_named_root(place.frame));
        return (if is_root { Status::Complete } else { Status::Cut(reason(end)) }, places.len());
    }
    if let Some(root) = root_of(places) {
        // The caller of a function that had not set its frame pointer yet may be missing.
        return (if walked == Walked::Guessed { Status::Cut(GUESSED) } else { Status::Complete }, root + 1);
    }
    if walked == Walked::TooDeep {
        return (Status::Cut("too deep"), places.len());
    }
    let real = places.iter().rposition(|place| place.mapped).map_or(0, |last| last + 1);
    (Status::Cut("no frame pointers"), real.max(1))
}

/// The first frame that is a thread's first function. The innermost one is where the walk began, not a return address: a program's first
/// instruction is a root by name only.
fn root_of(places: &[Place<'_>]) -> Option<usize> {
    places.iter().enumerate().position(|(n, place)| place.mapped && (is_named_root(place.frame) || (place.root_call && n > 0)))
}

/// Why a stack whose first step was a guess is none to rely on.
const GUESSED: &str = "guessed by frame pointers";

/// Why a walk by tables ended before a root.
fn reason(end: End) -> &'static str {
    match end {
        End::NoMapping => "return address outside of code",
        End::NoTable => "no table for its code yet",
        End::NoRow => "code without description",
        End::Unsupported => "frame cannot be followed",
        End::Fault => "stack not in memory",
        End::BadFrame => "frames out of order",
        End::TooDeep => "too deep",
        End::Busy => "address space was changing",
        End::NoFile => "generated code",
        End::Chain | End::NoRegisters | End::Not | End::Root => "no frame pointers",
    }
}

fn is_named_root(frame: &Frame) -> bool {
    frame.kind == FrameKind::User && is_thread_root(&frame.name)
}

/// Functions that nothing calls.
fn is_thread_root(name: &str) -> bool {
    // glibc has a name per generation of its start code: __libc_start_main_impl, __libc_start_main@@GLIBC_2.34, ...
    name.starts_with("__libc_start_main")
        || matches!(
            name,
            "_start"
                | "__libc_start_call_main"
                | "_dl_start_user"
                | "start_thread"
                | "clone"
                | "__clone"
                | "clone3"
                | "__clone3"
                // musl
                | "_start_c"
                | "libc_start_main_stage2"
                | "start"
                | "start_c11"
                // Go
                | "runtime.goexit"
                | "runtime.goexit.abi0"
                | "runtime.rt0_go"
                | "runtime.rt0_go.abi0"
                | "runtime.mstart"
                | "runtime.mstart.abi0"
                | "_rt0_amd64"
                | "_rt0_amd64_linux"
        )
}

/// Whether a return address follows the call of a thread's first function, in C libraries whose symbols are stripped (x86_64):
/// told by the code around it, since the names are local.
///
/// - glibc `__libc_start_call_main` and musl, `exit(main(...))`: indirect call; `mov %eax,%edi`; `call`
/// - musl `start`, `pthread_exit(f(arg))`: indirect call; `mov %rax,%rdi`; `call`
/// - glibc `start_thread` up to 2.31, `pd->result = f(arg)`: indirect call; `mov %rax,%fs:0x...`
/// - glibc `start_thread` 2.36, `pd->start_routine(pd->arg)`: `mov 0x640(%r),%rdi`; `call *0x638(%r)`, far inside of a large struct
#[must_use]
pub fn is_root_call(before: &[u8; BEFORE_BYTES], after: &[u8; AFTER_BYTES]) -> bool {
    let tail = &before[BEFORE_BYTES - 8..];
    // call *%reg is ff d0..d7; call *disp(...) and call *%fs:disp are longer: ff with /2 and a memory operand.
    let with_register = tail[6] == 0xff && (0xd0..=0xd7).contains(&tail[7]);
    let with_memory = (1..7).any(|at| tail[at] == 0xff && tail[at + 1] & 0x38 == 0x10 && tail[at + 1] & 0xc0 != 0xc0);
    let calls_exit = after.starts_with(&[0x89, 0xc7, 0xe8]) || after.starts_with(&[0x48, 0x89, 0xc7, 0xe8]);
    let stores_result = after.starts_with(&[0x64, 0x48, 0x89, 0x04, 0x25]);
    ((with_register || with_memory) && (calls_exit || stores_result)) || calls_thread_routine(before)
}

/// Bytes looked at before a return address.
pub const BEFORE_BYTES: usize = 14;
/// Bytes looked at from it on.
pub const AFTER_BYTES: usize = 9;

fn calls_thread_routine(before: &[u8; BEFORE_BYTES]) -> bool {
    // Without and with the prefix for r8 to r15.
    let (load, call) = match before {
        [_, 0x48, 0x8b, load, _, _, _, _, 0xff, call, ..] | [0x49, 0x8b, load, _, _, _, _, 0x41, 0xff, call, ..] => (load, call),
        _ => return false,
    };
    let with_prefix = before[0] == 0x49 && before[1] == 0x8b;
    let displacement = |at: usize| u32::from_le_bytes([before[at], before[at + 1], before[at + 2], before[at + 3]]);
    let (argument, routine) = (displacement(if with_prefix { 3 } else { 4 }), displacement(10));
    load & 0xf8 == 0xb8 && call & 0xf8 == 0x90 && load & 7 == call & 7 && routine.checked_add(8) == Some(argument) && routine >= 0x400
}

/// Whether a file can hold the code that [`is_root_call`] knows: a C library. Elsewhere the same bytes mean nothing.
#[must_use]
pub fn is_c_library(base_name: &[u8]) -> bool {
    [&b"libc.so"[..], b"libc-2.", b"libpthread", b"ld-musl", b"libc.musl"].iter().any(|prefix| base_name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(names: &[&str], walked: Walked) -> (Status, usize) {
        let kind = |name: &str| if name.starts_with('[') { FrameKind::Unknown } else { FrameKind::User };
        let frames: Vec<Frame> = names.iter().map(|name| Frame::new(kind(name), name)).collect();
        let place = |frame| Place { frame, mapped: &*frame.name != "[unknown]", root_call: &*frame.name == "[libc.so.6+0x2724a]" };
        let places: Vec<Place<'_>> = frames.iter().map(place).collect();
        judge_user_stack(&places, walked)
    }

    #[test]
    fn roots_complete_a_stack_and_what_lies_beyond_is_dropped() {
        assert_eq!(judge(&["f", "main", "__libc_start_call_main"], Walked::Ended), (Status::Complete, 3));
        assert_eq!(judge(&["f", "[x+0x1]", "start_thread"], Walked::Ended), (Status::Complete, 3));
        assert_eq!(judge(&["f", "main", "[libc.so.6+0x2724a]"], Walked::Ended), (Status::Complete, 3));
        let beyond = ["main", "__libc_start_call_main", "__do_global_dtors_aux", "[unknown]"];
        assert_eq!(judge(&beyond, Walked::Ended), (Status::Complete, 2));
        assert_eq!(judge(&["_start"], Walked::Ended), (Status::Complete, 1));
    }

    #[test]
    fn stacks_without_a_root_are_cut_with_the_reason() {
        let cut = Status::Cut("no frame pointers");
        assert_eq!(judge(&["_int_malloc", "[unknown]", "[unknown]"], Walked::Ended), (cut, 1));
        assert_eq!(judge(&["f", "main"], Walked::Ended), (cut, 2));
        assert_eq!(judge(&["[libc.so.6+0x2724a]"], Walked::Ended), (cut, 1), "nothing was called from there");
        assert_eq!(judge(&["[unknown]"], Walked::Ended), (cut, 1));
        assert_eq!(judge(&["f", "f", "f"], Walked::TooDeep), (Status::Cut("too deep"), 3));
        assert_eq!(judge(&[], Walked::None), (Status::None, 0));
        assert_eq!(judge(&["restart", "main.start"], Walked::Ended), (cut, 2));
    }

    #[test]
    fn a_walk_by_tables_says_itself_how_far_it_came() {
        assert_eq!(judge(&["f", "[x+0x1]"], Walked::Root), (Status::Complete, 2));
        assert_eq!(judge(&["f", "main", "__libc_start_call_main", "_start"], Walked::Root), (Status::Complete, 3));
        assert_eq!(judge(&["f", "main"], Walked::Cut(End::Fault)), (Status::Cut("stack not in memory"), 2));
        assert_eq!(judge(&["f", "_dl_start_user"], Walked::Cut(End::NoRow)), (Status::Complete, 2));
        assert_eq!(judge(&["_start", "f"], Walked::Cut(End::NoRow)), (Status::Cut("code without description"), 2));
        assert_eq!(judge(&["f", "[unknown]"], Walked::Cut(End::NoTable)), (Status::Cut("no table for its code yet"), 2));
        let reasons: std::collections::BTreeSet<_> = End::ALL.map(reason).into();
        assert_eq!(reasons.len(), 10);
    }

    #[test]
    fn a_guess_is_not_whole_and_its_frames_end_at_the_root() {
        let guessed = Status::Cut("guessed by frame pointers");
        assert_eq!(judge(&["f", "main", "__libc_start_call_main", "x"], Walked::Guessed), (guessed, 3));
        assert_eq!(judge(&["f", "main"], Walked::Guessed), (Status::Cut("no frame pointers"), 2));
    }

    #[test]
    fn code_of_stripped_libraries() {
        // glibc 2.36: mov 0x8(%rsp),%rax; call *%rax; mov %eax,%edi; call exit
        let start = [0x48, 0x8b, 0x74, 0x24, 0x18, 0x90, 0x90, 0x48, 0x8b, 0x44, 0x24, 0x08, 0xff, 0xd0];
        assert!(is_root_call(&start, &[0x89, 0xc7, 0xe8, 1, 2, 3, 4, 0, 0]));
        assert!(!is_root_call(&start, &[0x48, 0x89, 0xd8, 0x5b, 0xc3, 0, 0, 0, 0]));
        // glibc up to 2.31: call *%fs:0x640; mov %rax,%fs:0x630
        let thread = [0, 0, 0, 0, 0, 0, 0x64, 0xff, 0x14, 0x25, 0x40, 0x06, 0x00, 0x00];
        assert!(is_root_call(&thread, &[0x64, 0x48, 0x89, 0x04, 0x25, 0x30, 0x06, 0, 0]));
        // glibc 2.36: mov 0x640(%rax),%rdi; call *0x638(%rax); jmp
        let jump = [0xe9, 0x28, 0xfe, 0xff, 0xff, 0x48, 0x8b, 0x4c, 0x24];
        let thread = [0x08, 0x48, 0x8b, 0xb8, 0x40, 0x06, 0, 0, 0xff, 0x90, 0x38, 0x06, 0, 0];
        assert!(is_root_call(&thread, &jump));
        let with_r12 = [0x49, 0x8b, 0xbd, 0x40, 0x06, 0, 0, 0x41, 0xff, 0x95, 0x38, 0x06, 0, 0];
        assert!(is_root_call(&with_r12, &jump));
        // A callback of a small struct, and one whose argument lies elsewhere.
        let callback = [0x08, 0x48, 0x8b, 0xb8, 0x40, 0, 0, 0, 0xff, 0x90, 0x38, 0, 0, 0];
        let apart = [0x08, 0x48, 0x8b, 0xb8, 0x50, 0x06, 0, 0, 0xff, 0x90, 0x38, 0x06, 0, 0];
        assert!(!is_root_call(&callback, &jump) && !is_root_call(&apart, &jump));
        let ordinary = [0, 0, 0, 0, 0, 0, 0x90, 0x90, 0x90, 0xe8, 1, 2, 3, 4];
        assert!(!is_root_call(&ordinary, &[0x89, 0xc7, 0xe8, 1, 2, 3, 4, 0, 0]));
    }
}
