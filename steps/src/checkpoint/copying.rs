//! How fast memory copies: within itself, and to GPUs where there are some.

use super::ceiling::Rates;
use super::failure;
use checkpoints::device::Device;
use checkpoints::device::cuda::{self, Cuda};
use checkpoints::memory::{Region, Touch};
use engine::step::StepError;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Instant;

/// Bytes that are copied to see how fast memory is: more than any cache of a processor holds.
const COPIED: usize = 256 << 20;
/// Bytes of one copy to a GPU, as loads make them.
const BLOCK: u64 = 16 << 20;
/// How jobs that copy within memory are called, before by how many threads.
pub(super) const MEMCPY: &str = "memcpy";
/// How jobs that copy pinned memory to a device are called, before which.
pub(super) const TO_DEVICE: &str = "pinned copy to";

/// Copies within memory, by one thread and by as many as there are processors.
pub(crate) fn by_copying(rounds: u32) -> Result<Rates, StepError> {
    let region = || Region::new(COPIED as u64, Touch::Before).map_err(failure);
    let (from, mut to) = (region()?, region()?);
    let all = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut rates = Rates::new();
    for threads in BTreeSet::from([1, all]) {
        let part = COPIED.div_ceil(threads);
        for _ in 0..rounds {
            let began = Instant::now();
            std::thread::scope(|scope| {
                let parts = to.bytes_mut().chunks_mut(part);
                for (to, from) in parts.zip(from.bytes().chunks(part)) {
                    scope.spawn(|| to.copy_from_slice(from));
                }
            });
            let rate = COPIED as f64 / began.elapsed().as_secs_f64().max(1e-9);
            rates.push((format!("{MEMCPY}, threads: {threads}"), rate));
        }
    }
    Ok(rates)
}

/// Copies pinned memory to every GPU that there is.
pub(super) fn to_devices(rounds: u32) -> Result<Rates, StepError> {
    let mut rates = Rates::new();
    for number in 0..cuda::count() {
        let mut device = Cuda::open(number).map_err(failure)?;
        let mut from = Region::new(COPIED as u64, Touch::Before).map_err(failure)?;
        from.pin(&device).map_err(failure)?;
        let job = format!("{TO_DEVICE} {}", device.name());
        for _ in 0..rounds {
            let rate = checkpoints::copy_rate(&mut device, &mut from, BLOCK).map_err(failure)?;
            rates.push((job.clone(), rate));
        }
    }
    Ok(rates)
}
