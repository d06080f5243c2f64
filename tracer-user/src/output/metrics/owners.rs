//! Label sets: whose memory a series is of. Containers of pods are told by the names that the kubelet uses, all others by the path of their
//! cgroup. Two cgroups of one name, such as a container's before and after its restart, are one series.

use super::Label;
use crate::report::Cgroup;
use std::{borrow::Cow, collections::BTreeMap};

/// Stands for those that have no series of their own.
pub const OTHERS: &str = "(others)";
/// Stands for cgroups whose names were never seen.
pub const UNKNOWN: &str = "(unknown)";

/// Whose memory it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A container of a pod, or with an empty container the pod itself. The pod is its uid where its name is not known.
    Pod {
        /// Empty where it is not known.
        namespace: String,
        /// Name, or uid.
        pod: String,
        /// Name, or id; empty for what is charged to the pod's own cgroup.
        container: String,
    },
    /// Any other cgroup.
    Cgroup {
        /// Path.
        path: String,
        /// Name of the container, where a runtime gave it one.
        name: String,
    },
}

impl Owner {
    /// Whose memory a row of the report is.
    #[must_use]
    pub fn of(cgroup: &Cgroup) -> Owner {
        let owned = |text: Option<&String>| text.cloned().unwrap_or_default();
        if cgroup.pod.is_some() || cgroup.pod_name.is_some() {
            return Owner::Pod {
                namespace: owned(cgroup.namespace.as_ref()),
                pod: owned(cgroup.pod_name.as_ref().or(cgroup.pod.as_ref())),
                container: owned(cgroup.container_name.as_ref().or(cgroup.container.as_ref())),
            };
        }
        // One series for all that are not known, however many there are.
        let is_known = cgroup.path.starts_with('/');
        Owner::Cgroup { path: if is_known { cgroup.path.clone() } else { UNKNOWN.to_owned() }, name: owned(cgroup.container_name.as_ref()) }
    }

    /// What it is folded into where there is no room for it.
    #[must_use]
    pub fn folded(&self) -> Owner {
        match self {
            Owner::Pod { namespace, .. } => Owner::Pod { namespace: namespace.clone(), pod: OTHERS.to_owned(), container: String::new() },
            Owner::Cgroup { .. } => Owner::Cgroup { path: OTHERS.to_owned(), name: String::new() },
        }
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> Vec<Label> {
        let label = |name: &'static str, value: &str| (name, Cow::Owned(value.to_owned()));
        match self {
            Owner::Pod { namespace, pod, container } => {
                vec![label("namespace", namespace), label("pod", pod), label("container", container)]
            }
            Owner::Cgroup { path, name } if name.is_empty() => vec![label("cgroup", path)],
            Owner::Cgroup { path, name } => vec![label("cgroup", path), label("name", name)],
        }
    }
}

/// The owners that get series of their own: the largest `most` of them, others are folded. By owner, what it stands under.
#[must_use]
pub fn fold(sizes: &BTreeMap<Owner, u64>, most: usize) -> BTreeMap<Owner, Owner> {
    let mut by_size: Vec<(&Owner, u64)> = sizes.iter().map(|(owner, bytes)| (owner, *bytes)).collect();
    by_size.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let stands_under =
        |(place, (owner, _)): (usize, (&Owner, u64))| (owner.clone(), if place < most { owner.clone() } else { owner.folded() });
    by_size.into_iter().enumerate().map(stands_under).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(container: &str) -> Owner {
        Owner::Pod { namespace: "shop".to_owned(), pod: "cart-7".to_owned(), container: container.to_owned() }
    }

    #[test]
    fn names_before_ids_and_a_pod_or_a_path_but_never_both() {
        let mut cgroup = Cgroup { path: "/kubepods/pod1/abc".to_owned(), pod: Some("1-2-3".to_owned()), ..Cgroup::default() };
        assert_eq!(Owner::of(&cgroup), Owner::Pod { namespace: String::new(), pod: "1-2-3".to_owned(), container: String::new() });
        cgroup.container = Some("abc".to_owned());
        cgroup.pod_name = Some("cart-7".to_owned());
        cgroup.namespace = Some("shop".to_owned());
        assert_eq!(Owner::of(&cgroup), pod("abc"));
        cgroup.container_name = Some("web".to_owned());
        assert_eq!(Owner::of(&cgroup), pod("web"));
        assert_eq!(Owner::of(&cgroup).labels().len(), 3);
        let docker = Cgroup { path: "/docker/abc".to_owned(), container_name: Some("db".to_owned()), ..Cgroup::default() };
        assert_eq!(Owner::of(&docker).labels(), [("cgroup", "/docker/abc".into()), ("name", "db".into())]);
        let unknown = Cgroup { path: "[unknown cgroup 7]".to_owned(), ..Cgroup::default() };
        assert_eq!(Owner::of(&unknown).labels(), [("cgroup", UNKNOWN.into())]);
    }

    #[test]
    fn the_largest_stay_and_others_are_folded_by_namespace() {
        let cgroup = Owner::Cgroup { path: "/a".to_owned(), name: String::new() };
        let sizes = BTreeMap::from([(pod("web"), 5), (pod("log"), 1), (cgroup.clone(), 3)]);
        let folded = fold(&sizes, 2);
        assert_eq!(folded[&pod("web")], pod("web"));
        assert_eq!(folded[&cgroup], cgroup);
        assert_eq!(folded[&pod("log")], Owner::Pod { namespace: "shop".to_owned(), pod: OTHERS.to_owned(), container: String::new() });
        assert_eq!(fold(&sizes, 0)[&cgroup], Owner::Cgroup { path: OTHERS.to_owned(), name: String::new() });
    }
}
