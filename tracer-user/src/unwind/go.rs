//! Rules for Go code. The compiler tells for each instruction how large the frame is; the frame pointer is saved at its top. Pure.
//!
//! Go changes stacks: what a goroutine asks of the runtime's own stack, or of C, stands there without a way back in the tables. The functions
//! that change them leave the frame pointer as it is, that of the function by which they were called, so that the walk goes on with that one's
//! caller ([`kind::OTHER_STACK`]); of the function itself nothing says where in it the call was. `morestack` is called before its caller
//! has a frame pointer of its own: there two functions are left out, the one whose stack is too small and the one that called it.

use crate::host::pclntab::{ASSEMBLY, Function, Pclntab, TOP_FRAME, WRITES_SP};
use tracer_common::unwind::{Rule, kind, register, saved};

/// Go on on another stack with the frame pointer of their caller (Go's `src/runtime/asm_amd64.s`).
const OTHER_STACK: [&str; 4] = ["runtime.systemstack", "runtime.asmcgocall", "runtime.mcall", "runtime.morestack"];
/// What signal handlers return to (`src/runtime/sys_linux_amd64.s`).
const SIGNAL: [&str; 2] = ["runtime.sigreturn", "runtime.sigreturn__sigaction"];
/// No frame is as large: Go's compiler refuses them from 10 MB on.
const MOST_FRAME: i32 = 1 << 24;

/// Tells from which address on which rule is in force.
pub fn rows(table: &Pclntab, mut row: impl FnMut(u64, Rule)) {
    for function in table.functions().filter(|function| function.start < function.end) {
        let name = table.name(&function).unwrap_or_default();
        let name = name.strip_suffix(".abi0").unwrap_or(&name);
        if SIGNAL.contains(&name) {
            // Nothing calls it: the address to which a handler returns is its first, and the one before is looked up.
            row(function.start.saturating_sub(1), Rule::of_kind(kind::SIGNAL));
            row(function.start, Rule::of_kind(kind::SIGNAL));
        } else if let Some(kind) = of_all(name, &function) {
            row(function.start, Rule::of_kind(kind));
        } else {
            for (from, size) in table.frame_sizes(&function) {
                row(from, rule(size, function.flags & ASSEMBLY != 0));
            }
        }
        row(function.end, Rule::default());
    }
}

/// A kind of rule that holds for the whole function.
fn of_all(name: &str, function: &Function) -> Option<u8> {
    if OTHER_STACK.contains(&name) {
        Some(kind::OTHER_STACK)
    } else if function.flags & TOP_FRAME != 0 {
        Some(kind::ROOT)
    } else if function.flags & WRITES_SP != 0 {
        Some(kind::UNSUPPORTED)
    } else {
        None
    }
}

/// The rule for a frame of that size.
fn rule(size: i32, is_assembly: bool) -> Rule {
    if !(0..MOST_FRAME).contains(&size) {
        return Rule::of_kind(kind::UNSUPPORTED);
    }
    let (frame_pointer, bp) = match (size, is_assembly) {
        (0, _) => (saved::SAME, 0),
        // It may have pushed anything.
        (_, true) => (saved::LOST, 0),
        (_, false) => (saved::FROM_CFA, -16),
    };
    Rule { kind: kind::REGISTER, base: register::SP, cfa: size + 8, ra: -8, frame_pointer, bp, ..Rule::default() }
}
