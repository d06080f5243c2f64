//! One frame to the next. The kernel half runs this at a sample, and tests run it over memory that they made.

use super::{Rule, kind, saved};
use crate::managed::hotspot::interpreted::SENDER;

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum End {
    /// It did not.
    Not = 0,
    /// Nothing called the outermost frame: a rule says so.
    Root = 1,
    /// A return address lies in no executable mapping.
    NoMapping = 2,
    /// There is no table for the file, and no frame pointer either.
    NoTable = 3,
    /// The file's table says nothing of the code, and there is no frame pointer.
    NoRow = 4,
    /// The rule is none that can be followed.
    Unsupported = 5,
    /// The stack cannot be read.
    Fault = 6,
    /// The frame does not lie above the one before.
    BadFrame = 7,
    /// More frames than are recorded.
    TooDeep = 8,
    /// The task has no registers of user space.
    NoRegisters = 9,
    /// The chain of frame pointers ended.
    Chain = 10,
    /// The task's address space was being changed.
    Busy = 11,
    /// Code without a file, and no frame pointer.
    NoFile = 12,
}

impl End {
    /// All of them, by number.
    pub const ALL: [End; 13] = [
        End::Not,
        End::Root,
        End::NoMapping,
        End::NoTable,
        End::NoRow,
        End::Unsupported,
        End::Fault,
        End::BadFrame,
        End::TooDeep,
        End::NoRegisters,
        End::Chain,
        End::Busy,
        End::NoFile,
    ];
}

/// The stack that is walked.
pub trait Memory {
    /// Whether the word at that address could be read. [`Memory::value`] then is what stands there.
    fn read(&mut self, address: u64) -> bool;
    /// The last word.
    fn value(&self) -> u64;
}

/// Where a walk stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// Program counter.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
    /// 1: the frame pointer is that of the frame.
    pub bp_known: u64,
    /// 1: `pc` is where a call returns to, so that the instruction before says where the frame stands; 0: it was interrupted there.
    pub returns: u64,
}

/// Offsets from the stack pointer of a signal's trampoline to what was interrupted: `struct ucontext` and in it `struct sigcontext`
/// (arch/x86/include/uapi/asm/sigcontext.h), 40 bytes in.
const SIGNAL_BP: u64 = 40 + 80;
const SIGNAL_SP: u64 = 40 + 120;
const SIGNAL_PC: u64 = 40 + 128;

/// Goes to the caller by a rule. `base` is what the rule's base register holds, `return_register` what its return register does: for rules
/// that have another than rsp and rbp, or have one, the caller has looked whether these are known.
#[inline(always)]
pub fn by_rule(rule: &Rule, base: u64, return_register: u64, registers: &mut Registers, memory: &mut impl Memory) -> End {
    if rule.kind == kind::ROOT {
        return End::Root;
    }
    if rule.kind == kind::SIGNAL {
        return out_of_signal(registers, memory);
    }
    if rule.kind == kind::OTHER_STACK {
        return onto_other_stack(registers, memory);
    }
    if rule.kind == kind::INTERPRETED {
        return out_of_interpreter(registers, memory);
    }
    let mut cfa = base.wrapping_add(rule.cfa as i64 as u64);
    if rule.kind == kind::PLT || rule.kind == kind::PLT_AFTER_ENDBR {
        // The entry pushes a number: before that the return address is on top, after it one word below.
        let pushed = if rule.kind == kind::PLT { 11 } else { 10 };
        cfa = registers.sp.wrapping_add(if registers.pc & 15 >= pushed { 16 } else { 8 });
    } else if rule.kind == kind::MEMORY {
        if !memory.read(cfa) {
            return End::Fault;
        }
        cfa = memory.value().wrapping_add(rule.then as i64 as u64);
    } else if rule.kind != kind::REGISTER {
        return End::Unsupported;
    }
    // Return addresses stand below the CFA and above what the callee used.
    if cfa <= registers.sp || cfa & 7 != 0 {
        return End::BadFrame;
    }
    let bp = rule.bp as i64 as u64;
    let old = registers.bp;
    let is_saved = rule.frame_pointer == saved::FROM_CFA || rule.frame_pointer == saved::FROM_BP;
    if is_saved {
        let at = if rule.frame_pointer == saved::FROM_CFA { cfa } else { old };
        if !memory.read(at.wrapping_add(bp)) {
            return End::Fault;
        }
        registers.bp = memory.value();
        registers.bp_known = 1;
    } else if rule.frame_pointer != saved::SAME {
        registers.bp_known = 0;
    }
    if rule.return_register != 0 {
        registers.pc = return_register;
    } else {
        if !memory.read(cfa.wrapping_add(rule.ra as i64 as u64)) {
            return End::Fault;
        }
        registers.pc = memory.value();
    }
    registers.sp = cfa;
    registers.returns = 1;
    End::Not
}

