//! The run: performs the schedule's actions on tokio and feeds back what happened.
//!
//! One task owns the schedule, the ledger and the journal; steps and services run in tasks of
//! their own (`perform`, `live`) and report by messages. What is kept of a run on disk is in
//! [`folder`]; [`history`] reads it back, and [`prune`] removes
//! it.

pub mod folder;
mod gate;
pub mod history;
mod launch;
mod lending;
mod live;
mod liveness;
mod lock_file;
mod log_watch;
mod panics;
mod perform;
mod processes;
pub mod prune;
mod readiness;
pub mod reap;
mod release;
mod results;
mod services;
pub mod trace;

use crate::claims::Claims;
use crate::decide::Ledger;
use crate::disk;
use crate::environment::Environment;
use crate::event::{Event, Listener, NodeSummary, Outcome};
use crate::expand::Expanded;
use crate::freshness::Wish;
use crate::graph::{Graph, NodeId, StepNode};
use crate::notes::Notes;
use crate::process::Supervisor;
use crate::schedule::{Action, Because, Decision, Happened, Schedule};
use crate::secrets::Redactor;
use crate::step::{
    FailureClass, Grade, PlanText, Progress, Resolved, StepContext, StepError, StepKind, Verdict,
};
use crate::store::{Store, StoreError, StoreLease};
use folder::RunFolder;
use gate::{Gate, Work};
use live::{LiveServices, ServiceNews};
use panics::catching_panics;
use perform::{Ended, Performance};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How many lines of a log a failure quotes.
const LOG_LINES: usize = 12;
/// Messages that may wait for the run's task; progress beyond that is dropped.
const MESSAGES: usize = 1024;

/// How long a run waits for somebody who sweeps the store: removing a terabyte takes minutes.
const SWEEPING: Duration = Duration::from_secs(10 * 60);
/// How often a run that waits for it looks whether it is interrupted.
const GLANCE: Duration = Duration::from_millis(250);

/// How many nodes are introduced at once: a record of the journal has its limit.
const INTRODUCED: usize = 1000;
/// In a larger plan only what ran is linked into the run's results: a run in which nothing is to be
/// done must not take as long as making ten thousand folders does.
const LINKED: usize = 2000;

/// What a run needs besides the plan.
pub struct RunSettings {
    /// Steps that may run at a time.
    pub jobs: u32,
    /// Whether to draw new samples though there are enough.
    pub fresh: bool,
    /// What the order of samples is shuffled by.
    pub seed: u64,
    /// Whether the run was begun before.
    pub resumed: bool,
    /// The folder of locks that the runs of this machine share, see
    /// [`Claims::usual_folder`].
    pub locks: PathBuf,
}

/// Wishes from outside while a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// Tear down in order and leave a run that can be resumed.
    Gracefully,
    /// Kill everything now.
    AtOnce,
}

/// Why a run could not go on, other than a failed step.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store or the run's folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run's own files.
    #[error("could not write `{path}`: {source}")]
    Folder {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The disk or the quota is full.
    #[error("could not write `{}`: {}", path.display(), disk::FULL)]
    OutOfSpace {
        /// The file.
        path: PathBuf,
    },
    /// Another process works on this run.
    #[error("run `{run}` is in use by another process{holder}")]
    InUse {
        /// The run's name.
        run: String,
        /// Who holds it, if known.
        holder: String,
    },
    /// A port that the plan gives to a service.
    #[error(
        "port {port}, which the plan gives to service `{service}`, is in use by another process"
    )]
    PortInUse {
        /// The port.
        port: u16,
        /// The service's name.
        service: String,
    },
    /// The journal.
    #[error("{0}")]
    Journal(String),
}

impl RunError {
    /// Returns an adapter for `map_err` on writing the file at `path`.
    fn on(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| match disk::is_full(&source) {
            true => Self::OutOfSpace { path },
            false => Self::Folder { path, source },
        }
    }
}

/// What reaches the run's task.
enum Message {
    Began {
        node: NodeId,
        sample: u32,
        logs: PathBuf,
    },
    Ended(Box<Ended>),
    Progressed(NodeId, Progress),
    Service(ServiceNews),
    Rested(NodeId),
}

