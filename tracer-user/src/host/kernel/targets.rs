//! What the kernel's type information says of the functions and tracepoints that memtrail may attach to, and nothing else of it:
//! the whole is 6 MB, or 25 MB as aya holds it, and not needed after the start.

use super::btf::{Btf, FUNC, FUNC_PROTO, PTR, TRACEPOINT_TYPES, TYPEDEF};
use std::collections::HashMap;

/// A kernel function that can be traced by type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its number in the kernel's type information.
    pub id: u32,
    /// How many parameters it has.
    pub parameters: u32,
}

/// A tracepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tracepoint {
    /// Number of its type in the kernel's type information.
    id: u32,
    /// How many arguments it has, where that is told.
    arguments: Option<u32>,
}

/// What there is to attach to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    functions: HashMap<String, Function>,
    tracepoints: HashMap<String, Tracepoint>,
}

impl Targets {
    /// Those of `names` that this kernel has.
    pub fn of(btf: &Btf, names: impl IntoIterator<Item = &'static str>) -> Targets {
        let mut targets = Targets::default();
        for name in names {
            if let Some(function) = btf.function(name) {
                targets.functions.insert(name.to_owned(), function);
            }
            if let Some(id) = btf.tracepoint(name) {
                targets.tracepoints.insert(name.to_owned(), Tracepoint { id, arguments: btf.tracepoint_arguments(name) });
            }
        }
        targets
    }

    /// A function, if the kernel has it and tells its type.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<Function> {
        self.functions.get(name).copied()
    }

    /// Whether the kernel has this tracepoint.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.tracepoints.contains_key(name)
    }

    /// Number of arguments of a tracepoint, if the kernel has it and tells its type.
    #[must_use]
    pub fn tracepoint_arguments(&self, name: &str) -> Option<u32> {
        self.tracepoints.get(name)?.arguments
    }

    /// Type information in which only these functions and the types of these tracepoints have names, each under the number that the kernel
    /// knows it by: all that aya looks up to attach a program to one. Everything before and between them is a pointer to void.
    #[must_use]
    pub fn to_btf(&self) -> Vec<u8> {
        const HEADER_BYTES: u32 = 24;
        let functions = self.functions.iter().map(|(name, function)| (function.id, FUNC, name.clone()));
        let tracepoints = self.tracepoints.iter().map(|(name, tracepoint)| (tracepoint.id, TYPEDEF, format!("{TRACEPOINT_TYPES}{name}")));
        let mut named: Vec<(u32, u32, String)> = functions.chain(tracepoints).collect();
        named.sort_unstable();
        let mut strings = vec![0];
        let mut types = Vec::new();
        // Name, kind, type: what a function or another name stands for is void, which nobody looks at.
        let mut push = |name: u32, kind: u32| [name, kind << 24, 0].into_iter().for_each(|word| types.extend(word.to_le_bytes()));
        let mut next = 1;
        for (id, kind, name) in named {
            (next..id).for_each(|_| push(0, PTR));
            push(strings.len() as u32, kind);
            strings.extend(name.bytes().chain([0]));
            next = id + 1;
        }
        let lengths = [types.len() as u32, strings.len() as u32];
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        [HEADER_BYTES, 0, lengths[0], lengths[0], lengths[1]].into_iter().for_each(|word| btf.extend(word.to_le_bytes()));
        btf.extend(types);
        btf.extend(strings);
        btf
    }
}

impl Btf {
    /// A kernel function, if it is in the type information at all.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<Function> {
        let id = self.id(FUNC, name)?;
        let at = self.type_at(id)?;
        let prototype = self.type_at(self.u32(at + 8).ok()?)?;
        let (kind, parameters) = self.kind_and_count(prototype).ok()?;
        (kind == FUNC_PROTO).then_some(Function { id, parameters: parameters as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::Endianness;

    #[test]
    fn each_keeps_its_number() {
        let function = |id| Function { id, parameters: 1 };
        let functions = HashMap::from([("uncharge_folio".to_owned(), function(70_000)), ("charge_memcg".to_owned(), function(3))]);
        let tracepoints = HashMap::from([("mm_page_alloc".to_owned(), Tracepoint { id: 12, arguments: Some(4) })]);
        let targets = Targets { functions, tracepoints };
        let btf = Btf::parse(targets.to_btf(), |_| true).unwrap();
        assert_eq!((btf.id(FUNC, "uncharge_folio"), btf.id(FUNC, "charge_memcg"), btf.id(FUNC, "x")), (Some(70_000), Some(3), None));
        assert_eq!(btf.tracepoint("mm_page_alloc"), Some(12));
        for targets in [targets, Targets::default()] {
            assert!(aya::Btf::parse(&targets.to_btf(), Endianness::default()).is_ok());
        }
    }
}
