//! One launch of a service from its start to its verified end: waited for until it is ready,
//! watched while it serves, torn down. Tells what happens by messages; decides nothing.

use super::Message;
use super::lending::Lent;
use super::live::ServiceNews;
use super::liveness;
use super::processes::{Current, Death, Processes};
use super::readiness::{Conditions, Look, lasting};
use super::release::{Endings, GpuMemory, verify};
use crate::claims::{Claim, Claims};
use crate::graph::NodeId;
use crate::loan::Visit;
use crate::logs::{Diagnosis, reason_in};
use crate::policy::{Demand, Liveness, ServicePolicy};
use crate::process::{Exit, Identity, Supervisor, logs_in, telling_log};
use crate::service::{DynService, Endpoint, Launch, LaunchContext};
use crate::step::{FailureClass, StepError};
use crate::types::duration_text;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Pause between looks: short, so that a quick server is not waited for, and growing.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a service may take to end when told to, before it is killed.
const GRACE: Duration = Duration::from_secs(15);
/// The pool whose parts have memory that must be verified to be free.
const GPUS: &str = "gpus";
/// How much of a boot's id is kept in the name of a launch: enough to tell boots apart.
const BOOT_CHARS: usize = 8;

/// One launch of a service.
pub(super) struct Launching {
    pub(super) node: NodeId,
    pub(super) incarnation: u32,
    pub(super) service: Arc<dyn DynService>,
    pub(super) policy: Arc<ServicePolicy>,
    /// The service in front of it for whose sake it is launched.
    pub(super) front: Option<Front>,
    /// Its share of the machine.
    pub(super) demand: Demand,
    pub(super) claims: Arc<Claims>,
    pub(super) context: LaunchContext,
    /// The folder of the launch that the engine made; those of steps that had it for themselves lie in it.
    pub(super) home: PathBuf,
    pub(super) supervisor: Supervisor,
    pub(super) stopped: watch::Receiver<bool>,
    /// Steps that want it for themselves.
    pub(super) visits: mpsc::Receiver<Visit>,
    pub(super) endings: Endings,
    pub(super) sender: mpsc::Sender<Message>,
}

/// A service in front of one that is launched.
pub(super) struct Front {
    pub(super) name: String,
    pub(super) service: Arc<dyn DynService>,
    pub(super) policy: Arc<ServicePolicy>,
}

/// A service that was started.
pub(super) struct Started {
    pub(super) endpoint: Endpoint,
    pub(super) processes: Processes,
    /// Right before the first process was started.
    pub(super) began: Instant,
    gpu_memory: Option<GpuMemory>,
}

/// How waiting for readiness ended.
pub(super) enum Waited {
    Ready,
    ToldToStop,
    Failed(StepError),
}

impl Launching {
    pub(super) async fn tell(&self, news: ServiceNews) {
        // An error means that the run is over already.
        let _ = self.sender.send(Message::Service(news)).await;
    }

    pub(super) async fn until_the_end(mut self) {
        // Held until the service is verified gone.
        let claim = match self.claim().await {
            Some(Ok(claim)) => claim,
            Some(Err(error)) => {
                return self.tell(ServiceNews::LaunchFailed(self.node, error)).await;
            }
            None => return self.tell(ServiceNews::never_up(self.node)).await,
        };
        self.context.claims.clone_from(&claim.parts);
        let prepared = tokio::select! {
            prepared = self.service.prepare(&self.context, &self.supervisor) => prepared,
            () = told(self.stopped.clone()) => {
                return self.tell(ServiceNews::never_up(self.node)).await;
            }
        };
        if let Err(error) = prepared {
            return self.tell(ServiceNews::LaunchFailed(self.node, error)).await;
        }
        let began = Instant::now();
        let mut started = match self.start().await {
            Ok(started) => started,
            Err(error) => return self.tell(ServiceNews::LaunchFailed(self.node, error)).await,
        };
        let held = match self.wait_until_ready(&mut started).await {
            Waited::Ready => self.serve(&mut started, began).await,
            Waited::ToldToStop => self.tear_down(&mut started).await,
            Waited::Failed(error) => self.give_up(&mut started, error).await,
        };
        if held.is_some() {
            self.endings.keep(claim);
        }
    }

