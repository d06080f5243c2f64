use super::*;
use crate::report::{KindRow, LimitRow, Verdict};

const MIB: u64 = 1 << 20;

fn row(stat: u64) -> KindRow {
    KindRow { stat: Some(stat), charged: Some(2 * stat), unattributed: Some(3), ..KindRow::default() }
}

fn cgroup(path: &str, pod: Option<(&str, &str)>, container: Option<&str>, anon: u64) -> Cgroup {
    Cgroup {
        path: path.to_owned(),
        id: "7".to_owned(),
        state: "alive".to_owned(),
        namespace: pod.map(|(namespace, _)| namespace.to_owned()),
        pod_name: pod.map(|(_, pod)| pod.to_owned()),
        container_name: container.map(str::to_owned),
        kinds: BTreeMap::from([("anon".to_owned(), row(anon)), ("kernel".to_owned(), row(MIB))]),
        dirty_bytes: Some(9),
        binding_limit: Some(LimitRow { limit_bytes: 64 * MIB, left_bytes: Some(64 * MIB - anon), ..LimitRow::default() }),
        ..Cgroup::default()
    }
}

fn report() -> Report {
    let pod = Some(("shop", "cart-7"));
    let mut dead = cgroup("/kubepods/pod1/old", pod, Some("web"), 5 * MIB);
    dead.state = "dead".to_owned();
    dead.kinds = BTreeMap::from([("shmem".to_owned(), KindRow { live: Some(4 * MIB), ..KindRow::default() })]);
    let mut log = cgroup("/kubepods/pod1/log", pod, Some("log"), 2 * MIB);
    log.verdicts = vec![Verdict { id: "growth".to_owned(), severity: "warning".to_owned(), ..Verdict::default() }];
    let cgroups = vec![
        cgroup("/kubepods/pod1", pod, None, 0),
        cgroup("/kubepods/pod1/web", pod, Some("web"), 40 * MIB),
        cgroup("/kubepods/pod1/web2", pod, Some("web"), 8 * MIB),
        log,
        dead,
        cgroup("/system.slice/ssh", None, None, MIB),
    ];
    Report { cgroups, losses: BTreeMap::from([("keys_table_full".to_owned(), Some(2)), ("unknown".to_owned(), None)]), ..Report::default() }
}

/// The value of a series, by its family and the values of its labels.
fn value(metrics: &[Metric], id: FamilyId, labels: &[&str]) -> Option<Number> {
    let metric = metrics.iter().find(|metric| metric.family.id == id)?;
    let found: Vec<&Series> =
        metric.series.iter().filter(|series| series.labels.iter().map(|(_, value)| value.as_ref()).eq(labels.iter().copied())).collect();
    assert!(found.len() <= 1, "{id:?} {labels:?} stands there {} times", found.len());
    found.first().map(|series| series.number.clone())
}

fn sum(metrics: &[Metric], ids: &[FamilyId]) -> i64 {
    let of = |number: &Number| match number {
        Number::Whole(number) => *number,
        _ => panic!("not a sum"),
    };
    metrics.iter().filter(|metric| ids.contains(&metric.family.id)).flat_map(|metric| &metric.series).map(|series| of(&series.number)).sum()
}

