//! When a service is ready: every condition that its kind and the plan ask for, looked at again
//! and again, with words for what does not hold yet.
//!
//! Knows neither limits nor processes: who waits, how long, and what a death means is in `live`.

use crate::policy::Readiness;
use crate::process::{Exit, ProcessSpec, Supervisor};
use crate::run::log_watch::LogWatch;
use crate::service::{DynService, Endpoint, Probe};
use crate::types::Pattern;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a single question may take at most.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// What the plan's own command may take at most.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// How long a command that took longer may take to end.
const COMMAND_GRACE: Duration = Duration::from_secs(1);
/// What a command of a plan sees of this process's environment.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// What was found by looking once.
pub(super) enum Look {
    /// Every condition holds.
    Ready,
    /// Some do not hold yet.
    NotYet,
    /// One never will: why.
    Never(String),
}

/// One thing that must hold.
enum Condition {
    /// What its kind asks.
    Probe,
    Http(String),
    Tcp,
    Log(LogWatch, Pattern),
    Command(Vec<String>),
}

/// How a condition was found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Holds,
    /// Not yet: what is missing.
    Not(String),
    /// It answers, but not that it serves.
    Unhealthy(String),
}

struct Check {
    condition: Condition,
    state: State,
    /// Since when it is in this state.
    since: Instant,
}

/// Everything that must hold before a service is leased.
pub(super) struct Conditions {
    service: Arc<dyn DynService>,
    supervisor: Supervisor,
    folder: PathBuf,
    /// Whether the engine has started its process.
    has_process: bool,
    checks: Vec<Check>,
}

impl Conditions {
    /// Collects what must hold for a service whose logs, if it has any, are `logs`; files of a
    /// command go to `folder`.
    pub(super) fn new(
        service: Arc<dyn DynService>,
        asked: &Readiness,
        supervisor: Supervisor,
        folder: &Path,
        logs: Option<[PathBuf; 2]>,
    ) -> Self {
        let has_process = logs.is_some();
        let mut conditions = vec![Condition::Probe];
        conditions.extend(asked.http.clone().map(Condition::Http));
        conditions.extend(asked.tcp.then_some(Condition::Tcp));
        if let Some(pattern) = &asked.log {
            let watch = LogWatch::of(logs.into_iter().flatten());
            conditions.push(Condition::Log(watch, pattern.clone()));
        }
        if !asked.command.is_empty() {
            conditions.push(Condition::Command(asked.command.clone()));
        }
        let check = |condition| Check {
            state: State::Not(not_asked(&condition)),
            condition,
            since: Instant::now(),
        };
        Self {
            service,
            supervisor,
            folder: folder.to_owned(),
            has_process,
            checks: conditions.into_iter().map(check).collect(),
        }
    }

    /// Looks at what did not hold so far, a command only once all else holds. Facts that the
    /// probe finds are added to the endpoint.
    pub(super) async fn look(&mut self, endpoint: &mut Endpoint) -> Look {
        for i in 0..self.checks.len() {
            let others_hold = self.checks[..i].iter().all(|c| c.state == State::Holds);
            let is_command = matches!(self.checks[i].condition, Condition::Command(_));
            if self.checks[i].state == State::Holds || (is_command && !others_hold) {
                continue;
            }
            match self.ask(i, endpoint).await {
                Ok(state) => self.checks[i].enter(state),
                Err(never) => return Look::Never(never),
            }
        }
        if self.checks.iter().all(|c| c.state == State::Holds) {
            Look::Ready
        } else {
            Look::NotYet
        }
    }

    /// Asks for one condition.
    ///
    /// # Errors
    /// Why it will never hold.
    async fn ask(&mut self, i: usize, endpoint: &mut Endpoint) -> Result<State, String> {
        let (service, has_process) = (self.service.clone(), self.has_process);
        match &mut self.checks[i].condition {
            Condition::Probe => probe(&*service, endpoint).await,
            Condition::Http(path) => Ok(http(&*service, endpoint, path).await),
            Condition::Tcp => Ok(tcp(endpoint).await),
            Condition::Log(..) if !has_process => {
                Err("`ready.log` is asked for, and what runs already has no log here".to_owned())
            }
            Condition::Log(watch, pattern) => {
                let pattern = pattern.clone();
                Ok(watch.look(&pattern).map_or_else(
                    || State::Not(format!("log line `{pattern}` not seen")),
                    |()| State::Holds,
                ))
            }
            Condition::Command(argv) => {
                let argv = filled(argv, endpoint);
                self.command(argv).await
            }
        }
    }

    /// Runs the plan's own command to its end.
    async fn command(&self, argv: Vec<String>) -> Result<State, String> {
        let program = argv.first().cloned().unwrap_or_default();
        let inherit = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        let env: BTreeMap<String, String> = INHERITED.into_iter().filter_map(inherit).collect();
        let folder = self.folder.join("ready");
        let spec = ProcessSpec::new("ready.command", argv, env, &self.folder, &folder);
        let started = self.supervisor.start(spec).await;
        let process = started.map_err(|error| error.to_string())?;
        match tokio::time::timeout(COMMAND_LIMIT, process.exited()).await {
            Ok(Exit::Code(0)) => Ok(State::Holds),
            Ok(exit) => Ok(State::Not(format!("`{program}` {exit}"))),
            Err(_) => {
                // What survives is named when the service itself is torn down.
                let _ = process.stop(COMMAND_GRACE).await;
                let limit = COMMAND_LIMIT.as_secs();
                Ok(State::Not(format!(
                    "`{program}` did not end within {limit} s"
                )))
            }
        }
    }

