//! One load: a checkpoint from its files into memory, each stage timed apart.

mod loaded;
mod to_device;

pub use loaded::Loaded;

use crate::blocks::{BlockPlan, Packing};
use crate::contents::Contents;
use crate::device::Device;
use crate::error::CheckpointError;
use crate::loader::{
    Brought, Buffers, Effort, Filled, OpenFile, Ring, Standing, Way, alignment, open_all,
};
use crate::memory::{Place, Pool, Region, Touch};
use loaded::Held;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Reads that a load may be cut into: their list must not become what fills memory.
const MOST_BLOCKS: u64 = 1 << 22;

/// What is loaded, and how.
#[derive(Debug, Clone)]
pub struct Load {
    /// The checkpoint's folder.
    pub folder: PathBuf,
    /// The way to read.
    pub way: Way,
    /// How it is used.
    pub effort: Effort,
    /// Bytes of one read at most; rounded up to what the file system needs.
    pub block: u64,
}

/// Where a checkpoint is loaded to.
pub enum Destination<'p> {
    /// A pool, in which its files lie as they are. One that lies there already is not read again.
    Pool(&'p mut Pool),
    /// Memory that is taken from the system during the load.
    Fresh,
    /// A few blocks that go round, and from there to packed tensors.
    Ring {
        /// The memory of the blocks; as many as it has room for.
        ring: &'p mut Region,
        /// Where tensors go.
        to: &'p mut Region,
    },
    /// From a pool, in which it lies after this load, to packed tensors.
    Through {
        /// The pool.
        pool: &'p mut Pool,
        /// Where tensors go.
        to: &'p mut Region,
    },
    /// A few blocks that go round, and from there to packed tensors on a device.
    RingToDevice {
        /// The memory of the blocks, which should be pinned.
        ring: &'p mut Region,
        /// Where tensors go.
        device: &'p mut (dyn Device + 'p),
    },
    /// From a pool, in which it lies after this load, to packed tensors on a device, each block once it is there.
    PoolToDevice {
        /// The pool, whose memory should be pinned.
        pool: &'p mut Pool,
        /// Where tensors go.
        device: &'p mut (dyn Device + 'p),
    },
}

/// How long the parts of a load took. They follow each other, but copying, which may go on beside reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// Finding out what the checkpoint consists of.
    pub header: Duration,
    /// Opening its files.
    pub open: Duration,
    /// Planning the reads, and finding memory for them.
    pub allocate: Duration,
    /// From the first read until the last block was there.
    pub read: Duration,
    /// Copying within memory, as long as that was under way; to a device, by the device's clock.
    pub copy: Duration,
    /// From the beginning until the first tensor could be used.
    pub first_tensor: Duration,
    /// From the beginning until all could be used.
    pub total: Duration,
}

/// What is known once files are open.
struct Begun {
    began: Instant,
    contents: Contents,
    files: Vec<OpenFile>,
    plan: BlockPlan,
    /// When memory is looked for, counted from the beginning.
    opened: Duration,
    stages: Stages,
    buffers: Option<Buffers>,
}

/// Loads a checkpoint. Blocks.
///
/// # Errors
/// If it is malformed, changes meanwhile, cannot be read this way, or has no room.
pub fn load<'p>(load: &Load, destination: Destination<'p>) -> Result<Loaded<'p>, CheckpointError> {
    let begun = begin(load)?;
    match destination {
        Destination::RingToDevice { .. } | Destination::PoolToDevice { .. }
            if load.way == Way::Mmap =>
        {
            Err(CheckpointError::Unsupported(
                "`mmap` reads into no memory that a device could be given; take `mmap_copy`"
                    .to_owned(),
            ))
        }
        _ if load.way == Way::Mmap => mapped(load, begun),
        Destination::Pool(pool) => {
            let (begun, place, filled) = into_pool(load, begun, pool)?;
            let held = Held::InPlace(pool.bytes(&place), begun.plan.clone());
            Ok(begun.end(&filled, place.is_resident, held))
        }
        Destination::Fresh => fresh(load, begun),
        Destination::Ring { ring, to } => through_ring(load, begun, ring, to),
        Destination::Through { pool, to } => through_pool(load, begun, pool, to),
        Destination::RingToDevice { ring, device } => {
            to_device::through_ring(load, begun, ring, device)
        }
        Destination::PoolToDevice { pool, device } => {
            to_device::through_pool(load, begun, pool, device)
        }
    }
}

