use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn grew(cgroup: &str, window_s: f64, mib: i64) -> Growth {
    Growth { cgroup: cgroup.into(), kind: OWN.into(), window_s, bytes: mib << 20, ..Growth::default() }
}

fn kill(at_s: f64, constraint: &str, cgroup: &str, pid: u32, growth: Vec<Growth>) -> Autopsy {
    let victim = Victim { pid: Some(pid), comm: Some("agent".into()), cgroup: Some(cgroup.into()), ..Victim::default() };
    Autopsy { at_s, event: "kill".into(), constraint: Some(constraint.into()), victims: vec![victim], growth, ..Autopsy::default() }
}

fn cgroup(id: u64, parent: u64, path: &str, usage: u64, limit: Option<u64>) -> Limited {
    Limited { id, parent: (parent != 0).then_some(parent), path: path.into(), usage: Some(usage), limit }
}

/// A node of 16 GiB: pods with limits of 20 GiB together in a slice of 15, a daemon without a limit.
fn node() -> Vec<Limited> {
    vec![
        cgroup(1, 0, "/", 15 * GIB, None),
        cgroup(2, 1, "/kubepods", 9 * GIB, Some(15 * GIB)),
        cgroup(3, 2, "/kubepods/a", 5 * GIB, Some(12 * GIB)),
        cgroup(4, 2, "/kubepods/b", 4 * GIB, Some(8 * GIB)),
        cgroup(5, 1, "/system", 5 * GIB, None),
        cgroup(6, 5, "/system/log", 4 * GIB, None),
        cgroup(7, 5, "/system/small", MIB, None),
        cgroup(8, 3, "/kubepods/a/web", 5 * GIB, None),
    ]
}

const ROOMY: Option<Memory> = Some(Memory { total: 16 * GIB, available: 8 * GIB });
const SHORT_OF: Option<Memory> = Some(Memory { total: 16 * GIB, available: GIB });

fn ids(loops: &Loops) -> Vec<&str> {
    loops.verdicts.iter().map(|verdict| verdict.id.as_str()).collect()
}

#[test]
fn a_loop_names_who_grew_and_not_only_who_died() {
    let kills: Vec<Autopsy> = (0..10_u32)
        .map(|n| {
            let growth = vec![grew("/unit", 60.0, 900), grew("/unit", 300.0, 20), grew("/grower", 300.0, 30 + 10 * i64::from(n))];
            kill(f64::from(n) * 30.0, "memcg", "/unit", 100 + n, growth)
        })
        .collect();
    let loops = look(&kills, 280.0, ROOMY, &[cgroup(9, 0, "/grower", GIB, None)]);
    assert_eq!(ids(&loops), [LOOP]);
    assert_eq!(
        loops.verdicts[0].text,
        "agent of /unit was killed 10 times in 4 min 30 s, started again 9 times; what grew is /grower, by 120.0 MiB in 5 min. Set a \
         limit on /grower, which has none: killing the victim frees what the other takes."
    );
    assert_eq!((loops.kills, loops.memcg, loops.global), (10, 10, 0));
    assert_eq!((loops.victims[0].kills, loops.victims[0].restarts), (10, 9));
    assert_eq!((loops.growers[0].cgroup.as_str(), loops.growers[0].kills), ("/grower", 10), "over the longest window");
}

#[test]
fn a_unit_that_grows_itself_is_told_so_and_a_restarted_pod_is_one_unit() {
    let pod = |container: &str| format!("/kubepods/pod6b21aa00-7c0f-4c5e-9a39-2f6a4d0e8b11/{}", container.repeat(32));
    let kills: Vec<Autopsy> =
        ["a1", "b2", "c3"].iter().zip(1..).map(|(id, n)| kill(f64::from(n), "memcg", &pod(id), n, vec![grew(&pod(id), 3.0, 50)])).collect();
    let loops = look(&kills, 5.0, None, &[]);
    let text = &loops.verdicts[0].text;
    assert!(text.starts_with(
        "agent of pod 6b21aa00-7c0f-4c5e-9a39-2f6a4d0e8b11 was killed 3 times in 2 s, started again 2 times; it grew itself, by 50.0 MiB"
    ));
}

