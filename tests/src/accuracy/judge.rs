//! Which of memtrail's figures are out of bounds. Pure: figures in, complaints out.

use super::{Bound, Charged, Relation, Row};
use crate::memtrail::Mode;
use crate::report::KindRow;
use std::fmt;

/// How far `memory.stat` itself may be from what the workload says, before the row says nothing about the tracer.
const TRUTH: Bound = Bound { percent: 1.0, bytes: 512 << 10 };
/// Live bytes below this are too few to ask for a share of them.
const SHARE_FROM: u64 = 8 << 20;
/// Known functions must own this share of live bytes.
const SHARE: f64 = 0.95;
/// Of what a row charges: more than that, or one folio if that is larger, is never laid to calls that the kernel passed over, however many these
/// are.
const PASSED_OVER: Bound = Bound { percent: 5.0, bytes: 0 };
/// Standard errors.
const SIGMAS: f64 = 3.0;

/// What the workload says that it did while it was traced, for the row's kind. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Change of `memory.stat`.
    pub resident: i64,
    /// Change of charged but not mapped bytes.
    pub unmapped: i64,
    /// Newly charged.
    pub charged: u64,
}

/// What was measured. Bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// `memory.stat` when the trace began.
    pub stat_start: i64,
    /// And when it ended.
    pub stat_end: i64,
    /// Change of usage without kernel memory, where the cgroup tells kernel memory.
    pub usage_change: Option<i64>,
    /// The report's row.
    pub ledger: KindRow,
    /// M: mean bytes between samples.
    pub mean_bytes: u64,
    /// Live bytes under the workload's functions, of all that stacks of this kind have.
    pub share: Option<f64>,
    /// Bytes charged under the workload's functions.
    pub function_charged: u64,
    /// What the kernel may not have counted into `memory.stat` yet.
    pub batching: u64,
    /// How much the counter of usage may be ahead.
    pub charge_batching: u64,
    /// Calls of the tracer's programs that the kernel passed over.
    pub recursion_misses: u64,
}

/// A row, filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// Name, mode and tier.
    pub title: String,
    /// From the workload.
    pub expected: Expected,
    /// From the kernel and the tracer.
    pub observed: Observed,
    /// The row's bound for live, bytes.
    pub bound: u64,
    /// How far `missed` is beyond the bound and laid to calls that the kernel passed over, bytes; 0 in most rows.
    pub laid_to_passed_over: u64,
    /// What is out of bounds.
    pub failures: Vec<String>,
    /// A figure is off by more than twice what is allowed: no chance, so nothing to try again.
    pub gross: bool,
}

struct Complaints {
    mode: Mode,
    failures: Vec<String>,
    gross: bool,
}

impl Complaints {
    /// In default mode the sampling error comes on top of nothing: three standard errors or the row's bound, whichever is larger.
    fn check(&mut self, what: &str, got: Option<i128>, expected: i128, bound: u64, stderr: u64) {
        let Some(got) = got else {
            self.failures.push(format!("{what} unknown"));
            return;
        };
        let allowed = match self.mode {
            Mode::Exact => bound,
            Mode::Default => bound.max((SIGMAS * stderr as f64) as u64),
        };
        let off = (got - expected).unsigned_abs();
        if off > u128::from(allowed) {
            self.gross |= off > 2 * u128::from(allowed);
            self.failures.push(format!("{what} {got}, expected {expected}: off by {off}, allowed {allowed}"));
        }
    }

    fn check_stderr(&mut self, what: &str, stderr: Option<u64>, mean_bytes: u64, bytes: Option<u64>) {
        let (Some(stderr), Some(bytes)) = (stderr, bytes) else {
            self.failures.push(format!("standard error of {what} unknown"));
            return;
        };
        let limit = match self.mode {
            Mode::Exact => 0.0,
            // One byte for the rounding of the report.
            Mode::Default => spread(mean_bytes, bytes) + 1.0,
        };
        if stderr as f64 > limit {
            self.failures.push(format!("standard error of {what} {stderr}, at most {limit:.0}"));
        }
    }
}

/// The standard error that samples of `mean_bytes` have for a sum.
fn spread(mean_bytes: u64, bytes: u64) -> f64 {
    (mean_bytes as f64 * bytes as f64).sqrt()
}

