//! One load: a checkpoint from its files into memory, each stage timed apart.

use crate::blocks::{BlockPlan, Packing};
use crate::contents::Contents;
use crate::error::{CheckpointError, failed};
use crate::loader::{Effort, Filled, OpenFile, Ring, Standing, Way, alignment, open_all};
use crate::memory::{Place, Pool, Region, Touch};
use memmap2::Mmap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Bytes that are compared at a time.
const PIECE: usize = 4 << 20;

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
    /// Copying within memory, as long as that was under way.
    pub copy: Duration,
    /// From the beginning until the first tensor could be used.
    pub first_tensor: Duration,
    /// From the beginning until all could be used.
    pub total: Duration,
}

/// A checkpoint in memory.
pub struct Loaded<'p> {
    /// What it consists of.
    pub contents: Contents,
    /// How long it took.
    pub stages: Stages,
    /// Number of reads that it was cut into.
    pub blocks: usize,
    /// Whether it was in the pool before.
    pub was_resident: bool,
    held: Held<'p>,
}

enum Held<'p> {
    /// As the files have it.
    InPlace(&'p [u8], BlockPlan),
    Fresh(Region, BlockPlan),
    Maps(Vec<Mmap>),
    Packed(&'p [u8], Packing),
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
}

/// Loads a checkpoint. Blocks.
///
/// # Errors
/// If it is malformed, changes meanwhile, cannot be read this way, or has no room.
pub fn load<'p>(load: &Load, destination: Destination<'p>) -> Result<Loaded<'p>, CheckpointError> {
    let begun = begin(load)?;
    match destination {
        _ if load.way == Way::Mmap => mapped(load, begun),
        Destination::Pool(pool) => {
            let (begun, place, filled) = into_pool(load, begun, pool)?;
            let held = Held::InPlace(pool.bytes(&place), begun.plan.clone());
            Ok(begun.end(&filled, place.is_resident, held))
        }
        Destination::Fresh => fresh(load, begun),
        Destination::Ring { ring, to } => through_ring(load, begun, ring, to),
        Destination::Through { pool, to } => through_pool(load, begun, pool, to),
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
    let plan = BlockPlan::new(&lengths, load.block.next_multiple_of(alignment), alignment);
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
    })
}

impl Begun {
    fn filled(&self) -> Filled {
        Filled::new(self.began, self.plan.blocks.len())
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
    let slots = Standing::new(&begun.plan, pool.bytes_mut(&place), &filled);
    let read = load.way.reader(load.effort).read(&begun.files, &slots);
    drop(slots);
    if let Err(error) = read {
        pool.forget(&name);
        return Err(error);
    }
    begun.stages.read = filled.last_read().saturating_sub(allocated);
    Ok((begun, place, filled))
}

/// Touches every page of the files.
fn mapped<'p>(load: &Load, mut begun: Begun) -> Result<Loaded<'p>, CheckpointError> {
    // The places are only where blocks are counted.
    let mut nothing = Region::new(begun.plan.bytes, Touch::WhileLoading)?;
    let (filled, allocated) = (begun.filled(), begun.allocated());
    let slots = Standing::new(&begun.plan, nothing.bytes_mut(), &filled);
    let maps = load.way.reader(load.effort).read(&begun.files, &slots)?;
    drop(slots);
    begun.stages.read = filled.last_read().saturating_sub(allocated);
    Ok(begun.end(&filled, false, Held::Maps(maps)))
}

fn fresh<'p>(load: &Load, mut begun: Begun) -> Result<Loaded<'p>, CheckpointError> {
    let mut region = Region::new(begun.plan.bytes, Touch::WhileLoading)?;
    let (filled, allocated) = (begun.filled(), begun.allocated());
    let slots = Standing::new(&begun.plan, region.bytes_mut(), &filled);
    load.way.reader(load.effort).read(&begun.files, &slots)?;
    drop(slots);
    begun.stages.read = filled.last_read().saturating_sub(allocated);
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
    let rooms = begun.plan.blocks.iter().map(|block| block.room);
    let block = rooms.max().unwrap_or(load.block);
    require(
        block.saturating_mul(load.way.places(load.effort) as u64),
        ring,
    )?;
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
    read?;
    begun.stages.read = filled.last_read().saturating_sub(allocated);
    begun.stages.copy = copied.unwrap_or_default();
    Ok(begun.end(&filled, false, Held::Packed(to.bytes(), packing)))
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

impl Loaded<'_> {
    /// The bytes of the tensor at a position of the contents.
    #[must_use]
    pub fn bytes(&self, tensor: usize) -> &[u8] {
        let own = &self.contents.tensors[tensor];
        let (memory, range) = match &self.held {
            Held::InPlace(memory, plan) => (*memory, plan.place(&self.contents, tensor)),
            Held::Fresh(region, plan) => (region.bytes(), plan.place(&self.contents, tensor)),
            Held::Maps(maps) => (&maps[own.file][..], own.offset..own.offset + own.bytes),
            Held::Packed(memory, packing) => {
                let begin = packing.places[tensor];
                (*memory, begin..begin + own.bytes)
            }
        };
        &memory[range.start as usize..range.end as usize]
    }

    /// Compares every tensor in memory with the files, read once more by plain reads; returns the name of the first
    /// that differs. Blocks.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn first_difference(&self) -> Result<Option<&str>, CheckpointError> {
        let mut buffer = vec![0; PIECE];
        let mut open: Option<(usize, File)> = None;
        for (at, tensor) in self.contents.tensors.iter().enumerate() {
            let path = self.contents.path(tensor.file);
            let file = match &open {
                Some((file, open)) if *file == tensor.file => open,
                _ => {
                    let file = File::open(&path).map_err(failed("open", &path))?;
                    &open.insert((tensor.file, file)).1
                }
            };
            let mut offset = tensor.offset;
            for piece in self.bytes(at).chunks(PIECE) {
                let there = &mut buffer[..piece.len()];
                file.read_exact_at(there, offset)
                    .map_err(failed("read", &path))?;
                if there != piece {
                    return Ok(Some(&tensor.name));
                }
                offset += piece.len() as u64;
            }
        }
        Ok(None)
    }
}
