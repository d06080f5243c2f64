//! Kernel addresses to names, from `/proc/kallsyms`.
//!
//! The file is read once for a batch, as a stream, and only the functions of the wanted addresses are kept: a table of all
//! 200,000 symbols would cost the collector more memory than everything else here. The kernel writes each line anew for each reading, tens of
//! milliseconds in all, so further addresses in a function that is known ask for none.

use super::{Frame, FrameKind};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;

/// Farther than this behind the nearest symbol, an address is in something without a name (a program loaded meanwhile).
const MAX_DISTANCE: u64 = 1 << 20;
/// Longest line that is understood.
const MAX_LINE_BYTES: usize = 1024;
/// Functions remembered.
const MAX_CACHED: usize = 65_536;

/// The name of what cannot be named.
pub const UNKNOWN: &str = "[kernel+?]";

/// Names of kernel addresses, remembered.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    /// By their first address, with the one after their last.
    cache: BTreeMap<u64, (u64, Frame)>,
    hidden: bool,
}

impl KernelSymbols {
    /// One frame an address, in their order. Pass return addresses less one.
    pub fn frames(&mut self, addresses: &[u64]) -> Vec<Frame> {
        let mut missing: Vec<u64> = addresses.iter().copied().filter(|address| self.known(*address).is_none()).collect();
        if !missing.is_empty() && !self.hidden {
            missing.sort_unstable();
            missing.dedup();
            match std::fs::File::open("/proc/kallsyms").and_then(|file| resolve(BufReader::with_capacity(1 << 16, file), &missing)) {
                Ok(Names::Hidden) => self.hidden = true,
                Ok(Names::Found(functions)) => {
                    if self.cache.len() + functions.len() > MAX_CACHED {
                        self.cache.clear();
                    }
                    for Function { addresses, name } in functions {
                        self.cache.insert(addresses.start, (addresses.end, frame(name)));
                    }
                }
                Err(error) => log::warn!("cannot read /proc/kallsyms: {error}"),
            }
        }
        addresses.iter().map(|address| self.known(*address).cloned().unwrap_or_else(|| frame(None))).collect()
    }

    fn known(&self, address: u64) -> Option<&Frame> {
        let (_, (end, frame)) = self.cache.range(..=address).next_back()?;
        (address < *end).then_some(frame)
    }

    /// Whether asking would tell nothing new.
    #[must_use]
    pub fn knows(&self, address: u64) -> bool {
        self.hidden || self.known(address).is_some()
    }

    /// What to tell the user: the kernel hides its addresses. Asks the kernel.
    #[must_use]
    pub fn warning(&mut self) -> Option<&'static str> {
        if !self.hidden && self.cache.is_empty() {
            self.hidden = std::fs::File::open("/proc/kallsyms").is_ok_and(|file| hides(BufReader::with_capacity(1 << 16, file)));
        }
        self.hidden.then_some("kernel frames have no names: kernel.kptr_restrict hides the addresses in /proc/kallsyms")
    }
}

fn frame(name: Option<String>) -> Frame {
    match name {
        Some(name) => Frame::new(FrameKind::Kernel, &name),
        None => Frame::new(FrameKind::Unknown, UNKNOWN),
    }
}

/// What an address is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Addresses of which this stays true: all of a function of the kernel's own, but of a module or program only the one that was asked for,
    /// since others may take its place.
    pub addresses: Range<u64>,
    /// Its name, if it has one.
    pub name: Option<String>,
}

/// The outcome of a reading.
#[derive(Debug, PartialEq, Eq)]
pub enum Names {
    /// For each address its function.
    Found(Vec<Function>),
    /// All addresses in the file are zero.
    Hidden,
}

/// Finds the functions of sorted addresses in a kallsyms file.
pub fn resolve(mut kallsyms: impl BufRead, sorted: &[u64]) -> io::Result<Names> {
    // best[i]: the highest symbol at or below sorted[i] and above sorted[i - 1]; next[i]: the lowest above sorted[i] and not above sorted[i + 1].
    let mut best: Vec<Option<Symbol>> = vec![None; sorted.len()];
    let mut next: Vec<Option<u64>> = vec![None; sorted.len()];
    let mut any_address = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        if io::Read::take(&mut kallsyms, MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Some(Line { address, rank, name, is_kernels_own }) = parse_line(&line) else { continue };
        any_address |= address != 0;
        let at = sorted.partition_point(|&wanted| wanted < address);
        if let Some(next) = at.checked_sub(1).and_then(|below| next.get_mut(below)) {
            *next = Some(next.map_or(address, |known| known.min(address)));
        }
        let Some(slot) = best.get_mut(at) else { continue };
        if slot.as_ref().is_none_or(|known| (address, rank) > (known.address, known.rank)) {
            *slot = Some(Symbol { address, rank, name: name.to_owned(), is_kernels_own });
        }
    }
    if !any_address {
        return Ok(Names::Hidden);
    }
    let mut above = None;
    for next in next.iter_mut().rev() {
        above = next.or(above);
        *next = above;
    }
    let mut below: Option<Symbol> = None;
    let functions = sorted.iter().zip(best).zip(next).map(|((&address, found), next)| {
        below = found.or_else(|| below.take());
        let only = address..address.saturating_add(1);
        let Some(symbol) = below.as_ref().filter(|symbol| address - symbol.address <= MAX_DISTANCE) else {
            return Function { addresses: only, name: None };
        };
        let whole = next.filter(|next| symbol.is_kernels_own && next - symbol.address <= MAX_DISTANCE).map(|next| symbol.address..next);
        Function { addresses: whole.unwrap_or(only), name: Some(symbol.name.clone()) }
    });
    Ok(Names::Found(functions.collect()))
}

