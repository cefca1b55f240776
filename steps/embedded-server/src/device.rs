//! The device that models share: its memory, which is accounted for, and turns to compute on it.
//!
//! It holds no tensor. Each model has a [`Place`] on it, through which it takes and gives back
//! memory, and without which it computes no step: two models on one device compute in turn, as
//! kernels of two processes do on one GPU.

use crate::clock::Nanos;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a model holds of the device, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Held {
    /// Weights.
    #[serde(rename = "model_weights_memory")]
    pub weights: u64,
    /// Key-value cache.
    #[serde(rename = "token_to_kv_pool_memory")]
    pub cache: u64,
}

impl Held {
    /// Both.
    #[must_use]
    pub fn total(self) -> u64 {
        self.weights.saturating_add(self.cache)
    }
}

/// A device's memory and its turns.
#[derive(Debug)]
pub struct Device {
    /// Memory in all, bytes; `None`: it is not accounted for.
    total: Option<u64>,
    /// One per model.
    accounts: Mutex<Vec<Account>>,
    turns: Mutex<Turns>,
    next: Condvar,
}

/// A model in the device's books.
#[derive(Debug, Clone, Copy)]
struct Account {
    held: Held,
    /// What it gets at most, bytes; `None`: as much as it asks for.
    entitled: Option<u64>,
}

#[derive(Debug, Default)]
struct Turns {
    /// The number that whoever comes next gets.
    last: u64,
    /// Whose turn it is.
    now: u64,
    /// When what was computed last was to be over, as far as that was stated.
    due: Nanos,
}

impl Device {
    /// A device of `total` bytes.
    #[must_use]
    pub fn new(total: Option<u64>) -> Arc<Self> {
        Arc::new(Device {
            total,
            accounts: Mutex::default(),
            turns: Mutex::default(),
            next: Condvar::new(),
        })
    }

    /// A place for a further model, which is entitled to `share` of all memory; of what is free, where it
    /// is there from the [beginning](Place::begin).
    #[must_use]
    pub fn place(self: &Arc<Self>, share: f64) -> Place {
        let mut accounts = self.lock();
        accounts.push(Account {
            held: Held::default(),
            entitled: self.total.map(|total| share_of(total, share)),
        });
        Place {
            device: Arc::clone(self),
            index: accounts.len() - 1,
            share,
        }
    }

