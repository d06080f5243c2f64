//! How to trace, as the verbs that do so are told.

use crate::{
    containers::KnownNames,
    kernel_half::{probes::Tier, sizes::Forced, start::StartOptions},
    text::units,
};
use clap::ValueEnum;
use std::path::PathBuf;

/// Options of every verb that traces what others do.
#[derive(Clone, Debug, clap::Args)]
pub struct TracingArgs {
    /// Take every charge instead of sampling.
    #[arg(long)]
    pub exact: bool,
    /// Record the kernel's stack with every charge. By default it is left out where it says no more than that the program read, wrote or
    /// touched memory; it costs as much as the rest of a sample.
    #[arg(long)]
    pub kernel_frames: bool,
    /// Force a class of providers.
    #[arg(long, value_name = "TIER")]
    pub provider: Option<ProviderArg>,
    /// Most memory for the kernel half's tables.
    #[arg(long, value_name = "SIZE", default_value = "84MiB", value_parser = units::parse_size)]
    pub map_memory: u64,
    /// Memory for the tables by which stacks of programs without frame pointers are walked, part of the above. 0: by frame pointers alone.
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size_or_none)]
    pub unwind_memory: u64,
    /// Where the files of container runtimes and the kubelet are, which name containers and pods: the root of the host, if memtrail
    /// runs in a container.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub host_root: PathBuf,
}

impl TracingArgs {
    /// Names of containers and pods, none looked up yet.
    #[must_use]
    pub fn names(&self) -> KnownNames {
        KnownNames::new(&self.host_root)
    }

    /// What to start with: everything, until a filter says less.
    #[must_use]
    pub fn options(&self, forced: Forced) -> StartOptions {
        StartOptions {
            exact: self.exact,
            kernel_frames: self.kernel_frames,
            provider: self.provider.map(Tier::from),
            map_memory: self.map_memory,
            unwind_memory: self.unwind_memory,
            forced,
            ..StartOptions::default()
        }
    }
}

/// A size, or 0 for none.
fn size_or_none(text: &str) -> Result<u64, units::UnitError> {
    if text == "0" { Ok(0) } else { units::parse_size(text) }
}

/// Classes of providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProviderArg {
    /// BPF trampolines.
    Fentry,
    /// Kprobes.
    Kprobe,
    /// Tracepoints.
    Tracepoint,
}

impl From<ProviderArg> for Tier {
    fn from(arg: ProviderArg) -> Tier {
        match arg {
            ProviderArg::Fentry => Tier::Fentry,
            ProviderArg::Kprobe => Tier::Kprobe,
            ProviderArg::Tracepoint => Tier::Tracepoint,
        }
    }
}
