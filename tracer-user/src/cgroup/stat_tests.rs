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

#[test]
fn v2_kernel_without_its_line_is_the_sum_of_its_parts_and_says_so() {
    let reading = v2(fixture!("5.10-v2/memory.stat"));
    let kernel = reading.subtree.kinds["kernel"];
    assert_eq!(kernel, Figure { bytes: 147_456 + 8192 + 1_572_864, source: Source::Parts });
    assert_eq!(bytes(&reading.subtree, "kernel.pagetables"), None, "5.10 does not tell");
    assert_eq!(bytes(&reading.subtree, "kernel.other"), None);
    assert_eq!(bytes(&reading.subtree, "file"), Some(50_331_648 - 16_777_216));
    assert_eq!(reading.local, Figures::default());
}

#[test]
fn v2_kernel_line_and_its_remainder() {
    for (stat, kernel) in [(&fixture!("6.1-v2/memory.stat")[..], 4_194_304), (&fixture!("6.12-v2/memory.stat")[..], 5_242_880)] {
        let reading = v2(stat);
        let parts: u64 = 147_456 + 1_048_576 + 8192 + 65_536 + 1_572_864;
        assert_eq!(reading.subtree.kinds["kernel"], Figure { bytes: kernel, source: Source::Stat });
        let other = reading.subtree.kinds["kernel.other"];
        assert_eq!(other, Figure { bytes: kernel - parts - 262_144, source: Source::Remainder }, "zswap is part of kernel");
        assert_eq!((reading.subtree.dirty, reading.subtree.writeback), (Some(135_168), Some(4096)));
        assert_eq!((bytes(&reading.subtree, "sock"), bytes(&reading.subtree, "zswap")), (Some(4096), Some(262_144)));
        let covered = bytes(&reading.subtree, "anon").unwrap() + 50_331_648 + kernel + 4096;
        assert_eq!(reading.uncovered(), Some(104_857_600 - covered as i64));
    }
}

#[test]
fn v2_events_and_counters() {
    let mut reading = v2(fixture!("6.12-v2/memory.stat"));
    reading.absorb(CgroupFile::Events, fixture!("6.12-v2/memory.events"));
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