fn begin(load: &Load) -> Result<Begun, CheckpointError> {
    let began = Instant::now();
    let contents = Contents::read(&load.folder)?;
    let header = began.elapsed();
    let paths = contents.paths();
    let alignment = alignment(&paths);
    let files = open_all(paths, load.way)?;
    let opened = began.elapsed();
    let lengths: Vec<u64> = contents.files.iter().map(|file| file.bytes).collect();
    let block = load.block.next_multiple_of(alignment);
    if contents.file_bytes() / block > MOST_BLOCKS {
        let bytes = contents.file_bytes();
        return Err(CheckpointError::Unsupported(format!(
            "`{}` has {bytes} bytes, more than {MOST_BLOCKS} reads of {block} bytes bring",
            load.folder.display()
        )));
    }
    let plan = BlockPlan::new(&lengths, block, alignment);
    Ok(Begun {
        began,
        contents,
        files,
        plan,
        opened,
        stages: Stages {
            header,
            open: opened - header,
            ..Stages::default()
        },
        buffers: None,
    })
}

impl Begun {
    fn filled(&self) -> Filled {
        Filled::new(self.began, self.plan.blocks.len())
    }

    /// All blocks have been read; `allocated` is when that began.
    fn has_read(&mut self, filled: &Filled, allocated: Duration, brought: Brought) {
        self.stages.read = filled.last_read().saturating_sub(allocated);
        self.buffers = brought.buffers;
    }

    /// Memory has been found; returns when, counted from the beginning.
    fn allocated(&mut self) -> Duration {
        let now = self.began.elapsed();
        self.stages.allocate = now - self.opened;
        now
    }

    fn end<'p>(mut self, filled: &Filled, was_resident: bool, held: Held<'p>) -> Loaded<'p> {
        let first = self.contents.tensors.iter().find(|tensor| tensor.bytes > 0);
        let is_of_first = |number: &usize| {
            let block = &self.plan.blocks[*number];
            first.is_some_and(|tensor| {
                let end = tensor.offset + tensor.bytes;
                block.file == tensor.file
                    && block.offset < end
                    && tensor.offset < block.offset + block.bytes
            })
        };
        let blocks = 0..self.plan.blocks.len();
        self.stages.first_tensor = filled.all_of(blocks.filter(is_of_first));
        self.stages.total = self.began.elapsed();
        Loaded {
            blocks: self.plan.blocks.len(),
            contents: self.contents,
            stages: self.stages,
            was_resident,
            buffers: self.buffers,
            held,
        }
    }
}

/// Reads into a place of the pool, unless the checkpoint lies there.
fn into_pool(
    load: &Load,
    mut begun: Begun,
    pool: &mut Pool,
) -> Result<(Begun, Place, Filled), CheckpointError> {
    let name = load.folder.to_string_lossy().into_owned();
    let place = pool.place(&name, begun.plan.bytes)?;
    let (filled, allocated) = (begun.filled(), begun.allocated());
    if place.is_resident {
        return Ok((begun, place, filled));
    }
    let memory = pool.bytes_mut(&place);
    let slots = Standing::new(&begun.plan, memory, Touch::Before, &filled);
    let read = load.way.reader(load.effort).read(&begun.files, &slots);
    drop(slots);
    let brought = read.inspect_err(|_| pool.forget(&name))?;
    begun.has_read(&filled, allocated, brought);
    Ok((begun, place, filled))
}

