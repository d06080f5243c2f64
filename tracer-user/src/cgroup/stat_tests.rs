use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/fixtures/cgroup/", $name))
    };
}

fn reading(version: Version, files: &[(CgroupFile, &[u8])]) -> StatReading {
    let mut reading = StatReading::new(version, 1);
    files.iter().for_each(|(file, text)| reading.absorb(*file, text));
    reading
}

fn v2(stat: &[u8]) -> StatReading {
    reading(Version::V2, &[(CgroupFile::Stat, stat), (CgroupFile::Usage, b"104857600\n")])
}

fn bytes(figures: &Figures, kind: &str) -> Option<u64> {
    figures.kinds.get(kind).map(|f| f.bytes)
}

/// Captured from 6.18; a task had written 3,000,000 bytes of tmpfs and 2,000,000 of a file.
fn captured_v1() -> StatReading {
    reading(
        Version::V1,
        &[
            (CgroupFile::Stat, fixture!("6.18-v1/memory.stat")),
            (CgroupFile::Usage, fixture!("6.18-v1/memory.usage_in_bytes")),
            (CgroupFile::Kernel, fixture!("6.18-v1/memory.kmem.usage_in_bytes")),
            (CgroupFile::Sockets, fixture!("6.18-v1/memory.kmem.tcp.usage_in_bytes")),
            (CgroupFile::Limit, fixture!("6.18-v1/memory.limit_in_bytes")),
            (CgroupFile::FailCount, fixture!("6.18-v1/memory.failcnt")),
            (CgroupFile::OomControl, fixture!("6.18-v1/memory.oom_control")),
        ],
    )
}

#[test]
fn v1_file_excludes_shmem_and_nothing_is_unreadable() {
    let reading = captured_v1();
    let local = &reading.local;
    assert_eq!((bytes(local, "anon"), bytes(local, "shmem"), bytes(local, "file")), (Some(118_784), Some(3_002_368), Some(2_007_040)));
    assert_eq!((local.dirty, local.inactive_file, local.active_file), (Some(2_007_040), Some(2_002_944), Some(0)));
    assert_eq!(reading.limit, Some(Limit::Unlimited));
    assert_eq!((reading.events.limit_hits, reading.events.oom_kill, reading.events.high), (Some(0), Some(0), None));
    assert_eq!(reading.unreadable, 0);
    assert_eq!(reading.working_set(), Some(5_660_672 - 2_002_944));
}

#[test]
fn v1_counters_belong_to_the_subtree() {
    let reading = captured_v1();
    assert_eq!(reading.subtree.kinds["kernel"], Figure { bytes: 507_904, source: Source::Counter });
    assert_eq!(bytes(&reading.local, "kernel"), None);
    assert_eq!(reading.uncovered(), Some(5_660_672 - 118_784 - 5_009_408 - 507_904));
}

#[test]
fn the_order_of_files_does_not_matter() {
    let stat = (CgroupFile::Stat, &fixture!("6.18-v1/memory.stat")[..]);
    let kernel = (CgroupFile::Kernel, &b"7\n"[..]);
    assert_eq!(reading(Version::V1, &[stat, kernel]), reading(Version::V1, &[kernel, stat]));
}

/// Every captured v2 stat comes from a cgroup into which 5,001,216 bytes of tmpfs were written (two files, rounded up to pages).
const V2_STATS: [(&str, &[u8], &[u8]); 4] = [
    ("5.10", fixture!("5.10-v2/memory.stat"), fixture!("5.10-v2/memory.current")),
    ("6.1", fixture!("6.1-v2/memory.stat"), fixture!("6.1-v2/memory.current")),
    ("6.12", fixture!("6.12-v2/memory.stat"), fixture!("6.12-v2/memory.current")),
    ("7.3", fixture!("7.3-v2/memory.stat"), fixture!("7.3-v2/memory.current")),
];

#[test]
fn captured_v2_stats_tell_what_was_written() {
    for (kernel, stat, usage) in V2_STATS {
        let reading = reading(Version::V2, &[(CgroupFile::Stat, stat), (CgroupFile::Usage, usage)]);
        let shmem = i64::try_from(bytes(&reading.subtree, "shmem").unwrap()).unwrap();
        // 5.10 keeps 32 pages an item on each of the two CPUs.
        let stale = if kernel == "5.10" { 2 * 32 * 4096 } else { 16 << 10 };
        assert!((shmem - 5_001_216).abs() <= stale, "{kernel}: {shmem}");
        assert_eq!(bytes(&reading.subtree, "file"), Some(0), "{kernel}: all of it was tmpfs");
        assert_eq!(reading.unreadable, 0, "{kernel}");
        assert_eq!(reading.local, Figures::default(), "{kernel}");
        // Uncharged stock of 64 pages a CPU, and what 5.10 has not added up yet.
        let uncovered = reading.uncovered().unwrap();
        assert!((0..=2 * 64 * 4096).contains(&uncovered), "{kernel}: {uncovered}");
    }
}

