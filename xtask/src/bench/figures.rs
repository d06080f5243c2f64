//! Measured times of one storm under one condition, and what is said of them.

/// Times of one operation, nanoseconds; never empty.
pub struct Samples {
    sorted: Vec<f64>,
}

impl Samples {
    /// The first.
    pub fn of(first: f64) -> Samples {
        Samples { sorted: vec![first] }
    }

    /// One more.
    pub fn add(&mut self, ns: f64) {
        let at = self.sorted.partition_point(|&other| other < ns);
        self.sorted.insert(at, ns);
    }

    /// The median; of an even number the lower of the two in the middle, which is one that was measured.
    pub fn median(&self) -> f64 {
        middle(&self.sorted)
    }

    /// The least: the time with the least disturbance by others.
    pub fn least(&self) -> f64 {
        self.sorted[0]
    }
}

/// Samples of each round, in the order of the rounds; never empty.
pub struct Rounds {
    rounds: Vec<Samples>,
}

impl Rounds {
    /// The first.
    pub fn of(first: Samples) -> Rounds {
        Rounds { rounds: vec![first] }
    }

    /// One more.
    pub fn push(&mut self, round: Samples) {
        self.rounds.push(round);
    }

    /// The median of the rounds' medians.
    pub fn median(&self) -> f64 {
        median(self.rounds.iter().map(Samples::median))
    }

    /// The least of all.
    pub fn least(&self) -> f64 {
        self.rounds.iter().map(Samples::least).fold(f64::INFINITY, f64::min)
    }

    /// What this takes more than `base` by the median, taken round by round: how fast a machine is changes from minute to minute by more than
    /// what is compared, and a round is over in seconds.
    pub fn more_than(&self, base: &Rounds) -> f64 {
        median(self.rounds.iter().zip(&base.rounds).map(|(with, without)| with.median() - without.median()))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    middle(&sorted)
}

fn middle(sorted: &[f64]) -> f64 {
    sorted[(sorted.len() - 1) / 2]
}

/// How many times the extra time of empty programs another extra time is; `None` if that of empty programs drowned in noise.
pub fn cost_ratio(empty: f64, extra: f64) -> Option<f64> {
    (empty > 0.0).then(|| extra / empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_least_do_not_depend_on_order() {
        let mut samples = Samples::of(5.0);
        for ns in [1.0, 9.0, 3.0] {
            samples.add(ns);
        }
        assert_eq!((samples.median(), samples.least()), (3.0, 1.0));
        samples.add(0.5);
        assert_eq!((samples.median(), samples.least()), (3.0, 0.5));
    }

    /// The machine became slower from round to round; the difference did not change.
    #[test]
    fn what_changes_from_round_to_round_is_no_cost() {
        let rounds = |times: [f64; 3]| {
            let mut rounds = Rounds::of(Samples::of(times[0]));
            times[1..].iter().for_each(|&ns| rounds.push(Samples::of(ns)));
            rounds
        };
        let (without, with) = (rounds([100.0, 150.0, 200.0]), rounds([110.0, 160.0, 210.0]));
        assert_eq!((without.median(), with.median(), with.least()), (150.0, 160.0, 110.0));
        assert_eq!(with.more_than(&without), 10.0);
    }

    #[test]
    fn a_ratio_needs_a_cost_to_compare_with() {
        assert_eq!(cost_ratio(10.0, 15.0), Some(1.5));
        assert_eq!(cost_ratio(-1.0, 15.0), None);
    }
}
