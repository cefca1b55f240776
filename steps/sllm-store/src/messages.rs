//! The messages of package `storage`, service `Storage`, with the numbers that they have on the wire.
//!
//! Names and numbers are those of `storage.proto` of `serverless-llm-store` 0.8.0. They are written as Rust
//! because that needs no compiler of protocol buffers.

use prost::{Enumeration, Message};
use std::collections::HashMap;

/// Where a model is loaded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum DeviceType {
    /// The disk, which no call takes.
    Disk = 0,
    /// The pool in host memory.
    Cpu = 1,
    /// Memory of GPUs.
    Gpu = 2,
}

/// Asks what the server was started with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct GetServerConfigRequest {}

/// What the server was started with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct GetServerConfigResponse {
    /// Bytes of the pool.
    #[prost(int64, tag = "1")]
    pub mem_pool_size: i64,
    /// Bytes of a piece of it.
    #[prost(int64, tag = "2")]
    pub chunk_size: i64,
}

/// Asks the server to look at a model's files.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct RegisterModelRequest {
    /// The model's folder, below the server's storage path or whole.
    #[prost(string, tag = "1")]
    pub model_path: String,
}

/// What it found.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct RegisterModelResponse {
    /// The same folder.
    #[prost(string, tag = "1")]
    pub model_path: String,
    /// Bytes of all its partitions.
    #[prost(int64, tag = "2")]
    pub model_size: i64,
}

/// Bytes that go from the host to a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct MemCopyChunk {
    /// Where they begin, counted through all partitions.
    #[prost(uint64, tag = "1")]
    pub src_offset: u64,
    /// How many.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// Where they go, within the memory of the handle.
    #[prost(uint64, tag = "3")]
    pub dst_offset: u64,
    /// Position of the handle.
    #[prost(uint64, tag = "4")]
    pub handle_idx: u64,
}

/// Everything that goes to one GPU.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct MemCopyChunkList {
    /// Its parts.
    #[prost(message, repeated, tag = "1")]
    pub chunks: Vec<MemCopyChunk>,
}

/// Memory of a GPU that another process gives access to.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct MemCopyHandle {
    /// The 64 bytes of `cudaIpcMemHandle_t`.
    #[prost(bytes = "vec", tag = "1")]
    pub cuda_ipc_handle: Vec<u8>,
}

/// All such memory of one GPU.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct MemCopyHandleList {
    /// The handles, to which chunks refer by position.
    #[prost(message, repeated, tag = "1")]
    pub handles: Vec<MemCopyHandle>,
}

/// Asks for a load. Maps are by the GPU's UUID, without `GPU-` before it.
#[derive(Clone, PartialEq, Message)]
pub struct LoadModelRequest {
    /// The model's folder.
    #[prost(string, tag = "1")]
    pub model_path: String,
    /// Names this load to GPUs, for its confirmation.
    #[prost(string, tag = "2")]
    pub replica_uuid: String,
    /// What goes to which GPU.
    #[prost(map = "string, message", tag = "3")]
    pub chunks: HashMap<String, MemCopyChunkList>,
    /// Where it goes there.
    #[prost(map = "string, message", tag = "4")]
    pub handles: HashMap<String, MemCopyHandleList>,
    /// Where it is loaded to.
    #[prost(enumeration = "DeviceType", tag = "5")]
    pub target_device_type: i32,
}

/// Says that a load was begun, and nothing of how it goes.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct LoadModelResponse {
    /// The model's folder.
    #[prost(string, tag = "1")]
    pub model_path: String,
}

/// Waits for a load to GPUs.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ConfirmModelRequest {
    /// The model's folder.
    #[prost(string, tag = "1")]
    pub model_path: String,
    /// The name of the load.
    #[prost(string, tag = "2")]
    pub replica_uuid: String,
    /// Only GPUs are taken.
    #[prost(enumeration = "DeviceType", tag = "3")]
    pub target_device_type: i32,
}

/// Says that it is done.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ConfirmModelResponse {
    /// The model's folder.
    #[prost(string, tag = "1")]
    pub model_path: String,
    /// 0.
    #[prost(int32, tag = "2")]
    pub code: i32,
}

/// Asks the server to forget a model.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct UnloadModelRequest {
    /// The model's folder.
    #[prost(string, tag = "1")]
    pub model_path: String,
    /// Not used.
    #[prost(string, tag = "2")]
    pub replica_uuid: String,
    /// Only the host is taken.
    #[prost(enumeration = "DeviceType", tag = "3")]
    pub target_device_type: i32,
}

/// Says that it is forgotten.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct UnloadModelResponse {
    /// The model's folder.
    #[prost(string, tag = "1")]
    pub model_path: String,
    /// 0.
    #[prost(int32, tag = "2")]
    pub code: i32,
}

/// Asks the server to forget all models, and that it has ever seen them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct ClearMemRequest {}

/// Says that they are forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct ClearMemResponse {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as the package's own code writes them (Python's `protobuf` over its `storage.proto`).
    #[test]
    fn messages_are_on_the_wire_as_the_package_has_them() {
        let chunk = MemCopyChunk {
            src_offset: 300,
            size: 2,
            dst_offset: 3,
            handle_idx: 1,
        };
        let handle = MemCopyHandle {
            cuda_ipc_handle: vec![7, 8],
        };
        let gpu = "g".to_owned();
        let request = LoadModelRequest {
            model_path: "/m".to_owned(),
            replica_uuid: "r".to_owned(),
            chunks: [(
                gpu.clone(),
                MemCopyChunkList {
                    chunks: vec![chunk],
                },
            )]
            .into(),
            handles: [(
                gpu,
                MemCopyHandleList {
                    handles: vec![handle],
                },
            )]
            .into(),
            target_device_type: DeviceType::Gpu.into(),
        };
        let expected = [
            &b"\x0a\x02/m\x12\x01r"[..],
            b"\x1a\x10\x0a\x01g\x12\x0b\x0a\x09\x08\xac\x02\x10\x02\x18\x03\x20\x01",
            b"\x22\x0b\x0a\x01g\x12\x06\x0a\x04\x0a\x02\x07\x08",
            b"\x28\x02",
        ];
        assert_eq!(request.encode_to_vec(), expected.concat());
        let config = b"\x08\x80\x80\x80\x80\x10\x10\x80\x80\x80\x10";
        let config = GetServerConfigResponse::decode(&config[..]).unwrap();
        assert_eq!(
            (config.mem_pool_size, config.chunk_size),
            (4 << 30, 32 << 20)
        );
        let confirmed = ConfirmModelResponse::decode(&b"\x0a\x02/m\x10\x03"[..]).unwrap();
        assert_eq!((confirmed.model_path.as_str(), confirmed.code), ("/m", 3));
    }
}
