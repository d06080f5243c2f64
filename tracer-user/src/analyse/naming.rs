//! Names that come later: which places of a report have none, and the report with names in their stead. Pure.
//!
//! A function without a name stands in a report as `[FILE+0xOFFSET]`, and the report says of that file its build id and where its code is
//! ([`BinaryRow`]). So whoever finds symbols of that build, whenever that is, can name it.

use crate::report::{BinaryRow, CodeRow, FileRow, RegionRow, Report, StackRow, autopsy::Autopsy};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A file with places that have no names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unnamed {
    /// Path as its process saw it.
    pub path: String,
    /// Build id, hexadecimal digits.
    pub build_id: String,
    /// Where its code is.
    pub code: Vec<CodeRow>,
    /// Offsets in the file. Of a return address also the byte before it, which is the call's.
    pub offsets: BTreeSet<u64>,
}

/// Functions by build id and offset, outermost first: inlined ones stand behind those that they are in.
pub type Functions = HashMap<(String, u64), Vec<String>>;

/// The files with places that have no names and a build id to ask for.
#[must_use]
pub fn unnamed(report: &Report) -> Vec<Unnamed> {
    let mut files: BTreeMap<&str, Unnamed> = BTreeMap::new();
    for BinaryRow { path, build_id, frames, code } in &report.binaries {
        let Some(build_id) = build_id.as_deref().filter(|id| is_build_id(id)) else { continue };
        let offsets: Vec<u64> = frames.iter().filter_map(|frame| offset_of(frame)).collect();
        if offsets.is_empty() {
            continue;
        }
        let file = files.entry(build_id).or_default();
        (file.path, file.build_id) = (path.clone(), build_id.to_owned());
        if file.code.is_empty() {
            file.code.clone_from(code);
        }
        file.offsets.extend(offsets.iter().flat_map(|offset| [*offset, offset.saturating_sub(1)]));
    }
    files.into_values().collect()
}

/// Puts names in the place of places; how many places have one now. Rows of stacks that are equal then become one.
pub fn name(report: &mut Report, functions: &Functions) -> usize {
    let names = Names::of(report, functions);
    if names.known.is_empty() {
        return 0;
    }
    for cgroup in &mut report.cgroups {
        let before = names.renamed(cgroup.stacks.iter_mut().map(|row| &mut row.frames));
        if before {
            merge(&mut cgroup.stacks);
        }
        names.renamed(cgroup.mappings.iter_mut().flatten().map(|row| &mut row.frames));
        names.regions(&mut cgroup.regions);
        names.files(&mut cgroup.files);
    }
    for Autopsy { stacks, growth, trigger, regions, files, .. } in &mut report.oom {
        names.renamed(stacks.iter_mut().map(|row| &mut row.frames));
        let of_trigger = trigger.as_mut().and_then(|trigger| trigger.user_stack.as_mut());
        names.renamed(growth.iter_mut().filter_map(|row| row.frames.as_mut()).chain(of_trigger));
        for process in regions {
            names.regions(&mut process.regions);
        }
        names.files(files);
    }
    for binary in &mut report.binaries {
        let renamed: BTreeSet<String> = binary.frames.iter().flat_map(|frame| names.all(frame)).collect();
        binary.frames = renamed.into_iter().collect();
    }
    names.known.len()
}

/// The offset of a place without a name.
fn offset_of(frame: &str) -> Option<u64> {
    let (file, offset) = frame.strip_prefix('[')?.strip_suffix(']')?.rsplit_once("+0x")?;
    if file.is_empty() { None } else { u64::from_str_radix(offset, 16).ok() }
}

