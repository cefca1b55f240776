//! Doing the same to many files at once. A disk takes several syncs in the time of one, and one
//! core reads more slowly than a good disk delivers. Knows nothing of files.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many threads work; each may hold a buffer of 1 MiB.
const WORKERS: usize = 8;

/// Applies `work` to all of `items` and returns the results in their order.
///
/// After an error no new item is begun, and one of the errors is returned.
pub(super) fn try_map<T: Sync, R: Send, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else {
                return Ok(done);
            };
            match work(item) {
                Ok(result) => done.push((i, result)),
                Err(error) => {
                    next.store(items.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let parts: Result<Vec<Vec<(usize, R)>>, E> = thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS.min(items.len()))
            .map(|_| scope.spawn(worker))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    let mut results: Vec<(usize, R)> = parts?.into_iter().flatten().collect();
    results.sort_by_key(|(i, _)| *i);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_an_error_ends_the_work() {
        let items: Vec<usize> = (0..1000).collect();
        let doubled = try_map(&items, |i| Ok::<_, ()>(i * 2)).unwrap();
        assert!(
            doubled
                .iter()
                .enumerate()
                .all(|(i, double)| *double == 2 * i)
                && doubled.len() == 1000
        );
        let failed = try_map(&items, |i| if *i == 500 { Err(*i) } else { Ok(()) });
        assert_eq!(failed, Err(500));
        assert_eq!(try_map(&[], |_: &()| Err::<(), _>(())), Ok(vec![]));
    }
}
