//! What the steps of a test run came to, and the words for it. Pure: reads lines, prints nothing.

use std::{collections::BTreeMap, time::Duration};

use super::cells;

/// Counts read from the lines that test programs print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Reasons of tests that did not do their work: lines that begin with [`SKIPPED`].
    pub skipped: Vec<String>,
    /// The lines themselves, to be shown at the end.
    pub results: Vec<String>,
    /// Cells of the accuracy table.
    pub cells: cells::Filled,
    /// Tests that ran one after the other, with their times.
    pub times: Vec<(String, Duration)>,
    /// Tests that did not end in time: lines that begin with [`TIMEOUT`], and those that were killed here.
    pub timeouts: Vec<String>,
    /// What a reader of the summary should know: lines that begin with [`NOTE`], and that the table was filtered.
    pub notes: Vec<String>,
    /// Names of the tests that failed.
    failures: Vec<String>,
    /// What tests said when they panicked, by test.
    panics: BTreeMap<String, String>,
    /// The test whose panic goes on with the next lines.
    panicking: Option<String>,
    /// Tests that libtest says run for long, and when it said so.
    slow: BTreeMap<String, Duration>,
    /// The test that runs.
    running: Option<String>,
    /// When the one before it ended.
    since: Duration,
}

/// How a test says that it cannot do its work here; the reason follows.
pub const SKIPPED: &str = "SKIPPED ";
/// How the harness says that a test was ended at its limit; its name and what it waited for follow. Must equal the one there.
const TIMEOUT: &str = "TIMEOUT ";
/// How a test says what belongs in the summary.
const NOTE: &str = "NOTE ";
/// What libtest says of a test that it runs beside others.
const SLOW: &str = " has been running for over 60 seconds";
/// How long a test may run on after that.
const SLOW_LIMIT: Duration = Duration::from_secs(240);
const RESULT: &str = "test result: ";
/// What begins the lines of a panic; the thread's name follows, which is the test's.
const THREAD: &str = "thread '";
/// How many characters of a panic the summary tells.
const PANIC_SHOWN: usize = 800;
/// Before the name of a test that begins, where its output is not held back.
const TEST: &str = "test ";
/// What ends the lines of a test.
const RESULTS: [&str; 2] = ["ok", "FAILED"];
/// How many of the slowest tests of a step are told, and from which time on.
const SLOWEST: (usize, Duration) = (10, Duration::from_secs(5));

impl Counts {
    /// Takes note of a line of a test program, which was read `at` that time of the step.
    pub fn line(&mut self, line: &[u8], at: Duration) {
        let line = String::from_utf8_lossy(line);
        self.time(&line, at);
        self.panic(&line);
        // Behind the name of a test that begins there is the first that it says.
        let said = line.strip_prefix(TEST).and_then(|begun| begun.split_once(" ... ")).map_or(&*line, |(_, said)| said);
        if let Some(reason) = said.strip_prefix(SKIPPED) {
            self.skipped.push(reason.to_owned());
        }
        if let Some(what) = said.strip_prefix(TIMEOUT) {
            self.timeouts.push(what.to_owned());
        }
        if let Some(note) = said.strip_prefix(NOTE) {
            self.notes.push(note.to_owned());
        }
        cells::note(&line, &mut self.cells);
        if line.starts_with(RESULT) {
            self.passed += number_before(&line, " passed").unwrap_or(0);
            self.failed += number_before(&line, " failed").unwrap_or(0);
            self.results.push(line.into_owned());
        }
    }

    /// Tests that run for too long; each is told once.
    pub fn overdue(&mut self, at: Duration) -> Vec<String> {
        let overdue: Vec<String> =
            self.slow.iter().filter(|(_, since)| at.saturating_sub(**since) >= SLOW_LIMIT).map(|(name, _)| name.clone()).collect();
        for name in &overdue {
            self.slow.remove(name);
            self.timeouts.push(format!("{name}: no end after {} s", SLOW_LIMIT.as_secs() + 60));
        }
        overdue
    }

    /// Whether a line is worth showing of programs whose tests run beside each other: all but the tests that passed or are not run.
    pub fn is_news(line: &[u8]) -> bool {
        let line = String::from_utf8_lossy(line);
        let is_ignored = line.starts_with(TEST) && line.contains(" ... ignored, ");
        let quiet =
            is_ignored || line.is_empty() || line == "running 0 tests" || [" ... ok", " ... ignored"].iter().any(|end| line.ends_with(end));
        !quiet
    }

    /// A test's name comes with the first line that it says, which may be its last; its result ends a line.
    fn time(&mut self, line: &str, at: Duration) {
        if let Some((name, _)) = line.strip_prefix(TEST).and_then(|rest| rest.split_once(" ... ")) {
            self.running = Some(name.to_owned());
            self.slow.remove(name);
        }
        if let Some(name) = line.strip_prefix(TEST).and_then(|rest| rest.strip_suffix(SLOW)) {
            self.slow.insert(name.to_owned(), at);
        }
        let ends =
            RESULTS.iter().any(|result| line.strip_suffix(result).is_some_and(|before| before.is_empty() || before.ends_with("... ")));
        if line.starts_with("running ") {
            self.since = at;
        } else if ends && let Some(name) = self.running.take() {
            if line.ends_with(RESULTS[1]) {
                self.failures.push(name.clone());
            }
            self.times.push((name, at.saturating_sub(self.since)));
            self.since = at;
        }
    }

