//! What was found of containers and pods, kept for as long as memtrail runs: the runtime's files go with the container, its memory may
//! not.

use super::{Named, Names, disk::Disk};
use crate::cgroup::{CgroupPath, container};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

/// Most containers and most pods kept.
const MOST: usize = 16_384;
/// How often what has no name yet is looked for again: the cgroup of a container may come before its files.
const TRIES: u8 = 5;
/// Most that are looked for again at once.
const MOST_AGAIN: usize = 256;

#[derive(Debug, Default)]
struct Entry {
    named: Named,
    tries: u8,
}

/// Names by id.
#[derive(Debug)]
pub struct Book {
    disk: Disk,
    containers: HashMap<String, Entry>,
    /// By uid: what their containers or the kubelet's logs told.
    pods: HashMap<String, Entry>,
    /// Paths of those that are to be looked for again.
    waiting: Vec<CgroupPath>,
    /// Ids that found no room.
    refused: u64,
}

impl Book {
    /// Names of the host whose root is at `root`.
    #[must_use]
    pub fn new(root: &Path) -> Book {
        Book { disk: Disk::new(root), containers: HashMap::new(), pods: HashMap::new(), waiting: Vec::new(), refused: 0 }
    }

    /// Looks for the names of a cgroup that was just seen.
    pub fn learn(&mut self, path: &CgroupPath) {
        let Some(identity) = container::identify(path) else { return };
        let mut whole = true;
        if let Some(id) = &identity.container {
            whole &= self.learn_container(id);
        }
        if let Some(uid) = &identity.pod {
            whole &= self.learn_pod(uid, identity.container.as_deref());
        }
        if !whole && self.waiting.len() < MOST {
            self.waiting.push(path.clone());
        }
    }

    /// Looks again for what had no name; the cgroups that were looked for.
    pub fn learn_again(&mut self) -> Vec<CgroupPath> {
        let mut paths = std::mem::take(&mut self.waiting);
        let later = paths.split_off(paths.len().min(MOST_AGAIN));
        paths.iter().for_each(|path| self.learn(path));
        self.waiting.extend(later);
        paths
    }

    /// What is known of a cgroup; `None` if its path is of neither a pod nor a container.
    #[must_use]
    pub fn names(&self, path: &CgroupPath) -> Option<Names> {
        let identity = container::identify(path)?;
        let mut named =
            identity.container.as_ref().and_then(|id| self.containers.get(id)).map(|entry| entry.named.clone()).unwrap_or_default();
        if let Some(pod) = identity.pod.as_ref().and_then(|uid| self.pods.get(uid)) {
            named.complete(Named { pod: pod.named.pod.clone(), namespace: pod.named.namespace.clone(), ..Named::default() });
        }
        Some(Names { pod_uid: identity.pod, container: identity.container, runtime: identity.runtime, named })
    }

    /// Whether nothing more is to be looked for.
    fn learn_container(&mut self, id: &str) -> bool {
        if !self.containers.contains_key(id) && self.containers.len() >= MOST {
            self.refuse();
            return true;
        }
        let entry = self.containers.entry(id.to_owned()).or_default();
        if entry.named.is_whole() || entry.tries >= TRIES {
            return true;
        }
        entry.tries += 1;
        let found = self.disk.container(id);
        entry.named.complete(found);
        entry.named.is_whole() || entry.tries >= TRIES
    }

    /// As [`Book::learn_container`].
    fn learn_pod(&mut self, uid: &str, container: Option<&str>) -> bool {
        if !self.pods.contains_key(uid) && self.pods.len() >= MOST {
            self.refuse();
            return true;
        }
        let told = container.and_then(|id| self.containers.get(id)).filter(|entry| entry.named.pod.is_some());
        let told = told.map(|entry| Named { pod: entry.named.pod.clone(), namespace: entry.named.namespace.clone(), ..Named::default() });
        let entry = self.pods.entry(uid.to_owned()).or_default();
        if let Some(told) = told {
            entry.named.complete(told);
        } else if entry.named.pod.is_none() && entry.tries < TRIES {
            entry.tries += 1;
            entry.named = self.disk.pod(uid).unwrap_or_default();
        }
        entry.named.pod.is_some() || entry.tries >= TRIES
    }