/// Runs a plan to its end.
///
/// # Errors
/// [`RunError`] if the run's own files cannot be written; a failed step is an [`Outcome`].
pub async fn run(
    expanded: &Expanded,
    settings: &RunSettings,
    store: Arc<Store>,
    folder: RunFolder,
    listeners: Vec<Box<dyn Listener>>,
    mut interrupts: mpsc::Receiver<Interrupt>,
) -> Result<Outcome, RunError> {
    // Held to the end: nothing of the store is swept meanwhile.
    let Some(_lease) = lease(&store, &mut interrupts)? else {
        return Ok(Outcome::Interrupted);
    };
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let environment = Arc::new(Environment::detect());
    let graph = expanded.graph.clone();
    let wish = if settings.fresh {
        Wish::NewIn(folder.name().to_owned())
    } else {
        Wish::Enough
    };
    let supply = expanded.supply.clone();
    let claims = Arc::new(Claims::new(
        settings.locks.clone(),
        supply.clone(),
        folder.name(),
    ));
    let run = Run {
        schedule: Schedule::of(&graph, settings.jobs, settings.seed, &supply),
        ledger: Ledger::new(
            graph.clone(),
            store.clone(),
            environment.clone(),
            expanded.text.clone(),
            wish,
        ),
        live: LiveServices::new(graph.clone(), sender.clone(), claims.clone()),
        claims,
        graph,
        store,
        environment,
        plan: expanded.text.clone(),
        supervisor: Supervisor::this_binary().of_run(folder.name(), folder.path()),
        folder,
        listeners,
        redactor: Redactor::new(&expanded.secrets),
        began: Instant::now(),
        sender,
        cancels: BTreeMap::new(),
        tasks: tokio::task::JoinSet::new(),
        tally: Tally::default(),
        ports_checked: false,
    };
    run.until_the_end(&expanded.name, settings, receiver, interrupts)
        .await
}

/// Waits until nobody sweeps the store; nothing if it is interrupted before.
fn lease(
    store: &Store,
    interrupts: &mut mpsc::Receiver<Interrupt>,
) -> Result<Option<StoreLease>, RunError> {
    let began = Instant::now();
    loop {
        match tokio::task::block_in_place(|| store.lease(GLANCE)) {
            Err(StoreError::BeingSwept { .. }) if began.elapsed() < SWEEPING => {
                if interrupts.try_recv().is_ok() {
                    return Ok(None);
                }
            }
            other => return Ok(Some(other?)),
        }
    }
}

/// What went wrong on the way.
#[derive(Default)]
struct Tally {
    failed: bool,
    interrupted: bool,
}

impl Tally {
    fn outcome(&self, is_invalid: bool) -> Outcome {
        match self {
            Tally {
                interrupted: true, ..
            } => Outcome::Interrupted,
            Tally { failed: true, .. } => Outcome::Failed,
            _ if is_invalid => Outcome::Invalid,
            _ => Outcome::Done,
        }
    }
}

struct Run {
    graph: Arc<Graph>,
    store: Arc<Store>,
    environment: Arc<Environment>,
    plan: Arc<PlanText>,
    schedule: Schedule,
    ledger: Ledger,
    live: LiveServices,
    claims: Arc<Claims>,
    supervisor: Supervisor,
    folder: RunFolder,
    listeners: Vec<Box<dyn Listener>>,
    redactor: Redactor,
    began: Instant,
    sender: mpsc::Sender<Message>,
    cancels: BTreeMap<NodeId, watch::Sender<bool>>,
    tasks: tokio::task::JoinSet<()>,
    tally: Tally,
    /// Whether the ports that the plan gives were looked at.
    ports_checked: bool,
}

