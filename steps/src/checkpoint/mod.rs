//! Checkpoints as files: `checkpoint.convert`, `checkpoint.replicate`, `checkpoint.verify`, and how fast they
//! come into memory: `checkpoint.load`, held to `storage.ceiling`, and `server.cold_start` with a whole server around.
//!
//! Reading and writing are the crate `checkpoints`'s; `model.weights` makes random checkpoints.

mod arms;
mod best;
mod ceiling;
mod cold_start;
mod convert;
mod copying;
mod fio;
mod foreign;
mod large_pages;
mod load;
mod overlap;
mod python;
mod replicate;
mod rounds;
#[cfg(test)]
mod scripted;
mod sllm;
mod start_up;
mod state;
mod summary;
mod sweep;
mod target;
mod told;
mod verify;

pub(crate) use ceiling::StorageCeiling;
pub(crate) use cold_start::ServerColdStart;
pub(crate) use convert::CheckpointConvert;
pub(crate) use copying::by_copying;
pub(crate) use load::CheckpointLoad;
pub(crate) use replicate::CheckpointReplicate;
pub(crate) use summary::CheckpointSummary;
pub(crate) use verify::CheckpointVerify;

use checkpoints::CheckpointError;
use engine::step::{FailureClass, Progress, StepContext, StepError};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use std::num::{NonZeroU32, NonZeroUsize};

/// An error of a checkpoint, with its mend.
fn failure(error: CheckpointError) -> StepError {
    let message = error.to_string();
    match error {
        CheckpointError::Stopped => StepError::new("interrupted").class(FailureClass::Interrupted),
        CheckpointError::NoSpace { .. } => {
            StepError::new(message).help("free some space, or name a folder on another disk")
        }
        CheckpointError::NoRoom { .. } => {
            StepError::new(message).help("give `pool` more, or leave it out for one that fits")
        }
        CheckpointError::Io { .. } => StepError::new(message).class(FailureClass::Infrastructure),
        _ => StepError::new(message),
    }
}

/// Does something that blocks, with a way to tell how far it is and whether it should go on.
pub(crate) async fn blocking<T: Send + 'static>(
    context: &StepContext,
    doing: &'static str,
    total: u64,
    work: impl FnOnce(&dyn Fn(u64) -> bool) -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    let (cancel, progress) = (context.cancel.clone(), context.progress.clone());
    let task = tokio::task::spawn_blocking(move || {
        work(&|done| {
            progress(Progress {
                doing: doing.to_owned(),
                done: Some((done, total)),
            });
            !*cancel.borrow()
        })
    });
    task.await
        .map_err(|e| StepError::because(format!("{doing} broke off"), e))?
}

/// An order of `0..n` by chance, always the same for a seed.
fn permutation(n: usize, seed: u64) -> Vec<usize> {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        order.swap(last, random.random_range(0..=last));
    }
    order
}

/// A number of things as the standard library counts them.
fn count(n: NonZeroU32) -> NonZeroUsize {
    NonZeroUsize::try_from(n).unwrap_or(NonZeroUsize::MIN)
}

/// Bytes as a plan's reader takes them.
fn gigabytes(bytes: u64) -> String {
    format!("{:.3} GB", bytes as f64 / 1e9)
}
