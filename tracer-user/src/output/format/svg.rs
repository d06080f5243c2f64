//! A flame graph of the folded stacks, drawn by inferno.
//!
//! Frames below which there is one kind of memory take a tint of that kind's colour, the others are sand, so the picture answers "what kind"
//! before any name is read. Colours do not change between runs. Changes only colours in what inferno draws, and adds a legend.

use super::folded;
use crate::output::Value;
use crate::report::Report;
use crate::text::units;
use crate::text::{self, source, xml};
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Options, TextTruncateDirection};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{self, Write};

/// Width of the picture, pixels.
const WIDTH: usize = 1200;

/// Height of a frame, pixels.
pub(in crate::output) const FRAME_HEIGHT: usize = 16;

/// Height of the strip with the legend, pixels.
const LEGEND_HEIGHT: usize = 28;

/// Frames narrower than this share of the picture, in percent, are not drawn: half a pixel.
const MIN_WIDTH_PERCENT: f64 = 0.04;

/// What a frame stands for, hence its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Anon,
    File,
    Shmem,
    Hugetlb,
    Kernel,
    Managed,
    Cut,
    NoStack,
    Shared,
}

impl Meaning {
    const LEGEND: [(Meaning, &'static str); 9] = [
        (Meaning::Anon, "anon"),
        (Meaning::File, "file"),
        (Meaning::Shmem, "shmem"),
        (Meaning::Hugetlb, "hugetlb"),
        (Meaning::Shared, "several kinds"),
        (Meaning::Managed, "managed code"),
        (Meaning::Kernel, "kernel code"),
        (Meaning::Cut, "cut stack"),
        (Meaning::NoStack, "no stack"),
    ];

    const fn color(self) -> Color {
        let (r, g, b) = match self {
            Meaning::Anon => (236, 129, 70),
            Meaning::File => (99, 155, 222),
            Meaning::Shmem => (104, 184, 112),
            Meaning::Hugetlb => (170, 128, 207),
            Meaning::Managed => (92, 190, 190),
            Meaning::Kernel => (226, 196, 84),
            Meaning::Cut => (222, 88, 98),
            Meaning::NoStack => (200, 202, 206),
            Meaning::Shared => (224, 214, 198),
        };
        Color { r, g, b }
    }

    /// From `[anon heap]`, `[file]`.
    fn of_leaf(leaf: &str) -> Meaning {
        match leaf.trim_start_matches('[').split([' ', ']']).next().unwrap_or("") {
            "anon" => Meaning::Anon,
            "file" => Meaning::File,
            "shmem" => Meaning::Shmem,
            "hugetlb" => Meaning::Hugetlb,
            _ => Meaning::NoStack,
        }
    }
}

/// Writes the flame graph. A report without bytes gives a picture that says so.
///
/// # Errors
/// When the writer fails, or the bytes do not fit in 64 bits (a forged recording).
pub fn write(report: &Report, value: Value, mut writer: impl Write) -> io::Result<()> {
    let stacks = folded::stacks(report, value);
    let total = stacks.values().try_fold(0_u64, |sum, bytes| sum.checked_add(*bytes));
    let total = total.ok_or_else(too_many_bytes)?;
    let memory = if value == Value::Growth { "growth of live memory".to_owned() } else { format!("{value} memory") };
    let title = format!("memtrail: {memory} by cgroup, process and stack");
    let subtitle = subtitle(report, value, &stacks);
    let picture = if total == 0 { empty(&title, &subtitle) } else { draw(&stacks, &title, &subtitle)? };
    writer.write_all(picture.as_bytes())?;
    writer.flush()
}

/// Only a forged recording has so many.
pub(in crate::output) fn too_many_bytes() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the bytes of all stacks do not fit in 64 bits")
}

fn draw(stacks: &BTreeMap<String, u64>, title: &str, subtitle: &str) -> io::Result<String> {
    let drawn = picture(stacks.iter().map(|(stack, bytes)| (stack.as_str(), *bytes)), title, subtitle, palette(stacks.keys()))?;
    Ok(with_legend(&paint(&drawn, stacks), &narrow_note(stacks)))
}

