//! Which cgroups are wanted: yes, no, or not known before more is seen. Pure.

use crate::{cgroup::CgroupPath, glob::Glob};

/// The cgroup filter. Empty: every cgroup is wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    patterns: Vec<Glob>,
}

impl Filter {
    /// A filter by any of these patterns.
    #[must_use]
    pub fn new(patterns: Vec<Glob>) -> Filter {
        Filter { patterns }
    }

    /// Whether nothing is filtered.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the cgroup, or one above it, matches.
    #[must_use]
    pub fn wants(&self, path: &CgroupPath) -> bool {
        self.is_open() || self.patterns.iter().any(|pattern| pattern.matches(&text(path)))
    }

    /// Whether neither the cgroup nor anything that may come to be below it can match: only then may the kernel half refuse it for
    /// itself and its later children. Known for paths without stars; a pattern with one may match anywhere.
    #[must_use]
    pub fn refuses_below(&self, path: &CgroupPath) -> bool {
        let path = text(path);
        let prefix = format!("{}/", path.trim_end_matches('/'));
        !self.is_open()
            && self.patterns.iter().all(|pattern| match pattern.literal() {
                Some(literal) => !literal.starts_with(&prefix) && !pattern.matches(&path),
                None => false,
            })
    }

    /// The patterns that no path matches.
    #[must_use]
    pub fn unmatched<'a>(&self, paths: impl Iterator<Item = &'a CgroupPath>) -> Vec<&Glob> {
        let paths: Vec<String> = paths.map(text).collect();
        self.patterns.iter().filter(|pattern| !paths.iter().any(|path| pattern.matches(path))).collect()
    }
}

/// Names that are not UTF-8 are matched with their bad bytes replaced: a star matches them, nothing else can.
fn text(path: &CgroupPath) -> String {
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> CgroupPath {
        CgroupPath::from_bytes(text.as_bytes()).unwrap()
    }

    fn filter(patterns: &[&str]) -> Filter {
        Filter::new(patterns.iter().map(|p| Glob::parse(p).unwrap()).collect())
    }

    #[test]
    fn no_pattern_wants_everything() {
        assert!(filter(&[]).wants(&path("/a")));
        assert!(!filter(&[]).refuses_below(&path("/a")));
    }

    #[test]
    fn a_literal_refuses_all_but_its_ancestors_and_its_subtree() {
        let filter = filter(&["/kubepods/pod1"]);
        assert!(filter.wants(&path("/kubepods/pod1/c")));
        for (other, refused) in [("/", false), ("/kubepods", false), ("/kubepods/pod1", false), ("/kubepods/pod2", true), ("/x", true)] {
            assert_eq!(filter.refuses_below(&path(other)), refused, "{other}");
        }
    }

    #[test]
    fn a_star_refuses_nothing_beforehand() {
        let filter = filter(&["/kubepods/*"]);
        assert!(!filter.refuses_below(&path("/x")));
        assert!(!filter.wants(&path("/x")));
    }
}
