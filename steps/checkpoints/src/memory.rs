//! Where checkpoints are read to: aligned regions of large pages, and a pool of whole checkpoints.

#![expect(
    unsafe_code,
    reason = "memory is pinned by its address for as long as it is mapped"
)]

use crate::blocks::ALIGNMENT;
use crate::device::{Device, Pin};
use crate::error::CheckpointError;
use memmap2::{Advice, MmapMut};
use std::io;
use std::ops::Range;

/// Regions begin at multiples of this: the size of large pages.
const LARGE_PAGE: usize = 2 << 20;

/// Whether memory has been written to before it is loaded into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Every page is there already.
    Before,
    /// The kernel finds and clears each page when the load first writes to it.
    WhileLoading,
}

/// Memory that begins at a multiple of 2 MiB, in large pages where the kernel has them.
pub struct Region {
    /// Dropped before the map, as fields are in their order.
    pin: Option<Pin>,
    map: MmapMut,
    begin: usize,
    bytes: usize,
}

impl Region {
    /// Takes `bytes` bytes from the system, and writes to every page if that is to be done before. Blocks.
    ///
    /// # Errors
    /// If the system does not give so much.
    pub fn new(bytes: u64, touch: Touch) -> Result<Self, CheckpointError> {
        let none = |source: io::Error| {
            CheckpointError::Unsupported(format!(
                "could not take {bytes} bytes of memory: {source}"
            ))
        };
        let bytes = usize::try_from(bytes).map_err(|_| none(io::ErrorKind::OutOfMemory.into()))?;
        let room = bytes.checked_add(LARGE_PAGE);
        let map = MmapMut::map_anon(room.unwrap_or(usize::MAX)).map_err(none)?;
        // Without large pages loading is slower and as right.
        let _ = map.advise(Advice::HugePage);
        let address = map.as_ptr().addr();
        let begin = address.next_multiple_of(LARGE_PAGE) - address;
        let mut region = Self {
            pin: None,
            map,
            begin,
            bytes,
        };
        if touch == Touch::Before {
            region.touch();
        }
        Ok(region)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.begin..self.begin + self.bytes]
    }

    /// Its bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.begin..self.begin + self.bytes]
    }

    /// Pins it for a device, as long as it is there. Blocks.
    ///
    /// # Errors
    /// If the system does not pin so much.
    pub fn pin(&mut self, device: &dyn Device) -> Result<(), CheckpointError> {
        let room = self.bytes.next_multiple_of(ALIGNMENT as usize);
        let memory = &mut self.map[self.begin..self.begin + room];
        // SAFETY: the map is made once and goes only with the region, after the pin.
        self.pin = Some(unsafe { device.pin(memory)? });
        Ok(())
    }

    /// Writes to every page, on all processors.
    fn touch(&mut self) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let part = self.bytes.div_ceil(threads).next_multiple_of(LARGE_PAGE);
        std::thread::scope(|scope| {
            for part in self.bytes_mut().chunks_mut(part.max(LARGE_PAGE)) {
                scope.spawn(|| {
                    for page in part.chunks_mut(ALIGNMENT as usize) {
                        page[0] = 0;
                    }
                });
            }
        });
    }
}

/// Checkpoints that stay in memory, least recently used first to go.
pub struct Pool {
    region: Region,
    shelf: Shelf,
}

/// A place in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its bytes of the pool.
    pub range: Range<usize>,
    /// Whether the checkpoint lies there already.
    pub is_resident: bool,
    /// What had to go for it.
    pub evicted: Vec<String>,
}

impl Pool {
    /// Makes a pool of a region.
    #[must_use]
    pub fn new(region: Region) -> Self {
        let shelf = Shelf::new(region.bytes);
        Self { region, shelf }
    }

