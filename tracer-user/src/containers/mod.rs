//! Names of containers and pods: from the ids that a cgroup's path holds to what people call them, by what runtimes and the kubelet leave
//! on disk. No daemon is asked.
//!
//! [`formats`] (pure) reads the files, [`disk`] (I/O) finds them below a root that can be another host's, past what [`mounts`] says may not
//! answer, [`naming`] does that on a thread of its own, [`book`] keeps what was found, since a runtime removes its files with the container, and
//! [`pattern`] (pure) is what `--pod` and `--container` ask for.
//!
//! Labels and images are chosen by whoever starts a container: they are bounded here and escaped where they become output.

pub mod disk;
pub mod formats;
pub mod known;
pub mod mounts;
pub mod naming;
pub mod pattern;

pub use known::KnownNames;
pub use pattern::NamePattern;

use crate::cgroup::container::Runtime;

/// Longest text kept of any one name, bytes. Kubernetes allows 253 for a pod.
pub const LONGEST: usize = 512;

/// What is known of a container by its id. Unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Its name, in its pod or with its runtime.
    pub name: Option<String>,
    /// Name of its Kubernetes pod.
    pub pod: Option<String>,
    /// Namespace of the pod.
    pub namespace: Option<String>,
    /// Uid of the pod.
    pub pod_uid: Option<String>,
    /// Image, as it was asked for.
    pub image: Option<String>,
    /// How often it was restarted before.
    pub restart: Option<u32>,
    /// It holds a pod's namespaces and is no container of its user.
    pub sandbox: bool,
}

impl Named {
    /// Adds from a second source what the first did not tell.
    pub fn complete(&mut self, other: Named) {
        let Named { name, pod, namespace, pod_uid, image, restart, sandbox } = other;
        self.name = self.name.take().or(name);
        self.pod = self.pod.take().or(pod);
        self.namespace = self.namespace.take().or(namespace);
        self.pod_uid = self.pod_uid.take().or(pod_uid);
        self.image = self.image.take().or(image);
        self.restart = self.restart.or(restart);
        self.sandbox |= sandbox;
    }

    /// Whether a further source can add nothing that outputs show.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let pod = self.pod.is_some() == self.pod_uid.is_some();
        self.name.is_some() && self.image.is_some() && pod && (self.restart.is_some() || self.pod.is_none())
    }

    /// Whether anything is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Named::default()
    }
}

/// What outputs show of a cgroup that belongs to a pod or a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Uid of the Kubernetes pod, or id of the Podman pod.
    pub pod_uid: Option<String>,
    /// Id of the container; `None` for what is the pod's as a whole.
    pub container: Option<String>,
    /// Runtime, where the path or the place of its files tells.
    pub runtime: Option<Runtime>,
    /// The rest; empty where nothing was found.
    pub named: Named,
}
