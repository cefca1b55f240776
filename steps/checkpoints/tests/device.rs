//! Loads to a device: which blocks are under way, when they are read into again, and what is given back, shown by
//! a device of plain memory whose copies end late and in any order, or fail.

mod some_tensors;

use checkpoints::blocks::Piece;
use checkpoints::device::{Allocation, Device, Pin, Transfer};
use checkpoints::loader::{Effort, Way};
use checkpoints::memory::{Pool, Region, Touch};
use checkpoints::{CheckpointError, Contents, Destination, Load};
use some_tensors::Chance;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes of a block.
const BLOCK: u64 = 8192;

/// When a device fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// It has no memory.
    Allocate,
    /// It does not take the copy of this number, of which it has begun a part.
    Begin(u64),
    /// The copy of this number fails after it was begun.
    Poll(u64),
}

/// A copy that is made when it is asked after for the last time.
struct Late {
    pieces: Vec<(*const u8, u64, usize)>,
    /// How often it is still said to be under way.
    rounds: usize,
}

struct Slow {
    memory: RefCell<BTreeMap<u64, Vec<u8>>>,
    under_way: BTreeMap<u64, Late>,
    begun: u64,
    chance: Chance,
    trouble: Trouble,
    most_under_way: usize,
    ended_out_of_order: bool,
    pins: Arc<AtomicUsize>,
    /// A file that loses its bytes when the first copy begins.
    victim: Option<PathBuf>,
}

impl Slow {
    fn new(seed: u64, trouble: Trouble) -> Self {
        Self {
            memory: RefCell::default(),
            under_way: BTreeMap::new(),
            begun: 0,
            chance: Chance(seed),
            trouble,
            most_under_way: 0,
            ended_out_of_order: false,
            pins: Arc::default(),
            victim: None,
        }
    }

    fn perform(&mut self, late: &Late) {
        let mut memory = self.memory.borrow_mut();
        let own = memory.values_mut().next().expect("an allocation");
        for (from, to, bytes) in &late.pieces {
            // SAFETY: whoever began the copy keeps the block as it is until it is told that the copy is done, which is
            // after this; that they do so is what these tests are about.
            let from = unsafe { std::slice::from_raw_parts(*from, *bytes) };
            own[*to as usize..][..*bytes].copy_from_slice(from);
        }
    }
}

fn failure(action: &'static str) -> CheckpointError {
    CheckpointError::Device {
        action,
        device: "slow:0".to_owned(),
        why: "it does not".to_owned(),
    }
}

struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Device for Slow {
    fn name(&self) -> &str {
        "slow:0"
    }

    fn allocate(&self, bytes: u64) -> Result<Allocation, CheckpointError> {
        if self.trouble == Trouble::Allocate {
            return Err(failure("take memory of"));
        }
        let address = 1 << 40;
        let before = self
            .memory
            .borrow_mut()
            .insert(address, vec![0xee; bytes as usize]);
        assert!(before.is_none(), "one allocation for a checkpoint");
        Ok(Allocation { address, bytes })
    }

    fn free(&self, allocation: Allocation) {
        assert!(
            self.under_way.is_empty(),
            "freed while copies are under way"
        );
        let own = self.memory.borrow_mut().remove(&allocation.address);
        assert!(own.is_some(), "freed twice");
    }

    unsafe fn pin(&self, _: &mut [u8]) -> Result<Pin, CheckpointError> {
        self.pins.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Held(Arc::clone(&self.pins))))
    }

    unsafe fn begin(
        &mut self,
        to: &Allocation,
        from: &[u8],
        pieces: &[Piece],
    ) -> Result<Transfer, CheckpointError> {
        self.begun += 1;
        if let Some(path) = self.victim.take() {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(0).unwrap();
        }
        let fails = self.trouble == Trouble::Begin(self.begun);
        let taken = if fails {
            pieces.len() / 2
        } else {
            pieces.len()
        };
        let piece = |piece: &Piece| {
            assert!(to.holds(piece.to, piece.bytes), "{piece:?}");
            let from = &from[piece.from as usize..][..piece.bytes as usize];
            (from.as_ptr(), piece.to, from.len())
        };
        let late = Late {
            pieces: pieces[..taken].iter().map(piece).collect(),
            rounds: self.chance.below(9),
        };
        self.under_way.insert(self.begun, late);
        self.most_under_way = self.most_under_way.max(self.under_way.len());
        match fails {
            true => Err(failure("copy to")),
            false => Ok(Transfer(self.begun)),
        }
    }

    fn poll(&mut self, transfer: Transfer) -> Result<Option<Duration>, CheckpointError> {
        let late = self.under_way.get_mut(&transfer.0).expect("under way");
        if late.rounds > 0 {
            late.rounds -= 1;
            return Ok(None);
        }
        if self.trouble == Trouble::Poll(transfer.0) {
            return Err(failure("copy to"));
        }
        let late = self.under_way.remove(&transfer.0).expect("under way");
        self.perform(&late);
        self.ended_out_of_order |= self.under_way.keys().any(|other| *other < transfer.0);
        Ok(Some(Duration::from_millis(1)))
    }

    fn settle(&mut self) -> Result<(), CheckpointError> {
        while let Some((_, late)) = self.under_way.pop_last() {
            self.perform(&late);
        }
        match self.trouble {
            Trouble::None => Ok(()),
            _ => Err(failure("copy to")),
        }
    }

    fn read(&self, from: &Allocation, offset: u64, into: &mut [u8]) -> Result<(), CheckpointError> {
        let memory = self.memory.borrow();
        into.copy_from_slice(&memory[&from.address][offset as usize..][..into.len()]);
        Ok(())
    }
}

