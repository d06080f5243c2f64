//! The JSON report keeps its contract, docs/report.schema.json.

#![allow(clippy::unwrap_used, reason = "tests")]

mod output_support;

use memtrail::analyse::oom::loops::{Grower, Killed, Loops, Unlimited};
use memtrail::output::json;
use memtrail::report::autopsy::{Autopsy, Dead, Finding, Growth, Level, LiveStack, Moment, RegionsOf, Sibling, Trigger, Victim};
use memtrail::report::{ArenaRow, Cgroup, FileRow, KindRow, RegionRow, Report, StackRow};
use output_support::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report.schema.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn written(report: &Report) -> Value {
    let mut bytes = Vec::new();
    json::write(report, &mut bytes).unwrap();
    assert!(bytes.ends_with(b"}\n"));
    serde_json::from_slice(&bytes).unwrap()
}

fn problems(schema: &Value, report: &Value) -> Vec<String> {
    let validator = jsonschema::draft202012::new(schema).unwrap();
    validator.iter_errors(report).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// A report with a row of everything, and nulls wherever they may be.
fn full() -> Report {
    let mut report = one_container();
    let mut nulls = Cgroup { path: "/a".into(), id: "1".into(), state: "dead".into(), ..Cgroup::default() };
    nulls.kinds = BTreeMap::from([("anon".to_owned(), KindRow { source: "counter".into(), ..KindRow::default() })]);
    nulls.stacks = vec![StackRow { pid: None, ..stack("anon", "other", "a", "cut: too deep", &[], 1) }];
    report.cgroups.push(nulls);
    report.losses.insert("recursion".into(), None);
    let kill = Autopsy {
        time: "2026-03-01T02:04:00Z".into(),
        event: "kill".into(),
        constraint: Some("memcg".into()),
        limit_cgroup: Some("/a".into()),
        limit_bytes: Some(1),
        victims: vec![Victim { pid: Some(1), oom_score_adj: Some(-998), ..Victim::default() }],
        before: BTreeMap::from([("anon".to_owned(), Some(1)), ("remainder".to_owned(), Some(-1))]),
        ..Autopsy::default()
    };
    report.oom.push(kill.clone());
    let whole = Autopsy {
        constraint: None,
        event: "warning".into(),
        trigger: Some(Trigger { user_stack: Some(vec!["main".into()]), ..Trigger::default() }),
        levels: vec![Level::default()],
        siblings: vec![Sibling { state: "dead".into(), ..Sibling::default() }],
        stacks: vec![LiveStack { state: "alive".into(), ..LiveStack::default() }],
        growth: vec![Growth { bytes: -1, ..Growth::default() }, Growth { frames: Some(vec!["main".into()]), ..Growth::default() }],
        files: vec![FileRow { kind: "shmem".into(), ..FileRow::default() }],
        regions: vec![RegionsOf { regions: vec![RegionRow::default()], arenas: vec![ArenaRow::default()], ..RegionsOf::default() }],
        dead: vec![Dead::default()],
        verdicts: vec![Finding { severity: "info".into(), ..Finding::default() }],
        series: vec![Moment { kinds: BTreeMap::from([("anon".to_owned(), 1)]), ..Moment::default() }],
        ..kill
    };
    report.oom.push(whole);
    report.oom_loops = Some(Loops {
        victims: vec![Killed { grower: Some(Growth::default()), ..Killed::default() }, Killed::default()],
        growers: vec![Grower::default()],
        reserve_bytes: Some(-1),
        unlimited: vec![Unlimited::default()],
        verdicts: vec![Finding { severity: "critical".into(), ..Finding::default() }],
        ..Loops::default()
    });
    report
}

#[test]
fn reports_match_the_schema() {
    let schema = schema();
    assert!(jsonschema::meta::is_valid(&schema));
    for report in [full(), one_container(), shortened_twice().0] {
        assert_eq!(problems(&schema, &written(&valid(report))), Vec::<String>::new());
    }
}

/// Modes are always set by the collector.
fn valid(mut report: Report) -> Report {
    report.sampling.mode = "exact".into();
    report
}

/// Each object of a report, with the pointer of its place.
fn objects(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                found.push(format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")));
                objects(field, found.last().cloned().unwrap().as_str(), found);
            }
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| objects(item, &format!("{place}/{index}"), found)),
        _ => {}
    }
}