/// How far a sum of `bytes` may be off: three standard errors; or for few samples, whose number is no normal but a Poisson variable,
/// as far up as one figure in 740 is, which is as rare.
fn widest(mean_bytes: u64, bytes: u64) -> f64 {
    let samples = bytes as f64 / mean_bytes as f64;
    let normal = SIGMAS * spread(mean_bytes, bytes);
    if samples > 50.0 {
        return normal;
    }
    let (mut count, mut term) = (0.0, (-samples).exp());
    let mut below = term;
    while below < 1.0 - 1.0 / 740.0 {
        count += 1.0;
        term *= samples / count;
        below += term;
    }
    normal.max((count - samples) * mean_bytes as f64)
}

/// Compares and fills in.
pub fn judge(row: &Row, mode: Mode, tier: &str, bound: Bound, expected: Expected, observed: Observed) -> Filled {
    let ledger = observed.ledger;
    let stat_change = observed.stat_end - observed.stat_start;
    let largest = expected.resident.unsigned_abs().max(expected.charged);
    let bytes = bound.of(expected.resident.unsigned_abs().max(expected.unmapped.unsigned_abs())) + observed.batching;
    let (live, baseline) = match row.relation {
        Relation::Live => (stat_change + expected.unmapped, observed.stat_start),
        Relation::OnlyBaseline => (0, observed.stat_end),
    };
    let live_stderr = ledger.live_stderr.unwrap_or(0);
    let baseline_stderr = match mode {
        Mode::Exact => 0,
        Mode::Default => (widest(observed.mean_bytes, baseline.unsigned_abs()) / SIGMAS).ceil() as u64,
    };
    let both_stderr = live_stderr.saturating_add(baseline_stderr);
    // A program that the kernel passed over, because it was at work on that CPU already, could not count; the sweep sets samples right after that,
    // but nothing sets counters right: what exact counters missed for that, no program has seen to be charged.
    let missed = ledger.missed.map_or(0, i64::unsigned_abs);
    let passed_over = observed.recursion_misses.saturating_mul(row.folio).min(PASSED_OVER.of(largest).max(row.folio));
    let laid_to_passed_over = missed.saturating_sub(bytes);
    // A call takes its whole folio with it, of which a part may have been given back or unmapped since.
    let lost = laid_to_passed_over.min(passed_over).next_multiple_of(row.folio);
    let wide = |figure: Option<u64>| figure.map(i128::from);

    let mut complaints = Complaints { mode: Mode::Exact, failures: Vec::new(), gross: false };
    complaints.check("memory.stat's change", Some(stat_change.into()), expected.resident.into(), TRUTH.of(largest), 0);
    complaints.mode = mode;
    complaints.check("live", wide(ledger.live), live.into(), bytes + lost, live_stderr);
    complaints.check_stderr("live", ledger.live_stderr, observed.mean_bytes, ledger.live);
    check_charged(&mut complaints, row, bound, expected, observed, lost);
    complaints.check("baseline", wide(ledger.baseline), baseline.into(), bytes, baseline_stderr);
    // A kind without unmapped bytes may leave the line unknown.
    if expected.unmapped != 0 || ledger.unmapped.is_some() {
        complaints.check("unmapped", wide(ledger.unmapped), expected.unmapped.into(), bytes + lost, both_stderr);
    }
    complaints.check("unattributed", ledger.unattributed.map(i128::from), 0, bytes + lost, both_stderr);
    // Exact counters have no sampling error; a tier without them says null.
    if missed > bytes + passed_over {
        complaints.failures.push(format!("missed {}, allowed {bytes} and {passed_over} for what was passed over", known(ledger.missed)));
    }
    complaints.check("report's stat", wide(ledger.stat), observed.stat_end.into(), bytes, 0);
    if let KindRow { stat: Some(stat), baseline: Some(baseline), live: Some(live), unattributed: Some(unattributed), .. } = ledger {
        let sum = i128::from(baseline) + i128::from(live) - i128::from(ledger.unmapped.unwrap_or(0)) + i128::from(unattributed);
        if sum != i128::from(stat) {
            complaints.failures.push(format!("baseline + live - unmapped + unattributed is {sum}, stat {stat}"));
        }
    }
    // 5.10 on v2 does not tell kernel memory: there is nothing to compare usage with.
    if let (true, Some(change)) = (row.compare_usage, observed.usage_change) {
        complaints.check("live, against usage,", wide(ledger.live), change.into(), bytes + lost + observed.charge_batching, live_stderr);
    }
    if live.unsigned_abs() >= SHARE_FROM && !observed.share.is_some_and(|share| share >= SHARE) {
        complaints.failures.push(format!("known functions own {:?} of live bytes, at least {SHARE} expected", observed.share));
    }
    let title = format!("{} {} {tier}", row.name, if mode == Mode::Exact { "exact" } else { "default" });
    Filled { title, expected, observed, bound: bytes, laid_to_passed_over, failures: complaints.failures, gross: complaints.gross }
}

