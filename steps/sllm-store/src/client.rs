//! The calls of a store, each within a limit.

use crate::error::StoreError;
use crate::messages::{
    ClearMemRequest, ClearMemResponse, ConfirmModelRequest, ConfirmModelResponse, DeviceType,
    GetServerConfigRequest, GetServerConfigResponse, LoadModelRequest, LoadModelResponse,
    MemCopyChunkList, MemCopyHandle, MemCopyHandleList, RegisterModelRequest,
    RegisterModelResponse, UnloadModelRequest, UnloadModelResponse,
};
use http::uri::PathAndQuery;
use prost::Message;
use std::error::Error;
use std::time::Duration;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

const CONFIG: &str = "/storage.Storage/GetServerConfig";
const REGISTER: &str = "/storage.Storage/RegisterModel";
const LOAD: &str = "/storage.Storage/LoadModelAsync";
const CONFIRM: &str = "/storage.Storage/ConfirmModel";
const UNLOAD: &str = "/storage.Storage/UnloadModel";
const CLEAR: &str = "/storage.Storage/ClearMem";
/// What is called a call that was not made yet.
const CONNECTION: &str = "the connection";

/// What a store was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Bytes of its pool.
    pub pool: u64,
    /// Bytes of a piece of it. A model takes whole ones.
    pub chunk: u64,
}

impl Config {
    /// Whether a model of so many bytes fits into the empty pool.
    ///
    /// A store takes a load that does not fit, and fails silently: whoever confirms it waits for ever.
    #[must_use]
    pub fn has_room_for(self, bytes: u64) -> bool {
        let chunk = self.chunk.max(1);
        bytes.div_ceil(chunk) <= self.pool.div_ceil(chunk)
    }
}

/// A connection to a store.
#[derive(Debug, Clone)]
pub struct Store {
    grpc: Grpc<Channel>,
    limit: Duration,
}

