//! Which cgroups are traced, as the verbs that trace what others do are told.

use crate::{containers::NamePattern, text::glob::Glob, trace::filter::Filter};

/// Cgroups, pods and containers; all without any of them.
#[derive(Clone, Debug, clap::Args)]
pub struct WhichArgs {
    /// Only these cgroups and what is below them. May be given again.
    #[arg(long, value_name = "GLOB", value_parser = Glob::parse)]
    pub cgroup: Vec<Glob>,
    /// Only these pods: NAME, NAMESPACE/NAME or the uid; `*` for any part of a name. May be given again.
    #[arg(long, value_name = "[NS/]NAME", value_parser = NamePattern::pod)]
    pub pod: Vec<NamePattern>,
    /// Only these containers: the name, or the beginning of the id; `*` for any part of a name. May be given again.
    #[arg(long, value_name = "NAME|ID", value_parser = NamePattern::container)]
    pub container: Vec<NamePattern>,
}

impl WhichArgs {
    /// What is wanted of all that happens.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter::new(self.cgroup.clone()).named(self.pod.clone(), self.container.clone())
    }
}
