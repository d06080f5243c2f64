//! Names of frames that say where in a source the frame is: `function (file:line)`, as interpreters and the tools for them write it.

use std::ops::Range;

/// What such a name says. All of it is hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// The function.
    pub function: &'a str,
    /// Its file.
    pub file: &'a str,
    /// The line; `None` where it is not known.
    pub line: Option<u32>,
}

/// The name of a frame in a function of that file; a line that is not known is `?`, and one that is only near has a `~` before it.
#[must_use]
pub fn named(function: &str, file: &str, line: Option<u32>, is_near: bool) -> String {
    let line = line.map_or_else(|| "?".to_owned(), |line| line.to_string());
    let near = if is_near { NEAR } else { "" };
    format!("{function} ({file}:{near}{line})")
}

/// Before a line that is near the right one.
const NEAR: &str = "~";

/// Whether a name says that its line is only near, and perhaps its function the one that is called next.
#[must_use]
pub fn is_near(name: &str) -> bool {
    of(name).is_some() && name.rsplit_once(':').is_some_and(|(_, line)| line.starts_with(NEAR))
}

/// Behind the name of code that is a runtime's own, and that no file has: HotSpot's stubs.
const RUNTIME: &str = " [runtime]";

/// The name of a frame in code of a runtime's own.
#[must_use]
pub fn of_runtime(name: &str) -> String {
    format!("{name}{RUNTIME}")
}

/// Whether a name is one of those.
#[must_use]
pub fn is_of_runtime(name: &str) -> bool {
    name.ends_with(RUNTIME)
}

/// What a name says; `None` for one that says no place in a source, as those of machine code.
#[must_use]
pub fn of(name: &str) -> Option<Source<'_>> {
    let (function, place) = name.strip_suffix(')')?.rsplit_once(" (")?;
    let (file, line) = place.rsplit_once(':')?;
    let line = line.strip_prefix(NEAR).unwrap_or(line);
    let line = if line == "?" { None } else { Some(line.parse().ok()?) };
    (!function.is_empty() && !file.is_empty()).then_some(Source { function, file, line })
}

/// Packages of Java's own library: what is in them, a program has called.
const LIBRARY: [&str; 5] = ["java.", "javax.", "jdk.", "sun.", "com.sun."];

/// Where in a stack, outermost first, the innermost such frame is: one that the program's author wrote, if there is one.
#[must_use]
pub fn innermost<S: AsRef<str>>(frames: &[S]) -> Option<usize> {
    let source = |frame: &S| of(frame.as_ref()).map(|source| LIBRARY.iter().any(|package| source.function.starts_with(package)));
    let own = frames.iter().rposition(|frame| source(frame) == Some(false));
    own.or_else(|| frames.iter().rposition(|frame| source(frame).is_some()))
}

/// Stands in the place of inner frames that are left out.
pub const INNER: &str = "…";

/// Which frames of a stack, outermost first, are shown where there is room for `most` names, and whether [`INNER`] is one of these and stands
/// behind them. They are the innermost ones; but what an interpreter runs says more than what that does for it, so that of those frames the
/// innermost one's callee is the last.
#[must_use]
pub fn window<S: AsRef<str>>(frames: &[S], most: usize) -> (Range<usize>, bool) {
    let end = innermost(frames).map_or(frames.len(), |at| frames.len().min(at + 2));
    let has_inner = end < frames.len();
    (end.saturating_sub(most.saturating_sub(usize::from(has_inner)))..end, has_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_was_made_of() {
        for (function, file, line) in [("load_rows", "app.py", Some(7)), ("<module>", "<frozen site>", None), ("f (x)", "a b.py", Some(0))]
        {
            for is_near in [false, true] {
                let name = named(function, file, line, is_near);
                assert_eq!((of(&name), super::is_near(&name)), (Some(Source { function, file, line }), is_near), "{name}");
            }
        }
    }

    #[test]
    fn names_of_machine_code_say_none() {
        for name in [
            "main",
            "operator() (int)",
            "f(int, std::string)",
            "(a:1)",
            "f (:1)",
            "f (a:b)",
            "f (a:-1)",
            "f (a:~)",
            "f (a:~~1)",
            "[a+0x10]",
            "",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
        assert_eq!(innermost(&["main", "f (a.py:1)", "g (a.py:?)", "malloc"]), Some(2));
        assert_eq!(innermost(&["main"]), None);
        let java = ["main", "Session.read (Session.java:7)", "java.nio.ByteBuffer.allocateDirect (ByteBuffer.java:317)", "os::malloc"];
        assert_eq!((innermost(&java), innermost(&java[2..])), (Some(1), Some(0)));
    }

    #[test]
    fn what_an_interpreter_runs_is_shown_before_what_that_does_for_it() {
        let frames = ["main", "f (a.py:1)", "g (a.py:2)", "list_append", "malloc", "brk"];
        assert_eq!(window(&frames, 4), (1..4, true));
        assert_eq!(window(&frames, 9), (0..4, true));
        assert_eq!(window(&frames[..4], 4), (0..4, false));
        assert_eq!(window(&frames[..3], 2), (1..3, false));
        assert_eq!(window(&["a", "b", "c"], 2), (1..3, false));
        assert_eq!(window(&["a"; 0], 2), (0..0, false));
    }
}
