//! Containers and cgroups as rows, sorted and filtered.

use super::theme::KINDS;
use crate::analyse::figures;
use crate::report::{Cgroup, Report};

/// What rows are sorted by, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Bytes held.
    #[default]
    Usage,
    /// Growth.
    Growth,
    /// Share of the limit that is met first.
    Limit,
    /// Dirty page cache.
    Dirty,
    /// Name, the first first.
    Name,
}

impl Sort {
    /// All, in the order in which a key goes through them.
    pub const ALL: [Sort; 5] = [Sort::Usage, Sort::Growth, Sort::Limit, Sort::Dirty, Sort::Name];

    /// As the screen calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Sort::Usage => "usage",
            Sort::Growth => "growth",
            Sort::Limit => "share of limit",
            Sort::Dirty => "dirty",
            Sort::Name => "name",
        }
    }

    /// The next one.
    #[must_use]
    pub fn next(self) -> Sort {
        let at = Sort::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Sort::ALL[(at + 1) % Sort::ALL.len()]
    }
}

/// A container or cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its cgroup's id.
    pub id: String,
    /// As people call it.
    pub name: String,
    /// It was removed, and something is still charged to it.
    pub is_dead: bool,
    /// Bytes of its own.
    pub bytes: u64,
    /// The same by kind, in the order of [`KINDS`].
    pub kinds: [u64; 4],
    /// The limit that is met first.
    pub limit: Option<u64>,
    /// How much of that limit is used.
    pub share: Option<f64>,
    /// Seconds until it is met.
    pub full_in: Option<f64>,
    /// Bytes a second.
    pub growth: Option<f64>,
    /// Dirty page cache.
    pub dirty: Option<u64>,
    /// The gravest verdict: severity and id.
    pub verdict: Option<(String, String)>,
}

/// What of a report is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Pods and containers only.
    pub only_pods: bool,
    /// Removed ones only.
    pub only_dead: bool,
    /// What was typed: words that all have to be in the row, `!word` must not; `kind:shmem`, `verdict:growth`, `pod:shop/`.
    pub filter: String,
    /// In which order.
    pub sort: Sort,
}

/// The rows. Verdicts that only a look into processes tells are from `whole`.
#[must_use]
pub fn rows(report: &Report, whole: Option<&Report>, wanted: &Wanted) -> Vec<Row> {
    let of_whole = |id: &str| whole.and_then(|whole| whole.cgroups.iter().find(|cgroup| cgroup.id == id));
    let is_shown = |cgroup: &&Cgroup| {
        let is_pod = cgroup.pod.is_some() || cgroup.pod_name.is_some() || cgroup.container.is_some();
        (is_pod || !wanted.only_pods) && (cgroup.state == "dead" || !wanted.only_dead)
    };
    let mut rows: Vec<Row> = report.cgroups.iter().filter(is_shown).map(|cgroup| row(cgroup, of_whole(&cgroup.id))).collect();
    rows.retain(|row| (row.bytes > 0 || row.limit.is_some()) && takes(&wanted.filter, row));
    let number = |figure: Option<f64>| figure.unwrap_or(f64::MIN);
    rows.sort_by(|a, b| {
        let order = match wanted.sort {
            Sort::Usage => b.bytes.cmp(&a.bytes),
            Sort::Growth => number(b.growth).total_cmp(&number(a.growth)),
            Sort::Limit => number(b.share).total_cmp(&number(a.share)),
            Sort::Dirty => b.dirty.cmp(&a.dirty),
            Sort::Name => a.name.cmp(&b.name),
        };
        // What is equal stays where it was from one second to the next.
        order.then_with(|| b.bytes.cmp(&a.bytes)).then_with(|| a.name.cmp(&b.name)).then_with(|| a.id.cmp(&b.id))
    });
    rows
}

fn row(cgroup: &Cgroup, whole: Option<&Cgroup>) -> Row {
    let limit = cgroup.binding_limit.as_ref();
    let used = limit.and_then(|limit| Some((limit.limit_bytes.saturating_sub(limit.left_bytes?), limit.limit_bytes)));
    let verdicts = cgroup.verdicts.iter().chain(whole.iter().flat_map(|whole| &whole.verdicts));
    let gravity = |severity: &str| ["critical", "warning", "info"].iter().position(|known| *known == severity).unwrap_or(3);
    Row {
        id: cgroup.id.clone(),
        name: figures::name(cgroup),
        is_dead: cgroup.state == "dead",
        bytes: figures::own_bytes(cgroup).unwrap_or(0),
        kinds: KINDS.map(|(kind, _)| cgroup.kinds.get(kind).and_then(figures::kind_bytes).unwrap_or(0)),
        limit: limit.map(|limit| limit.limit_bytes),
        share: used.filter(|(_, limit)| *limit > 0).map(|(used, limit)| used as f64 / limit as f64),
        full_in: limit.and_then(|limit| limit.reached_in_s),
        growth: figures::growth(cgroup),
        dirty: cgroup.dirty_bytes,
        verdict: verdicts.min_by_key(|verdict| gravity(&verdict.severity)).map(|verdict| (verdict.severity.clone(), verdict.id.clone())),
    }
}

