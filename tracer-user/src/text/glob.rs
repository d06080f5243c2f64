//! Patterns over cgroup paths: `*` stays within a component, `**` crosses, a match includes its subtree.
//!
//! Pure. It never looks at the file system: whether a literal path exists is for the caller to ask. All other characters are literal,
//! the backslash too, since systemd writes `\x2d` in names.

/// Longest pattern accepted, bytes: PATH_MAX.
const MAX_PATTERN: usize = 4096;

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    /// The pattern as one row of steps over the bytes of `/a/b/c`.
    steps: Vec<Step>,
}

/// Why a pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// It does not begin at the root.
    #[error("cgroup pattern {0:?} does not begin with /: give the full path below the memory hierarchy's root, or /**/{0}")]
    NotAbsolute(String),
    /// Nothing there.
    #[error("cgroup pattern is empty: give a path such as /system.slice, or / for all")]
    Empty,
    /// `.` or `..`, which no cgroup path has.
    #[error("cgroup pattern {0:?} has a component . or ..: give the full path")]
    Relative(String),
    /// Longer than any path.
    #[error("cgroup pattern of {0} bytes is longer than a path can be (4096)")]
    TooLong(usize),
}

impl Glob {
    /// Reads a pattern. Repeated and trailing slashes do not matter.
    ///
    /// # Errors
    /// When the pattern is empty, does not begin with `/`, is longer than a path, or has a component `.` or `..`.
    pub fn parse(text: &str) -> Result<Glob, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if text.len() > MAX_PATTERN {
            return Err(GlobError::TooLong(text.len()));
        }
        if !text.starts_with('/') {
            return Err(GlobError::NotAbsolute(text.to_owned()));
        }
        let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
        if names.iter().any(|name| matches!(*name, "." | "..")) {
            return Err(GlobError::Relative(text.to_owned()));
        }
        let steps = names.iter().flat_map(|name| steps(name)).collect();
        Ok(Glob { text: format!("/{}", names.join("/")), steps })
    }

    /// The pattern, without repeated and trailing slashes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path, if the pattern has no star: such a cgroup must exist.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        (!self.text.contains('*')).then_some(self.text.as_str())
    }

    /// Whether the cgroup or one of its ancestors matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.reach(path).0
    }

    /// Whether the cgroup itself matches, whatever its ancestors do.
    #[must_use]
    pub fn matches_itself(&self, path: &str) -> bool {
        self.reach(path).1
    }

    /// Whether the pattern matches the path or one of its ancestors, the root among them, and whether it matches the path itself.
    ///
    /// Time is pattern length times path length, whatever the stars: the pattern may come from a hostile command line, paths from anyone. The
    /// states of a short pattern are on the stack: this is asked for every cgroup at every interval.
    fn reach(&self, path: &str) -> (bool, bool) {
        let length = self.steps.len() + 1;
        let mut short = [false; 2 * SHORT];
        let mut long = Vec::new();
        let both = if length <= SHORT {
            &mut short[..2 * length]
        } else {
            long.resize(2 * length, false);
            &mut long[..]
        };
        let (mut states, mut next) = both.split_at_mut(length);
        states[0] = true;
        close(&self.steps, states);
        let mut itself = states[length - 1];
        let mut any = itself;
        for component in path.split('/').filter(|name| !name.is_empty()) {
            for &byte in std::iter::once(&b'/').chain(component.as_bytes()) {
                advance(&self.steps, states, next, byte);
                (states, next) = (next, states);
            }
            itself = states[length - 1];
            any |= itself;
        }
        (any, itself)
    }
}

/// Most states that are on the stack.
const SHORT: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// This byte.
    One(u8),
    /// Any bytes but `/`.
    Within,
    /// Any bytes.
    Across,
    /// The slash that opens any number of whole components, or nothing, which passes the next step too.
    Enter,
    /// The rest of those components. The next step is a `/` or the end, both of which stand at a component's edge.
    Inside,
}

/// Passes the steps that may match nothing.
fn close(steps: &[Step], states: &mut [bool]) {
    for (index, step) in steps.iter().enumerate() {
        if states[index] {
            match step {
                Step::One(_) => {}
                Step::Within | Step::Across | Step::Inside => states[index + 1] = true,
                // Always followed by Inside, so there is a state after that one.
                Step::Enter => states[index + 2] = true,
            }
        }
    }
}

/// The states after one more byte, in `next`.
fn advance(steps: &[Step], states: &[bool], next: &mut [bool], byte: u8) {
    next.fill(false);
    for (index, step) in steps.iter().enumerate() {
        if !states[index] {
            continue;
        }
        match step {
            Step::One(wanted) if *wanted == byte => next[index + 1] = true,
            Step::One(_) => {}
            Step::Within => next[index] |= byte != b'/',
            Step::Across | Step::Inside => next[index] = true,
            Step::Enter => next[index + 1] |= byte == b'/',
        }
    }
    close(steps, next);
}

