//! The probes: what each is for and what can provide it, best first. docs/development.md says what else a new probe touches.
//!
//! Function names by kernel version are facts of KERNEL sources 5.10 to 7.1; which of them the running kernel has is read from its
//! type information, never from its version.

use std::fmt;

/// The probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeId {
    /// Which processes are children of those that are followed.
    Follow,
    /// Memory is given back.
    Uncharge,
    /// A page moves to another frame, or to swap.
    Migrate,
    /// Anonymous memory becomes resident.
    AnonCommit,
    /// Shared memory becomes resident.
    ShmemCommit,
    /// Page cache becomes resident.
    FileCommit,
    /// Page cache is made dirty.
    Dirty,
    /// A writer is held because too much is dirty.
    Throttle,
    /// A charge that has to wait ends.
    Charge,
    /// A task reclaims memory of a cgroup.
    Reclaim,
    /// A task is held for being over `memory.high`.
    High,
    /// The OOM killer kills.
    Oom,
    /// A process asks for address space.
    Mapping,
    /// A process ends, or executes another program.
    Images,
    /// Cgroups are made and removed.
    Cgroups,
}

impl ProbeId {
    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ProbeId::Follow => "follow",
            ProbeId::Uncharge => "uncharge",
            ProbeId::Migrate => "migrate",
            ProbeId::AnonCommit => "anon-commit",
            ProbeId::ShmemCommit => "shmem-commit",
            ProbeId::FileCommit => "file-commit",
            ProbeId::Dirty => "dirty",
            ProbeId::Throttle => "throttle",
            ProbeId::Charge => "charge",
            ProbeId::Reclaim => "reclaim",
            ProbeId::High => "high",
            ProbeId::Oom => "oom",
            ProbeId::Mapping => "mapping",
            ProbeId::Images => "images",
            ProbeId::Cgroups => "cgroups",
        }
    }
}

impl fmt::Display for ProbeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Classes of providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// BPF trampolines: fentry and fexit.
    Fentry,
    /// Kprobes and kretprobes.
    Kprobe,
    /// Tracepoints only.
    Tracepoint,
}

impl Tier {
    /// Whether it hooks functions, which say what is charged and uncharged; tracepoints are near those places only.
    #[must_use]
    pub fn is_typed(self) -> bool {
        self != Tier::Tracepoint
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Fentry => "fentry",
            Tier::Kprobe => "kprobe",
            Tier::Tracepoint => "tracepoint",
        })
    }
}

/// How a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Raw tracepoint.
    RawTracepoint,
    /// Tracepoint whose arguments have types (tp_btf).
    TypedTracepoint,
    /// fentry.
    Fentry,
    /// fexit.
    Fexit,
    /// kprobe.
    Kprobe,
    /// kretprobe.
    Kretprobe,
}

/// A program and the functions or tracepoints it may attach to; the first that exists is taken.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Program in the object.
    pub program: &'static str,
    /// How.
    pub attach: Attach,
    /// Where, by preference.
    pub targets: &'static [&'static str],
    /// The function must have this many parameters.
    pub parameters: Option<u32>,
    /// Only where this tracepoint has so many arguments.
    pub beside: Option<(&'static str, u32)>,
    /// The provider is whole without it.
    pub optional: bool,
}

/// One way to provide a probe: all of its hooks.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    /// Class.
    pub tier: Tier,
    /// Programs.
    pub hooks: &'static [Hook],
}

/// A probe.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Which.
    pub id: ProbeId,
    /// Without it a kind of memory is not followed.
    pub required: bool,
    /// Best first.
    pub providers: &'static [Provider],
}

