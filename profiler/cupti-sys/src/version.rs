//! Versions of CUPTI, and what each is known to do wrong.
//!
//! Where the facts come from: NVIDIA's release notes and headers, and reports on the projects that use it;
//! `docs/profiler.md` lists them. None was seen on a GPU by this project.

use crate::constants::Kind;
use std::fmt;

/// What `cuptiGetVersion` says: small numbers up to CUDA 12, `MMmmpp` from CUDA 13 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// That of CUDA 11.8 to 12.1, the oldest whose records are known here.
    pub const OLDEST: Self = Self(18);
    /// That of CUDA 12.2.
    pub const V12_2: Self = Self(20);
    /// That of CUDA 12.3.
    pub const V12_3: Self = Self(21);
    /// That of CUDA 12.4 and its update, which have one number.
    pub const V12_4: Self = Self(22);
    /// That of CUDA 12.6.
    pub const V12_6: Self = Self(24);
    /// That of CUDA 12.8.
    pub const V12_8: Self = Self(26);
    /// That of CUDA 12.9.
    pub const V12_9: Self = Self(27);
    /// That of the first update of CUDA 12.9, the last of 12.
    pub const LAST_OF_12: Self = Self(28);
    /// The first of CUDA 13.
    pub const V13_0: Self = Self(130_000);
    /// The first of CUDA 13.1.
    pub const V13_1: Self = Self(130_100);
    /// The first of CUDA 13.3.
    pub const V13_3: Self = Self(130_300);
    /// The first of CUDA 13.4.
    pub const V13_4: Self = Self(130_400);
    /// The first that is newer than any whose headers were read here.
    pub const UNREAD: Self = Self(130_600);

    /// Major version of the CUDA that it belongs to.
    #[must_use]
    pub fn cuda_major(self) -> u32 {
        match self.0 {
            0..=17 => 11,
            18..100_000 => 12,
            number => number / 10_000,
        }
    }

    /// Size of its records of a kind, bytes, as its headers have it; `None` for versions and kinds that
    /// were not read.
    #[must_use]
    pub fn stride(self, kind: Kind) -> Option<usize> {
        let is_read = (Self::OLDEST..=Self::LAST_OF_12).contains(&self)
            || (Self::V13_0..Self::UNREAD).contains(&self);
        if !is_read {
            return None;
        }
        let first_since = |sizes: &[(Self, usize)]| {
            let since = sizes.iter().rev().find(|(since, _)| *since <= self);
            since.map(|(_, size)| *size)
        };
        first_since(match kind {
            Kind::KERNEL | Kind::CONCURRENT_KERNEL => &[
                (Self::OLDEST, 208),
                (Self::V13_0, 216),
                (Self::V13_1, 224),
                (Self::V13_3, 232),
                (Self::V13_4, 248),
            ],
            Kind::MEMCPY => &[(Self::OLDEST, 88), (Self(25), 96), (Self::V13_4, 112)],
            Kind::MEMCPY2 => &[(Self::OLDEST, 96)],
            Kind::MEMSET => &[(Self::OLDEST, 88), (Self::V13_4, 104)],
            Kind::GRAPH_TRACE => &[(Self::OLDEST, 48), (Self::V12_3, 56)],
            Kind::DRIVER | Kind::RUNTIME => &[(Self::OLDEST, 40)],
            Kind::OVERHEAD => &[(Self::OLDEST, 40), (Self::V12_3, 48), (Self::V12_4, 56)],
            Kind::MARKER => &[(Self::OLDEST, 56)],
            Kind::MARKER_DATA => &[(Self::OLDEST, 32), (Self::V13_0, 40)],
            Kind::EXTERNAL_CORRELATION => &[(Self::OLDEST, 24)],
            Kind::SYNCHRONIZATION => &[(Self::OLDEST, 40), (Self(25), 56)],
            _ => return None,
        })
    }

    /// What it is known to do wrong.
    pub fn quirks(self) -> impl Iterator<Item = Quirk> {
        Quirk::ALL
            .into_iter()
            .filter(move |quirk| quirk.is_of(self))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        match number {
            18 => f.write_str("18 (CUDA 11.8 to 12.1)"),
            20..=24 => write!(f, "{number} (CUDA 12.{})", number - 18),
            26 => f.write_str("26 (CUDA 12.8)"),
            27 | 28 => write!(f, "{number} (CUDA 12.9)"),
            130_000.. => {
                let (major, minor) = (number / 10_000, number / 100 % 100);
                write!(f, "{number} (CUDA {major}.{minor})")
            }
            _ => write!(f, "{number} (unknown)"),
        }
    }
}

/// Something that some versions of CUPTI do wrong, and what follows for who uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quirk {
    /// 12.4: kernels can be missing where callbacks were enabled before activities.
    LosesKernelsAfterCallbacks,
    /// Before 12.6: to finalise and begin again with graphs in the process crashes.
    OneSession,
    /// Before the 27th: to be given no buffer may crash it.
    NeedsABuffer,
    /// 13.0 as first released: disabling kernels can deadlock, flushing can crash.
    DeadlocksOnDisable,
    /// 13.0 to 13.1: from the second session on, launches of graphs have wrong correlation ids.
    WrongCorrelationOfGraphs,
    /// 13.0: graphs that were captured while activities were enabled use up device buffers.
    KeepsDeviceBuffers,
    /// 13.2: in a process without a driver the first call kills it.
    DiesWithoutDriver,
    /// Before the update of 13.4: long tracing takes more and more of a processor.
    SlowsWithTime,
}