/// The steps of one component. `**` alone is any number of components, also none; in a name `*` is any bytes but `/`, `**` any bytes at all.
fn steps(name: &str) -> Vec<Step> {
    if name == "**" {
        return vec![Step::Enter, Step::Inside];
    }
    let mut steps = vec![Step::One(b'/')];
    for byte in name.bytes() {
        match (byte, steps.last()) {
            (b'*', Some(Step::Within)) => {
                steps.pop();
                steps.push(Step::Across);
            }
            (b'*', Some(Step::Across)) => {}
            (b'*', _) => steps.push(Step::Within),
            _ => steps.push(Step::One(byte)),
        }
    }
    steps
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn a_literal_path_matches_itself_and_its_subtree_only() {
        assert!(matches("/a/b", "/a/b"));
        assert!(matches("/a/b/", "/a/b/c/d"));
        assert!(!matches("/a/b", "/a/bc"));
        assert!(!matches("/a/b", "/a"));
        assert!(!matches("/a/b", "/x/a/b"));
        assert_eq!(Glob::parse("/a//b/").unwrap().literal(), Some("/a/b"));
        assert_eq!(Glob::parse("/a/*").unwrap().literal(), None);
    }

    #[test]
    fn the_root_matches_everything() {
        assert!(matches("/", "/"));
        assert!(matches("/", "/a/b"));
        assert!(matches("/**", "/"));
        assert!(Glob::parse("/").unwrap().matches_itself("/"));
        assert!(!Glob::parse("/").unwrap().matches_itself("/a"));
    }

    #[test]
    fn a_star_stays_within_its_component() {
        assert!(matches("/kubepods/*/web", "/kubepods/pod1/web"));
        assert!(!matches("/kubepods/*/web", "/kubepods/a/b/web"));
        assert!(matches("/kubepods/pod*", "/kubepods/pod1/web"));
        assert!(!matches("/*b", "/a/b"));
        assert!(matches("/a*c*e", "/abcde"));
        assert!(!matches("/a*c*e", "/abcd"));
        assert!(!matches("/a/*", "/a"));
    }

    #[test]
    fn two_stars_cross_components() {
        for path in ["/kubepods/web", "/kubepods/a/web", "/kubepods/a/b/web", "/kubepods/a/web/below"] {
            assert!(matches("/kubepods/**/web", path), "{path}");
        }
        assert!(!matches("/kubepods/**/web", "/kubepods/webb"));
        assert!(!matches("/kubepods/**/web", "/kubepods/aweb"));
        assert!(matches("/a/**", "/a/b/c"));
        assert!(!matches("/a/**", "/ab"));
        assert!(!matches("/a/**/**/b", "/ab"));
        assert!(matches("/a/**/**/b", "/a/b"));
        assert!(matches("/a**z", "/ab/c/yz"));
        assert!(!matches("/a**z", "/b/z"));
        assert!(matches("/**/x/**/y", "/1/x/2/3/y"));
        assert!(matches("/***/b", "/a/b"));
    }

    #[test]
    fn a_match_of_the_cgroup_itself_is_told_from_its_ancestors() {
        let glob = Glob::parse("/a/*").unwrap();
        assert!(glob.matches_itself("/a/b"));
        assert!(!glob.matches_itself("/a/b/c"));
        assert!(glob.matches("/a/b/c"));
    }

    #[test]
    fn other_characters_are_literal() {
        assert!(matches(r"/system.slice/dev-x\x2dy.swap", r"/system.slice/dev-x\x2dy.swap"));
        assert!(!matches("/a?c", "/abc"));
        assert!(matches("/[a]", "/[a]"));
        assert!(matches("/é*", "/éa"));
    }

    #[test]
    fn bad_patterns_are_refused() {
        assert_eq!(Glob::parse(""), Err(GlobError::Empty));
        assert!(Glob::parse("web").unwrap_err().to_string().contains("/**/web"));
        assert!(matches!(Glob::parse("/a/../b"), Err(GlobError::Relative(_))));
        assert!(matches!(Glob::parse(&format!("/{}", "a".repeat(5000))), Err(GlobError::TooLong(5001))));
    }

    /// What is asked for every cgroup at every interval allocates nothing, or once where the pattern is long.
    #[test]
    fn the_states_of_long_and_short_patterns_are_the_same() {
        for stars in [0, 100, 300] {
            let pattern = format!("/**/{}b*/c", "*a".repeat(stars));
            let text = format!("/x/y/{}bcd/c/e", "za".repeat(stars));
            let glob = Glob::parse(&pattern).unwrap();
            assert!(glob.matches(&text) && !glob.matches_itself(&text), "{stars}");
            assert!(glob.matches_itself(text.trim_end_matches("/e")) && !glob.matches(&text.replace("bcd", "cd")), "{stars}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = format!("/{}b", "*a".repeat(1000));
        assert!(!matches(&pattern, &format!("/{}", "a".repeat(2000))));
    }
}
