use super::*;
use crate::report::autopsy::Trigger;

/// Captured on 6.18, cgroup v1: python3 in /w-oom with a limit of 64 MiB.
const V1_6_18: &str = include_str!("../../../tests/fixtures/oom/6.18-v1.log");

#[test]
fn a_whole_report_of_6_18_is_understood() {
    let found = incidents(V1_6_18.lines());
    let [incident] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(incident.trigger.as_deref(), Some("python3"));
    assert_eq!((incident.gfp_mask, incident.order), (Some(0xcc0), Some(0)));
    assert_eq!(incident.memory, Some([65536, 65536, 86]));
    assert_eq!(incident.stat["total_rss"], 66_867_200);
    assert!(!incident.group && !incident.stat.contains_key("Tasks"));
    assert_eq!(incident.constraint.as_deref(), Some("memcg"));
    assert_eq!((incident.oom_memcg.as_deref(), incident.task_memcg.as_deref()), (Some("/w-oom"), Some("/w-oom")));
    let killed = Killed {
        pid: 4621,
        comm: "python3".into(),
        total_vm: Some(75196),
        anon: Some(65280),
        file: Some(6472),
        shmem: Some(0),
        pagetables: Some(192),
        oom_score_adj: Some(0),
    };
    assert_eq!(incident.victims, [killed]);
}

#[test]
fn lines_of_other_kernels_are_understood() {
    // 4.19 and 5.4; without page tables and adjustment.
    let old = "Memory cgroup out of memory: Killed process 18524 (cdi-importer) total-vm:2701352kB, anon-rss:23032kB, file-rss:0kB, shmem-rss:0kB, UID:0";
    let found = killed(old).unwrap();
    assert_eq!((found.pid, found.anon, found.pagetables, found.oom_score_adj), (18524, Some(23032), None, None));
    let global = [
        "java invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0, oom_score_adj=-998",
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/a,task=java,pid=7,uid=0",
        "Out of memory: Killed process 7 (java) total-vm:8kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:44kB oom_score_adj:-998",
    ];
    let found = incidents(global);
    assert_eq!((found[0].constraint.as_deref(), found[0].oom_memcg.as_deref()), (Some("none"), None));
    assert_eq!((found[0].task_memcg.as_deref(), found[0].victims[0].oom_score_adj), (Some("/a"), Some(-998)));
    assert_eq!(constraint("constraint=CONSTRAINT_MEMORY_POLICY,nodemask=0").as_deref(), Some("mempolicy"));
}

#[test]
fn without_the_long_report_each_victim_is_a_kill_but_a_group_is_one() {
    let killed = |pid: u32| format!("Memory cgroup out of memory: Killed process {pid} (a) total-vm:8kB, anon-rss:4kB, file-rss:0kB");
    let lines = [killed(1), killed(2), "Tasks in /g are going to be killed due to memory.oom.group set".to_owned(), killed(3), killed(4)];
    let found = incidents(lines.iter().map(String::as_str));
    let pids: Vec<Vec<u32>> = found.iter().map(|incident| incident.victims.iter().map(|victim| victim.pid).collect()).collect();
    // The announcement comes after the first victim.
    assert_eq!(pids, [vec![1], vec![2, 3, 4]]);
}

#[test]
fn names_cannot_forge_fields() {
    let line =
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/a,task_memcg=/b,task_memcg=/c,task=x,pid=9,task=y,pid=3,uid=0";
    let found = incidents([line, "x: Killed process 3 (y) (Killed process 8 () total-vm:1kB, anon-rss:1kB"]);
    assert_eq!(found[0].oom_memcg.as_deref(), Some("/a,task_memcg=/b"));
    assert_eq!((found[0].victims[0].pid, found[0].victims[0].comm.as_str()), (3, "y) (Killed process 8 ("));
    for hostile in
        ["Killed process", "Killed process x (y) ", "oom-kill:", "memory: usage", " invoked oom-killer: gfp_mask=0x", "Killed process 1 ("]
    {
        assert!(incidents([hostile]).is_empty(), "{hostile}");
    }
}

#[test]
fn records_lose_their_prefix_and_their_escapes() {
    let record = "6,1234,12431340830,-;anon 1\\x0afile 2\n SUBSYSTEM=x\n";
    assert_eq!(messages(record).collect::<Vec<_>>(), ["anon 1", "file 2"]);
    assert_eq!(messages("plain").collect::<Vec<_>>(), ["plain"]);
}

fn agreeing() -> Autopsy {
    Autopsy {
        constraint: Some("memcg".into()),
        limit_cgroup: Some("/w-oom".into()),
        usage_bytes: Some(65536 << 10),
        limit_bytes: Some(65536 << 10),
        failcnt: Some(90),
        trigger: Some(Trigger { comm: Some("python3".into()), ..Trigger::default() }),
        before: BTreeMap::from([("anon".to_owned(), Some(66_867_200)), ("shmem".to_owned(), Some(0)), ("file".to_owned(), None)]),
        victims: vec![Victim {
            pid: Some(4621),
            comm: Some("python3".into()),
            cgroup: Some("/w-oom".into()),
            oom_score_adj: Some(0),
            anon: Some(65280 << 10),
            file: Some(6472 << 10),
            shmem: Some(0),
            pagetables: Some(192 << 10),
            total_vm: Some(75196 << 10),
            ..Victim::default()
        }],
        ..Autopsy::default()
    }
}

#[test]
fn an_autopsy_that_agrees_says_so_and_counts_what_cannot_be_compared() {
    let agreement = compare(&agreeing(), &incidents(V1_6_18.lines()), 0).unwrap();
    assert_eq!(agreement.differences, Vec::<String>::new());
    // order, gfp mask and file.
    assert_eq!((agreement.compared, agreement.left_out), (16, 3));
}

#[test]
fn each_field_can_differ() {
    let log = incidents(V1_6_18.lines());
    type Change = fn(&mut Autopsy);
    let changes: [(&str, Change); 9] = [
        ("constraint", |a| a.constraint = Some("none".into())),
        ("limit_cgroup", |a| a.limit_cgroup = Some("/".into())),
        ("usage kB", |a| a.usage_bytes = Some(60 << 20)),
        ("limit kB", |a| a.limit_bytes = Some(60 << 20)),
        ("failcnt", |a| a.failcnt = Some(3)),
        ("anon kB", |a| a.before = BTreeMap::from([("anon".to_owned(), Some(1))])),
        ("victim 4621: anon kB", |a| a.victims[0].anon = Some(1)),
        ("victim 4621: page tables kB", |a| a.victims[0].pagetables = Some(1)),
        ("victim's cgroup", |a| a.victims[0].cgroup = Some("/x".into())),
    ];
    for (field, change) in changes {
        let mut autopsy = agreeing();
        change(&mut autopsy);
        let agreement = compare(&autopsy, &log, 512).unwrap();
        assert!(agreement.differences.iter().any(|difference| difference.starts_with(field)), "{field}: {agreement:?}");
    }
    let mut stranger = agreeing();
    stranger.victims[0].pid = Some(1);
    assert!(compare(&stranger, &log, 0).is_none());
    let mut from_log = agreeing();
    from_log.sources.insert("limit_cgroup".into(), crate::analyse::oom::source::LOG.into());
    assert_eq!(compare(&from_log, &log, 0).unwrap().left_out, 4, "what came from the log proves nothing");
}
