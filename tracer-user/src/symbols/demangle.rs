//! Rust and C++ names as their authors wrote them. Pure, and bounded: a mangled name of a few hundred bytes can stand for one of
//! gigabytes (each substitution doubles it), so that the output is cut where it is written, not afterwards.
//!
//! blazesym's own demangling has no such bound and is switched off.

use super::MAX_NAME_BYTES;
use std::borrow::Cow;
use std::fmt::{self, Write};

/// Longest mangled name that is tried, bytes.
const MAX_MANGLED_BYTES: usize = 4096;

/// The readable form, or the name itself.
pub fn demangle(name: &str) -> Cow<'_, str> {
    if name.len() > MAX_MANGLED_BYTES {
        return Cow::Borrowed(name);
    }
    let mut out = Bounded(String::new());
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // An error only says that the bound was reached; what was written by then is the answer.
        let _cut = write!(out, "{rust:#}");
    } else if name.starts_with("_Z")
        && let Ok(symbol) = cpp_demangle::Symbol::new(name)
    {
        let options = cpp_demangle::DemangleOptions::new().no_return_type();
        let _cut = symbol.structured_demangle(&mut out, &options);
    }
    if out.0.is_empty() { Cow::Borrowed(name) } else { Cow::Owned(out.0) }
}

struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = MAX_NAME_BYTES - self.0.len();
        if text.len() <= left {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=left).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_and_neither() {
        assert_eq!(demangle("_ZN5alloc3vec12Vec$LT$T$GT$4push17h0123456789abcdefE"), "alloc::vec::Vec<T>::push");
        assert_eq!(demangle("_RNvCskwGfYPst2Cb_3foo3bar"), "foo::bar");
        assert_eq!(demangle("_ZNSt6vectorIiSaIiEE9push_backERKi"), "std::vector<int, std::allocator<int> >::push_back(int const&)");
        assert_eq!(demangle("malloc"), "malloc");
        assert_eq!(demangle("main.(*server).handle"), "main.(*server).handle");
        assert_eq!(demangle("_Znot a name"), "_Znot a name");
    }

    #[test]
    fn a_name_that_doubles_with_every_letter_is_cut() {
        // f(pair<A, A>, pair<that, that>, pair<that, that>, ...)
        let mut name = "_Z1f4pairI1AS0_E".to_owned();
        for n in 0..30_u32 {
            let last = std::char::from_digit(n + 1, 36).unwrap().to_ascii_uppercase();
            name += &format!("S_IS{last}_S{last}_E");
        }
        assert!(demangle(&name).len() <= MAX_NAME_BYTES.max(name.len()));
    }
}