    /// Memory in all, bytes; `None`: it is not accounted for.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Memory that nobody holds, bytes.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        self.free_of(&self.lock())
    }

    fn free_of(&self, accounts: &[Account]) -> Option<u64> {
        let taken = accounts.iter().map(|account| account.held.total());
        Some(
            self.total?
                .saturating_sub(taken.fold(0, u64::saturating_add)),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Account>> {
        // Each number is replaced as a whole.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        // Both numbers are changed by one addition each.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model's place on a device.
#[derive(Debug)]
pub struct Place {
    device: Arc<Device>,
    index: usize,
    share: f64,
}

impl Place {
    /// The model begins on the device: it is entitled to its share of what is free now, then and
    /// whenever it comes back.
    pub fn begin(&self) {
        let mut accounts = self.device.lock();
        let free = self.device.free_of(&accounts);
        let account = &mut accounts[self.index];
        let own = account.held.total();
        account.entitled = free.map(|free| share_of(free.saturating_add(own), self.share));
    }

    /// What it holds.
    #[must_use]
    pub fn held(&self) -> Held {
        self.device.lock()[self.index].held
    }

    /// Takes memory for weights, which then are on the device.
    ///
    /// # Errors
    /// [`Shortage`]; nothing has changed then.
    pub fn take_weights(&self, bytes: u64) -> Result<(), Shortage> {
        let mut accounts = self.device.lock();
        if let Some(free) = self.device.free_of(&accounts)
            && free < bytes
        {
            return Err(Shortage {
                needed: bytes,
                free,
            });
        }
        accounts[self.index].held.weights = bytes;
        Ok(())
    }

    /// Takes memory for a cache in blocks of `block_bytes`, at most `most` of them, and says how
    /// many. Its weights, whether they are there or not, and its cache together get what it is entitled to, if
    /// that is free without both.
    ///
    /// # Errors
    /// [`Shortage`] when that is not one block beside the weights; nothing has changed then.
    pub fn take_cache(&self, weights: u64, block_bytes: u64, most: u64) -> Result<u64, Shortage> {
        let block_bytes = block_bytes.max(1);
        let mut accounts = self.device.lock();
        let free = self.device.free_of(&accounts);
        let Account { held, entitled } = accounts[self.index];
        let asked = weights.saturating_add(most.saturating_mul(block_bytes));
        let there = free.map(|free| free.saturating_add(held.weights));
        let both = [entitled, there]
            .into_iter()
            .flatten()
            .fold(asked, u64::min);
        let n_blocks = both.saturating_sub(weights) / block_bytes;
        if n_blocks == 0 {
            return Err(Shortage {
                needed: weights.saturating_add(block_bytes),
                free: both,
            });
        }
        accounts[self.index].held.cache = n_blocks.saturating_mul(block_bytes);
        Ok(n_blocks)
    }

    /// Gives the memory of the weights back.
    pub fn leave_weights(&self) {
        self.device.lock()[self.index].held.weights = 0;
    }

    /// Gives the memory of the cache back.
    pub fn leave_cache(&self) {
        self.device.lock()[self.index].held.cache = 0;
    }

    /// Whether as much is free as this model is entitled to, its own memory included.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let accounts = self.device.lock();
        let Account { held, entitled } = accounts[self.index];
        match (entitled, self.device.free_of(&accounts)) {
            (Some(entitled), Some(free)) => free.saturating_add(held.total()) >= entitled,
            _ => true,
        }
    }

    /// Waits until nobody who came sooner computes. What is returned ends the turn when dropped.
    #[must_use]
    pub fn turn(&self) -> Turn<'_> {
        let device = &*self.device;
        let mut turns = device.turns();
        let mine = turns.last;
        turns.last += 1;
        let waited = device.next.wait_while(turns, |turns| turns.now != mine);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        Turn(device)
    }
}

fn share_of(bytes: u64, share: f64) -> u64 {
    // Rounds down; a share is at most 1.
    (bytes as f64 * share) as u64
}

/// A turn on a device.
#[derive(Debug)]
pub struct Turn<'a>(&'a Device);

impl Turn<'_> {
    /// When what was computed last was to be over, as far as that was stated.
    #[must_use]
    pub fn was_due(&self) -> Nanos {
        self.0.turns().due
    }

    /// What is computed now is to be over at that instant.
    pub fn is_due(&self, at: Nanos) {
        self.0.turns().due = at;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.turns().now += 1;
        self.0.next.notify_all();
    }
}

/// Memory that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{needed} bytes of device memory are needed and {free} are free for the model; deactivate another \
     one, or change the shares"
)]
pub struct Shortage {
    /// Bytes needed at least.
    pub needed: u64,
    /// Bytes that the model could have.
    pub free: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begins with so many bytes of weights, and says what cache that leaves, in blocks of 10 bytes.
    fn begin(place: &Place, weights: u64) -> u64 {
        place.begin();
        place.take_weights(weights).unwrap();
        place.take_cache(weights, 10, u64::MAX).unwrap()
    }

    fn leave(place: &Place) {
        place.leave_cache();
        place.leave_weights();
    }

    #[test]
    fn shares_of_those_that_begin_apply_one_after_the_other_to_what_is_left() {
        let device = Device::new(Some(1000));
        let (a, b) = (device.place(0.5), device.place(0.5));
        assert_eq!(begin(&a, 100), 40);
        // Half of 500, less the weights.
        assert_eq!(begin(&b, 100), 15);
        assert_eq!(device.free(), Some(250));
        assert_eq!((a.held().total(), b.held().total()), (500, 250));
    }

