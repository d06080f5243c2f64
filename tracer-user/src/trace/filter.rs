//! Which cgroups are wanted: yes, no, or not known before more is seen. Pure.

use crate::{
    cgroup::CgroupPath,
    containers::{NamePattern, Names, pattern},
    text::glob::Glob,
};
use std::collections::{HashMap, HashSet};

/// Most cgroups of which it is kept what their names say. Of more than that it stays undecided.
const MOST_DECIDED: usize = 1 << 16;

/// The filter. Empty: every cgroup is wanted. Patterns of one kind are alternatives; of different kinds, one of each must match.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    patterns: Vec<Glob>,
    pods: Vec<NamePattern>,
    containers: Vec<NamePattern>,
    /// Pods' and containers' cgroups, and whether they are wanted by their names. Below one that is wanted everything is.
    decided: HashMap<CgroupPath, bool>,
    /// Cgroups whose names found no room there.
    refused: u64,
}

impl Filter {
    /// A filter by any of these patterns.
    #[must_use]
    pub fn new(patterns: Vec<Glob>) -> Filter {
        Filter { patterns, ..Filter::default() }
    }

    /// And by the names of pods and containers.
    #[must_use]
    pub fn named(self, pods: Vec<NamePattern>, containers: Vec<NamePattern>) -> Filter {
        Filter { pods, containers, ..self }
    }

