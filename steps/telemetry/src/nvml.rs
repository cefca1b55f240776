//! NVIDIA's GPUs through NVML, whose library is looked for when it is needed: a machine without one builds
//! and runs the same program.

use crate::gpu::{Gpu, Gpus, Reading, Throttle};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use std::ffi::OsStr;

/// The library's names: that of the driver, and the one that only its development package has.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// The GPUs that NVML tells of.
pub struct Nvml {
    library: nvml_wrapper::Nvml,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum NvmlAbsent {
    /// The machine has no driver of NVIDIA, or a container does not pass its library on.
    #[error("NVML is not on this machine")]
    NoLibrary,
    /// There is a library, and it does not work.
    #[error("NVML does not work: {0}")]
    Broken(String),
}

impl Nvml {
    /// Loads the library and asks it to begin.
    ///
    /// # Errors
    /// [`NvmlAbsent`], which most machines without a GPU are.
    pub fn load() -> Result<Self, NvmlAbsent> {
        let mut broken = None;
        for name in LIBRARIES {
            match nvml_wrapper::Nvml::builder()
                .lib_path(OsStr::new(name))
                .init()
            {
                Ok(library) => return Ok(Self { library }),
                Err(NvmlError::LibloadingError(_)) => {}
                Err(error) => broken = Some(error),
            }
        }
        Err(match broken {
            Some(error) => NvmlAbsent::Broken(error.to_string()),
            None => NvmlAbsent::NoLibrary,
        })
    }

    fn device(&self, gpu: &Gpu) -> Result<Device<'_>, String> {
        let device = self.library.device_by_index(gpu.index);
        device.map_err(|e| e.to_string())
    }
}

impl Gpus for Nvml {
    fn list(&self) -> Result<Vec<Gpu>, String> {
        let gpu = |index: u32| {
            let device = self.library.device_by_index(index)?;
            Ok(Gpu {
                index,
                uuid: device.uuid()?,
                name: device.name()?,
            })
        };
        let count = self.library.device_count();
        let gpus = count.and_then(|count| (0..count).map(gpu).collect());
        gpus.map_err(|e: NvmlError| e.to_string())
    }

    fn processes(&self, gpu: &Gpu) -> Vec<u32> {
        let Ok(device) = self.device(gpu) else {
            return Vec::new();
        };
        let processes = device.running_compute_processes().unwrap_or_default();
        processes.into_iter().map(|process| process.pid).collect()
    }

    fn read(&self, gpu: &Gpu) -> Result<Reading, String> {
        let device = self.device(gpu)?;
        let clock = |clock| device.clock_info(clock).ok().map(u64::from);
        let busy = device.utilization_rates().ok();
        let throttle = device.current_throttle_reasons().ok();
        let reading = Reading {
            sm_clock_mhz: clock(Clock::SM),
            memory_clock_mhz: clock(Clock::Memory),
            power_mw: device.power_usage().ok().map(u64::from),
            energy_mj: device.total_energy_consumption().ok(),
            temperature_c: device
                .temperature(TemperatureSensor::Gpu)
                .ok()
                .map(u64::from),
            throttle: throttle.map(|reasons| Throttle(reasons.bits())),
            memory_used: device.memory_info().ok().map(|memory| memory.used),
            busy_percent: busy.as_ref().map(|busy| u64::from(busy.gpu)),
            memory_busy_percent: busy.as_ref().map(|busy| u64::from(busy.memory)),
        };
        match reading == Reading::default() {
            true => Err(format!("GPU {} tells nothing", gpu.index)),
            false => Ok(reading),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_library_says_so_and_one_with_it_lists_its_gpus() {
        match Nvml::load() {
            Err(absent) => assert!(absent.to_string().contains("NVML"), "{absent}"),
            Ok(nvml) => {
                let gpus = nvml.list().expect("a list");
                assert!(gpus.iter().all(|gpu| nvml.read(gpu).is_ok()), "{gpus:?}");
            }
        }
    }
}
