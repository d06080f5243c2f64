//! A comparison as text, JSON, differential folded stacks and a differential flame graph. Pure.
//!
//! The text shows what changed by more than two standard errors and counts the rest; the other formats hold every stack of both sides. The
//! formats are described in docs/diff.md.

use super::Value;
use super::diff_svg::{self, Columns};
use super::format::{folded, svg};
use crate::analyse::comparison::places::PlaceChange;
use crate::analyse::comparison::{Change, Comparison, KindChange, StackChange, compare};
use crate::report::Report;
use crate::text::units;
use crate::text::{escape, pad_left, pad_right};
use serde_json::json;
use std::io::{self, Write};

pub use crate::analyse::comparison::Options;

/// Columns of the name of a cgroup or kind.
const NAME_COLUMNS: usize = 40;

/// Columns of a change.
const CHANGE_COLUMNS: usize = 26;

/// Most files and regions of the text, unless told otherwise.
const MOST_PLACES: usize = 10;

/// The kernel's figures of a kind that is not followed differ by less for nothing: they are batched by CPU.
const BATCHING_BYTES: u64 = 1 << 20;

/// Two moments, compared.
#[derive(Clone, Debug)]
pub struct Diff<'a> {
    /// What the moments are called: files, and marks.
    names: [String; 2],
    reports: [&'a Report; 2],
    options: Options,
    comparison: Comparison<'a>,
}

/// What of it the text shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// Most stacks; all if `None`.
    pub top: Option<usize>,
    /// Also what is inside the sampling error.
    pub all: bool,
}

