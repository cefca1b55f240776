//! A store that is not one: it answers as `serverless-llm-store` 0.8 does and writes the log that it writes,
//! reads no byte, and can be told to behave badly.

use prost::Message;
use sllm_store::messages::{
    ClearMemRequest, ClearMemResponse, ConfirmModelRequest, ConfirmModelResponse, DeviceType,
    GetServerConfigRequest, GetServerConfigResponse, LoadModelRequest, LoadModelResponse,
    RegisterModelRequest, RegisterModelResponse, UnloadModelRequest, UnloadModelResponse,
};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

/// Bytes of its pool.
pub(crate) const POOL: i64 = 1 << 30;
/// Bytes of a piece of it.
pub(crate) const CHUNK: i64 = 16 << 20;

/// Longer than it takes to end.
const LONG: Duration = Duration::from_secs(30);

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it is documented.
    Documented,
    /// Refuses this call without a word, as the package does.
    Refuses(&'static str),
    /// Takes this call and never answers.
    Hangs(&'static str),
    /// Answers, and its loads fail: only its log says so.
    FailsToLoad,
    /// Answers, and loads never end.
    NeverLoads,
}

/// A store that runs until this is dropped.
pub(crate) struct Double {
    /// Where it answers.
    pub(crate) url: String,
    /// Its port.
    pub(crate) port: u16,
    /// Names of the calls that came in, as they come.
    pub(crate) calls: mpsc::Receiver<String>,
    state: Arc<State>,
    runtime: Option<Runtime>,
}

struct State {
    manner: Manner,
    log: PathBuf,
    models: Mutex<Models>,
    calls: mpsc::Sender<String>,
}

/// What it knows of models.
#[derive(Default)]
struct Models {
    /// Bytes of those that it has seen.
    sizes: HashMap<String, i64>,
    /// Those in the pool.
    loaded: Vec<String>,
    /// Copies on GPUs, with what was asked for.
    replicas: HashMap<String, LoadModelRequest>,
}

impl Double {
    /// Starts one that writes its log to this file.
    pub(crate) fn start(manner: Manner, log: &Path) -> Self {
        std::fs::write(log, "").expect("a log");
        let (sender, calls) = mpsc::channel();
        let state = Arc::new(State {
            manner,
            log: log.to_owned(),
            models: Mutex::default(),
            calls: sender,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let served = Served(Arc::clone(&state));
        // Tests that are within a runtime may not wait for another one.
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            let server = Server::builder().add_service(served);
            let served = server.serve_with_incoming(TcpIncoming::from(listener));
            served.await.expect("a server");
        });
        Self {
            url: format!("http://127.0.0.1:{port}"),
            port,
            calls,
            state,
            runtime: Some(runtime),
        }
    }

    /// Ends it at once, whatever it does.
    pub(crate) fn die(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        // On a thread of its own, because a test may be within another runtime, where nobody may wait.
        let end = std::thread::spawn(move || runtime.shutdown_timeout(LONG));
        end.join().expect("the end of a runtime");
    }

    /// What was asked for of a copy to GPUs.
    pub(crate) fn replica(&self, name: &str) -> Option<LoadModelRequest> {
        self.state.models().replicas.get(name).cloned()
    }

    /// Models in its pool.
    pub(crate) fn loaded(&self) -> Vec<String> {
        self.state.models().loaded.clone()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.die();
    }
}

impl State {
    fn models(&self) -> MutexGuard<'_, Models> {
        self.models.lock().expect("no panic")
    }

    /// Writes a line as glog does.
    fn write(&self, severity: char, text: &str) {
        let line = format!("{severity}20260301 18:12:39.250000  4711 model.cpp:97] {text}\n");
        let log = std::fs::OpenOptions::new().append(true).open(&self.log);
        log.and_then(|mut log| log.write_all(line.as_bytes()))
            .expect("a log");
    }

    fn config(&self, _: GetServerConfigRequest) -> Result<GetServerConfigResponse, Status> {
        Ok(GetServerConfigResponse {
            mem_pool_size: POOL,
            chunk_size: CHUNK,
        })
    }

    fn register(&self, asked: RegisterModelRequest) -> Result<RegisterModelResponse, Status> {
        let size = self.size(&asked.model_path)?;
        Ok(RegisterModelResponse {
            model_path: asked.model_path,
            model_size: size,
        })
    }

    /// Bytes of a model's partitions, which are looked at once.
    fn size(&self, model: &str) -> Result<i64, Status> {
        let mut models = self.models();
        if let Some(size) = models.sizes.get(model) {
            return Ok(*size);
        }
        let partitions = (0..).map(|n| Path::new(model).join(format!("tensor.data_{n}")));
        let sizes = partitions.map_while(|path| path.metadata().ok().map(|data| data.len()));
        let size = i64::try_from(sizes.sum::<u64>()).expect("a size");
        if size == 0 {
            return Err(Status::new(Code::Internal, ""));
        }
        models.sizes.insert(model.to_owned(), size);
        Ok(size)
    }

    fn load(&self, asked: LoadModelRequest) -> Result<LoadModelResponse, Status> {
        let model = asked.model_path.clone();
        self.size(&model)?;
        if asked.target_device_type == i32::from(DeviceType::Gpu) {
            let replica = asked.replica_uuid.clone();
            self.write('I', &format!("Created replica {replica}"));
            copy(&asked);
            self.write('I', "Finished loading tensor from memory to device 0");
            self.models().replicas.insert(replica, asked);
        } else {
            self.load_to_host(&model);
        }
        Ok(LoadModelResponse { model_path: model })
    }

    fn load_to_host(&self, model: &str) {
        self.write('I', &format!("Loading model {model} to host with 4 threads, 1 chunks, {CHUNK} chunk size, 1 chunks per thread"));
        match self.manner {
            Manner::NeverLoads => {}
            Manner::FailsToLoad => {
                self.write('E', "pread() failed for file: x, error: Invalid argument");
                self.write('E', &format!("Failed to load model {model} to host"));
            }
            _ => {
                self.models().loaded.push(model.to_owned());
                self.write('I', &format!("Finished loading model {model} from disk"));
            }
        }
    }

    fn confirm(&self, asked: ConfirmModelRequest) -> Result<ConfirmModelResponse, Status> {
        if asked.target_device_type != i32::from(DeviceType::Gpu) {
            return Err(Status::new(Code::Unimplemented, ""));
        }
        let is_there = self.models().replicas.contains_key(&asked.replica_uuid);
        match is_there {
            true => Ok(ConfirmModelResponse {
                model_path: asked.model_path,
                code: 0,
            }),
            false => Err(Status::new(Code::Internal, "")),
        }
    }

    fn unload(&self, asked: UnloadModelRequest) -> Result<UnloadModelResponse, Status> {
        let mut models = self.models();
        let at = models.loaded.iter().position(|m| *m == asked.model_path);
        let at = at.ok_or_else(|| Status::new(Code::Internal, ""))?;
        models.loaded.remove(at);
        Ok(UnloadModelResponse {
            model_path: asked.model_path,
            code: 0,
        })
    }

    fn clear(&self, _: ClearMemRequest) -> Result<ClearMemResponse, Status> {
        *self.models() = Models::default();
        Ok(ClearMemResponse {})
    }
}