#[test]
fn few_old_or_other_kills_are_no_loop() {
    let of = |n: u32, at_s: f64| (0..n).map(|n| kill(at_s, "memcg", "/unit", n, Vec::new())).collect::<Vec<_>>();
    assert!(ids(&look(&of(2, 0.0), 10.0, None, &[])).is_empty());
    assert!(ids(&look(&of(9, 0.0), WINDOW_S + 1.0, None, &[])).is_empty());
    assert!(look(&of(3, 0.0), 10.0, None, &[]).verdicts[0].text.contains("what grew is not known"));
    let each_once: Vec<Autopsy> = ["/a", "/b", "/c"].iter().map(|path| kill(0.0, "memcg", path, 1, Vec::new())).collect();
    assert!(ids(&look(&each_once, 1.0, None, &[])).is_empty());
    let mut group = of(1, 0.0);
    let more = of(4, 0.0).into_iter().flat_map(|kill| kill.victims);
    group[0].victims.extend(more);
    let loops = look(&group, 1.0, None, &[]);
    assert_eq!((ids(&loops).len(), loops.victims[0].kills, loops.victims[0].restarts), (0, 1, 0), "five of a group, once");
    let mut ending = of(5, 0.0);
    ending.iter_mut().for_each(|kill| kill.victims[0].already_ending = Some(true));
    assert!(ids(&look(&ending, 1.0, None, &[])).is_empty());
    let mut warnings = of(5, 0.0);
    warnings.iter_mut().for_each(|warning| warning.event = "warning".into());
    assert_eq!(look(&warnings, 1.0, None, &[]).kills, 0);
}

#[test]
fn limits_are_judged_only_when_the_host_is_short_of_memory() {
    assert!(ids(&look(&[], 0.0, ROOMY, &node())).is_empty());
    assert!(ids(&look(&[kill(0.0, "memcg", "/x", 1, Vec::new())], 0.0, ROOMY, &node())).is_empty());
    assert_eq!(ids(&look(&[kill(0.0, "none", "/x", 1, Vec::new())], 0.0, ROOMY, &node())), [NO_LIMIT, OVERCOMMITTED]);
    let loops = look(&[], 0.0, SHORT_OF, &node());
    assert_eq!(ids(&loops), [NO_LIMIT, OVERCOMMITTED]);
    assert!(loops.verdicts[0].text.starts_with("/system/log of 4.0 GiB has no limit"), "{}", loops.verdicts[0].text);
    assert_eq!(loops.unlimited.len(), 1, "small ones do not count, and a limit above is one");
    assert!(
        loops.verdicts[1].text.starts_with("The limits right below /kubepods sum to 20.0 GiB, 133 % of the 15.0 GiB that it has"),
        "{}",
        loops.verdicts[1].text
    );
    assert_eq!(loops.reserve_bytes, Some(GIB as i64), "what the outermost limits leave");
}

#[test]
fn a_host_with_room_for_its_limits_is_silent() {
    let modest = [cgroup(1, 0, "/", GIB, None), cgroup(2, 1, "/a", GIB, Some(8 * GIB)), cgroup(3, 1, "/b", GIB, Some(7 * GIB))];
    assert!(ids(&look(&[kill(0.0, "none", "/x", 1, Vec::new())], 0.0, SHORT_OF, &modest)).is_empty());
    let unknown = look(&[], 0.0, None, &node());
    assert_eq!((unknown.reserve_bytes, unknown.limits_bytes, unknown.unlimited.len()), (None, None, 0));
    assert!(ids(&look(&[], 0.0, SHORT_OF, &[])).is_empty());
}
