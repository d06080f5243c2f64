//! What the path of a cgroup says about pods and containers. Pure: a path in, an opinion out; no runtime is asked.
//!
//! Knows the cgroupfs and systemd layouts of Kubernetes (also nested, as in kind), Docker, containerd, CRI-O and Podman. A cgroup below a
//! container's belongs to that container. Monitors (conmon) are no containers.

use super::CgroupPath;
use std::fmt;

/// Who runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd, through the kubelet or nerdctl.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Runtime::Docker => "docker",
            Runtime::Containerd => "containerd",
            Runtime::CriO => "cri-o",
            Runtime::Podman => "podman",
        })
    }
}

/// Quality-of-service class of a Kubernetes pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Qos {
    /// Limits equal requests.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// None.
    BestEffort,
}

/// What a path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Uid of the Kubernetes pod, with dashes (static pods have none), or id of the Podman pod.
    pub pod: Option<String>,
    /// Id of the container, 64 hexadecimal digits as a rule.
    pub container: Option<String>,
    /// Runtime; `None` where the layout does not tell, as with a bare id below a pod.
    pub runtime: Option<Runtime>,
    /// Class of the Kubernetes pod.
    pub qos: Option<Qos>,
}

/// What the path says; `None` if it is of neither a pod nor a container. With containers in containers (kind), the innermost counts.
#[must_use]
pub fn identify(path: &CgroupPath) -> Option<Identity> {
    let mut found: Option<Identity> = None;
    let mut qos = None;
    let mut kubernetes = false;
    for component in path.components() {
        let Ok(name) = std::str::from_utf8(component) else { continue };
        let unit = name.strip_suffix(".slice").unwrap_or(name);
        // The kubelet writes `kubepods`, or `kubelet-kubepods` with a cgroup root of its own, and the class after it.
        if let Some(class) = after_kubepods(unit) {
            (kubernetes, qos) = (true, class.or(Some(Qos::Guaranteed)));
        } else if kubernetes && class_named(unit).is_some() {
            qos = class_named(unit);
        }
        if let Some(pod) = kubernetes.then(|| kubernetes_pod(unit)).flatten().or_else(|| podman_pod(unit)) {
            let qos = if kubernetes { qos } else { None };
            found = Some(Identity { pod: Some(pod), container: None, runtime: None, qos });
        }
        let in_pod = found.as_ref().is_some_and(|f| f.pod.is_some());
        if let Some((container, runtime)) = container(name, in_pod, path) {
            // Below a pod the first container counts: what the payload makes below itself is its own affair, unless a pod is in it.
            match &mut found {
                Some(identity) if identity.container.is_none() => {
                    identity.container = Some(container);
                    identity.runtime = runtime;
                }
                Some(identity) if identity.pod.is_some() => {}
                _ => found = Some(Identity { pod: None, container: Some(container), runtime, qos: None }),
            }
        }
    }
    found
}

/// `Some(class)` for a unit that is or ends a `kubepods` prefix: `kubepods`, `kubepods-burstable`, `kubelet-kubepods-burstable-pod...`.
fn after_kubepods(unit: &str) -> Option<Option<Qos>> {
    let at = unit.find("kubepods")?;
    if at > 0 && unit.as_bytes().get(at - 1) != Some(&b'-') {
        return None;
    }
    match unit[at + "kubepods".len()..].strip_prefix('-') {
        None => (unit.len() == at + "kubepods".len()).then_some(None),
        Some(rest) => Some(class_named(rest.split('-').next().unwrap_or_default())),
    }
}

fn class_named(name: &str) -> Option<Qos> {
    match name {
        "burstable" => Some(Qos::Burstable),
        "besteffort" => Some(Qos::BestEffort),
        _ => None,
    }
}

/// `podUID` (cgroupfs) or `...-podUID` (systemd, dashes written as underscores), with what containerd's colon form puts behind it.
fn kubernetes_pod(unit: &str) -> Option<String> {
    let unit = unit.split(':').next().unwrap_or(unit);
    let unit = unit.strip_suffix(".slice").unwrap_or(unit);
    let uid = unit.strip_prefix("pod").or_else(|| unit.rsplit_once("-pod").map(|(_, uid)| uid))?;
    let uid = uid.replace('_', "-");
    let valid = (8..=64).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    valid.then_some(uid)
}

/// `machine-libpod_pod_ID` (systemd).
fn podman_pod(unit: &str) -> Option<String> {
    let (_, id) = unit.rsplit_once("libpod_pod_")?;
    is_id(id).then(|| id.to_owned())
}

/// Prefixes of container cgroups, the longer ones first where one begins another.
const PREFIXES: [(&str, Runtime); 5] = [
    ("cri-containerd-", Runtime::Containerd),
    ("nerdctl-", Runtime::Containerd),
    ("crio-", Runtime::CriO),
    ("docker-", Runtime::Docker),
    ("libpod-", Runtime::Podman),
];

fn container(name: &str, in_pod: bool, path: &CgroupPath) -> Option<(String, Option<Runtime>)> {
    // containerd with the systemd layout's path and the cgroupfs driver: `kubepods-...-podUID.slice:cri-containerd:ID`.
    if let [_, runtime, id] = name.split(':').collect::<Vec<_>>()[..] {
        let runtime = match runtime {
            "cri-containerd" => Runtime::Containerd,
            "crio" => Runtime::CriO,
            "docker" => Runtime::Docker,
            _ => return None,
        };
        return is_id(id).then(|| (id.to_owned(), Some(runtime)));
    }
    let unit = name.strip_suffix(".scope").unwrap_or(name);
    for (prefix, runtime) in PREFIXES {
        // crio-conmon-ID and libpod-conmon-ID fail the test for an id, as they should.
        if let Some(id) = unit.strip_prefix(prefix).filter(|id| is_id(id)) {
            return Some((id.to_owned(), Some(runtime)));
        }
    }
    let below = |parent: &[u8]| path.components().zip(path.components().skip(1)).any(|(a, b)| a == parent && b == name.as_bytes());
    if !is_full_id(name) {
        return None;
    }
    if below(b"docker") {
        return Some((name.to_owned(), Some(Runtime::Docker)));
    }
    if below(b"k8s.io") || below(b"default") || below(b"moby") {
        return Some((name.to_owned(), Some(Runtime::Containerd)));
    }
    in_pod.then(|| (name.to_owned(), None))
}

/// 12 to 64 hexadecimal digits.
fn is_id(id: &str) -> bool {
    (12..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// 64 hexadecimal digits.
fn is_full_id(id: &str) -> bool {
    id.len() == 64 && is_id(id)
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