const fn hook(program: &'static str, attach: Attach, targets: &'static [&'static str]) -> Hook {
    Hook { program, attach, targets, parameters: None, beside: None, optional: false }
}

const fn optional(program: &'static str, attach: Attach, targets: &'static [&'static str]) -> Hook {
    Hook { optional: true, ..hook(program, attach, targets) }
}

const ANON: &[&str] = &["folio_add_new_anon_rmap", "page_add_new_anon_rmap"];
const HUGETLB: &[&str] = &["hugetlb_add_new_anon_rmap", "hugepage_add_new_anon_rmap"];
const SHMEM: &[&str] = &["shmem_add_to_page_cache"];
const UNCHARGE: &[&str] = &["uncharge_folio", "uncharge_page"];
const LRU_ADD: &[&str] = &["folio_add_lru", "lru_cache_add"];
const MIGRATE: &[&str] = &["mem_cgroup_migrate"];
const REPLACE: &[&str] = &["mem_cgroup_replace_folio"];
const SWAPOUT: &[&str] = &["__memcg1_swapout", "memcg1_swapout", "mem_cgroup_swapout"];
const MOVE_ACCOUNT: &[&str] = &["mem_cgroup_move_account"];
const HIGH: &[&str] = &["__mem_cgroup_handle_over_high", "mem_cgroup_handle_over_high"];
const CHARGE: &[&str] = &["__mem_cgroup_charge", "mem_cgroup_charge"];

/// Every kill, on every tier. The call of the killer adds its reasons; it is not static, so no kernel inlines it.
const OOM_VICTIM: Hook = hook("oom_victim", Attach::RawTracepoint, &["mark_victim"]);
const OOM: &[&str] = &["out_of_memory"];
/// Where the first tells a victim's thread id alone: whose that is.
const OOM_SIGNAL: Hook = Hook { beside: Some(("mark_victim", 1)), ..optional("oom_signal", Attach::RawTracepoint, &["signal_generate"]) };

/// A child has what its parent mapped, on every tier.
const MAPPING_FORK: Hook = hook("mapping_fork", Attach::RawTracepoint, &["sched_process_fork"]);

/// Pages of anon and shmem on the tracepoint tier: sampled when allocated, settled when they reach the LRU.
const BY_LRU: Provider = Provider {
    tier: Tier::Tracepoint,
    hooks: &[
        hook("page_alloc", Attach::RawTracepoint, &["mm_page_alloc"]),
        hook("lru_insertion", Attach::RawTracepoint, &["mm_lru_insertion"]),
    ],
};

/// With `--pid` only: which processes are children of those that are followed.
pub static FOLLOW: Probe = Probe {
    id: ProbeId::Follow,
    required: true,
    providers: &[Provider {
        tier: Tier::Tracepoint,
        hooks: &[
            hook("process_exit", Attach::RawTracepoint, &["sched_process_exit"]),
            hook("process_fork", Attach::RawTracepoint, &["sched_process_fork"]),
        ],
    }],
};

/// All probes that are always on. Ends of life come first: a folio that is followed must also be seen to go.
pub static CATALOGUE: &[Probe] = &[
    Probe {
        id: ProbeId::Uncharge,
        required: true,
        providers: &[
            Provider { tier: Tier::Fentry, hooks: &[hook("uncharge_fentry", Attach::Fentry, UNCHARGE)] },
            Provider { tier: Tier::Kprobe, hooks: &[hook("uncharge_kprobe", Attach::Kprobe, UNCHARGE)] },
            Provider { tier: Tier::Tracepoint, hooks: &[hook("page_free", Attach::RawTracepoint, &["mm_page_free"])] },
        ],
    },
    Probe {
        id: ProbeId::Migrate,
        required: false,
        providers: &[
            Provider {
                tier: Tier::Fentry,
                hooks: &[
                    hook("migrate_fentry", Attach::Fentry, MIGRATE),
                    optional("replace_fentry", Attach::Fentry, REPLACE),
                    optional("swapout_fentry", Attach::Fentry, SWAPOUT),
                    optional("move_account_fentry", Attach::Fentry, MOVE_ACCOUNT),
                ],
            },
            Provider {
                tier: Tier::Kprobe,
                hooks: &[
                    hook("migrate_kprobe", Attach::Kprobe, MIGRATE),
                    optional("replace_kprobe", Attach::Kprobe, REPLACE),
                    optional("swapout_kprobe", Attach::Kprobe, SWAPOUT),
                    optional("move_account_kprobe", Attach::Kprobe, MOVE_ACCOUNT),
                ],
            },
            Provider {
                tier: Tier::Tracepoint,
                hooks: &[
                    hook("migration_pte_set", Attach::RawTracepoint, &["set_migration_pte"]),
                    hook("migration_pte_removed", Attach::RawTracepoint, &["remove_migration_pte"]),
                    optional("migration_pmd_set", Attach::RawTracepoint, &["set_migration_pmd"]),
                    optional("migration_pmd_removed", Attach::RawTracepoint, &["remove_migration_pmd"]),
                ],
            },
        ],
    },
    Probe {
        id: ProbeId::AnonCommit,
        required: true,
        providers: &[
            Provider {
                tier: Tier::Fentry,
                hooks: &[
                    hook("anon_commit_fentry", Attach::Fentry, ANON),
                    optional("hugetlb_commit_fentry", Attach::Fentry, HUGETLB),
                    optional("swapin_fentry", Attach::Fentry, LRU_ADD),
                ],
            },
            Provider {
                tier: Tier::Kprobe,
                hooks: &[
                    hook("anon_commit_kprobe", Attach::Kprobe, ANON),
                    optional("hugetlb_commit_kprobe", Attach::Kprobe, HUGETLB),
                    optional("swapin_kprobe", Attach::Kprobe, LRU_ADD),
                ],
            },
            BY_LRU,
        ],
    },
    Probe {
        id: ProbeId::ShmemCommit,
        required: true,
        providers: &[
            Provider {
                tier: Tier::Fentry,
                hooks: &[
                    Hook { parameters: Some(5), optional: true, ..hook("shmem_commit_fexit5", Attach::Fexit, SHMEM) },
                    Hook { parameters: Some(6), optional: true, ..hook("shmem_commit_fexit6", Attach::Fexit, SHMEM) },
                ],
            },
            Provider {
                tier: Tier::Kprobe,
                hooks: &[hook("shmem_commit_kretprobe", Attach::Kretprobe, SHMEM), hook("shmem_commit_kprobe", Attach::Kprobe, SHMEM)],
            },
            BY_LRU,
        ],
    },
    Probe {
        id: ProbeId::FileCommit,
        required: true,
        providers: &[Provider {
            tier: Tier::Tracepoint,
            hooks: &[hook("file_commit", Attach::TypedTracepoint, &["mm_filemap_add_to_page_cache"])],
        }],
    },
    Probe {
        id: ProbeId::Dirty,
        required: false,
        providers: &[Provider {
            tier: Tier::Tracepoint,
            hooks: &[hook("folio_dirtied", Attach::TypedTracepoint, &["writeback_dirty_folio", "writeback_dirty_page"])],
        }],
    },
    Probe {
        id: ProbeId::Throttle,
        required: false,
        providers: &[Provider { tier: Tier::Tracepoint, hooks: &[hook("writer_held", Attach::RawTracepoint, &["balance_dirty_pages"])] }],
    },
    Probe {
        id: ProbeId::Charge,
        required: false,
        providers: &[
            Provider {
                tier: Tier::Fentry,
                hooks: &[
                    Hook { parameters: Some(3), ..hook("charge_fexit", Attach::Fexit, CHARGE) },
                    hook("charge_fentry", Attach::Fentry, CHARGE),
                ],
            },
            Provider {
                tier: Tier::Kprobe,
                hooks: &[hook("charge_kretprobe", Attach::Kretprobe, CHARGE), hook("charge_kprobe", Attach::Kprobe, CHARGE)],
            },
        ],
    },
    Probe {
        id: ProbeId::Reclaim,
        required: false,
        providers: &[Provider {
            tier: Tier::Tracepoint,
            hooks: &[
                optional("waiter_exit", Attach::RawTracepoint, &["sched_process_exit"]),
                hook("reclaim_end", Attach::RawTracepoint, &["mm_vmscan_memcg_reclaim_end"]),
                hook("reclaim_begin", Attach::RawTracepoint, &["mm_vmscan_memcg_reclaim_begin"]),
            ],
        }],
    },
    Probe {
        id: ProbeId::High,
        required: false,
        providers: &[
            Provider { tier: Tier::Fentry, hooks: &[hook("high_fexit", Attach::Fexit, HIGH), hook("high_fentry", Attach::Fentry, HIGH)] },
            Provider {
                tier: Tier::Kprobe,
                hooks: &[hook("high_kretprobe", Attach::Kretprobe, HIGH), hook("high_kprobe", Attach::Kprobe, HIGH)],
            },
        ],
    },
    Probe {
        id: ProbeId::Oom,
        required: false,
        providers: &[
            Provider { tier: Tier::Fentry, hooks: &[hook("oom_fentry", Attach::Fentry, OOM), OOM_SIGNAL, OOM_VICTIM] },
            Provider { tier: Tier::Kprobe, hooks: &[hook("oom_kprobe", Attach::Kprobe, OOM), OOM_SIGNAL, OOM_VICTIM] },
            Provider { tier: Tier::Tracepoint, hooks: &[OOM_SIGNAL, OOM_VICTIM] },
        ],
    },
    Probe {
        id: ProbeId::Mapping,
        required: false,
        providers: &[
            Provider {
                tier: Tier::Fentry,
                hooks: &[
                    hook("mmap_fexit", Attach::Fexit, &["__x64_sys_mmap"]),
                    hook("munmap_fexit", Attach::Fexit, &["__x64_sys_munmap"]),
                    hook("mremap_fexit", Attach::Fexit, &["__x64_sys_mremap"]),
                    hook("mprotect_fexit", Attach::Fexit, &["__x64_sys_mprotect"]),
                    hook("brk_fexit", Attach::Fexit, &["__x64_sys_brk"]),
                    hook("brk_fentry", Attach::Fentry, &["__x64_sys_brk"]),
                    MAPPING_FORK,
                ],
            },
            Provider {
                tier: Tier::Kprobe,
                hooks: &[
                    hook("mapping_kretprobe", Attach::Kretprobe, &["__x64_sys_mmap"]),
                    hook("mapping_kretprobe", Attach::Kretprobe, &["__x64_sys_munmap"]),
                    hook("mapping_kretprobe", Attach::Kretprobe, &["__x64_sys_mremap"]),
                    hook("mapping_kretprobe", Attach::Kretprobe, &["__x64_sys_mprotect"]),
                    hook("mapping_kretprobe", Attach::Kretprobe, &["__x64_sys_brk"]),
                    hook("mapping_kprobe", Attach::Kprobe, &["__x64_sys_mmap"]),
                    hook("mapping_kprobe", Attach::Kprobe, &["__x64_sys_munmap"]),
                    hook("mapping_kprobe", Attach::Kprobe, &["__x64_sys_mremap"]),
                    hook("mapping_kprobe", Attach::Kprobe, &["__x64_sys_mprotect"]),
                    hook("mapping_kprobe", Attach::Kprobe, &["__x64_sys_brk"]),
                    MAPPING_FORK,
                ],
            },
            // The release first: an entry that is made must be taken away again.
            Provider {
                tier: Tier::Tracepoint,
                hooks: &[
                    hook("mmap_lock_released", Attach::RawTracepoint, &["mmap_lock_released"]),
                    hook("unmapped_area", Attach::RawTracepoint, &["vm_unmapped_area"]),
                    hook("mmap_lock_taken", Attach::RawTracepoint, &["mmap_lock_acquire_returned"]),
                    MAPPING_FORK,
                ],
            },
        ],
    },
    Probe {
        id: ProbeId::Images,
        required: false,
        providers: &[Provider {
            tier: Tier::Tracepoint,
            hooks: &[
                hook("image_exit", Attach::RawTracepoint, &["sched_process_exit"]),
                hook("image_exec", Attach::RawTracepoint, &["sched_process_exec"]),
            ],
        }],
    },
    Probe {
        id: ProbeId::Cgroups,
        required: false,
        providers: &[Provider {
            tier: Tier::Tracepoint,
            hooks: &[
                hook("cgroup_mkdir", Attach::RawTracepoint, &["cgroup_mkdir"]),
                hook("cgroup_rmdir", Attach::RawTracepoint, &["cgroup_rmdir"]),
            ],
        }],
    },
];

/// Functions and tracepoints that some provider attaches to.
pub fn targets() -> impl Iterator<Item = &'static str> {
    let hooks = CATALOGUE.iter().chain([&FOLLOW]).flat_map(|probe| probe.providers).flat_map(|provider| provider.hooks);
    hooks.flat_map(|hook| hook.targets).copied()
}

/// Whether a kind of memory is not followed without the probe of that name.
#[must_use]
pub fn is_required(name: &str) -> bool {
    CATALOGUE.iter().any(|probe| probe.id.name() == name && probe.required)
}
