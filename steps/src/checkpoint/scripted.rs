//! A loader for tests that does what it is told to.

use super::foreign::{Foreign, ForeignLoad};
use checkpoints::{Contents, Format};
use engine::step::StepError;
use std::path::Path;
use std::time::Duration;

/// Reads safetensors alone, in one second, without saying how.
pub(super) struct Scripted(String);

impl Scripted {
    pub(super) fn new(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl Foreign for Scripted {
    fn name(&self) -> &str {
        &self.0
    }

    fn reads(&self, format: Format) -> bool {
        format == Format::Safetensors
    }

    fn loads_into_memory(&self) -> bool {
        true
    }

    fn load(&mut self, folder: &Path, _: Duration) -> Result<ForeignLoad, StepError> {
        let contents = Contents::read(folder).map_err(super::failure)?;
        Ok(ForeignLoad {
            total: Duration::from_secs(1),
            parts: vec![("read_ms", Duration::from_millis(750))],
            bytes: contents.tensor_bytes(),
            cpu: Duration::from_millis(500),
            peak_memory: Some(1 << 20),
        })
    }
}