fn check_charged(complaints: &mut Complaints, row: &Row, bound: Bound, expected: Expected, observed: Observed, lost: u64) {
    let ledger = observed.ledger;
    let bytes = bound.of(expected.charged) + observed.batching + lost;
    let stderr = ledger.charged_stderr.unwrap_or(0);
    complaints.check_stderr("charged", ledger.charged_stderr, observed.mean_bytes, ledger.charged);
    let function = Some(i128::from(observed.function_charged));
    match row.charged {
        Charged::Equal => {
            complaints.check("charged", ledger.charged.map(i128::from), expected.charged.into(), bytes, stderr);
        }
        Charged::AtLeast => {
            // More than was expected counts as just enough.
            let capped = ledger.charged.map(|charged| i128::from(charged.min(expected.charged)));
            complaints.check("charged", capped, expected.charged.into(), bytes, stderr);
        }
    }
    complaints.check("charged by known functions", function, expected.charged.into(), bytes, stderr);
}

impl fmt::Display for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, observed, ledger) = (&self.expected, &self.observed, &self.observed.ledger);
        write!(f, "{:<36} expected {:>+11}  stat {:>+11}", self.title, expected.resident, observed.stat_end - observed.stat_start)?;
        write!(f, "  live {:>11}  charged {:>11} of {:>11}", known(ledger.live), known(ledger.charged), expected.charged)?;
        write!(f, "  baseline {:>11}  unmapped {:>10}", known(ledger.baseline), known(ledger.unmapped))?;
        write!(f, "  missed {:>9}  unattributed {:>9}", known(ledger.missed), known(ledger.unattributed))?;
        write!(f, "  stderr {:>9}  M {}  bound {}", known(ledger.live_stderr), observed.mean_bytes, self.bound)?;
        write!(
            f,
            "  batching {}  passed over {}  share {}",
            observed.batching,
            observed.recursion_misses,
            observed.share.map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share))
        )?;
        if self.laid_to_passed_over > 0 {
            write!(f, "  missed is {} beyond the bound", self.laid_to_passed_over)?;
        }
        if self.failures.is_empty() { write!(f, "  ok") } else { write!(f, "  FAIL: {}", self.failures.join("; ")) }
    }
}

