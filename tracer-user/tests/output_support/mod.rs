//! Reports for the tests of outputs, and a small generator of hostile ones. Deterministic.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use memtrail::recording::Header;
use memtrail::report::{
    ArenaRow, Cgroup, Cost, FileOwner, FileRow, FileToucher, HeldRow, HistogramRow, Host, Interval, IntervalCgroup, KindRow, LimitRow,
    MappingRow, MappingSummary, OriginRow, PlanRow, ProcessRow, RegionRow, Report, SCHEMA, Sampling, StackRow, Table, ThreadRow, Trend,
    Verdict,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// xorshift64*: enough for tests.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A name that wants to break a format.
    pub fn hostile(&mut self) -> String {
        const PIECES: [&str; 30] = [
            ";",
            " ",
            "\n",
            "\r",
            "\t",
            "\0",
            "\x1b[2J",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "\u{202e}",
            "\u{feff}",
            "\u{ffff}",
            "<",
            ">",
            "&",
            "\"",
            "'",
            "]]>",
            "--",
            "# ",
            " 12",
            "[anon heap]",
            "[before start]",
            "_[k]",
            "\\x3b",
            "漢字",
            "é",
            "foo",
            "\u{301}",
        ];
        (0..self.below(6)).map(|_| *self.of(&PIECES)).collect()
    }
}

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Compares with a golden file; `UPDATE_GOLDEN=1` writes it instead.
pub fn assert_golden(name: &str, text: &str) {
    let path = fixture(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, text, "{} differs; look at it, then run with UPDATE_GOLDEN=1", path.display());
}

pub fn host() -> Host {
    Host { kernel: "6.1.0-28-amd64".into(), cpus: 8, cgroup: "v2".into(), page_size: 4096 }
}

pub fn empty_report() -> Report {
    Report {
        schema: SCHEMA,
        tool: "memtrail 0.1.0".into(),
        host: host(),
        mapping: Some(MappingSummary { calls: 5120, thinned: 1024, ranges: 96, ..MappingSummary::default() }),
        started: "2026-03-01T02:03:04Z".into(),
        ended: "2026-03-01T02:05:24Z".into(),
        duration_s: 140.0,
        ..Report::default()
    }
}

pub fn kind(stat: u64, baseline: u64, live: u64) -> KindRow {
    KindRow {
        stat: Some(stat),
        source: "stat".into(),
        baseline: Some(baseline),
        charged: Some(live + live / 4),
        charged_stderr: Some(live / 90),
        live: Some(live),
        live_stderr: Some(live / 100),
        unmapped: Some(0),
        missed: Some(0),
        unattributed: Some(stat as i64 - baseline as i64 - live as i64),
        growth_bytes_per_s: Some(0.0),
        ..KindRow::default()
    }
}

pub fn counter(stat: u64) -> KindRow {
    KindRow { stat: Some(stat), source: "stat".into(), ..KindRow::default() }
}

/// Address space of a region.
pub fn origin(call: &str, bytes: u64, function: &str, tid: Option<u32>) -> OriginRow {
    OriginRow {
        call: call.into(),
        status: "complete".into(),
        frames: vec!["start_thread".into(), function.into()],
        bytes,
        tid,
        thread_function: None,
        oldest_s: 60.0,
    }
}

pub fn stack(kind: &str, region: &str, comm: &str, status: &str, frames: &[&str], live: u64) -> StackRow {
    StackRow {
        kind: kind.into(),
        region: region.into(),
        pid: Some(4711),
        ns_pid: Some(17),
        comm: comm.into(),
        status: status.into(),
        frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
        live,
        live_stderr: live / 30,
        peak: live.saturating_add(live / 8),
        peak_stderr: live / 28,
        charged: live.saturating_add(live / 4),
        samples: live / MIB + 1,
        oldest_s: Some(97.5),
        files: Vec::new(),
        threads: Some(threads(live)),
    }
}

/// Usage that grows by so many MiB a minute, beside a step.
pub fn growing(mib_per_minute: f64) -> Trend {
    Trend {
        window_s: 30.0,
        change_bytes: (mib_per_minute * MIB as f64 / 2.0) as i64,
        swing_bytes: (mib_per_minute.abs() * MIB as f64 / 2.0) as u64,
        bytes_per_s: Some(mib_per_minute * MIB as f64 / 60.0),
        stderr_per_s: Some(400.0),
        step: None,
    }
}

/// Two threads and the rest; as many as there are bytes for.
fn threads(live: u64) -> Vec<ThreadRow> {
    let row = |tid, comm: Option<&str>, live| ThreadRow { tid, comm: comm.map(str::to_owned), live, live_stderr: live / 30 };
    let rows =
        [row(Some(4712), Some("GC Thread#0"), live / 2), row(Some(4711), None, live / 4), row(None, None, live - live / 2 - live / 4)];
    rows.into_iter().filter(|row| row.live > 0).collect()
}