fn load(folder: &Path, way: Way) -> Load {
    Load {
        folder: folder.to_owned(),
        way,
        effort: Effort {
            threads: NonZeroUsize::new(3).unwrap(),
            depth: NonZeroUsize::new(3).unwrap(),
        },
        block: BLOCK,
    }
}

/// A checkpoint that is longer than any ring of these tests.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    some_tensors::write(folder.path(), 2);
    folder
}

fn ways(folder: &Path) -> impl Iterator<Item = Way> {
    let file = Contents::read(folder).unwrap().path(0);
    let all = [Way::MmapCopy, Way::Buffered, Way::Direct, Way::IoUring];
    all.into_iter()
        .filter(move |way| way.refusal(&file).is_none())
}

#[test]
fn every_loader_brings_every_tensor_to_a_device_whose_copies_end_late_and_in_any_order() {
    let folder = folder();
    let (mut beside, mut out_of_order) = (0, 0);
    for seed in 0..40 {
        for way in ways(folder.path()) {
            let mut device = Slow::new(seed, Trouble::None);
            let mut ring = Region::new(4 * BLOCK, Touch::Before).unwrap();
            ring.pin(&device).unwrap();
            let loaded = checkpoints::load(
                &load(folder.path(), way),
                Destination::RingToDevice {
                    ring: &mut ring,
                    device: &mut device,
                },
            );
            let loaded = loaded.unwrap();
            some_tensors::require_all(&loaded, &format!("{way:?} seed {seed}"));
            assert_eq!(
                loaded.stages.copy,
                Duration::from_millis(loaded.blocks as u64)
            );
            assert!(loaded.stages.first_tensor <= loaded.stages.total);
            drop(loaded);
            assert!(device.memory.borrow().is_empty() && device.under_way.is_empty());
            assert!(device.most_under_way <= 4, "{}", device.most_under_way);
            beside += usize::from(device.most_under_way > 1);
            out_of_order += usize::from(device.ended_out_of_order);
            let pins = Arc::clone(&device.pins);
            assert_eq!(pins.load(Ordering::Relaxed), 1);
            drop(ring);
            assert_eq!(pins.load(Ordering::Relaxed), 0);
        }
    }
    assert!(beside > 0 && out_of_order > 0, "{beside} {out_of_order}");
}

#[test]
fn a_checkpoint_of_the_pool_comes_to_a_device_without_a_read() {
    let folder = folder();
    for way in ways(folder.path()) {
        let mut pool = Pool::new(Region::new(1 << 20, Touch::Before).unwrap());
        for round in 0..3 {
            let mut device = Slow::new(round, Trouble::None);
            let loaded = checkpoints::load(
                &load(folder.path(), way),
                Destination::PoolToDevice {
                    pool: &mut pool,
                    device: &mut device,
                },
            );
            let loaded = loaded.unwrap();
            some_tensors::require_all(&loaded, &format!("{way:?} {round}"));
            assert_eq!(loaded.was_resident, round > 0);
            assert_eq!(loaded.stages.read.is_zero(), round > 0);
        }
    }
}

