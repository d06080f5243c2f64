//! What was found of containers and pods, kept for as long as memtrail runs: the runtime's files go with the container, its memory may
//! not.

use super::{
    Named, Names,
    naming::{Answer, Naming, Question},
};
use crate::cgroup::{CgroupPath, container};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
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
    /// It is being looked for.
    asked: bool,
}

impl Entry {
    /// Notes that it is looked for now, if it may be.
    fn ask(&mut self) -> bool {
        let asks = !self.asked && self.tries < TRIES;
        if asks {
            (self.asked, self.tries) = (true, self.tries + 1);
        }
        asks
    }

    fn unask(&mut self) {
        (self.asked, self.tries) = (false, self.tries.saturating_sub(1));
    }
}

/// Names by id.
#[derive(Debug)]
pub struct KnownNames {
    naming: Naming,
    containers: HashMap<String, Entry>,
    /// By uid: what their containers or the kubelet's logs told.
    pods: HashMap<String, Entry>,
    /// Paths of those that are to be looked for again.
    waiting: Vec<CgroupPath>,
    /// Ids that found no room.
    refused: u64,
}

impl KnownNames {
    /// Names of the host whose root is at `root`.
    #[must_use]
    pub fn new(root: &Path) -> KnownNames {
        let naming = Naming::new(root.to_owned());
        KnownNames { naming, containers: HashMap::new(), pods: HashMap::new(), waiting: Vec::new(), refused: 0 }
    }

    /// Asks for the names of a cgroup that was just seen. It never waits: see [`KnownNames::settle`].
    pub fn learn(&mut self, path: &CgroupPath) {
        let Some(identity) = container::identify(path) else { return };
        let (mut known, mut question) = (true, Question { path: path.clone(), container: None, pod: None });
        if let Some(id) = &identity.container {
            match self.container(id) {
                Some(entry) if entry.named.is_whole() => {}
                Some(entry) => {
                    known &= entry.tries >= TRIES && !entry.asked;
                    question.container = entry.ask().then(|| id.clone());
                }
                None => self.refuse(),
            }
        }
        if let Some(uid) = &identity.pod {
            let told = identity.container.as_ref().and_then(|id| self.containers.get(id)).and_then(|entry| of_pod(&entry.named));
            match self.pod(uid) {
                Some(entry) => {
                    entry.named.complete(told.unwrap_or_default());
                    if entry.named.pod.is_none() {
                        known &= entry.tries >= TRIES && !entry.asked;
                        question.pod = entry.ask().then(|| uid.clone());
                    }
                }
                None => self.refuse(),
            }
        }
        if question.container.is_none() && question.pod.is_none() {
            // Somebody else's answer is waited for.
            if !known {
                self.wait(path.clone());
            }
        } else if !self.naming.ask(question.clone()) {
            let container = question.container.and_then(|id| self.containers.get_mut(&id));
            let pod = question.pod.and_then(|uid| self.pods.get_mut(&uid));
            container.into_iter().chain(pod).for_each(Entry::unask);
            self.wait(question.path);
        }
    }

    /// Asks again for what had no name; the cgroups of which that is.
    pub fn learn_again(&mut self) -> Vec<CgroupPath> {
        let mut paths = std::mem::take(&mut self.waiting);
        let later = paths.split_off(paths.len().min(MOST_AGAIN));
        self.waiting = later;
        paths.iter().for_each(|path| self.learn(path));
        paths
    }

    /// Takes in the answers that are there; the cgroups that they are about.
    pub fn take_in(&mut self) -> Vec<CgroupPath> {
        self.settle(Duration::ZERO)
    }

    /// The same, and waits for those that are not there yet, but no longer than that.
    pub fn settle(&mut self, longest: Duration) -> Vec<CgroupPath> {
        let until = Instant::now() + longest;
        let mut paths = Vec::new();
        while let Some(answer) = self.naming.next(until) {
            paths.push(self.answered(answer));
        }
        paths
    }

    fn answered(&mut self, Answer { question, container, pod }: Answer) -> CgroupPath {
        let mut whole = true;
        let mut told = pod;
        if let Some(entry) = question.container.as_ref().and_then(|id| self.containers.get_mut(id)) {
            entry.asked = false;
            entry.named.complete(container.unwrap_or_default());
            told = of_pod(&entry.named).or(told);
            whole &= entry.named.is_whole() || entry.tries >= TRIES;
        }
        let uid = container::identify(&question.path).and_then(|identity| identity.pod);
        if let Some(entry) = uid.and_then(|uid| self.pods.get_mut(&uid)) {
            entry.asked &= question.pod.is_none();
            entry.named.complete(told.unwrap_or_default());
            whole &= entry.named.pod.is_some() || entry.tries >= TRIES;
        }
        if !whole {
            self.wait(question.path.clone());
        }
        question.path
    }

