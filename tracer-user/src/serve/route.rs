//! What is asked: paths and queries. Pure.

use super::look::Depth;
use crate::containers::NamePattern;
use crate::output::{Value, selection::Selection};
use crate::text::{date, glob::Glob, units};
use std::str::FromStr as _;

/// Longest time that charges are gathered for one answer, seconds.
pub const MOST_SECONDS: u64 = 60;
/// Charges are gathered for that long where nobody says for how long.
const USUAL_SECONDS: u64 = 10;
/// Longest query that is read.
const MOST_QUERY_BYTES: usize = 4096;

/// What is asked for.
#[derive(Debug)]
pub enum Route {
    /// The page for people.
    Page,
    /// Its style sheet.
    Style,
    /// Whether it runs.
    Health,
    /// Metrics.
    Metrics,
    /// What the trace uses and loses.
    Doctor,
    /// The whole report.
    Report {
        /// How much is looked at.
        depth: Depth,
    },
    /// Stacks.
    Profile(Box<Query>),
    /// The list of OOM kills.
    Kills,
    /// One of them.
    Kill {
        /// Its id.
        id: String,
        /// How it is told.
        format: KillFormat,
    },
}

/// How stacks are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileFormat {
    /// pprof's, compressed.
    Pprof,
    /// Folded stacks.
    Folded,
    /// A flame graph.
    Svg,
    /// The report of what is selected.
    Json,
    /// The summary that the terminal shows.
    Text,
}

/// How a kill is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillFormat {
    /// The autopsy.
    Json,
    /// As the terminal shows it.
    Text,
    /// Memory over time to the kill.
    Svg,
    /// The same with the autopsy.
    Html,
}

/// A moment in the past.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// Unix time, seconds.
    At(i64),
    /// So many seconds ago.
    Ago(i64),
}

/// Which stacks, and how.
#[derive(Debug)]
pub struct Query {
    /// Of which cgroups and kinds.
    pub selection: Selection,
    /// How they are told.
    pub format: ProfileFormat,
    /// With the names of Go's profiles, which viewers of these know.
    pub is_go: bool,
    /// Charges of the next seconds, and not what there is.
    pub seconds: Option<u64>,
    /// What was charged since then, from the recordings on disk.
    pub from: Option<When>,
    /// As of then, likewise.
    pub to: Option<When>,
}

/// Why a path or query is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// There is no such path.
    #[error("there is nothing here: / lists what there is")]
    Unknown,
    /// The query says something that is not understood.
    #[error("{0}")]
    Query(String),
}

impl Route {
    /// What a path and query ask for.
    ///
    /// # Errors
    /// In one line, what is not understood.
    pub fn parse(path: &str, query: &str) -> Result<Route, RouteError> {
        if query.len() > MOST_QUERY_BYTES {
            return Err(RouteError::Query(format!("a query has at most {MOST_QUERY_BYTES} bytes")));
        }
        let route = match path {
            "/" => Route::Page,
            "/style.css" => Route::Style,
            "/healthz" => Route::Health,
            "/metrics" => Route::Metrics,
            "/doctor" => Route::Doctor,
            "/report" => return report(query),
            "/oom" => Route::Kills,
            "/profile" => return Query::parse(query, ProfileFormat::Folded, false).map(|query| Route::Profile(Box::new(query))),
            "/debug/pprof/heap" => {
                let query = Query::parse(query, ProfileFormat::Pprof, true)?;
                // Viewers give a time with every question; what is live is of a moment.
                return Ok(Route::Profile(Box::new(Query { seconds: None, ..query })));
            }
            "/debug/pprof/allocs" => {
                let mut query = Query::parse(query, ProfileFormat::Pprof, true)?;
                query.selection.value = Value::Charged;
                query.seconds = Some(query.seconds.unwrap_or(USUAL_SECONDS));
                return query.check().map(|query| Route::Profile(Box::new(query)));
            }
            _ => match path.strip_prefix("/oom/") {
                Some(id) if !id.is_empty() && !id.contains('/') => return kill(id, query),
                _ => return Err(RouteError::Unknown),
            },
        };
        match pairs(query).next() {
            // Scrapers may be set up to add parameters; they mean nothing to us.
            Some(_) if !matches!(route, Route::Page | Route::Metrics | Route::Health) => {
                Err(RouteError::Query(format!("{path} takes no parameters")))
            }
            _ => Ok(route),
        }
    }

    /// Whether it costs nothing to answer.
    #[must_use]
    pub fn is_light(&self) -> bool {
        matches!(self, Route::Health | Route::Style)
    }

