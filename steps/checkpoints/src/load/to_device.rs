//! Loads whose tensors end on a device: blocks are copied there beside the reading of others.

use super::loaded::{Held, Loaded};
use super::{Begun, Load, ring_block};
use crate::blocks::Packing;
use crate::device::Device;
use crate::error::CheckpointError;
use crate::loader::{Ring, Standing};
use crate::memory::{Pool, Region};
use crate::upload::OnDevice;

/// Reads into blocks that go round, and has each copied to a device beside that.
pub(super) fn through_ring<'p>(
    load: &Load,
    mut begun: Begun,
    ring: &mut Region,
    device: &'p mut (dyn Device + 'p),
) -> Result<Loaded<'p>, CheckpointError> {
    let packing = Packing::new(&begun.contents, &begun.plan);
    let block = ring_block(load, &begun.plan, ring)?;
    let mut to = OnDevice::new(device, packing.bytes)?;
    let (filled, allocated) = (begun.filled(), begun.allocated());
    let (slots, copier) = Ring::new(&begun.plan, ring.bytes_mut(), block as usize, &filled);
    let (way, effort, files) = (load.way, load.effort, &begun.files);
    let (read, copied) = std::thread::scope(|scope| {
        // The copies are begun by the thread that opened the device; `slots` go with the reader, after which nothing comes.
        let reading = scope.spawn(move || way.reader(effort).read(files, &slots));
        let copied = to.copy(copier, &packing, &filled);
        (joined(reading), copied)
    });
    begun.has_read(&filled, allocated, read?);
    begun.stages.copy = copied?;
    Ok(begun.end(&filled, false, Held::OnDevice(to, packing)))
}

/// Reads into the pool if it has to, and has each block copied to a device once it is there.
pub(super) fn through_pool<'p>(
    load: &Load,
    mut begun: Begun,
    pool: &mut Pool,
    device: &'p mut (dyn Device + 'p),
) -> Result<Loaded<'p>, CheckpointError> {
    let packing = Packing::new(&begun.contents, &begun.plan);
    let mut to = OnDevice::new(device, packing.bytes)?;
    let name = load.folder.to_string_lossy().into_owned();
    let place = pool.place(&name, begun.plan.bytes)?;
    let (filled, allocated) = (begun.filled(), begun.allocated());
    let (slots, copier) = Standing::telling(&begun.plan, pool.bytes_mut(&place), &filled);
    let (way, effort, files) = (load.way, load.effort, &begun.files);
    let (read, copied) = std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            if place.is_resident {
                slots.pass_all();
                return Ok(None);
            }
            way.reader(effort).read(files, &slots).map(Some)
        });
        let copied = to.copy(copier, &packing, &filled);
        (joined(reading), copied)
    });
    if !place.is_resident && (read.is_err() || copied.is_err()) {
        pool.forget(&name);
    }
    if let Some(brought) = read? {
        begun.has_read(&filled, allocated, brought);
    }
    begun.stages.copy = copied?;
    Ok(begun.end(&filled, place.is_resident, Held::OnDevice(to, packing)))
}

/// What a thread returned; a panic goes on here.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
