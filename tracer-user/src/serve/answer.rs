//! What is answered.

use super::{
    look::{Collector, Depth, Heart, Look, NoLook},
    page,
    route::{KillFormat, ProfileFormat, Query, Route},
    window::Window,
};
use crate::analyse::{comparison::growth, figures};
use crate::output::{
    self, Value,
    metrics::{self, Encoding},
};
use crate::report::{Report, autopsy::Autopsy};
use crate::text::escape;
use hyper::StatusCode;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Everything that answers are made from.
#[derive(Debug)]
pub struct Served {
    /// The trace.
    pub collector: Collector,
    /// The recordings on disk, if there are any.
    pub window: Option<Window>,
    /// Bounds of metrics.
    pub metrics: metrics::Options,
    /// Requests answered, by route and class of status.
    pub requests: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// What counters told so far.
    pub told: Mutex<metrics::Told>,
    /// One at a time reads the recordings on disk.
    pub window_turn: tokio::sync::Semaphore,
    /// Whether the collector lives.
    pub heart: Arc<Heart>,
    /// Without a reading for so long it does not.
    pub longest_pause: Duration,
}

impl Served {
    /// Counts an answer.
    pub fn count(&self, route: &'static str, status: StatusCode) {
        let class = match status.as_u16() / 100 {
            2 => "2xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        };
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((route, class)).or_default() += 1;
    }
}

/// What a browser may do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Show it: it loads nothing and runs nothing.
    Show,
    /// The page: our style sheet, and widths.
    Page,
    /// A picture that has its own script and style in it, made by a library or by us, and loads nothing.
    Picture,
}

