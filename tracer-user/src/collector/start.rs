//! Starting: facts, plan, sizes, load, calibrate, attach, baseline. Nothing counts before everything is attached.

use crate::{
    bpf::{
        self, BpfError,
        attach::Attached,
        baseline::Scan,
        sizes::{self, DoesNotFit, Forced, Sizes, Wish},
    },
    kernel::{
        btf::{Btf, BtfError},
        facts::{self, Facts},
    },
    plan::{self, Names, PlanError, PlannedProbe},
    probes::Tier,
};
use aya::Ebpf;
use tracer_common::{
    ABI_VERSION,
    layout::{ABSENT, KernelLayout},
    settings::{Control, Settings},
};

/// Why a trace could not start. Each says what to do, where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not enough rights.
    #[error("memtrail needs {0}: run it as root")]
    Capability(&'static str),
    /// Another architecture.
    #[error("memtrail traces x86_64 only; on {0} only `report` and `diff` work")]
    Architecture(String),
    /// No type information.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A file of /proc.
    #[error("cannot read the host's facts: {0}")]
    Facts(#[from] std::io::Error),
    /// A forced provider.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Tables do not fit.
    #[error(transparent)]
    Sizes(#[from] DoesNotFit),
    /// The kernel's structures are not as any known kernel has them.
    #[error("this kernel's {0} is not known to memtrail; please report the output of `memtrail doctor`")]
    Layout(&'static str),
    /// Loading, attaching, reading.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

/// What to trace, as far as the kernel half must know.
#[derive(Clone, Copy, Debug)]
pub struct StartOptions {
    /// Take every charge.
    pub exact: bool,
    /// Force a tier.
    pub provider: Option<Tier>,
    /// Bound for all maps, bytes.
    pub map_memory: u64,
    /// Most bytes that the wanted cgroups can hold, `None` for all of RAM.
    pub traced_bytes: Option<u64>,
    /// A cgroup filter is in force.
    pub filtered: bool,
    /// Table sizes given for tests.
    pub forced: Forced,
}

/// Host facts with what was derived from the type information.
pub struct Host {
    /// Facts.
    pub facts: Facts,
    /// Offsets and values.
    pub layout: KernelLayout,
    /// The type information itself.
    pub btf: Btf,
}

impl Host {
    /// Looks at the host.
    pub fn look() -> Result<Host, StartError> {
        let btf = facts::running_btf()?;
        let facts = facts::read(&btf)?;
        let layout = facts::layout(&btf);
        Ok(Host { facts, layout, btf })
    }

    /// Whether tracing is allowed and possible at all.
    pub fn check(&self) -> Result<(), StartError> {
        if self.facts.machine != "x86_64" {
            return Err(StartError::Architecture(self.facts.machine.clone()));
        }
        let have = self.facts.capabilities;
        for (ok, name) in [
            (have.bpf, "CAP_BPF (or CAP_SYS_ADMIN)"),
            (have.perfmon, "CAP_PERFMON (or CAP_SYS_ADMIN)"),
            (have.admin, "CAP_SYS_ADMIN (frame numbers in /proc)"),
        ] {
            if !ok {
                return Err(StartError::Capability(name));
            }
        }
        let l = &self.layout;
        for (missing, what) in [
            (l.folio_memcg_data == ABSENT && l.page_memcg_data == ABSENT && l.page_mem_cgroup == ABSENT, "owner word of a page"),
            (l.page_flags == ABSENT || l.page_mapping == ABSENT || l.pg_head == ABSENT || l.pg_swapbacked == ABSENT, "struct page"),
            (l.memcg_css == ABSENT || l.css_cgroup == ABSENT || l.cgroup_kn == ABSENT || l.kn_id == ABSENT, "cgroup identity"),
            (l.task_group_leader == ABSENT || l.task_tgid == ABSENT, "task identity"),
        ] {
            if missing {
                return Err(StartError::Layout(what));
            }
        }
        if !l.page_size.is_power_of_two() {
            return Err(StartError::Layout("struct page (its size is no power of two)"));
        }
        Ok(())
    }

    /// The probes' providers on this kernel.
    pub fn plan(&self, forced: Option<Tier>) -> Result<Vec<PlannedProbe>, PlanError> {
        plan::plan(self, forced)
    }

    /// Table sizes and sampling rate.
    pub fn sizes(&self, options: &StartOptions) -> Result<Sizes, DoesNotFit> {
        sizes::plan(&Wish {
            exact: options.exact,
            traced_bytes: options.traced_bytes.unwrap_or(self.facts.ram_bytes),
            ram_bytes: self.facts.ram_bytes,
            frames: self.facts.frames,
            cpus_possible: self.facts.cpus_possible,
            map_memory: options.map_memory,
            forced: options.forced,
        })
    }
}

impl Names for Host {
    fn function(&self, name: &str) -> Option<u32> {
        self.btf.function_parameters(name)
    }
    fn tracepoint(&self, name: &str) -> bool {
        self.btf.has_tracepoint(name)
    }
    fn kprobes(&self) -> bool {
        self.facts.kprobes
    }
}

/// The running kernel half.
pub struct Running {
    /// Programs, links and maps: all gone from the kernel when this is dropped.
    pub bpf: Ebpf,
    /// Providers in use.
    pub attached: Vec<Attached>,
    /// Table sizes.
    pub sizes: Sizes,
    /// Which of them were forced.
    pub forced: Forced,
    /// Settings in force.
    pub settings: Settings,
    /// What the baseline pass did.
    pub baseline: Scan,
}

/// ___GFP_MOVABLE (include/linux/gfp.h to 6.3, gfp_types.h since): bit 3 in every kernel from 5.4 to 7.1. From 6.10 on it is an
/// enumerator of an enum without a name, which cannot be looked up by one.
const GFP_MOVABLE: u32 = 0x08;

/// Loads and attaches everything, lets `prepare` fill the filter table, then counts and takes the baseline.
pub fn start(host: &Host, options: &StartOptions, prepare: impl FnOnce(&mut Ebpf) -> Result<(), BpfError>) -> Result<Running, StartError> {
    host.check()?;
    raise_memlock_limit();
    let plan = host.plan(options.provider)?;
    let sizes = host.sizes(options)?;
    let better = plan.iter().all(|probe| probe.candidates.first().is_none_or(|candidate| candidate.tier != Tier::Tracepoint));
    let mut settings = Settings {
        abi_version: ABI_VERSION,
        log2_mean: sizes.log2_mean,
        frames: sizes.frames,
        vmemmap: 0,
        page_struct_shift: host.layout.page_size.ilog2(),
        filtered: u32::from(options.filtered),
        own_tgid: std::process::id(),
        kernel_stacks: 1,
        owner_totals: u32::from(better),
        gfp_movable: GFP_MOVABLE,
    };
    settings.vmemmap = calibrate(host, &settings, &sizes)?;
    let mut bpf = bpf::load(&host.layout, &settings, &sizes)?;
    let kernel_btf = aya::Btf::from_sys_fs().map_err(|source| BpfError::Load(aya::EbpfError::BtfError(source)))?;
    prepare(&mut bpf)?;
    let attached = bpf::attach::attach(&mut bpf, &plan, &kernel_btf)?;
    bpf::set_control(&mut bpf, Control { enabled: 1, baseline: 1, ..Control::default() })?;
    let seed = crate::cgroup::monotonic_ns();
    let baseline = bpf::baseline::take(&mut bpf, sizes.frames, sizes.log2_mean, seed)?;
    bpf::set_control(&mut bpf, Control { enabled: 1, baseline: 0, ..Control::default() })?;
    Ok(Running { bpf, attached, sizes, forced: options.forced, settings, baseline })
}

/// Finds the frame table with the smallest tables that load.
fn calibrate(host: &Host, settings: &Settings, sizes: &Sizes) -> Result<u64, BpfError> {
    let smallest =
        Sizes { frames: 64, samples: 1, keys: 1, stacks: 1, processes: 1, files: 1, graveyard: 1, owners: 1, owner_totals: 1, ..*sizes };
    let mut bpf = bpf::load(&host.layout, settings, &smallest)?;
    bpf::calibrate::find(&mut bpf, 1 << settings.page_struct_shift)
}

/// Kernels before 5.11 count map memory against RLIMIT_MEMLOCK. Without CAP_SYS_RESOURCE raising it fails, and later kernels do not
/// need it: loading says so itself if it was needed.
fn raise_memlock_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid rlimit.
    let failed = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } != 0;
    if failed {
        log::debug!("RLIMIT_MEMLOCK could not be raised: {}", std::io::Error::last_os_error());
    }
}
