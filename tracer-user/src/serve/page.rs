//! The page that a browser gets: what fills which container, what memtrail concludes, and ways to everything else. Pure.
//!
//! Everything that others have named is escaped; there is no script.

use super::look::Look;
use crate::analyse::figures;
use crate::report::{Cgroup, Report};
use crate::text::{escape, units, xml};
use std::fmt::Write as _;

/// Rows of cgroups.
const MOST_CGROUPS: usize = 100;
/// Rows of kills.
const MOST_KILLS: usize = 20;
/// Kinds with a column.
const KINDS: [&str; 4] = ["anon", "file", "shmem", "kernel"];

/// Its style sheet.
pub const STYLE: &str = "\
:root { color-scheme: light dark; --line: #8884; --anon: #c2410c; --file: #2563eb; --shmem: #7c3aed; --kernel: #64748b }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 76rem; padding: 0 1rem }
h1 { font-size: 1.3rem } h2 { font-size: 1.05rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.name { overflow-wrap: anywhere }
.dead { opacity: .7 } .critical { color: #dc2626 } .warning { color: #b45309 }
.bar { display: flex; height: .45rem; margin-top: .2rem; background: var(--line); overflow: hidden }
.bar i { display: block; height: 100% }
.anon { background: var(--anon) } .file { background: var(--file) } .shmem { background: var(--shmem) } .kernel { background: var(--kernel) }
.key i { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 .9rem }
@media (prefers-color-scheme: dark) { .critical { color: #f87171 } .warning { color: #fbbf24 } }
";

/// The page.
#[must_use]
pub fn html(look: &Look) -> String {
    let report = look.report.as_ref();
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>memtrail</title>\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"refresh\" content=\"15\">\n");
    page.push_str("<link rel=\"stylesheet\" href=\"/style.css\"></head><body>\n<h1>memtrail</h1>\n");
    let seconds = units::seconds(report.duration_s).unwrap_or_default();
    let _ = writeln!(
        page,
        "<p>Linux {}, {} CPUs, cgroup {}; recording for {}.</p>",
        text(&report.host.kernel),
        report.host.cpus,
        text(&report.host.cgroup),
        text(&seconds)
    );
    verdicts(&mut page, look);
    cgroups(&mut page, report);
    kills(&mut page, look);
    page.push_str(
        "<h2>More</h2>\n<p><a href=\"/profile?format=svg\">flame graph of all</a> · \
         <a href=\"/profile?format=text\">summary</a> · <a href=\"/metrics\">metrics</a> · <a href=\"/debug/pprof/heap\">pprof</a> · \
         <a href=\"/report\">report as JSON</a> · <a href=\"/oom\">OOM kills as JSON</a> · <a href=\"/doctor\">how it is traced</a></p>\n</body></html>\n",
    );
    page
}

/// As content, whoever chose it.
fn text(text: &str) -> String {
    xml::content(&escape(text))
}

fn verdicts(page: &mut String, look: &Look) {
    let Some((report, at)) = &look.whole else { return };
    let all = report.cgroups.iter().flat_map(|cgroup| cgroup.verdicts.iter().map(move |verdict| (cgroup, verdict)));
    let mut all: Vec<_> = all.filter(|(_, verdict)| verdict.severity != "info").collect();
    if all.is_empty() {
        return;
    }
    all.sort_by_key(|(_, verdict)| verdict.severity != "critical");
    let ago = look.at.saturating_duration_since(*at).as_secs();
    let _ = writeln!(page, "<h2>What stands out</h2>\n<table><caption>as of {ago} s ago</caption>");
    for (cgroup, verdict) in all.iter().take(MOST_KILLS) {
        let class = if verdict.severity == "critical" { "critical" } else { "warning" };
        let _ = writeln!(
            page,
            "<tr><td class=\"{class}\">{}</td><td class=\"name\">{}</td><td>{}</td></tr>",
            text(&verdict.id),
            text(&figures::name(cgroup)),
            text(&verdict.text)
        );
    }
    page.push_str("</table>\n");
}

fn cgroups(page: &mut String, report: &Report) {
    let mut rows: Vec<(&Cgroup, u64)> = report.cgroups.iter().map(|cgroup| (cgroup, figures::own_bytes(cgroup).unwrap_or(0))).collect();
    rows.retain(|(cgroup, bytes)| *bytes > 0 || cgroup.limit_bytes.is_some());
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.path.cmp(&b.0.path)));
    page.push_str("<h2>Containers and cgroups</h2>\n<p class=\"key\">Memory of their own:");
    for kind in KINDS {
        let _ = write!(page, "<i class=\"{kind}\"></i>{kind}");
    }
    page.push_str("</p>\n<table>\n<tr><th>name</th><th class=\"n\">holds</th><th class=\"n\">limit</th><th class=\"n\">growth</th><th class=\"n\">full in</th><th></th></tr>\n");
    let largest = rows.first().map_or(1, |(_, bytes)| (*bytes).max(1));
    for (cgroup, bytes) in rows.iter().take(MOST_CGROUPS) {
        row(page, cgroup, *bytes, largest);
    }
    page.push_str("</table>\n");
    if rows.len() > MOST_CGROUPS {
        let _ = writeln!(page, "<p>{} smaller ones are not shown.</p>", rows.len() - MOST_CGROUPS);
    }
}

fn row(page: &mut String, cgroup: &Cgroup, bytes: u64, largest: u64) {
    let is_dead = cgroup.state == "dead";
    let growth = figures::growth(cgroup).and_then(units::rate_per_minute).unwrap_or_default();
    let limit = cgroup.binding_limit.as_ref();
    let full = limit.and_then(|limit| units::seconds(limit.reached_in_s?)).unwrap_or_default();
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("cgroup", &cgroup.path).finish();
    let _ = write!(page, "<tr{}><td class=\"name\">{}", if is_dead { " class=\"dead\"" } else { "" }, text(&figures::name(cgroup)));
    page.push_str("<div class=\"bar\">");
    for kind in KINDS {
        let part = cgroup.kinds.get(kind).and_then(figures::kind_bytes).unwrap_or(0);
        // A number of ours, for which the page's policy lets attributes have styles.
        let _ = write!(page, "<i class=\"{kind}\" style=\"width:{:.1}%\"></i>", 100.0 * part as f64 / largest as f64);
    }
    let _ = writeln!(
        page,
        "</div></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
         <td><a href=\"/profile?format=svg&amp;{query}\">flame graph</a></td></tr>",
        units::bytes(bytes),
        limit.map(|limit| units::bytes(limit.limit_bytes)).unwrap_or_default(),
        text(&growth),
        text(&full),
    );
}

fn kills(page: &mut String, look: &Look) {
    let kills = &look.killed.autopsies;
    if kills.is_empty() {
        return;
    }
    page.push_str("<h2>OOM kills</h2>\n<table>\n");
    for (id, autopsy) in kills.iter().rev().take(MOST_KILLS) {
        let _ = writeln!(
            page,
            "<tr><td class=\"n\">{}</td><td>{}</td><td><a href=\"/oom/{id}?format=html\">autopsy</a></td></tr>",
            text(&autopsy.time),
            text(autopsy.verdict.as_deref().unwrap_or("killed"))
        );
    }
    page.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::super::kills::Killed;
    use super::*;
    use crate::report::{KindRow, Verdict, autopsy::Autopsy};
    use std::{collections::BTreeMap, sync::Arc, time::Instant};

    #[test]
    fn what_others_have_named_stays_text() {
        let hostile = "\"><script>alert(1)</script>&'\u{202e}\n";
        let verdict = Verdict { id: hostile.to_owned(), severity: "critical".to_owned(), text: hostile.to_owned(), ..Verdict::default() };
        let kinds = BTreeMap::from([("anon".to_owned(), KindRow { stat: Some(5 << 20), ..KindRow::default() })]);
        let cgroup =
            Cgroup { path: format!("/{hostile}"), pod_name: Some(hostile.to_owned()), kinds, verdicts: vec![verdict], ..Cgroup::default() };
        let report = Arc::new(Report { cgroups: vec![cgroup], ..Report::default() });
        let mut killed = Killed::default();
        killed.add(Autopsy { verdict: Some(hostile.to_owned()), time: hostile.to_owned(), ..Autopsy::default() }, None);
        let at = Instant::now();
        let look =
            Look { report: Arc::clone(&report), at, killed: Arc::new(killed), whole: Some((report, at)), cpu: std::time::Duration::ZERO };
        let page = html(&look);
        assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{page}");
        assert!(page.contains("5.0 MiB") && page.contains("&lt;script"), "{page}");
        // Well formed: the reader of XML takes it, but for what HTML leaves open.
        let body = &page[page.find("<body>").unwrap()..page.find("</html>").unwrap()];
        roxmltree::Document::parse(body).unwrap();
    }
}