    #[test]
    fn a_model_that_comes_back_gets_what_it_had() {
        let device = Device::new(Some(1000));
        let (a, b) = (device.place(0.5), device.place(0.5));
        begin(&a, 100);
        begin(&b, 100);
        for place in [&a, &b, &b, &a] {
            let had = place.held();
            leave(place);
            assert!(place.has_room());
            place.take_weights(100).unwrap();
            place.take_cache(100, 10, u64::MAX).unwrap();
            assert_eq!(place.held(), had);
        }
    }

    #[test]
    fn a_share_of_one_that_comes_later_is_of_all_memory_and_has_room_where_that_is_free() {
        let device = Device::new(Some(1000));
        let (a, b) = (device.place(0.5), device.place(0.5));
        begin(&a, 100);
        assert!(b.has_room());
        b.take_weights(100).unwrap();
        // Half of 1000, less the weights.
        assert_eq!(b.take_cache(100, 10, u64::MAX).unwrap(), 40);
        // A third finds less than it is entitled to, and gets what there is.
        leave(&a);
        let c = device.place(0.8);
        assert!(!c.has_room());
        c.take_weights(100).unwrap();
        assert_eq!(c.take_cache(100, 10, u64::MAX).unwrap(), 40);
    }

    #[test]
    fn a_cache_that_comes_first_leaves_room_for_the_weights() {
        let device = Device::new(Some(1000));
        let (a, b) = (device.place(0.5), device.place(0.9));
        begin(&a, 100);
        let had = begin(&b, 100);
        leave(&b);
        assert_eq!(b.take_cache(100, 10, u64::MAX), Ok(had));
        assert!(b.take_weights(100).is_ok());
    }

    #[test]
    fn a_shortage_tells_what_both_parts_need_and_what_they_could_have() {
        let device = Device::new(Some(1000));
        let (a, b) = (device.place(0.5), device.place(0.3));
        a.take_weights(200).unwrap();
        let needed = 305;
        b.take_weights(295).unwrap();
        let told = b.take_cache(295, 10, u64::MAX).unwrap_err();
        assert_eq!(told, Shortage { needed, free: 300 });
        a.leave_weights();
        a.take_weights(703).unwrap();
        let told = b.take_cache(295, 10, u64::MAX).unwrap_err();
        assert_eq!(told, Shortage { needed, free: 297 });
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let device = Device::new(Some(1000));
        let (a, b) = (device.place(0.9), device.place(0.9));
        a.take_weights(800).unwrap();
        a.take_cache(800, 10, u64::MAX).unwrap();
        let shortage = b.take_weights(800).unwrap_err();
        assert_eq!((shortage.needed, shortage.free), (800, 100));
        assert_eq!(b.held(), Held::default());
        assert!(b.take_cache(0, 1000, 5).is_err());
        assert!(!b.has_room());
        leave(&a);
        assert!(b.has_room() && b.take_weights(800).is_ok());
    }

    #[test]
    fn without_a_size_there_is_room_for_what_is_asked() {
        let place = Device::new(None).place(0.1);
        assert_eq!(place.take_cache(0, 1 << 40, 7), Ok(7));
        assert!(place.take_weights(u64::MAX).is_ok() && place.has_room());
    }

    #[test]
    fn turns_are_taken_in_the_order_of_coming() {
        let device = Device::new(None);
        let order = Mutex::new(Vec::new());
        let (a, b) = (device.place(1.0), device.place(1.0));
        let first = a.turn();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (place, order) = (if n % 2 == 0 { &a } else { &b }, &order);
                scope.spawn(move || {
                    let _turn = place.turn();
                    order.lock().unwrap().push(n);
                });
                // The next one comes when this one waits.
                while device.turns().last < n + 2 {
                    std::thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(order.into_inner().unwrap(), [0, 1, 2, 3]);
    }
}
