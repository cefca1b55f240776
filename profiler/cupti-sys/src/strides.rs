//! How large records are: asked of the library that writes them, and held to what its version's headers
//! say. A size that nobody vouches for is worse than no profile.

use crate::code::{Code, CuptiError};
use crate::constants::Kind;
use crate::cupti::Cupti;
use crate::records::least;
use crate::version::Version;

/// Words of a probe: several of the largest record.
const PROBE: usize = 512;
/// No record is as large.
const LARGEST: usize = 1024;
/// Kinds below this number have a place.
const KINDS: usize = 64;

/// Sizes of records by kind, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strides {
    of: [u16; KINDS],
}

/// Why sizes are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrideError {
    /// The library does not tell.
    #[error("the size of {kind} records is not told: {error}")]
    Untold {
        /// The records.
        kind: Kind,
        /// What was answered.
        error: CuptiError,
    },
    /// Library and headers differ.
    #[error(
        "CUPTI {version} says that {kind} records have {told} bytes, but its headers say {expected}: \
         what it writes cannot be trusted"
    )]
    Disagree {
        /// The records.
        kind: Kind,
        /// The library's version.
        version: Version,
        /// What it says.
        told: usize,
        /// What its headers say.
        expected: usize,
    },
    /// The library says what cannot be.
    #[error(
        "CUPTI {version} says that {kind} records have {told} bytes, expected a multiple of 8 from {least} \
         to {}",
        LARGEST
    )]
    Absurd {
        /// The records.
        kind: Kind,
        /// The library's version.
        version: Version,
        /// What it says.
        told: usize,
        /// What is read of such a record at least.
        least: usize,
    },
}

impl Strides {
    /// Asks a library for every kind that is known here. Kinds that it has retired are left out.
    ///
    /// # Errors
    /// [`StrideError`], at the first kind of which no size can be trusted.
    pub fn learn(cupti: &Cupti) -> Result<Self, StrideError> {
        let mut strides = Self { of: [0; KINDS] };
        for kind in Kind::known() {
            match told(cupti, kind) {
                Ok(size) => {
                    let size = held_to(cupti.version(), kind, size)?;
                    strides.set(kind, size);
                }
                Err(CuptiError {
                    code: Code::INVALID_KIND,
                    ..
                }) => {}
                Err(error) => return Err(StrideError::Untold { kind, error }),
            }
        }
        Ok(strides)
    }

    /// Those of a version by its headers; nothing of versions that were not read.
    #[must_use]
    pub fn of(version: Version) -> Self {
        let mut strides = Self { of: [0; KINDS] };
        for kind in Kind::known() {
            if let Some(size) = version.stride(kind) {
                strides.set(kind, size);
            }
        }
        strides
    }

    /// Size of a kind's records, bytes, if it is known: a multiple of 8 that is not zero.
    #[must_use]
    pub fn get(&self, kind: Kind) -> Option<usize> {
        let size = *self.of.get(usize::try_from(kind.0).ok()?)?;
        (size > 0).then_some(size.into())
    }

    fn set(&mut self, kind: Kind, size: usize) {
        let place = usize::try_from(kind.0)
            .ok()
            .and_then(|at| self.of.get_mut(at));
        if let (Some(place), Ok(size)) = (place, u16::try_from(size)) {
            *place = size;
        }
    }
}

/// What the library says: by a call of its own where it has one, else by how far apart it finds two
/// records in a buffer in which every word looks like the begin of one.
fn told(cupti: &Cupti, kind: Kind) -> Result<usize, CuptiError> {
    if let Some(said) = cupti.struct_size(kind) {
        return said;
    }
    let mut buffer = [u64::from(kind.0); PROBE];
    let [first, second] = cupti.first_two(&mut buffer)?;
    Ok(second.wrapping_sub(first))
}

fn held_to(version: Version, kind: Kind, told: usize) -> Result<usize, StrideError> {
    if let Some(expected) = version.stride(kind)
        && told != expected
    {
        return Err(StrideError::Disagree {
            kind,
            version,
            told,
            expected,
        });
    }
    let least = least(kind);
    if !told.is_multiple_of(8) || !(least..=LARGEST).contains(&told) {
        return Err(StrideError::Absurd {
            kind,
            version,
            told,
            least,
        });
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_held_to_the_headers() {
        let kernel = Kind::CONCURRENT_KERNEL;
        assert_eq!(held_to(Version(24), kernel, 208), Ok(208));
        let error = held_to(Version(130_101), kernel, 216).unwrap_err();
        assert_eq!(
            error.to_string(),
            "CUPTI 130101 (CUDA 13.1) says that concurrent_kernel records have 216 bytes, but its \
             headers say 224: what it writes cannot be trusted"
        );
    }

    #[test]
    fn of_a_newer_version_what_can_be_is_believed() {
        let (newer, kernel) = (Version(140_000), Kind::CONCURRENT_KERNEL);
        assert_eq!(held_to(newer, kernel, 264), Ok(264));
        for absurd in [0, 8, 152, 260, 1032, usize::MAX] {
            let error = held_to(newer, kernel, absurd).unwrap_err();
            assert!(matches!(error, StrideError::Absurd { .. }), "{absurd}");
        }
    }

    #[test]
    fn kinds_without_a_size_have_none() {
        let strides = Strides::of(Version(24));
        assert_eq!(strides.get(Kind::CONCURRENT_KERNEL), Some(208));
        for kind in [Kind(9), Kind(64), Kind(u32::MAX)] {
            assert_eq!(strides.get(kind), None);
        }
        assert_eq!(Strides::of(Version(5)).get(Kind::MEMCPY), None);
    }
}
