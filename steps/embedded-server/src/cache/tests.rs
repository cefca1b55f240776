//! The rules of the cache one by one; whole loads are the scheduler's tests.

use super::*;
use crate::executor::HostBlockId;

const BLOCK: usize = 4;

fn cache(n_blocks: u32, host: Option<(u32, WritePolicy)>) -> KvCache {
    let shape = CacheShape {
        n_blocks,
        block_tokens: BLOCK as u32,
        bytes_per_token: 1,
    };
    let keeping = host.map_or(Keeping::Prefixes, |(n_blocks, policy)| {
        Keeping::PrefixesAndHost(HostOptions { n_blocks, policy })
    });
    KvCache::new(shape, keeping)
}

/// `n` blocks of tokens that begin with `first`.
fn tokens(first: u32, n_blocks: u32) -> Vec<u32> {
    (0..n_blocks * BLOCK as u32).map(|i| first + i).collect()
}

/// Computes a sequence to its end, as if by one that ran alone; what it found there.
fn run(cache: &mut KvCache, tokens: &[u32]) -> Matched {
    let mut lease = cache.acquire(tokens);
    let device = lease.n_shared() * BLOCK;
    let host = cache.load(&mut lease);
    cache.grow(&mut lease, tokens.len()).unwrap();
    cache.check([&lease].into_iter());
    cache.finish(lease, tokens);
    cache.check([].into_iter());
    Matched { device, host }
}

/// Acknowledges every copy to the host that was asked for; all transfers.
fn acknowledge_all(cache: &mut KvCache) -> Vec<Transfer> {
    let transfers = cache.take_transfers();
    for transfer in &transfers {
        if let TransferKind::BackUp(ticket) = transfer.kind {
            cache.acknowledge(ticket);
        }
    }
    cache.check([].into_iter());
    transfers
}

fn kinds(transfers: &[Transfer]) -> Vec<(&'static str, usize)> {
    let kind = |transfer: &Transfer| match transfer.kind {
        TransferKind::BackUp(_) => ("back up", transfer.pairs.len()),
        TransferKind::WriteBack => ("write back", transfer.pairs.len()),
        TransferKind::Load => ("load", transfer.pairs.len()),
    };
    transfers.iter().map(kind).collect()
}

#[test]
fn at_least_one_token_is_always_computed() {
    let mut cache = cache(8, None);
    let prompt = tokens(0, 2);
    assert_eq!(run(&mut cache, &prompt), Matched::default());
    // All eight tokens are there, but only whole blocks of the first seven count.
    assert_eq!(cache.matched(&prompt).device, BLOCK);
    let longer = [prompt.clone(), vec![99]].concat();
    assert_eq!(cache.matched(&longer).device, 2 * BLOCK);
    assert_eq!(cache.matched(&[]).device, 0);
}

#[test]
fn a_match_ends_where_tokens_differ_and_cuts_the_node_there() {
    let mut cache = cache(16, None);
    let first = tokens(0, 4);
    run(&mut cache, &first);
    let fork = [&first[..10], &[77; 7][..]].concat();
    assert_eq!(run(&mut cache, &fork).device, 2 * BLOCK);
    assert_eq!(run(&mut cache, &first).device, 3 * BLOCK);
    // Four blocks, and those of the fork that were not shared.
    assert_eq!(cache.n_evictable(), 4 + 2);
}

#[test]
fn what_was_computed_twice_is_kept_once() {
    let mut cache = cache(8, None);
    let prompt = tokens(0, 3);
    let mut leases = [cache.acquire(&prompt), cache.acquire(&prompt)];
    for lease in &mut leases {
        cache.grow(lease, prompt.len()).unwrap();
    }
    assert_eq!(cache.blocks().n_free(), 2);
    for lease in &mut leases {
        cache.keep(lease, &prompt, Progress::Whole);
    }
    assert_eq!(leases[0].blocks(), leases[1].blocks());
    assert_eq!((cache.blocks().n_free(), cache.n_evictable()), (5, 0));
    cache.check(leases.iter());
    let [first, second] = leases;
    cache.finish(first, &prompt);
    cache.give_back(second);
    cache.check([].into_iter());
    assert_eq!((cache.blocks().n_free(), cache.n_evictable()), (5, 3));
}

