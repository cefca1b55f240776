//! Where a run was steady, if it ever was.
//!
//! New work arrives from the first scheduled instant to the last. Of that, what is still filling up is
//! cut off (MSER: the cut that leaves the surest mean), and nothing is left where the system never
//! settled or fell behind: a rate measured then describes how long the run was.

use super::rates::{Window, WindowKind, open_mean};
use crate::{Load, Outcome, Record};

/// With fewer requests nothing can be told from chance.
const ENOUGH: usize = 100;
/// Batches of which means are taken.
const BATCHES: usize = 40;
/// Means before and after a cut that are nearer than this, as a share, are one.
const LIKE: f64 = 0.2;
/// Growth between the third and the fourth quarter beyond which the system falls behind, as a share.
const GROWTH: f64 = 0.25;

/// Finds the steady window of a run.
pub(super) fn window(load: &Load, records: &[Record]) -> Window {
    let whole = Window::of(records);
    let arrived = records.iter().filter(|r| r.outcome != Outcome::Dropped);
    if whole.kind == WindowKind::Whole || arrived.clone().count() < ENOUGH {
        return whole;
    }
    let is_open = matches!(load, Load::Open { .. });
    // In an open loop from when it was scheduled: what waits for a cap is in the system, too.
    let span = |r: &Record| match is_open {
        true => Some((r.scheduled, r.done)),
        false => Some((r.dispatched?, r.done)),
    };
    let width = (whole.end - whole.start) / BATCHES as u64;
    if width == 0 {
        return whole;
    }
    let batch = |i: usize| {
        let start = whole.start + i as u64 * width;
        let of = Window {
            start,
            end: start + width,
            kind: whole.kind,
        };
        open_mean(of, arrived.clone().filter_map(span)).unwrap_or(0.0)
    };
    let means: Vec<f64> = (0..BATCHES).map(batch).collect();
    let unsteady = Window {
        kind: WindowKind::Unsteady,
        ..whole
    };
    if is_open && falls_behind(&means) {
        return unsteady;
    }
    match cut(&means) {
        Some(batches) => Window {
            start: whole.start + batches as u64 * width,
            ..whole
        },
        None => unsteady,
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Whether more and more is in the system, more than chance would bring.
fn falls_behind(means: &[f64]) -> bool {
    let quarter = means.len() / 4;
    let before = mean(&means[2 * quarter..3 * quarter]);
    let after = mean(&means[3 * quarter..]);
    // Chance alone moves a Poisson-like number by its root.
    let chance = 2.0 * before.max(1.0).sqrt();
    after / before.max(1.0) - 1.0 > GROWTH && after - before > chance
}

/// How many batches to leave out at the beginning; `None` if even half of them were not enough.
fn cut(means: &[f64]) -> Option<usize> {
    let half = means.len() / 2;
    let error = |d: &usize| {
        let rest = &means[*d..];
        let centre = mean(rest);
        let squares: f64 = rest.iter().map(|v| (v - centre).powi(2)).sum();
        squares / (rest.len() as f64).powi(2)
    };
    let best = (0..=half).min_by(|a, b| error(a).total_cmp(&error(b)))?;
    if best == 0 {
        return Some(0);
    }
    let (before, after) = (mean(&means[..best]), mean(&means[best..]));
    let is_other = (before - after).abs() > LIKE * after.abs().max(f64::MIN_POSITIVE);
    match (is_other, best < half) {
        // What was left out was no different: chance chose.
        (false, _) => Some(0),
        (true, true) => Some(best),
        (true, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{closed, completed, open};

    /// 400 requests, one every 10 ms, that take as long as `lasts` says.
    fn run(lasts: impl Fn(u64) -> u64) -> Vec<Record> {
        let one = |i: u64| completed(10 * i, 10 * i, &[(10 * i + lasts(i), 1)]);
        (0..400).map(one).collect()
    }

    #[test]
    fn a_steady_run_is_taken_whole_but_for_its_beginning() {
        let window = window(&open(), &run(|_| 500));
        assert_eq!(window.kind, WindowKind::Steady);
        // It takes half a second until as many are in flight as there will be.
        let start = window.start as f64 / 1e6;
        assert!((300.0..=900.0).contains(&start), "{start}");
        let short = self::window(&open(), &run(|_| 20));
        assert_eq!((short.kind, short.start), (WindowKind::Steady, 0));
    }

    #[test]
    fn a_system_that_falls_behind_is_never_steady() {
        assert_eq!(window(&open(), &run(|i| 20 * i)).kind, WindowKind::Unsteady);
        // Users wait for their answers: the same latencies are no backlog.
        assert_ne!(window(&closed(4), &run(|_| 40)).kind, WindowKind::Unsteady);
    }

    #[test]
    fn a_cut_leaves_what_is_alike() {
        let mut means = vec![10.0; 40];
        assert_eq!(cut(&means), Some(0));
        means[..6].fill(2.0);
        assert_eq!(cut(&means), Some(6));
        let ramp: Vec<f64> = (0..40).map(f64::from).collect();
        assert_eq!(cut(&ramp), None);
    }
}