    /// Whether it is about the next seconds.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self, Route::Profile(query) if query.seconds.is_some())
    }

    /// Its name for counters, whatever was asked for in detail.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Route::Page | Route::Style => "/",
            Route::Health => "/healthz",
            Route::Metrics => "/metrics",
            Route::Doctor => "/doctor",
            Route::Report { .. } => "/report",
            Route::Profile(query) if query.is_go => "/debug/pprof",
            Route::Profile(_) => "/profile",
            Route::Kills | Route::Kill { .. } => "/oom",
        }
    }
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned()))
}

fn report(query: &str) -> Result<Route, RouteError> {
    let mut depth = Depth::Whole;
    for (name, value) in pairs(query) {
        depth = match (name.as_str(), value.as_str()) {
            ("look", "glance") => Depth::Glance,
            ("look", "whole") => Depth::Whole,
            ("look", _) => return Err(RouteError::Query("look: one of glance, whole".to_owned())),
            _ => return Err(unknown(&name, "look")),
        };
    }
    Ok(Route::Report { depth })
}

fn kill(id: &str, query: &str) -> Result<Route, RouteError> {
    let mut format = KillFormat::Json;
    for (name, value) in pairs(query) {
        format = match (name.as_str(), value.as_str()) {
            ("format", "json") => KillFormat::Json,
            ("format", "text") => KillFormat::Text,
            ("format", "svg") => KillFormat::Svg,
            ("format", "html") => KillFormat::Html,
            ("format", _) => return Err(RouteError::Query("format: one of json, text, svg, html".to_owned())),
            _ => return Err(unknown(&name, "format")),
        };
    }
    Ok(Route::Kill { id: id.to_owned(), format })
}

fn unknown(name: &str, known: &str) -> RouteError {
    let name: String = name.chars().take(40).collect();
    RouteError::Query(format!("{name:?} is no parameter: known are {known}"))
}

impl Query {
    fn parse(query: &str, format: ProfileFormat, is_go: bool) -> Result<Query, RouteError> {
        let wrong = |name: &str, error: &dyn std::fmt::Display| RouteError::Query(format!("{name}: {error}"));
        let mut parsed = Query { selection: Selection::default(), format, is_go, seconds: None, from: None, to: None };
        for (name, value) in pairs(query) {
            let selection = &mut parsed.selection;
            match name.as_str() {
                "cgroup" => selection.cgroups.push(Glob::parse(&value).map_err(|error| wrong("cgroup", &error))?),
                "pod" => selection.pods.push(NamePattern::pod(&value).map_err(|error| wrong("pod", &error))?),
                "container" => selection.containers.push(NamePattern::container(&value).map_err(|error| wrong("container", &error))?),
                "kind" if ["anon", "file", "shmem", "hugetlb"].contains(&value.as_str()) => selection.kinds.push(value),
                "kind" => return Err(wrong("kind", &"one of anon, file, shmem, hugetlb")),
                "value" => {
                    selection.value = Value::from_str(&value).map_err(|error| wrong("value", &error))?;
                }
                "format" => {
                    parsed.format = match value.as_str() {
                        "pprof" | "pb" => ProfileFormat::Pprof,
                        "folded" => ProfileFormat::Folded,
                        "svg" => ProfileFormat::Svg,
                        "json" => ProfileFormat::Json,
                        "text" => ProfileFormat::Text,
                        _ => return Err(wrong("format", &"one of pprof, folded, svg, json, text")),
                    };
                }
                "seconds" => {
                    let seconds = value.parse().ok().filter(|seconds| (1..=MOST_SECONDS).contains(seconds));
                    parsed.seconds = Some(seconds.ok_or_else(|| wrong("seconds", &format!("a whole number from 1 up to {MOST_SECONDS}")))?);
                }
                "from" => parsed.from = Some(When::parse(&value).map_err(|error| wrong("from", &error))?),
                "to" => parsed.to = Some(When::parse(&value).map_err(|error| wrong("to", &error))?),
                _ => return Err(unknown(&name, "cgroup, pod, container, kind, value, format, seconds, from, to")),
            }
        }
        parsed.check()
    }

    fn check(self) -> Result<Query, RouteError> {
        let refuse = |text: &str| Err(RouteError::Query(text.to_owned()));
        match self.selection.value {
            Value::Live | Value::Peak if self.from.is_some() => {
                refuse("from: what is live, or was at a peak, is of a moment: value=growth or value=charged")
            }
            Value::Growth if self.from.is_none() => refuse("value=growth: since when? from=-30m"),
            Value::Growth if matches!(self.format, ProfileFormat::Pprof) => {
                refuse("value=growth: pprof has no place for it: format=folded or svg")
            }
            _ if self.seconds.is_some() && (self.from.is_some() || self.to.is_some()) => {
                refuse("seconds are the next ones, from and to are in the past")
            }
            _ if self.seconds.is_some() && !self.is_go && self.selection.value != Value::Charged => {
                refuse("seconds: of value=charged only")
            }
            _ => Ok(self),
        }
    }
}

