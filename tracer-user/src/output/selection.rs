//! What of a report is shown: cgroups, pods, containers and kinds by pattern and name.
//!
//! Pure.

use super::Value;
use crate::containers::{NamePattern, Named, Names, pattern};
use crate::report::{Cgroup, Report};
use crate::text::glob::Glob;

/// What of a report is shown.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Cgroups, by any of these patterns; all if there is none.
    pub cgroups: Vec<Glob>,
    /// Pods and containers, by any of these names; all if there is none.
    pub pods: Vec<NamePattern>,
    /// As `pods`.
    pub containers: Vec<NamePattern>,
    /// Kinds, by name; all if there is none.
    pub kinds: Vec<String>,
    /// Which bytes.
    pub value: Value,
    /// Most rows; all if `None`.
    pub top: Option<usize>,
}

impl Selection {
    /// Whether a cgroup is chosen.
    #[must_use]
    pub fn takes_cgroup(&self, cgroup: &Cgroup) -> bool {
        let by_path = self.cgroups.is_empty() || self.cgroups.iter().any(|glob| glob.matches(&cgroup.path));
        if !by_path || self.pods.is_empty() && self.containers.is_empty() {
            return by_path;
        }
        let names = names(cgroup);
        let of_pods = pattern::any(&self.pods, |pattern| pattern.takes_pod(&names));
        let of_containers = pattern::any(&self.containers, |pattern| pattern.takes_container(&names));
        (of_pods, of_containers) == (Some(true), Some(true))
    }

    /// Whether some cgroups are left out.
    #[must_use]
    pub fn is_of_cgroups(&self) -> bool {
        !(self.cgroups.is_empty() && self.pods.is_empty() && self.containers.is_empty())
    }

    /// Whether a kind is chosen.
    #[must_use]
    pub fn takes_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|wanted| wanted == kind)
    }

    /// The report with the selected cgroups and kinds only, for any output. Figures of the whole cgroup (usage, limit) stay.
    #[must_use]
    pub fn apply(&self, report: &Report) -> Report {
        let mut report = report.clone();
        report.cgroups.retain(|cgroup| self.takes_cgroup(cgroup));
        for cgroup in &mut report.cgroups {
            cgroup.kinds.retain(|kind, _| self.takes_kind(kind));
            cgroup.subtree.retain(|kind, _| self.takes_kind(kind));
            cgroup.stacks.retain(|row| self.takes_kind(&row.kind));
            cgroup.files.retain(|file| self.takes_kind(&file.kind) || file.kind == "other" && self.kinds.is_empty());
            if !self.takes_kind("anon") {
                cgroup.regions.clear();
                cgroup.arenas.clear();
                cgroup.mappings.iter_mut().for_each(Vec::clear);
            }
        }
        report
    }
}

/// What the report says of a cgroup's pod and container.
fn names(cgroup: &Cgroup) -> Names {
    let Cgroup { pod, container, pod_name, namespace, container_name, .. } = cgroup;
    let named = Named { name: container_name.clone(), pod: pod_name.clone(), namespace: namespace.clone(), ..Named::default() };
    Names { pod_uid: pod.clone(), container: container.clone(), runtime: None, named }
}