/// Whether a row has every word of the filter.
fn takes(filter: &str, row: &Row) -> bool {
    filter.split_whitespace().all(|word| {
        let (is_inverse, word) = word.strip_prefix('!').map_or((false, word), |rest| (true, rest));
        let word = word.to_lowercase();
        let found = match word.split_once(':') {
            Some(("kind", kind)) => KINDS.iter().zip(row.kinds).any(|((name, _), bytes)| *name == kind && bytes > 0),
            Some(("verdict", id)) => row.verdict.as_ref().is_some_and(|(_, found)| found.contains(id)),
            Some(("pod" | "name", name)) => row.name.to_lowercase().contains(name),
            _ => row.name.to_lowercase().contains(&word) || row.verdict.as_ref().is_some_and(|(_, found)| found.contains(&word)),
        };
        found != is_inverse
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{KindRow, LimitRow, Trend, Verdict};
    use std::collections::BTreeMap;

    fn cgroup(name: &str, anon: u64, shmem: u64, rate: f64) -> Cgroup {
        let kind = |bytes| KindRow { stat: Some(bytes), ..KindRow::default() };
        Cgroup {
            path: format!("/{name}"),
            id: name.to_owned(),
            state: "alive".to_owned(),
            kinds: BTreeMap::from([("anon".to_owned(), kind(anon)), ("shmem".to_owned(), kind(shmem))]),
            trend: Some(Trend { bytes_per_s: Some(rate), stderr_per_s: Some(0.0), ..Trend::default() }),
            binding_limit: Some(LimitRow { limit_bytes: 1000, left_bytes: Some(1000 - anon), ..LimitRow::default() }),
            ..Cgroup::default()
        }
    }

    fn report() -> Report {
        let mut b = cgroup("b-web", 300, 0, 9.0);
        b.verdicts = vec![
            Verdict { id: "refaults".to_owned(), severity: "warning".to_owned(), ..Verdict::default() },
            Verdict { id: "growth".to_owned(), severity: "critical".to_owned(), ..Verdict::default() },
        ];
        let mut dead = cgroup("d-old", 0, 50, 0.0);
        dead.state = "dead".to_owned();
        dead.pod_name = Some("old".to_owned());
        Report { cgroups: vec![cgroup("a-db", 500, 0, 1.0), b, cgroup("c-empty", 0, 0, 0.0), dead], ..Report::default() }
    }

    fn names(wanted: &Wanted) -> Vec<String> {
        rows(&report(), None, wanted).into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn rows_are_in_the_order_that_is_asked_for() {
        let by = |sort| names(&Wanted { sort, ..Wanted::default() });
        assert_eq!(by(Sort::Usage), ["a-db", "b-web", "d-old", "c-empty"]);
        assert_eq!(by(Sort::Growth), ["b-web", "a-db", "d-old", "c-empty"]);
        assert_eq!(by(Sort::Limit)[0], "a-db");
        assert_eq!(by(Sort::Name)[..2], ["a-db", "b-web"]);
        assert_eq!(Sort::ALL.into_iter().fold(Sort::Usage, |sort, _| sort.next()), Sort::Usage);
    }

    #[test]
    fn words_choose_rows() {
        let by = |filter: &str| names(&Wanted { filter: filter.to_owned(), ..Wanted::default() });
        assert_eq!(by("WEB"), ["b-web"]);
        assert_eq!(by("!web !empty"), ["a-db", "d-old"]);
        assert_eq!(by("kind:shmem"), ["d-old"]);
        assert_eq!(by("verdict:growth"), ["b-web"]);
        assert_eq!(by("nothing"), [""; 0]);
        assert_eq!(names(&Wanted { only_dead: true, ..Wanted::default() }), ["d-old"]);
        assert_eq!(names(&Wanted { only_pods: true, ..Wanted::default() }), ["d-old"]);
    }

    #[test]
    fn the_gravest_verdict_is_shown_also_that_of_the_last_look_into_processes() {
        let shown = rows(&report(), None, &Wanted::default());
        assert_eq!(shown[1].verdict.as_ref().unwrap().1, "growth");
        let mut whole = report();
        whole.cgroups[0].verdicts = vec![Verdict { id: "glibc-arenas".to_owned(), severity: "info".to_owned(), ..Verdict::default() }];
        assert_eq!(rows(&report(), Some(&whole), &Wanted::default())[0].verdict.as_ref().unwrap().1, "glibc-arenas");
    }
}
