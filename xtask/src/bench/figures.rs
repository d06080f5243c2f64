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
        self.sorted[(self.sorted.len() - 1) / 2]
    }

    /// The least: the time with the least disturbance by others.
    pub fn least(&self) -> f64 {
        self.sorted[0]
    }
}

/// What `with` takes more than `without`, in percent.
pub fn percent_more(without: f64, with: f64) -> f64 {
    (with / without - 1.0) * 100.0
}

/// How many times the cost of `base` over `without` the cost of `with` is; `None` if the base's cost drowned in noise.
pub fn cost_ratio(without: f64, base: f64, with: f64) -> Option<f64> {
    (base > without).then(|| (with - without) / (base - without))
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

    #[test]
    fn costs_are_over_the_untraced_time() {
        assert_eq!(percent_more(200.0, 210.0), 5.000000000000004);
        assert_eq!(cost_ratio(200.0, 210.0, 215.0), Some(1.5));
        assert_eq!(cost_ratio(200.0, 199.0, 215.0), None);
    }
}
