use super::*;
use crate::report::autopsy::{Growth, Level, Sibling};
use std::collections::BTreeMap;

fn autopsy() -> Autopsy {
    Autopsy {
        time: "2026-03-01T02:04:00Z".into(),
        at_s: 840.0,
        event: "kill".into(),
        verdict: Some("java[30] was killed because its cgroup /a was at its limit".into()),
        constraint: Some("memcg".into()),
        limit_cgroup: Some("/a".into()),
        limit_bytes: Some(64 << 20),
        usage_bytes: Some(64 << 20),
        order: Some(0),
        gfp_mask: Some(0xcc0),
        before: BTreeMap::from([
            ("anon".to_owned(), Some(60 << 20)),
            ("file".to_owned(), Some(0)),
            ("remainder".to_owned(), Some(-4096)),
            ("sock".to_owned(), None),
        ]),
        victims: vec![Victim {
            pid: Some(30),
            comm: Some("java".into()),
            cgroup: Some("/a".into()),
            anon: Some(60 << 20),
            ..Victim::default()
        }],
        trigger: Some(Trigger {
            pid: Some(31),
            comm: Some("sh\x1b[2J".into()),
            cgroup: None,
            kernel_stack: Some(["handle_mm_fault", "try_charge", "mem_cgroup_out_of_memory", "out_of_memory"].map(str::to_owned).into()),
            ..Trigger::default()
        }),
        levels: vec![Level { cgroup: "/a".into(), usage_bytes: Some(64 << 20), limit_bytes: None, failcnt: Some(3) }],
        siblings: vec![Sibling {
            cgroup: "/a/b".into(),
            state: "dead".into(),
            usage_bytes: Some(5 << 20),
            source: "frozen picture".into(),
        }],
        stacks: vec![LiveStack {
            cgroup: "/a".into(),
            state: "dead".into(),
            kind: "anon".into(),
            pid: Some(30),
            comm: "java".into(),
            status: "complete".into(),
            frames: ["main", "fill", "handle_mm_fault_[k]"].map(str::to_owned).into(),
            live: 50 << 20,
            live_stderr: 1 << 20,
            young: [0, 10 << 20, 50 << 20],
        }],
        growth: vec![Growth { cgroup: "/a".into(), kind: "anon".into(), window_s: 60.0, bytes: 7 << 20, ..Growth::default() }],
        picture: "frozen".into(),
        sources: BTreeMap::from([("before.anon".to_owned(), "probe".to_owned())]),
        ..Autopsy::default()
    }
}

#[test]
fn the_evidence_stands_under_the_sentence() {
    let expected = r"OOM kill at 2026-03-01T02:04:00Z, 14 min into the recording
  java[30] was killed because its cgroup /a was at its limit
  limit     /a: 64.0 of 64.0 MiB
  levels    /a: 64.0 MiB, no limit, met 3 times
  kinds       60.0 MiB  anon       (probe)
              -4.0 KiB  remainder  ()
  victim    java[30] in /a: anon 60.0 MiB, file ?, shmem ?, swap ?, page tables ?
  trigger   sh\x1b[2J[31] in an unknown cgroup, order 0, gfp mask 0xcc0
              kernel: handle_mm_fault > try_charge
  live      50.0 MiB ± 1.0 MiB  java[30] in /a (removed), anon, 10.0 MiB of the last 5 min
              main > fill
  grew      +7.0 MiB in 1 min  anon of /a
  below     5.0 MiB  /a/b (dead; frozen picture)
  picture   frozen
";
    assert_eq!(render(&autopsy()), expected);
}

#[test]
fn no_line_is_too_wide_whatever_the_names_are() {
    let mut wide = autopsy();
    wide.limit_cgroup = Some("/kubepods".repeat(60));
    wide.stacks[0].frames = vec!["f".repeat(300), "g".repeat(50), "h".repeat(90)];
    wide.victims[0].cgroup.clone_from(&wide.limit_cgroup);
    wide.verdict = Some("漢".repeat(400));
    for line in render(&wide).lines() {
        assert!(text::width(line) <= COLUMNS, "{line}");
    }
}

#[test]
fn the_view_shows_every_kill_and_says_when_there_is_none() {
    let mut report = Report::default();
    assert_eq!(view(&report), "no OOM kill while recording\n");
    report.oom = vec![autopsy(), autopsy()];
    let text = view(&report);
    assert_eq!(text.matches("OOM kill at").count(), 2);
    assert_eq!(brief(&report, 1, 40), ["OOM: java[30] was killed because its", "cgroup /a was at its limit"]);
}
