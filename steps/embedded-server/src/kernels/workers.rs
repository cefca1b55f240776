//! Who runs the pieces of a kernel: the calling thread, or a pool of exactly so many threads.
//!
//! It hands out indices and rows; what they mean is the kernel's business.

use rayon::prelude::*;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows below which handing one to another thread costs more than doing it.
const MIN_ROWS_PER_TASK: usize = 8;

/// The threads that compute.
#[derive(Debug)]
pub struct Workers {
    /// Absent for one thread: then the caller computes.
    pool: Option<rayon::ThreadPool>,
    n_threads: usize,
}

/// Without optimisation the attention kernels' tiles live on the stack, one copy for each call.
pub(crate) const STACK: usize = 64 << 20;

impl Workers {
    /// `n_threads` threads; one means the calling thread, and no pool.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn new(n_threads: NonZeroUsize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let n_threads = n_threads.get();
        let pool = (n_threads > 1)
            .then(|| {
                rayon::ThreadPoolBuilder::new()
                    .num_threads(n_threads)
                    .thread_name(|i| format!("cpu-executor-{i}"))
                    .stack_size(STACK)
                    .build()
            })
            .transpose()?;
        Ok(Workers { pool, n_threads })
    }

    /// Number of threads that compute.
    #[must_use]
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Runs `work` where the other methods need not change threads.
    pub(crate) fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            None => work(),
            Some(pool) => pool.install(work),
        }
    }

    /// Calls `task` with every index below `n_tasks`.
    pub(crate) fn for_each(&self, n_tasks: usize, task: impl Fn(usize) + Sync) {
        match &self.pool {
            None => (0..n_tasks).for_each(task),
            Some(pool) => pool.install(|| {
                (0..n_tasks).into_par_iter().with_max_len(1).for_each(&task);
            }),
        }
    }

    /// Calls `task` with every index below `n_tasks` and a state that no other call uses
    /// meanwhile. Indices are claimed in order by whichever thread is free.
    pub(crate) fn for_each_with<S: Send>(
        &self,
        states: &mut [S],
        n_tasks: usize,
        task: impl Fn(&mut S, usize) + Sync,
    ) {
        let next = AtomicUsize::new(0);
        let drain = |state: &mut S| loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= n_tasks {
                break;
            }
            task(state, index);
        };
        match (&self.pool, states) {
            (None, [state, ..]) => drain(state),
            (Some(pool), states) => {
                pool.install(|| states.par_iter_mut().with_max_len(1).for_each(drain));
            }
            (None, []) => debug_assert_eq!(n_tasks, 0, "no state to work with"),
        }
    }

    /// Calls `task` with the index and floats of every row of `data`, `stride` floats each.
    pub(crate) fn for_each_row(
        &self,
        data: &mut [f32],
        stride: usize,
        task: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        match &self.pool {
            None => data
                .chunks_exact_mut(stride)
                .enumerate()
                .for_each(|(i, row)| task(i, row)),
            Some(pool) => pool.install(|| {
                data.par_chunks_exact_mut(stride)
                    .enumerate()
                    .with_min_len(MIN_ROWS_PER_TASK)
                    .for_each(|(i, row)| task(i, row));
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(n: usize) -> Workers {
        Workers::new(NonZeroUsize::new(n).unwrap()).unwrap()
    }

    #[test]
    fn every_index_is_run_once() {
        for n in [1, 3] {
            let counts: Vec<_> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            workers(n).for_each(100, |i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            let mut states = vec![0usize; n];
            workers(n).for_each_with(&mut states, 100, |seen, i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
                *seen += 1;
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 2));
            assert_eq!(states.iter().sum::<usize>(), 100);
        }
    }

    #[test]
    fn every_row_is_visited_with_its_index() {
        for n in [1, 2] {
            let mut data = vec![0.0; 40];
            workers(n).for_each_row(&mut data, 4, |i, row| row.fill(i as f32));
            assert!(data.iter().enumerate().all(|(i, v)| *v == (i / 4) as f32));
        }
    }

    #[test]
    fn one_thread_is_the_caller() {
        let caller = std::thread::current().id();
        workers(1).enter(|| assert_eq!(std::thread::current().id(), caller));
        assert_eq!(workers(2).n_threads(), 2);
    }
}
