//! Checks of the finished eBPF object that need no kernel: what the verifier would refuse late, or on another kernel only.
//!
//! Never loads anything; that is what the native and VM tests do.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context as _, Result, bail, ensure};
use aya_obj::{Object, generated::bpf_insn};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use serde::{Deserialize, Serialize};

/// Instructions of a program as loaded, its subprograms included. The kernel's own bound since 5.2 is one million verified; this one keeps
/// programs reviewable. The largest is the one that describes an OOM kill.
const INSTRUCTION_BUDGET: usize = 14_336;
/// Bytes of stack along the deepest chain of calls (`MAX_BPF_STACK`).
const STACK_BUDGET: usize = 512;
/// Calls nested in each other (`MAX_CALL_FRAMES`).
const CALL_DEPTH: usize = 8;
/// Parts of symbol names that only panicking code has. A panic in the kernel half is an endless loop that the verifier refuses.
const PANICS: &[&str] = &["panicking", "panic_fmt", "core5panic", "core::panic", "rust_begin_unwind", "unwrap_failed", "expect_failed"];

/// What is worth knowing of one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramFacts {
    /// The section, which names the kind and place of attachment.
    pub section: String,
    /// Instructions, its functions included.
    pub instructions: usize,
    /// Bytes of stack along the deepest chain of calls, as far as it can be read from the instructions.
    pub stack_bytes: usize,
}

/// What is in an object.
#[derive(Debug)]
pub struct Contents {
    /// Programs by name.
    pub programs: BTreeMap<String, ProgramFacts>,
    /// Map names, sorted.
    pub maps: Vec<String>,
}

/// Checks `bytes` and lists what is in it. Every finding is reported, not just the first.
pub fn check(bytes: &[u8]) -> Result<Contents> {
    let elf = object::File::parse(bytes).context("not an ELF file")?;
    let mut findings = Vec::new();
    check_symbols(&elf, &mut findings)?;
    for name in [".BTF", ".BTF.ext"] {
        if elf.section_by_name(name).is_none_or(|section| section.size() == 0) {
            findings.push(format!("no {name} section"));
        }
    }

    let mut parsed = Object::parse(bytes).context("aya cannot read the object")?;
    let text: HashSet<usize> = parsed.functions.keys().map(|(section, _)| *section).collect();
    parsed.relocate_calls(&text).context("aya cannot link the object's functions")?;
    if parsed.programs.is_empty() {
        findings.push("no programs".to_owned());
    }
    let mut programs = BTreeMap::new();
    for (name, program) in &parsed.programs {
        let function = parsed.functions.get(&program.function_key()).with_context(|| format!("program {name} has no function"))?;
        let section = elf.section_by_index(object::SectionIndex(program.section_index))?.name()?.to_owned();
        let facts = program_facts(section, &function.instructions).with_context(|| format!("program {name}"))?;
        if facts.instructions > INSTRUCTION_BUDGET {
            findings.push(format!("program {name}: {} instructions, budget {INSTRUCTION_BUDGET}", facts.instructions));
        }
        if facts.stack_bytes > STACK_BUDGET {
            findings.push(format!("program {name}: {} bytes of stack, budget {STACK_BUDGET}", facts.stack_bytes));
        }
        programs.insert(name.clone(), facts);
    }
    let mut maps: Vec<String> = parsed.maps.keys().cloned().collect();
    maps.sort();
    ensure!(findings.is_empty(), "the eBPF object is not fit to be loaded:\n  {}", findings.join("\n  "));
    Ok(Contents { programs, maps })
}

fn check_symbols(elf: &object::File<'_>, findings: &mut Vec<String>) -> Result<()> {
    for symbol in elf.symbols() {
        let name = symbol.name().context("symbol without a name")?;
        if PANICS.iter().any(|part| name.contains(part)) {
            findings.push(format!("panicking code is left: {name}"));
        } else if symbol.is_undefined() && !name.is_empty() {
            findings.push(format!("undefined symbol: {name}"));
        }
    }
    Ok(())
}

const CLASS: u8 = 0x07;
const CLASS_LDX: u8 = 0x01;
const CLASS_ST: u8 = 0x02;
const CLASS_STX: u8 = 0x03;
const CLASS_ALU: u8 = 0x04;
const CLASS_ALU64: u8 = 0x07;
const LD_IMM64: u8 = 0x18;
const MOV64_REG: u8 = 0xbf;
const ADD64_IMM: u8 = 0x07;
const CALL: u8 = 0x85;
/// `src_reg` of a call to another function of the program, and of the address of one.
const PSEUDO_CALL: u8 = 1;
const PSEUDO_FUNC: u8 = 4;
const FRAME_POINTER: u8 = 10;

/// Facts of one program, whose functions follow it in `instructions` as the kernel will get them.
fn program_facts(section: String, instructions: &[bpf_insn]) -> Result<ProgramFacts> {
    ensure!(!instructions.is_empty(), "empty");
    let mut functions: BTreeMap<usize, Function> = BTreeMap::new();
    let starts: BTreeSet<usize> = std::iter::once(0).chain(instructions.iter().enumerate().filter_map(callee)).collect();
    let ends = starts.iter().copied().skip(1).chain([instructions.len()]);
    for (start, end) in starts.iter().copied().zip(ends) {
        let body = instructions.get(start..end).context("a call leaves the program")?;
        let callees = body.iter().enumerate().filter_map(|(at, insn)| callee((start + at, insn))).collect();
        functions.insert(start, Function { stack: stack_of(body), callees });
    }
    let stack_bytes = deepest(&functions, 0, 1)?;
    Ok(ProgramFacts { section, instructions: instructions.len(), stack_bytes })
}

