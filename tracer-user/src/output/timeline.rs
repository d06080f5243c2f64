//! Memory over time by kind up to an OOM kill, as a picture: SVG, or the same in an HTML page with the autopsy's text. Self-contained: no
//! scripts, no fonts, nothing is fetched. Pure.

use super::autopsy;
use crate::text::{self, xml};
use crate::{report::autopsy::Autopsy, text::units};
use std::fmt::Write as _;
use std::io;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
/// Around the plot: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (90.0, 70.0, 130.0, 40.0);
/// Kinds from the bottom up, with their colours (Okabe and Ito's palette, which the colour-blind can tell apart).
const KINDS: [(&str, &str); 4] = [("kernel", "#999999"), ("file", "#56b4e9"), ("shmem", "#e69f00"), ("anon", "#d55e00")];

/// The picture.
#[must_use]
pub fn svg(autopsy: &Autopsy) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (row, line) in text::wrap(autopsy.verdict.as_deref().unwrap_or("OOM kill"), 140).iter().take(3).enumerate() {
        label(&mut svg, 10.0, 18.0 + 15.0 * row as f64, "start", line);
    }
    let longest = autopsy.series.iter().map(|moment| moment.before_s).filter(|s| s.is_finite()).fold(1.0, f64::max);
    let most = autopsy.series.iter().filter_map(|moment| moment.usage_bytes).chain(autopsy.limit_bytes).max().unwrap_or(1).max(1);
    let plot = Plot { longest, most: most as f64 * 1.05 };
    areas(&mut svg, autopsy, &plot);
    axes(&mut svg, &plot);
    if let Some(limit) = autopsy.limit_bytes {
        let y = plot.y(limit as f64);
        line(&mut svg, (plot.x(longest), y), (plot.x(0.0), y), "#cc0000");
        label(&mut svg, plot.x(0.0) + 5.0, y + 4.0, "start", &format!("limit {}", units::bytes(limit)));
    }
    svg.push_str("</svg>\n");
    svg
}

/// The picture and the text in a page.
#[must_use]
pub fn html(autopsy: &Autopsy) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>OOM kill at {}</title></head>\n<body>\n{}<pre>{}</pre>\n\
         </body></html>\n",
        xml::content(&autopsy.time),
        svg(autopsy),
        xml::content(&autopsy::render(autopsy))
    )
}

/// The one that is drawn: the last kill; where there were only warnings, the last of them.
fn last(autopsies: &[Autopsy]) -> Option<&Autopsy> {
    autopsies.iter().rfind(|autopsy| autopsy.event == "kill").or(autopsies.last())
}

/// Writes the picture of the last kill.
///
/// # Errors
/// When the writer fails.
pub fn write_svg(autopsies: &[Autopsy], writer: &mut dyn io::Write) -> io::Result<()> {
    last(autopsies).map_or(Ok(()), |autopsy| writer.write_all(svg(autopsy).as_bytes()))
}

/// Writes the page of the last kill.
///
/// # Errors
/// When the writer fails.
pub fn write_html(autopsies: &[Autopsy], writer: &mut dyn io::Write) -> io::Result<()> {
    last(autopsies).map_or(Ok(()), |autopsy| writer.write_all(html(autopsy).as_bytes()))
}

struct Plot {
    longest: f64,
    most: f64,
}

impl Plot {
    fn x(&self, before_s: f64) -> f64 {
        let width = WIDTH - MARGIN.0 - MARGIN.2;
        MARGIN.0 + width * (1.0 - before_s / self.longest)
    }

    fn y(&self, bytes: f64) -> f64 {
        let height = HEIGHT - MARGIN.1 - MARGIN.3;
        MARGIN.1 + height * (1.0 - (bytes / self.most).clamp(0.0, 1.0))
    }
}

/// One area a kind, each on top of those before; the line above all is the usage, so that what is of no kind shows as a gap.
fn areas(svg: &mut String, autopsy: &Autopsy, plot: &Plot) {
    let moments: Vec<_> = autopsy.series.iter().filter(|moment| moment.before_s.is_finite()).collect();
    let mut below = vec![0.0; moments.len()];
    let mut legend = MARGIN.1 + 30.0;
    for (kind, colour) in KINDS {
        if !moments.iter().any(|moment| moment.kinds.get(kind).is_some_and(|bytes| *bytes > 0)) {
            continue;
        }
        let above: Vec<f64> =
            moments.iter().zip(&below).map(|(moment, below)| below + moment.kinds.get(kind).copied().unwrap_or(0) as f64).collect();
        let mut path = String::new();
        for (moment, bytes) in moments.iter().zip(&above).chain(moments.iter().zip(&below).rev()) {
            let command = if path.is_empty() { 'M' } else { 'L' };
            // Writing to a String cannot fail.
            let _ = write!(path, "{command}{:.1} {:.1}", plot.x(moment.before_s), plot.y(*bytes));
        }
        let _ = writeln!(svg, "<path d=\"{path}Z\" fill=\"{colour}\" fill-opacity=\"0.8\"><title>{kind}</title></path>");
        let x = WIDTH - MARGIN.2 + 10.0;
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"{legend}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
        let last = moments.last().and_then(|moment| moment.kinds.get(kind)).map(|bytes| format!(" {}", units::bytes(*bytes)));
        label(svg, x + 17.0, legend + 10.0, "start", &format!("{kind}{}", last.unwrap_or_default()));
        legend += 18.0;
        below = above;
    }
    let usage = moments.iter().filter_map(|moment| Some((moment.before_s, moment.usage_bytes?)));
    let points: Vec<String> = usage.map(|(before, bytes)| format!("{:.1},{:.1}", plot.x(before), plot.y(bytes as f64))).collect();
    let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"black\" stroke-width=\"1.5\"/>", points.join(" "));
}

fn axes(svg: &mut String, plot: &Plot) {
    let (left, right, bottom) = (plot.x(plot.longest), plot.x(0.0), plot.y(0.0));
    line(svg, (left, bottom), (right, bottom), "black");
    line(svg, (left, MARGIN.1), (left, bottom), "black");
    line(svg, (right, MARGIN.1), (right, bottom), "black");
    for part in 0..=4_u8 {
        let share = f64::from(part) / 4.0;
        let bytes = plot.most / 1.05 * share;
        label(svg, left - 6.0, plot.y(bytes) + 4.0, "end", &units::bytes(bytes as u64));
        let before = plot.longest * share;
        let text = if part == 0 { "kill".to_owned() } else { format!("-{}", tick(before, plot.longest)) };
        label(svg, plot.x(before), bottom + 18.0, "middle", &text);
    }
}

/// Whole seconds, or tenths where four ticks would be of the same second.
fn tick(before_s: f64, longest_s: f64) -> String {
    if longest_s < 8.0 { format!("{before_s:.1} s") } else { units::seconds(before_s.round()).unwrap_or_default() }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _ = writeln!(svg, "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>", from.0, from.1, to.0, to.1);
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, what: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", xml::content(&text::escape(what)));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "timeline_tests.rs"]
mod tests;
