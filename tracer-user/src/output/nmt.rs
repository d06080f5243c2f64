//! A JVM's own account of its memory (Native Memory Tracking, the output of `jcmd PID VM.native_memory summary`) beside the regions of the
//! same process: what the JVM asked for, what of it is resident, and what it does not know of.
//!
//! Pure: text and a report in, text out. The JVM's text is hostile like every other.

use crate::report::{Cgroup, RegionRow, Report};
use crate::text::units;
use crate::text::{escape, pad_left, pad_right, wrap};

/// Longest text that is taken.
pub const MOST_BYTES: u64 = 1 << 20;
/// Most categories; JDK 25 has some thirty.
const MOST_CATEGORIES: usize = 256;

/// Bytes of one category.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Category {
    /// As the JVM calls it.
    pub name: String,
    /// Bytes of address space, malloc's included.
    pub reserved: u64,
    /// Bytes that the JVM may touch, malloc's included.
    pub committed: u64,
    /// Of both: what it has from malloc.
    pub malloc: u64,
}

/// Why a text is not such an account.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NmtError {
    /// No category was found.
    #[error("not the output of `jcmd PID VM.native_memory summary`: it names no category")]
    NoCategory,
    /// The JVM says that it does not track.
    #[error("the JVM does not track its memory: start it with -XX:NativeMemoryTracking=summary")]
    Off,
    /// There is no JVM in the report.
    #[error("no process with a Java heap is in the report: choose its cgroup, and record while the JVM runs")]
    NoJvm,
    /// There are several.
    #[error("processes with a Java heap: {0}: choose one with --cgroup")]
    SeveralJvms(String),
}

/// Reads the account.
///
/// # Errors
/// It is none.
pub fn parse(text: &str) -> Result<Vec<Category>, NmtError> {
    let mut categories: Vec<Category> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(category) = line.strip_prefix('-').and_then(heading) {
            if categories.len() < MOST_CATEGORIES {
                categories.push(category);
            }
        } else if let Some(last) = categories.last_mut() {
            // `(malloc=83KB #1613)`, `(arena=5KB #9)`: arenas are blocks from malloc too.
            for what in ["(malloc=", "(arena="] {
                let bytes = line.strip_prefix(what).and_then(amount).unwrap_or(0);
                last.malloc = last.malloc.saturating_add(bytes);
            }
        }
    }
    match categories.is_empty() {
        false => Ok(categories),
        true if text.contains("Native memory tracking is not enabled") => Err(NmtError::Off),
        true => Err(NmtError::NoCategory),
    }
}

/// `    Java Heap (reserved=196608KB, committed=196608KB)`.
fn heading(line: &str) -> Option<Category> {
    let (name, rest) = line.split_once("(reserved=")?;
    let (_, committed) = rest.split_once("committed=")?;
    let (reserved, committed) = (amount(rest)?, amount(committed)?);
    Some(Category { name: name.trim().to_owned(), reserved, committed, malloc: 0 })
}

/// The number that a text begins with, in bytes: `83KB`, `1MB`, `512B`, `512`.
fn amount(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start_matches(|c: char| !c.is_ascii_alphabetic()) {
        unit if !text[digits..].starts_with(unit) => 0,
        unit if unit.starts_with("KB") => 10,
        unit if unit.starts_with("MB") => 20,
        unit if unit.starts_with("GB") => 30,
        _ => 0,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A line of the table: categories of the JVM, and the region classes that hold the same memory.
struct Pair {
    nmt: &'static [&'static str],
    classes: &'static [&'static str],
}

/// What is told by both sides. malloc's, and everything else, are what is left.
const PAIRS: [Pair; 5] = [
    Pair { nmt: &["Java Heap"], classes: &["java-heap"] },
    Pair { nmt: &["Code"], classes: &["java-code"] },
    Pair { nmt: &["Thread"], classes: &["thread-stack"] },
    Pair { nmt: &["Class", "Metaspace"], classes: &["java-metaspace"] },
    Pair { nmt: &["GC"], classes: &["java-gc"] },
];
const MALLOC: [&str; 3] = ["brk-heap", "glibc-arena", "mmap-malloc"];

