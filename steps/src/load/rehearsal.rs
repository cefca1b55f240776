//! A load against a server of known truth on the same machine, so that what the client itself adds
//! can be told: the embedded server's executor `sim`, which answers at stated instants and writes
//! down when it sent what.

use super::truth::truth;
use crate::http::{self, Peer};
use embedded_server::{ExecutorKind, ServeError, ServerOptions, Trace};
use engine::step::{FailureClass, StepContext, StepError};
use loadgen::{
    ClientError, Ended, EventTime, HttpVersion, Limits, Load, NoObserver, Prompt, Protocol,
    Request, Reuse, Run, RunPlan, Stop, Target, Threads, Timeouts, Truth, Workload,
};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Threads that talk to the client.
const HTTP_THREADS: usize = 2;
/// How long the server may take to begin and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests that may be under way at once.
const MOST_REQUESTS: usize = 100_000;

/// What is sent, and at what pace it is answered.
#[derive(Debug)]
pub(super) struct Rehearsal {
    /// Requests whose lengths are asked for; what they say does not matter.
    pub(super) requests: Vec<Request>,
    pub(super) load: Load,
    pub(super) stop: Stop,
    pub(super) reuse: Reuse,
    pub(super) threads: Threads,
    pub(super) event_time: EventTime,
    pub(super) http: HttpVersion,
    /// From a request to its first token.
    pub(super) ttft: Duration,
    /// From one token to the next.
    pub(super) tpot: Duration,
}

impl Rehearsal {
    /// Sends the load to a server that is there for it alone, and sets what was recorded beside the
    /// truth.
    pub(super) async fn perform(
        self,
        context: &StepContext,
    ) -> Result<(Run, ClientError), StepError> {
        let trace = context.folder.join("trace.jsonl");
        let server = PacedServer::start(self.server_options(trace.clone())).await?;
        let plan = self.plan(server.address)?;
        let run = loadgen::run(plan, &mut NoObserver, context.cancelled()).await;
        server.stop().await?;
        let run = run.map_err(|e| StepError::new(e.to_string()))?;
        if run.info.ended == Ended::Interrupted {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
        let error = ClientError::of(&run.info, &run.records, &truths(&trace)?);
        // It is as large as the run, and nobody needs it any more.
        let _ = std::fs::remove_file(&trace);
        Ok((run, error))
    }

    fn server_options(&self, trace: PathBuf) -> ServerOptions {
        ServerOptions {
            executor: ExecutorKind::Sim,
            sim_ttft_ms: self.ttft.as_secs_f64() * 1e3,
            sim_tpot_ms: self.tpot.as_secs_f64() * 1e3,
            trace: Some(trace),
            queue_limit: MOST_REQUESTS,
            max_running_requests: MOST_REQUESTS,
            ..ServerOptions::default()
        }
    }

    fn plan(self, at: SocketAddr) -> Result<RunPlan, StepError> {
        let requests = self.requests.iter().map(in_known_words).collect();
        let workload = Workload::new(requests).map_err(|e| StepError::new(e.to_string()))?;
        let address = format!("http://{at}").parse();
        let address = address.map_err(|e: loadgen::AddressError| StepError::new(e.to_string()))?;
        Ok(RunPlan {
            workload: Arc::new(workload),
            load: self.load,
            stop: self.stop,
            reuse: self.reuse,
            target: Target {
                http: self.http,
                ..Target::new(address, "default", Protocol::Completions)
            },
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            threads: self.threads,
            event_time: self.event_time,
        })
    }
}

/// A request of the same lengths whose words the server knows.
fn in_known_words(request: &Request) -> Request {
    Request {
        model: None,
        slo: None,
        continues: false,
        images: Vec::new(),
        prompt: Prompt::Text(vec!["word"; request.input_tokens as usize].join(" ")),
        ..request.clone()
    }
}

fn truths(trace: &Path) -> Result<Vec<Truth>, StepError> {
    let answers = Trace::read(trace)
        .map_err(|e| StepError::because("could not read what the server wrote down", e))?;
    Ok(answers.into_iter().map(truth).collect())
}

/// The server of known truth, on threads of its own.
struct PacedServer {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), ServeError>>,
}

impl PacedServer {
    async fn start(options: ServerOptions) -> Result<Self, StepError> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("paced-server".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(HTTP_THREADS)
                    .enable_all()
                    .build();
                let served = match runtime {
                    Ok(runtime) => runtime.block_on(embedded_server::serve(
                        options,
                        stopped,
                        // Nobody waits any more: then it is about to be stopped.
                        |address| {
                            let _ = tell.send(address);
                        },
                    )),
                    Err(source) => Err(ServeError::Thread { source }),
                };
                let _ = end.send(served);
            })
            .map_err(|e| StepError::because("could not start the server's threads", e))?;
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(address)) => {
                let server = Self {
                    address,
                    stop,
                    ended,
                };
                server.is_ready().await?;
                Ok(server)
            }
            _ => {
                drop(stop);
                Err(match tokio::time::timeout(PATIENCE, ended).await {
                    Ok(Ok(Err(error))) => {
                        StepError::because("the paced server did not start", error)
                    }
                    _ => StepError::new("the paced server did not start"),
                })
            }
        }
    }

    async fn is_ready(&self) -> Result<(), StepError> {
        let url = format!("http://{}", self.address);
        let asked = async {
            while !http::get(Peer::at(&url), "/health")
                .await
                .is_ok_and(|a| a.status == 200)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let late = |_| StepError::new("the paced server was not ready in time");
        tokio::time::timeout(PATIENCE, asked).await.map_err(late)
    }

    async fn stop(self) -> Result<(), StepError> {
        drop(self.stop);
        match tokio::time::timeout(PATIENCE, self.ended).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(StepError::because("the paced server failed", error)),
            _ => Err(StepError::new("the paced server did not end")),
        }
    }
}