    /// Whether nothing is filtered.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.patterns.is_empty() && !self.has_names()
    }

    /// Whether names matter.
    #[must_use]
    pub fn has_names(&self) -> bool {
        !self.pods.is_empty() || !self.containers.is_empty()
    }

    /// Takes in what is known of a cgroup's names by now: whether that decides what was not decided before.
    pub fn learn(&mut self, path: &CgroupPath, names: &Names) -> bool {
        if !self.has_names() || self.decided.contains_key(path) {
            return false;
        }
        let of_pods = pattern::any(&self.pods, |pattern| pattern.takes_pod(names));
        let of_containers = pattern::any(&self.containers, |pattern| pattern.takes_container(names));
        let verdict = match (of_pods, of_containers) {
            (Some(true), Some(true)) => true,
            (Some(false), _) => false,
            // A pod's own cgroup is of no container; the ones below it may be.
            (_, Some(false)) if names.container.is_some() => false,
            _ => return false,
        };
        if self.decided.len() >= MOST_DECIDED {
            self.refused += 1;
            return false;
        }
        self.decided.insert(path.clone(), verdict);
        true
    }

    /// Makes room, once half of it is taken: what is neither one of these cgroups nor above one of them decides nothing any more.
    pub fn retain<'a>(&mut self, cgroups: impl Iterator<Item = &'a CgroupPath>) {
        if self.decided.len() <= MOST_DECIDED / 2 {
            return;
        }
        let mut kept: HashSet<CgroupPath> = HashSet::new();
        for cgroup in cgroups {
            // What is above one that is there already is there too.
            let above = std::iter::successors(Some(cgroup.clone()), CgroupPath::parent).take_while(|path| !kept.contains(path));
            let new: Vec<CgroupPath> = above.collect();
            kept.extend(new);
        }
        self.decided.retain(|path, _| kept.contains(path));
    }

    /// How often the names of a cgroup decided of it and could not be kept: it is not recorded, wanted or not.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether the cgroup, or one above it, matches.
    #[must_use]
    pub fn wants(&self, path: &CgroupPath) -> bool {
        let by_path = self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(&text(path)));
        by_path && (!self.has_names() || self.by_name(path) == Some(true))
    }

    /// Whether it may turn out to be wanted once its names are known: then the kernel half is not told that it is refused.
    #[must_use]
    pub fn is_undecided(&self, path: &CgroupPath) -> bool {
        let is_named = || crate::cgroup::container::identify(path).is_some();
        self.has_names() && self.by_name(path).is_none() && !self.refused_by_path(path) && is_named()
    }

    /// What names decide of the cgroup, or of the nearest one above it of which they decide.
    fn by_name(&self, path: &CgroupPath) -> Option<bool> {
        std::iter::successors(Some(path.clone()), CgroupPath::parent).find_map(|path| self.decided.get(&path).copied())
    }

    /// Whether neither the cgroup nor anything that may come to be below it can match: only then may the kernel half refuse it for
    /// itself and its later children. Known for paths without stars; a pattern with one may match anywhere.
    #[must_use]
    pub fn refuses_below(&self, path: &CgroupPath) -> bool {
        self.refused_by_path(path) || self.has_names() && self.by_name(path) == Some(false)
    }

    fn refused_by_path(&self, path: &CgroupPath) -> bool {
        let path = text(path);
        let prefix = format!("{}/", path.trim_end_matches('/'));
        !self.patterns.is_empty()
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

    /// The names that nothing has, in words.
    #[must_use]
    pub fn unmatched_names(&self, names: &[Names]) -> Vec<String> {
        let nobody = |takes: &dyn Fn(&Names) -> Option<bool>| !names.iter().any(|names| takes(names) == Some(true));
        let pods = self.pods.iter().filter(|pattern| nobody(&|names| pattern.takes_pod(names)));
        let containers = self.containers.iter().filter(|pattern| nobody(&|names| pattern.takes_container(names)));
        let of = |what: &'static str| move |pattern: &NamePattern| format!("{what} {}", pattern.as_str());
        pods.map(of("pod")).chain(containers.map(of("container"))).collect()
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

    /// Names in the layout of cgroupfs, with the namespace `shop`.
    fn names(pod: Option<&str>, container: Option<&str>) -> Names {
        let named = crate::containers::Named {
            name: container.map(Into::into),
            pod: pod.map(Into::into),
            namespace: Some("shop".into()),
            ..Default::default()
        };
        Names { pod_uid: Some("6b21aa11-0c1d".into()), container: container.map(|_| "0".repeat(64)), runtime: None, named }
    }

    #[test]
    fn a_pod_is_wanted_with_all_below_it_once_it_has_its_name() {
        let mut filter = Filter::default().named(vec![NamePattern::pod("cart-7").unwrap()], vec![]);
        let (pod, other) = (path("/kubepods/pod6b21aa11-0c1d"), path("/kubepods/pod7b21aa11-0c1d"));
        let below = path("/kubepods/pod6b21aa11-0c1d/x");
        assert!(!filter.is_open() && filter.is_undecided(&pod) && filter.is_undecided(&below) && !filter.wants(&below));
        assert!(!filter.learn(&pod, &names(None, None)), "its name is not known yet");
        assert!(filter.learn(&pod, &names(Some("cart-7"), None)) && filter.learn(&other, &names(Some("cart-8"), None)));
        assert!(filter.wants(&pod) && filter.wants(&below) && !filter.is_undecided(&below));
        assert!(!filter.wants(&other) && filter.refuses_below(&other));
        assert!(!filter.wants(&path("/kubepods")) && !filter.refuses_below(&path("/kubepods")) && !filter.is_undecided(&path("/kubepods")));
    }

    #[test]
    fn a_container_of_a_pod_takes_both() {
        let patterns = |text: &str| vec![NamePattern::container(text).unwrap()];
        let mut filter = Filter::default().named(vec![NamePattern::pod("cart-*").unwrap()], patterns("web"));
        let container = |pod: &str, n: usize| path(&format!("/kubepods/pod{pod}/{n:064}"));
        for (at, pod, name, wanted) in [
            (container("6b21aa11-0c1d", 1), "cart-7", "web", true),
            (container("6b21aa11-0c1d", 2), "cart-7", "db", false),
            (container("7b21aa11-0c1d", 3), "shop-1", "web", false),
        ] {
            filter.learn(&at, &names(Some(pod), Some(name)));
            assert_eq!((filter.wants(&at), filter.refuses_below(&at)), (wanted, !wanted), "{pod} {name}");
        }
        let pod = path("/kubepods/pod6b21aa11-0c1d");
        assert!(!filter.learn(&pod, &names(Some("cart-7"), None)), "of the pod itself nothing is decided: one below it is wanted");
        assert_eq!(filter.unmatched_names(&[names(Some("cart-7"), Some("db"))]), ["container web"]);
    }

    /// Two minutes of a host on which 500 containers a second come and go.
    #[test]
    fn what_is_gone_makes_room_and_what_finds_none_is_counted() {
        let mut filter = Filter::default().named(vec![NamePattern::pod("cart-7").unwrap()], vec![]);
        let pod = |n: usize| path(&format!("/kubepods/pod{n:08x}-0c1d"));
        let named = names(Some("cart-7"), None);
        let learned = (0..70_000).filter(|n| filter.learn(&pod(*n), &named)).count();
        assert_eq!((learned, filter.refused()), (MOST_DECIDED, (70_000 - MOST_DECIDED) as u64));
        assert!(!filter.wants(&pod(69_999)));
        // A cgroup below a pod whose own is gone: its memory is still charged.
        let below = path("/kubepods/pod00000007-0c1d/x/y");
        filter.retain([&pod(3), &below].into_iter());
        assert!(filter.wants(&pod(3)) && filter.wants(&below) && !filter.wants(&pod(4)));
        assert_eq!(filter.decided.len(), 2);
        assert!(filter.learn(&pod(69_999), &named) && filter.wants(&pod(69_999)));
        filter.retain(std::iter::empty());
        assert_eq!(filter.decided.len(), 3, "there is room");
    }

    #[test]
    fn names_and_paths_must_both_match() {
        let mut filter = filter(&["/kubepods/burstable"]).named(vec![NamePattern::pod("cart-7").unwrap()], vec![]);
        let (inside, outside) = (path("/kubepods/burstable/pod6b21aa11-0c1d"), path("/kubepods/pod6b21aa11-0c1d"));
        filter.learn(&inside, &names(Some("cart-7"), None));
        filter.learn(&outside, &names(Some("cart-7"), None));
        assert!(filter.wants(&inside) && !filter.wants(&outside) && filter.refuses_below(&outside));
    }

    #[test]
    fn a_star_refuses_nothing_beforehand() {
        let filter = filter(&["/kubepods/*"]);
        assert!(!filter.refuses_below(&path("/x")));
        assert!(!filter.wants(&path("/x")));
    }
}
