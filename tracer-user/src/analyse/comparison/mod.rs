//! Two reports compared: what changed by cgroup and kind, and by stack, each with the standard error of the difference. Pure.
//!
//! Stacks are the same if cgroup, program, kind, region, status and all frames are: process ids are not compared, since they differ between
//! runs and a process that is gone loses its own. Cgroups are the same if their paths are. Nothing is dropped: what did not change is left
//! out, what is inside the error is kept and says so.
//!
//! The two sides' errors add in squares. Between two moments of one recording this is an upper bound for live bytes, since samples that live
//! at both have no part in the difference.

pub mod growth;
pub mod merged;
pub mod places;

use crate::report::Value;
use crate::report::{Cgroup, Report, StackRow};
use places::PlaceChange;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// How to compare.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Which bytes. [`Value::Growth`] is the change of live bytes, as [`Value::Live`] is here.
    pub value: Value,
    /// Scale the earlier side to the length of the later one.
    pub normalize: bool,
    /// Both are moments of one recording.
    pub same_recording: bool,
}

/// One figure on both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Change {
    /// Bytes, scaled where that was asked for.
    pub before: u64,
    /// Bytes.
    pub after: u64,
    /// Variance of the difference, bytes squared.
    pub variance: f64,
}

impl Change {
    /// After less before.
    #[must_use]
    pub fn bytes(self) -> i64 {
        i64::try_from(i128::from(self.after) - i128::from(self.before)).unwrap_or(if self.after > self.before {
            i64::MAX
        } else {
            i64::MIN
        })
    }

    /// Standard error of the difference, bytes.
    #[must_use]
    pub fn stderr(self) -> u64 {
        self.variance.sqrt().round() as u64
    }

    /// Whether it is a change, and of at least two standard errors.
    #[must_use]
    pub fn is_beyond_error(self) -> bool {
        let bytes = self.bytes().unsigned_abs();
        bytes > 0 && bytes / 2 >= self.stderr()
    }

    pub(super) fn add(&mut self, other: Change) {
        self.before = self.before.saturating_add(other.before);
        self.after = self.after.saturating_add(other.after);
        self.variance += other.variance;
    }
}

/// What changed in one kind of memory of one cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct KindChange {
    /// Path.
    pub cgroup: String,
    /// Name.
    pub kind: String,
    /// Live or charged bytes.
    pub change: Change,
    /// Whether either side follows the kind; if not, there is only the kernel's figure.
    pub is_followed: bool,
    /// The kernel's own figure on both sides, never scaled; `None` where it is not known.
    pub stat: [Option<u64>; 2],
}

/// What changed in one stack.
#[derive(Clone, Debug, PartialEq)]
pub struct StackChange<'a> {
    /// Path.
    pub cgroup: Cow<'a, str>,
    /// A row of either side: kind, region, comm, status and frames are those of all.
    pub row: &'a StackRow,
    /// Live or charged bytes.
    pub change: Change,
}

/// Everything that changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison<'a> {
    /// By what the earlier side was scaled; `None` if it was not.
    pub scale: Option<f64>,
    /// Kinds with a change of either figure, by cgroup and kind.
    pub kinds: Vec<KindChange>,
    /// All stacks with bytes on either side, largest change first.
    pub stacks: Vec<StackChange<'a>>,
    /// Files with a change, largest first.
    pub files: Vec<PlaceChange>,
    /// Regions with a change, largest first.
    pub regions: Vec<PlaceChange>,
}

impl Comparison<'_> {
    /// All kinds of all cgroups.
    #[must_use]
    pub fn total(&self) -> Change {
        self.kinds.iter().fold(Change::default(), |mut sum, kind| {
            sum.add(kind.change);
            sum
        })
    }

    /// No stack and no kind has another figure than before.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
            && self.files.is_empty()
            && self.regions.is_empty()
            && self.stacks.iter().all(|stack| stack.change.bytes() == 0)
    }
}

/// Compares two reports.
#[must_use]
pub fn compare<'a>(before: &'a Report, after: &'a Report, options: Options) -> Comparison<'a> {
    // What a forged recording says of its length may be no number.
    let scale = Some(after.duration_s / before.duration_s).filter(|scale| options.normalize && scale.is_finite() && *scale > 0.0);
    let sides = [Side::new(before, scale.unwrap_or(1.0), options), Side::new(after, 1.0, options)];
    Comparison {
        scale,
        kinds: kinds(&sides, options),
        stacks: stacks(&sides, options),
        files: places::files(&sides),
        regions: places::regions(&sides),
    }
}

/// One side, with what makes a figure of it a figure of the comparison.
pub(super) struct Side<'a> {
    pub(super) report: &'a Report,
    scale: f64,
    pub(super) value: Value,
    /// Variance of a charged byte, bytes squared.
    per_charged_byte: f64,
    same_recording: bool,
}

impl<'a> Side<'a> {
    fn new(report: &'a Report, scale: f64, options: Options) -> Self {
        // A sample of weight w has the variance w (w - size), which is at most M for each byte that it stands for.
        let per_charged_byte = if report.sampling.mode == "exact" { 0.0 } else { report.sampling.mean_bytes as f64 };
        Side { report, scale, value: options.value, per_charged_byte, same_recording: options.same_recording }
    }

