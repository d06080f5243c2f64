//! Starting: facts, plan, sizes, load, calibrate, attach, baseline. Nothing counts before everything is attached.

use super::rates::Rates;
use crate::host::phases::Phases;
use crate::report::PlanRow;
use crate::{
    host::kernel::{
        btf::BtfError,
        facts::{self, Facts},
        targets::Targets,
    },
    kernel_half::{
        BpfError, Loader,
        attach::Attachments,
        baseline::Scan,
        calibrate::Calibration,
        diagnosis,
        loaded::KernelHalf,
        plan::{self, Names, PlanError, PlannedProbe},
        probes::{self, ProbeId, Tier},
        sizes::{self, DoesNotFit, Forced, Sizes},
        tables::{self, TableId},
        wish::Wish,
    },
};
use std::collections::HashSet;
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
    /// Record the kernel's stack with every charge, also where a user stack says enough.
    pub kernel_frames: bool,
    /// Force a tier.
    pub provider: Option<Tier>,
    /// Bound for all maps, bytes.
    pub map_memory: u64,
    /// Memory for the rows of tables for unwinding, bytes; 0: user stacks are walked by frame pointers.
    pub unwind_memory: u64,
    /// Most bytes that the wanted cgroups can hold, `None` for all of RAM.
    pub traced_bytes: Option<u64>,
    /// Hierarchy of the memory cgroups, as the kernel numbers it.
    pub hierarchy: u32,
    /// A cgroup filter is in force.
    pub filtered: bool,
    /// Whether processes are followed.
    pub follow: Follow,
    /// Cgroups that may be sampled more finely than the host; 0: one M for all.
    pub owners: u32,
    /// Table sizes given for tests.
    pub forced: Forced,
}

/// Everything on the host, by samples, with tables of the usual size.
impl Default for StartOptions {
    fn default() -> StartOptions {
        StartOptions {
            exact: false,
            kernel_frames: false,
            provider: None,
            map_memory: sizes::DEFAULT_MAP_MEMORY,
            unwind_memory: sizes::DEFAULT_UNWIND_MEMORY,
            traced_bytes: None,
            hierarchy: 0,
            filtered: false,
            follow: Follow::No,
            owners: 0,
            forced: Forced::default(),
        }
    }
}

/// Whether only what certain processes cause is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// No: everything is.
    #[default]
    No,
    /// No, but the probes for it are attached, to see whether they can be.
    Tried,
    /// Yes: those that [`start`]'s `prepare` has put in the table, and their later children.
    Yes,
}

/// Host facts with what was derived from the type information.
pub struct Host {
    /// Facts.
    pub facts: Facts,
    /// Offsets and values.
    pub layout: KernelLayout,
    /// Functions and tracepoints to attach to.
    pub targets: Targets,
}

