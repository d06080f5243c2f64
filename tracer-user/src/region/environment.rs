//! What a process's environment tells glibc's malloc. Pure; the environment is hostile, and what the process changed later
//! (`mallopt`) is not in it.

use crate::host::proc::Process;
use std::io;

/// Most bytes read: more than the kernel lets an exec pass with the usual stack limit.
const MOST_BYTES: u64 = 4 << 20;
/// Longest value kept, characters.
const MOST_CHARACTERS: usize = 32;

/// Settings of glibc's malloc, as the environment was at exec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `MALLOC_ARENA_MAX` as it stands there, cut.
    pub malloc_arena_max: Option<String>,
    /// `glibc.malloc.arena_max` of `GLIBC_TUNABLES`, cut.
    pub tunable_arena_max: Option<String>,
    /// `glibc.malloc.hugetlb` of `GLIBC_TUNABLES`: 2 gives heaps of four huge pages.
    pub tunable_hugetlb: Option<u64>,
}

impl Environment {
    /// Reads `/proc/PID/environ`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_process(process: &Process) -> io::Result<Environment> {
        Ok(Environment::parse(&process.read("environ", MOST_BYTES)?))
    }

    /// Variables separated by NUL bytes. Of a variable that is there twice glibc takes the last.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Environment {
        let mut environment = Environment::default();
        for variable in bytes.split(|&byte| byte == 0) {
            if let Some(value) = variable.strip_prefix(b"MALLOC_ARENA_MAX=") {
                environment.malloc_arena_max = Some(kept(value));
            } else if let Some(value) = variable.strip_prefix(b"GLIBC_TUNABLES=") {
                for tunable in value.split(|&byte| byte == b':') {
                    if let Some(value) = tunable.strip_prefix(b"glibc.malloc.arena_max=") {
                        environment.tunable_arena_max = Some(kept(value));
                    } else if let Some(value) = tunable.strip_prefix(b"glibc.malloc.hugetlb=") {
                        environment.tunable_hugetlb = number(&kept(value));
                    }
                }
            }
        }
        environment
    }

    /// The most arenas that these settings allow; `None` for glibc's own limit. The tunable wins.
    #[must_use]
    pub fn arena_max(&self) -> Option<u64> {
        let set = |value: &Option<String>| value.as_deref().and_then(number).filter(|most| *most > 0);
        set(&self.tunable_arena_max).or_else(|| set(&self.malloc_arena_max))
    }
}

fn kept(value: &[u8]) -> String {
    crate::text::escape_bytes(value).chars().take(MOST_CHARACTERS).collect()
}

/// As glibc reads numbers: decimal, 0x, or octal with a leading 0; anything else is no setting.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(&text[1..], 8).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_and_the_tunable_wins() {
        let environment = |text: &[u8]| Environment::parse(text);
        let both =
            environment(b"A=1\0MALLOC_ARENA_MAX=4\0GLIBC_TUNABLES=glibc.mem.tagging=1:glibc.malloc.arena_max=0x2:glibc.malloc.hugetlb=2\0");
        assert_eq!((both.malloc_arena_max.as_deref(), both.tunable_arena_max.as_deref()), (Some("4"), Some("0x2")));
        assert_eq!((both.arena_max(), both.tunable_hugetlb), (Some(2), Some(2)));
        assert_eq!(environment(b"MALLOC_ARENA_MAX=010\0").arena_max(), Some(8));
        assert_eq!(environment(b"XMALLOC_ARENA_MAX=4\0MALLOC_ARENA_MAX_=4").arena_max(), None);
    }

    #[test]
    fn hostile_values_set_nothing() {
        for value in ["", "0", "-1", "many", "99999999999999999999", "0x", "\u{202e}4"] {
            assert_eq!(Environment::parse(format!("MALLOC_ARENA_MAX={value}\0").as_bytes()).arena_max(), None, "{value}");
        }
        let long = Environment::parse(&[b"MALLOC_ARENA_MAX=".as_slice(), &[b'9'; 10_000]].concat());
        assert_eq!((long.malloc_arena_max.map(|value| value.len()), Environment::parse(b"\xff\0=\0").arena_max()), (Some(32), None));
    }
}
