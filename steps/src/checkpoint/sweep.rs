//! The points at which storage is read, and our own reader for them; `fio` reads at the same.

use super::ceiling::Rates;
use super::{failure, permutation};
use checkpoints::loader::{Effort, Way};
use checkpoints::memory::{Pool, Region, Touch};
use checkpoints::{Contents, Destination, Load, cache};
use engine::step::StepError;
use std::num::NonZeroUsize;

/// A way to read, with so many blocks at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) way: Way,
    pub(super) at_once: usize,
    /// Bytes of one read.
    pub(super) block: u64,
}

/// The points that are always measured, the same as those of `fio`.
const SWEEP: [Point; 4] = [
    point(Way::Direct, 4, 16 << 20),
    point(Way::IoUring, 16, 4 << 20),
    point(Way::IoUring, 32, 1 << 20),
    point(Way::IoUring, 8, 8 << 20),
];

const fn point(way: Way, at_once: usize, block: u64) -> Point {
    Point {
        way,
        at_once,
        block,
    }
}

/// Those points, and those that match loads by so many threads or with so many blocks under way.
pub(super) fn sweep(threads: usize, depth: usize, block: u64) -> Vec<Point> {
    let mut all = SWEEP.to_vec();
    for matching in [
        point(Way::Direct, threads, block),
        point(Way::IoUring, depth, block),
    ] {
        if !all.contains(&matching) {
            all.push(matching);
        }
    }
    all
}

impl Point {
    pub(super) fn name(&self) -> String {
        format!(
            "own {} {} × {} MiB",
            self.way.word(),
            self.at_once,
            self.block >> 20
        )
    }
}

/// Reads the files of a checkpoint into memory that is there, past the page cache.
pub(super) fn by_ourselves(
    contents: &Contents,
    sweep: &[Point],
    rounds: u32,
    seed: u64,
    go_on: &dyn Fn(u64) -> bool,
) -> Result<Rates, StepError> {
    let paths = contents.paths();
    let Some(first) = paths.first() else {
        return Err(StepError::new("the checkpoint has no file to read"));
    };
    let points: Vec<&Point> = sweep
        .iter()
        .filter(|point| point.way.refusal(first).is_none())
        .collect();
    if points.is_empty() {
        let message = format!("`{}` cannot be read past the page cache", first.display());
        return Err(StepError::new(message)
            .help("lay the checkpoint on a disk: files in memory have no storage"));
    }
    let room = contents.file_bytes() + paths.len() as u64 * (64 << 10);
    let mut pool = Pool::new(Region::new(room, Touch::Before).map_err(failure)?);
    let mut rates = Rates::new();
    for round in 0..rounds {
        for at in permutation(points.len(), seed.wrapping_add(round.into())) {
            let point = points[at];
            let at_once = NonZeroUsize::new(point.at_once).unwrap_or(NonZeroUsize::MIN);
            let load = Load {
                folder: contents.folder.clone(),
                way: point.way,
                effort: Effort {
                    threads: at_once,
                    depth: at_once,
                },
                block: point.block,
            };
            cache::evict(&paths).map_err(failure)?;
            pool.forget(&load.folder.to_string_lossy());
            let loaded = checkpoints::load(&load, Destination::Pool(&mut pool)).map_err(failure)?;
            let seconds = loaded.stages.read.as_secs_f64().max(1e-9);
            rates.push((point.name(), contents.file_bytes() as f64 / seconds));
            if !go_on(rates.len() as u64) {
                let error = StepError::new("interrupted");
                return Err(error.class(engine::step::FailureClass::Interrupted));
            }
        }
    }
    Ok(rates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matches_a_load_is_a_point_once() {
        let names: Vec<String> = sweep(4, 8, 16 << 20).iter().map(Point::name).collect();
        assert_eq!(names.len(), 5);
        assert_eq!(names[0], "own direct 4 × 16 MiB");
        assert_eq!(names[4], "own io_uring 8 × 16 MiB");
        assert_eq!(sweep(2, 8, 8 << 20).len(), 5);
    }
}
