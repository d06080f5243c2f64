//! Kernel addresses to names, from `/proc/kallsyms`.
//!
//! The file is read once for a batch, as a stream, and only the best match of each wanted address is kept: a table of all
//! 200,000 symbols would cost the collector more memory than everything else here.

use super::{Frame, FrameKind};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};

/// Farther than this behind the nearest symbol, an address is in something without a name (a program loaded meanwhile).
const MAX_DISTANCE: u64 = 1 << 20;
/// Longest line that is understood.
const MAX_LINE_BYTES: usize = 1024;
/// Addresses remembered.
const MAX_CACHED: usize = 65_536;

/// The name of what cannot be named.
pub const UNKNOWN: &str = "[kernel+?]";

/// Names of kernel addresses, remembered.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    cache: HashMap<u64, Frame>,
    hidden: bool,
}

impl KernelSymbols {
    /// One frame an address, in their order. Pass return addresses less one.
    pub fn frames(&mut self, addresses: &[u64]) -> Vec<Frame> {
        let mut missing: Vec<u64> = addresses.iter().copied().filter(|a| !self.cache.contains_key(a)).collect();
        if !missing.is_empty() && !self.hidden {
            missing.sort_unstable();
            missing.dedup();
            match std::fs::File::open("/proc/kallsyms").and_then(|file| resolve(BufReader::with_capacity(1 << 16, file), &missing)) {
                Ok(Names::Hidden) => self.hidden = true,
                Ok(Names::Found(names)) => {
                    if self.cache.len() + names.len() > MAX_CACHED {
                        self.cache.clear();
                    }
                    self.cache.extend(missing.into_iter().zip(names).map(|(address, name)| (address, frame(name))));
                }
                Err(error) => log::warn!("cannot read /proc/kallsyms: {error}"),
            }
        }
        addresses.iter().map(|address| self.cache.get(address).cloned().unwrap_or_else(|| frame(None))).collect()
    }

    /// Whether asking would tell nothing new.
    #[must_use]
    pub fn knows(&self, address: u64) -> bool {
        self.hidden || self.cache.contains_key(&address)
    }

    /// What to tell the user, once known: the kernel hides its addresses.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        self.hidden.then_some("kernel frames have no names: kernel.kptr_restrict hides the addresses in /proc/kallsyms")
    }
}

fn frame(name: Option<String>) -> Frame {
    match name {
        Some(name) => Frame::new(FrameKind::Kernel, &name),
        None => Frame::new(FrameKind::Unknown, UNKNOWN),
    }
}

/// The outcome of a reading.
#[derive(Debug, PartialEq, Eq)]
pub enum Names {
    /// For each address its name, if it has one.
    Found(Vec<Option<String>>),
    /// All addresses in the file are zero.
    Hidden,
}

/// Finds the names of sorted addresses in a kallsyms file.
pub fn resolve(mut kallsyms: impl BufRead, sorted: &[u64]) -> io::Result<Names> {
    // best[i]: the highest symbol at or below sorted[i] and above sorted[i - 1].
    let mut best: Vec<Option<(u64, u8, String)>> = vec![None; sorted.len()];
    let mut any_address = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        if io::Read::take(&mut kallsyms, MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Some((address, rank, name)) = parse_line(&line) else { continue };
        any_address |= address != 0;
        let Some(slot) = best.get_mut(sorted.partition_point(|&a| a < address)) else { continue };
        if slot.as_ref().is_none_or(|(known, known_rank, _)| (address, rank) > (*known, *known_rank)) {
            *slot = Some((address, rank, name.to_owned()));
        }
    }
    if !any_address {
        return Ok(Names::Hidden);
    }
    let mut below: Option<(u64, String)> = None;
    let names = sorted.iter().zip(best).map(|(&address, found)| {
        if let Some((at, _, name)) = found {
            below = Some((at, name));
        }
        below.as_ref().filter(|(at, _)| address - at <= MAX_DISTANCE).map(|(_, name)| name.clone())
    });
    Ok(Names::Found(names.collect()))
}

/// Address, rank among symbols of one address, and name of a function's line: "ffffffff81000000 T _text [module]".
fn parse_line(line: &[u8]) -> Option<(u64, u8, &str)> {
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
    Some((address, if padding { 0 } else { rank }, name))
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

    fn names(addresses: &[u64]) -> Vec<Option<String>> {
        match resolve(KALLSYMS.as_bytes(), addresses).unwrap() {
            Names::Found(names) => names,
            Names::Hidden => panic!("hidden"),
        }
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
    fn a_hidden_kernel_is_one_warning_and_unknown_frames() {
        let mut symbols = KernelSymbols { hidden: true, ..KernelSymbols::default() };
        assert_eq!(symbols.frames(&[1, 2]), vec![Frame::new(FrameKind::Unknown, UNKNOWN); 2]);
        assert!(symbols.warning().is_some());
    }
}