    /// Whether something answers, but not that it serves.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.checks
            .iter()
            .any(|c| matches!(c.state, State::Unhealthy(_)))
    }

    /// Says what holds it up first, and since when.
    pub(super) fn waits_for(&self) -> Option<(String, Instant)> {
        let check = self.checks.iter().find(|c| c.state != State::Holds)?;
        let text = match &check.state {
            State::Unhealthy(what) if self.has_process => format!("alive, not healthy: {what}"),
            State::Unhealthy(what) => format!("not healthy: {what}"),
            State::Not(what) => what.clone(),
            State::Holds => return None,
        };
        Some((text, check.since))
    }

    /// Says of every condition how it was found last.
    pub(super) fn states(&self, now: Instant) -> String {
        let alive = self.has_process.then(|| "process alive".to_owned());
        let each = self.checks.iter().map(|check| check.words(now));
        alive.into_iter().chain(each).collect::<Vec<_>>().join("; ")
    }
}

impl Check {
    fn enter(&mut self, state: State) {
        if state != self.state {
            self.state = state;
            self.since = Instant::now();
        }
    }

    fn words(&self, now: Instant) -> String {
        let age = now.duration_since(self.since);
        match (&self.state, &self.condition) {
            (State::Not(what), _) => lasting(what, age),
            (State::Unhealthy(what), _) => lasting(&format!("not healthy: {what}"), age),
            (State::Holds, Condition::Probe) => "it answers its probe".to_owned(),
            (State::Holds, Condition::Http(path)) => format!("200 at `{path}`"),
            (State::Holds, Condition::Tcp) => "its port accepts".to_owned(),
            (State::Holds, Condition::Log(_, pattern)) => format!("log line `{pattern}` seen"),
            (State::Holds, Condition::Command(argv)) => {
                let program = argv.first().map_or("", String::as_str);
                format!("`{program}` returned 0")
            }
        }
    }
}

fn not_asked(condition: &Condition) -> String {
    match condition {
        Condition::Command(argv) => {
            let program = argv.first().map_or("", String::as_str);
            format!("`{program}` was not asked yet")
        }
        _ => "nothing was asked yet".to_owned(),
    }
}

/// Adds how long something lasts: `503 for 40 s`, `it does not accept yet, 12 s`.
pub(super) fn lasting(what: &str, duration: Duration) -> String {
    let age = crate::freshness::age(duration.as_secs());
    if what.ends_with("yet") {
        format!("{what}, {age}")
    } else {
        format!("{what} for {age}")
    }
}

async fn probe(service: &dyn DynService, endpoint: &mut Endpoint) -> Result<State, String> {
    let probe = tokio::time::timeout(QUESTION_LIMIT, service.probe(endpoint)).await;
    match probe {
        Ok(Probe::Ready(facts)) => {
            endpoint.learn(facts);
            Ok(State::Holds)
        }
        Ok(Probe::NotYet(what)) => Ok(State::Not(what)),
        Ok(Probe::Unhealthy(what)) => Ok(State::Unhealthy(what)),
        Ok(Probe::Failed(why)) => Err(why),
        Err(_) => Ok(State::Not("it accepts no request yet".to_owned())),
    }
}

async fn http(service: &dyn DynService, endpoint: &Endpoint, path: &str) -> State {
    let status = tokio::time::timeout(QUESTION_LIMIT, service.http_status(endpoint, path)).await;
    match status {
        Ok(Ok(200)) => State::Holds,
        Ok(Ok(status)) => State::Unhealthy(format!("{status} at `{path}`")),
        Ok(Err(why)) => State::Not(why),
        Err(_) => State::Not(format!("no answer at `{path}` yet")),
    }
}

async fn tcp(endpoint: &Endpoint) -> State {
    let Some((host, port)) = endpoint.address() else {
        return State::Not("it is not known where it listens yet".to_owned());
    };
    let connect = tokio::net::TcpStream::connect((host.as_str(), port));
    match tokio::time::timeout(QUESTION_LIMIT, connect).await {
        Ok(Ok(_)) => State::Holds,
        Ok(Err(_)) | Err(_) => State::Not(format!("port {port} does not accept yet")),
    }
}

fn filled(argv: &[String], endpoint: &Endpoint) -> Vec<String> {
    let port = endpoint
        .address()
        .map_or_else(String::new, |(_, port)| port.to_string());
    let fill = |word: &String| {
        word.replace("{url}", &endpoint.url)
            .replace("{port}", &port)
    };
    argv.iter().map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_reads_as_a_sentence() {
        let forty = Duration::from_secs(40);
        assert_eq!(lasting("503", forty), "503 for 40 s");
        let port = "port 31001 does not accept yet";
        assert_eq!(
            lasting(port, Duration::from_secs(12)),
            format!("{port}, 12 s")
        );
    }

    #[test]
    fn every_condition_is_named_with_its_last_state() {
        let now = Instant::now();
        let check = |condition, state| Check {
            condition,
            state,
            since: now,
        };
        let pattern = Pattern::new("Uvicorn running").unwrap();
        let not_seen = State::Not("log line `Uvicorn running` not seen".to_owned());
        let later = now + Duration::from_secs(12);
        assert_eq!(
            check(
                Condition::Probe,
                State::Unhealthy("503 at `/health`".into())
            )
            .words(later),
            "not healthy: 503 at `/health` for 12 s"
        );
        assert_eq!(
            check(Condition::Tcp, State::Holds).words(later),
            "its port accepts"
        );
        assert_eq!(
            check(Condition::Log(LogWatch::of([]), pattern), not_seen).words(later),
            "log line `Uvicorn running` not seen for 12 s"
        );
    }
}
