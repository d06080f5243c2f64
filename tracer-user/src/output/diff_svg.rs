//! The differential flame graph: drawn by inferno from the later side, coloured here.
//!
//! inferno, like flamegraph.pl, colours only the innermost frame of a stack by its difference. Here every frame has the difference of all
//! that is below it, so that the way to what grew can be followed from the root: red where it grew, blue where it shrank, the stronger the
//! larger its part of the largest change. Changes only colours and titles in what inferno draws.

use super::format::svg;
use crate::text::units;
use inferno::flamegraph::color::{Color, PaletteMap};
use std::collections::{BTreeMap, HashMap};
use std::io;

/// Stacks with their bytes on both sides.
pub(super) type Columns = BTreeMap<String, [u64; 2]>;

/// A colour that nothing else has: what is to be coloured.
const MARK: Color = Color { r: 1, g: 2, b: 3 };

/// The picture; `None` if nothing is left on the later side.
///
/// # Errors
/// When the bytes of a side do not fit in 64 bits (a forged recording).
pub(super) fn draw(columns: &Columns, title: &str, subtitle: &str) -> io::Result<Option<String>> {
    let sum = |side: usize| columns.values().try_fold(0_u64, |sum, column| sum.checked_add(column[side]));
    let (Some(before), Some(after)) = (sum(0), sum(1)) else { return Err(svg::too_many_bytes()) };
    if after == 0 {
        return Ok(None);
    }
    let mut palette = PaletteMap::default();
    for name in columns.keys().flat_map(|stack| stack.split(';')).chain(["all", ""]) {
        if palette.get(name).is_none() {
            palette.insert(name, MARK);
        }
    }
    let later = columns.iter().filter(|(_, [_, after])| *after > 0).map(|(stack, [_, after])| (stack.as_str(), *after));
    let drawn = svg::picture(later, title, subtitle, palette)?;
    Ok(Some(Painter::new(columns, [before, after]).paint(&drawn)))
}

/// Knows the difference of every frame of the picture by its place.
struct Painter<'a> {
    /// Stacks of the later side with the byte at which each begins.
    starts: Vec<(u64, &'a str)>,
    /// Both sides of everything that begins with these frames.
    sums: HashMap<&'a str, [u64; 2]>,
    /// Of the root.
    total: [u64; 2],
    largest: u64,
}

impl<'a> Painter<'a> {
    fn new(columns: &'a Columns, total: [u64; 2]) -> Painter<'a> {
        let (mut starts, mut sums, mut at) = (Vec::new(), HashMap::new(), 0);
        for (stack, column) in columns {
            if column[1] > 0 {
                starts.push((at, stack.as_str()));
                at += column[1];
            }
            let ends = stack.match_indices(';').map(|(end, _)| end).chain([stack.len()]);
            for end in ends {
                let sum: &mut [u64; 2] = sums.entry(&stack[..end]).or_default();
                sum[0] += column[0];
                sum[1] += column[1];
            }
        }
        let largest = sums.values().chain([&total]).map(|[before, after]| before.abs_diff(*after)).max().unwrap_or(0);
        Painter { starts, sums, total, largest }
    }

    /// Both sides of the frame at a byte and a depth; the root has depth 0.
    fn sum(&self, byte: u64, depth: usize) -> Option<[u64; 2]> {
        if depth == 0 {
            return Some(self.total);
        }
        let index = self.starts.partition_point(|(at, _)| *at <= byte).checked_sub(1)?;
        let stack = self.starts.get(index)?.1;
        let end = stack.match_indices(';').map(|(end, _)| end).chain([stack.len()]).nth(depth - 1)?;
        self.sums.get(&stack[..end]).copied()
    }

    /// Each frame is `<g><title>NAME (N bytes, P%)</title><rect ... y="Y" ... fill="rgb(1,2,3)" fg:x="BYTE" .../>`.
    fn paint(&self, svg: &str) -> String {
        const BEGIN: &str = "<g><title>";
        let fill = format!("fill=\"rgb({},{},{})\"", MARK.r, MARK.g, MARK.b);
        let number = |part: &str, name: &str| part.split_once(name)?.1.split('"').next()?.parse::<u64>().ok();
        let mut parts = svg.split(BEGIN);
        let mut painted = parts.next().unwrap_or("").to_owned();
        let parts: Vec<&str> = parts.collect();
        let root = parts.iter().filter_map(|part| number(part, " y=\"")).max().unwrap_or(0);
        for part in parts {
            painted.push_str(BEGIN);
            let depth = number(part, " y=\"").map(|y| root.saturating_sub(y) as usize / svg::FRAME_HEIGHT);
            let sum = depth.zip(number(part, "fg:x=\"")).and_then(|(depth, byte)| self.sum(byte, depth));
            // Unknown only if inferno should draw in another way one day; a test would fail then.
            let [before, after] = sum.unwrap_or_default();
            let Color { r, g, b } = self.color(before, after);
            let part = part.replacen(&fill, &format!("fill=\"rgb({r},{g},{b})\""), 1);
            let change = i64::try_from(i128::from(after) - i128::from(before)).map_or_else(|_| "?".to_owned(), units::signed);
            painted.push_str(&part.replacen(")</title>", &format!("; {change})</title>"), 1));
        }
        painted
    }

    /// White for no change; the square root makes small parts of the largest change visible.
    fn color(&self, before: u64, after: u64) -> Color {
        let part = (before.abs_diff(after) as f64 / self.largest.max(1) as f64).sqrt();
        let fade = |full: f64| (250.0 - (250.0 - full) * part).round() as u8;
        if after > before { Color { r: 250, g: fade(70.0), b: fade(60.0) } } else { Color { r: fade(70.0), g: fade(110.0), b: 250 } }
    }
}