/// Goes to what a signal interrupted. That may be on another stack, below this one.
#[inline(always)]
fn out_of_signal(registers: &mut Registers, memory: &mut impl Memory) -> End {
    let frame = registers.sp;
    if !memory.read(frame.wrapping_add(SIGNAL_BP)) {
        return End::Fault;
    }
    registers.bp = memory.value();
    registers.bp_known = 1;
    if !memory.read(frame.wrapping_add(SIGNAL_PC)) {
        return End::Fault;
    }
    registers.pc = memory.value();
    if !memory.read(frame.wrapping_add(SIGNAL_SP)) {
        return End::Fault;
    }
    registers.sp = memory.value();
    registers.returns = 0;
    End::Not
}

/// Goes to the caller by the frame pointer, where no rule is known.
#[inline(always)]
pub fn by_frame_pointer(registers: &mut Registers, memory: &mut impl Memory) -> End {
    let frame = registers.bp;
    if registers.bp_known == 0 || frame == 0 {
        return End::Chain;
    }
    if frame < registers.sp || frame & 7 != 0 {
        return End::Chain;
    }
    if through_frame(frame, registers, memory) { End::Not } else { End::Chain }
}

/// Goes on where the frame pointer says, wherever that is.
#[inline(always)]
fn onto_other_stack(registers: &mut Registers, memory: &mut impl Memory) -> End {
    let frame = registers.bp;
    if registers.bp_known == 0 || frame == 0 || frame & 7 != 0 {
        return End::Unsupported;
    }
    if through_frame(frame, registers, memory) { End::Not } else { End::Fault }
}

/// Goes to the caller of a method that HotSpot interprets. Between the two frames its arguments and variables stand, so that where the caller's stack
/// ends is kept in the frame.
#[inline(always)]
fn out_of_interpreter(registers: &mut Registers, memory: &mut impl Memory) -> End {
    let frame = registers.bp;
    if registers.bp_known == 0 {
        return End::Unsupported;
    }
    if frame < registers.sp || frame & 7 != 0 {
        return End::BadFrame;
    }
    if !memory.read(frame.wrapping_add_signed(SENDER)) {
        return End::Fault;
    }
    let mut sender = memory.value();
    // The linkers of method handles take the last argument away, and put the return address in its place.
    if sender == frame.wrapping_add(8) {
        sender = frame.wrapping_add(16);
    }
    if sender < frame.wrapping_add(16) || sender <= registers.sp || sender & 7 != 0 {
        return End::BadFrame;
    }
    if !through_frame(frame, registers, memory) {
        return End::Fault;
    }
    registers.sp = sender;
    End::Not
}