/// The account beside the regions of the one JVM in the report.
///
/// # Errors
/// There is no JVM, or several.
pub fn render(report: &Report, takes: impl Fn(&Cgroup) -> bool, categories: &[Category]) -> Result<String, NmtError> {
    let rows: Vec<&RegionRow> = report.cgroups.iter().filter(|cgroup| takes(cgroup)).flat_map(|cgroup| &cgroup.regions).collect();
    // Rows of cgroups that the process has left have no resident bytes.
    let heaps: Vec<&&RegionRow> = rows.iter().filter(|row| row.class == "java-heap" && row.resident.is_some()).collect();
    let jvm = match heaps.as_slice() {
        [] => return Err(NmtError::NoJvm),
        [jvm] => jvm,
        several => {
            let names: Vec<String> = several.iter().map(|row| who(row)).collect();
            return Err(NmtError::SeveralJvms(names.join(", ")));
        }
    };
    let of = |classes: &[&str]| {
        let chosen = rows.iter().filter(|row| row.pid == jvm.pid && row.resident.is_some() && classes.contains(&row.class.as_str()));
        chosen.fold((0_u64, 0_u64), |(reserved, resident), row| {
            (reserved.saturating_add(row.reserved.unwrap_or(0)), resident.saturating_add(row.resident.unwrap_or(0)))
        })
    };
    let mut table = Table { text: format!("{}: Native Memory Tracking beside its regions\n", who(jvm)), unseen: 0 };
    table.heading();
    let paired = |name: &str| PAIRS.iter().any(|pair| pair.nmt.contains(&name));
    for pair in &PAIRS {
        let mapped = categories.iter().filter(|category| pair.nmt.contains(&category.name.as_str()));
        table.row(&pair.nmt.join(", "), mapped_of(mapped), &pair.classes.join(", "), of(pair.classes));
    }
    let malloc = categories.iter().fold(0, |sum: u64, category| sum.saturating_add(category.malloc));
    table.row("malloc, all", (malloc, malloc), "brk-heap, glibc-arena, mmap-malloc", of(&MALLOC));
    let others = mapped_of(categories.iter().filter(|category| !paired(&category.name)));
    table.row("the rest, mapped", others, "other", of(&["other"]));
    table.row("-", (0, 0), "file-private", of(&["file-private"]));
    table.row("-", (0, 0), "jit", of(&["jit"]));
    let unseen = units::bytes(table.unseen);
    let said = format!(
        "NMT gap: {unseen} is resident beyond what the JVM knows of: what libraries map and copy for themselves, and what malloc keeps beyond its \
         blocks. RESIDENT is of the moment of the recording's end, the JVM's account of its own."
    );
    for line in wrap(&said, super::summary::COLUMNS - 2) {
        table.text.push_str(&format!("  {line}\n"));
    }
    Ok(table.text)
}

fn who(row: &RegionRow) -> String {
    escape(&format!("{}{}", row.comm, row.pid.map_or_else(String::new, |pid| format!("[{pid}]"))))
}

/// Reserved and committed bytes less malloc's.
fn mapped_of<'a>(categories: impl Iterator<Item = &'a Category>) -> (u64, u64) {
    categories.fold((0, 0), |(reserved, committed), category| {
        let less = |bytes: u64| bytes.saturating_sub(category.malloc);
        (reserved.saturating_add(less(category.reserved)), committed.saturating_add(less(category.committed)))
    })
}

struct Table {
    text: String,
    /// Resident bytes beyond what is committed, over all rows.
    unseen: u64,
}

impl Table {
    fn heading(&mut self) {
        self.line("  NMT", ["RESERVED", "COMMITTED"], "REGIONS", ["RESERVED", "RESIDENT", "NOT IN NMT"]);
    }

    /// A row with nothing on either side is left out.
    fn row(&mut self, nmt: &str, (reserved, committed): (u64, u64), classes: &str, (mapped, resident): (u64, u64)) {
        if reserved == 0 && mapped == 0 {
            return;
        }
        let unseen = resident.saturating_sub(committed);
        self.unseen = self.unseen.saturating_add(unseen);
        let [reserved, committed, mapped, resident, unseen] = [reserved, committed, mapped, resident, unseen].map(units::bytes);
        self.line(&format!("  {nmt}"), [&reserved, &committed], classes, [&mapped, &resident, &unseen]);
    }

