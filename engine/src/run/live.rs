//! Services that are up: launched, probed until they serve, watched, torn down and verified gone.

use super::Message;
use super::perform::Reset;
use crate::claims::{Claim, Claims};
use crate::graph::{Edge, Graph, NodeId};
use crate::policy::Demand;
use crate::process::{Exit, Process, Supervisor};
use crate::service::{DynService, Endpoint, Launch, LaunchContext, Probe};
use crate::step::{FailureClass, Resolved, StepError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Pause between probes: short, so that a quick server is not waited for, and growing.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What a single probe may take at most.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// How long a service may take to end when told to, before it is killed.
const GRACE: Duration = Duration::from_secs(15);
/// How long it may hold a port or memory after its processes are gone.
const RELEASE_LIMIT: Duration = Duration::from_secs(30);

/// What is told of services.
pub(super) enum ServiceNews {
    /// It is starting; a few words on what is waited for.
    Doing(NodeId, String),
    /// It serves.
    Up {
        node: NodeId,
        endpoint: Endpoint,
        process: Option<Arc<Process>>,
        took: Duration,
    },
    /// It could not be launched; nothing of it is left.
    LaunchFailed(NodeId, StepError),
    /// It ended by itself.
    Died {
        node: NodeId,
        incarnation: u32,
        how: String,
    },
    /// It was torn down.
    Down {
        node: NodeId,
        took: Duration,
        trouble: Option<String>,
    },
}

struct LiveService {
    incarnation: u32,
    stop: watch::Sender<bool>,
    endpoint: Option<Endpoint>,
    process: Option<Arc<Process>>,
}

/// Every service that is up or was, in this run.
pub(super) struct LiveServices {
    graph: Arc<Graph>,
    claims: Arc<Claims>,
    sender: mpsc::Sender<Message>,
    up: BTreeMap<NodeId, LiveService>,
    logs: BTreeMap<NodeId, PathBuf>,
    deaths: BTreeMap<NodeId, String>,
    tasks: tokio::task::JoinSet<()>,
}

impl LiveServices {
    pub(super) fn new(
        graph: Arc<Graph>,
        sender: mpsc::Sender<Message>,
        claims: Arc<Claims>,
    ) -> Self {
        Self {
            graph,
            claims,
            sender,
            up: BTreeMap::new(),
            logs: BTreeMap::new(),
            deaths: BTreeMap::new(),
            tasks: tokio::task::JoinSet::new(),
        }
    }

    /// Addresses of all services that serve.
    pub(super) fn endpoints(&self) -> BTreeMap<NodeId, Endpoint> {
        self.up
            .iter()
            .filter_map(|(n, s)| s.endpoint.clone().map(|e| (*n, e)))
            .collect()
    }

    /// The services that `node` leases, to be reset before it measures.
    pub(super) fn resets(&self, graph: &Graph, node: NodeId) -> Vec<Reset> {
        let leased = graph
            .incoming(node)
            .filter(|(_, edge)| *edge == Edge::Leases);
        leased
            .filter_map(|(id, _)| {
                let live = self.up.get(&id)?;
                let service = graph.service(id)?.service.clone();
                Some(Reset {
                    name: graph.name(id),
                    service,
                    endpoint: live.endpoint.clone()?,
                    process: live.process.clone(),
                })
            })
            .collect()
    }

    pub(super) fn launch(
        &mut self,
        node: NodeId,
        incarnation: u32,
        folder: PathBuf,
        resolved: Resolved,
        supervisor: Supervisor,
    ) {
        let Some(service) = self.graph.service(node).cloned() else {
            return;
        };
        let (stop, stopped) = watch::channel(false);
        self.deaths.remove(&node);
        self.up.insert(
            node,
            LiveService {
                incarnation,
                stop,
                endpoint: None,
                process: None,
            },
        );
        let launching = Launching {
            node,
            incarnation,
            service: service.service,
            limit: service.policy.ready_timeout,
            claims: self.claims.clone(),
            demand: service.policy.demand.clone(),
            context: LaunchContext {
                node: self.graph.name(node),
                folder,
                resolved,
                claims: BTreeMap::new(),
            },
            supervisor,
            stopped,
            sender: self.sender.clone(),
        };
        self.tasks.spawn(launching.until_the_end());
    }

    /// Tears a service down; ends in [`ServiceNews::Down`].
    pub(super) fn stop(&mut self, node: NodeId) {
        match self.up.get(&node) {
            Some(live) => drop(live.stop.send_replace(true)),
            None => {
                let (sender, news) = (
                    self.sender.clone(),
                    ServiceNews::Down {
                        node,
                        took: Duration::ZERO,
                        trouble: None,
                    },
                );
                self.tasks
                    .spawn(async move { drop(sender.send(Message::Service(news)).await) });
            }
        }
    }

    pub(super) fn is_up(
        &mut self,
        node: NodeId,
        endpoint: Endpoint,
        process: Option<Arc<Process>>,
    ) {
        if let Some(live) = self.up.get_mut(&node) {
            if let Some(log) = &endpoint.log {
                self.logs.insert(node, log.clone());
            }
            live.endpoint = Some(endpoint);
            live.process = process;
        }
    }

    pub(super) fn is_down(&mut self, node: NodeId) {
        self.up.remove(&node);
    }

    /// Notes a death; false if that incarnation is not the one that is up.
    pub(super) fn died(&mut self, node: NodeId, incarnation: u32, how: &str) -> bool {
        let is_current = self
            .up
            .get(&node)
            .is_some_and(|live| live.incarnation == incarnation);
        if is_current {
            self.up.remove(&node);
            self.deaths.insert(node, how.to_owned());
        }
        is_current
    }

    pub(super) fn log_of(&self, node: NodeId) -> Option<PathBuf> {
        self.logs.get(&node).cloned()
    }

    /// The service that `node` leases and that died, how, and its log.
    pub(super) fn death_of_lease(
        &self,
        graph: &Graph,
        node: NodeId,
    ) -> Option<(String, String, Option<PathBuf>)> {
        graph
            .incoming(node)
            .filter(|(_, edge)| *edge == Edge::Leases)
            .find_map(|(id, _)| {
                let how = self.deaths.get(&id)?;
                Some((graph.name(id), how.clone(), self.log_of(id)))
            })
    }

    /// Kills everything and waits, within `limit`, until it is gone.
    pub(super) async fn kill_all(&mut self, limit: Duration) {
        let processes: Vec<Arc<Process>> = self
            .up
            .values()
            .filter_map(|live| live.process.clone())
            .collect();
        for process in &processes {
            process.kill();
        }
        let gone = async {
            self.tasks.shutdown().await;
            for process in &processes {
                process.exited().await;
            }
        };
        // What is not gone by then loses its pipe when this process ends, and its guardian kills it.
        let _ = tokio::time::timeout(limit, gone).await;
    }
}

/// One launch of a service, from its start to its end.
struct Launching {
    node: NodeId,
    incarnation: u32,
    service: Arc<dyn DynService>,
    limit: Duration,
    claims: Arc<Claims>,
    demand: Demand,
    context: LaunchContext,
    supervisor: Supervisor,
    stopped: watch::Receiver<bool>,
    sender: mpsc::Sender<Message>,
}

/// How waiting for readiness ended.
enum Waited {
    Ready(BTreeMap<String, String>),
    ToldToStop,
    Failed(StepError),
}

impl Launching {
    async fn tell(&self, news: ServiceNews) {
        // An error means that the run is over already.
        let _ = self.sender.send(Message::Service(news)).await;
    }

    async fn until_the_end(mut self) {
        // Held until the service is verified gone.
        let claim = match self.claim().await {
            Some(Ok(claim)) => claim,
            Some(Err(error)) => {
                return self.tell(ServiceNews::LaunchFailed(self.node, error)).await;
            }
            None => {
                let (node, took) = (self.node, Duration::ZERO);
                let trouble = None;
                return self
                    .tell(ServiceNews::Down {
                        node,
                        took,
                        trouble,
                    })
                    .await;
            }
        };
        self.context.claims.clone_from(&claim.parts);
        let began = Instant::now();
        let (mut endpoint, process) = match self.start().await {
            Ok(started) => started,
            Err(error) => return self.tell(ServiceNews::LaunchFailed(self.node, error)).await,
        };
        match self
            .wait_until_ready(&endpoint, process.as_ref(), began)
            .await
        {
            Waited::Ready(facts) => {
                endpoint.facts.extend(facts);
                if let Some(url) = endpoint.facts.get("url") {
                    endpoint.url.clone_from(url);
                }
                self.serve(endpoint, process, began).await;
            }
            Waited::ToldToStop => self.tear_down(&endpoint, process).await,
            Waited::Failed(error) => {
                self.end(&endpoint, process).await;
                self.tell(ServiceNews::LaunchFailed(self.node, error)).await;
            }
        }
    }

    /// Waits for its share of the machine; `None` if it is no longer wanted.
    async fn claim(&self) -> Option<Result<Claim, StepError>> {
        let (node, sender) = (self.node, self.sender.clone());
        let say = move |doing| {
            // A full queue drops what is only said, never news.
            let _ = sender.try_send(Message::Service(ServiceNews::Doing(node, doing)));
        };
        tokio::select! {
            claim = self.claims.take(&self.demand, say) => Some(claim.map_err(|e| {
                StepError::new(e.to_string()).class(FailureClass::Infrastructure)
            })),
            () = told(self.stopped.clone()) => None,
        }
    }

    async fn start(&self) -> Result<(Endpoint, Option<Arc<Process>>), StepError> {
        match self.service.launch(&self.context)? {
            Launch::External { mut endpoint } => {
                endpoint
                    .facts
                    .insert("url".to_owned(), endpoint.url.clone());
                Ok((endpoint, None))
            }
            Launch::Process {
                mut spec,
                mut endpoint,
            } => {
                crate::claims::show_devices(&self.context.claims, &mut spec.env);
                endpoint
                    .facts
                    .insert("url".to_owned(), endpoint.url.clone());
                endpoint.log = Some(spec.stderr.clone());
                let process = self
                    .supervisor
                    .start(spec)
                    .await
                    .map_err(|e| StepError::new(e.to_string()))?;
                Ok((endpoint, Some(Arc::new(process))))
            }
        }
    }

    async fn wait_until_ready(
        &mut self,
        endpoint: &Endpoint,
        process: Option<&Arc<Process>>,
        began: Instant,
    ) -> Waited {
        let mut pause = FIRST_PAUSE;
        let mut said = String::new();
        loop {
            let probe = async {
                match tokio::time::timeout(PROBE_LIMIT, self.service.probe(endpoint)).await {
                    Ok(probe) => probe,
                    Err(_) => Probe::NotYet("it accepts no request yet".to_owned()),
                }
            };
            let probe = tokio::select! {
                probe = probe => probe,
                exit = exit_of(process) => return Waited::Failed(died_during_start(exit, endpoint)),
                () = told(self.stopped.clone()) => return Waited::ToldToStop,
            };
            match probe {
                Probe::Ready(facts) => return Waited::Ready(facts),
                Probe::Failed(why) => return Waited::Failed(failed_probe(why, endpoint)),
                Probe::NotYet(waits_for) if began.elapsed() > self.limit => {
                    return Waited::Failed(never_ready(self.limit, &waits_for, endpoint));
                }
                Probe::NotYet(waits_for) => {
                    if waits_for != said {
                        self.tell(ServiceNews::Doing(self.node, waits_for.clone()))
                            .await;
                        said = waits_for;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                exit = exit_of(process) => return Waited::Failed(died_during_start(exit, endpoint)),
            }
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// Watches the service until it is told to stop or ends by itself.
    async fn serve(mut self, endpoint: Endpoint, process: Option<Arc<Process>>, began: Instant) {
        let up = ServiceNews::Up {
            node: self.node,
            endpoint: endpoint.clone(),
            process: process.clone(),
            took: began.elapsed(),
        };
        self.tell(up).await;
        tokio::select! {
            () = told(self.stopped.clone()) => self.tear_down(&endpoint, process).await,
            exit = exit_of(process.as_ref()) => {
                let (node, incarnation) = (self.node, self.incarnation);
                self.tell(ServiceNews::Died { node, incarnation, how: exit.to_string() }).await;
            }
        }
    }

    async fn tear_down(&mut self, endpoint: &Endpoint, process: Option<Arc<Process>>) {
        let began = Instant::now();
        let trouble = self.end(endpoint, process).await;
        self.tell(ServiceNews::Down {
            node: self.node,
            took: began.elapsed(),
            trouble,
        })
        .await;
    }

    /// Ends the process and verifies that nothing is held any more; returns what could not be.
    async fn end(&self, endpoint: &Endpoint, process: Option<Arc<Process>>) -> Option<String> {
        let process = process?;
        if let Err(error) = process.stop(GRACE).await {
            return Some(error.to_string());
        }
        let deadline = Instant::now() + RELEASE_LIMIT;
        loop {
            match self.service.released(endpoint).await {
                Ok(()) => return None,
                Err(held) if Instant::now() > deadline => return Some(held),
                Err(_) => tokio::time::sleep(FIRST_PAUSE).await,
            }
        }
    }
}

/// Waits for the end of a process; for ever if there is none.
async fn exit_of(process: Option<&Arc<Process>>) -> Exit {
    match process {
        Some(process) => process.exited().await,
        None => std::future::pending().await,
    }
}

/// Waits until the service is to be torn down, or the run is gone.
async fn told(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn with_log(error: StepError, endpoint: &Endpoint) -> StepError {
    match &endpoint.log {
        Some(log) => error.log(log.clone()),
        None => error,
    }
}

fn died_during_start(exit: Exit, endpoint: &Endpoint) -> StepError {
    with_log(
        StepError::new(format!("it ended before it was ready: it {exit}"))
            .class(FailureClass::Infrastructure),
        endpoint,
    )
}

fn failed_probe(why: String, endpoint: &Endpoint) -> StepError {
    with_log(
        StepError::new(why).class(FailureClass::Infrastructure),
        endpoint,
    )
}

fn never_ready(limit: Duration, waits_for: &str, endpoint: &Endpoint) -> StepError {
    let limit = crate::types::duration_text(limit);
    let error = StepError::new(format!("it was not ready after {limit}: {waits_for}"))
        .help("raise `ready = { timeout = \"…\" }` of the service if it only needs longer")
        .class(FailureClass::Timeout);
    with_log(error, endpoint)
}