struct Function {
    stack: usize,
    callees: BTreeSet<usize>,
}

/// The function that an instruction calls or takes the address of, as an index of its first instruction.
fn callee((at, insn): (usize, &bpf_insn)) -> Option<usize> {
    let calls = insn.code == CALL && insn.src_reg() == PSEUDO_CALL;
    let takes = insn.code == LD_IMM64 && insn.src_reg() == PSEUDO_FUNC;
    (calls || takes).then(|| at.checked_add_signed(insn.imm as isize + 1)).flatten()
}

/// Stack along the deepest chain of calls from `start`. Each frame counts as the kernel counts it: at least one byte, in steps of 32.
fn deepest(functions: &BTreeMap<usize, Function>, start: usize, depth: usize) -> Result<usize> {
    if depth > CALL_DEPTH {
        bail!("calls nest deeper than {CALL_DEPTH}");
    }
    let function = functions.get(&start).context("a call leaves the program")?;
    let mut below = 0;
    for callee in &function.callees {
        below = below.max(deepest(functions, *callee, depth + 1)?);
    }
    Ok(function.stack.max(1).next_multiple_of(32) + below)
}

/// Bytes below the frame pointer that a function touches, read in one pass: direct accesses, and addresses made by copying the
/// frame pointer and adding constants. An address that is computed otherwise is not seen; the verifier is the judge.
fn stack_of(body: &[bpf_insn]) -> usize {
    let mut offsets: [Option<i64>; 16] = [None; 16];
    offsets[usize::from(FRAME_POINTER)] = Some(0);
    let mut lowest = 0;
    for insn in body {
        let (dst, src) = (usize::from(insn.dst_reg()) & 15, usize::from(insn.src_reg()) & 15);
        let accessed = match insn.code & CLASS {
            CLASS_LDX => offsets[src],
            CLASS_ST | CLASS_STX => offsets[dst],
            _ => None,
        };
        if let Some(offset) = accessed {
            lowest = lowest.min(offset + i64::from(insn.off));
        }
        match insn.code {
            MOV64_REG if insn.off == 0 => offsets[dst] = offsets[src],
            ADD64_IMM => offsets[dst] = offsets[dst].map(|offset| offset + i64::from(insn.imm)),
            CALL => offsets[..6].fill(None),
            code if matches!(code & CLASS, CLASS_ALU | CLASS_ALU64 | CLASS_LDX) || code == LD_IMM64 => offsets[dst] = None,
            _ => {}
        }
        if insn.code == ADD64_IMM {
            lowest = lowest.min(offsets[dst].unwrap_or(0));
        }
    }
    usize::try_from(-lowest).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> bpf_insn {
        let mut insn = bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(dst, src), off, imm };
        insn.set_dst_reg(dst);
        insn
    }

    const EXIT: u8 = 0x95;
    const STXDW: u8 = 0x7b;

    #[test]
    fn stack_is_the_deepest_access_through_the_frame_pointer_or_a_copy() {
        assert_eq!(stack_of(&[insn(STXDW, 10, 1, -8, 0), insn(EXIT, 0, 0, 0, 0)]), 8);
        let copied = [insn(MOV64_REG, 2, 10, 0, 0), insn(ADD64_IMM, 2, 0, 0, -64), insn(STXDW, 2, 1, -8, 0)];
        assert_eq!(stack_of(&copied), 72);
        let lost = [insn(MOV64_REG, 2, 10, 0, 0), insn(LD_IMM64, 2, 0, 0, 5), insn(STXDW, 2, 1, -300, 0)];
        assert_eq!(stack_of(&lost), 0);
    }

    #[test]
    fn frames_add_up_along_calls_in_steps_of_32() {
        // main: 40 bytes, calls f at 3; f: 8 bytes.
        let code = [
            insn(STXDW, 10, 1, -40, 0),
            insn(CALL, 0, PSEUDO_CALL, 0, 1),
            insn(EXIT, 0, 0, 0, 0),
            insn(STXDW, 10, 1, -8, 0),
            insn(EXIT, 0, 0, 0, 0),
        ];
        let facts = program_facts("test".to_owned(), &code).expect("a valid program");
        assert_eq!((facts.instructions, facts.stack_bytes), (5, 64 + 32));
    }

    #[test]
    fn recursion_and_calls_out_of_the_program_are_errors() {
        let recursion = [insn(CALL, 0, PSEUDO_CALL, 0, -1), insn(EXIT, 0, 0, 0, 0)];
        assert!(program_facts("test".to_owned(), &recursion).is_err());
        let outside = [insn(CALL, 0, PSEUDO_CALL, 0, 100), insn(EXIT, 0, 0, 0, 0)];
        assert!(program_facts("test".to_owned(), &outside).is_err());
        assert!(program_facts("test".to_owned(), &[]).is_err());
    }

    #[test]
    fn bytes_that_are_no_object_are_refused() {
        assert!(check(b"").is_err());
        assert!(check(b"\x7fELF but no more").is_err());
    }
}