fn known<T: fmt::Display>(figure: Option<T>) -> String {
    figure.map_or("-".to_owned(), |figure| figure.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::{USUAL, row};
    use super::*;

    const MIB: i64 = 1 << 20;

    fn right() -> (Expected, Observed) {
        let live = 128 * MIB as u64;
        let ledger = KindRow {
            stat: Some(live + 200_000),
            baseline: Some(200_000),
            charged: Some(2 * live),
            charged_stderr: Some(0),
            live: Some(live),
            live_stderr: Some(0),
            unmapped: Some(0),
            missed: Some(0),
            unattributed: Some(0),
        };
        let expected = Expected { resident: 128 * MIB, unmapped: 0, charged: 2 * live };
        let observed = Observed {
            stat_start: 200_000,
            stat_end: 128 * MIB + 200_000,
            usage_change: None,
            ledger,
            mean_bytes: 1 << 20,
            share: Some(1.0),
            function_charged: 2 * live,
            batching: 0,
            charge_batching: 0,
            recursion_misses: 0,
        };
        (expected, observed)
    }

    fn failures(mode: Mode, change: impl FnOnce(&mut Observed)) -> Vec<String> {
        let (expected, mut observed) = right();
        change(&mut observed);
        judge(row("anon").unwrap(), mode, "fentry", USUAL.typed, expected, observed).failures
    }

    #[test]
    fn a_right_report_passes() {
        assert_eq!(failures(Mode::Exact, |_| ()), Vec::<String>::new());
        assert_eq!(failures(Mode::Default, |_| ()), Vec::<String>::new());
    }

    #[test]
    fn each_figure_out_of_bounds_fails() {
        let cases: [fn(&mut Observed); 10] = [
            |o| o.ledger.missed = Some(-MIB),
            |o| o.ledger.live = Some(127 * MIB as u64),
            |o| o.ledger.charged = Some(250 * MIB as u64),
            |o| o.ledger.baseline = None,
            |o| o.ledger.unmapped = Some(MIB as u64),
            |o| o.ledger.unattributed = Some(-MIB),
            |o| o.ledger.live_stderr = Some(1),
            |o| o.share = Some(0.9),
            |o| o.function_charged = 0,
            |o| o.stat_end += 4 * MIB,
        ];
        for (number, case) in cases.into_iter().enumerate() {
            assert!(!failures(Mode::Exact, case).is_empty(), "case {number}");
        }
    }

    #[test]
    fn what_no_program_saw_to_be_charged_is_missed_as_well() {
        let (expected, right) = right();
        let bound = judge(row("anon").unwrap(), Mode::Exact, "kprobe", USUAL.typed, expected, right).bound;
        let of_charged = USUAL.typed.of(expected.charged);
        let is_right = |short: u64, missed: u64, misses: u64| {
            let mut observed = right;
            (observed.ledger.missed, observed.recursion_misses) = (Some(missed as i64), misses);
            observed.ledger.charged = Some(expected.charged - short);
            observed.function_charged = expected.charged - short;
            judge(row("anon").unwrap(), Mode::Exact, "kprobe", USUAL.typed, expected, observed).failures.is_empty()
        };
        assert!(is_right(of_charged, 0, 0) && !is_right(of_charged + 4096, 0, 0));
        assert!(is_right(of_charged + 8 * 4096, bound + 8 * 4096, 8));
        assert!(!is_right(of_charged + 9 * 4096, bound + 8 * 4096, 8), "more than the counters missed");
        assert!(!is_right(of_charged + 8 * 4096, 0, 8), "the counters saw it");
        assert!(!is_right(of_charged + 8 * 4096, bound + 8 * 4096, 7), "more than was passed over");
    }

    #[test]
    fn what_is_laid_to_calls_passed_over_is_bounded_and_told() {
        let (expected, right) = right();
        let judged = |name: &str, missed: i64, misses: u64| {
            let mut observed = right;
            observed.ledger.missed = Some(missed);
            observed.recursion_misses = misses;
            judge(row(name).unwrap(), Mode::Exact, "fentry", USUAL.typed, expected, observed)
        };
        let bound = judged("anon", 0, 0).bound as i64;
        for (name, missed, misses, is_right) in [
            ("anon", bound, 0, true),
            ("anon", bound + 4096, 0, false),
            ("anon", -bound - 4 * 4096, 4, true),
            // One call is about a page there.
            ("anon", bound + 5 * 4096, 4, false),
            // A huge page is one call.
            ("thp_whole", bound + 2 * MIB, 1, true),
            ("thp_whole", bound + 2 * MIB + 1, 1, false),
            // However many they are.
            ("anon", bound + 256 * MIB / 20, 1 << 40, true),
            ("anon", bound + 256 * MIB / 20 + 4096, 1 << 40, false),
        ] {
            let filled = judged(name, missed, misses);
            assert_eq!(filled.failures.is_empty(), is_right, "{name} {missed} {misses}: {:?}", filled.failures);
            assert_eq!(filled.laid_to_passed_over, missed.unsigned_abs() - bound.unsigned_abs());
            assert_eq!(filled.to_string().contains("beyond the bound"), missed.unsigned_abs() > bound.unsigned_abs());
        }
    }

    /// Figures of a machine on which one call of 2,419 that were passed over was that of a huge page whose second half was given back later.
    #[test]
    fn a_huge_page_whose_charge_was_passed_over_is_a_loss_that_is_told() {
        let row = row("thp_holes").unwrap();
        let expected = Expected { resident: 8 * MIB, unmapped: 8 * MIB, charged: 16 * MIB as u64 };
        let ledger = |missed: u64| {
            let of = |bytes: i64| (bytes - missed as i64) as u64;
            let (live, unmapped) = (of(16 * MIB), of(8 * MIB) + missed / 2);
            let unattributed = Some(8 * MIB - live as i64 + unmapped as i64);
            let baseline = Some(200_000);
            let stat = Some(8 * MIB as u64 + 200_000);
            let (live, unmapped, charged, zero) = (Some(live), Some(unmapped), Some(live), Some(0));
            KindRow {
                stat,
                baseline,
                charged,
                charged_stderr: zero,
                live,
                live_stderr: zero,
                unmapped,
                missed: Some(missed as i64 / 2),
                unattributed,
            }
        };
        let (_, right) = right();
        let failures = |missed: u64, misses: u64, told: i64| {
            let ledger = KindRow { missed: Some(told), ..ledger(missed) };
            let (stat_start, stat_end, function_charged) = (200_000, 8 * MIB + 200_000, ledger.charged.unwrap());
            let usage_change = Some(16 * MIB);
            let observed = Observed { ledger, stat_start, stat_end, function_charged, usage_change, recursion_misses: misses, ..right };
            judge(row, Mode::Exact, "kprobe", USUAL.typed, expected, observed).failures
        };
        let huge = 2 * MIB as u64;
        assert_eq!(failures(0, 0, 0), [""; 0]);
        assert_eq!(failures(huge, 2419, MIB), [""; 0]);
        assert!(!failures(huge, 0, MIB).is_empty(), "no call was passed over");
        assert!(!failures(huge, 2419, 0).is_empty(), "the counters saw it");
        assert!(!failures(2 * huge, 2419, 2 * MIB).is_empty(), "two are more than the kernel passes over");
    }

    #[test]
    fn a_ledger_that_does_not_add_up_fails() {
        let complaints = failures(Mode::Exact, |o| o.ledger.unattributed = Some(1));
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains("stat"), "{complaints:?}");
    }

    #[test]
    fn sampling_is_bounded_by_its_own_error_and_by_m() {
        let sampled = |live: u64, stderr: u64| {
            failures(Mode::Default, |o| {
                o.ledger.live = Some(live);
                o.ledger.live_stderr = Some(stderr);
                o.ledger.unattributed = Some(128 * MIB - live as i64);
            })
        };
        // M is 1 MiB: the standard error of 128 MiB is 11.3 MiB at most.
        assert_eq!(sampled(110 * MIB as u64, 10 * MIB as u64), Vec::<String>::new());
        assert!(!sampled(110 * MIB as u64, 5 * MIB as u64).is_empty(), "more than three standard errors off");
        assert!(!sampled(120 * MIB as u64, 12 * MIB as u64).is_empty(), "a larger standard error than M allows");
    }

    #[test]
    fn memory_from_before_is_baseline() {
        let (_, mut observed) = right();
        let expected = Expected { resident: -128 * MIB, unmapped: 0, charged: 0 };
        observed.stat_start = 256 * MIB;
        observed.stat_end = 128 * MIB;
        observed.function_charged = 0;
        observed.share = None;
        let ledger = KindRow {
            stat: Some(128 * MIB as u64),
            baseline: Some(128 * MIB as u64),
            live: Some(0),
            charged: Some(0),
            unattributed: Some(0),
            ..observed.ledger
        };
        observed.ledger = ledger;
        let judged = |observed| judge(row("baseline").unwrap(), Mode::Exact, "fentry", USUAL.typed, expected, observed).failures;
        assert_eq!(judged(observed), Vec::<String>::new());
        observed.ledger = KindRow { baseline: Some(256 * MIB as u64), unattributed: Some(-128 * MIB), ..ledger };
        assert_eq!(judged(observed).len(), 2, "{:?}", judged(observed));
    }

    #[test]
    fn the_printed_row_has_its_verdict() {
        let (expected, mut observed) = right();
        let print = |observed| judge(row("anon").unwrap(), Mode::Exact, "kprobe", USUAL.typed, expected, observed).to_string();
        assert!(print(observed).ends_with("  ok"));
        observed.ledger.live = None;
        assert!(print(observed).contains("FAIL: live unknown"), "{}", print(observed));
    }

    #[test]
    fn few_samples_may_be_off_as_far_as_poisson_says() {
        // 0.07 samples expected: two are as rare as one figure in 420, three rarer than one in 740.
        assert_eq!(widest(1 << 20, 73_728).round() as u64, 2 * (1 << 20) - 73_728);
        // Many are normal.
        assert_eq!(widest(1 << 20, 100 << 20), 3.0 * spread(1 << 20, 100 << 20));
    }
}