/// What inferno draws of these stacks, in this order, with the colours of the palette.
pub(in crate::output) fn picture<'a>(
    stacks: impl Iterator<Item = (&'a str, u64)>,
    title: &str,
    subtitle: &str,
    mut palette: PaletteMap,
) -> io::Result<String> {
    let lines: Vec<String> = stacks.map(|(stack, bytes)| format!("{stack} {bytes}")).collect();
    let mut options = Options::default();
    options.title = title.to_owned();
    options.subtitle = Some(subtitle.to_owned());
    options.image_width = Some(WIDTH);
    options.frame_height = FRAME_HEIGHT;
    options.count_name = "bytes".to_owned();
    options.name_type = "Frame:".to_owned();
    options.min_width = MIN_WIDTH_PERCENT;
    options.bgcolors = Some(BackgroundColor::Flat(Color { r: 252, g: 252, b: 252 }));
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.deterministic = true;
    options.palette_map = Some(&mut palette);
    // Sorted by stack already; sorting by line, as inferno does, differs where a name ends in a digit.
    options.no_sort = true;
    let mut drawn = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut drawn)?;
    String::from_utf8(drawn).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn subtitle(report: &Report, value: Value, stacks: &BTreeMap<String, u64>) -> String {
    let is_missing = |stack: &str| matches!(stack.split(';').nth(1), Some(folded::BEFORE_START | folded::UNATTRIBUTED));
    let sum = |missing: bool| stacks.iter().filter(|(stack, _)| is_missing(stack) == missing).map(|(_, bytes)| bytes).sum::<u64>();
    let (shown, missing) = (sum(false), sum(true));
    let missing = if missing > 0 { format!(" + {} without stack", units::bytes(missing)) } else { String::new() };
    let host = &report.host;
    let duration = units::seconds(report.duration_s).unwrap_or_else(|| "unknown duration".to_owned());
    text::escape(&format!(
        "{} {value}{missing} · kernel {} · {} CPUs · cgroup {} · {} · {duration} · {}",
        units::bytes(shown),
        host.kernel,
        host.cpus,
        host.cgroup,
        report.started,
        report.tool
    ))
}

/// A colour for each name, as far as the name alone decides; the others get a mark for [`paint`].
fn palette<'a>(stacks: impl Iterator<Item = &'a String>) -> PaletteMap {
    let mut palette = PaletteMap::default();
    palette.insert("", Meaning::Shared.color());
    let mut leaves: HashMap<&str, Meaning> = HashMap::new();
    for stack in stacks {
        let (inner, leaf) = stack.rsplit_once(';').unwrap_or((stack, ""));
        leaves.insert(leaf, Meaning::of_leaf(leaf));
        for name in inner.split(';') {
            if palette.get(name).is_none() {
                palette.insert(name, color_of_name(name));
            }
        }
    }
    for (name, meaning) in leaves {
        palette.insert(name, meaning.color());
    }
    palette
}

fn color_of_name(name: &str) -> Color {
    if name.ends_with("_[k]") {
        darker(Meaning::Kernel.color(), variation(name))
    } else if source::of(name).is_some() {
        darker(Meaning::Managed.color(), variation(name))
    } else if name == "[cut]" || name.starts_with("[cut: ") {
        Meaning::Cut.color()
    } else if name == folded::BEFORE_START || name == folded::UNATTRIBUTED {
        Meaning::NoStack.color()
    } else {
        Color { b: variation(name), ..MARK }
    }
}

/// A colour that nothing else has: red and green say that the place of the frame decides, blue holds the variation of its name.
const MARK: Color = Color { r: 1, g: 2, b: 0 };

/// Replaces the marks by the tint of the only kind below a frame, or by sand where there are several.
fn paint(svg: &str, stacks: &BTreeMap<String, u64>) -> String {
    let spans = spans(stacks);
    let mark = format!("fill=\"rgb({},{},", MARK.r, MARK.g);
    let mut parts = svg.split(mark.as_str());
    let mut painted = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let variation = part.split(')').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let number = |name: &str| part.split_once(name)?.1.split('"').next()?.parse::<u64>().ok();
        let meaning = match (number("fg:x=\""), number("fg:w=\"")) {
            (Some(start), Some(width)) => meaning_between(&spans, start, start.saturating_add(width)),
            _ => Meaning::Shared,
        };
        let Color { r, g, b } = darker(tint(meaning.color()), variation);
        let rest = part.split_once(')').map_or(part, |(_, rest)| rest);
        painted.push_str(&format!("fill=\"rgb({r},{g},{b}){rest}"));
    }
    painted
}

/// The places where the kind of memory changes, in bytes from the left, with the kind that follows.
fn spans(stacks: &BTreeMap<String, u64>) -> Vec<(u64, Meaning)> {
    let mut spans: Vec<(u64, Meaning)> = Vec::new();
    let mut at = 0;
    for (stack, bytes) in stacks {
        let meaning = Meaning::of_leaf(stack.rsplit(';').next().unwrap_or(""));
        if spans.last().is_none_or(|(_, last)| *last != meaning) {
            spans.push((at, meaning));
        }
        at += bytes;
    }
    spans
}