/// Copies what is asked for, where a handle names a file: memory of a GPU that is none (see `cuda`).
fn copy(asked: &LoadModelRequest) {
    let mut partitions = Vec::new();
    for n in 0.. {
        let path = Path::new(&asked.model_path).join(format!("tensor.data_{n}"));
        match std::fs::read(path) {
            Ok(bytes) => partitions.extend(bytes),
            Err(_) => break,
        }
    }
    for (gpu, chunks) in &asked.chunks {
        let handle = &asked.handles[gpu].handles[0].cuda_ipc_handle;
        let name = String::from_utf8_lossy(handle).into_owned();
        let name = name.trim_matches(['/', '\0']);
        let path = Path::new("/dev/shm").join(name);
        let Ok(memory) = std::fs::OpenOptions::new().write(true).open(path) else {
            continue;
        };
        for chunk in &chunks.chunks {
            let from = usize::try_from(chunk.src_offset).expect("an offset");
            let bytes = usize::try_from(chunk.size).expect("a size");
            let part = &partitions[from..from + bytes];
            memory.write_all_at(part, chunk.dst_offset).expect("memory");
        }
    }
}

#[derive(Clone)]
struct Served(Arc<State>);

impl NamedService for Served {
    const NAME: &'static str = "storage.Storage";
}

type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl Service<http::Request<Body>> for Served {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let call = path.rsplit('/').next().unwrap_or_default();
            // Nobody may listen.
            let _ = state.calls.send(call.to_owned());
            Ok(match (call, state.manner) {
                (_, Manner::Hangs(which)) if which == call => std::future::pending().await,
                (_, Manner::Refuses(which)) if which == call => {
                    Status::new(Code::Internal, "").into_http()
                }
                ("GetServerConfig", _) => answer(state, request, State::config).await,
                ("RegisterModel", _) => answer(state, request, State::register).await,
                ("LoadModelAsync", _) => answer(state, request, State::load).await,
                ("ConfirmModel", _) => answer(state, request, State::confirm).await,
                ("UnloadModel", _) => answer(state, request, State::unload).await,
                ("ClearMem", _) => answer(state, request, State::clear).await,
                _ => Status::new(Code::Unimplemented, "").into_http(),
            })
        })
    }
}

/// What answers one kind of call.
type By<Q, A> = fn(&State, Q) -> Result<A, Status>;

struct Method<Q, A> {
    state: Arc<State>,
    by: By<Q, A>,
}

impl<Q, A> UnaryService<Q> for Method<Q, A>
where
    Q: Message + 'static,
    A: Message + 'static,
{
    type Response = A;
    type Future = std::future::Ready<Result<Response<A>, Status>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        std::future::ready((self.by)(&self.state, request.into_inner()).map(Response::new))
    }
}

async fn answer<Q, A>(
    state: Arc<State>,
    request: http::Request<Body>,
    by: By<Q, A>,
) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
    grpc.unary(Method { state, by }, request).await
}
