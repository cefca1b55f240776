//! A straight line through values at a few places, what it says of a place beyond them, and whether the
//! values lie on one. Knows no units: places are numbers such as counts of layers.
//!
//! Ordinary least squares and the test for lack of fit, as in Draper and Smith, *Applied Regression
//! Analysis*, 3rd edition, sections 1.3, 1.4 and 2.1: values at one place differ by noise alone, so that
//! noise is known apart from how well a line fits.

use crate::{Interval, mean, student_quantile};

/// All values that were measured at one place.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// The place.
    pub x: f64,
    /// The values.
    pub values: Vec<f64>,
}

/// A line and what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its value at 0.
    pub fixed: f64,
    /// What a step of 1 adds.
    pub slope: f64,
    /// Places in ascending order with the mean of their values and how far that is from the line.
    pub levels: Vec<Deviation>,
    sums: Sums,
}

/// How far the values of one place are from the line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// The place.
    pub x: f64,
    /// The mean of its values.
    pub mean: f64,
    /// The line there.
    pub fitted: f64,
    /// Standard errors of the noise between the two; `None` where no place has two values.
    pub standard_errors: Option<f64>,
}

impl Deviation {
    /// `(mean − fitted) / fitted`.
    #[must_use]
    pub fn relative(&self) -> f64 {
        (self.mean - self.fitted) / self.fitted
    }
}

/// What a fit leaves behind.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sums {
    /// Values.
    n: f64,
    /// Places.
    n_levels: f64,
    /// The mean place, by values.
    centre: f64,
    /// Squares of places around it, by values.
    spread: f64,
    /// Squares of values around the means of their places.
    pure: f64,
    /// Squares of those means around the line, by values.
    lack: f64,
}

impl Line {
    /// Fits a line; `None` for fewer than two places with values, and for what is not finite. Values of
    /// equal places count together.
    #[must_use]
    pub fn fit(levels: &[Level]) -> Option<Self> {
        let groups = grouped(levels)?;
        let n: f64 = groups.iter().map(|(_, values)| values.len() as f64).sum();
        let weighted = |of: &dyn Fn(f64, f64) -> f64| -> Option<f64> {
            let terms = groups.iter().map(|(x, values)| {
                let centre = mean(values)?;
                Some(values.len() as f64 * of(*x, centre))
            });
            terms.sum()
        };
        let centre = weighted(&|x, _| x)? / n;
        let middle = weighted(&|_, y| y)? / n;
        let spread = weighted(&|x, _| (x - centre).powi(2))?;
        let slope = weighted(&|x, y| (x - centre) * (y - middle))? / spread;
        let fixed = middle - slope * centre;
        let lack = weighted(&|x, y| (y - fixed - slope * x).powi(2))?;
        let squares = |values: &Vec<f64>| -> Option<f64> {
            let centre = mean(values)?;
            Some(values.iter().map(|value| (value - centre).powi(2)).sum())
        };
        let pure: Option<f64> = groups.iter().map(|(_, values)| squares(values)).sum();
        let sums = Sums {
            n,
            n_levels: groups.len() as f64,
            centre,
            spread,
            pure: pure?,
            lack,
        };
        let deviation = |(x, values): &(f64, Vec<f64>)| {
            let fitted = fixed + slope * x;
            let mean = mean(values)?;
            Some(Deviation {
                x: *x,
                mean,
                fitted,
                standard_errors: sums.standard_errors(*x, values.len() as f64, mean - fitted),
            })
        };
        Some(Self {
            fixed,
            slope,
            levels: groups.iter().map(deviation).collect::<Option<_>>()?,
            sums,
        })
    }

    /// The line at `x`.
    #[must_use]
    pub fn at(&self, x: f64) -> f64 {
        self.fixed + self.slope * x
    }

    /// Degrees of freedom of the noise: values beyond the first of each place.
    #[must_use]
    pub fn noise_freedom(&self) -> f64 {
        self.sums.n - self.sums.n_levels
    }

