//! A flame graph of the folded stacks, drawn by inferno.
//!
//! Frames of one kind of memory only take a tint of that kind's colour, shared frames stay sand, so the picture answers "what kind" before
//! any name is read. Colours do not change between runs. Adds only a legend to what inferno draws.

use super::{Value, folded, text};
use crate::model::Report;
use crate::units;
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Options, TextTruncateDirection};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Width of the picture, pixels.
const WIDTH: usize = 1200;

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
    Cut,
    NoStack,
    Shared,
}

impl Meaning {
    const LEGEND: [(Meaning, &'static str); 8] = [
        (Meaning::Anon, "anon"),
        (Meaning::File, "file"),
        (Meaning::Shmem, "shmem"),
        (Meaning::Hugetlb, "hugetlb"),
        (Meaning::Shared, "several kinds"),
        (Meaning::Kernel, "kernel code"),
        (Meaning::Cut, "cut stack"),
        (Meaning::NoStack, "before start, unattributed"),
    ];

    const fn color(self) -> Color {
        let (r, g, b) = match self {
            Meaning::Anon => (236, 129, 70),
            Meaning::File => (99, 155, 222),
            Meaning::Shmem => (104, 184, 112),
            Meaning::Hugetlb => (170, 128, 207),
            Meaning::Kernel => (226, 196, 84),
            Meaning::Cut => (222, 88, 98),
            Meaning::NoStack => (200, 202, 206),
            Meaning::Shared => (224, 214, 198),
        };
        Color { r, g, b }
    }

    fn of_kind(kind: &str) -> Meaning {
        match kind {
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
    let total = total.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the bytes of all stacks do not fit in 64 bits"))?;
    let title = format!("memtrail: {value} memory by cgroup, process and stack");
    let subtitle = subtitle(report, value, total);
    let picture = if total == 0 { empty(&title, &subtitle) } else { draw(&stacks, title, subtitle)? };
    writer.write_all(picture.as_bytes())?;
    writer.flush()
}

fn draw(stacks: &std::collections::BTreeMap<String, u64>, title: String, subtitle: String) -> io::Result<String> {
    let lines: Vec<String> = stacks.iter().map(|(stack, bytes)| format!("{stack} {bytes}")).collect();
    let mut palette = palette(stacks.keys());
    let mut options = Options::default();
    options.title = title;
    options.subtitle = Some(subtitle);
    options.image_width = Some(WIDTH);
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
    let drawn = String::from_utf8(drawn).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(with_legend(&drawn))
}

fn subtitle(report: &Report, value: Value, total: u64) -> String {
    let host = &report.host;
    let duration = units::seconds(report.duration_s).unwrap_or_else(|| "unknown duration".to_owned());
    text::escape(&format!(
        "{} shown ({value}) · kernel {} · {} CPUs · cgroup {} · {} · {duration} · {}",
        units::bytes(total),
        host.kernel,
        host.cpus,
        host.cgroup,
        report.started,
        report.tool
    ))
}

/// A colour for each name.
fn palette<'a>(stacks: impl Iterator<Item = &'a String>) -> PaletteMap {
    let mut meanings: HashMap<&str, Meaning> = HashMap::new();
    let mut leaves: HashMap<&str, Meaning> = HashMap::new();
    for stack in stacks {
        let (inner, leaf) = stack.rsplit_once(';').unwrap_or((stack, ""));
        let kind = Meaning::of_kind(leaf.trim_start_matches('[').split([' ', ']']).next().unwrap_or(""));
        leaves.insert(leaf, kind);
        for name in inner.split(';') {
            let meaning = meanings.entry(name).or_insert(kind);
            if *meaning != kind {
                *meaning = Meaning::Shared;
            }
        }
    }
    let mut palette = PaletteMap::default();
    palette.insert("", Meaning::Shared.color());
    for (name, meaning) in meanings {
        palette.insert(name, frame_color(name, meaning));
    }
    for (name, meaning) in leaves {
        palette.insert(name, meaning.color());
    }
    palette
}

fn frame_color(name: &str, kind: Meaning) -> Color {
    if name.ends_with("_[k]") {
        vary(name, Meaning::Kernel.color())
    } else if name == "[cut]" || name.starts_with("[cut: ") {
        Meaning::Cut.color()
    } else if name == folded::BEFORE_START || name == folded::UNATTRIBUTED {
        Meaning::NoStack.color()
    } else {
        vary(name, tint(kind.color()))
    }
}

/// Half way to white.
fn tint(color: Color) -> Color {
    let half = |value: u8| value / 2 + 124;
    Color { r: half(color.r), g: half(color.g), b: half(color.b) }
}

/// A little darker or lighter by name, so that neighbours can be told apart.
fn vary(name: &str, color: Color) -> Color {
    let step = (crc32fast::hash(name.as_bytes()) % 5) as u8 * 6;
    let darker = |value: u8| value.saturating_sub(step);
    Color { r: darker(color.r), g: darker(color.g), b: darker(color.b) }
}

/// Makes the picture higher and puts the legend below it. Left as it is if inferno should draw its head in another way one day; a test
/// would fail then.
fn with_legend(svg: &str) -> String {
    let Some(height) = svg.split_once(" height=\"").and_then(|(_, rest)| rest.split_once('"')?.0.parse::<usize>().ok()) else {
        return svg.to_owned();
    };
    let Some(body) = svg.strip_suffix("</svg>") else { return svg.to_owned() };
    let higher = height + LEGEND_HEIGHT;
    let body = body.replacen(&format!(" height=\"{height}\""), &format!(" height=\"{higher}\""), 1);
    let body = body.replacen(&format!("viewBox=\"0 0 {WIDTH} {height}\""), &format!("viewBox=\"0 0 {WIDTH} {higher}\""), 1);
    format!("{body}{}</svg>", legend(height))
}

fn legend(top: usize) -> String {
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
    legend.push_str("</g>");
    legend
}

/// The picture of a report without bytes.
fn empty(title: &str, subtitle: &str) -> String {
    let mut svg = format!(
        "<?xml version=\"1.0\" standalone=\"no\"?><svg version=\"1.1\" width=\"{WIDTH}\" height=\"110\" viewBox=\"0 0 {WIDTH} 110\" \
         xmlns=\"http://www.w3.org/2000/svg\"><rect width=\"100%\" height=\"100%\" fill=\"#fcfcfc\"/>"
    );
    for (y, size, line) in [(24, 17, title), (48, 12, subtitle), (85, 14, "No bytes to show: nothing was charged, or nothing is left.")] {
        let line = line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ =
            write!(svg, "<text x=\"600\" y=\"{y}\" text-anchor=\"middle\" font-family=\"monospace\" font-size=\"{size}\">{line}</text>");
    }
    svg.push_str("</svg>");
    svg
}