impl Run {
    async fn until_the_end(
        mut self,
        plan: &str,
        settings: &RunSettings,
        mut messages: mpsc::Receiver<Message>,
        mut interrupts: mpsc::Receiver<Interrupt>,
    ) -> Result<Outcome, RunError> {
        let nodes = self.introductions();
        let mut parts = nodes.chunks(INTRODUCED);
        self.tell(&Event::RunStarted {
            run: self.folder.name().to_owned(),
            plan: plan.to_owned(),
            resumed: settings.resumed,
            seed: settings.seed,
            nodes: parts.next().unwrap_or_default().to_vec(),
        })?;
        for part in parts {
            let nodes = part.to_vec();
            self.tell(&Event::Planned { nodes })?;
        }
        let mut actions = self.schedule.begin();
        let mut listening = true;
        while self.perform(actions)? {
            // What has ended has told so; only what is left of it is given back here.
            while self.tasks.try_join_next().is_some() {}
            actions = tokio::select! {
                Some(message) = messages.recv() => self.take(message)?,
                interrupt = interrupts.recv(), if listening => match interrupt {
                    Some(Interrupt::Gracefully) => self.interrupt()?,
                    Some(Interrupt::AtOnce) => return self.end_at_once().await,
                    None => { listening = false; Vec::new() }
                },
            };
        }
        self.finish()
    }

    fn introductions(&self) -> Vec<NodeSummary> {
        let introduce = |id: &NodeId| {
            let step = self.graph.step(*id);
            NodeSummary {
                node: self.graph.name(*id),
                uses: match (step, self.graph.service(*id)) {
                    (Some(step), _) => step.entry.name.to_owned(),
                    (None, service) => service.map_or("", |s| s.entry.name).to_owned(),
                },
                kind: step.map(|s| s.entry.kind),
                target: step.map_or(1, crate::graph::StepNode::target),
            }
        };
        self.graph.order().iter().map(introduce).collect()
    }

    /// Tells the journal and every listener.
    fn tell(&mut self, event: &Event) -> Result<(), RunError> {
        let redacted = (!self.redactor.is_empty()).then(|| event.clone().redacted(&self.redactor));
        let event = redacted.as_ref().unwrap_or(event);
        let at_ms = millis(self.began.elapsed());
        if !matches!(event, Event::Progressed { .. }) {
            self.folder.record(at_ms, event)?;
        }
        for listener in &mut self.listeners {
            listener.hear(at_ms, event);
        }
        Ok(())
    }

    /// Performs actions, and those that follow at once; false when the run is over.
    fn perform(&mut self, actions: Vec<Action>) -> Result<bool, RunError> {
        let mut queue: std::collections::VecDeque<Action> = actions.into();
        self.look_ahead(&queue);
        while let Some(action) = queue.pop_front() {
            match action {
                Action::Decide(node) => queue.extend(self.decide(node)?),
                Action::Start(node, sample) => {
                    self.check_ports()?;
                    self.start(node, sample)?;
                }
                Action::Launch(service) => {
                    self.check_ports()?;
                    self.launch(service)?;
                }
                Action::Stop(service) => self.live.stop(service),
                Action::Cancel(node) => self.cancel(node),
                Action::Rest(node, pause) => self.rest(node, pause),
                Action::Skip(node, because) => self.skip(node, because)?,
                Action::Finish => return Ok(false),
            }
        }
        // What follows may be a long wait, and `status` looks at the run meanwhile.
        self.folder.flush()?;
        Ok(true)
    }

    /// Looks at all nodes together that are to be decided before anything else is done.
    fn look_ahead(&mut self, actions: &std::collections::VecDeque<Action>) {
        let nodes = actions.iter().map_while(|action| match action {
            Action::Decide(node) => Some(*node),
            _ => None,
        });
        let nodes: Vec<NodeId> = nodes.collect();
        if nodes.len() > 1 {
            tokio::task::block_in_place(|| self.ledger.look_ahead(&nodes));
        }
    }