#[test]
fn cgroups_of_one_name_are_one_series_and_each_label_set_is_there_once() {
    let metrics = collect(&report(), &Beside::default(), Options::default());
    assert_eq!(value(&metrics, FamilyId::Memory, &["shop", "cart-7", "web", "anon"]), Some((48 * MIB).into()));
    assert_eq!(value(&metrics, FamilyId::Charged, &["shop", "cart-7", "web", "anon"]), Some((96 * MIB).into()));
    assert_eq!(value(&metrics, FamilyId::LimitLeft, &["shop", "cart-7", "web"]), Some((24 * MIB).into()));
    assert_eq!(value(&metrics, FamilyId::Dirty, &["shop", "cart-7", "web"]), Some(18.into()));
    // With all below it: that of its containers.
    assert_eq!(value(&metrics, FamilyId::Dirty, &["shop", "cart-7", ""]), None);
    assert_eq!(value(&metrics, FamilyId::Dead, &["shop", "cart-7", "web", "shmem"]), Some((4 * MIB).into()));
    assert_eq!(value(&metrics, FamilyId::Memory, &["/system.slice/ssh", "anon"]), Some(MIB.into()));
    assert_eq!(value(&metrics, FamilyId::OomKills, &["shop", "cart-7", "log"]), Some(0.into()));
    assert_eq!(value(&metrics, FamilyId::Losses, &["keys_table_full"]), Some(2.into()));
    assert_eq!(value(&metrics, FamilyId::Losses, &["unknown"]), None, "unknown is no number");
    for metric in &metrics {
        let mut seen = BTreeSet::new();
        assert!(metric.series.iter().all(|series| seen.insert(&series.labels)), "{}", metric.family.name);
        let named: BTreeSet<&str> = metric.series.iter().flat_map(|series| &series.labels).map(|(name, _)| *name).collect();
        let allowed: Vec<&str> = metric.family.labels.iter().copied().chain(["namespace", "pod", "container", "cgroup", "name"]).collect();
        assert!(named.iter().all(|name| allowed.contains(name)), "{}: {named:?}", metric.family.name);
    }
}

#[test]
fn totals_stay_true_when_containers_are_folded() {
    let memory = [FamilyId::Memory, FamilyId::Dead];
    for series in [8192, OWN_SERIES + 2 * SERIES_OF_AN_OWNER, OWN_SERIES, 0] {
        let metrics = collect(&report(), &Beside::default(), Options { series });
        assert_eq!(sum(&metrics, &memory), sum(&metrics, &[FamilyId::NodeMemory]), "{series}");
        assert_eq!(sum(&metrics, &[FamilyId::Unattributed]), sum(&metrics, &[FamilyId::NodeUnattributed]), "{series}");
    }
    let metrics = collect(&report(), &Beside::default(), Options { series: OWN_SERIES + 2 * SERIES_OF_AN_OWNER });
    assert_eq!(value(&metrics, FamilyId::ContainersLeftOut, &[]), Some(2.into()));
    assert_eq!(value(&metrics, FamilyId::Memory, &["shop", owners::OTHERS, "", "kernel"]), Some(MIB.into()));
    // A counter of what is folded would shrink when other ones are.
    assert_eq!(value(&metrics, FamilyId::Charged, &["shop", owners::OTHERS, "", "anon"]), None);
    assert_eq!(value(&metrics, FamilyId::OomKills, &["shop", owners::OTHERS, ""]), None);
}

#[test]
fn kills_are_counted_also_when_the_container_is_gone() {
    let gone = Owner::Cgroup { path: "/gone".to_owned(), name: String::new() };
    let kills = Kills { count: 2, last_s: 1.5e9, last_id: "x".to_owned() };
    let beside = Beside {
        kills: BTreeMap::from([(gone, kills)]),
        kills_by_constraint: BTreeMap::from([("memcg".to_owned(), 2)]),
        ..Beside::default()
    };
    let metrics = collect(&report(), &beside, Options::default());
    assert_eq!(value(&metrics, FamilyId::OomKills, &["/gone"]), Some(2.into()));
    assert_eq!(value(&metrics, FamilyId::OomLast, &["/gone"]), Some(Number::Real(1.5e9)));
    assert_eq!(value(&metrics, FamilyId::NodeOomKills, &["memcg"]), Some(2.into()));
    assert_eq!(value(&metrics, FamilyId::NodeOomKills, &["none"]), Some(0.into()));
}

#[test]
fn verdicts_are_those_of_the_last_look() {
    assert_eq!(value(&collect(&report(), &Beside::default(), Options::default()), FamilyId::LookAge, &[]), None);
    let looked = report();
    let beside = Beside { looked: Some((&looked, 12.0)), ..Beside::default() };
    let metrics = collect(&Report::default(), &beside, Options::default());
    assert_eq!(value(&metrics, FamilyId::Verdicts, &["shop", "cart-7", "log", "growth", "warning"]), Some(1.into()));
    assert_eq!(value(&metrics, FamilyId::LookAge, &[]), Some(Number::Real(12.0)));
}