    /// Takes note of what a test says when it panics: a line with the place, and lines with the message, up to the note on backtraces.
    fn panic(&mut self, line: &str) {
        if let Some((name, place)) = line.strip_prefix(THREAD).and_then(|rest| rest.split_once('\'')) {
            let place = place.split_once("panicked at ").map_or("", |(_, place)| place);
            let said = self.panics.entry(name.to_owned()).or_default();
            if !said.is_empty() {
                said.push_str("; ");
            }
            said.push_str(place);
            self.panicking = Some(name.to_owned());
            return;
        }
        let Some(name) = &self.panicking else { return };
        if line.is_empty() || line.starts_with("note: ") || line.starts_with(TEST) || line == RESULTS[1] {
            self.panicking = None;
        } else if let Some(said) = self.panics.get_mut(name) {
            said.push(' ');
            said.push_str(line);
        }
    }

    /// Tests that failed, each with what it said when it panicked, cut to [`PANIC_SHOWN`].
    fn failures(&self) -> impl Iterator<Item = (&str, String)> {
        self.failures.iter().map(|name| {
            let said = self.panics.get(name).map_or("it said nothing", String::as_str);
            let cut = if said.chars().count() > PANIC_SHOWN { " […]" } else { "" };
            (name.as_str(), said.chars().take(PANIC_SHOWN).collect::<String>() + cut)
        })
    }
}

fn number_before(line: &str, word: &str) -> Option<usize> {
    let (before, _) = line.split_once(word)?;
    before.rsplit(' ').next()?.parse().ok()
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Passed,
    /// Not as it should; why.
    Failed(String),
    /// It could not be done here; why.
    Skipped(String),
}

/// A step that was made.
#[derive(Clone, Debug)]
pub struct Step {
    /// `tier: what`.
    pub name: String,
    /// How it ended.
    pub end: End,
    /// The wall time it took.
    pub time: Duration,
    /// What its test programs said.
    pub counts: Counts,
}

/// Whether the run as a whole passed: nothing failed, and nothing was skipped unless that is allowed.
pub fn passed(steps: &[Step], allow_skip: bool) -> bool {
    let failed = steps.iter().any(|step| matches!(step.end, End::Failed(_)));
    !failed && (allow_skip || skips(steps) == 0)
}

fn skips(steps: &[Step]) -> usize {
    steps.iter().map(|step| step.counts.skipped.len() + usize::from(matches!(step.end, End::Skipped(_)))).sum()
}

/// The slowest first.
fn slowest(times: &[(String, Duration)]) -> Vec<&(String, Duration)> {
    let (most, from) = SLOWEST;
    let mut slow: Vec<_> = times.iter().filter(|(_, time)| *time >= from).collect();
    slow.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    slow.truncate(most);
    slow
}

