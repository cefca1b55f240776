//! Energy out of readings: differences of a counter where there is one, power over time where not.

use std::time::Duration;

/// What was read at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnergyPoint {
    /// Nanoseconds; points are in order.
    pub at: i64,
    /// A counter that grows, millijoules.
    pub energy_mj: Option<u64>,
    /// Power, milliwatts.
    pub power_mw: Option<u64>,
}

/// Energy over the time in which it is known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Energy {
    /// All of it, joules.
    pub joules: f64,
    /// The part of it that is power over time and not a counter's difference, joules.
    pub from_power: f64,
    /// The time that it is of: from, to, nanoseconds; in order, and parted where it is not known.
    pub spans: Vec<(i64, i64)>,
}

impl Energy {
    /// Returns how much time it is of, seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.spans.iter().map(|(from, to)| seconds(to - from)).sum()
    }
}

/// Adds up the energy between points. A counter tells it across any gap; power only where points are no
/// further apart than `longest`, by trapezoids. What neither tells is left out, and is in no span. A counter that
/// fell began anew, and tells nothing of that stretch.
#[must_use]
pub fn energy(points: &[EnergyPoint], longest: Duration) -> Energy {
    let mut energy = Energy::default();
    for pair in points.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let (joules, is_power) = match (counted(from, to), integrated(from, to, longest)) {
            (Some(joules), _) => (joules, false),
            (None, Some(joules)) => (joules, true),
            (None, None) => continue,
        };
        energy.joules += joules;
        energy.from_power += if is_power { joules } else { 0.0 };
        match energy.spans.last_mut() {
            Some((_, end)) if *end == from.at => *end = to.at,
            _ => energy.spans.push((from.at, to.at)),
        }
    }
    energy
}

fn counted(from: EnergyPoint, to: EnergyPoint) -> Option<f64> {
    let millijoules = to.energy_mj?.checked_sub(from.energy_mj?)?;
    Some(number(millijoules) / 1e3)
}

fn integrated(from: EnergyPoint, to: EnergyPoint, longest: Duration) -> Option<f64> {
    let apart = to.at - from.at;
    let mean = f64::midpoint(number(from.power_mw?), number(to.power_mw?));
    (i128::from(apart) <= i128::try_from(longest.as_nanos()).unwrap_or(i128::MAX))
        .then(|| mean / 1e3 * seconds(apart))
}

#[expect(clippy::cast_precision_loss, reason = "no load uses 2^53 millijoules")]
fn number(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "no load lasts 2^53 ns")]
fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: Duration = Duration::from_secs(2);

    fn at(s: i64, energy_mj: Option<u64>, power_mw: Option<u64>) -> EnergyPoint {
        EnergyPoint {
            at: s * 1_000_000_000,
            energy_mj,
            power_mw,
        }
    }

    fn spans(energy: &Energy) -> Vec<(i64, i64)> {
        let s = |ns: i64| ns / 1_000_000_000;
        energy.spans.iter().map(|(a, b)| (s(*a), s(*b))).collect()
    }

    #[test]
    fn a_counter_counts_across_gaps_and_before_power() {
        let points = [
            at(0, Some(1_000), Some(5_000)),
            at(1, Some(3_000), Some(9_000)),
            at(9, Some(4_000), None),
        ];
        let energy = energy(&points, LONGEST);
        assert_eq!((energy.joules, energy.from_power), (3.0, 0.0));
        assert_eq!((spans(&energy), energy.seconds()), (vec![(0, 9)], 9.0));
    }

    #[test]
    fn power_is_taken_over_time_and_never_over_a_gap() {
        let power = |s, watts: u64| at(s, None, Some(watts * 1_000));
        let points = [power(0, 100), power(1, 300), power(4, 300), power(5, 100)];
        let energy = energy(&points, LONGEST);
        assert_eq!((energy.joules, energy.from_power), (400.0, 400.0));
        assert_eq!(spans(&energy), [(0, 1), (4, 5)]);
    }

    #[test]
    fn a_counter_that_fell_tells_nothing_and_power_stands_in() {
        let points = [
            at(0, Some(9_000), Some(2_000)),
            at(1, Some(10), Some(4_000)),
            at(2, Some(1_010), None),
        ];
        let energy = energy(&points, LONGEST);
        assert_eq!((energy.joules, energy.from_power), (4.0, 3.0));
        assert!(super::energy(&points[..1], LONGEST).spans.is_empty());
    }

    proptest! {
        #[test]
        fn a_whole_counter_gives_its_difference(steps in prop::collection::vec((1_i64..9, 0_u64..1_000_000), 1..20)) {
            let (mut s, mut mj) = (0, 7);
            let mut points = vec![at(s, Some(mj), None)];
            for (apart, used) in steps {
                (s, mj) = (s + apart, mj + used);
                points.push(at(s, Some(mj), None));
            }
            let energy = energy(&points, LONGEST);
            prop_assert!((energy.joules - number(mj - 7) / 1e3).abs() < 1e-6);
            prop_assert_eq!(spans(&energy), vec![(0, s)]);
        }
    }
}