    /// The interval of the line at `x`, by Student's distribution; `None` where nothing tells how
    /// uncertain it is, as with two places of one value each, and for a `level` outside 0..1.
    ///
    /// Noise and what the line leaves of the means count together where the means are as near to the line as
    /// noise would leave them. Where they are not, what is left of the means counts alone, with its fewer
    /// degrees of freedom, which is wider.
    #[must_use]
    pub fn interval(&self, x: f64, level: f64) -> Option<Interval> {
        if !(level > 0.0 && level < 1.0) {
            return None;
        }
        let sums = &self.sums;
        let all = Some(((sums.pure + sums.lack) / (sums.n - 2.0), sums.n - 2.0));
        let free = sums.n_levels - 2.0;
        let means = (free > 0.0).then(|| (sums.lack / free, free));
        let known = |estimate: &(f64, f64)| estimate.1 > 0.0;
        let candidates = [
            all.filter(known),
            means.filter(|_| !self.is_straight(level)),
        ];
        let distance = (x - sums.centre).powi(2) / sums.spread;
        let half = |(variance, freedom): (f64, f64)| {
            let error = (variance * (1.0 / sums.n + distance)).sqrt();
            student_quantile(0.5 + level / 2.0, freedom) * error
        };
        let half = candidates
            .into_iter()
            .flatten()
            .map(half)
            .reduce(f64::max)?;
        let centre = self.at(x);
        Some(Interval {
            low: centre - half,
            high: centre + half,
            level,
        })
    }

    /// Places whose mean is farther from the line than noise explains, at a confidence of `level` for all
    /// of them together (Bonferroni); none where the noise is not known.
    pub fn beyond_noise(&self, level: f64) -> impl Iterator<Item = &Deviation> {
        let each = 1.0 - (1.0 - level) / self.levels.len() as f64;
        let freedom = self.noise_freedom();
        let limit = match freedom > 0.0 && each > 0.0 && each < 1.0 {
            true => student_quantile(0.5 + each / 2.0, freedom),
            false => f64::INFINITY,
        };
        let is_beyond = move |deviation: &&Deviation| {
            deviation
                .standard_errors
                .is_some_and(|errors| errors > limit)
        };
        self.levels.iter().filter(is_beyond)
    }

    fn is_straight(&self, level: f64) -> bool {
        self.beyond_noise(level).next().is_none()
    }
}

impl Sums {
    /// How many standard errors of the noise a mean is from the line.
    fn standard_errors(&self, x: f64, n: f64, off: f64) -> Option<f64> {
        let freedom = self.n - self.n_levels;
        if freedom <= 0.0 {
            return None;
        }
        let leverage = 1.0 / self.n + (x - self.centre).powi(2) / self.spread;
        let variance = self.pure / freedom * (1.0 / n - leverage);
        // Of two places a line goes through both means; what rounding leaves is no deviation.
        let is_through = 1.0 / n - leverage < 1e-12;
        Some(match (is_through, variance > 0.0) {
            (true, _) => 0.0,
            (false, true) => off.abs() / variance.sqrt(),
            (false, false) if off == 0.0 => 0.0,
            (false, false) => f64::INFINITY,
        })
    }
}

