//! What a store brings to a GPU: where, and whether it is what the files have.

use checkpoints::Contents;
use engine::step::{FailureClass, StepError};
use sllm_store::{DeviceError, DeviceMemory, Packed, packed};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes that are compared at a time.
const PIECE: usize = 16 << 20;

/// Memory of a GPU for a checkpoint.
pub(super) struct OnGpu {
    memory: DeviceMemory,
    /// What goes where.
    pub(super) copies: Packed,
}

impl OnGpu {
    /// Takes memory of a GPU for all tensors of a checkpoint, in one piece as the package's client does.
    pub(super) fn take(uuid: &str, contents: &Contents) -> Result<Self, StepError> {
        let copies = packed(places(contents));
        let memory = DeviceMemory::allocate(uuid, copies.bytes.max(1)).map_err(no_memory)?;
        Ok(Self { memory, copies })
    }

    /// What lets the store write there.
    pub(super) fn handle(&self) -> Result<[u8; 64], StepError> {
        self.memory.handle().map_err(no_memory)
    }

    /// The first tensor whose bytes are not those of its file.
    pub(super) fn first_difference(
        &self,
        contents: &Contents,
    ) -> Result<Option<String>, StepError> {
        let full = contents.own().filter(|tensor| tensor.bytes > 0);
        for (tensor, chunk) in full.zip(&self.copies.chunks.chunks) {
            let path = contents.path(tensor.file);
            let unread = |e| StepError::because(format!("could not read `{}`", path.display()), e);
            let file = File::open(&path).map_err(unread)?;
            let mut done = 0;
            while done < tensor.bytes {
                let n = (tensor.bytes - done).min(PIECE as u64) as usize;
                let mut pieces = [vec![0; n], vec![0; n]];
                let [of_file, of_gpu] = &mut pieces;
                file.read_exact_at(of_file, tensor.offset + done)
                    .map_err(unread)?;
                let from = (chunk.dst_offset + done) as usize;
                self.memory.read(from, of_gpu).map_err(no_memory)?;
                if of_file != of_gpu {
                    return Ok(Some(tensor.name.clone()));
                }
                done += n as u64;
            }
        }
        Ok(None)
    }
}

/// Where each tensor begins, counted through all files, and its bytes; tied ones once.
fn places(contents: &Contents) -> Vec<(u64, u64)> {
    let mut begins = vec![0];
    for file in &contents.files {
        begins.push(begins[begins.len() - 1] + file.bytes);
    }
    let place = |tensor: &checkpoints::Tensor| (begins[tensor.file] + tensor.offset, tensor.bytes);
    contents.own().map(place).collect()
}

fn no_memory(error: DeviceError) -> StepError {
    let help = "load to the host: `target = \"host\"`";
    match error {
        DeviceError::NoDriver => StepError::new(error.to_string()).help(help),
        _ => StepError::new(error.to_string()).class(FailureClass::Infrastructure),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::checkpoint;
    use super::*;
    use crate::cuda_double as cuda;

    #[test]
    fn memory_that_nobody_wrote_to_differs() {
        let name = "checkpoint::sllm::on_gpu::tests::memory_that_nobody_wrote_to_differs";
        if !cuda::is_here() {
            return cuda::again(name);
        }
        let root = tempfile::tempdir().unwrap();
        let (folder, bytes) = checkpoint(root.path());
        let contents = Contents::read(&folder).unwrap();
        let on_gpu = OnGpu::take(cuda::UUID, &contents).unwrap();
        assert_eq!(on_gpu.copies.bytes, bytes);
        let differs = on_gpu.first_difference(&contents).unwrap();
        assert_eq!(differs.as_deref(), Some("a"));
    }

    #[test]
    fn tensors_are_found_through_all_files() {
        let root = tempfile::tempdir().unwrap();
        let (folder, _) = checkpoint(root.path());
        let contents = Contents::read(&folder).unwrap();
        assert_eq!(contents.files.len(), 2);
        let found = places(&contents);
        let placed: Vec<_> = found.iter().filter(|(_, bytes)| *bytes > 0).collect();
        assert_eq!(placed, [&(0, 3000), &(4096, 3000)]);
    }
}