/// The last lines of a run: a line a step, each test program's own result, what was skipped, and one line for all.
pub fn summary(steps: &[Step], allow_skip: bool) -> String {
    let mut text = String::new();
    for step in steps {
        let (word, why) = match &step.end {
            End::Passed => ("ok", String::new()),
            End::Failed(why) => ("FAILED", format!(": {why}")),
            End::Skipped(why) => ("skipped", format!(": {why}")),
        };
        text += &format!("{word:8} {:7.1} s  {}{why}\n", step.time.as_secs_f64(), step.name);
        for result in &step.counts.results {
            text += &format!("{:20} {result}\n", "");
        }
        for (name, said) in step.counts.failures() {
            text += &format!("{:20} FAILED {name}: {said}\n", "");
        }
        for (name, time) in slowest(&step.counts.times) {
            text += &format!("{:20} {:7.1} s  {name}\n", "", time.as_secs_f64());
        }
        for timeout in &step.counts.timeouts {
            text += &format!("{:20} no end: {timeout}\n", "");
        }
        for note in &step.counts.notes {
            text += &format!("{:20} {note}\n", "");
        }
        for reason in &step.counts.skipped {
            text += &format!("{:20} skipped {reason}\n", "");
        }
    }
    let failed = steps.iter().filter(|step| matches!(step.end, End::Failed(_))).count();
    let tests: usize = steps.iter().map(|step| step.counts.passed).sum();
    let seconds: f64 = steps.iter().map(|step| step.time.as_secs_f64()).sum();
    let word = if passed(steps, allow_skip) { "passed" } else { "FAILED" };
    let skipped = skips(steps);
    text + &format!("{word}: {} steps, {failed} failed, {skipped} skipped, {tests} tests passed, {seconds:.0} s", steps.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(end: End, counts: Counts) -> Step {
        Step { name: "pure: x".to_owned(), end, time: Duration::from_secs(1), counts }
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let mut counts = Counts::default();
        counts.line(b"test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s", Duration::ZERO);
        counts.line(b"test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s", Duration::ZERO);
        counts.line(b"test something ... ok", Duration::ZERO);
        counts.line(b"SKIPPED swap: no swap here", Duration::ZERO);
        counts.line(b"\xff\xfe", Duration::ZERO);
        assert_eq!((counts.passed, counts.failed, counts.results.len()), (13, 2, 2));
        assert_eq!(counts.skipped, ["swap: no swap here"]);
    }

    #[test]
    fn the_slowest_tests_are_told() {
        let mut counts = Counts::default();
        let lines = [
            (1, "running 3 tests"),
            (7, "test a::slow ... said"),
            (8, "ok"),
            (9, "test a::fast ... ok"),
            (30, "test a::slower ... FAILED"),
        ];
        for (at, line) in lines {
            counts.line(line.as_bytes(), Duration::from_secs(at));
        }
        assert_eq!(counts.times.len(), 3);
        let told: Vec<_> = slowest(&counts.times).into_iter().map(|(name, time)| (name.as_str(), time.as_secs())).collect();
        assert_eq!(told, [("a::slower", 21), ("a::slow", 7)]);
    }

    #[test]
    fn tests_that_do_not_end_are_told_once_and_shown() {
        let mut counts = Counts::default();
        counts.line(b"test a::slow has been running for over 60 seconds", Duration::from_secs(60));
        counts.line(b"test a::hangs has been running for over 60 seconds", Duration::from_secs(61));
        counts.line(b"test a::slow ... ok", Duration::from_secs(70));
        counts.line(b"NOTE anon best/exact: 5 bytes", Duration::from_secs(70));
        counts.line(b"test a::first ... NOTE first of all", Duration::from_secs(70));
        counts.line(b"TIMEOUT b::late: no end after 600 s: it waits for a step", Duration::from_secs(71));
        assert!(counts.overdue(Duration::from_secs(300)).is_empty());
        assert_eq!(counts.overdue(Duration::from_secs(301)), ["a::hangs"]);
        assert!(counts.overdue(Duration::from_secs(400)).is_empty());
        let text = summary(&[step(End::Passed, counts)], false);
        assert!(text.contains("no end: b::late") && text.contains("no end: a::hangs: no end after 300 s"), "{text}");
        assert!(text.contains("anon best/exact: 5 bytes") && text.contains("first of all"), "{text}");
    }

    #[test]
    fn what_a_test_said_when_it_failed_is_in_the_summary() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test a::right ... ok",
            "test a::wrong ... 5 bytes",
            "",
            "thread 'a::wrong' (13083) panicked at tests/a.rs:181:5:",
            "assertion `left == right` failed",
            "  left: 5",
            "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
            "FAILED",
            "test a::silent ... FAILED",
        ] {
            counts.line(line.as_bytes(), Duration::ZERO);
        }
        let text = summary(&[step(End::Failed("2 tests failed".to_owned()), counts)], false);
        assert!(text.contains("FAILED a::wrong: tests/a.rs:181:5: assertion `left == right` failed   left: 5\n"), "{text}");
        assert!(text.contains("FAILED a::silent: it said nothing") && !text.contains("a::right"), "{text}");
    }

    #[test]
    fn failures_and_what_libtest_says_of_them_are_news() {
        for line in [
            "test a::b ... FAILED",
            "test result: ok. 3 passed",
            "running 3 tests",
            "thread 'a::b' panicked",
            "test x has been running for over 60 seconds",
        ] {
            assert!(Counts::is_news(line.as_bytes()), "{line}");
        }
        for line in ["test a::b ... ok", "test a::b ... ignored", "test a::b ... ignored, needs root", "", "running 0 tests"] {
            assert!(!Counts::is_news(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn a_skip_fails_the_run_unless_allowed_and_a_failure_always_does() {
        let skipped_step = [step(End::Skipped("not root".to_owned()), Counts::default())];
        let skipped_test = [step(End::Passed, Counts { skipped: vec!["x".to_owned()], ..Counts::default() })];
        for steps in [&skipped_step, &skipped_test] {
            assert!(!passed(steps, false));
            assert!(passed(steps, true));
        }
        assert!(!passed(&[step(End::Failed("it did".to_owned()), Counts::default())], true));
        assert!(passed(&[step(End::Passed, Counts::default())], false));
    }

    #[test]
    fn the_last_line_sums_up_and_results_stay_visible() {
        let mut counts = Counts::default();
        counts.line(b"test result: ok. 12 passed; 0 failed; 3 ignored", Duration::ZERO);
        let steps = [step(End::Passed, counts), step(End::Failed("exit status: 1".to_owned()), Counts::default())];
        let text = summary(&steps, false);
        assert!(text.contains("test result: ok. 12 passed"), "{text}");
        assert_eq!(text.lines().last(), Some("FAILED: 2 steps, 1 failed, 0 skipped, 12 tests passed, 2 s"));
    }
}