/// Names are data below these.
fn is_open(place: &str) -> bool {
    ["/kinds/", "/subtree/", "/losses/", "/tables/", "/histograms/", "/evidence/", "/before/"]
        .iter()
        .any(|open| place.rfind(open).is_some_and(|at| !place[at + open.len()..].contains('/')))
}

#[test]
fn every_field_is_required() {
    let schema = schema();
    let report = written(&full());
    let mut places = Vec::new();
    objects(&report, "", &mut places);
    let closed: Vec<&String> = places.iter().filter(|place| !is_open(place)).collect();
    assert!(closed.len() > 150, "{}", closed.len());
    for place in closed {
        let mut without = report.clone();
        let (parent, name) = place.rsplit_once('/').unwrap();
        without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        assert!(!problems(&schema, &without).is_empty(), "{place} can be left out");
    }
}

#[test]
fn every_field_is_described() {
    // Closing all objects that list their fields must not refuse anything that is written.
    let mut schema = schema();
    close(&mut schema);
    assert_eq!(problems(&schema, &written(&full())), Vec::<String>::new());
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("properties").is_some_and(Value::is_object) && fields.contains_key("required") {
                fields.insert("additionalProperties".into(), false.into());
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn wrong_types_are_refused() {
    let schema = schema();
    for (place, value) in [
        ("/schema", json!(2)),
        ("/cgroups/0/id", json!(7)),
        ("/cgroups/0/state", json!("gone")),
        ("/cgroups/0/stacks/0/live", json!(null)),
        ("/cgroups/0/stacks/0/live", json!(-1)),
        ("/cgroups/0/stacks/0/live", json!(1.5)),
        ("/cgroups/0/stacks/0/status", json!("cutoff")),
        ("/cgroups/0/kinds/anon/stat", json!("1")),
        ("/losses/recursion", json!("none")),
        ("/started", json!("yesterday")),
    ] {
        let mut report = written(&full());
        *report.pointer_mut(place).unwrap() = value;
        assert!(!problems(&schema, &report).is_empty(), "{place}");
    }
}

fn shortened_twice() -> (Report, Report) {
    let mut report = valid(empty_report());
    let stacks = (0..1000).map(|n| stack("anon", "heap", "c", "complete", &[&format!("f{n}")], n * 31 % 997)).collect();
    let files = (0..300).map(|n| FileRow { dirty: Some(n), ..file(&format!("/f{n}"), n, n) }).collect();
    report.cgroups = vec![Cgroup { path: "/a".into(), id: "1".into(), state: "alive".into(), stacks, files, ..Cgroup::default() }];
    let once = json::shortened(&report);
    let twice = json::shortened(&once);
    (once, twice)
}

#[test]
fn long_lists_keep_their_sums() {
    let (once, twice) = shortened_twice();
    let cgroup = &once.cgroups[0];
    assert_eq!(cgroup.stacks.len(), json::KEPT + 1);
    assert_eq!(cgroup.files.len(), json::KEPT + 1);
    assert!(cgroup.stacks[..200].is_sorted_by(|a, b| a.live >= b.live));
    let other = &cgroup.stacks[200];
    assert_eq!((other.frames.as_slice(), other.status.as_str(), other.pid), (["[other]".to_owned()].as_slice(), "none", None));
    assert_eq!(cgroup.stacks.iter().map(|row| row.live).sum::<u64>(), (0..1000).map(|n| n * 31 % 997).sum::<u64>());
    assert_eq!(cgroup.stacks.iter().map(|row| row.samples).sum::<u64>(), 1000);
    let files = |of: fn(&FileRow) -> u64| cgroup.files.iter().map(of).sum::<u64>();
    assert_eq!((files(|file| file.live), files(|file| file.dirty.unwrap())), (44_850, 44_850));
    assert_eq!(once, twice, "shortening again changes nothing");
    assert_eq!(json::shortened(&one_container()), one_container(), "short lists are left alone");
}

#[test]
fn an_unknown_part_makes_the_sum_unknown() {
    let (mut report, _) = shortened_twice();
    report.cgroups[0].files = (0..202).map(|n| FileRow { dirty: (n > 0).then_some(n), ..file(&format!("/f{n}"), 1, n) }).collect();
    assert_eq!(json::shortened(&report).cgroups[0].files[200].dirty, None);
    assert_eq!(json::shortened(&report).cgroups[0].files[200].live, 1);
}