fn meaning_between(spans: &[(u64, Meaning)], start: u64, end: u64) -> Meaning {
    let after = spans.partition_point(|(at, _)| *at <= start);
    match (after.checked_sub(1).and_then(|index| spans.get(index)), spans.get(after)) {
        (Some((_, meaning)), next) if next.is_none_or(|(at, _)| *at >= end) => *meaning,
        _ => Meaning::Shared,
    }
}

/// Half way to white.
fn tint(color: Color) -> Color {
    let half = |value: u8| value / 2 + 124;
    Color { r: half(color.r), g: half(color.g), b: half(color.b) }
}

/// How much darker a name is drawn, so that neighbours can be told apart.
fn variation(name: &str) -> u8 {
    (crc32fast::hash(name.as_bytes()) % 5) as u8 * 4
}

fn darker(color: Color, by: u8) -> Color {
    let less = |value: u8| value.saturating_sub(by);
    Color { r: less(color.r), g: less(color.g), b: less(color.b) }
}

/// How many stacks end in a frame too narrow to be drawn.
fn narrow_note(stacks: &BTreeMap<String, u64>) -> String {
    let total: f64 = stacks.values().map(|bytes| *bytes as f64).sum();
    let narrow = stacks.values().filter(|bytes| **bytes as f64 * 100.0 < total * MIN_WIDTH_PERCENT).count();
    if narrow > 0 { format!("{narrow} too narrow to draw") } else { String::new() }
}

/// Makes the picture higher and puts the legend below it. Left as it is if inferno should draw its head in another way one day; a test
/// would fail then.
fn with_legend(svg: &str, note: &str) -> String {
    let Some(height) = svg.split_once(" height=\"").and_then(|(_, rest)| rest.split_once('"')?.0.parse::<usize>().ok()) else {
        return svg.to_owned();
    };
    let Some(body) = svg.strip_suffix("</svg>") else { return svg.to_owned() };
    let higher = height + LEGEND_HEIGHT;
    let body = body.replacen(&format!(" height=\"{height}\""), &format!(" height=\"{higher}\""), 1);
    let body = body.replacen(&format!("viewBox=\"0 0 {WIDTH} {height}\""), &format!("viewBox=\"0 0 {WIDTH} {higher}\""), 1);
    format!("{body}{}</svg>", legend(height, note))
}

fn legend(top: usize, note: &str) -> String {
    let mut legend = format!("<g id=\"legend\"><rect x=\"0\" y=\"{top}\" width=\"{WIDTH}\" height=\"{LEGEND_HEIGHT}\" fill=\"#f4f4f4\"/>");
    let mut x = 10;
    for (meaning, name) in Meaning::LEGEND {
        let Color { r, g, b } = meaning.color();
        // Writing to a String cannot fail.
        let _ = write!(
            legend,
            "<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"14\" fill=\"rgb({r},{g},{b})\"/><text x=\"{}\" y=\"{}\">{name}</text>",
            top + 7,
            x + 20,
            top + 18
        );
        x += 20 + name.len() * 8 + 24;
    }
    if !note.is_empty() {
        let _ = write!(legend, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{note}</text>", WIDTH - 10, top + 18);
    }
    legend.push_str("</g>");
    legend
}

/// The picture of a report without bytes.
pub(in crate::output) fn empty(title: &str, subtitle: &str) -> String {
    let mut svg = format!(
        "<?xml version=\"1.0\" standalone=\"no\"?><svg version=\"1.1\" width=\"{WIDTH}\" height=\"110\" viewBox=\"0 0 {WIDTH} 110\" \
         xmlns=\"http://www.w3.org/2000/svg\"><rect width=\"100%\" height=\"100%\" fill=\"#fcfcfc\"/>"
    );
    for (y, size, line) in [(24, 17, title), (48, 12, subtitle), (85, 14, "No bytes to show: nothing was charged, or nothing is left.")] {
        let line = xml::content(line);
        let _ =
            write!(svg, "<text x=\"600\" y=\"{y}\" text-anchor=\"middle\" font-family=\"monospace\" font-size=\"{size}\">{line}</text>");
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_managed_code_and_of_the_kernel_have_colours_of_their_own() {
        let is_near = |name: &str, meaning: Meaning| {
            let (found, wanted) = (color_of_name(name), meaning.color());
            found == darker(wanted, variation(name))
        };
        assert!(is_near("load (app.py:3)", Meaning::Managed) && is_near("grow (app.js:?)", Meaning::Managed));
        assert!(is_near("vfs_write_[k]", Meaning::Kernel));
        assert_eq!(color_of_name("main").r, MARK.r, "what is below it decides");
    }
}