/// Goes to the caller of the function whose frame pointer that is; whether that could be read.
#[inline(always)]
fn through_frame(frame: u64, registers: &mut Registers, memory: &mut impl Memory) -> bool {
    // The return address first: it is the one that must be there.
    if !memory.read(frame.wrapping_add(8)) {
        return false;
    }
    let pc = memory.value();
    if !memory.read(frame) {
        return false;
    }
    registers.bp = memory.value();
    registers.pc = pc;
    registers.sp = frame.wrapping_add(16);
    registers.returns = 1;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::register;

    /// Words from an address on.
    struct Stack<'a> {
        at: u64,
        words: &'a [u64],
        value: u64,
    }

    impl Memory for Stack<'_> {
        fn read(&mut self, address: u64) -> bool {
            let index = address.wrapping_sub(self.at) / 8;
            let word = usize::try_from(index).ok().and_then(|index| self.words.get(index));
            self.value = word.copied().unwrap_or(0);
            word.is_some()
        }
        fn value(&self) -> u64 {
            self.value
        }
    }

    const AT: u64 = 0x7ffc_0000_1000;

    fn stack(words: &[u64]) -> Stack<'_> {
        Stack { at: AT, words, value: 0 }
    }

    fn at(pc: u64, sp: u64, bp: u64) -> Registers {
        Registers { pc, sp, bp, bp_known: 1, returns: 0 }
    }

    fn called(pc: u64, sp: u64, bp: u64) -> Registers {
        Registers { returns: 1, ..at(pc, sp, bp) }
    }

    const PLAIN: Rule =
        Rule { cfa: 8, bp: 0, ra: -8, then: 0, kind: kind::REGISTER, base: register::SP, frame_pointer: saved::SAME, return_register: 0 };

    #[test]
    fn a_plain_frame_gives_its_return_address_and_a_saved_frame_pointer() {
        // push %rbp; sub $8: the frame is three words.
        let words = [1, 0xb0b, 0x40_1000, 2];
        let mut registers = at(0x40_2000, AT, 7);
        let pushed = Rule { cfa: 24, bp: -16, frame_pointer: saved::FROM_CFA, ..PLAIN };
        assert_eq!(by_rule(&pushed, AT, 0, &mut registers, &mut stack(&words)), End::Not);
        assert_eq!(registers, called(0x40_1000, AT + 24, 0xb0b));
        let mut registers = at(0x40_2000, AT + 16, 7);
        assert_eq!(by_rule(&PLAIN, AT + 16, 0, &mut registers, &mut stack(&words)), End::Not);
        assert_eq!(registers, called(0x40_1000, AT + 24, 7), "an unsaved frame pointer is the caller's");
    }

    #[test]
    fn a_lost_frame_pointer_is_not_known_until_it_is_read_again() {
        let words = [0x40_1000, 5, 0x40_1100];
        let mut registers = at(0x40_2000, AT, 7);
        let lost = Rule { frame_pointer: saved::LOST, ..PLAIN };
        assert_eq!(by_rule(&lost, AT, 0, &mut registers, &mut stack(&words)), End::Not);
        assert_eq!((registers.bp_known, by_frame_pointer(&mut registers, &mut stack(&words))), (0, End::Chain));
        let again = Rule { cfa: 16, bp: -16, frame_pointer: saved::FROM_CFA, ..PLAIN };
        assert_eq!(by_rule(&again, registers.sp, 0, &mut registers, &mut stack(&words)), End::Not);
        assert_eq!(registers, called(0x40_1100, AT + 24, 5));
    }

    #[test]
    fn an_aligned_frame_is_found_through_memory() {
        // CFA: *(rbp - 8); rbp: *(rbp).
        let words = [AT + 40, 0xb0b, 3, 4, 0x40_1000];
        let mut registers = at(0x40_2000, AT, AT + 8);
        let aligned = Rule { cfa: -8, kind: kind::MEMORY, base: register::BP, frame_pointer: saved::FROM_BP, ..PLAIN };
        assert_eq!(by_rule(&aligned, AT + 8, 0, &mut registers, &mut stack(&words)), End::Not);
        assert_eq!(registers, called(0x40_1000, AT + 40, 0xb0b));
        let mut registers = at(0x40_2000, AT, AT + 8);
        let further = Rule { then: -8, ra: 0, ..aligned };
        assert_eq!(by_rule(&further, AT + 8, 0, &mut registers, &mut stack(&words)), End::Not);
        assert_eq!((registers.pc, registers.sp), (0x40_1000, AT + 32));
    }

    #[test]
    fn an_entry_of_a_linkage_table_has_one_word_or_two() {
        let words = [9, 0x40_1000, 0x40_1100];
        for (kind, pushed) in [(kind::PLT, 11), (kind::PLT_AFTER_ENDBR, 10)] {
            let rule = Rule { kind, ..PLAIN };
            for place in 0..16 {
                let mut registers = at(0x40_2000 + place, AT + 8, 7);
                assert_eq!(by_rule(&rule, AT + 8, 0, &mut registers, &mut stack(&words)), End::Not);
                let expected = if place < pushed { (0x40_1000, AT + 16) } else { (0x40_1100, AT + 24) };
                assert_eq!((registers.pc, registers.sp), expected, "{kind} at {place}");
            }
        }
    }

    #[test]
    fn what_a_signal_interrupted_is_where_it_was_and_may_lie_below() {
        let mut words = [0; 32];
        words[SIGNAL_BP as usize / 8] = 0xb0b;
        words[SIGNAL_SP as usize / 8] = AT - 0x1_0000;
        words[SIGNAL_PC as usize / 8] = 0x40_1234;
        let mut registers = called(0x40_9000, AT, 7);
        let rule = Rule { kind: kind::SIGNAL, ..PLAIN };
        assert_eq!(by_rule(&rule, 0, 0, &mut registers, &mut stack(&words)), End::Not);
        assert_eq!(registers, at(0x40_1234, AT - 0x1_0000, 0xb0b));
        for missing in [16, 21, 20] {
            let mut registers = called(0x40_9000, AT, 7);
            assert_eq!(by_rule(&rule, 0, 0, &mut registers, &mut stack(&words[..missing])), End::Fault, "{missing}");
        }
    }

    #[test]
    fn a_return_address_in_a_register_is_taken_from_there() {
        let mut registers = at(0x40_2000, AT, 7);
        let vfork = Rule { return_register: 14, ..PLAIN };
        assert_eq!(by_rule(&vfork, AT, 0x40_7777, &mut registers, &mut stack(&[0])), End::Not);
        assert_eq!(registers, called(0x40_7777, AT + 8, 7));
    }

    #[test]
    fn another_stack_is_entered_by_the_frame_pointer_and_may_lie_below() {
        let words = [0xb0b, 0x40_1000];
        let rule = Rule { kind: kind::OTHER_STACK, ..PLAIN };
        let mut registers = called(0x40_2000, AT + 0x1_0000, AT);
        assert_eq!(by_rule(&rule, 0, 0, &mut registers, &mut stack(&words)), End::Not);
        assert_eq!(registers, called(0x40_1000, AT + 16, 0xb0b));
        for (bp, known, end) in
            [(AT, 0, End::Unsupported), (0, 1, End::Unsupported), (AT + 4, 1, End::Unsupported), (AT + 8, 1, End::Fault)]
        {
            let mut registers = Registers { bp_known: known, ..called(0x40_2000, AT, bp) };
            assert_eq!(by_rule(&rule, 0, 0, &mut registers, &mut stack(&words)), end, "{bp:x}");
        }
    }

    #[test]
    fn an_interpreted_method_says_where_its_callers_stack_ends() {
        // The caller's stack pointer, the frame pointer, the return address, and two words of arguments.
        let words = [AT + 40, 0xb0b, 0x40_1000, 8, 9, 0];
        let rule = Rule { kind: kind::INTERPRETED, ..PLAIN };
        let mut registers = called(0x40_2000, AT, AT + 8);
        assert_eq!(by_rule(&rule, 0, 0, &mut registers, &mut stack(&words)), End::Not);
        assert_eq!(registers, called(0x40_1000, AT + 40, 0xb0b));
        let words = [AT + 16, 0xb0b, 0x40_1000, 8, 9, 0];
        let mut registers = called(0x40_2000, AT, AT + 8);
        assert_eq!(by_rule(&rule, 0, 0, &mut registers, &mut stack(&words)), End::Not);
        assert_eq!(registers, called(0x40_1000, AT + 24, 0xb0b), "through a linker of method handles");
        for (sender, bp, known, end) in [
            (AT + 40, AT + 8, 0, End::Unsupported),
            (AT + 40, AT + 9, 1, End::BadFrame),
            (AT + 8, AT + 8, 1, End::BadFrame),
            (AT + 41, AT + 8, 1, End::BadFrame),
            (0, AT + 8, 1, End::BadFrame),
            (AT + 40, AT - 8, 1, End::BadFrame),
            (AT + 40, AT + 80, 1, End::Fault),
        ] {
            let words = [sender, 0xb0b, 0x40_1000, 8, 9, 0];
            let mut registers = Registers { bp_known: known, ..called(0x40_2000, AT, bp) };
            assert_eq!(by_rule(&rule, 0, 0, &mut registers, &mut stack(&words)), end, "{sender:x} {bp:x}");
        }
    }

    #[test]
    fn only_a_rule_says_that_nothing_called() {
        let mut registers = at(0x40_2000, AT, 7);
        let root = Rule { kind: kind::ROOT, ..PLAIN };
        assert_eq!(by_rule(&root, AT, 0, &mut registers, &mut stack(&[])), End::Root);
        for kind in [kind::NONE, kind::UNSUPPORTED, 10, 255] {
            let rule = Rule { kind, ..PLAIN };
            assert_eq!(by_rule(&rule, AT, 0, &mut registers, &mut stack(&[0; 9])), End::Unsupported, "{kind}");
        }
        assert_eq!(registers, at(0x40_2000, AT, 7));
    }

    #[test]
    fn frames_that_stand_still_fall_or_are_not_aligned_are_refused() {
        for (cfa, end) in [(0, End::BadFrame), (-8, End::BadFrame), (4, End::BadFrame), (12, End::BadFrame), (8, End::Not)] {
            let mut registers = at(0x40_2000, AT, 7);
            let rule = Rule { cfa, ..PLAIN };
            assert_eq!(by_rule(&rule, AT, 0, &mut registers, &mut stack(&[0x40_1000, 0])), end, "{cfa}");
        }
        let mut registers = at(0x40_2000, AT, 7);
        assert_eq!(by_rule(&PLAIN, u64::MAX - 7, 0, &mut registers, &mut stack(&[])), End::BadFrame, "beyond the last address");
    }

    #[test]
    fn a_stack_that_cannot_be_read_ends_the_walk() {
        let mut registers = at(0x40_2000, AT, 7);
        assert_eq!(by_rule(&PLAIN, AT, 0, &mut registers, &mut stack(&[])), End::Fault);
        let pushed = Rule { cfa: 24, bp: -16, frame_pointer: saved::FROM_CFA, ..PLAIN };
        assert_eq!(by_rule(&pushed, AT, 0, &mut registers, &mut stack(&[0])), End::Fault);
        let memory = Rule { kind: kind::MEMORY, ..PLAIN };
        assert_eq!(by_rule(&memory, AT, 0, &mut registers, &mut stack(&[0])), End::Fault);
    }

    #[test]
    fn frame_pointers_are_followed_upwards_only() {
        let words = [AT + 24, 0x40_1000, 0, 0, 0x40_1100];
        let mut registers = at(0x40_2000, AT, AT);
        assert_eq!(by_frame_pointer(&mut registers, &mut stack(&words)), End::Not);
        assert_eq!(registers, called(0x40_1000, AT + 16, AT + 24));
        assert_eq!(by_frame_pointer(&mut registers, &mut stack(&words)), End::Not);
        assert_eq!(registers, called(0x40_1100, AT + 40, 0));
        assert_eq!(by_frame_pointer(&mut registers, &mut stack(&words)), End::Chain, "zero ends the chain");
        for bp in [AT - 8, AT + 4, AT + 40] {
            let mut registers = at(0x40_2000, AT, bp);
            assert_eq!(by_frame_pointer(&mut registers, &mut stack(&words)), End::Chain, "{bp:x}");
            assert_eq!(registers, at(0x40_2000, AT, bp));
        }
    }

    /// Random registers, rules and stacks: a walk ends, and each step but one out of a signal goes up.
    #[test]
    fn no_registers_rules_or_memory_keep_a_walk_from_ending() {
        let mut seed = 1;
        let mut random = || {
            seed = crate::mix64(seed, 11);
            seed
        };
        for _ in 0..10_000 {
            let words: [u64; 16] = core::array::from_fn(|_| if random() & 1 == 0 { random() } else { AT + (random() & 0xff) });
            let mut registers = at(random(), AT + (random() & 0x3f), AT + (random() & 0x7f));
            let (mut steps, mut signals) = (0, 0);
            loop {
                let rule = Rule {
                    cfa: (random() & 0x3f) as i32 - 16,
                    bp: (random() & 0x3f) as i32 - 32,
                    ra: (random() & 0x1f) as i16 - 16,
                    then: (random() & 0xf) as i16,
                    kind: (random() % 11) as u8,
                    base: register::SP,
                    frame_pointer: (random() & 3) as u8,
                    return_register: 0,
                };
                let before = registers.sp;
                let base = if random() & 1 == 0 { registers.sp } else { registers.bp };
                let end = if random() & 7 == 0 {
                    by_frame_pointer(&mut registers, &mut stack(&words))
                } else {
                    by_rule(&rule, base, 0, &mut registers, &mut stack(&words))
                };
                if end == End::Root {
                    assert_eq!(rule.kind, kind::ROOT);
                }
                if end != End::Not {
                    break;
                }
                if rule.kind == kind::SIGNAL || rule.kind == kind::OTHER_STACK {
                    signals += 1;
                } else {
                    assert!(registers.sp > before);
                }
                steps += 1;
                if signals > 8 {
                    break;
                }
                assert!(steps < 400);
            }
        }
    }
}