impl Trust {
    /// As the header `Content-Security-Policy` says it.
    #[must_use]
    pub fn policy(self) -> &'static str {
        match self {
            Trust::Show => "default-src 'none'; frame-ancestors 'none'",
            Trust::Page => {
                "default-src 'none'; style-src 'self'; style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            }
            Trust::Picture => {
                "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            }
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// What the body is.
    pub content_type: &'static str,
    /// What a browser may do with it.
    pub trust: Trust,
    /// The body is compressed as it is.
    pub is_packed: bool,
    /// The body.
    pub body: Vec<u8>,
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";
const CSS: &str = "text/css; charset=utf-8";
const BYTES: &str = "application/octet-stream";

impl Answer {
    fn new(content_type: &'static str, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status: StatusCode::OK, content_type, trust: Trust::Show, is_packed: false, body: body.into() }
    }

    /// One line that says why there is nothing else.
    #[must_use]
    pub fn refusal(status: StatusCode, text: &str) -> Answer {
        Answer { status, ..Answer::new(TEXT, format!("{}\n", escape(text))) }
    }
}

impl From<NoLook> for Answer {
    fn from(error: NoLook) -> Answer {
        Answer::refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
    }
}

/// Answers. `accept` is what the asker would like.
pub async fn answer(served: &Arc<Served>, route: Route, accept: &str) -> Answer {
    let result = match route {
        Route::Style => Ok(Answer::new(CSS, page::STYLE)),
        Route::Health => Ok(health(served)),
        Route::Page => looked(served, Depth::Glance, |look| Answer { trust: Trust::Page, ..Answer::new(HTML, page::html(look)) }).await,
        Route::Metrics => {
            let (encoding, of) = (Encoding::negotiate(accept), Arc::clone(served));
            looked(served, Depth::Glance, move |look| Answer::new(encoding.content_type(), encoding.encode(&metrics_of(&of, look)))).await
        }
        Route::Doctor => looked(served, Depth::Glance, |look| Answer::new(TEXT, doctor(&look.report))).await,
        Route::Report { depth } => looked(served, depth, |look| written(JSON, |body| output::json::write(&look.report, body))).await,
        Route::Kills => looked(served, Depth::Glance, |look| Answer::new(JSON, kills(look))).await,
        Route::Kill { id, format } => {
            looked(served, Depth::Glance, move |look| match look.killed.autopsy(&id) {
                Some(autopsy) => kill(autopsy, format),
                None => Answer::refusal(StatusCode::NOT_FOUND, "no kill of that id is kept: /oom lists them"),
            })
            .await
        }
        Route::Profile(query) => profile(served, *query).await,
    };
    result.unwrap_or_else(Answer::from)
}

/// Looks, and makes an answer of it on a thread that may take its time.
async fn looked(served: &Served, depth: Depth, make: impl FnOnce(&Look) -> Answer + Send + 'static) -> Result<Answer, NoLook> {
    let look = served.collector.look(depth, None).await?;
    Ok(apart(move || make(&look)).await)
}

/// Makes an answer on a thread that may take its time.
async fn apart(make: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    tokio::task::spawn_blocking(make)
        .await
        .unwrap_or_else(|_| Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, "making the answer failed: this is a defect of memtrail"))
}

/// An answer that a format writes.
fn written(content_type: &'static str, write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Answer {
    let mut body = Vec::new();
    match write(&mut body) {
        Ok(()) => Answer::new(content_type, body),
        Err(error) => Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Whether readings are taken, and nothing else: this needs no token.
fn health(served: &Served) -> Answer {
    let since = served.heart.since();
    let text = format!("last reading {:.1} s ago", since.as_secs_f64());
    if since > served.longest_pause {
        Answer::refusal(StatusCode::SERVICE_UNAVAILABLE, &text)
    } else {
        Answer::new(TEXT, format!("ok: {text}\n"))
    }
}

fn metrics_of(served: &Served, look: &Look) -> Vec<metrics::Metric> {
    let beside = metrics::Beside {
        kills: look.killed.by_owner.clone(),
        kills_by_constraint: look.killed.by_constraint.clone(),
        requests: served.requests.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        looked: look.whole.as_ref().map(|(report, at)| (report.as_ref(), look.at.saturating_duration_since(*at).as_secs_f64())),
        cpu_s: look.cpu.as_secs_f64(),
    };
    let mut metrics = metrics::collect(&look.report, &beside, served.metrics);
    served.told.lock().unwrap_or_else(PoisonError::into_inner).never_fall(&mut metrics);
    metrics
}

/// How it is traced, what that uses, and what was lost.
fn doctor(report: &Report) -> String {
    let mut text = format!("{}, Linux {}, {} CPUs, cgroup {}\n\n", report.tool, report.host.kernel, report.host.cpus, report.host.cgroup);
    for row in &report.plan {
        let note = if row.note.is_empty() { String::new() } else { format!("  {}", row.note) };
        let _ = writeln!(text, "{:<24} {}{note}", row.probe, row.provider);
    }
    text.push_str("\nlosses\n");
    for (cause, count) in &report.losses {
        let _ = writeln!(text, "  {cause:<32} {}", count.map_or_else(|| "unknown".to_owned(), |count| count.to_string()));
    }
    text
}

fn kills(look: &Look) -> String {
    let rows: Vec<serde_json::Value> = look
        .killed
        .autopsies
        .iter()
        .rev()
        .map(|(id, autopsy)| {
            serde_json::json!({
                "id": id,
                "time": autopsy.time,
                "limit_cgroup": autopsy.limit_cgroup,
                "limit_bytes": autopsy.limit_bytes,
                "victims": autopsy.victims.iter().map(|victim| serde_json::json!({"pid": victim.pid, "comm": victim.comm, "cgroup": victim.cgroup})).collect::<Vec<_>>(),
                "verdict": autopsy.verdict,
            })
        })
        .collect();
    // Strings, numbers and lists of them: this cannot fail.
    serde_json::to_string_pretty(&rows).unwrap_or_default() + "\n"
}

fn kill(autopsy: &Autopsy, format: KillFormat) -> Answer {
    match format {
        KillFormat::Json => Answer::new(JSON, serde_json::to_string_pretty(autopsy).unwrap_or_default() + "\n"),
        KillFormat::Text => Answer::new(TEXT, output::autopsy::render(autopsy)),
        KillFormat::Svg => Answer { trust: Trust::Picture, ..Answer::new(SVG, output::timeline::svg(autopsy)) },
        KillFormat::Html => Answer { trust: Trust::Picture, ..Answer::new(HTML, output::timeline::html(autopsy)) },
    }
}

async fn profile(served: &Arc<Served>, query: Query) -> Result<Answer, NoLook> {
    if let Some(seconds) = query.seconds {
        let before = served.collector.look(Depth::Whole, None).await?;
        tokio::time::sleep(Duration::from_secs(seconds).saturating_sub(before.at.elapsed())).await;
        let after = served.collector.look(Depth::Whole, Some(Instant::now())).await?;
        let make = move || stacks(&growth::between(Some(&before.report), &after.report, Value::Charged).report, &query);
        return Ok(apart(make).await);
    }
    if query.from.is_some() || query.to.is_some() {
        let now = if query.to.is_some() { None } else { Some(served.collector.look(Depth::Whole, None).await?.report) };
        let Ok(_turn) = served.window_turn.try_acquire() else {
            return Ok(Answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "the recordings on disk are being read for somebody else"));
        };
        let of = Arc::clone(served);
        return Ok(apart(move || of_window(&of, &query, now)).await);
    }
    looked(served, Depth::Whole, move |look| stacks(&look.report, &query)).await
}

/// What the recordings on disk say. `now` stands for the end where none was asked for.
fn of_window(served: &Served, query: &Query, now: Option<Arc<Report>>) -> Answer {
    let Some(window) = &served.window else {
        return Answer::refusal(StatusCode::NOT_FOUND, "nothing is kept on disk: start memtrail serve with --dir");
    };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let clock = i64::try_from(clock).unwrap_or(i64::MAX);
    let at = |when: super::route::When| match window.report_at(when.unix(clock)) {
        Ok(Some(report)) => Ok(report),
        Ok(None) => Err(Answer::refusal(StatusCode::NOT_FOUND, "the window does not reach so far")),
        Err(error) => Err(Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())),
    };
    if let (Some(from), Some(to)) = (query.from, query.to)
        && from.unix(clock) >= to.unix(clock)
    {
        return Answer::refusal(StatusCode::BAD_REQUEST, "from: it is not before to");
    }
    let made = || -> Result<Answer, Answer> {
        let after = match (query.to, now) {
            (Some(to), _) => Arc::new(at(to)?),
            (None, Some(now)) => now,
            (None, None) => return Err(NoLook::Gone.into()),
        };
        let Some(from) = query.from else { return Ok(stacks(&after, query)) };
        let before = at(from)?;
        if before.started != after.started {
            let text = "memtrail was started anew in between: what was charged before is not known to the later one";
            return Err(Answer::refusal(StatusCode::NOT_FOUND, text));
        }
        Ok(stacks(&growth::between(Some(&before), &after, query.selection.value).report, query))
    };
    made().unwrap_or_else(|refusal| refusal)
}

/// Stacks of what is selected.
fn stacks(report: &Report, query: &Query) -> Answer {
    let selected = query.selection.apply(report);
    if query.selection.is_of_cgroups() && selected.cgroups.is_empty() {
        return Answer::refusal(StatusCode::NOT_FOUND, "no cgroup, pod or container matches");
    }
    let value = query.selection.value;
    match query.format {
        ProfileFormat::Pprof if query.is_go => {
            let subject = subject(&selected, query);
            let answer = written(BYTES, |body| output::pprof::write_for_viewers(&selected, value, &subject, body));
            Answer { is_packed: true, ..answer }
        }
        ProfileFormat::Pprof => Answer { is_packed: true, ..written(BYTES, |body| output::pprof::write(&selected, value, body)) },
        ProfileFormat::Folded => written(TEXT, |body| output::folded::write(&selected, value, body)),
        ProfileFormat::Svg => Answer { trust: Trust::Picture, ..written(SVG, |body| output::svg::write(&selected, value, body)) },
        ProfileFormat::Json => written(JSON, |body| output::json::write(&selected, body)),
        ProfileFormat::Text => {
            let is_part = !query.selection.kinds.is_empty();
            Answer::new(TEXT, output::summary::render(&selected, output::summary::Options { value, is_part, ..Default::default() }))
        }
    }
}

/// What a profile is of, for the place where viewers show the program.
fn subject(selected: &Report, query: &Query) -> String {
    match selected.cgroups.as_slice() {
        [one] => figures::of_pod_and_container(one),
        _ => {
            let pods = query.selection.pods.iter().map(|pattern| pattern.as_str());
            let asked: Vec<&str> = pods.chain(query.selection.cgroups.iter().map(crate::text::glob::Glob::as_str)).collect();
            if asked.is_empty() { "all cgroups".to_owned() } else { asked.join(" ") }
        }
    }
}