#[test]
fn a_tail_that_fills_no_block_is_freed() {
    let mut cache = cache(4, None);
    run(&mut cache, &tokens(0, 2)[..7]);
    assert_eq!((cache.blocks().n_free(), cache.n_evictable()), (3, 1));
}

#[test]
fn the_least_recently_used_leaf_goes_first_and_parents_after_children() {
    let mut cache = cache(4, None);
    let (a, b) = (tokens(0, 2), tokens(100, 1));
    run(&mut cache, &a[..BLOCK]);
    run(&mut cache, &a);
    run(&mut cache, &b);
    // Using `a` again makes `b` the older one.
    cache.matched(&[a.clone(), vec![0]].concat());
    run(&mut cache, &tokens(200, 2));
    assert_eq!(cache.matched(&[b, vec![0]].concat()).device, 0);
    assert_eq!(cache.matched(&[a.clone(), vec![0]].concat()).device, 8);
    run(&mut cache, &tokens(300, 3));
    assert_eq!(cache.matched(&[a, vec![0]].concat()).device, BLOCK);
    assert_eq!(cache.counts().evicted, 1 + 2 + 1);
}

#[test]
fn what_is_leased_is_never_evicted() {
    let mut cache = cache(4, None);
    let prompt = tokens(0, 2);
    run(&mut cache, &prompt);
    let longer = [prompt, vec![5]].concat();
    let lease = cache.acquire(&longer);
    let mut other = cache.acquire(&tokens(100, 3));
    let full = cache.grow(&mut other, 3 * BLOCK).unwrap_err();
    assert_eq!((full.wanted, full.free), (3, 2));
    cache.check([&lease, &other].into_iter());
    cache.give_back(lease);
    cache.grow(&mut other, 3 * BLOCK).unwrap();
    cache.give_back(other);
    cache.check([].into_iter());
}

#[test]
fn a_cache_that_keeps_nothing_matches_nothing() {
    let shape = CacheShape {
        n_blocks: 4,
        block_tokens: BLOCK as u32,
        bytes_per_token: 1,
    };
    let mut cache = KvCache::new(shape, Keeping::Nothing);
    run(&mut cache, &tokens(0, 3));
    assert_eq!(run(&mut cache, &tokens(0, 3)), Matched::default());
    assert_eq!((cache.blocks().n_free(), cache.n_evictable()), (4, 0));
}

#[test]
fn a_flush_forgets_device_and_host() {
    let mut cache = cache(4, Some((8, WritePolicy::WriteThrough)));
    run(&mut cache, &tokens(0, 3));
    cache.flush();
    cache.check([].into_iter());
    assert_eq!((cache.blocks().n_free(), cache.host_usage().0), (4, 0));
    assert!(cache.take_transfers().is_empty());
    assert_eq!(run(&mut cache, &tokens(0, 3)), Matched::default());
}

#[test]
fn write_through_copies_at_the_first_insertion_and_selective_at_the_second() {
    for (policy, expected) in [
        (WritePolicy::WriteThrough, [2, 0]),
        (WritePolicy::WriteThroughSelective, [0, 2]),
        (WritePolicy::WriteBack, [0, 0]),
    ] {
        let mut cache = cache(8, Some((8, policy)));
        for n in expected {
            run(&mut cache, &tokens(0, 2));
            let transfers = acknowledge_all(&mut cache);
            let n_blocks: usize = transfers.iter().map(|t| t.pairs.len()).sum();
            assert_eq!(n_blocks, n, "{policy:?}");
        }
    }
}

#[test]
fn a_chunk_of_a_prompt_is_not_in_demand_yet() {
    let mut cache = cache(8, Some((8, WritePolicy::WriteThrough)));
    let prompt = tokens(0, 3);
    let mut lease = cache.acquire(&prompt);
    cache.grow(&mut lease, prompt.len()).unwrap();
    cache.keep(&mut lease, &prompt[..8], Progress::Chunk);
    assert!(cache.take_transfers().is_empty());
    cache.finish(lease, &prompt);
    // The parts that two insertions made, the earlier one first.
    let transfers = acknowledge_all(&mut cache);
    assert_eq!(kinds(&transfers), [("back up", 2), ("back up", 1)]);
}