impl When {
    /// `2026-12-01T10:00:00Z`, Unix seconds, or `-30m` for half an hour ago.
    fn parse(text: &str) -> Result<When, String> {
        if let Some(ago) = text.strip_prefix('-') {
            let ago = units::parse_duration(ago).map_err(|error| error.to_string())?;
            return Ok(When::Ago(i64::try_from(ago.as_secs()).unwrap_or(i64::MAX)));
        }
        let seconds = text.parse().ok().or_else(|| date::parse_rfc3339(text));
        seconds.map(When::At).ok_or_else(|| "2026-12-01T10:00:00Z, Unix seconds, or -30m".to_owned())
    }

    /// Unix time, seconds.
    #[must_use]
    pub fn unix(self, now: i64) -> i64 {
        match self {
            When::At(at) => at,
            When::Ago(ago) => now.saturating_sub(ago),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(path: &str, text: &str) -> Query {
        match Route::parse(path, text).unwrap() {
            Route::Profile(query) => *query,
            other => panic!("{other:?}"),
        }
    }

    fn error(path: &str, text: &str) -> String {
        Route::parse(path, text).unwrap_err().to_string()
    }

    #[test]
    fn paths_are_known_or_refused() {
        for (path, name) in [
            ("/", "/"),
            ("/metrics", "/metrics"),
            ("/healthz", "/healthz"),
            ("/oom", "/oom"),
            ("/oom/x-1", "/oom"),
            ("/report", "/report"),
            ("/debug/pprof/heap", "/debug/pprof"),
        ] {
            assert_eq!(Route::parse(path, "").unwrap().name(), name);
        }
        for path in ["", "//", "/metrics/", "/oom/", "/oom/a/b", "/../etc/passwd", "/debug/pprof", "/debug/pprof/cmdline", "/%6detrics"] {
            assert_eq!(Route::parse(path, "").unwrap_err(), RouteError::Unknown, "{path}");
        }
        assert!(Route::parse("/metrics", "collect[]=x").is_ok());
        assert!(error("/doctor", "x=1").contains("takes no parameters") && error("/report", "x=1").contains("known are look"));
        assert!(matches!(Route::parse("/report", "look=glance").unwrap(), Route::Report { depth: Depth::Glance }));
    }

    #[test]
    fn what_is_asked_of_stacks_is_read() {
        let asked = query("/profile", "pod=shop%2Fcart-7&kind=anon&kind=file&value=charged&format=svg&from=-30m&to=2026-12-01T10:00:00Z");
        assert_eq!((asked.format, asked.selection.value, asked.selection.kinds.len()), (ProfileFormat::Svg, Value::Charged, 2));
        assert_eq!(asked.selection.pods[0].as_str(), "shop/cart-7");
        assert_eq!((asked.from, asked.to), (Some(When::Ago(1800)), Some(When::At(1_796_119_200))));
        assert_eq!(When::Ago(1800).unix(10_000), 8200);
        let heap = query("/debug/pprof/heap", "seconds=5&pod=a%2Fb");
        assert_eq!((heap.format, heap.seconds, heap.selection.value, heap.is_go), (ProfileFormat::Pprof, None, Value::Live, true));
        let allocs = query("/debug/pprof/allocs", "");
        assert_eq!((allocs.seconds, allocs.selection.value), (Some(USUAL_SECONDS), Value::Charged));
        assert_eq!(query("/debug/pprof/allocs", "seconds=60").seconds, Some(60));
    }

    #[test]
    fn what_cannot_be_told_is_refused_with_a_way_out() {
        for (text, says) in [
            ("value=x", "value: "),
            ("kind=x", "anon, file"),
            ("format=x", "pprof, folded"),
            ("cgroup=%5B", "cgroup: "),
            ("pod=a/b/c/d", "pod: "),
            ("from=-30m", "value=growth"),
            ("value=growth", "from=-30m"),
            ("value=growth&from=-1m&format=pprof", "format=folded"),
            ("value=charged&seconds=61", "up to 60"),
            ("value=charged&seconds=5&from=-1m", "next ones"),
            ("seconds=5", "value=charged"),
            ("from=yesterday&value=charged", "from: "),
            ("pdo=a", "\"pdo\" is no parameter"),
        ] {
            assert!(error("/profile", text).contains(says), "{text}: {}", error("/profile", text));
        }
        assert!(error("/profile", &"x".repeat(5000)).contains("4096"));
        assert!(error("/oom/x", "format=pdf").contains("json, text"));
    }
}