    /// Makes room, once half of it is taken: what none of these cgroups is of has no figures any more.
    pub fn retain<'a>(&mut self, cgroups: impl Iterator<Item = &'a CgroupPath>) {
        if self.containers.len().max(self.pods.len()) <= MOST / 2 {
            return;
        }
        let (mut containers, mut pods) = (HashSet::new(), HashSet::new());
        for identity in cgroups.filter_map(container::identify) {
            containers.extend(identity.container);
            pods.extend(identity.pod);
        }
        self.containers.retain(|id, _| containers.contains(id));
        self.pods.retain(|uid, _| pods.contains(uid));
    }

    /// How often a name was not looked for, because there were too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn refuse(&mut self) {
        self.refused += 1;
        if self.refused == 1 {
            log::warn!("more than {MOST} containers or pods are there: others are shown by their ids");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const ID: &str = "9f8c2e0c4c6a5d3f1b7e9a0d2c4f6b8e9f8c2e0c4c6a5d3f1b7e9a0d2c4f6b8e";
    const UID: &str = "6b21aa11-0c1d-4f3e-9a55-1234567890ab";

    fn path(text: &str) -> CgroupPath {
        CgroupPath::from_bytes(text.replace("{ID}", ID).replace("{UID}", UID).as_bytes()).unwrap()
    }

    fn bundle(root: &Path) -> std::path::PathBuf {
        let folder = root.join("run/containerd/io.containerd.runtime.v2.task/k8s.io").join(ID);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/containers/containerd-cri.json"), folder.join("config.json"))
            .unwrap();
        folder
    }

    #[test]
    fn names_outlive_the_files_and_the_pod_is_named_by_its_containers() {
        let root = tempfile::tempdir().unwrap();
        let folder = bundle(root.path());
        let mut book = Book::new(root.path());
        let of_container = path("/kubepods/burstable/pod{UID}/{ID}");
        book.learn(&of_container);
        std::fs::remove_dir_all(folder).unwrap();
        let names = book.names(&of_container).unwrap();
        assert_eq!(
            (names.container.as_deref(), names.named.name.as_deref(), names.named.pod.as_deref()),
            (Some(ID), Some("web"), Some("cart-7"))
        );
        let pod = book.names(&path("/kubepods/burstable/pod{UID}")).unwrap();
        assert_eq!((pod.container, pod.named.name, pod.named.pod.as_deref()), (None, None, Some("cart-7")));
        assert_eq!((pod.named.image, pod.named.namespace.as_deref()), (None, Some("shop")));
        assert_eq!(book.names(&path("/system.slice/x.service")), None);
    }

    #[test]
    fn files_that_come_later_are_found_and_there_is_an_end_to_it() {
        let root = tempfile::tempdir().unwrap();
        let mut book = Book::new(root.path());
        let of_container = path("/kubepods/pod{UID}/{ID}");
        book.learn(&of_container);
        assert!(book.names(&of_container).unwrap().named.is_empty(), "the ids are known, no more");
        bundle(root.path());
        assert_eq!(book.learn_again(), std::slice::from_ref(&of_container));
        assert_eq!(book.names(&of_container).unwrap().named.name.as_deref(), Some("web"));
        for _ in 0..TRIES {
            book.learn_again();
        }
        assert!(book.learn_again().is_empty(), "a restart count that never comes is not waited for");
    }

    #[test]
    fn there_is_a_bound() {
        let mut book = Book::new(Path::new("/nonexistent"));
        for n in 0..MOST + 3 {
            book.learn(&path(&format!("/docker/{n:064x}")));
        }
        assert_eq!((book.containers.len(), book.refused), (MOST, 3));
        assert!(book.waiting.len() <= MOST);
        // Those that are still there keep their place, and the others make room.
        let living: Vec<CgroupPath> = (0..3).map(|n| path(&format!("/docker/{n:064x}"))).collect();
        book.retain(living.iter());
        assert_eq!(book.containers.len(), 3);
        book.learn(&path(&format!("/docker/{:064x}", MOST)));
        assert_eq!((book.containers.len(), book.refused()), (4, 3));
        book.retain(std::iter::empty());
        assert_eq!(book.containers.len(), 4, "there is room");
    }
}