fn is_build_id(text: &str) -> bool {
    (8..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Frames that have names now.
struct Names<'f> {
    /// By the frame: where it is a return address, and where it is a stack's innermost.
    known: HashMap<String, [Option<&'f [String]>; 2]>,
}

impl<'f> Names<'f> {
    /// Of those frames that stand for one place, or for places of one name.
    fn of(report: &Report, functions: &'f Functions) -> Names<'f> {
        let mut found: HashMap<&str, [Option<&'f [String]>; 2]> = HashMap::new();
        for BinaryRow { build_id, frames, .. } in &report.binaries {
            for frame in frames {
                let Some(offset) = offset_of(frame) else { continue };
                let at = |offset| build_id.as_ref().and_then(|id| functions.get(&(id.clone(), offset))).map(Vec::as_slice);
                let names = [at(offset.saturating_sub(1)), at(offset)];
                let known = found.entry(frame).or_insert(names);
                for (known, name) in known.iter_mut().zip(names) {
                    *known = known.filter(|known| name == Some(known));
                }
            }
        }
        let is_named = |names: &[Option<&[String]>; 2]| names.iter().any(Option::is_some);
        Names { known: found.into_iter().filter(|(_, names)| is_named(names)).map(|(frame, names)| (frame.to_owned(), names)).collect() }
    }

    /// Whether any of these stacks has a new name.
    fn renamed<'r>(&self, stacks: impl Iterator<Item = &'r mut Vec<String>>) -> bool {
        let mut is_any = false;
        for frames in stacks {
            let innermost = frames.iter().rposition(|frame| !frame.ends_with("_[k]"));
            if !frames.iter().any(|frame| offset_of(frame).is_some()) {
                continue;
            }
            let new: Vec<String> = std::mem::take(frames)
                .into_iter()
                .enumerate()
                .flat_map(|(n, frame)| match self.known.get(&frame).and_then(|names| names[usize::from(Some(n) == innermost)]) {
                    Some(names) => {
                        is_any = true;
                        names.to_vec()
                    }
                    None => vec![frame],
                })
                .collect();
            *frames = new;
        }
        is_any
    }

    fn regions(&self, regions: &mut [RegionRow]) {
        for region in regions {
            self.renamed(region.origin.iter_mut());
            self.renamed(region.origins.iter_mut().chain(&mut region.growers).map(|row| &mut row.frames));
        }
    }

    fn files(&self, files: &mut [FileRow]) {
        for file in files {
            let touchers = file.dirtiers.iter_mut().chain(&mut file.writers).chain(&mut file.readers);
            self.renamed(touchers.map(|row| &mut row.frames));
        }
    }

    /// All names that a frame has now, or itself.
    fn all(&self, frame: &str) -> Vec<String> {
        match self.known.get(frame) {
            Some(names) => names.iter().flatten().flat_map(|names| names.to_vec()).collect(),
            None => vec![frame.to_owned()],
        }
    }
}

/// Adds up rows of one stack.
fn merge(rows: &mut Vec<StackRow>) {
    let mut merged: Vec<StackRow> = Vec::with_capacity(rows.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    for row in std::mem::take(rows) {
        let StackRow { kind, region, pid, comm, status, frames, .. } = &row;
        let key = format!("{kind}\0{region}\0{pid:?}\0{comm}\0{status}\0{}", frames.join("\0"));
        match places.get(&key) {
            None => {
                places.insert(key, merged.len());
                merged.push(row);
            }
            Some(at) => add(&mut merged[*at], row),
        }
    }
    *rows = merged;
    rows.sort_by(|a, b| b.live.cmp(&a.live).then_with(|| b.charged.cmp(&a.charged)));
}

fn add(sum: &mut StackRow, row: StackRow) {
    sum.live = sum.live.saturating_add(row.live);
    // Samples are independent, so variances add up.
    sum.live_stderr = (sum.live_stderr as f64).hypot(row.live_stderr as f64).round() as u64;
    sum.charged = sum.charged.saturating_add(row.charged);
    sum.samples = sum.samples.saturating_add(row.samples);
    sum.oldest_s = match (sum.oldest_s, row.oldest_s) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    };
    sum.threads = match (sum.threads.take(), row.threads) {
        (Some(mut threads), Some(more)) => {
            for thread in more {
                match threads.iter_mut().find(|known| known.tid == thread.tid) {
                    Some(known) => {
                        known.live = known.live.saturating_add(thread.live);
                        known.live_stderr = (known.live_stderr as f64).hypot(thread.live_stderr as f64).round() as u64;
                    }
                    None => threads.push(thread),
                }
            }
            Some(threads)
        }
        _ => None,
    };
    for file in row.files {
        match sum.files.iter_mut().find(|known| known.path == file.path) {
            Some(known) => known.live = known.live.saturating_add(file.live),
            None => sum.files.push(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Cgroup;

    fn strings(frames: &[&str]) -> Vec<String> {
        frames.iter().map(|frame| (*frame).to_owned()).collect()
    }

    fn report() -> Report {
        let row = |frames: &[&str], live| StackRow {
            frames: strings(frames),
            live,
            live_stderr: 3,
            charged: 2 * live,
            samples: 1,
            ..StackRow::default()
        };
        let stacks = vec![
            row(&["main", "[a+0x20]", "[a+0x40]", "handle_mm_fault_[k]"], 10),
            row(&["main", "[a+0x20]", "[a+0x44]", "handle_mm_fault_[k]"], 30),
            row(&["main", "[b+0x20]"], 5),
        ];
        let binary = |path: &str, build_id: &str, frames: &[&str]| BinaryRow {
            path: path.to_owned(),
            build_id: Some(build_id.to_owned()),
            frames: strings(frames),
            code: vec![CodeRow { offset: 0, bytes: 0x100, address: 0x1000 }],
        };
        let binaries = vec![
            binary("/usr/bin/a", "aaaaaaaa", &["[a+0x20]", "[a+0x40]", "[a+0x44]", "main"]),
            binary("/opt/b", "../../etc", &["[b+0x20]"]),
        ];
        Report { cgroups: vec![Cgroup { stacks, ..Cgroup::default() }], binaries, ..Report::default() }
    }

    #[test]
    fn places_with_a_build_id_are_asked_for_and_with_the_call_before_a_return_address() {
        let unnamed = unnamed(&report());
        assert_eq!(unnamed.len(), 1, "what is no build id is not looked for");
        assert_eq!(unnamed[0].offsets, BTreeSet::from([0x1f, 0x20, 0x3f, 0x40, 0x43, 0x44]));
        assert_eq!(
            (&*unnamed[0].path, unnamed[0].code[0].address_of(0x20), unnamed[0].code[0].address_of(0x100)),
            ("/usr/bin/a", Some(0x1020), None)
        );
    }

    #[test]
    fn names_come_in_the_place_of_places_and_equal_stacks_become_one() {
        let mut report = report();
        let function = |offset, names: &[&str]| (("aaaaaaaa".to_owned(), offset), strings(names));
        // The return address is behind the call of `outer`, where another function begins.
        let functions = Functions::from([
            function(0x1f, &["outer", "inlined"]),
            function(0x20, &["next"]),
            function(0x40, &["inner"]),
            function(0x3f, &["before"]),
            function(0x44, &["inner"]),
        ]);
        assert_eq!(name(&mut report, &functions), 3);
        let rows: Vec<(Vec<String>, u64, u64)> =
            report.cgroups[0].stacks.iter().map(|row| (row.frames.clone(), row.live, row.live_stderr)).collect();
        let named = strings(&["main", "outer", "inlined", "inner", "handle_mm_fault_[k]"]);
        assert_eq!(rows, [(named, 40, 4), (strings(&["main", "[b+0x20]"]), 5, 3)]);
        assert!(
            report.binaries[0].frames.contains(&"outer".to_owned())
                && !report.binaries[0].frames.iter().any(|frame| frame.starts_with('['))
        );
    }

    #[test]
    fn a_place_of_two_files_has_a_name_only_if_both_agree() {
        let mut report = report();
        report.binaries.push(BinaryRow { build_id: Some("cccccccc".to_owned()), frames: strings(&["[a+0x40]"]), ..BinaryRow::default() });
        let functions = Functions::from([(("aaaaaaaa".to_owned(), 0x40), strings(&["inner"]))]);
        assert_eq!(name(&mut report, &functions), 0);
        assert!(report.cgroups[0].stacks[0].frames.contains(&"[a+0x40]".to_owned()));
    }

    #[test]
    fn only_places_are_places() {
        for frame in ["main", "[jit]", "[+0x10]", "[a+0xzz]", "a+0x10", "[a+0x10", "[frames left out]"] {
            assert_eq!(offset_of(frame), None, "{frame}");
        }
        assert_eq!(offset_of("[lib c+0x1.so+0x10]"), Some(0x10));
    }
}
