//! When copies between device and host are done.
//!
//! Each direction is a lane on which copies follow each other. A copy really happens when it is
//! asked for; a bandwidth that was set makes it count as done no sooner than its bytes would take.
//! Copies ahead of need hold nobody up: their tickets are acknowledged when they are done.

use std::collections::VecDeque;
use std::time::Duration;

use crate::cache::{Ticket, TransferKind};
use crate::clock::Nanos;

/// Instants that the next step waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// Before it begins: blocks that it writes are being read.
    pub(super) before: Nanos,
    /// Before it ends: what it reads is brought layer by layer while it computes.
    pub(super) during: Nanos,
}

/// Both lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    bytes_per_s: Option<f64>,
    block_bytes: u64,
    to_host: Nanos,
    to_device: Nanos,
    pending: VecDeque<(Nanos, Ticket)>,
}

impl Lanes {
    pub(super) fn new(bytes_per_s: Option<f64>, block_bytes: u64) -> Self {
        Lanes {
            bytes_per_s,
            block_bytes,
            to_host: Nanos::default(),
            to_device: Nanos::default(),
            pending: VecDeque::new(),
        }
    }

    /// Notes a copy of `n_blocks` that began and ended at these instants.
    pub(super) fn copied(
        &mut self,
        kind: TransferKind,
        n_blocks: usize,
        (began, ended): (Nanos, Nanos),
        waits: &mut Waits,
    ) {
        let took = self.duration(n_blocks);
        let lane = match kind {
            TransferKind::BackUp(_) | TransferKind::WriteBack => &mut self.to_host,
            TransferKind::Load => &mut self.to_device,
        };
        // What is loaded may come to lie where blocks are still being read.
        let may_begin = match kind {
            TransferKind::Load => began.max(waits.before),
            TransferKind::BackUp(_) | TransferKind::WriteBack => began,
        };
        *lane = may_begin.max(*lane).after(took).max(ended);
        match kind {
            TransferKind::BackUp(ticket) => self.pending.push_back((*lane, ticket)),
            TransferKind::WriteBack => waits.before = *lane,
            TransferKind::Load => waits.during = *lane,
        }
    }

    /// A copy ahead of need that is done by `now`; each is told once.
    pub(super) fn next_done(&mut self, now: Nanos) -> Option<Ticket> {
        let is_done = self.pending.front().is_some_and(|(at, _)| *at <= now);
        is_done
            .then(|| self.pending.pop_front())
            .flatten()
            .map(|(_, ticket)| ticket)
    }

    /// When the next copy ahead of need is done.
    pub(super) fn next_at(&self) -> Option<Nanos> {
        self.pending.front().map(|(at, _)| *at)
    }

    fn duration(&self, n_blocks: usize) -> Duration {
        let bytes = n_blocks as f64 * self.block_bytes as f64;
        let seconds = self.bytes_per_s.map_or(0.0, |per_s| bytes / per_s);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{HostOptions, Keeping, KvCache, Progress, WritePolicy};
    use crate::executor::CacheShape;

    fn ticket() -> Ticket {
        let shape = CacheShape {
            n_blocks: 2,
            block_tokens: 1,
            bytes_per_token: 1,
        };
        let host = HostOptions {
            n_blocks: 2,
            policy: WritePolicy::WriteThrough,
        };
        let mut cache = KvCache::new(shape, Keeping::PrefixesAndHost(host));
        let mut lease = cache.acquire(&[1]);
        cache.grow(&mut lease, 1).unwrap();
        cache.keep(&mut lease, &[1], Progress::Whole);
        match cache.take_transfers()[0].kind {
            TransferKind::BackUp(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn copies_of_one_direction_follow_each_other_and_those_of_the_other_do_not() {
        let mut lanes = Lanes::new(Some(1e9), 100);
        let mut waits = Waits::default();
        let at = |ns| (Nanos(ns), Nanos(ns + 1));
        let back_up = TransferKind::BackUp(ticket());
        lanes.copied(back_up, 10, at(5000), &mut waits);
        lanes.copied(TransferKind::Load, 20, at(5001), &mut waits);
        lanes.copied(TransferKind::WriteBack, 1, at(5002), &mut waits);
        assert_eq!(lanes.next_at(), Some(Nanos(6000)));
        assert_eq!((waits.during, waits.before), (Nanos(7001), Nanos(6100)));
        assert_eq!(lanes.next_done(Nanos(5999)), None);
        assert!(lanes.next_done(Nanos(6000)).is_some());
        assert_eq!(lanes.next_done(Nanos(9999)), None);
    }

    #[test]
    fn what_is_loaded_waits_for_what_is_written_back_before_it() {
        let mut lanes = Lanes::new(Some(1e9), 100);
        let mut waits = Waits::default();
        let at = (Nanos(5000), Nanos(5001));
        lanes.copied(TransferKind::WriteBack, 10, at, &mut waits);
        lanes.copied(TransferKind::Load, 20, at, &mut waits);
        assert_eq!((waits.before, waits.during), (Nanos(6000), Nanos(8000)));
    }

    #[test]
    fn without_a_bandwidth_a_copy_takes_what_it_took() {
        let mut lanes = Lanes::new(None, 1 << 40);
        let mut waits = Waits::default();
        lanes.copied(TransferKind::Load, 9, (Nanos(5), Nanos(8)), &mut waits);
        assert_eq!(waits.during, Nanos(8));
    }
}
