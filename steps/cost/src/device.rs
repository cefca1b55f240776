//! What devices do at most, from a table of data sheets in the crate. Detects nothing: names are as NVML
//! tells them.

use crate::{BytesPerSecond, FlopsPerSecond, Precision};
use serde::Deserialize;

const TABLE: &str = include_str!("../devices.toml");

/// A device as its data sheet describes it. Rates are dense ones: without sparsity.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// As NVML tells it.
    pub name: String,
    /// TFLOPS of tensor cores in bf16, accumulated in `f32`; absent where they have none.
    bf16: Option<f64>,
    /// TFLOPS of tensor cores in `f16`, accumulated in `f32`.
    f16: f64,
    /// TFLOPS of tensor cores in eight bits; absent where they have none.
    fp8: Option<f64>,
    /// TFLOPS in `f32`, not TF32.
    f32: f64,
    /// GB/s of memory.
    bandwidth: f64,
    /// GB of memory.
    memory: f64,
    /// The clock at which the rates hold, MHz.
    clock: f64,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Operations of one of them in a cycle, dense, in `f16`.
    flops_per_clock: f64,
    /// Where the figures are from.
    pub source: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    device: Vec<Device>,
}

/// Why the table has no such device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no device in the table is called `{name}`")]
pub struct UnknownDevice {
    /// What was asked for.
    pub name: String,
}

impl Device {
    /// All devices of the table.
    ///
    /// # Panics
    /// Never: a test reads the table, which is part of the binary.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let file: File = toml::from_str(TABLE).expect("the table is sound, as a test shows");
        file.device
    }

    /// Finds a device by its name, whatever its case.
    ///
    /// # Errors
    /// If the table has none.
    pub fn find(name: &str) -> Result<Self, UnknownDevice> {
        let mut devices = Self::all().into_iter();
        let found = devices.find(|device| device.name.eq_ignore_ascii_case(name.trim()));
        found.ok_or_else(|| UnknownDevice {
            name: name.to_owned(),
        })
    }

    /// Operations per second at most in a type; `None` if its tensor cores do not have it.
    #[must_use]
    pub fn flops(&self, precision: Precision) -> Option<FlopsPerSecond> {
        let tera = match precision {
            Precision::F32 => Some(self.f32),
            Precision::F16 => Some(self.f16),
            Precision::Bf16 => self.bf16,
            Precision::F8 => self.fp8,
        };
        tera.map(|tera| FlopsPerSecond(tera * 1e12))
    }

    /// The same at another clock of the multiprocessors, MHz, such as a locked or a measured one.
    #[must_use]
    pub fn flops_at(&self, precision: Precision, clock_mhz: f64) -> Option<FlopsPerSecond> {
        let flops = self.flops(precision)?;
        Some(flops * (clock_mhz / self.clock))
    }

    /// Bytes per second of memory.
    #[must_use]
    pub fn bandwidth(&self) -> BytesPerSecond {
        BytesPerSecond(self.bandwidth * 1e9)
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory_bytes(&self) -> f64 {
        self.memory * 1e9
    }

    /// Operations per second in `f16` by what one multiprocessor does in a cycle: multiprocessors, times
    /// that, times the clock. The rates of the data sheet agree with it.
    #[must_use]
    pub fn flops_by_clock(&self) -> FlopsPerSecond {
        FlopsPerSecond(f64::from(self.sms) * self.flops_per_clock * self.clock * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_the_table_are_those_of_multiprocessors_and_clocks() {
        let devices = Device::all();
        assert!(devices.len() >= 10);
        for device in &devices {
            let (by_clock, told) = (device.flops_by_clock().0, device.f16 * 1e12);
            let off = (by_clock / told - 1.0).abs();
            assert!(off < 0.01, "{}: {by_clock} and {told}", device.name);
            assert!(device.source.contains("NVIDIA"), "{}", device.name);
            assert!(device.bf16.is_none_or(|bf16| bf16 == device.f16));
            // Eight bits are twice as fast wherever they are there.
            let twice = device
                .fp8
                .is_none_or(|fp8| (fp8 / device.f16 - 2.0).abs() < 0.03);
            assert!(twice && device.f32 < device.f16, "{}", device.name);
        }
        let mut names: Vec<&str> = devices.iter().map(|d| d.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), devices.len());
    }

    #[test]
    fn a_device_is_found_by_its_name_and_slows_down_with_its_clock() {
        let h100 = Device::find("nvidia h100 80gb hbm3").expect("known");
        assert_eq!(h100.flops(Precision::Bf16), Some(FlopsPerSecond(989.4e12)));
        let half = h100.flops_at(Precision::Bf16, 915.0).expect("has bf16");
        assert!((half.0 / 494.7e12 - 1.0).abs() < 1e-12);
        assert_eq!(h100.bandwidth(), BytesPerSecond(3350e9));
        let t4 = Device::find("Tesla T4").expect("known");
        assert_eq!(
            (t4.flops(Precision::Bf16), t4.flops(Precision::F8)),
            (None, None)
        );
        let told = Device::find("H300").expect_err("not known").to_string();
        assert_eq!(told, "no device in the table is called `H300`");
    }
}
