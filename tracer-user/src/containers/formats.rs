//! The formats: OCI runtime specs (`config.json`), Docker's `config.v2.json`, the containers' index of containers/storage (Podman, CRI-O), and the
//! names that the kubelet gives to logs. Pure: bytes in, names out; whatever makes no sense is `None`.
//!
//! Keys are those of containerd's pkg/cri/annotations, CRI-O's pkg/annotations, the kubelet's labels (pkg/kubelet/types/labels.go), nerdctl's
//! pkg/labels, Docker's container/container.go and containers/storage's containers.go.

use super::{LONGEST, Named};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

type Texts = BTreeMap<String, String>;

const NAME: &[&str] = &["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"];
const POD: &[&str] = &["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name", "io.kubernetes.cri-o.KubeName"];
const NAMESPACE: &[&str] = &["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace", "io.kubernetes.cri-o.Namespace"];
const POD_UID: &[&str] = &["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"];
const IMAGE: &[&str] = &["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"];
const RESTART: &[&str] = &["io.kubernetes.container.restartCount", "annotation.io.kubernetes.container.restartCount"];
/// What a pod's own container is called by the keys of its sort.
const SORT: &[&str] = &["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType", "io.kubernetes.docker.type"];
const SANDBOXES: [&str; 2] = ["sandbox", "podsandbox"];

/// An OCI runtime spec, by its annotations.
#[must_use]
pub fn oci(bytes: &[u8]) -> Option<Named> {
    #[derive(Deserialize)]
    struct Spec {
        #[serde(default)]
        annotations: Option<Texts>,
    }
    let mut annotations = serde_json::from_slice::<Spec>(bytes).ok()?.annotations?;
    // CRI-O keeps the kubelet's labels, and name and attempt, as JSON in an annotation.
    let inner = |key: &str| annotations.get(key).map(String::as_str).unwrap_or_default();
    let labels: Texts = serde_json::from_str(inner("io.kubernetes.cri-o.Labels")).unwrap_or_default();
    let metadata: CriMetadata = serde_json::from_str(inner("io.kubernetes.cri-o.Metadata")).unwrap_or_default();
    for (key, value) in labels {
        annotations.entry(key).or_insert(value);
    }
    let mut named = by_keys(&annotations);
    if named.sandbox {
        named.restart = None;
    } else if annotations.contains_key("io.kubernetes.cri-o.Metadata") {
        named.complete(Named { name: metadata.name.and_then(text), restart: metadata.attempt, ..Named::default() });
    }
    (!named.is_empty()).then_some(named)
}

#[derive(Default, Deserialize)]
struct CriMetadata {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    attempt: Option<u32>,
}

/// Docker's record of a container.
#[must_use]
pub fn docker(bytes: &[u8]) -> Option<Named> {
    #[derive(Deserialize)]
    struct Record {
        #[serde(rename = "Name", default)]
        name: Option<String>,
        #[serde(rename = "RestartCount", default)]
        restarts: Option<u32>,
        #[serde(rename = "Config", default)]
        config: Option<Config>,
    }
    #[derive(Default, Deserialize)]
    struct Config {
        #[serde(rename = "Image", default)]
        image: Option<String>,
        #[serde(rename = "Labels", default)]
        labels: Option<Texts>,
    }
    let record: Record = serde_json::from_slice(bytes).ok()?;
    let config = record.config.unwrap_or_default();
    let mut named = by_keys(&config.labels.unwrap_or_default());
    // A pod's own container has a name of the kubelet's making.
    let name = record.name.filter(|_| !named.sandbox).and_then(|name| text(name.trim_start_matches('/').to_owned()));
    named.complete(Named { name, image: config.image.and_then(text), restart: record.restarts, ..Named::default() });
    (!named.is_empty()).then_some(named)
}

/// The index of containers/storage: containers by id.
#[must_use]
pub fn storage_index(bytes: &[u8]) -> Option<HashMap<String, Named>> {
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        #[serde(default)]
        names: Option<Vec<String>>,
        #[serde(default)]
        metadata: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(default)]
        name: Option<String>,
        #[serde(rename = "image-name", default)]
        image: Option<String>,
        // CRI-O's: the name in the pod; `names` are the whole of it then.
        #[serde(rename = "metadata-name", default)]
        metadata_name: Option<String>,
        #[serde(rename = "pod-name", default)]
        pod_name: Option<String>,
    }
    let entries: Vec<Entry> = serde_json::from_slice(bytes).ok()?;
    let named = |entry: Entry| {
        let metadata: Metadata = serde_json::from_str(entry.metadata.as_deref().unwrap_or_default()).unwrap_or_default();
        let first = entry.names.and_then(|names| names.into_iter().next());
        // Its `pod-name` is one of the runtime's own making, so the pod is not told here.
        let name = if metadata.pod_name.is_some() { metadata.metadata_name } else { metadata.name.or(first) };
        (entry.id, Named { name: name.and_then(text), image: metadata.image.and_then(text), ..Named::default() })
    };
    Some(entries.into_iter().map(named).collect())
}

/// A link of /var/log/containers, `POD_NAMESPACE_CONTAINER-ID.log`, and where it points, `.../NAMESPACE_POD_UID/CONTAINER/RESTART.log`: the
/// container's id, and what both say of it.
#[must_use]
pub fn log_link(name: &str, target: &str) -> Option<(String, Named)> {
    let (rest, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = rest.splitn(3, '_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let mut components = target.rsplit('/');
    let restart = components.next()?.strip_suffix(".log")?.parse().ok()?;
    let (directory, of_pod) = (components.next()?, pod_log_directory(components.next()?)?);
    let agrees = directory == container && of_pod.pod.as_deref() == Some(pod) && of_pod.namespace.as_deref() == Some(namespace);
    let valid = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (agrees && valid).then(|| (id.to_owned(), Named { name: text(container.to_owned()), restart: Some(restart), ..of_pod }))
}

/// A directory of /var/log/pods: `NAMESPACE_POD_UID`. None of the three has an underscore.
#[must_use]
pub fn pod_log_directory(name: &str) -> Option<Named> {
    let mut parts = name.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let of_pod =
        Named { namespace: text(namespace.to_owned()), pod: text(pod.to_owned()), pod_uid: text(uid.to_owned()), ..Named::default() };
    (parts.next().is_none() && of_pod.namespace.is_some() && of_pod.pod.is_some() && of_pod.pod_uid.is_some()).then_some(of_pod)
}

fn by_keys(texts: &Texts) -> Named {
    let get = |keys: &[&str]| keys.iter().find_map(|key| texts.get(*key).cloned().and_then(text));
    let sandbox = SORT.iter().filter_map(|key| texts.get(*key)).any(|sort| SANDBOXES.contains(&sort.as_str()));
    Named {
        name: if sandbox { None } else { get(NAME) },
        pod: get(POD),
        namespace: get(NAMESPACE),
        pod_uid: get(POD_UID),
        image: get(IMAGE),
        restart: get(RESTART).and_then(|count| count.parse().ok()),
        sandbox,
    }
}

/// Cut to the longest that is kept; nothing is no name.
fn text(mut text: String) -> Option<String> {
    let end = (0..=LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
#[path = "formats_tests.rs"]
mod tests;