#[test]
fn whatever_fails_nothing_is_under_way_or_kept_afterwards() {
    let folder = folder();
    let troubles = [
        Trouble::Allocate,
        Trouble::Begin(1),
        Trouble::Begin(9),
        Trouble::Poll(1),
        Trouble::Poll(7),
    ];
    for trouble in troubles {
        for way in ways(folder.path()) {
            let load = load(folder.path(), way);
            let mut pool = Pool::new(Region::new(1 << 20, Touch::Before).unwrap());
            let mut ring = Region::new(4 * BLOCK, Touch::Before).unwrap();
            for by_ring in [true, false] {
                let mut device = Slow::new(3, trouble);
                let destination = match by_ring {
                    true => Destination::RingToDevice {
                        ring: &mut ring,
                        device: &mut device,
                    },
                    false => Destination::PoolToDevice {
                        pool: &mut pool,
                        device: &mut device,
                    },
                };
                let error = checkpoints::load(&load, destination)
                    .err()
                    .expect("an error");
                assert!(
                    error.to_string().ends_with("`slow:0`: it does not"),
                    "{error}"
                );
                assert!(device.under_way.is_empty(), "{trouble:?} {way:?}");
                assert!(device.memory.borrow().is_empty(), "{trouble:?} {way:?}");
                // What was not loaded to its end is not taken for loaded.
                let again = checkpoints::load(&load, Destination::Pool(&mut pool)).unwrap();
                assert!(!again.was_resident, "{trouble:?} {way:?}");
                some_tensors::require_all(&again, "after a failure");
                drop(again);
                pool.forget(&folder.path().to_string_lossy());
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_off_meanwhile_ends_the_load_and_its_copies() {
    let folder = folder();
    let contents = Contents::read(folder.path()).unwrap();
    // Longer than the ring: when the first copy begins, not all of it can have been read.
    let last = contents.files.len() - 1;
    assert!(contents.files[last].bytes > 8 * BLOCK);
    let last = contents.path(last);
    let whole = std::fs::read(&last).unwrap();
    // A map of a file that was cut off ends the process.
    for way in ways(folder.path()).filter(|way| *way != Way::MmapCopy) {
        let mut device = Slow::new(1, Trouble::None);
        device.victim = Some(last.clone());
        let mut ring = Region::new(4 * BLOCK, Touch::Before).unwrap();
        let loaded = checkpoints::load(
            &load(folder.path(), way),
            Destination::RingToDevice {
                ring: &mut ring,
                device: &mut device,
            },
        );
        let error = loaded.err().expect("an error").to_string();
        assert!(error.ends_with("it was cut off"), "{way:?}: {error}");
        assert!(device.under_way.is_empty() && device.memory.borrow().is_empty());
        std::fs::write(&last, &whole).unwrap();
    }
}

#[test]
fn maps_cannot_be_given_to_a_device() {
    let folder = folder();
    let mut device = Slow::new(1, Trouble::None);
    let mut ring = Region::new(4 * BLOCK, Touch::Before).unwrap();
    let loaded = checkpoints::load(
        &load(folder.path(), Way::Mmap),
        Destination::RingToDevice {
            ring: &mut ring,
            device: &mut device,
        },
    );
    let error = loaded.err().expect("an error").to_string();
    assert!(error.ends_with("take `mmap_copy`"), "{error}");
}

#[test]
fn the_rate_of_copies_counts_every_block() {
    let mut device = Slow::new(5, Trouble::None);
    let mut from = Region::new(100 * BLOCK, Touch::Before).unwrap();
    let rate = checkpoints::copy_rate(&mut device, &mut from, BLOCK).unwrap();
    assert!(rate.is_finite() && rate > 0.0);
    assert_eq!(device.begun, 100);
    assert!(device.memory.borrow().is_empty() && device.under_way.is_empty());
    let mut device = Slow::new(5, Trouble::Poll(20));
    checkpoints::copy_rate(&mut device, &mut from, BLOCK).unwrap_err();
    assert!(device.memory.borrow().is_empty() && device.under_way.is_empty());
}
