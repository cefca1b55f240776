//! Records as they lie in a buffer, read by their size and never beyond.
//!
//! From 12.0 to 13.5 NVIDIA only ever appended to these structures: no field has moved. So what every
//! version has is read as it is, what only some have is an [`Option`], and the next record begins where
//! the size of this one says. Names are addresses, which only the process that recorded them may follow.

mod views;

pub use views::{Call, Graph, Kernel, Memcpy, Memset, Overhead, PeerCopy, Synchronization};

use crate::constants::Kind;
use crate::strides::Strides;

/// One record: its kind, and its bytes as far as its size says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    kind: Kind,
    bytes: &'a [u8],
}

/// Where a buffer cannot be read on. What is behind it is lost: only the size of a record tells where the
/// next one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A record of a kind whose size is not known.
    #[error("a record of {kind} at byte {at}, whose size is not known: {left} bytes are lost")]
    UnknownKind {
        /// The kind.
        kind: Kind,
        /// Where it begins.
        at: usize,
        /// Bytes from there to the end.
        left: usize,
    },
    /// The buffer ends within a record.
    #[error("{left} bytes at byte {at} are no whole record")]
    Cut {
        /// Where it begins.
        at: usize,
        /// Bytes from there to the end.
        left: usize,
    },
}

/// The records of a buffer, in its order; ends after the first damage.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    strides: &'a Strides,
    at: usize,
}

impl<'a> Records<'a> {
    /// Reads the filled part of a buffer.
    #[must_use]
    pub fn new(bytes: &'a [u8], strides: &'a Strides) -> Self {
        Self {
            bytes,
            strides,
            at: 0,
        }
    }

    fn next_record(&mut self) -> Result<Record<'a>, Damage> {
        let (at, left) = (self.at, self.bytes.len() - self.at);
        // Nothing is read on after a damage.
        self.at = self.bytes.len();
        let rest = &self.bytes[at..];
        let kind = read(rest, 0).map(u32::from_ne_bytes).map(Kind);
        let kind = kind.ok_or(Damage::Cut { at, left })?;
        let Some(size) = self.strides.get(kind) else {
            return Err(Damage::UnknownKind { kind, at, left });
        };
        let bytes = rest.get(..size).ok_or(Damage::Cut { at, left })?;
        self.at = at + size;
        Ok(Record { kind, bytes })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.at < self.bytes.len()).then(|| self.next_record())
    }
}

impl Record<'_> {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// A field of a structure of NVIDIA's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// NVIDIA's name of it.
    pub name: &'static str,
    /// Offset, bytes.
    pub at: usize,
    /// Size, bytes.
    pub size: usize,
    /// Whether only some versions have it.
    pub is_late: bool,
}

/// What is read of the records of some kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The kinds.
    pub kinds: &'static [Kind],
    /// NVIDIA's name of the structure, without the number that its latest revision has.
    pub structure: &'static str,
    /// Bytes that every version has.
    pub least: usize,
    /// The fields that are read.
    pub fields: &'static [Field],
}

/// What is read, kind by kind.
pub const LAYOUTS: [Layout; 8] = [
    Kernel::LAYOUT,
    Memcpy::LAYOUT,
    PeerCopy::LAYOUT,
    Memset::LAYOUT,
    Graph::LAYOUT,
    Call::LAYOUT,
    Overhead::LAYOUT,
    Synchronization::LAYOUT,
];

