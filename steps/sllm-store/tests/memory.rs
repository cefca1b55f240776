//! Memory of a GPU that is none: found, shared, written by another, read back, given back.

mod cuda;

use sllm_store::{DeviceError, DeviceMemory};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The file that a handle of the stand-in names.
fn file(handle: [u8; 64]) -> PathBuf {
    let name: Vec<u8> = handle.into_iter().take_while(|byte| *byte != 0).collect();
    let name = String::from_utf8(name).unwrap();
    Path::new("/dev/shm").join(name.trim_start_matches('/'))
}

#[test]
fn what_another_process_writes_is_read_here() {
    if !cuda::is_here() {
        return cuda::again("what_another_process_writes_is_read_here");
    }
    let memory = DeviceMemory::allocate(cuda::UUID, 5000).unwrap();
    assert_eq!(memory.bytes(), 5000);
    let path = file(memory.handle().unwrap());
    let other = OpenOptions::new().write(true).open(&path).unwrap();
    other.write_all_at(b"weights", 4993).unwrap();
    let mut read = [0; 7];
    memory.read(4993, &mut read).unwrap();
    assert_eq!(&read, b"weights");
    for beyond in [4994, 5000, usize::MAX] {
        let error = memory.read(beyond, &mut read).unwrap_err();
        assert!(error.to_string().contains("it has 5000"), "{error}");
    }
    // Another thread has no context of its own.
    std::thread::scope(|scope| {
        let memory = &memory;
        let handle = scope.spawn(|| memory.handle().unwrap()).join().unwrap();
        assert_eq!(file(handle), path);
    });
    drop(memory);
    assert!(!path.exists());
}

#[test]
fn a_gpu_is_taken_by_its_uuid_alone() {
    if !cuda::is_here() {
        return cuda::again("a_gpu_is_taken_by_its_uuid_alone");
    }
    let error = DeviceMemory::allocate("no such GPU", 1).unwrap_err();
    let expected = DeviceError::NoGpu {
        uuid: "no such GPU".to_owned(),
        there: cuda::UUID.to_owned(),
    };
    assert_eq!(error, expected);
    let error = DeviceMemory::allocate(cuda::UUID, 0)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("could not take 0 bytes of the GPU's memory: "),
        "{error}"
    );
}