impl<'a> Diff<'a> {
    /// Compares the earlier moment with the later one.
    #[must_use]
    pub fn new(names: [String; 2], before: &'a Report, after: &'a Report, options: Options) -> Diff<'a> {
        Diff { names, reports: [before, after], options, comparison: compare(before, after, options) }
    }

    /// Whether a change is worth a line.
    fn is_shown(change: Change, shown: Shown) -> bool {
        change.bytes() != 0 && (shown.all || change.is_beyond_error())
    }

    /// The text for a terminal.
    #[must_use]
    pub fn text(&self, shown: Shown) -> String {
        let mut text = String::new();
        for (side, (name, report)) in ["before", "after"].iter().zip(self.names.iter().zip(self.reports)) {
            let mode = if report.sampling.mode == "exact" {
                "every charge".to_owned()
            } else {
                format!("sampled every {}", units::bytes(report.sampling.mean_bytes))
            };
            let length = units::seconds(report.duration_s).unwrap_or_else(|| "unknown length".to_owned());
            push(&mut text, &format!("{side:<7}{}: {length}, {mode}", escape(name)));
        }
        if let Some(scale) = self.comparison.scale {
            push(&mut text, &format!("before is scaled by {scale:.3} to the length of after"));
        }
        push(&mut text, "");
        let value = value_name(self.options.value);
        push(&mut text, &format!("{} {value} in all", signed(self.comparison.total())));
        self.push_kinds(&mut text, shown);
        Self::push_places(&mut text, "FILE", &self.comparison.files, shown);
        Self::push_places(&mut text, "REGION", &self.comparison.regions, shown);
        self.push_stacks(&mut text, shown);
        text
    }

    fn push_kinds(&self, text: &mut String, shown: Shown) {
        let is_kind_shown = |kind: &&KindChange| {
            let unfollowed = !kind.is_followed;
            let of_kernel = || kind.stat[0].zip(kind.stat[1]).is_some_and(|(a, b)| a.abs_diff(b) >= BATCHING_BYTES || shown.all && a != b);
            Self::is_shown(kind.change, shown) || unfollowed && of_kernel()
        };
        let kinds: Vec<&KindChange> = self.comparison.kinds.iter().filter(is_kind_shown).collect();
        if kinds.is_empty() {
            return;
        }
        push(text, "");
        push(text, &line("CGROUP", ["BEFORE", "AFTER", "CHANGE", "KERNEL'S FIGURE"]));
        let mut cgroup = None;
        for kind in kinds {
            if cgroup != Some(&kind.cgroup) {
                cgroup = Some(&kind.cgroup);
                push(text, &escape(&kind.cgroup));
            }
            let stat = kind.stat[0]
                .zip(kind.stat[1])
                .map_or_else(|| "?".to_owned(), |(a, b)| signed(Change { before: a, after: b, variance: 0.0 }));
            let name = format!("  {}", escape(&kind.kind));
            let figures = if !kind.is_followed {
                ["-".to_owned(), "-".to_owned(), "-".to_owned(), stat]
            } else {
                [units::bytes(kind.change.before), units::bytes(kind.change.after), signed(kind.change), stat]
            };
            push(text, &line(&name, figures.each_ref().map(String::as_str)));
        }
    }

    /// The largest changes of files or regions.
    fn push_places(text: &mut String, title: &str, places: &[PlaceChange], shown: Shown) {
        let told: Vec<&PlaceChange> = places.iter().filter(|place| Self::is_shown(place.change, shown)).collect();
        let most = shown.top.unwrap_or(MOST_PLACES);
        if told.is_empty() {
            return;
        }
        push(text, "");
        push(text, &format!("{}  {title}", pad_left("CHANGE", CHANGE_COLUMNS)));
        for place in told.iter().take(most) {
            let about = escape(&format!("{}  {}  {}", place.class, place.name, place.cgroup));
            push(text, &format!("{}  {about}", pad_left(&signed(place.change), CHANGE_COLUMNS)));
        }
        if told.len() > most {
            push(text, &format!("{} more not shown: --top", told.len() - most));
        }
    }

    fn push_stacks(&self, text: &mut String, shown: Shown) {
        let changed: Vec<&StackChange<'_>> = self.comparison.stacks.iter().filter(|stack| stack.change.bytes() != 0).collect();
        let (told, inside): (Vec<&StackChange<'_>>, Vec<&StackChange<'_>>) =
            changed.into_iter().partition(|stack| Self::is_shown(stack.change, shown));
        for stack in told.iter().take(shown.top.unwrap_or(usize::MAX)) {
            let row = stack.row;
            let kind = if row.kind == "anon" && !row.region.is_empty() { format!("anon {}", row.region) } else { row.kind.clone() };
            push(text, "");
            push(text, &escape(&format!("{}  {kind}  {}  {}", signed(stack.change), row.comm, stack.cgroup)));
            if row.status != "complete" {
                push(text, &escape(&format!("    [stack {}]", row.status)));
            }
            for frame in &row.frames {
                push(text, &format!("    {}", escape(frame)));
            }
        }
        let hidden = told.len().saturating_sub(shown.top.unwrap_or(usize::MAX));
        if told.is_empty() || hidden > 0 || !inside.is_empty() {
            push(text, "");
        }
        if told.is_empty() {
            push(text, if inside.is_empty() { "no stack changed" } else { "no stack changed by more than the sampling error" });
        }
        if hidden > 0 {
            push(text, &format!("{hidden} more {} not shown: --top", plural(hidden, "stack")));
        }
        if let Some(largest) = inside.first() {
            let (count, most) = (inside.len(), units::bytes(largest.change.bytes().unsigned_abs()));
            push(text, &format!("{count} {} inside the sampling error, of at most {most}, not shown: --all", plural(count, "change")));
        }
    }

    /// Two columns, as difffolded.pl writes: `stack BEFORE AFTER`, sorted bytewise.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn folded(&self, mut writer: impl Write) -> io::Result<()> {
        let mut lines: Vec<String> =
            self.columns().into_iter().map(|(stack, [before, after])| format!("{stack} {before} {after}\n")).collect();
        lines.sort_unstable();
        lines.iter().try_for_each(|line| writer.write_all(line.as_bytes()))?;
        writer.flush()
    }

    /// Stacks that became equal by the escaping of their names are one.
    fn columns(&self) -> Columns {
        let mut columns = Columns::new();
        for stack in &self.comparison.stacks {
            let sums = columns.entry(folded::stack_of(&stack.cgroup, stack.row)).or_default();
            sums[0] = sums[0].saturating_add(stack.change.before);
            sums[1] = sums[1].saturating_add(stack.change.after);
        }
        columns
    }

    /// A flame graph as wide as the later side, red where it grew and blue where it shrank.
    ///
    /// # Errors
    /// When the writer fails, or the bytes do not fit in 64 bits (a forged recording).
    pub fn svg(&self, mut writer: impl Write) -> io::Result<()> {
        let columns = self.columns();
        let value = value_name(self.options.value);
        let title = format!("memtrail: difference of {value} memory, red grew, blue shrank");
        let gone = columns.values().filter(|[_, after]| *after == 0).fold(0_u64, |sum, [before, _]| sum.saturating_add(*before));
        let gone = if gone > 0 { format!(" · {} in stacks that are gone has no width", units::bytes(gone)) } else { String::new() };
        let [before_name, after_name] = &self.names;
        let subtitle = escape(&format!("{} from {before_name} to {after_name}{gone}", signed(self.comparison.total())));
        let picture = diff_svg::draw(&columns, &title, &subtitle)?.unwrap_or_else(|| svg::empty(&title, &subtitle));
        writer.write_all(picture.as_bytes())?;
        writer.flush()
    }

    /// Everything, indented by two spaces.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn json(&self, mut writer: impl Write) -> io::Result<()> {
        let side = |index: usize| {
            let report = self.reports[index];
            json!({
                "name": self.names[index], "started": report.started, "ended": report.ended, "duration_s": report.duration_s,
                "mode": report.sampling.mode, "mean_bytes": report.sampling.mean_bytes,
            })
        };
        let figures = |change: Change| {
            json!({
                "before": change.before, "after": change.after, "change": change.bytes(), "stderr": change.stderr(),
                "beyond_error": change.is_beyond_error(),
            })
        };
        let merged = |mut object: serde_json::Value, change: Change| {
            if let (Some(object), serde_json::Value::Object(figures)) = (object.as_object_mut(), figures(change)) {
                object.extend(figures);
            }
            object
        };
        let kind = |kind: &KindChange| {
            let object = json!({ "cgroup": kind.cgroup, "kind": kind.kind, "stat_before": kind.stat[0], "stat_after": kind.stat[1] });
            merged(object, kind.change)
        };
        let stack = |stack: &StackChange<'_>| {
            let row = stack.row;
            let object = json!({
                "cgroup": stack.cgroup, "kind": row.kind, "region": row.region, "comm": row.comm, "status": row.status, "frames": row.frames,
            });
            merged(object, stack.change)
        };
        let place = |name: &str, place: &PlaceChange| {
            merged(json!({ "cgroup": place.cgroup, "class": place.class, name: place.name }), place.change)
        };
        let document = json!({
            "schema": 1,
            "tool": format!("memtrail {}", env!("CARGO_PKG_VERSION")),
            "value": value_name(self.options.value),
            "scale": self.comparison.scale,
            "same_recording": self.options.same_recording,
            "before": side(0),
            "after": side(1),
            "total": figures(self.comparison.total()),
            "kinds": self.comparison.kinds.iter().map(kind).collect::<Vec<_>>(),
            "files": self.comparison.files.iter().map(|file| place("path", file)).collect::<Vec<_>>(),
            "regions": self.comparison.regions.iter().map(|region| place("comm", region)).collect::<Vec<_>>(),
            "stacks": self.comparison.stacks.iter().filter(|stack| stack.change.bytes() != 0).map(stack).collect::<Vec<_>>(),
        });
        serde_json::to_writer_pretty(&mut writer, &document).map_err(io::Error::from)?;
        writer.write_all(b"\n")?;
        writer.flush()
    }
}

fn push(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

fn line(name: &str, [before, after, change, stat]: [&str; 4]) -> String {
    let columns = [(before, 12), (after, 12), (change, 26), (stat, 18)];
    columns.iter().fold(pad_right(name, NAME_COLUMNS), |line, (figure, columns)| line + &pad_left(figure, *columns))
}

/// `+64.0 MiB ± 7.5 MiB`, and whether that is inside the error.
fn signed(change: Change) -> String {
    match (change.stderr(), change.is_beyond_error()) {
        (0, _) => units::signed(change.bytes()),
        (stderr, true) => format!("{} ± {}", units::signed(change.bytes()), units::bytes(stderr)),
        (stderr, false) => format!("{} ± {} (inside the error)", units::signed(change.bytes()), units::bytes(stderr)),
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}
/// Live bytes are compared where their growth is asked for.
const fn value_name(value: Value) -> &'static str {
    match value {
        Value::Growth => Value::Live.name(),
        value => value.name(),
    }
}