/// One container of a pod near its limit.
pub fn one_container() -> Report {
    let mut anon = kind(15 * GIB + 400 * MIB, GIB, 14 * GIB + 300 * MIB);
    anon.growth_bytes_per_s = Some(41.0 * MIB as f64 / 60.0);
    let kinds = BTreeMap::from([
        ("anon".to_owned(), anon),
        ("file".to_owned(), kind(412 * MIB, 12 * MIB, 398 * MIB)),
        ("shmem".to_owned(), kind(0, 0, 0)),
        ("kernel".to_owned(), counter(61 * MIB)),
        ("sock".to_owned(), counter(0)),
    ]);
    let stacks = vec![
        stack(
            "anon",
            "glibc-arena",
            "java",
            "complete",
            &[
                "start_thread",
                "thread_native_entry",
                "JavaThread::run",
                "Unsafe_AllocateMemory0(JNIEnv_*, _jobject*, long)",
                "os::malloc(unsigned long, MEMFLAGS, NativeCallStack const&)",
                "__libc_malloc",
                "sysmalloc",
                "asm_exc_page_fault_[k]",
                "handle_mm_fault_[k]",
            ],
            9 * GIB,
        ),
        stack("anon", "java-heap", "java", "cut: no frame pointers", &["[libjvm.so+0x8e12f0]"], 5 * GIB),
        stack("file", "other", "java", "complete", &["_start", "main", "Log::write", "write", "ksys_write_[k]"], 398 * MIB),
        stack("anon", "other", "sh", "none", &[], 2 * MIB),
    ];
    let usage = 15 * GIB + 900 * MIB;
    let path = "/kubepods.slice/kubepods-pod6b21.slice/cri-containerd-ea88.scope";
    let limit = LimitRow {
        path: path.into(),
        limit_bytes: 16 * GIB,
        usage_bytes: Some(usage),
        left_bytes: Some(16 * GIB - usage),
        reached_in_s: Some(140.0),
    };
    let web = Cgroup {
        path: path.into(),
        id: "9007199254740993".into(),
        state: "alive".into(),
        dead_for_s: None,
        pod: Some("cart-7".into()),
        container: Some("web".into()),
        pod_name: Some("cart-7".into()),
        namespace: None,
        container_name: Some("web".into()),
        image: Some("registry.example/web:7".into()),
        runtime: Some("containerd".into()),
        restart: Some(3),
        limit_bytes: Some(16 * GIB),
        limits: vec![limit.clone()],
        binding_limit: Some(limit),
        usage_bytes: Some(usage),
        working_set_bytes: Some(usage - 100 * MIB),
        trend: Some(growing(41.0)),
        peak_bytes: Some(usage),
        peak_at_s: Some(139.0),
        kernel_peak_bytes: Some(usage + MIB),
        unevictable_bytes: Some(0),
        anon_huge_bytes: Some(2 * MIB),
        lazily_freed_bytes: Some(0),
        refaulted_bytes: Some(0),
        high_bytes: None,
        high_events: None,
        processes: vec![ProcessRow { pid: 4711, comm: "java".into(), anon_huge_bytes: Some(2 * MIB), ..ProcessRow::default() }],
        mean_bytes: Some(MIB),
        subtree: kinds.clone(),
        kinds,
        uncovered_bytes: Some(27 * MIB as i64),
        dirty_bytes: Some(3 * MIB),
        writeback_bytes: Some(0),
        dirtied_bytes: Some(900 * MIB),
        dirtied_stderr: Some(30 * MIB),
        dirtied_bytes_per_s: Some(1e6),
        cleaned_bytes_per_s: Some(9e5),
        dirty_held_ns: Some(2_400_000_000),
        dirty_held: Some(vec![HeldRow { pid: Some(4711), comm: "java".into(), times: 12, ns: 2_400_000_000 }]),
        dirty_sustained_bytes: Some(2 * MIB),
        droppable_bytes: Some(380 * MIB),
        kubelet_reclaimable_bytes: Some(100 * MIB),
        active_file_bytes: Some(312 * MIB),
        stacks,
        files: vec![FileRow {
            dev: Some("259:1".into()),
            file_system: Some("ext4".into()),
            mount: Some("/var/log".into()),
            dirty: Some(3 * MIB),
            state: Some("present".into()),
            owner: Some(FileOwner { cgroup: "/kubepods.slice".into(), container: Some("web".into()), state: "alive".into() }),
            writers: vec![FileToucher {
                pid: Some(4711),
                comm: "java".into(),
                bytes: 390 * MIB,
                how: Some("write".into()),
                frames: vec!["main".into()],
            }],
            readers: vec![FileToucher { pid: Some(4711), comm: "java".into(), bytes: 8 * MIB, how: None, frames: vec![] }],
            dirtied: Some(890 * MIB),
            dirtied_stderr: Some(30 * MIB),
            dirtied_bytes_per_s: Some(1e6),
            dirtiers: vec![FileToucher { pid: Some(4711), comm: "java".into(), bytes: 890 * MIB, how: None, frames: vec!["main".into()] }],
            ..file("/var/log/app.log", 131, 398 * MIB)
        }],
        regions: vec![RegionRow {
            pid: Some(4711),
            comm: "java".into(),
            class: "glibc-arena".into(),
            recognised_by: Some("heap_info at its base".into()),
            count: Some(64),
            reserved: Some(4 * GIB),
            resident: Some(3 * GIB),
            live: 2 * GIB,
            live_stderr: 40 * MIB,
            origin: Some(vec!["start_thread".into(), "arena_get2".into()]),
            origins: vec![origin("mmap", 4 * GIB, "arena_get2", None)],
            growers: vec![origin("mprotect", 3 * GIB + 200 * MIB, "grow_heap", Some(4720))],
        }],
        mappings: Some(vec![MappingRow {
            pid: 4711,
            comm: "java".into(),
            call: "mmap".into(),
            status: "complete".into(),
            frames: vec!["start_thread".into(), "arena_get2".into()],
            bytes: 4 * GIB,
            bytes_stderr: 0,
            calls: 32,
            last_s: 12.5,
        }]),
        arenas: vec![ArenaRow {
            pid: 4711,
            comm: "java".into(),
            arenas: Some(33),
            heaps: 64,
            reserved: 4 * GIB,
            committed: 3 * GIB + 200 * MIB,
            resident: Some(3 * GIB),
            free: Some(GIB),
            looked_through: Some(2 * GIB),
            live: 2 * GIB,
            threads: Some(70),
            default_limit: 32,
            environment_limit: None,
            malloc_arena_max: None,
            tunable_arena_max: None,
        }],
        histograms: BTreeMap::from([(
            "charge_stall_ns".to_owned(),
            HistogramRow {
                count: 10,
                p50: Some(1000),
                p90: Some(2000),
                p99: Some(4000),
                p999: Some(4000),
                max: Some(4100),
                hdr: Some("AA==".into()),
            },
        )]),
        histogram_losses: 0,
        verdicts: vec![Verdict {
            id: "glibc-arenas".into(),
            severity: "critical".into(),
            evidence: BTreeMap::from([("arenas".to_owned(), json!(64))]),
            text: "64 glibc arenas hold 9.0 GiB, 57 % of the limit, and grow by 40 MiB/min; consistent with one arena a thread. Set \
                   MALLOC_ARENA_MAX=4."
                .into(),
        }],
    };
    Report {
        plan: vec![PlanRow { probe: "anon commit".into(), provider: "fentry".into(), note: String::new() }],
        sampling: Sampling { mode: "sampled".into(), mean_bytes: MIB, samples: 15_000 },
        cost: Cost {
            bpf_ns: Some(420_000_000),
            events: Some(3_900_000),
            cpu_percent: Some(0.31),
            start_cpu_ms: Some(180),
            report_cpu_ms: Some(95),
            collector_rss_bytes: Some(23_000_000),
            map_bytes: 18_000_000,
            tables: BTreeMap::from([("KEYS".to_owned(), Table { entries: Some(120), max_entries: 32_768, forced: false })]),
        },
        losses: BTreeMap::from([("ring_full".to_owned(), Some(0)), ("stack_table_full".to_owned(), Some(0))]),
        cgroups: vec![web],
        oom: vec![],
        ..empty_report()
    }
}