/// Touches every page of the files.
fn mapped<'p>(load: &Load, mut begun: Begun) -> Result<Loaded<'p>, CheckpointError> {
    // The places are only where blocks are counted.
    let mut nothing = Region::new(begun.plan.bytes, Touch::WhileLoading)?;
    let (filled, allocated) = (begun.filled(), begun.allocated());
    let memory = nothing.bytes_mut();
    let slots = Standing::new(&begun.plan, memory, Touch::WhileLoading, &filled);
    let mut brought = load.way.reader(load.effort).read(&begun.files, &slots)?;
    drop(slots);
    let maps = std::mem::take(&mut brought.maps);
    begun.has_read(&filled, allocated, brought);
    Ok(begun.end(&filled, false, Held::Maps(maps)))
}

fn fresh<'p>(load: &Load, mut begun: Begun) -> Result<Loaded<'p>, CheckpointError> {
    let mut region = Region::new(begun.plan.bytes, Touch::WhileLoading)?;
    let (filled, allocated) = (begun.filled(), begun.allocated());
    let memory = region.bytes_mut();
    let slots = Standing::new(&begun.plan, memory, Touch::WhileLoading, &filled);
    let brought = load.way.reader(load.effort).read(&begun.files, &slots)?;
    drop(slots);
    begun.has_read(&filled, allocated, brought);
    let plan = begun.plan.clone();
    Ok(begun.end(&filled, false, Held::Fresh(region, plan)))
}

/// Reads into blocks that go round, and copies from them beside that.
fn through_ring<'p>(
    load: &Load,
    mut begun: Begun,
    ring: &mut Region,
    to: &'p mut Region,
) -> Result<Loaded<'p>, CheckpointError> {
    let packing = Packing::new(&begun.contents, &begun.plan);
    require(packing.bytes, to)?;
    let block = ring_block(load, &begun.plan, ring)?;
    let (filled, allocated) = (begun.filled(), begun.allocated());
    let (slots, copier) = Ring::new(&begun.plan, ring.bytes_mut(), block as usize, &filled);
    let (reader, files) = (load.way.reader(load.effort), &begun.files);
    let (read, copied) = std::thread::scope(|scope| {
        let copying = scope.spawn(|| copier.copy(&packing, to.bytes_mut(), &filled));
        let read = reader.read(files, &slots);
        // The copier ends when nobody can bring it anything more.
        drop(slots);
        (read, copying.join())
    });
    begun.has_read(&filled, allocated, read?);
    begun.stages.copy = copied.unwrap_or_default();
    Ok(begun.end(&filled, false, Held::Packed(to.bytes(), packing)))
}

/// Bytes of the places of a ring, which must be as many as the readers hold at once.
fn ring_block(load: &Load, plan: &BlockPlan, ring: &Region) -> Result<u64, CheckpointError> {
    let rooms = plan.blocks.iter().map(|block| block.room);
    let block = rooms.max().unwrap_or(load.block);
    let places = load.way.places(load.effort) as u64;
    require(block.saturating_mul(places), ring)?;
    Ok(block)
}

/// Reads into the pool if it has to, and copies from there.
fn through_pool<'p>(
    load: &Load,
    begun: Begun,
    pool: &mut Pool,
    to: &'p mut Region,
) -> Result<Loaded<'p>, CheckpointError> {
    let packing = Packing::new(&begun.contents, &begun.plan);
    require(packing.bytes, to)?;
    let (mut begun, place, filled) = into_pool(load, begun, pool)?;
    let (from, destination) = (pool.bytes(&place), to.bytes_mut());
    let began = Instant::now();
    let mut base = 0;
    for (number, block) in begun.plan.blocks.iter().enumerate() {
        for piece in &packing.pieces[number] {
            let (at, bytes) = (base + piece.from as usize, piece.bytes as usize);
            let goes = piece.to as usize..piece.to as usize + bytes;
            destination[goes].copy_from_slice(&from[at..at + bytes]);
        }
        filled.stamp(number);
        base += block.room as usize;
    }
    begun.stages.copy = began.elapsed();
    Ok(begun.end(
        &filled,
        place.is_resident,
        Held::Packed(to.bytes(), packing),
    ))
}

fn require(needed: u64, region: &Region) -> Result<(), CheckpointError> {
    let there = region.bytes().len() as u64;
    match needed <= there {
        true => Ok(()),
        false => Err(CheckpointError::NoRoom { needed, there }),
    }
}