    /// Finds the checkpoint called `name`, or a place of `bytes` bytes for it; drops what was not used for the
    /// longest time until there is one.
    ///
    /// # Errors
    /// [`CheckpointError::NoRoom`] if the whole pool is too small.
    pub fn place(&mut self, name: &str, bytes: u64) -> Result<Place, CheckpointError> {
        let fits = usize::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= self.shelf.bytes);
        let Some(bytes) = fits else {
            return Err(CheckpointError::NoRoom {
                needed: bytes,
                there: self.shelf.bytes as u64,
            });
        };
        Ok(self.shelf.place(
            name,
            bytes
                .next_multiple_of(ALIGNMENT as usize)
                .min(self.shelf.bytes),
        ))
    }

    /// Forgets a checkpoint, such as one that was not loaded to its end.
    pub fn forget(&mut self, name: &str) {
        self.shelf
            .residents
            .retain(|resident| resident.name != name);
    }

    /// The bytes of a place.
    #[must_use]
    pub fn bytes(&self, place: &Place) -> &[u8] {
        &self.region.bytes()[place.range.clone()]
    }

    /// The bytes of a place, to be written.
    pub fn bytes_mut(&mut self, place: &Place) -> &mut [u8] {
        &mut self.region.bytes_mut()[place.range.clone()]
    }
}

/// Which part of a pool is whose.
struct Shelf {
    bytes: usize,
    /// In the order of their ranges.
    residents: Vec<Resident>,
    clock: u64,
}

struct Resident {
    name: String,
    range: Range<usize>,
    used: u64,
}

impl Shelf {
    fn new(bytes: usize) -> Self {
        Self {
            bytes,
            residents: Vec::new(),
            clock: 0,
        }
    }

    /// `bytes` are at most those of the shelf.
    fn place(&mut self, name: &str, bytes: usize) -> Place {
        self.clock += 1;
        let found = self
            .residents
            .iter_mut()
            .find(|resident| resident.name == name);
        if let Some(resident) = found
            && resident.range.len() == bytes
        {
            resident.used = self.clock;
            return Place {
                range: resident.range.clone(),
                is_resident: true,
                evicted: Vec::new(),
            };
        }
        self.residents.retain(|resident| resident.name != name);
        let mut evicted = Vec::new();
        let begin = loop {
            if let Some(begin) = self.gap(bytes) {
                break begin;
            }
            let oldest = self
                .residents
                .iter()
                .enumerate()
                .min_by_key(|(_, resident)| resident.used);
            match oldest.map(|(at, _)| at) {
                Some(at) => evicted.push(self.residents.remove(at).name),
                None => break 0,
            }
        };
        let range = begin..begin + bytes;
        // A place without bytes stands before one that begins where it does.
        let after = self.residents.partition_point(|resident| {
            (resident.range.start, resident.range.end) <= (range.start, range.end)
        });
        let resident = Resident {
            name: name.to_owned(),
            range: range.clone(),
            used: self.clock,
        };
        self.residents.insert(after, resident);
        Place {
            range,
            is_resident: false,
            evicted,
        }
    }

    /// Where `bytes` bytes are free.
    fn gap(&self, bytes: usize) -> Option<usize> {
        let mut begin = 0;
        for resident in &self.residents {
            if resident.range.start - begin >= bytes {
                return Some(begin);
            }
            begin = resident.range.end;
        }
        (self.bytes - begin >= bytes).then_some(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_aligned_and_zero() {
        let mut region = Region::new(10_000, Touch::Before).unwrap();
        assert!(region.bytes().as_ptr().addr().is_multiple_of(LARGE_PAGE));
        assert_eq!(region.bytes(), vec![0; 10_000]);
        region.bytes_mut()[9_999] = 1;
        assert!(Region::new(u64::MAX, Touch::WhileLoading).is_err());
    }

    #[test]
    fn what_was_not_used_for_longest_goes_and_places_never_overlap() {
        let mut shelf = Shelf::new(100);
        for name in ["a", "b", "c"] {
            assert!(!shelf.place(name, 30).is_resident);
        }
        assert!(shelf.place("a", 30).is_resident);
        assert_eq!(shelf.place("d", 20).evicted, ["b"]);
        assert_eq!(shelf.place("e", 60).evicted, ["c", "a", "d"]);
        // Each step draws a name and a size by a linear congruence.
        let mut state = 7_u32;
        for _ in 0..2000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (name, bytes) = ((state >> 8) % 9, (state >> 16) as usize % 101);
            let place = shelf.place(&name.to_string(), bytes);
            assert_eq!(place.range.len(), bytes);
            let mut end = 0;
            for resident in &shelf.residents {
                assert!(resident.range.start >= end, "state {state}");
                end = resident.range.end;
            }
            assert!(end <= 100);
        }
    }
}