/// A file of which nothing but the least is known.
pub fn file(path: &str, inode: u64, live: u64) -> FileRow {
    FileRow { path: path.into(), inode: Some(inode.to_string()), kind: "file".into(), live, ..FileRow::default() }
}

/// A host with 300 cgroups: pods with limits, one dead, one of unknown size.
pub fn busy_host() -> Report {
    let mut random = Random::new(300);
    let mut cgroups = Vec::new();
    for index in 0..299_u64 {
        let live = (random.next() % (300 - index)) * 4 * MIB + 5000;
        let row = kind(live + 20 * MIB, 16 * MIB, live);
        let kinds =
            BTreeMap::from([("anon".to_owned(), row), ("file".to_owned(), kind(8 * MIB, 0, 8 * MIB)), ("kernel".to_owned(), counter(MIB))]);
        let frame = format!("service_{index}::handle_request<alloc::vec::Vec<u8>>");
        cgroups.push(Cgroup {
            path: format!("/kubepods/burstable/pod{index:04}-7c0f-4c5e-9a39-2f6a4d0e8b11/{index:08x}c0ffee"),
            id: index.to_string(),
            state: "alive".into(),
            limit_bytes: (index % 3 != 0).then_some(2 * GIB),
            usage_bytes: Some(live + 29 * MIB),
            trend: Some(growing(index as f64 * 60_000.0 / MIB as f64)),
            kinds,
            stacks: (0..5)
                .map(|n| {
                    stack("anon", "mmap-malloc", "worker", "complete", &["_start", "main", "run", &frame, "grow", "realloc"], live / 5 + n)
                })
                .collect(),
            ..Cgroup::default()
        });
    }
    cgroups[7].state = "dead".into();
    cgroups[7].usage_bytes = None;
    cgroups[7].kinds = BTreeMap::from([("shmem".to_owned(), KindRow { source: "stat".into(), live: Some(3 * GIB), ..KindRow::default() })]);
    cgroups.push(Cgroup { path: "/unread".into(), id: "301".into(), state: "alive".into(), ..Cgroup::default() });
    Report {
        losses: BTreeMap::from([("ring_full".to_owned(), Some(12)), ("recursion".to_owned(), None)]),
        cost: Cost { collector_rss_bytes: Some(40_000_000), map_bytes: 64_000_000, ..Cost::default() },
        cgroups,
        oom: vec![memtrail::report::autopsy::Autopsy { time: "2026-03-01T02:04:00Z".into(), ..Default::default() }],
        ..empty_report()
    }
}