/// Values by place, in ascending order; `None` if there are fewer than two places or not all is finite.
fn grouped(levels: &[Level]) -> Option<Vec<(f64, Vec<f64>)>> {
    let mut groups: Vec<(f64, Vec<f64>)> = Vec::new();
    for level in levels.iter().filter(|level| !level.values.is_empty()) {
        let is_finite = level.values.iter().all(|value| value.is_finite());
        if !is_finite || !level.x.is_finite() {
            return None;
        }
        match groups.iter_mut().find(|(x, _)| *x == level.x) {
            Some((_, values)) => values.extend(&level.values),
            None => groups.push((level.x, level.values.clone())),
        }
    }
    groups.sort_by(|a, b| a.0.total_cmp(&b.0));
    (groups.len() >= 2).then_some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(all: &[(f64, &[f64])]) -> Vec<Level> {
        let level = |(x, values): &(f64, &[f64])| Level {
            x: *x,
            values: values.to_vec(),
        };
        all.iter().map(level).collect()
    }

    fn fit(all: &[(f64, &[f64])]) -> Line {
        Line::fit(&levels(all)).expect("a line")
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-9, "{found} for {wanted}");
    }

    #[test]
    fn two_places_give_a_line_and_say_how_sure_it_is_if_they_can() {
        let line = fit(&[(2.0, &[10.0]), (4.0, &[16.0])]);
        near(line.fixed, 4.0);
        near(line.slope, 3.0);
        near(line.at(32.0), 100.0);
        assert_eq!(line.interval(32.0, 0.95), None);
        // Means as above, 2 squares of 1 in each place: s² = 4/2, spread 4, distance 29² / 4.
        let line = fit(&[(2.0, &[9.0, 11.0]), (4.0, &[15.0, 17.0])]);
        near(line.at(32.0), 100.0);
        let half = 4.302_652_73 * (2.0 * (0.25 + 29.0_f64.powi(2) / 4.0)).sqrt();
        let interval = line.interval(32.0, 0.95).expect("noise is known");
        assert!((interval.high - 100.0 - half).abs() < 1e-4, "{interval:?}");
        near(interval.high - 100.0, 100.0 - interval.low);
    }

    #[test]
    fn least_squares_are_those_of_the_textbook() {
        // By hand: x̄ = 3, ȳ = 4, Sxx = 10, Sxy = 6.
        let line = fit(&[
            (1.0, &[2.0]),
            (2.0, &[4.0]),
            (3.0, &[5.0]),
            (4.0, &[4.0]),
            (5.0, &[5.0]),
        ]);
        near(line.slope, 0.6);
        near(line.fixed, 2.2);
        // Residual squares 2.4, of 3 degrees of freedom; at the centre the error is √(0.8 / 5).
        let interval = line.interval(3.0, 0.95).expect("an interval");
        let half = 3.182_446_31 * (0.8_f64 / 5.0).sqrt();
        assert!((interval.high - 4.0 - half).abs() < 1e-6);
    }

    #[test]
    fn a_bend_is_told_from_noise() {
        let bent = fit(&[
            (1.0, &[1.0, 1.01, 0.99]),
            (2.0, &[2.0, 2.01, 1.99]),
            (3.0, &[3.4, 3.41, 3.39]),
        ]);
        assert_eq!(bent.beyond_noise(0.99).count(), 3);
        let noisy = fit(&[
            (1.0, &[1.0, 1.4, 0.6]),
            (2.0, &[2.0, 2.4, 1.6]),
            (3.0, &[3.4, 3.8, 3.0]),
        ]);
        assert_eq!(noisy.beyond_noise(0.99).count(), 0);
        // The interval of the bent one knows only three means: one degree of freedom.
        let narrow = bent.interval(30.0, 0.95).expect("an interval");
        assert!(narrow.high - narrow.low > 30.0, "{narrow:?}");
    }

    #[test]
    fn noise_that_is_not_there_hides_no_bend() {
        let exact = fit(&[(1.0, &[1.0, 1.0]), (2.0, &[2.0, 2.0]), (3.0, &[4.0, 4.0])]);
        assert!(exact.beyond_noise(0.99).count() > 0);
        let alone = fit(&[(1.0, &[1.0]), (2.0, &[2.0]), (3.0, &[4.0])]);
        assert_eq!(alone.beyond_noise(0.99).count(), 0);
        assert_eq!(alone.noise_freedom(), 0.0);
        assert!(alone.levels.iter().all(|l| l.standard_errors.is_none()));
    }

    #[test]
    fn fewer_than_two_places_are_no_line() {
        for all in [
            vec![],
            levels(&[(2.0, &[1.0, 2.0])]),
            levels(&[(2.0, &[1.0]), (2.0, &[2.0])]),
            levels(&[(2.0, &[1.0]), (3.0, &[])]),
            levels(&[(2.0, &[1.0]), (3.0, &[f64::INFINITY])]),
        ] {
            assert_eq!(Line::fit(&all), None, "{all:?}");
        }
    }
}