    /// Tears down what never became ready, and tells why; returns what is still held.
    async fn give_up(&self, started: &mut Started, error: StepError) -> Option<String> {
        let held = self.end(started).await;
        let error = match &held {
            Some(held) => error.help(format!("{held}: end what holds it before the next try")),
            None => error,
        };
        self.tell(ServiceNews::LaunchFailed(self.node, error)).await;
        held
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

    pub(super) async fn start(&self) -> Result<Started, StepError> {
        self.endings.nothing_is_held().await?;
        let (mut endpoint, specs) = match self.service.launch(&self.context)? {
            Launch::External { endpoint } => (endpoint, Vec::new()),
            Launch::Process { spec, endpoint } => (endpoint, vec![spec]),
            Launch::Processes { specs, endpoint } => (endpoint, specs),
        };
        let (claims, folder) = (&self.context.claims, &self.context.folder);
        let began = Instant::now();
        let processes = Processes::start(specs, claims, &self.supervisor, folder, GRACE).await?;
        endpoint.incarnation = self.name(processes.first().map(|p| p.identity()));
        let has_gpus = !processes.is_empty() && self.has_gpus();
        let gpu_memory = has_gpus.then(|| GpuMemory::of(&self.supervisor, &self.context.folder));
        Ok(Started {
            endpoint,
            processes,
            began,
            gpu_memory: gpu_memory.flatten(),
        })
    }

    /// Whether it may hold memory of a GPU: what stands behind a front has the front's GPUs.
    fn has_gpus(&self) -> bool {
        let front = self.front.iter().map(|front| &front.policy.demand);
        let mut demands = front.chain([&self.policy.demand]);
        demands.any(|demand| demand.amounts.contains_key(GPUS))
    }

    /// Names this launch for good: numbers begin anew when a run goes on, processes never do.
    fn name(&self, process: Option<&Identity>) -> String {
        let launch = match process {
            Some(process) => {
                let boot: String = process.boot_id.chars().take(BOOT_CHARS).collect();
                format!("{}-{}-{boot}", process.pid, process.start_time)
            }
            None => format!("at-{}", crate::samples::now_s()),
        };
        let run = self.supervisor.run_name().unwrap_or("run");
        format!("{run}/{}/{}/{launch}", self.context.node, self.incarnation)
    }

    pub(super) async fn wait_until_ready(&self, started: &mut Started) -> Waited {
        let asked = &self.policy.ready;
        let processes = started.processes.clone();
        let logs = (!processes.is_empty()).then(|| logs_in(&self.context.folder));
        let (service, supervisor) = (self.service.clone(), self.supervisor.clone());
        let folder = &self.context.folder;
        let mut conditions = Conditions::new(service, asked, supervisor, folder, logs);
        tokio::select! {
            biased;
            death = processes.first_death() => Waited::Failed(self.died_during_start(&death)),
            () = told(self.stopped.clone()) => Waited::ToldToStop,
            () = tokio::time::sleep(asked.timeout) => Waited::Failed(self.never_ready(&conditions)),
            all_hold = self.until_all_hold(&mut conditions, &mut started.endpoint) => match all_hold {
                Ok(()) => Waited::Ready,
                Err(why) => Waited::Failed(self.failed(why, FailureClass::Infrastructure)),
            },
        }
    }

    /// Looks again and again, and says what holds it up.
    ///
    /// # Errors
    /// Why it will never be ready.
    async fn until_all_hold(
        &self,
        conditions: &mut Conditions,
        endpoint: &mut Endpoint,
    ) -> Result<(), String> {
        let mut said = Said::default();
        let mut pause = FIRST_PAUSE;
        loop {
            match conditions.look(endpoint).await {
                Look::Ready => return self.hand_over(endpoint).await,
                Look::Never(why) => return Err(why),
                Look::NotYet => {}
            }
            if let Some(doing) = said.anything_new(conditions) {
                self.tell(ServiceNews::Doing(self.node, doing)).await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// Lets the service in front of this one bring it into the state that it expects.
    ///
    /// # Errors
    /// Why that was not possible.
    async fn hand_over(&self, endpoint: &Endpoint) -> Result<(), String> {
        let Some(front) = &self.front else {
            return Ok(());
        };
        let doing = format!("being taken over by `{}`", front.name);
        self.tell(ServiceNews::Doing(self.node, doing)).await;
        let taken = front.service.take_over(self.node, endpoint).await;
        taken.map_err(|error| match error.help {
            Some(help) => format!("{}; {help}", error.message),
            None => error.message,
        })
    }

    /// Watches the service until it is told to stop, ends by itself, or hangs.
    /// Returns what is still held at its end.
    async fn serve(&mut self, started: &mut Started, began: Instant) -> Option<String> {
        note_processes(started);
        let current = Current::new(&started.processes);
        let up = ServiceNews::Up {
            node: self.node,
            incarnation: self.incarnation,
            endpoint: started.endpoint.clone(),
            processes: current.clone(),
            took: began.elapsed(),
        };
        self.tell(up).await;
        loop {
            let (processes, liveness) = (started.processes.clone(), self.liveness());
            let (how, folder) = tokio::select! {
                () = told(self.stopped.clone()) => return self.tear_down(started).await,
                death = processes.first_death() => (self.how(&death), death.folder),
                hung = liveness::until_dead(&*self.service, &started.endpoint, &liveness) => {
                    // Steps that wait for it see its end.
                    processes.kill(GRACE).await;
                    (hung, self.context.folder.clone())
                }
                Some(visit) = self.visits.recv() => match self.lend(started, &current, visit).await {
                    Lent::Serves => continue,
                    Lent::Over(held) => return held,
                },
            };
            return self.died(how, folder, started).await;
        }
    }

    /// What is asked of it to tell whether it hangs. One behind another may be at rest, when its usual
    /// path would be wrong about it or wake it: only the plan's own path is asked.
    fn liveness(&self) -> Liveness {
        let asked = &self.policy.liveness;
        Liveness {
            enabled: asked.enabled && (self.front.is_none() || asked.http.is_some()),
            ..asked.clone()
        }
    }

    /// Tells of a death at once, and lets no other launch begin before nothing is left of this one.
    pub(super) async fn died(
        &self,
        how: String,
        folder: PathBuf,
        started: &mut Started,
    ) -> Option<String> {
        // Counted from here, so that no launch gets in between the news and the look.
        self.endings.begin();
        self.tell(ServiceNews::Died {
            node: self.node,
            incarnation: self.incarnation,
            how,
            folder,
        })
        .await;
        let held = self.end(started).await;
        self.endings.end(None);
        held
    }

    pub(super) async fn tear_down(&self, started: &mut Started) -> Option<String> {
        let began = Instant::now();
        let trouble = self.end(started).await;
        self.tell(ServiceNews::Down {
            node: self.node,
            took: began.elapsed(),
            trouble: trouble.clone(),
        })
        .await;
        trouble
    }

    /// Ends the process and verifies that nothing is held any more; returns what could not be.
    /// Until that is known no other launch begins, and none at all while something is held.
    pub(super) async fn end(&self, started: &mut Started) -> Option<String> {
        self.endings.begin();
        let held = self.end_verified(started).await;
        let name = |held| format!("`{}` ended, and {held}", self.context.node);
        self.endings.end(held.clone().map(name));
        held
    }

    async fn end_verified(&self, started: &mut Started) -> Option<String> {
        note_processes(started);
        if started.processes.is_empty() {
            return None;
        }
        if let Err(error) = started.processes.stop(GRACE).await {
            return Some(error.to_string());
        }
        let gpu_memory = started.gpu_memory.as_ref();
        verify(&*self.service, &started.endpoint, gpu_memory)
            .await
            .err()
    }

    /// What the logs in `folder` say, and the log that says most.
    fn reason(&self, exit: Option<Exit>, folder: &Path) -> (Option<Diagnosis>, Option<PathBuf>) {
        match reason_in(folder, |log| self.service.diagnose(log)) {
            Some((diagnosis, log)) => (Some(diagnosis), Some(log)),
            None => (exit.and_then(Diagnosis::of_exit), telling_log(folder)),
        }
    }

    fn failed(&self, message: String, class: FailureClass) -> StepError {
        self.because(message, class, self.reason(None, &self.context.folder))
    }

    fn because(
        &self,
        message: String,
        class: FailureClass,
        (diagnosis, log): (Option<Diagnosis>, Option<PathBuf>),
    ) -> StepError {
        let mut error = match diagnosis {
            Some(found) => StepError::new(format!("{message}: {found}")).help(found.hint),
            None => StepError::new(message),
        };
        error.log = log;
        error.class(class)
    }

    fn died_during_start(&self, death: &Death) -> StepError {
        let when = match telling_log(&death.folder) {
            Some(_) => "it died before it was healthy",
            None => "it died before it wrote a log",
        };
        let message = format!("{when}: it {death}");
        let reason = self.reason(Some(death.exit), &death.folder);
        let mut error = self.because(message, FailureClass::Infrastructure, reason);
        error.message += &death.others();
        error
    }

    /// Says how it ended by itself, and what its logs say of that.
    fn how(&self, death: &Death) -> String {
        let others = death.others();
        match self.reason(Some(death.exit), &death.folder).0 {
            Some(found) => format!("{death}: {found}; {}{others}", found.hint),
            None => format!("{death}{others}"),
        }
    }

    fn never_ready(&self, conditions: &Conditions) -> StepError {
        let limit = duration_text(self.policy.ready.timeout);
        let what = match &self.front {
            Some(front) if conditions.waits_for().is_none() => {
                let front = &front.name;
                format!("`{front}` in front of it has not taken it over within {limit}")
            }
            _ if conditions.is_unhealthy() => {
                format!("it is alive but not healthy after {limit}")
            }
            _ => format!("it never became ready within {limit}"),
        };
        let states = conditions.states(Instant::now());
        let error = self.failed(format!("{what}: {states}"), FailureClass::Timeout);
        match error.help {
            Some(_) => error,
            None => error
                .help("raise `ready = { timeout = \"…\" }` of the service if it only needs longer"),
        }
    }
}

/// What was said last of a service that is not ready, and when it is time to say it again.
#[derive(Default)]
struct Said {
    what: String,
    waited: Duration,
}

impl Said {
    /// Returns what to say if it is not what was said, or has lasted twice as long.
    fn anything_new(&mut self, conditions: &Conditions) -> Option<String> {
        let (what, since) = conditions.waits_for()?;
        let waited = since.elapsed();
        let is_old = what == self.what && waited < (self.waited * 2).max(Duration::from_secs(10));
        if is_old {
            return None;
        }
        let text = if waited < Duration::from_secs(1) {
            what.clone()
        } else {
            lasting(&what, waited)
        };
        *self = Self { what, waited };
        Some(text)
    }
}

pub(super) fn note_processes(started: &mut Started) {
    if let Some(gpu_memory) = &mut started.gpu_memory {
        started
            .processes
            .iter()
            .for_each(|process| gpu_memory.note(process));
    }
}

/// Waits until the service is to be torn down, or the run is gone.
pub(super) async fn told(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}