    fn line(&mut self, nmt: &str, account: [&str; 2], classes: &str, regions: [&str; 3]) {
        let account: String = account.iter().map(|cell| pad_left(cell, 12)).collect();
        let regions: String = regions.iter().map(|cell| pad_left(cell, 12)).collect();
        let line = format!("{}{account}  {}{regions}", pad_right(nmt, 18), pad_right(classes, 35));
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn amounts_in_all_units() {
        let amounts =
            ["83KB #1613)", "1MB, committed", "2GB)", "512B)", "512, x", "12)", "", "x", "99999999999999999999KB", "9999999999999999GB"];
        let bytes = [Some(83 << 10), Some(1 << 20), Some(2 << 30), Some(512), Some(512), Some(12), None, None, None, None];
        assert_eq!(amounts.map(amount), bytes);
    }

    /// Of OpenJDK 17.0.15, shortened.
    const ACCOUNT: &str = "28610:\n\nNative Memory Tracking:\n\nTotal: reserved=1537549KB, committed=160633KB\n       malloc: 39117KB #3846\n\n\
        -                 Java Heap (reserved=65536KB, committed=65536KB)\n                            (mmap: reserved=65536KB, committed=65536KB)\n\n\
        -                    Thread (reserved=19506KB, committed=846KB)\n                            (thread #19)\n\
                            (stack: reserved=19456KB, committed=796KB)\n                            (malloc=30KB #118) (peak=38KB #122)\n\
                            (arena=20KB #36) (peak=51KB #34)\n\n\
        -                        GC (reserved=39549KB, committed=39549KB)\n                            (malloc=4337KB #357) (at peak)\n\
                            (mmap: reserved=35212KB, committed=35212KB)\n\n\
        -                     Other (reserved=32768KB, committed=32768KB)\n                            (malloc=32768KB #32) (at peak)\n";

    fn region(pid: u32, class: &str, reserved_kib: u64, resident_kib: u64) -> RegionRow {
        RegionRow {
            pid: Some(pid),
            comm: "java".into(),
            class: class.into(),
            reserved: Some(reserved_kib << 10),
            resident: Some(resident_kib << 10),
            ..RegionRow::default()
        }
    }

    fn report(regions: Vec<RegionRow>) -> Report {
        Report { cgroups: vec![Cgroup { regions, ..Cgroup::default() }], ..Report::default() }
    }

    #[test]
    fn categories_of_a_jvm() {
        let found = parse(ACCOUNT).unwrap();
        let category = |name: &str, reserved: u64, committed: u64, malloc: u64| Category {
            name: name.into(),
            reserved: reserved << 10,
            committed: committed << 10,
            malloc: malloc << 10,
        };
        let expected = [
            category("Java Heap", 65536, 65536, 0),
            category("Thread", 19506, 846, 50),
            category("GC", 39549, 39549, 4337),
            category("Other", 32768, 32768, 32768),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_gap_is_what_is_resident_beyond_what_is_committed() {
        let regions = vec![
            region(7, "java-heap", 65536, 1024),
            region(7, "thread-stack", 19456, 796),
            region(7, "mmap-malloc", 33000, 33000),
            region(7, "glibc-arena", 65536, 6144),
            region(7, "file-private", 4096, 1024),
            region(8, "mmap-malloc", 999_999, 999_999),
        ];
        let table = render(&report(regions), |_| true, &parse(ACCOUNT).unwrap()).unwrap();
        // malloc: 37155 KiB by the JVM's account, 39144 KiB resident; and the libraries' copies.
        assert!(table.contains("NMT gap: 2.9 MiB is resident"), "{table}");
        assert!(table.contains("java[7]: Native") && table.contains("  GC "), "{table}");
    }

    #[test]
    fn one_jvm_is_meant() {
        let account = parse(ACCOUNT).unwrap();
        assert_eq!(render(&report(vec![region(7, "other", 1, 1)]), |_| true, &account), Err(NmtError::NoJvm));
        let several = report(vec![region(7, "java-heap", 1, 1), region(8, "java-heap", 1, 1)]);
        assert_eq!(render(&several, |_| true, &account), Err(NmtError::SeveralJvms("java[7], java[8]".into())));
    }

    #[test]
    fn what_is_no_account_says_so() {
        assert_eq!(parse(""), Err(NmtError::NoCategory));
        assert_eq!(parse("-  x (reserved=, committed=)\n- (reserved=1"), Err(NmtError::NoCategory));
        assert_eq!(parse("4711:\nNative memory tracking is not enabled\n"), Err(NmtError::Off));
    }
}