/// Whether all addresses of functions in a kallsyms file are zero. One that cannot be read hides nothing.
fn hides(mut kallsyms: impl BufRead) -> bool {
    let mut line = Vec::new();
    loop {
        line.clear();
        match io::Read::take(&mut kallsyms, MAX_LINE_BYTES as u64).read_until(b'\n', &mut line) {
            Ok(0) => return true,
            Ok(_) if parse_line(&line).is_some_and(|line| line.address != 0) => return false,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

#[derive(Clone)]
struct Symbol {
    address: u64,
    rank: u8,
    name: String,
    is_kernels_own: bool,
}

/// A function's line.
struct Line<'l> {
    address: u64,
    /// Among symbols of one address.
    rank: u8,
    name: &'l str,
    /// Not a module's or a program's.
    is_kernels_own: bool,
}

/// "ffffffff81000000 T _text [module]".
fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let address = u64::from_str_radix(fields.next()?, 16).ok()?;
    let rank = match fields.next()? {
        "T" => 2,
        "t" | "w" | "W" => 1,
        _ => return None,
    };
    let name = fields.next()?;
    // Padding before a function, not the function.
    let padding = name.starts_with("__pfx_") || name.starts_with("__cfi_");
    Some(Line { address, rank: if padding { 0 } else { rank }, name, is_kernels_own: fields.next().is_none() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "\
0000000000001000 T _text\n\
0000000000001000 t other_name\n\
0000000000002000 t do_fault\n\
0000000000002000 T handle_fault\n\
0000000000001ff0 t __pfx_do_fault\n\
0000000000002800 D data\n\
nonsense\n\
00000000f0000000 t in_module\t[module]\n";

    fn functions(addresses: &[u64]) -> Vec<Function> {
        match resolve(KALLSYMS.as_bytes(), addresses).unwrap() {
            Names::Found(functions) => functions,
            Names::Hidden => panic!("hidden"),
        }
    }

    fn names(addresses: &[u64]) -> Vec<Option<String>> {
        functions(addresses).into_iter().map(|function| function.name).collect()
    }

    #[test]
    fn a_function_of_the_kernels_own_is_known_as_a_whole() {
        let found: Vec<_> = functions(&[0xfff, 0x1000, 0x1234, 0x1ff3, 0x2fff, 0xf000_0010]).into_iter().map(|f| f.addresses).collect();
        let whole = 0x1000..0x1ff0;
        assert_eq!(found, [0xfff..0x1000, whole.clone(), whole, 0x1ff0..0x2000, 0x2fff..0x3000, 0xf000_0010..0xf000_0011]);
    }

    #[test]
    fn what_is_known_is_not_looked_for_again() {
        let mut symbols = KernelSymbols::default();
        symbols.cache.insert(0x1000, (0x1ff0, frame(Some("_text".to_owned()))));
        assert!(symbols.knows(0x1000) && symbols.knows(0x1fef) && !symbols.knows(0xfff) && !symbols.knows(0x1ff0));
        assert_eq!(&*symbols.frames(&[0x1234])[0].name, "_text");
    }

    #[test]
    fn the_nearest_function_below_is_the_name() {
        let found = names(&[0xfff, 0x1000, 0x1234, 0x2000, 0x2fff, 0xf000_0010]);
        let found: Vec<_> = found.iter().map(|n| n.as_deref().unwrap_or("-")).collect();
        assert_eq!(found, ["-", "_text", "_text", "handle_fault", "handle_fault", "in_module"]);
    }

    #[test]
    fn far_from_everything_there_is_no_name() {
        assert_eq!(names(&[0x2000_0000, 0xf800_0000]), [None, None]);
    }

    #[test]
    fn hidden_addresses_are_told() {
        assert_eq!(resolve(&b"0000000000000000 T _text\n0000000000000000 t x\n"[..], &[5]).unwrap(), Names::Hidden);
        assert_eq!(resolve(&b""[..], &[5]).unwrap(), Names::Hidden);
    }

    #[test]
    fn what_is_hidden_is_known_without_asking_for_a_name() {
        assert!(hides(&b"0000000000000000 A percpu\n0000000000000000 T _text\n0000000000000000 t x\n"[..]));
        assert!(!hides(&b"0000000000000000 A percpu\n0000000000000000 T first\n0000000000001000 t x\n"[..]));
        assert!(!hides(KALLSYMS.as_bytes()));
    }

    #[test]
    fn a_hidden_kernel_is_one_warning_and_unknown_frames() {
        let mut symbols = KernelSymbols { hidden: true, ..KernelSymbols::default() };
        assert_eq!(symbols.frames(&[1, 2]), vec![Frame::new(FrameKind::Unknown, UNKNOWN); 2]);
        assert!(symbols.warning().is_some());
    }
}
