//! What a device allows: the least time of a forward pass, what limits it, and shares of the peaks.

use crate::{
    Bytes, BytesPerSecond, Class, Counted, Flops, FlopsPerSecond, Model, Precision, Seconds,
};

/// What a device does at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// In projections of layers.
    pub projections: FlopsPerSecond,
    /// In everything else: scores, router, head.
    pub others: FlopsPerSecond,
    /// To and from memory.
    pub bandwidth: BytesPerSecond,
}

/// What limits a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Operations.
    Compute,
    /// Bytes.
    Memory,
}

impl Limit {
    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Limit::Compute => "compute",
            Limit::Memory => "memory",
        }
    }
}

/// The least time of a forward pass on the fullest rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// All operations at the peak.
    pub compute: Seconds,
    /// All bytes at the peak.
    pub memory: Seconds,
    /// What each class is held up by, one class after the other: `Σ max(F/peak, B/bandwidth)`. Classes
    /// depend on each other, so that this can be reached only where kernels of two of them overlap.
    pub by_class: Seconds,
}

impl Bound {
    /// The bound of what was counted.
    #[must_use]
    pub fn of(counted: &Counted, peak: &Peak) -> Self {
        let times = counted.rank.iter().map(|(class, load)| {
            let compute = load.flops / peak.of(class);
            (compute, load.bytes / peak.bandwidth)
        });
        let mut bound = Self {
            compute: Seconds(0.0),
            memory: Seconds(0.0),
            by_class: Seconds(0.0),
        };
        for (compute, memory) in times {
            bound.compute += compute;
            bound.memory += memory;
            bound.by_class += Seconds(compute.0.max(memory.0));
        }
        bound
    }

    /// The least time if everything overlaps: the longer of both.
    #[must_use]
    pub fn time(&self) -> Seconds {
        Seconds(self.compute.0.max(self.memory.0))
    }

    /// Which of both is longer.
    #[must_use]
    pub fn limit(&self) -> Limit {
        match self.compute > self.memory {
            true => Limit::Compute,
            false => Limit::Memory,
        }
    }
}

impl Peak {
    fn of(&self, class: Class) -> FlopsPerSecond {
        match class.is_quantised() {
            true => self.projections,
            false => self.others,
        }
    }

    /// The peak of the mixture that was counted: operations of a pass over the time that they take at
    /// least.
    #[must_use]
    pub fn mixed(&self, counted: &Counted) -> FlopsPerSecond {
        let flops = counted.useful.iter();
        let time: Seconds = flops.map(|(class, flops)| flops / self.of(class)).sum();
        counted.useful.total() / time
    }
}

/// Which type projections are multiplied in: eight bits where weights are so and the device can.
#[must_use]
pub fn projection_precision(model: &Model, is_fp8: bool, device_has_fp8: bool) -> Precision {
    match is_fp8 && device_has_fp8 {
        true => Precision::F8,
        false => model.activations,
    }
}

/// What a measured time says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Utilisation {
    /// Useful operations over what all devices could have done: MFU.
    pub useful_mfu: f64,
    /// Operations that were done over the same.
    pub executed_mfu: f64,
    /// Bytes that had to be moved over what the fullest device could have: MBU.
    pub bandwidth: f64,
    /// The least time, everything overlapping, over the time.
    pub of_bound: f64,
    /// The least time, one class after the other, over the time.
    pub of_bound_by_class: f64,
}

impl Utilisation {
    /// Puts a time beside what was counted. `devices` is how many share the work.
    #[must_use]
    pub fn of(counted: &Counted, peak: &Peak, devices: u64, time: Seconds) -> Self {
        let bound = Bound::of(counted, peak);
        let all = peak.mixed(counted) * devices as f64;
        let share = |flops: Flops| (flops / time).0 / all.0;
        let bytes: Bytes = counted.rank_bytes();
        Self {
            useful_mfu: share(counted.useful.total()),
            executed_mfu: share(counted.executed),
            bandwidth: (bytes / time).0 / peak.bandwidth.0,
            of_bound: bound.time().0 / time.0,
            of_bound_by_class: bound.by_class.0 / time.0,
        }
    }
}