impl Store {
    /// Connects to the store at `url`, such as `http://127.0.0.1:8073`. `limit` is how long this, and every call
    /// that names no limit of its own, may take.
    ///
    /// # Errors
    ///
    /// If the address is none or nobody answers there.
    pub async fn connect(url: &str, limit: Duration) -> Result<Self, StoreError> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| StoreError::Address {
            url: url.to_owned(),
            why: told(&e),
        })?;
        let connected = tokio::time::timeout(limit, endpoint.connect());
        let call = CONNECTION;
        let channel = connected
            .await
            .map_err(|_| StoreError::TooLong { call, limit })?
            .map_err(|e| StoreError::Unreachable {
                url: url.to_owned(),
                why: told(&e),
            })?;
        Ok(Self {
            grpc: Grpc::new(channel),
            limit,
        })
    }

    /// Sets how long a call may take that names no limit of its own.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Asks what it was started with.
    ///
    /// # Errors
    ///
    /// As all calls: if it refuses, does not answer in time, or breaks off.
    pub async fn config(&mut self) -> Result<Config, StoreError> {
        let request = GetServerConfigRequest {};
        let told: GetServerConfigResponse = self.call(CONFIG, request, self.limit).await?;
        Ok(Config {
            pool: bytes(CONFIG, told.mem_pool_size)?,
            chunk: bytes(CONFIG, told.chunk_size)?,
        })
    }

    /// Lets it look at a model's files; returns how many bytes they have. It looks once, and remembers what it
    /// found until it ends or [`clear`](Self::clear).
    ///
    /// # Errors
    ///
    /// As all calls; it refuses a folder without partitions.
    pub async fn register(&mut self, model: &str) -> Result<u64, StoreError> {
        let request = RegisterModelRequest {
            model_path: model.to_owned(),
        };
        let told: RegisterModelResponse = self.call(REGISTER, request, self.limit).await?;
        same(REGISTER, model, &told.model_path)?;
        bytes(REGISTER, told.model_size)
    }

    /// Begins a load into its pool. It answers at once, and no call tells when the load ends or whether it failed:
    /// its log does, see [`LoadLog`](crate::LoadLog).
    ///
    /// # Errors
    ///
    /// As all calls.
    pub async fn load_to_host(&mut self, model: &str) -> Result<(), StoreError> {
        let request = LoadModelRequest {
            model_path: model.to_owned(),
            target_device_type: DeviceType::Cpu.into(),
            ..LoadModelRequest::default()
        };
        let told: LoadModelResponse = self.call(LOAD, request, self.limit).await?;
        same(LOAD, model, &told.model_path)
    }

    /// Begins copying a model, which its pool has or is being loaded into, to the memory of one GPU, which `handle`
    /// stands for. `replica` names the copy and may be used once.
    ///
    /// Call it only after the log said that loading to the host has begun: before, the store looks at memory that
    /// is not there yet.
    ///
    /// # Errors
    ///
    /// As all calls.
    pub async fn load_to_gpu(
        &mut self,
        model: &str,
        replica: &str,
        gpu: &str,
        handle: &[u8],
        chunks: MemCopyChunkList,
    ) -> Result<(), StoreError> {
        let handle = MemCopyHandle {
            cuda_ipc_handle: handle.to_vec(),
        };
        let handles = MemCopyHandleList {
            handles: vec![handle],
        };
        let request = LoadModelRequest {
            model_path: model.to_owned(),
            replica_uuid: replica.to_owned(),
            chunks: [(gpu.to_owned(), chunks)].into(),
            handles: [(gpu.to_owned(), handles)].into(),
            target_device_type: DeviceType::Gpu.into(),
        };
        let told: LoadModelResponse = self.call(LOAD, request, self.limit).await?;
        same(LOAD, model, &told.model_path)
    }

    /// Waits until a copy is on the GPU. The store does nothing else meanwhile, and of a copy that failed before
    /// it never tells: then nobody else is answered any more either.
    ///
    /// # Errors
    ///
    /// As all calls.
    pub async fn confirm(
        &mut self,
        model: &str,
        replica: &str,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let request = ConfirmModelRequest {
            model_path: model.to_owned(),
            replica_uuid: replica.to_owned(),
            target_device_type: DeviceType::Gpu.into(),
        };
        let told: ConfirmModelResponse = self.call(CONFIRM, request, limit).await?;
        same(CONFIRM, model, &told.model_path)?;
        zero(CONFIRM, told.code)
    }

    /// Gives the memory of a model in its pool back. Call it only after the log said that the load has ended:
    /// before, the store waits for a signal that nobody gives, and answers nobody any more.
    ///
    /// # Errors
    ///
    /// As all calls; it refuses a model that is not in the pool.
    pub async fn unload(&mut self, model: &str) -> Result<(), StoreError> {
        let request = UnloadModelRequest {
            model_path: model.to_owned(),
            replica_uuid: String::new(),
            target_device_type: DeviceType::Cpu.into(),
        };
        let told: UnloadModelResponse = self.call(UNLOAD, request, self.limit).await?;
        same(UNLOAD, model, &told.model_path)?;
        zero(UNLOAD, told.code)
    }

    /// Gives all memory of its pool back, and lets it forget the sizes of files.
    ///
    /// # Errors
    ///
    /// As all calls.
    pub async fn clear(&mut self) -> Result<(), StoreError> {
        let call = self.call(CLEAR, ClearMemRequest {}, self.limit);
        call.await.map(|_: ClearMemResponse| ())
    }

    async fn call<Q, A>(
        &mut self,
        path: &'static str,
        request: Q,
        limit: Duration,
    ) -> Result<A, StoreError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = name(path);
        let request = Request::new(request);
        let asked = async {
            let ready = self.grpc.ready().await;
            ready.map_err(|e| StoreError::Broken {
                call,
                why: told(&e),
            })?;
            let path = PathAndQuery::from_static(path);
            let codec = ProstCodec::<Q, A>::default();
            let answer = self.grpc.unary(request, path, codec).await;
            answer
                .map(Response::into_inner)
                .map_err(|status| failed(call, &status, limit))
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(StoreError::TooLong { call, limit }),
        }
    }
}

/// The last word of a path.
fn name(path: &'static str) -> &'static str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What a status means: the store's own no, or the end of the connection.
fn failed(call: &'static str, status: &Status, limit: Duration) -> StoreError {
    match status.code() {
        Code::DeadlineExceeded => StoreError::TooLong { call, limit },
        // Only what went wrong on the way has a source.
        _ if status.source().is_some() => StoreError::Broken {
            call,
            why: told(status),
        },
        Code::Unavailable => StoreError::Broken {
            call,
            why: status.message().to_owned(),
        },
        code => StoreError::Refused {
            call,
            code: format!("{code:?}"),
            message: match status.message() {
                "" => "it says no more, see its log".to_owned(),
                message => message.to_owned(),
            },
        },
    }
}

/// An error with what it comes from.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

fn bytes(path: &'static str, told: i64) -> Result<u64, StoreError> {
    u64::try_from(told).map_err(|_| StoreError::Answer {
        call: name(path),
        found: format!("{told} bytes"),
        expected: "a number of bytes".to_owned(),
    })
}

fn same(path: &'static str, model: &str, told: &str) -> Result<(), StoreError> {
    (told == model)
        .then_some(())
        .ok_or_else(|| StoreError::Answer {
            call: name(path),
            found: format!("the model `{told}`"),
            expected: format!("`{model}`"),
        })
}

fn zero(path: &'static str, code: i32) -> Result<(), StoreError> {
    (code == 0).then_some(()).ok_or_else(|| StoreError::Answer {
        call: name(path),
        found: format!("code {code}"),
        expected: "0".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_takes_whole_pieces_of_the_pool() {
        let config = Config {
            pool: 64,
            chunk: 16,
        };
        assert!(config.has_room_for(64) && config.has_room_for(49));
        assert!(!config.has_room_for(65));
    }
}
