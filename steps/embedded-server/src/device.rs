//! The device that models share: its memory, which is accounted for, and turns to compute on it.
//!
//! It holds no tensor. Each model has a [`Place`] on it, through which it takes and gives back
//! memory, and without which it computes no step: two models on one device compute in turn, as
//! kernels of two processes do on one GPU.

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
    held: Mutex<Vec<Held>>,
    turns: Mutex<Turns>,
    next: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    /// The number that whoever comes next gets.
    last: u64,
    /// Whose turn it is.
    now: u64,
}

impl Device {
    /// A device of `total` bytes.
    #[must_use]
    pub fn new(total: Option<u64>) -> Arc<Self> {
        Arc::new(Device {
            total,
            held: Mutex::default(),
            turns: Mutex::default(),
            next: Condvar::new(),
        })
    }

    /// A place for a further model, which gets `share` of what is free whenever it comes.
    #[must_use]
    pub fn place(self: &Arc<Self>, share: f64) -> Place {
        let mut held = self.lock();
        held.push(Held::default());
        Place {
            device: Arc::clone(self),
            index: held.len() - 1,
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

    fn free_of(&self, held: &[Held]) -> Option<u64> {
        let taken = held.iter().map(|held| held.total());
        Some(
            self.total?
                .saturating_sub(taken.fold(0, u64::saturating_add)),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Held>> {
        // Each entry is replaced as a whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// What it holds.
    #[must_use]
    pub fn held(&self) -> Held {
        self.device.lock()[self.index]
    }

    /// Takes memory for weights, which then are on the device.
    ///
    /// # Errors
    /// [`Shortage`]; nothing has changed then.
    pub fn take_weights(&self, bytes: u64) -> Result<(), Shortage> {
        let mut held = self.device.lock();
        if let Some(free) = self.device.free_of(&held)
            && free < bytes
        {
            return Err(Shortage {
                needed: bytes,
                free,
            });
        }
        held[self.index].weights = bytes;
        Ok(())
    }

    /// Takes memory for a cache in blocks of `block_bytes`, at most `most` of them, and says how
    /// many. Its weights and its cache together get its share of what is free without both.
    ///
    /// # Errors
    /// [`Shortage`] when that is not one block; nothing has changed then.
    pub fn take_cache(&self, block_bytes: u64, most: u64) -> Result<u64, Shortage> {
        let block_bytes = block_bytes.max(1);
        let mut held = self.device.lock();
        let weights = held[self.index].weights;
        let n_blocks = match self.device.free_of(&held) {
            None => most,
            Some(free) => {
                let room = self
                    .share_of(free.saturating_add(weights))
                    .saturating_sub(weights);
                (room / block_bytes).min(most)
            }
        };
        if n_blocks == 0 {
            let free = self.device.free_of(&held).unwrap_or(0);
            let needed = block_bytes;
            return Err(Shortage { needed, free });
        }
        held[self.index].cache = n_blocks.saturating_mul(block_bytes);
        Ok(n_blocks)
    }

    /// Gives the memory of the weights back.
    pub fn leave_weights(&self) {
        self.device.lock()[self.index].weights = 0;
    }

    /// Gives the memory of the cache back.
    pub fn leave_cache(&self) {
        self.device.lock()[self.index].cache = 0;
    }

    /// Whether as much is free as this model would get of an empty device, its own memory
    /// included.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let held = self.device.lock();
        let own = held[self.index].total();
        match (self.device.total, self.device.free_of(&held)) {
            (Some(total), Some(free)) => free.saturating_add(own) >= self.share_of(total),
            _ => true,
        }
    }

    fn share_of(&self, bytes: u64) -> u64 {
        // Rounds down; a share is at most 1.
        (bytes as f64 * self.share) as u64
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

/// A turn on a device.
#[derive(Debug)]
pub struct Turn<'a>(&'a Device);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.turns().now += 1;
        self.0.next.notify_all();
    }
}

/// Memory that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{needed} bytes of device memory are needed and {free} are free; deactivate another model, or \
     change the shares"
)]
pub struct Shortage {
    /// Bytes needed.
    pub needed: u64,
    /// Bytes free.
    pub free: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_apply_one_after_the_other_to_what_is_left() {
        let device = Device::new(Some(1000));
        let (a, b) = (device.place(0.5), device.place(0.5));
        a.take_weights(100).unwrap();
        assert_eq!(a.take_cache(10, u64::MAX).unwrap(), 40);
        b.take_weights(100).unwrap();
        // Half of 500, less the weights.
        assert_eq!(b.take_cache(10, u64::MAX).unwrap(), 15);
        assert_eq!(device.free(), Some(250));
        assert_eq!((a.held().total(), b.held().total()), (500, 250));
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let device = Device::new(Some(1000));
        let (a, b) = (device.place(0.9), device.place(0.9));
        a.take_weights(800).unwrap();
        a.take_cache(10, u64::MAX).unwrap();
        let shortage = b.take_weights(800).unwrap_err();
        assert_eq!((shortage.needed, shortage.free), (800, 100));
        assert_eq!(b.held(), Held::default());
        assert!(b.take_cache(1000, 5).is_err());
        assert!(!b.has_room());
        a.leave_cache();
        a.leave_weights();
        assert!(b.has_room() && b.take_weights(800).is_ok());
    }

    #[test]
    fn without_a_size_there_is_room_for_what_is_asked() {
        let place = Device::new(None).place(0.1);
        assert_eq!(place.take_cache(1 << 40, 7), Ok(7));
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
