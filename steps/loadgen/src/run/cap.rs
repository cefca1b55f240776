//! The cap on requests in flight: who is over it waits in the order of arrival, whichever thread
//! becomes free.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::context::Job;

/// Places for requests in flight, and those that wait for one: at most all arrivals of the run.
#[derive(Debug)]
pub(super) struct Cap(Mutex<Places>);

#[derive(Debug)]
struct Places {
    free: u32,
    waiting: VecDeque<Job>,
}

impl Cap {
    pub(super) fn new(most: NonZeroU32) -> Self {
        Self(Mutex::new(Places {
            free: most.get(),
            waiting: VecDeque::new(),
        }))
    }

    /// Whether `job` may go; otherwise it waits.
    pub(super) fn admits(&self, job: Job) -> bool {
        let mut places = self.lock();
        if places.free == 0 {
            places.waiting.push_back(job);
            return false;
        }
        places.free -= 1;
        true
    }

    /// Gives a place back, or hands it to whoever waited longest.
    pub(super) fn release(&self) -> Option<Job> {
        let mut places = self.lock();
        let next = places.waiting.pop_front();
        places.free += u32::from(next.is_none());
        next
    }

    /// Takes everyone who waits.
    pub(super) fn give_up(&self) -> VecDeque<Job> {
        std::mem::take(&mut self.lock().waiting)
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_to_who_waited_longest() {
        let cap = Cap::new(NonZeroU32::MIN);
        let job = |index| Job {
            index,
            request: index,
            scheduled: 0,
            user: 0,
            conversation: 0,
        };
        assert!(cap.admits(job(0)) && !cap.admits(job(1)) && !cap.admits(job(2)));
        assert_eq!(cap.release(), Some(job(1)));
        assert_eq!(cap.give_up(), [job(2)]);
        assert_eq!(cap.release(), None);
        assert!(cap.admits(job(3)));
    }
}