impl Quirk {
    /// All of them, oldest first.
    pub const ALL: [Self; 8] = [
        Self::LosesKernelsAfterCallbacks,
        Self::OneSession,
        Self::NeedsABuffer,
        Self::DeadlocksOnDisable,
        Self::WrongCorrelationOfGraphs,
        Self::KeepsDeviceBuffers,
        Self::DiesWithoutDriver,
        Self::SlowsWithTime,
    ];

    /// Whether a version has it.
    #[must_use]
    pub fn is_of(self, version: Version) -> bool {
        let number = version.0;
        match self {
            Self::LosesKernelsAfterCallbacks => version == Version::V12_4,
            Self::OneSession => version < Version::V12_6,
            Self::NeedsABuffer => version < Version::V12_9,
            Self::DeadlocksOnDisable => number == 130_000,
            Self::WrongCorrelationOfGraphs => (130_000..130_101).contains(&number),
            Self::KeepsDeviceBuffers => (130_000..130_100).contains(&number),
            Self::DiesWithoutDriver => (130_200..130_300).contains(&number),
            Self::SlowsWithTime => number < 130_401,
        }
    }

    /// A word for it, for records and messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::LosesKernelsAfterCallbacks => "loses_kernels_after_callbacks",
            Self::OneSession => "one_session",
            Self::NeedsABuffer => "needs_a_buffer",
            Self::DeadlocksOnDisable => "deadlocks_on_disable",
            Self::WrongCorrelationOfGraphs => "wrong_correlation_of_graphs",
            Self::KeepsDeviceBuffers => "keeps_device_buffers",
            Self::DiesWithoutDriver => "dies_without_driver",
            Self::SlowsWithTime => "slows_with_time",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernel, memcpy, memset, graph, overhead, marker data and synchronization, by version.
    const SIZES: [(u32, [usize; 7]); 14] = [
        (18, [208, 88, 88, 48, 40, 32, 40]),
        (20, [208, 88, 88, 48, 40, 32, 40]),
        (21, [208, 88, 88, 56, 48, 32, 40]),
        (22, [208, 88, 88, 56, 56, 32, 40]),
        (24, [208, 88, 88, 56, 56, 32, 40]),
        (26, [208, 96, 88, 56, 56, 32, 56]),
        (27, [208, 96, 88, 56, 56, 32, 56]),
        (28, [208, 96, 88, 56, 56, 32, 56]),
        (130_001, [216, 96, 88, 56, 56, 40, 56]),
        (130_101, [224, 96, 88, 56, 56, 40, 56]),
        (130_202, [224, 96, 88, 56, 56, 40, 56]),
        (130_301, [232, 96, 88, 56, 56, 40, 56]),
        (130_401, [248, 112, 104, 56, 56, 40, 56]),
        (130_500, [248, 112, 104, 56, 56, 40, 56]),
    ];

    #[test]
    fn sizes_are_those_of_the_headers() {
        let kinds = [
            Kind::CONCURRENT_KERNEL,
            Kind::MEMCPY,
            Kind::MEMSET,
            Kind::GRAPH_TRACE,
            Kind::OVERHEAD,
            Kind::MARKER_DATA,
            Kind::SYNCHRONIZATION,
        ];
        for (version, sizes) in SIZES {
            let told = kinds.map(|kind| Version(version).stride(kind));
            assert_eq!(told, sizes.map(Some), "{version}");
        }
    }

    #[test]
    fn of_versions_and_kinds_that_were_not_read_nothing_is_told() {
        for version in [17, 29, 120_000, 130_600, 140_000] {
            assert_eq!(Version(version).stride(Kind::MEMCPY), None, "{version}");
        }
        assert_eq!(Version(24).stride(Kind(9)), None);
        assert!(Kind::known().all(|kind| Version(24).stride(kind).is_some()));
    }

    #[test]
    fn versions_name_their_cuda() {
        let told = [18, 22, 24, 28, 130_101, 25].map(|version| Version(version).to_string());
        assert_eq!(
            told,
            [
                "18 (CUDA 11.8 to 12.1)",
                "22 (CUDA 12.4)",
                "24 (CUDA 12.6)",
                "28 (CUDA 12.9)",
                "130101 (CUDA 13.1)",
                "25 (unknown)"
            ]
        );
        let majors = [17, 18, 28, 130_000, 140_100].map(|version| Version(version).cuda_major());
        assert_eq!(majors, [11, 12, 12, 13, 14]);
    }

    #[test]
    fn quirks_are_those_of_the_version() {
        let words = |version| {
            let quirks = Version(version).quirks();
            quirks.map(Quirk::word).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            words(22),
            "loses_kernels_after_callbacks one_session needs_a_buffer slows_with_time"
        );
        assert_eq!(words(24), "needs_a_buffer slows_with_time");
        assert_eq!(words(27), "slows_with_time");
        assert_eq!(
            words(130_000),
            "deadlocks_on_disable wrong_correlation_of_graphs keeps_device_buffers slows_with_time"
        );
        assert_eq!(words(130_101), "slows_with_time");
        assert_eq!(words(130_202), "dies_without_driver slows_with_time");
        assert_eq!(words(130_401), "");
    }
}
