//! How fast a figure grows: the slope of a least-squares line, kept in five sums, so that a recording of days takes no more memory
//! than one of seconds. Pure.

/// Sums of a growing series.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slope {
    n: f64,
    t: f64,
    y: f64,
    tt: f64,
    ty: f64,
}

impl Slope {
    /// Takes one point in: seconds since the start, and bytes.
    pub fn add(&mut self, seconds: f64, bytes: f64) {
        self.n += 1.0;
        self.t += seconds;
        self.y += bytes;
        self.tt += seconds * seconds;
        self.ty += seconds * bytes;
    }

    /// Bytes a second; `None` before there are two points at different times.
    #[must_use]
    pub fn per_second(&self) -> Option<f64> {
        let spread = self.n * self.tt - self.t * self.t;
        (self.n >= 2.0 && spread > 1e-9).then(|| (self.n * self.ty - self.t * self.y) / spread)
    }
}

#[cfg(test)]
mod tests {
    use super::Slope;

    #[test]
    fn a_line_has_its_own_slope() {
        let mut slope = Slope::default();
        assert_eq!(slope.per_second(), None);
        for second in 0..100 {
            slope.add(f64::from(second), 1e9 + 4096.0 * f64::from(second));
        }
        assert!(slope.per_second().is_some_and(|s| (s - 4096.0).abs() < 1.0));
    }

    #[test]
    fn one_moment_has_no_slope() {
        let mut slope = Slope::default();
        slope.add(1.0, 5.0);
        slope.add(1.0, 9.0);
        assert_eq!(slope.per_second(), None);
    }

    #[test]
    fn the_slope_of_scattered_points_is_that_of_least_squares() {
        let slope = |points: &[(f64, f64)]| {
            let mut slope = Slope::default();
            points.iter().for_each(|(seconds, bytes)| slope.add(*seconds, *bytes));
            slope.per_second()
        };
        // By hand: n 3, sums t 4, y 6, tt 10, ty 14; (3 * 14 - 4 * 6) / (3 * 10 - 4 * 4).
        assert_eq!(slope(&[(0.0, 0.0), (1.0, 2.0), (3.0, 4.0)]), Some(18.0 / 14.0));
        assert_eq!(slope(&[(2.0, 10.0), (4.0, 4.0)]), Some(-3.0), "what shrinks");
        assert_eq!(slope(&[(7.0, 5.0)]), None, "one point");
    }
}
