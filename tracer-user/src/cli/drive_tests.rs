use super::*;
use crate::cli::traced_double::Double;

/// Counts what it is told, and has enough after so many readings or kills.
#[derive(Default)]
struct Counting {
    ticks: u32,
    kills: u32,
    most_ticks: u32,
    most_kills: u32,
    /// Told before each reading.
    before: Option<fn(&mut Double, u32)>,
}

impl Task<Double> for Counting {
    fn tick(&mut self, trace: &mut Double) -> Result<()> {
        if let Some(before) = self.before {
            before(trace, self.ticks);
        }
        self.ticks += 1;
        trace.interval().map(drop)
    }

    fn kills(&mut self, _trace: &mut Double) -> Result<()> {
        self.kills += 1;
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.most_ticks > 0 && self.ticks >= self.most_ticks || self.most_kills > 0 && self.kills >= self.most_kills
    }
}

fn drive(duration: Option<Duration>) -> Drive<'static> {
    let interval = Duration::from_millis(1);
    Drive { interval, duration, interrupts: None, command: None, marking: None, asks: None, shows_time: false }
}

fn run(trace: &mut Double, verb: &mut Counting, duration: Option<Duration>) -> Driven {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { drive(duration).run(trace, verb).await })
}

#[test]
fn it_ends_when_the_time_is_over_or_the_verb_has_enough() {
    let mut verb = Counting::default();
    let driven = run(&mut Double::new(), &mut verb, Some(Duration::from_millis(50)));
    assert!(driven.error.is_none() && driven.faults.count() == 0 && verb.ticks > 3, "{}", verb.ticks);
    let mut verb = Counting { most_ticks: 7, ..Counting::default() };
    let driven = run(&mut Double::new(), &mut verb, None);
    assert_eq!((driven.error.is_none(), verb.ticks), (true, 7));
}

#[test]
fn readings_that_fail_now_and_then_are_counted_and_it_goes_on() {
    let mut trace = Double { reading_fails: |n| n % MOST_FAILURES != 0, ..Double::new() };
    let mut verb = Counting { most_ticks: 3 * MOST_FAILURES, ..Counting::default() };
    let driven = run(&mut trace, &mut verb, None);
    assert!(driven.error.is_none());
    assert_eq!(driven.faults.count(), u64::from(3 * (MOST_FAILURES - 1)));
    assert_eq!(driven.faults.told.len(), 1, "an error is told once");
}

#[test]
fn readings_that_all_fail_end_it_with_the_error() {
    let mut trace = Double { reading_fails: |n| n > 4, ..Double::new() };
    let mut verb = Counting::default();
    let driven = run(&mut trace, &mut verb, None);
    let error = format!("{:#}", driven.error.unwrap());
    assert_eq!(error, "10 readings in a row failed: KEYS: device or resource busy");
    assert_eq!((verb.ticks, driven.faults.count()), (5 + MOST_FAILURES, u64::from(MOST_FAILURES)));
}

#[test]
fn events_that_cannot_be_taken_in_end_nothing() {
    let mut trace = Double { events_fail: true, ..Double::new() };
    let before: fn(&mut Double, u32) = |trace, _| trace.make_event();
    let mut verb = Counting { most_ticks: 3 * MOST_FAILURES, before: Some(before), ..Counting::default() };
    let driven = run(&mut trace, &mut verb, None);
    assert!(driven.error.is_none() && trace.events_taken > 0);
    assert_eq!(driven.faults.count(), u64::from(trace.events_taken));
}

#[test]
fn kills_are_taken_in_at_once_and_told_when_no_more_come() {
    let before: fn(&mut Double, u32) = |trace, tick| {
        if tick < 3 {
            trace.make_kill();
        }
    };
    let (mut trace, began) = (Double::new(), Instant::now());
    let mut verb = Counting { most_kills: 1, before: Some(before), ..Counting::default() };
    let driven = run(&mut trace, &mut verb, Some(Duration::from_secs(60)));
    assert!(driven.error.is_none() && trace.kills_taken >= 1);
    assert_eq!(verb.kills, 1);
    assert!(began.elapsed() >= SETTLE, "{:?}", began.elapsed());
}
