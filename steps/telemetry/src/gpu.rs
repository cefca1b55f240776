//! GPUs as they are read: which there are, what one tells at an instant, and why its clocks are held down.

/// A GPU of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its number among those that are seen.
    pub index: u32,
    /// What tells it from all others.
    pub uuid: String,
    /// What it is, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
}

/// What a GPU tells at an instant; `None` is what it does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Clock of its multiprocessors, MHz.
    pub sm_clock_mhz: Option<u64>,
    /// Clock of its memory, MHz.
    pub memory_clock_mhz: Option<u64>,
    /// Power that it draws, milliwatts: of newer ones the mean of the last second.
    pub power_mw: Option<u64>,
    /// Energy that it has used since its driver was loaded, millijoules.
    pub energy_mj: Option<u64>,
    /// Temperature of the die, °C.
    pub temperature_c: Option<u64>,
    /// Why its clocks are not as high as they could be.
    pub throttle: Option<Throttle>,
    /// Memory in use, bytes, without what the driver keeps for itself.
    pub memory_used: Option<u64>,
    /// Share of the last sample period, a second at most, in which some kernel ran, percent.
    pub busy_percent: Option<u64>,
    /// Share of it in which memory was read or written, percent.
    pub memory_busy_percent: Option<u64>,
}

/// Reasons why clocks are not higher, as NVML's bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttle(pub u64);

impl Throttle {
    /// Bits and what they are called; those that slow a GPU at work down say so.
    const REASONS: [(u64, &'static str, bool); 9] = [
        (0x1, "idle", false),
        (0x2, "application_clocks", false),
        (0x4, "power_cap", true),
        (0x8, "hardware_slowdown", true),
        (0x10, "sync_boost", false),
        (0x20, "software_thermal", true),
        (0x40, "hardware_thermal", true),
        (0x80, "power_brake", true),
        (0x100, "display_clock", false),
    ];

    /// Names the reasons.
    pub fn reasons(self) -> impl Iterator<Item = &'static str> {
        let all = Self::REASONS.into_iter();
        all.filter(move |(bit, ..)| self.0 & bit != 0)
            .map(|(_, name, _)| name)
    }

    /// Whether power or heat held clocks down. That nothing ran, or that clocks were set, is none of it.
    #[must_use]
    pub fn slows(self) -> bool {
        let all = Self::REASONS.into_iter();
        all.filter(|(.., slows)| *slows)
            .any(|(bit, ..)| self.0 & bit != 0)
    }
}

/// Where GPUs are read.
pub trait Gpus: Send {
    /// Lists those of the machine.
    ///
    /// # Errors
    /// In words, if they cannot be told.
    fn list(&self) -> Result<Vec<Gpu>, String>;

    /// Names the processes that compute on one, as this process sees them; none where that is not told.
    fn processes(&self, gpu: &Gpu) -> Vec<u32>;

    /// Reads one. May take some milliseconds.
    ///
    /// # Errors
    /// In words, if it tells nothing at all.
    fn read(&self, gpu: &Gpu) -> Result<Reading, String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_power_and_heat_slow_down() {
        let named = |bits| Throttle(bits).reasons().collect::<Vec<_>>();
        assert_eq!(named(0x1 | 0x4), ["idle", "power_cap"]);
        assert!(named(0x1000).is_empty());
        assert!(Throttle(0x4).slows() && Throttle(0x1 | 0x40).slows());
        assert!(!Throttle(0x1 | 0x2 | 0x10 | 0x100).slows() && !Throttle(0).slows());
    }
}