impl Host {
    /// Looks at the host.
    pub fn look() -> Result<Host, StartError> {
        let btf = facts::running_btf(probes::targets())?;
        let facts = facts::read(&btf)?;
        Ok(Host { facts, layout: facts::layout(&btf), targets: facts::targets(&btf, probes::targets()) })
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
    pub fn plan(&self, forced: Option<Tier>, follow: Follow) -> Result<Vec<PlannedProbe>, PlanError> {
        plan::plan(self, forced, follow != Follow::No)
    }

    /// How finely cgroups are sampled, given the tables.
    #[must_use]
    pub fn rates(&self, options: &StartOptions, sizes: &Sizes) -> Rates {
        if options.exact || options.owners == 0 {
            Rates::one(sizes.log2_mean)
        } else {
            Rates::plan(options.owners, sizes.log2_mean, sizes.of(TableId::Samples))
        }
    }

    /// Table sizes and the host's sampling rate.
    pub fn sizes(&self, options: &StartOptions) -> Result<Sizes, DoesNotFit> {
        let wish = Wish {
            exact: options.exact,
            traced_bytes: options.traced_bytes.unwrap_or(self.facts.ram_bytes),
            ram_bytes: self.facts.ram_bytes,
            frames: self.facts.frames,
            cpus_possible: self.facts.cpus_possible,
            map_memory: options.map_memory,
            unwind_memory: options.unwind_memory,
            follow: options.follow == Follow::Yes,
            diagnose: diagnosis::wanted(),
        };
        sizes::plan(&wish, &options.forced)
    }
}

impl Names for Host {
    fn function(&self, name: &str) -> Option<u32> {
        self.targets.function(name).map(|function| function.parameters)
    }
    fn tracepoint(&self, name: &str) -> bool {
        // Without the argument that matters it is as good as none.
        self.targets.has_tracepoint(name) && (name != "balance_dirty_pages" || self.layout.throttle_pause != ABSENT)
    }
    fn tracepoint_arguments(&self, name: &str) -> Option<u32> {
        self.targets.tracepoint_arguments(name)
    }
    fn kprobes(&self) -> bool {
        self.facts.kprobes
    }
}

/// The running kernel half.
pub struct Running {
    /// Programs, links and maps: all gone from the kernel when this is dropped.
    pub bpf: KernelHalf,
    /// Providers in use.
    pub attached: Attachments,
    /// Table sizes.
    pub sizes: Sizes,
    /// How finely cgroups are sampled.
    pub rates: Rates,
    /// Which of them were forced.
    pub forced: Forced,
    /// Settings in force.
    pub settings: Settings,
    /// Whether the exact totals by owner are whole.
    pub totals: bool,
    /// Whether programs on tracepoints can be preempted; `None` where it cannot be told.
    pub preemptible: Option<bool>,
    /// What the baseline pass did; `None` if processes are followed: whose older memory is cannot be known.
    pub baseline: Option<Scan>,
}

impl Running {
    /// The plan as outputs show it.
    #[must_use]
    pub fn plan_rows(&self) -> Vec<PlanRow> {
        let row = |probe: &super::attach::Attached| PlanRow {
            probe: probe.id.name().to_owned(),
            provider: probe.tier.map_or_else(|| "none".to_owned(), |tier| tier.to_string()),
            note: probe.reasons.join("; "),
        };
        self.attached.iter().map(row).collect()
    }
}

/// Probes that add to the exact totals on their fentry and kprobe providers. Page cache always does. Up to 6.6 a page that moves is charged twice
/// and uncharged twice, which only the probe of migrations sees.
const COUNTED: [ProbeId; 4] = [ProbeId::Uncharge, ProbeId::Migrate, ProbeId::AnonCommit, ProbeId::ShmemCommit];

/// ___GFP_MOVABLE (include/linux/gfp.h to 6.3, gfp_types.h since): bit 3 in every kernel from 5.4 to 7.1. From 6.10 on it is an
/// enumerator of an enum without a name, which cannot be looked up by one.
const GFP_MOVABLE: u32 = 0x08;

/// ___GFP_HIGHMEM and ___GFP_HARDWALL, which GFP_HIGHUSER has and GFP_KERNEL has not, and ___GFP_ACCOUNT: bits 1, 20 and 22 by the format of the
/// tracepoint `kmem:mm_page_alloc` on 6.18 and by the masks of OOM logs from 5.10 to 7.1.
const GFP_USER: u32 = 0x02 | 0x10_0000;
const GFP_ACCOUNT: u32 = 0x40_0000;

/// ___GFP_WRITE, from the same headers: bit 12 from 5.4 to 7.1. Set where a file's folio is allocated to be written
/// (`__filemap_get_folio` with FGP_WRITE), and nowhere for anonymous memory or shmem.
const GFP_WRITE: u32 = 0x1000;

/// Loads and attaches everything, lets `prepare` fill the filter table and tell which owners are wanted (`None`: all), then counts
/// and takes the baseline.
pub fn start(
    host: &Host,
    loader: Loader,
    options: &StartOptions,
    prepare: impl FnOnce(&mut KernelHalf) -> Result<Option<HashSet<u64>>, BpfError>,
) -> Result<Running, StartError> {
    host.check()?;
    raise_memlock_limit();
    let plan = host.plan(options.provider, options.follow)?;
    let sizes = host.sizes(options)?;
    let rates = host.rates(options, &sizes);
    let settings = Settings {
        abi_version: ABI_VERSION,
        log2_mean: rates.log2_finest,
        frames: sizes.frames,
        page_struct_shift: host.layout.page_size.ilog2(),
        filtered: u32::from(options.filtered),
        own_tgid: std::process::id(),
        kernel_stacks: u32::from(options.kernel_frames),
        gfp_movable: GFP_MOVABLE,
        followed: u32::from(options.follow == Follow::Yes),
        diagnose: u32::from(diagnosis::wanted()),
        log2_coarsest: rates.log2_coarsest,
        log2_step: rates.log2_step,
        gfp_write: GFP_WRITE,
        jiffy_ns: crate::host::clock::tick_ns(),
        hierarchy: options.hierarchy,
        unwind: u32::from(options.unwind_memory != 0 && finds_mappings(&host.layout)),
        gfp_user: GFP_USER,
        gfp_account: GFP_ACCOUNT,
    };
    let mut phases = Phases::begin();
    let mut bpf = loader.load(&host.layout, &settings, &sizes)?;
    phases.end("maps made");
    let Calibration { vmemmap, preemptible } = super::calibrate::find(&mut bpf, 1 << settings.page_struct_shift)?;
    tables::set_vmemmap(&mut bpf, vmemmap)?;
    phases.end("page structs found");
    let wanted = prepare(&mut bpf)?;
    let attached = super::attach::attach(&mut bpf.bpf, &plan, &host.targets)?;
    if preemptible == Some(true) && attached.tier(ProbeId::AnonCommit) == Some(Tier::Tracepoint) {
        super::preemption::attach_spare(&mut bpf.bpf);
    }
    crate::process::give_memory_back();
    phases.end("programs attached");
    // A probe that stepped down to tracepoints at the attachment counts nothing: the totals would have a hole.
    let totals = COUNTED.into_iter().all(|probe| attached.tier(probe).is_some_and(Tier::is_typed));
    let stalls = attached.has(ProbeId::Charge);
    let control = Control { enabled: 1, owner_totals: u64::from(totals), charge_stalls: u64::from(stalls), ..Control::default() };
    let mut baseline = None;
    if options.follow != Follow::Yes {
        tables::set_control(&mut bpf, Control { baseline: 1, ..control })?;
        let seed = crate::host::clock::monotonic_ns();
        baseline = Some(super::baseline::take(&mut bpf, sizes.frames, settings.log2_mean, seed, wanted.as_ref())?);
    }
    tables::set_control(&mut bpf, control)?;
    phases.end("baseline taken");
    log::debug!("baseline: {baseline:?}");
    Ok(Running { bpf, attached, sizes, rates, forced: options.forced, settings, totals, preemptible, baseline })
}

/// Whether the kernel's address spaces are laid out as one of the two ways that walks know.
fn finds_mappings(l: &KernelLayout) -> bool {
    let known = |offsets: &[u32]| offsets.iter().all(|offset| *offset != ABSENT);
    let maple = [l.mm_mt, l.maple_root, l.range64_slot, l.arange64_slot, l.maple_leaf, l.maple_range, l.maple_arange];
    let red_black = [l.mm_rb, l.vma_rb, l.rb_left, l.rb_right];
    let mapping = [l.vma_start, l.vma_end, l.vma_mm, l.vma_flags, l.vma_pgoff, l.vma_file, l.vma_ops];
    let file = [l.file_inode, l.inode_sb, l.inode_ino, l.inode_generation, l.sb_dev];
    let registers = l.task_pt_regs != ABSENT || known(&[l.task_stack, l.pt_regs_size]);
    // What is read of a mapping has to hold all that is looked at.
    let is_short = mapping.iter().chain(&red_black[1..2]).all(|offset| *offset == ABSENT || *offset < 248);
    registers && is_short && l.task_mm != ABSENT && known(&mapping) && known(&file) && (known(&maple) || known(&red_black))
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
