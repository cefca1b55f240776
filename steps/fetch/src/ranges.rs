//! Which bytes of a file are there: sorted ranges that neither touch nor overlap.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A set of bytes, by their positions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds a range; what is there already stays there.
    pub(crate) fn add(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        let first = self.0.partition_point(|(_, end)| *end < new.start);
        let after = self.0.partition_point(|(start, _)| *start <= new.end);
        let merged = self.0[first..after]
            .iter()
            .fold((new.start, new.end), |(from, to), (start, end)| {
                (from.min(*start), to.max(*end))
            });
        self.0.splice(first..after, [merged]);
    }

    /// How many bytes are there.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// What is missing of a file of `size` bytes, in pieces of at most `piece` bytes, in order.
    pub(crate) fn missing(&self, size: u64, piece: u64) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for (start, end) in self.0.iter().copied().chain([(size, size)]) {
            let gap = at..start.min(size);
            let starts = (gap.start..gap.end).step_by(usize::try_from(piece).unwrap_or(usize::MAX));
            gaps.extend(starts.map(|from| from..(from + piece).min(gap.end)));
            at = end;
        }
        gaps
    }

    /// Whether it could be what is there of a file of `size` bytes.
    pub(crate) fn is_sound(&self, size: u64) -> bool {
        let each = self
            .0
            .iter()
            .all(|(start, end)| start < end && *end <= size);
        each && self.0.windows(2).all(|pair| pair[0].1 < pair[1].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 60;

    proptest! {
        #[test]
        fn ranges_are_the_set_of_their_bytes(
            added in prop::collection::vec((0..SIZE, 0..20u64), 0..12),
            piece in 1..30u64,
        ) {
            let mut ranges = Ranges::default();
            let mut naive = vec![false; SIZE as usize];
            for (start, length) in added {
                let end = (start + length).min(SIZE);
                ranges.add(start..end);
                naive[start as usize..end as usize].fill(true);
            }
            prop_assert!(ranges.is_sound(SIZE));
            prop_assert_eq!(ranges.total(), naive.iter().filter(|b| **b).count() as u64);
            for gap in ranges.missing(SIZE, piece) {
                prop_assert!(!gap.is_empty() && gap.end - gap.start <= piece);
                for byte in gap {
                    prop_assert!(!std::mem::replace(&mut naive[byte as usize], true));
                }
            }
            prop_assert!(naive.iter().all(|there| *there));
        }
    }

    #[test]
    fn what_cannot_be_is_known() {
        for (ranges, sound) in [
            (vec![(0, 5), (6, 60)], true),
            (vec![(0, 5), (5, 6)], false),
            (vec![(6, 9), (0, 5)], false),
            (vec![(3, 3)], false),
            (vec![(0, 61)], false),
        ] {
            assert_eq!(Ranges(ranges.clone()).is_sound(SIZE), sound, "{ranges:?}");
        }
    }
}