/// A report whose names are all hostile.
pub fn hostile_report(random: &mut Random) -> Report {
    let mut cgroups = Vec::new();
    for index in 0..1 + random.below(5) {
        let stacks = (0..random.below(20)).map(|_| hostile_stack(random)).collect();
        let mut kinds = BTreeMap::new();
        for _ in 0..random.below(4) {
            let name = if random.below(2) == 0 { (*random.of(&["anon", "file", "shmem"])).to_owned() } else { random.hostile() };
            let row = KindRow {
                baseline: Some(random.next() % GIB),
                unattributed: Some(random.next() as i64 % GIB as i64),
                ..KindRow::default()
            };
            kinds.insert(name, row);
        }
        let path = if random.below(2) == 0 { format!("/{}", random.hostile()) } else { random.hostile() };
        let text = random.hostile().repeat(40);
        let verdicts = vec![Verdict { id: "x".into(), severity: "info".into(), text, evidence: BTreeMap::new() }];
        cgroups.push(Cgroup {
            path,
            id: index.to_string(),
            state: "alive".into(),
            pod: (random.below(2) == 0).then(|| random.hostile()),
            kinds,
            stacks,
            verdicts,
            ..Cgroup::default()
        });
    }
    Report { cgroups, ..empty_report() }
}

fn hostile_stack(random: &mut Random) -> StackRow {
    const STATUS: [&str; 4] = ["complete", "none", "cut: too deep", "cut"];
    StackRow {
        kind: (*random.of(&["anon", "file", "shmem", "hugetlb"])).to_owned(),
        region: if random.below(2) == 0 { String::new() } else { random.hostile() },
        pid: Some(random.next() as u32),
        comm: if random.below(8) == 0 { "[before start]".into() } else { random.hostile() },
        status: (*random.of(&STATUS)).to_owned(),
        frames: (0..random.below(5)).map(|_| random.hostile()).collect(),
        live: if random.below(4) == 0 { 0 } else { random.next() % GIB },
        charged: random.next() % GIB,
        live_stderr: random.next() % MIB,
        ..StackRow::default()
    }
}

pub fn header() -> Header {
    Header { tool: "memtrail 0.1.0".into(), schema: SCHEMA, host: host(), started: "2026-03-01T02:03:04Z".into() }
}

pub fn interval(index: u64) -> Interval {
    let cgroup = IntervalCgroup {
        usage_bytes: (index != 1).then_some(index * GIB),
        kinds: BTreeMap::from([("anon".to_owned(), index * MIB)]),
        live: BTreeMap::from([("anon".to_owned(), index * 4096)]),
    };
    Interval {
        at_s: index as f64 * 0.5,
        clocks: [index, u64::MAX - index, 1_772_330_584_000_000_000 + index],
        cgroups: BTreeMap::from([("9007199254740993".to_owned(), cgroup)]),
        losses: BTreeMap::from([("ring_full".to_owned(), Some(index)), ("recursion".to_owned(), None)]),
        tables: BTreeMap::from([("KEYS".to_owned(), index)]),
    }
}