    fn wait(&mut self, path: CgroupPath) {
        if self.waiting.len() < MOST {
            self.waiting.push(path);
        }
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

    /// `None` if there is no room.
    fn container(&mut self, id: &str) -> Option<&mut Entry> {
        if !self.containers.contains_key(id) && self.containers.len() >= MOST {
            return None;
        }
        Some(self.containers.entry(id.to_owned()).or_default())
    }

    /// As [`KnownNames::container`].
    fn pod(&mut self, uid: &str) -> Option<&mut Entry> {
        if !self.pods.contains_key(uid) && self.pods.len() >= MOST {
            return None;
        }
        Some(self.pods.entry(uid.to_owned()).or_default())
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

    /// Names that have been looked for so long that a disk or a file server does not seem to answer.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.naming.late()
    }

    fn refuse(&mut self) {
        self.refused += 1;
        if self.refused == 1 {
            log::warn!("more than {MOST} containers or pods are there: others are shown by their ids");
        }
    }
}

/// What is said of the pod.
fn of_pod(named: &Named) -> Option<Named> {
    named.pod.as_ref()?;
    Some(Named { pod: named.pod.clone(), namespace: named.namespace.clone(), ..Named::default() })
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

    /// More than any answer takes.
    const LONG: Duration = Duration::from_secs(60);

    fn learn(known: &mut KnownNames, path: &CgroupPath) {
        known.learn(path);
        known.settle(LONG);
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
        let mut known = KnownNames::new(root.path());
        let of_container = path("/kubepods/burstable/pod{UID}/{ID}");
        learn(&mut known, &of_container);
        std::fs::remove_dir_all(folder).unwrap();
        let names = known.names(&of_container).unwrap();
        assert_eq!(
            (names.container.as_deref(), names.named.name.as_deref(), names.named.pod.as_deref()),
            (Some(ID), Some("web"), Some("cart-7"))
        );
        let pod = known.names(&path("/kubepods/burstable/pod{UID}")).unwrap();
        assert_eq!((pod.container, pod.named.name, pod.named.pod.as_deref()), (None, None, Some("cart-7")));
        assert_eq!((pod.named.image, pod.named.namespace.as_deref()), (None, Some("shop")));
        assert_eq!(known.names(&path("/system.slice/x.service")), None);
    }

    #[test]
    fn files_that_come_later_are_found_and_there_is_an_end_to_it() {
        let root = tempfile::tempdir().unwrap();
        let mut known = KnownNames::new(root.path());
        let of_container = path("/kubepods/pod{UID}/{ID}");
        learn(&mut known, &of_container);
        assert!(known.names(&of_container).unwrap().named.is_empty(), "the ids are known, no more");
        bundle(root.path());
        assert_eq!(known.learn_again(), std::slice::from_ref(&of_container));
        assert_eq!(known.settle(LONG), std::slice::from_ref(&of_container));
        assert_eq!(known.names(&of_container).unwrap().named.name.as_deref(), Some("web"));
        for _ in 0..TRIES {
            known.learn_again();
            known.settle(LONG);
        }
        assert!(known.learn_again().is_empty(), "a restart count that never comes is not waited for");
    }

    #[test]
    fn there_is_a_bound() {
        let mut known = KnownNames::new(Path::new("/nonexistent"));
        for n in 0..MOST + 3 {
            known.learn(&path(&format!("/docker/{n:064x}")));
        }
        assert_eq!((known.containers.len(), known.refused), (MOST, 3));
        known.settle(LONG);
        assert!(known.waiting.len() <= MOST);
        // Those that are still there keep their place, and the others make room.
        let living: Vec<CgroupPath> = (0..3).map(|n| path(&format!("/docker/{n:064x}"))).collect();
        known.retain(living.iter());
        assert_eq!(known.containers.len(), 3);
        known.learn(&path(&format!("/docker/{:064x}", MOST)));
        assert_eq!((known.containers.len(), known.refused()), (4, 3));
        known.retain(std::iter::empty());
        assert_eq!(known.containers.len(), 4, "there is room");
    }

    #[test]
    fn a_disk_that_does_not_answer_holds_up_nobody_and_is_told() {
        let (naming, answer) = Naming::silent().unwrap();
        let mut known = KnownNames { naming, ..KnownNames::new(Path::new("/nonexistent")) };
        let began = Instant::now();
        for n in 0..10 {
            known.learn(&path(&format!("/docker/{n:064x}")));
        }
        assert!(known.settle(Duration::from_millis(50)).is_empty());
        // It is not waited for a second time.
        assert!(known.settle(LONG).is_empty() && known.take_in().is_empty());
        assert!(began.elapsed() < LONG / 2);
        assert_eq!(known.late(), 0, "it may still come");
        std::thread::sleep(Duration::from_millis(2100));
        assert_eq!(known.late(), 10);
        drop(answer);
        // What comes late is taken in.
        let mut came = 0;
        while came < 10 {
            came += known.take_in().len();
        }
        assert_eq!(known.late(), 0);
    }
}