    pub(super) fn path(&self, cgroup: &'a Cgroup) -> Cow<'a, str> {
        if self.same_recording { Cow::Borrowed(&cgroup.path) } else { without_command_id(&cgroup.path) }
    }

    /// Bytes and their variance, scaled.
    pub(super) fn figure(&self, bytes: u64, live_stderr: u64) -> (u64, f64) {
        let variance = match self.value {
            Value::Charged => bytes as f64 * self.per_charged_byte,
            Value::Live | Value::Growth | Value::Peak => (live_stderr as f64).powi(2),
        };
        ((bytes as f64 * self.scale).round() as u64, variance * self.scale.powi(2))
    }
}

/// The change that both sides' figures make.
pub(super) fn change(index: usize, (bytes, variance): (u64, f64)) -> Change {
    if index == 0 { Change { before: bytes, after: 0, variance } } else { Change { before: 0, after: bytes, variance } }
}

/// Charged bytes of a recording only grow, and what was charged before counts on both sides: the difference has the error of its own
/// samples alone.
fn settle(change: &mut Change, sides: &[Side<'_>; 2], options: Options) {
    if options.same_recording && options.value == Value::Charged {
        change.variance = change.bytes().unsigned_abs() as f64 * sides[1].per_charged_byte;
    }
}

fn kinds(sides: &[Side<'_>; 2], options: Options) -> Vec<KindChange> {
    type Sums<'a> = BTreeMap<(Cow<'a, str>, &'a str), (Change, bool, [Option<u64>; 2])>;
    let mut sums = Sums::new();
    for (index, side) in sides.iter().enumerate() {
        for cgroup in &side.report.cgroups {
            for (kind, row) in &cgroup.kinds {
                let (sum, is_followed, stat) = sums.entry((side.path(cgroup), kind)).or_default();
                let (bytes, stderr) = match options.value {
                    Value::Charged => (row.charged, row.live_stderr),
                    Value::Peak => (row.peak, row.peak_stderr),
                    Value::Live | Value::Growth => (row.live, row.live_stderr),
                };
                *is_followed |= bytes.is_some();
                sum.add(change(index, side.figure(bytes.unwrap_or(0), stderr.unwrap_or(0))));
                if let Some(bytes) = row.stat {
                    stat[index] = Some(stat[index].unwrap_or(0).saturating_add(bytes));
                }
            }
        }
    }
    let rows = sums.into_iter().map(|((cgroup, kind), (mut change, is_followed, stat))| {
        settle(&mut change, sides, options);
        KindChange { cgroup: cgroup.into_owned(), kind: kind.to_owned(), change, is_followed, stat }
    });
    rows.filter(|row| row.change.bytes() != 0 || row.stat[0] != row.stat[1]).collect()
}

fn stacks<'a>(sides: &[Side<'a>; 2], options: Options) -> Vec<StackChange<'a>> {
    let mut sums: HashMap<(Cow<'a, str>, Identity<'a>), StackChange<'a>> = HashMap::new();
    for (index, side) in sides.iter().enumerate() {
        for cgroup in &side.report.cgroups {
            let path = side.path(cgroup);
            for row in cgroup.stacks.iter().filter(|row| options.value.of(row) > 0) {
                let empty = || StackChange { cgroup: path.clone(), row, change: Change::default() };
                let sum = sums.entry((path.clone(), identity(row))).or_insert_with(empty);
                sum.change.add(change(index, side.figure(options.value.of(row), row.live_stderr)));
            }
        }
    }
    let mut rows: Vec<StackChange<'a>> = sums.into_values().collect();
    rows.iter_mut().for_each(|row| settle(&mut row.change, sides, options));
    rows.sort_by(|a, b| {
        let size = |row: &StackChange<'_>| std::cmp::Reverse(row.change.bytes().unsigned_abs());
        size(a).cmp(&size(b)).then_with(|| (&a.cgroup, identity(a.row)).cmp(&(&b.cgroup, identity(b.row))))
    });
    rows
}

/// What makes two rows the same stack.
type Identity<'a> = (&'a [String], &'a str, &'a str, &'a str, &'a str);

fn identity(row: &StackRow) -> Identity<'_> {
    (&row.frames, &row.comm, &row.kind, &row.region, &row.status)
}

/// The cgroup of `record -- CMD` is called by memtrail's process id, which says nothing in another recording: `/memtrail/4711` is
/// `/memtrail/*`.
fn without_command_id(path: &str) -> Cow<'_, str> {
    let mut parts: Vec<&str> = path.split('/').collect();
    for index in 1..parts.len() {
        let is_number = !parts[index].is_empty() && parts[index].bytes().all(|byte| byte.is_ascii_digit());
        if parts[index - 1] == "memtrail" && is_number {
            parts[index] = "*";
            return Cow::Owned(parts.join("/"));
        }
    }
    Cow::Borrowed(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_a_sign_and_an_error() {
        let change = |before, after, stderr: f64| Change { before, after, variance: stderr * stderr };
        assert_eq!((change(5, 2, 0.0).bytes(), change(5, 2, 0.0).is_beyond_error()), (-3, true));
        assert!(!change(5, 5, 0.0).is_beyond_error() && change(10, 30, 10.0).is_beyond_error() && !change(10, 29, 10.0).is_beyond_error());
        assert_eq!(change(0, u64::MAX, 0.0).bytes(), i64::MAX);
        assert_eq!(change(u64::MAX, 0, 0.0).bytes(), i64::MIN);
    }

    #[test]
    fn the_cgroup_of_a_command_is_the_same_in_every_recording() {
        for (path, same) in [
            ("/memtrail/4711", "/memtrail/*"),
            ("/user/memtrail/4711/below", "/user/memtrail/*/below"),
            ("/memtrail/x", "/memtrail/x"),
            ("/memtrail/", "/memtrail/"),
            ("/pods/4711", "/pods/4711"),
        ] {
            assert_eq!(without_command_id(path), same);
        }
    }
}