#[test]
fn a_copied_node_stays_on_the_device_until_it_is_acknowledged() {
    let mut cache = cache(4, Some((8, WritePolicy::WriteThrough)));
    run(&mut cache, &tokens(0, 3));
    assert_eq!((cache.n_available(), cache.is_backing_up()), (1, true));
    let mut other = cache.acquire(&tokens(100, 3));
    assert!(cache.grow(&mut other, 3 * BLOCK).is_err());
    cache.give_back(other);
    acknowledge_all(&mut cache);
    assert_eq!((cache.n_available(), cache.is_backing_up()), (4, false));
}

#[test]
fn what_the_device_evicts_is_found_on_the_host_and_comes_back_whole() {
    for policy in [WritePolicy::WriteThrough, WritePolicy::WriteBack] {
        let mut cache = cache(4, Some((16, policy)));
        let prompt = tokens(0, 4);
        run(&mut cache, &prompt);
        acknowledge_all(&mut cache);
        run(&mut cache, &tokens(100, 3));
        let evicted = acknowledge_all(&mut cache);
        let expected = match policy {
            WritePolicy::WriteBack => ("write back", 4),
            _ => ("back up", 3),
        };
        assert_eq!(kinds(&evicted), [expected], "{policy:?}");
        let matched = Matched {
            device: 0,
            host: 12,
        };
        assert_eq!(cache.matched(&prompt), matched, "{policy:?}");
        assert_eq!(run(&mut cache, &prompt), matched, "{policy:?}");
        let transfers = acknowledge_all(&mut cache);
        assert!(kinds(&transfers).contains(&("load", 3)), "{transfers:?}");
    }
}

#[test]
fn blocks_come_back_from_where_they_went() {
    let mut cache = cache(4, Some((16, WritePolicy::WriteBack)));
    let prompt = tokens(0, 4);
    run(&mut cache, &prompt);
    run(&mut cache, &tokens(100, 4));
    let there = acknowledge_all(&mut cache).remove(0);
    run(&mut cache, &prompt);
    let transfers = acknowledge_all(&mut cache);
    let back = transfers.iter().find(|t| t.kind == TransferKind::Load);
    let hosts = |transfer: &Transfer| -> Vec<HostBlockId> {
        transfer.pairs.iter().map(|(_, host)| *host).collect()
    };
    assert_eq!(hosts(back.unwrap()), hosts(&there)[..3]);
}

#[test]
fn little_on_the_host_is_computed_again() {
    let mut cache = cache(4, Some((16, WritePolicy::WriteBack)));
    run(&mut cache, &tokens(0, 3));
    run(&mut cache, &tokens(100, 4));
    // Two blocks of four are fewer than ten tokens.
    let matched = Matched { device: 0, host: 8 };
    assert_eq!(cache.matched(&tokens(0, 3)), matched);
    assert_eq!(run(&mut cache, &tokens(0, 3)), Matched::default());
    // Having been computed, they are on the device again, and the host's copy is still theirs.
    assert_eq!(cache.matched(&tokens(0, 3)).device, 8);
}

#[test]
fn a_full_host_forgets_its_oldest_leaf() {
    let mut cache = cache(4, Some((4, WritePolicy::WriteBack)));
    for first in [0, 100, 200] {
        run(&mut cache, &tokens(first, 4));
        acknowledge_all(&mut cache);
    }
    assert_eq!(cache.matched(&tokens(0, 4)), Matched::default());
    assert_eq!(cache.matched(&tokens(100, 4)).host, 12);
    assert_eq!(cache.counts().host_evicted, 4);
}

#[test]
fn what_the_host_cannot_hold_is_forgotten() {
    let mut cache = cache(4, Some((2, WritePolicy::WriteBack)));
    run(&mut cache, &tokens(0, 4));
    run(&mut cache, &tokens(100, 4));
    assert!(cache.take_transfers().is_empty());
    assert_eq!(cache.matched(&tokens(0, 4)), Matched::default());
}