    fn decide(&mut self, node: NodeId) -> Result<Vec<Action>, RunError> {
        if !self.ledger.has_looked_at(node) {
            // That may take long: files are hashed.
            self.folder.flush()?;
        }
        let name = self.graph.name(node);
        let decided = tokio::task::block_in_place(|| self.ledger.decide(node));
        match decided {
            Ok((freshness, decision)) => {
                let manifest = self.ledger.manifest(node);
                let key = self.ledger.key(node);
                if let (Some(manifest), Decision::Run { times: 1.., .. }) = (manifest, decision) {
                    self.folder.note(&name, manifest)?;
                }
                self.tell(&Event::Decided {
                    node: name,
                    freshness,
                    key,
                })?;
                if matches!(
                    decision,
                    Decision::Satisfied | Decision::Run { times: 0, .. }
                ) && self.graph.order().len() <= LINKED
                {
                    self.show_results(node)?;
                }
                Ok(self.schedule.on(Happened::Decided(node, decision)))
            }
            Err(error) => {
                let error = StepError::because("could not find out what it depends on", error);
                self.fail(node, None, &error)?;
                Ok(self.schedule.on(Happened::Failed(node, FailureClass::Step)))
            }
        }
    }

    fn start(&mut self, node: NodeId, sample: u32) -> Result<(), RunError> {
        let Some(step) = self.graph.step(node).cloned() else {
            return Ok(());
        };
        let name = self.graph.name(node);
        let logs = self.folder.logs(&name, sample)?;
        let work = self.folder.work(&name, &logs)?;
        let is_measurement = step.entry.kind == StepKind::Measure;
        let (stop, cancel) = watch::channel(false);
        self.cancels.insert(node, stop);
        let mut resolved = self.ledger.resolved(node);
        resolved.endpoints = self.live.endpoints();
        let resets = match is_measurement {
            true => self.live.resets(&self.graph, node),
            false => Vec::new(),
        };
        let (sender, began) = (self.sender.clone(), logs.clone());
        let begin = Box::new(move || -> perform::BeginFuture {
            Box::pin(async move {
                let logs = began;
                // An error means that the run is over already.
                let _ = sender.send(Message::Began { node, sample, logs }).await;
            })
        });
        let performance = Performance {
            node,
            sample,
            gate: self.gate_of(node, &step),
            parts: BTreeMap::new(),
            say: self.waiting(node),
            begin,
            step,
            folder: work.clone(),
            logs: logs.clone(),
            context: self.context_of(node, sample, work, logs, resolved),
            cancel,
            resets,
            processes: self.live.processes_of(&self.graph, node),
            store: self.store.clone(),
        };
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            let ended = catching_panics(performance.until_the_end()).await;
            let ended = ended.unwrap_or_else(|error| Ended {
                node,
                sample,
                took: Duration::ZERO,
                result: Err(error),
                held: None,
            });
            // An error means that the run is over already.
            let _ = sender.send(Message::Ended(Box::new(ended))).await;
        });
        Ok(())
    }

    /// Says what a node waits for; a full queue drops it, never a result.
    fn waiting(&self, node: NodeId) -> Box<dyn Fn(String) + Send + Sync> {
        let sender = self.sender.clone();
        Box::new(move |doing| {
            let progress = Progress { doing, done: None };
            drop(sender.try_send(Message::Progressed(node, progress)));
        })
    }

    fn gate_of(&self, node: NodeId, step: &StepNode) -> Gate {
        let work = self.ledger.recheck(node).map(|(key, is_done)| Work {
            namespace: match step.entry.kind {
                StepKind::Measure => "samples",
                _ => "actions",
            },
            key,
            is_done,
        });
        Gate {
            claims: self.claims.clone(),
            demand: step.policy.demand.clone(),
            store: self.store.clone(),
            run: self.folder.name().to_owned(),
            work,
        }
    }

    /// Makes what a step sees, but for what tells it to stop.
    fn context_of(
        &self,
        node: NodeId,
        sample: u32,
        folder: PathBuf,
        logs: PathBuf,
        resolved: Resolved,
    ) -> Box<dyn Fn(watch::Receiver<bool>) -> StepContext + Send + Sync> {
        let name = self.graph.node(node).name.clone();
        let environment = self.environment.clone();
        let desks = self.live.desks(&self.graph, node);
        let (plan, supervisor) = (self.plan.clone(), self.supervisor.clone());
        let work = self.ledger.recheck(node).map(|(key, _)| key);
        let notes = Notes::new(self.store.clone(), work);
        let sender = self.sender.clone();
        // A full queue drops progress, never a result.
        let progress: Arc<dyn Fn(Progress) + Send + Sync> =
            Arc::new(move |progress| drop(sender.try_send(Message::Progressed(node, progress))));
        Box::new(move |cancel| StepContext {
            node: name.to_string(),
            axes: name.axes.values(),
            sample,
            folder: folder.clone(),
            logs: logs.clone(),
            resolved: resolved.clone(),
            environment: environment.clone(),
            notes: notes.clone(),
            plan: plan.clone(),
            supervisor: supervisor.clone(),
            desks: desks.clone(),
            claims: BTreeMap::new(),
            progress: progress.clone(),
            cancel,
        })
    }

    fn rest(&mut self, node: NodeId, pause: Duration) {
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            // An error means that the run is over already.
            let _ = sender.send(Message::Rested(node)).await;
        });
    }

    fn cancel(&mut self, node: NodeId) {
        if let Some(stop) = self.cancels.get(&node) {
            stop.send_replace(true);
        }
    }

    fn skip(&mut self, node: NodeId, because: Because) -> Result<(), RunError> {
        // Nothing else says that it did not come to what was asked for.
        self.tally.failed |= because == Because::NoRoom;
        let because = match because {
            Because::Dependency(other) => format!("`{}` did not end well", self.graph.name(other)),
            Because::Failure(other) => {
                format!("the run stops because `{}` failed", self.graph.name(other))
            }
            Because::Interrupted => "interrupted".to_owned(),
            Because::NoRoom => {
                "it and its services want more of the machine than there is".to_owned()
            }
            Because::NotNeeded => "nothing that runs asks for it".to_owned(),
        };
        self.tell(&Event::Skipped {
            node: self.graph.name(node),
            because,
        })
    }

    fn take(&mut self, message: Message) -> Result<Vec<Action>, RunError> {
        match message {
            Message::Progressed(node, progress) => {
                self.tell(&Event::Progressed {
                    node: self.graph.name(node),
                    progress,
                })?;
                Ok(Vec::new())
            }
            Message::Began { node, sample, logs } => self.began(node, sample, logs),
            Message::Ended(ended) => self.ended(*ended),
            Message::Rested(node) => Ok(self.schedule.on(Happened::Rested(node))),
            Message::Service(news) => self.service_news(news),
        }
    }

    fn interrupt(&mut self) -> Result<Vec<Action>, RunError> {
        self.tally.interrupted = true;
        self.tell(&Event::Interrupted { at_once: false })?;
        Ok(self.schedule.on(Happened::Interrupted))
    }

    /// Kills everything and leaves; what was finished before stays finished.
    async fn end_at_once(mut self) -> Result<Outcome, RunError> {
        self.tally.interrupted = true;
        self.tell(&Event::Interrupted { at_once: true })?;
        self.tasks.shutdown().await;
        self.live.kill_all(Duration::from_secs(5)).await;
        self.finish()
    }

    /// Whether a result rests on a sample that is none: known only at the end, because later
    /// samples take the place of invalid ones.
    fn rests_on_invalid(&self) -> bool {
        let sets = self
            .graph
            .order()
            .iter()
            .filter_map(|id| self.ledger.samples(*id));
        let mut records = sets.flat_map(|set| set.records);
        records.any(|record| record.verdict.grade == Grade::Invalid)
    }

    fn finish(mut self) -> Result<Outcome, RunError> {
        let outcome = self.tally.outcome(self.rests_on_invalid());
        self.folder.clean_work();
        // Without it the next run is slower and nothing else.
        let _ = self.ledger.save_hits();
        let locked = self.write_lock();
        // The run is over whether or not its lock file can be written.
        self.tell(&Event::RunFinished {
            outcome,
            took_ms: millis(self.began.elapsed()),
        })?;
        locked?;
        // Of a plan of many nodes that takes longer than a glance, and nobody waits for it.
        let all = (self.schedule, self.ledger);
        std::thread::spawn(move || drop(all));
        Ok(outcome)
    }
}

/// A measurement that says nothing of its validity is not to be trusted: fail closed.
fn no_verdict() -> Verdict {
    Verdict {
        grade: Grade::Invalid,
        reasons: vec!["the step gave no verdict".to_owned()],
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