/// Bytes that a record of a kind has in every version, as far as they are read.
pub(crate) fn least(kind: Kind) -> usize {
    let layout = LAYOUTS.iter().find(|layout| layout.kinds.contains(&kind));
    layout.map_or(8, |layout| layout.least)
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Version;
    use proptest::prelude::*;

    /// A record of a kind in which each byte tells where it is.
    fn telling(kind: Kind, size: usize) -> Vec<u8> {
        let place = |at| u8::try_from(at % 251).unwrap_or_default();
        let mut bytes: Vec<u8> = (0..size).map(place).collect();
        bytes[..4].copy_from_slice(&kind.0.to_ne_bytes());
        bytes
    }

    #[test]
    fn every_layout_fits_the_smallest_record_of_its_kinds() {
        for layout in LAYOUTS {
            for field in layout.fields.iter().filter(|field| !field.is_late) {
                assert!(field.at + field.size <= layout.least, "{field:?}");
                assert_eq!(field.at % field.size, 0, "{field:?}");
            }
            for kind in layout.kinds {
                assert!(
                    Version::OLDEST.stride(*kind) >= Some(layout.least),
                    "{kind}"
                );
            }
        }
    }

    #[test]
    fn late_fields_are_there_if_the_record_is_long_enough() {
        let kind = Kind::OVERHEAD;
        for (version, expected) in [(20, None), (22, Some(0x2b2a_2928))] {
            let strides = Strides::of(Version(version));
            let bytes = telling(kind, strides.get(kind).unwrap());
            let record = Records::new(&bytes, &strides).next().unwrap().unwrap();
            let overhead = Overhead::of(record).unwrap();
            assert_eq!(overhead.correlation(), expected);
            assert_eq!(overhead.start(), 0x1f1e_1d1c_1b1a_1918);
            assert!(Kernel::of(record).is_none());
        }
    }

    #[test]
    fn records_follow_one_another_by_their_sizes() {
        for version in [18, 22, 26, 130_001, 130_101, 130_301, 130_401] {
            let strides = Strides::of(Version(version));
            let kinds: Vec<Kind> = Kind::known().collect();
            let all: Vec<u8> = kinds
                .iter()
                .flat_map(|kind| telling(*kind, strides.get(*kind).unwrap()))
                .collect();
            let read: Result<Vec<Kind>, Damage> = Records::new(&all, &strides)
                .map(|record| record.map(|record| record.kind()))
                .collect();
            assert_eq!(read, Ok(kinds));
        }
    }

    #[test]
    fn damage_ends_a_buffer_and_says_what_is_lost() {
        let strides = Strides::of(Version(24));
        let size = strides.get(Kind::MEMCPY).unwrap();
        let whole = telling(Kind::MEMCPY, size);
        let cut = [whole.clone(), whole[..50].to_vec()].concat();
        let read: Vec<_> = Records::new(&cut, &strides).skip(1).collect();
        assert_eq!(read, [Err(Damage::Cut { at: size, left: 50 })]);
        let unknown = [whole.clone(), telling(Kind(77), 16), whole].concat();
        let read: Vec<_> = Records::new(&unknown, &strides).skip(1).collect();
        let (kind, left) = (Kind(77), 16 + size);
        assert_eq!(
            read,
            [Err(Damage::UnknownKind {
                kind,
                at: size,
                left
            })]
        );
    }

    proptest! {
        /// Whatever a buffer holds: it ends, and every byte of it is in one record or lost.
        #[test]
        fn any_bytes_are_read_to_an_end(
            words in prop::collection::vec(prop_oneof![0_u32..70, any::<u32>()], 0..400),
            version in prop::sample::select(vec![18_u32, 22, 26, 130_001, 130_401, 999_999]),
            cut in 0_usize..4,
        ) {
            let strides = Strides::of(Version(version));
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            bytes.truncate(bytes.len().saturating_sub(cut));
            let mut seen = 0;
            for record in Records::new(&bytes, &strides) {
                match record {
                    Ok(record) => {
                        let _ = Kernel::of(record).map(|kernel| (kernel.name(), kernel.cluster_z()));
                        seen += strides.get(record.kind()).unwrap();
                    }
                    Err(Damage::UnknownKind { at, left, .. } | Damage::Cut { at, left }) => {
                        prop_assert_eq!(at, seen);
                        seen += left;
                    }
                }
            }
            prop_assert_eq!(seen, bytes.len());
        }
    }
}
