//! What a path says about the volume that a file is in. Pure.

/// A volume of a pod or of a container runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Uid of the pod; `None` for a runtime's own volume.
    pub pod: Option<String>,
    /// Plugin as the kubelet names its folder (`kubernetes.io~empty-dir`), or `docker`, `podman`.
    pub plugin: String,
    /// Name given in the pod or to the runtime.
    pub name: String,
}

/// The volume that a path of the host is in.
///
/// The kubelet's layout is `.../pods/UID/volumes/PLUGIN/NAME/...`, Docker's `.../docker/volumes/NAME/_data/...` and Podman's
/// `.../storage/volumes/NAME/_data/...`. Names that are not UTF-8 are none of theirs.
#[must_use]
pub fn of(path: &[u8]) -> Option<Volume> {
    let components: Vec<&str> = path.split(|byte| *byte == b'/').map(|part| std::str::from_utf8(part).unwrap_or("")).collect();
    (0..components.len()).find_map(|start| match &components[start..] {
        ["pods", pod, "volumes", plugin, name, _, ..] if named(pod) && named(plugin) && named(name) => {
            Some(Volume { pod: Some((*pod).to_owned()), plugin: (*plugin).to_owned(), name: (*name).to_owned() })
        }
        [parent @ ("docker" | "storage"), "volumes", name, "_data", _, ..] if named(name) => {
            let plugin = if *parent == "docker" { "docker" } else { "podman" };
            Some(Volume { pod: None, plugin: plugin.to_owned(), name: (*name).to_owned() })
        }
        _ => None,
    })
}

fn named(component: &str) -> bool {
    !component.is_empty()
}

impl Volume {
    /// `emptyDir cache of pod UID`, `volume db (docker)`.
    #[must_use]
    pub fn text(&self) -> String {
        match (&self.pod, self.plugin.as_str()) {
            (Some(pod), "kubernetes.io~empty-dir") => format!("emptyDir {} of pod {pod}", self.name),
            (Some(pod), plugin) => format!("volume {} ({}) of pod {pod}", self.name, plugin.trim_start_matches("kubernetes.io~")),
            (None, plugin) => format!("volume {} ({plugin})", self.name),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn pods_and_runtimes_volumes_are_named() {
        let text = |path: &str| of(path.as_bytes()).map(|volume| volume.text());
        let empty_dir = "/var/lib/kubelet/pods/0a1b-2c/volumes/kubernetes.io~empty-dir/cache/a/b";
        assert_eq!(text(empty_dir).unwrap(), "emptyDir cache of pod 0a1b-2c");
        assert_eq!(text("/var/lib/kubelet/pods/u/volumes/kubernetes.io~secret/s/x").unwrap(), "volume s (secret) of pod u");
        assert_eq!(text("/var/lib/docker/volumes/db/_data/x").unwrap(), "volume db (docker)");
        assert_eq!(text("/var/lib/containers/storage/volumes/db/_data/x").unwrap(), "volume db (podman)");
    }

    #[test]
    fn other_paths_are_in_no_volume() {
        for path in ["/", "", "/pods/u/volumes/p/n", "/var/log/pods/x", "/docker/volumes/db/other/x"] {
            assert_eq!(of(path.as_bytes()), None, "{path}");
        }
    }
}
