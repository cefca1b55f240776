//! The order in which waiting prompts are looked at: pure functions of what waits.

use std::collections::HashSet;

/// The order of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// First come, first served. A sequence that does not fit yet holds up those behind it.
    #[default]
    Fcfs,
    /// Longest prefix match: first what finds most of itself in the cache.
    Lpm,
}

/// More waiting sequences than these are served in the order in which they stand, newcomers last:
/// matching them all would cost more than it saves.
pub(super) const LONGEST_MATCHED_QUEUE: usize = 128;
/// A prompt that finds at most so many tokens in the cache is compared with those before it.
const LITTLE_MATCHED_TOKENS: usize = 32;
/// Prompts that share so many first tokens wait for each other: the first one computes them.
const SHARED_TOKENS: usize = 32;

/// The policy that counts for a queue of this length.
#[must_use]
pub(super) fn effective(policy: Policy, keeps_prefixes: bool, n_waiting: usize) -> Policy {
    match policy {
        Policy::Lpm if keeps_prefixes && n_waiting <= LONGEST_MATCHED_QUEUE => Policy::Lpm,
        Policy::Lpm | Policy::Fcfs => Policy::Fcfs,
    }
}

/// A waiting prompt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting<'a> {
    /// Its tokens, outputs of before a retraction included.
    pub(super) tokens: &'a [u32],
    /// How many of them the device has.
    pub(super) n_on_device: usize,
    /// How many of them device and host have.
    pub(super) n_matched: usize,
}

/// Positions by longest prefix match. Prompts that match alike keep their order; one that finds
/// little, and whose beginning an earlier one of the queue is about to compute, comes last in this
/// pass.
#[must_use]
pub(super) fn by_longest_prefix(waiting: &[Waiting<'_>]) -> Vec<usize> {
    let is_deferred = deferred(waiting);
    let mut order: Vec<usize> = (0..waiting.len()).collect();
    order.sort_by_key(|at| (is_deferred[*at], usize::MAX - waiting[*at].n_matched));
    order
}

/// Whether each prompt waits for an earlier one that begins with the same tokens. Only whether as
/// many as [`SHARED_TOKENS`] agree matters, so that a set of beginnings says as much as a tree.
fn deferred(waiting: &[Waiting<'_>]) -> Vec<bool> {
    let mut beginnings: HashSet<&[u32]> = HashSet::new();
    let mut deferred = Vec::with_capacity(waiting.len());
    for one in waiting {
        let is_little = one.n_on_device <= LITTLE_MATCHED_TOKENS;
        let beginning = one.tokens.get(..SHARED_TOKENS).filter(|_| is_little);
        deferred.push(beginning.is_some_and(|tokens| !beginnings.insert(tokens)));
    }
    deferred
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(first: u32, n: u32) -> Vec<u32> {
        (first..first + n).collect()
    }

    fn order(waiting: &[(&[u32], usize)]) -> Vec<usize> {
        let one = |&(tokens, n_matched)| Waiting {
            tokens,
            n_on_device: n_matched,
            n_matched,
        };
        let waiting: Vec<_> = waiting.iter().map(one).collect();
        by_longest_prefix(&waiting)
    }

    #[test]
    fn more_matched_tokens_go_first_and_equal_ones_keep_their_order() {
        let prompts: Vec<_> = (0..5).map(|i| prompt(1000 * i, 60)).collect();
        let matched = [0, 48, 0, 64, 48];
        let waiting: Vec<_> = prompts.iter().map(Vec::as_slice).zip(matched).collect();
        assert_eq!(order(&waiting), [3, 1, 4, 0, 2]);
    }

    #[test]
    fn siblings_of_a_cold_prompt_wait_for_it() {
        let (a, b, c) = (prompt(0, 60), prompt(0, 33), prompt(500, 60));
        assert_eq!(order(&[(&a, 0), (&b, 0), (&c, 0)]), [0, 2, 1]);
    }

    #[test]
    fn a_deferred_prompt_comes_after_everything_whatever_it_matched() {
        let (a, b, c) = (prompt(0, 60), prompt(0, 60), prompt(500, 60));
        assert_eq!(order(&[(&a, 16), (&b, 32), (&c, 0)]), [0, 2, 1]);
    }

    #[test]
    fn the_thresholds_are_32_matched_and_32_shared() {
        let (a, b) = (prompt(0, 60), prompt(0, 60));
        // At 33 matched tokens neither is compared.
        assert_eq!(order(&[(&a, 33), (&b, 33)]), [0, 1]);
        let other = prompt(900, 40);
        // 31 tokens shared are not enough, 32 are.
        for (n_shared, expected) in [(31, [0, 1, 2]), (32, [0, 2, 1])] {
            let mut sibling = prompt(0, 60);
            sibling[n_shared..].fill(7777);
            let waiting = [(&a[..], 0), (&sibling[..], 0), (&other[..], 0)];
            assert_eq!(order(&waiting), expected, "{n_shared} shared");
        }
    }

    #[test]
    fn what_the_host_has_counts_for_the_order_but_not_as_warm() {
        let prompts = [prompt(0, 60), prompt(0, 60), prompt(500, 60)];
        let one = |(tokens, n_on_device, n_matched)| Waiting {
            tokens,
            n_on_device,
            n_matched,
        };
        let waiting = [
            one((&prompts[0][..], 0, 48)),
            one((&prompts[1][..], 0, 48)),
            one((&prompts[2][..], 48, 56)),
        ];
        assert_eq!(by_longest_prefix(&waiting), [2, 0, 1]);
    }

    #[test]
    fn long_queues_and_caches_that_keep_nothing_are_served_as_they_come() {
        assert_eq!(effective(Policy::Lpm, true, 128), Policy::Lpm);
        assert_eq!(effective(Policy::Lpm, true, 129), Policy::Fcfs);
        assert_eq!(effective(Policy::Lpm, false, 1), Policy::Fcfs);
        assert_eq!(effective(Policy::Fcfs, true, 1), Policy::Fcfs);
    }
}
