//! CUPTI's numbers. Each is a newtype over what C has: a number that is not known here stays what it is,
//! where an enum of Rust would be undefined.

use std::fmt;

/// A kind of activity record, `CUpti_ActivityKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u32);

impl Kind {
    /// Copies between memories.
    pub const MEMCPY: Self = Self(1);
    /// Memory set to a value.
    pub const MEMSET: Self = Self(2);
    /// Kernels, one at a time: enabling it serialises the device, so that it is only ever read.
    pub const KERNEL: Self = Self(3);
    /// Calls of the driver's interface.
    pub const DRIVER: Self = Self(4);
    /// Calls of the runtime's interface.
    pub const RUNTIME: Self = Self(5);
    /// Kernels as they overlap.
    pub const CONCURRENT_KERNEL: Self = Self(10);
    /// Instants and ranges of NVTX.
    pub const MARKER: Self = Self(12);
    /// What NVTX attached to them.
    pub const MARKER_DATA: Self = Self(13);
    /// What CUPTI, the driver and the compiler took for themselves.
    pub const OVERHEAD: Self = Self(17);
    /// Copies from one GPU to another.
    pub const MEMCPY2: Self = Self(22);
    /// Waits for a device, a stream or an event.
    pub const SYNCHRONIZATION: Self = Self(38);
    /// Ids of ours beside CUPTI's correlation.
    pub const EXTERNAL_CORRELATION: Self = Self(39);
    /// Launches of a graph as a whole.
    pub const GRAPH_TRACE: Self = Self(51);

    const NAMES: [(Self, &'static str); 13] = [
        (Self::MEMCPY, "memcpy"),
        (Self::MEMSET, "memset"),
        (Self::KERNEL, "kernel"),
        (Self::DRIVER, "driver"),
        (Self::RUNTIME, "runtime"),
        (Self::CONCURRENT_KERNEL, "concurrent_kernel"),
        (Self::MARKER, "marker"),
        (Self::MARKER_DATA, "marker_data"),
        (Self::OVERHEAD, "overhead"),
        (Self::MEMCPY2, "memcpy2"),
        (Self::SYNCHRONIZATION, "synchronization"),
        (Self::EXTERNAL_CORRELATION, "external_correlation"),
        (Self::GRAPH_TRACE, "graph_trace"),
    ];

    /// Those whose size is known for every version, and which a session may be told to record or may meet.
    pub fn known() -> impl Iterator<Item = Self> {
        Self::NAMES.into_iter().map(|(kind, _)| kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(kind, _)| kind == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "kind {}", self.0),
        }
    }
}

/// A setting of the activity interface, `CUpti_ActivityAttribute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute(pub u32);

impl Attribute {
    /// How many device buffers of 100,000 operations CUPTI may hold; a `size_t`.
    pub const DEVICE_BUFFER_POOL_LIMIT: Self = Self(2);
    /// Whether buffers are handed over zeroed, so that CUPTI does not do it in the server's thread; a byte.
    pub const ZEROED_OUT_ACTIVITY_BUFFER: Self = Self(5);
    /// Whether each thread of the server fills a buffer of its own; a byte, off by default before 13.0.
    pub const PER_THREAD_ACTIVITY_BUFFER: Self = Self(9);
}

/// What callbacks are about, `CUpti_CallbackDomain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domain(pub u32);

impl Domain {
    /// The driver's interface.
    pub const DRIVER: Self = Self(1);
    /// The runtime's interface.
    pub const RUNTIME: Self = Self(2);
    /// CUPTI's own state: 1 fatal, 2 error, 3 warning.
    pub const STATE: Self = Self(6);
}

/// How a flush treats buffers that are not full, `CUpti_ActivityFlag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Delivers what is complete.
    Completed,
    /// Delivers everything; a kernel that still runs is delivered without its end, and never again.
    Forced,
}

/// Numbers of calls (`cbid`), which have not changed from 12.0 to 13.5.
pub mod cbid {
    /// Those of the runtime that launch work.
    pub const RUNTIME_LAUNCHES: &[u32] = &[
        211, // cudaLaunchKernel
        214, // cudaLaunchKernel_ptsz
        311, // cudaGraphLaunch
        312, // cudaGraphLaunch_ptsz
        430, // cudaLaunchKernelExC
        431, // cudaLaunchKernelExC_ptsz
        505, // __cudaLaunchKernel, from 13.0 on
    ];
    /// Those of the driver that launch work.
    pub const DRIVER_LAUNCHES: &[u32] = &[
        307, // cuLaunchKernel
        442, // cuLaunchKernel_ptsz
        514, // cuGraphLaunch
        515, // cuGraphLaunch_ptsz
        652, // cuLaunchKernelEx
        653, // cuLaunchKernelEx_ptsz
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_known_is_still_told() {
        assert_eq!(Kind(10).to_string(), "concurrent_kernel");
        assert_eq!(Kind(4711).to_string(), "kind 4711");
    }
}
