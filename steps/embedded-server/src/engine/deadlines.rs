//! When requests that wait have to be answered, as far as they say.
//!
//! Those that wait for the first time may be broken off for it; those that were retracted have begun
//! to be answered, and only press. Who no longer waits is forgotten when it would be the first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Nanos;
use crate::scheduler::SequenceId;

type Heap = BinaryHeap<Reverse<(Nanos, SequenceId)>>;

/// Deadlines of requests that wait.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    begins: Heap,
    goes_on: Heap,
}

impl Deadlines {
    /// A request came.
    pub(super) fn came(&mut self, deadline: Nanos, id: SequenceId) {
        self.begins.push(Reverse((deadline, id)));
    }

    /// A request was retracted.
    pub(super) fn retracted(&mut self, deadline: Nanos, id: SequenceId) {
        self.goes_on.push(Reverse((deadline, id)));
    }

    /// The first among requests that wait for the first time, as `waits` says.
    pub(super) fn first_to_begin(
        &mut self,
        waits: impl Fn(SequenceId) -> bool,
    ) -> Option<(Nanos, SequenceId)> {
        first(&mut self.begins, waits)
    }

    /// Forgets the first of those that wait for the first time.
    pub(super) fn pop_first(&mut self) {
        self.begins.pop();
    }

    /// The first among requests that wait to go on, as `waits` says.
    pub(super) fn first_to_go_on(&mut self, waits: impl Fn(SequenceId) -> bool) -> Option<Nanos> {
        first(&mut self.goes_on, waits).map(|(deadline, _)| deadline)
    }
}

fn first(heap: &mut Heap, waits: impl Fn(SequenceId) -> bool) -> Option<(Nanos, SequenceId)> {
    while let Some(Reverse((deadline, id))) = heap.peek().copied() {
        if waits(id) {
            return Some((deadline, id));
        }
        heap.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_those_that_wait_counts_and_the_others_are_forgotten() {
        let mut deadlines = Deadlines::default();
        let id = SequenceId;
        for n in [3, 1, 2] {
            deadlines.came(Nanos(n), id(n));
        }
        assert_eq!(deadlines.first_to_begin(|_| true), Some((Nanos(1), id(1))));
        deadlines.retracted(Nanos(1), id(1));
        let waits = |asked: SequenceId| asked != id(1);
        assert_eq!(deadlines.first_to_begin(waits), Some((Nanos(2), id(2))));
        assert_eq!(
            deadlines.first_to_go_on(|asked| asked == id(1)),
            Some(Nanos(1))
        );
        assert_eq!(deadlines.first_to_go_on(|_| false), None);
        assert_eq!(deadlines.first_to_begin(|_| true), Some((Nanos(2), id(2))));
    }
}