#[test]
fn captured_v2_stats_name_the_kernel_parts_they_have() {
    for (kernel, stat, _) in V2_STATS {
        let kinds = v2(stat).subtree.kinds;
        let has = |kind| kinds.contains_key(kind);
        let old = kernel == "5.10";
        assert_eq!(kinds["kernel"].source, if old { Source::Parts } else { Source::Stat }, "{kernel}");
        assert_eq!((has("kernel.pagetables"), has("kernel.vmalloc"), has("kernel.other")), (!old, !old, !old), "{kernel}");
        assert!(has("kernel.slab") && has("kernel.stack") && has("kernel.percpu") && has("sock"), "{kernel}");
    }
}

#[test]
fn v2_kernel_without_its_line_is_the_sum_of_its_parts() {
    let reading = v2(b"kernel_stack 100\npercpu 20\nslab_reclaimable 1\nslab 3\n");
    assert_eq!(reading.subtree.kinds["kernel"], Figure { bytes: 123, source: Source::Parts });
    assert_eq!(bytes(&reading.subtree, "kernel.other"), None);
}

#[test]
fn v2_kernel_line_and_its_remainder() {
    let stat =
        "anon 1000\nfile 500\nshmem 200\nkernel 400\nkernel_stack 10\npagetables 20\npercpu 30\nvmalloc 40\nslab 50\nsock 7\nzswap 60\n";
    let mut reading = v2(stat.as_bytes());
    reading.absorb(CgroupFile::Usage, b"2000\n");
    assert_eq!(reading.subtree.kinds["kernel"], Figure { bytes: 400, source: Source::Stat });
    let other = reading.subtree.kinds["kernel.other"];
    assert_eq!(other, Figure { bytes: 400 - 150 - 60, source: Source::Remainder }, "zswap is part of kernel");
    assert_eq!(bytes(&reading.subtree, "file"), Some(300));
    assert_eq!(reading.uncovered(), Some(2000 - 1000 - 500 - 400 - 7));
}

#[test]
fn captured_v1_without_use_hierarchy() {
    let reading = reading(
        Version::V1,
        &[(CgroupFile::Stat, fixture!("5.10-v1/memory.stat")), (CgroupFile::UseHierarchy, fixture!("5.10-v1/memory.use_hierarchy"))],
    );
    assert_eq!((reading.hierarchical, bytes(&reading.local, "shmem")), (Some(false), Some(5_001_216)));
    assert_eq!(reading.unreadable, 0);
}

#[test]
fn v2_events_and_counters() {
    let mut reading = v2(fixture!("6.12-v2/memory.stat"));
    reading.absorb(CgroupFile::Events, b"low 0\nhigh 3\nmax 17\noom 2\noom_kill 1\noom_group_kill 0\nsock_throttled 0\n");
    reading.absorb(CgroupFile::Swap, b"8192\n");
    reading.absorb(CgroupFile::High, b"max\n");
    let events = Events { limit_hits: Some(17), high: Some(3), oom: Some(2), oom_kill: Some(1), oom_group_kill: Some(0) };
    assert_eq!(reading.events, events);
    assert_eq!(reading.subtree.kinds["swap"], Figure { bytes: 8192, source: Source::Counter });
    assert_eq!((reading.high, reading.limit), (Some(Limit::Unlimited), None));
}

#[test]
fn limits() {
    for (text, expected) in [
        ("max\n", Some(Limit::Unlimited)),
        ("9223372036854771712\n", Some(Limit::Unlimited)),
        ("18446744073709551615\n", Some(Limit::Unlimited)),
        ("600000000\n", Some(Limit::Bytes(600_000_000))),
        ("0\n", Some(Limit::Bytes(0))),
        ("-1\n", None),
        ("", None),
    ] {
        assert_eq!(limit(text.as_bytes()), expected, "{text:?}");
    }
}

#[test]
fn missing_is_unknown_and_not_zero() {
    let reading = v2(b"anon 5\n");
    assert_eq!(bytes(&reading.subtree, "file"), None);
    assert_eq!((reading.subtree.dirty, reading.uncovered(), reading.working_set()), (None, None, None));
    let no_shmem = v2(b"anon 5\nfile 9\n");
    assert_eq!(bytes(&no_shmem.subtree, "file"), None, "cannot be told without shmem");
}

#[test]
fn hostile_texts_are_counted_and_do_no_harm() {
    let mut reading = StatReading::new(Version::V2, 1);
    for text in [&b""[..], b"\n\n\n", b"anon\n", b"anon x\n", b"\xff\xff 1x\n"] {
        reading.absorb(CgroupFile::Stat, text);
    }
    reading.absorb(CgroupFile::Usage, b"99999999999999999999999\n");
    assert_eq!(reading.unreadable, 6);
    // Parts larger than the whole: the kernel's lines are not of one moment.
    reading.absorb(
        CgroupFile::Stat,
        b"file 1\nshmem 18446744073709551615\nkernel 5\nslab 18446744073709551615\nvmalloc 1\nanon 18446744073709551615\n",
    );
    reading.absorb(CgroupFile::Usage, b"0\n");
    assert_eq!((bytes(&reading.subtree, "file"), bytes(&reading.subtree, "kernel.other")), (Some(0), Some(0)));
    assert_eq!(reading.uncovered(), None, "does not fit");
}
