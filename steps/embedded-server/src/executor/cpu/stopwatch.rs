//! Where the time of a step goes, by class of work.

use crate::executor::Operation;
use std::time::{Duration, Instant};

/// Time since it was started, divided among operations. One clock reading per lap.
#[derive(Debug)]
pub(super) struct Stopwatch {
    last: Instant,
    totals: Vec<(Operation, Duration)>,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Stopwatch {
            last: Instant::now(),
            totals: Vec::with_capacity(7),
        }
    }

    /// Gives the time since the last lap to `operation`.
    pub(super) fn lap(&mut self, operation: Operation) {
        let now = Instant::now();
        let elapsed = now - self.last;
        self.last = now;
        match self
            .totals
            .iter_mut()
            .find(|(known, _)| *known == operation)
        {
            Some((_, total)) => *total += elapsed,
            None => self.totals.push((operation, elapsed)),
        }
    }

    /// The totals, each operation once, in the order of their first laps.
    pub(super) fn finish(self) -> Vec<(Operation, Duration)> {
        self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_of_one_operation_add_up_to_one_entry() {
        let begin = Instant::now();
        let mut watch = Stopwatch::start();
        for operation in [Operation::Norm, Operation::Mlp, Operation::Norm] {
            watch.lap(operation);
        }
        let totals = watch.finish();
        let operations: Vec<_> = totals.iter().map(|(operation, _)| *operation).collect();
        assert_eq!(operations, [Operation::Norm, Operation::Mlp]);
        assert!(totals.iter().map(|(_, total)| *total).sum::<Duration>() <= begin.elapsed());
    }
}
