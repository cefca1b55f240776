//! Services that are up: who they are, where they answer, how those that died did.
//!
//! What becomes of one launch from its start to its end is in `launch`.

use super::Message;
use super::launch::{Front, Launching};
use super::panics::catching_panics;
use super::perform::Reset;
use super::processes::Current;
use super::release::Endings;
use crate::claims::Claims;
use crate::graph::{Graph, NodeId};
use crate::loan::{Desk, Desks};
use crate::policy::{Demand, Machine};
use crate::process::{Process, Supervisor, telling_log};
use crate::service::{Endpoint, LaunchContext};
use crate::step::{Resolved, StepError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What is told of services.
pub(super) enum ServiceNews {
    /// It is starting; a few words on what is waited for.
    Doing(NodeId, String),
    /// It serves.
    Up {
        node: NodeId,
        incarnation: u32,
        endpoint: Endpoint,
        processes: Current,
        took: Duration,
    },
    /// A step that had it for itself has launched it anew, and it serves.
    Anew {
        node: NodeId,
        incarnation: u32,
        endpoint: Endpoint,
    },
    /// It could not be launched; what is left of it, if anything, the error says.
    LaunchFailed(NodeId, StepError),
    /// It ended by itself; the logs that tell why lie in the folder.
    Died {
        node: NodeId,
        incarnation: u32,
        how: String,
        folder: PathBuf,
    },
    /// It was torn down.
    Down {
        node: NodeId,
        took: Duration,
        trouble: Option<String>,
    },
}

impl ServiceNews {
    /// A service that was no longer wanted before it was started.
    pub(super) fn never_up(node: NodeId) -> Self {
        Self::Down {
            node,
            took: Duration::ZERO,
            trouble: None,
        }
    }
}

struct LiveService {
    incarnation: u32,
    stop: watch::Sender<bool>,
    endpoint: Option<Endpoint>,
    processes: Current,
    desk: Desk,
}

/// Every service that is up or was, in this run.
pub(super) struct LiveServices {
    graph: Arc<Graph>,
    claims: Arc<Claims>,
    sender: mpsc::Sender<Message>,
    up: BTreeMap<NodeId, LiveService>,
    /// The folder with the logs of the last launch of each service, or of that process of it which has ended.
    folders: BTreeMap<NodeId, PathBuf>,
    deaths: BTreeMap<NodeId, String>,
    endings: Endings,
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
            folders: BTreeMap::new(),
            deaths: BTreeMap::new(),
            endings: Endings::new(),
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
        let leased = graph.leases(node).into_iter();
        leased
            .filter_map(|id| {
                let live = self.up.get(&id)?;
                let service = graph.service(id)?.service.clone();
                Some(Reset {
                    name: graph.name(id),
                    service,
                    endpoint: live.endpoint.clone()?,
                })
            })
            .collect()
    }

    /// The processes that have to be alive as long as `node` runs.
    pub(super) fn processes_of(&self, graph: &Graph, node: NodeId) -> Vec<Current> {
        let leased = graph.leased(node).into_iter();
        leased
            .filter_map(|id| self.up.get(&id))
            .map(|live| live.processes.clone())
            .collect()
    }

    /// Where the services that `node` leases are asked for.
    pub(super) fn desks(&self, graph: &Graph, node: NodeId) -> Desks {
        // One in front of others expects them as they were before it: it is not launched without them.
        let leased = graph.leases(node).into_iter();
        let leased = leased.filter(|id| graph.leases(*id).is_empty());
        Desks::new(leased.filter_map(|id| Some((id, self.up.get(&id)?.desk.clone()))))
    }

    /// Names the launches of the services that `node` leases, by service.
    pub(super) fn incarnations_of(&self, graph: &Graph, node: NodeId) -> BTreeMap<String, String> {
        let leased = graph.leases(node).into_iter();
        leased
            .filter_map(|id| {
                let endpoint = self.up.get(&id)?.endpoint.as_ref()?;
                Some((graph.name(id), endpoint.incarnation.clone()))
            })
            .collect()
    }

    pub(super) fn launch(
        &mut self,
        node: NodeId,
        incarnation: u32,
        front: Option<NodeId>,
        folder: PathBuf,
        mut resolved: Resolved,
        supervisor: Supervisor,
    ) {
        let Some(service) = self.graph.service(node).cloned() else {
            return;
        };
        resolved.note_secrets(|walk| service.service.walk(walk));
        resolved.endpoints = self.endpoints();
        let front = front.and_then(|front| self.front(front));
        let (stop, stopped) = watch::channel(false);
        let (desk, visits) = Desk::new(service.service.clone());
        self.deaths.remove(&node);
        self.folders.insert(node, folder.clone());
        self.up.insert(
            node,
            LiveService {
                incarnation,
                stop,
                endpoint: None,
                processes: Current::default(),
                desk,
            },
        );
        let launching = Launching {
            node,
            incarnation,
            service: service.service,
            demand: self.demand_of(node, &service.policy.demand),
            policy: service.policy,
            front,
            claims: self.claims.clone(),
            home: folder.clone(),
            context: LaunchContext {
                node: self.graph.name(node),
                folder,
                resolved,
                claims: BTreeMap::new(),
            },
            supervisor,
            stopped,
            visits,
            endings: self.endings.clone(),
            sender: self.sender.clone(),
        };
        while self.tasks.try_join_next().is_some() {}
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            if let Err(error) = catching_panics(launching.until_the_end()).await {
                let news = ServiceNews::LaunchFailed(node, error);
                let _ = sender.send(Message::Service(news)).await;
            }
        });
    }

    fn front(&self, front: NodeId) -> Option<Front> {
        let service = self.graph.service(front)?;
        Some(Front {
            name: self.graph.name(front),
            service: service.service.clone(),
            policy: service.policy.clone(),
        })
    }

    /// What a service claims: the machine as those that lease it will want it. Otherwise two runs whose
    /// services share the machine could wait for each other to have it alone.
    fn demand_of(&self, service: NodeId, own: &Demand) -> Demand {
        let is_alone = self.graph.lessees(service).into_iter().any(|node| {
            let step = self.graph.step(node);
            step.is_some_and(|s| s.policy.demand.machine == Machine::Exclusive)
        });
        Demand {
            machine: if is_alone {
                Machine::Exclusive
            } else {
                own.machine
            },
            ..own.clone()
        }
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

    pub(super) fn is_up(&mut self, node: NodeId, endpoint: Endpoint, processes: Current) {
        if let Some(live) = self.up.get_mut(&node) {
            live.endpoint = Some(endpoint);
            live.processes = processes;
        }
    }

    /// Notes that a service is another launch now.
    pub(super) fn is_anew(&mut self, node: NodeId, incarnation: u32, endpoint: Endpoint) {
        if let Some(live) = self.up.get_mut(&node) {
            live.endpoint = Some(endpoint);
            live.incarnation = incarnation;
        }
    }

    pub(super) fn is_down(&mut self, node: NodeId) {
        self.up.remove(&node);
    }

    /// Notes a death and where its logs lie; false if that incarnation is not the one that is up.
    pub(super) fn died(
        &mut self,
        node: NodeId,
        incarnation: u32,
        how: &str,
        folder: PathBuf,
    ) -> bool {
        let is_current = self
            .up
            .get(&node)
            .is_some_and(|live| live.incarnation == incarnation);
        if is_current {
            self.up.remove(&node);
            self.deaths.insert(node, how.to_owned());
            self.folders.insert(node, folder);
        }
        is_current
    }

    /// The log of the last launch of `node` that most likely tells why it ended.
    pub(super) fn log_of(&self, node: NodeId) -> Option<PathBuf> {
        telling_log(self.folders.get(&node)?)
    }

    /// The service that `node` needs and that died, how, and its log.
    pub(super) fn death_of_lease(
        &self,
        graph: &Graph,
        node: NodeId,
    ) -> Option<(String, String, Option<PathBuf>)> {
        graph.leased(node).into_iter().find_map(|id| {
            let how = self.deaths.get(&id)?;
            Some((graph.name(id), how.clone(), self.log_of(id)))
        })
    }

    /// Kills everything and waits, within `limit`, until it is gone.
    pub(super) async fn kill_all(&mut self, limit: Duration) {
        let processes: Vec<Arc<Process>> = self
            .up
            .values()
            .flat_map(|live| live.processes.list())
            .collect();
        for process in &processes {
            process.kill();
        }
        let gone = async {
            // First, because the tasks hold what they claimed of the machine.
            for process in &processes {
                process.exited().await;
            }
            self.tasks.shutdown().await;
        };
        // What is not gone by then loses its pipe when this process ends, and its guardian kills it.
        let _ = tokio::time::timeout(limit, gone).await;
    }
}
