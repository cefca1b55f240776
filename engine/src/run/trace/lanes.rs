//! Rows of slices that do not overlap: what ran at the same time gets lanes of its own.

use super::{Row, Slice};
use std::collections::BTreeMap;

/// Where a slice is drawn: its row, and the lane in it.
pub(super) type Lane = (Row, usize);

/// Lanes for waiting, of each declaration: of thousands that wait at once, a few show how long.
const WAITING_LANES: usize = 8;

/// Assigns a lane to each slice; `None` if there are too many that wait.
pub(super) fn lanes(slices: &[Slice]) -> Vec<Option<Lane>> {
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_by_key(|i| (slices[*i].start_us, *i));
    // When each lane of a row is free again.
    let mut free: BTreeMap<&Row, Vec<u64>> = BTreeMap::new();
    let mut found = vec![None; slices.len()];
    for i in order {
        let slice = &slices[i];
        let lanes = free.entry(&slice.row).or_default();
        let lane = lanes.iter().position(|until| *until <= slice.start_us);
        let lane = lane.unwrap_or(lanes.len());
        if slice.category == "wait" && lane >= WAITING_LANES {
            continue;
        }
        let until = slice.start_us.saturating_add(slice.took_us);
        match lanes.get_mut(lane) {
            Some(free_at) => *free_at = until,
            None => lanes.push(until),
        }
        found[i] = Some((slice.row.clone(), lane));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::trace::Group;
    use proptest::prelude::*;
    use serde_json::Map;

    fn slice(category: &'static str, start_us: u64, took_us: u64) -> Slice {
        Slice {
            row: Row {
                group: Group::Run,
                name: "r".to_owned(),
            },
            name: String::new(),
            category,
            start_us,
            took_us,
            args: Map::new(),
        }
    }

    #[test]
    fn a_lane_is_used_again_once_it_is_free() {
        let slices = [
            slice("step", 0, 10),
            slice("step", 5, 10),
            slice("step", 10, 1),
        ];
        let found: Vec<usize> = lanes(&slices).into_iter().flatten().map(|l| l.1).collect();
        assert_eq!(found, [0, 1, 0]);
    }

    #[test]
    fn of_many_that_wait_a_few_are_drawn() {
        let slices: Vec<Slice> = (0..100).map(|_| slice("wait", 0, 10)).collect();
        assert_eq!(lanes(&slices).iter().flatten().count(), WAITING_LANES);
    }

    proptest! {
        #[test]
        fn slices_of_one_lane_never_overlap(times in proptest::collection::vec((0u64..100, 0u64..30), 0..60)) {
            let slices: Vec<Slice> = times.iter().map(|(s, t)| slice("step", *s, *t)).collect();
            let found = lanes(&slices);
            for (i, a) in slices.iter().enumerate() {
                for (j, b) in slices.iter().enumerate().skip(i + 1) {
                    let apart = a.start_us + a.took_us <= b.start_us || b.start_us + b.took_us <= a.start_us;
                    prop_assert!(found[i] != found[j] || apart);
                }
            }
        }
    }
}
