//! What a service is: something that is launched once, leased by many steps, probed, reset and
//! torn down. It is not a step, so waiting for it to *finish* cannot be written.
//!
//! A service may stand in front of others: it leases them as a step would. They are launched one
//! after the other before it, handed over to it ([`Service::take_over`]), and go with it.

use crate::graph::NodeId;
use crate::logs::Diagnosis;
use crate::options::{Options, Parser, Walk};
use crate::process::{ProcessSpec, Supervisor};
use crate::step::{Resolved, StepError};
use crate::types::{Artifact, Lease};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a running service answers, and what is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its base address, such as `http://127.0.0.1:34567`.
    pub url: String,
    /// What `${services.NAME.FACT}` may ask for: `url`, `port`, and what the service adds.
    pub facts: BTreeMap<String, String>,
    /// Names this launch for good, among all launches of all runs; empty until it is started.
    pub incarnation: String,
}

impl Endpoint {
    /// Describes a service that answers at `url`, and what else is known of it.
    pub fn new(url: impl Into<String>, facts: BTreeMap<String, String>) -> Self {
        let url = url.into();
        let mut endpoint = Self {
            facts,
            ..Self::default()
        };
        endpoint.learn(BTreeMap::from([("url".to_owned(), url)]));
        endpoint
    }

    /// Adds facts; `url` among them is the address from now on.
    pub fn learn(&mut self, facts: BTreeMap<String, String>) {
        self.facts.extend(facts);
        if let Some(url) = self.facts.get("url") {
            self.url.clone_from(url);
        }
    }

    /// Returns the host and the port that it listens at, as far as they are known.
    pub fn address(&self) -> Option<(String, u16)> {
        let (_, rest) = self.url.split_once("://")?;
        let authority = rest.split('/').next().unwrap_or(rest);
        let (host, port) = authority.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_owned(), port.parse().ok()?))
    }
}

/// What a service sees when it is launched.
pub struct LaunchContext {
    /// The node's name.
    pub node: String,
    /// A folder for the service's own files; kept with the run.
    pub folder: PathBuf,
    /// What the references mean now.
    pub resolved: Resolved,
    /// What it was given of the machine's pools: names of devices, numbers of ports.
    pub claims: BTreeMap<String, Vec<String>>,
}

impl LaunchContext {
    /// Returns the path of an input.
    ///
    /// # Errors
    /// If the engine has not resolved it, which is a fault of the engine.
    pub fn path<K>(&self, artifact: &Artifact<K>) -> Result<PathBuf, StepError> {
        self.resolved.path(artifact)
    }

    /// Returns where a service answers that this one leases.
    ///
    /// # Errors
    /// If it does not serve, which is a fault of the engine.
    pub fn endpoint<K>(&self, lease: &Lease<K>) -> Result<&Endpoint, StepError> {
        self.resolved.endpoint(lease)
    }

    /// Describes the service's process; its command, its environment, what it says and how it
    /// ends are kept in the service's folder.
    pub fn process(
        &self,
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        cwd: &Path,
    ) -> ProcessSpec {
        let mut spec = ProcessSpec::new(self.node.as_str(), argv, env, cwd, &self.folder);
        spec.secrets.clone_from(&self.resolved.secrets);
        spec
    }
}

/// How a service comes to be.
pub enum Launch {
    /// The engine starts a process under a guardian, and ends it.
    Process {
        /// What is started.
        spec: ProcessSpec,
        /// Where it will answer.
        endpoint: Endpoint,
    },
    /// The engine starts several processes, each under a guardian of its own. They live and die together:
    /// when one ends the others are ended. What was claimed of GPUs is shared out evenly among them.
    Processes {
        /// What is started, in this order; each with a label and a folder of its own. The logs of the
        /// first are those of the service.
        specs: Vec<ProcessSpec>,
        /// Where they will answer.
        endpoint: Endpoint,
    },
    /// It runs already, and is left running.
    External {
        /// Where it answers.
        endpoint: Endpoint,
    },
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Not yet; a few words on what is waited for.
    NotYet(String),
    /// It answers, but not that it serves; what it says instead.
    Unhealthy(String),
    /// It serves. Facts are added to the endpoint.
    Ready(BTreeMap<String, String>),
    /// It never will.
    Failed(String),
}

/// A service that can be launched.
#[async_trait::async_trait]
pub trait Service: Send + Sync {
    /// Brings about what a launch needs and nobody keeps for it, such as an environment in a cache; done
    /// before [`launch`](Self::launch). May take long, and is dropped where the service is no longer
    /// wanted.
    ///
    /// # Errors
    /// Why it cannot be brought about; the launch has failed then.
    async fn prepare(
        &self,
        _context: &LaunchContext,
        _supervisor: &Supervisor,
    ) -> Result<(), StepError> {
        Ok(())
    }

    /// Says what to start.
    ///
    /// # Errors
    /// If it cannot be started, such as for a port in use.
    fn launch(&self, context: &LaunchContext) -> Result<Launch, StepError>;

    /// Where it answers, as soon as that is known: of one that chooses by itself, once it has said so.
    fn address(&self, endpoint: &Endpoint) -> Option<String> {
        (!endpoint.url.is_empty()).then(|| endpoint.url.clone())
    }

    /// Asks once whether the service serves; bounded by itself, repeated by the engine.
    async fn probe(&self, endpoint: &Endpoint) -> Probe;

    /// Asks for `path` once and returns the status of the answer; bounded by the engine.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn http_status(&self, _endpoint: &Endpoint, _path: &str) -> Result<u16, String> {
        Err("this kind of service answers no HTTP".to_owned())
    }

    /// The port of this machine that the plan gave it, if it did.
    fn fixed_port(&self) -> Option<u16> {
        None
    }

    /// How many GPUs its options say that it uses, if they say that: what it takes of the machine where the
    /// plan's `resources` do not say otherwise.
    fn gpus(&self) -> Option<u32> {
        None
    }

    /// Names the path that answers with status 200 as long as the service lives, if it has one.
    fn health(&self) -> Option<String> {
        None
    }

    /// Finds out what its log says of a failure, if it says anything that is known.
    fn diagnose(&self, _log: &str) -> Option<Diagnosis> {
        None
    }

    /// A service that this one leases serves now, and nobody has used it: brings it into the state in
    /// which this one expects it, before another is launched.
    ///
    /// # Errors
    /// Why it cannot be brought there; the launch has failed then.
    async fn take_over(&self, _behind: NodeId, _endpoint: &Endpoint) -> Result<(), StepError> {
        Ok(())
    }

    /// Brings it back to a known state between samples, such as an empty cache.
    ///
    /// # Errors
    /// If it could not.
    async fn reset(&self, _endpoint: &Endpoint) -> Result<(), StepError> {
        Ok(())
    }

    /// Verifies, after its processes are gone, that it holds nothing any more: a port, memory of
    /// a device. Asked repeatedly until it returns or the limit passes.
    ///
    /// # Errors
    /// What it still holds.
    async fn released(&self, _endpoint: &Endpoint) -> Result<(), String> {
        Ok(())
    }
}

/// A kind of service: what the library lists.
pub trait ServiceType: Service + Options + 'static {
    /// The name in `use`.
    const NAME: &'static str;
    /// What it serves as: the kind that [`Lease`] options accept.
    const KIND: &'static str;
    /// Raised whenever the same options serve differently.
    const VERSION: u32;
    /// One sentence.
    const SUMMARY: &'static str;
    /// Facts that `${services.NAME.FACT}` may ask for, besides `url`.
    const FACTS: &'static [&'static str] = &[];
    /// How long a launch may take when the plan does not say.
    const READY_TIMEOUT: Duration = Duration::from_secs(600);
    /// Finds problems between options.
    fn check(
        &self,
        _table: &crate::value::Table,
        _place: &crate::source::Place,
        _parser: &mut Parser<'_>,
    ) {
    }
    /// Says what else a measurement depends on, such as a version or a digest of a binary.
    fn identity(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// A [`ServiceType`] whose type is forgotten.
pub trait DynService: Service {
    /// See [`Options::walk`].
    fn walk(&self, walk: &mut dyn Walk);
    /// See [`ServiceType::identity`].
    fn identity(&self) -> Vec<(String, String)>;
}

impl<T: ServiceType> DynService for T {
    fn walk(&self, walk: &mut dyn Walk) {
        Options::walk(self, walk);
    }

    fn identity(&self) -> Vec<(String, String)> {
        ServiceType::identity(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_urls() {
        let address = |url: &str| Endpoint::new(url, BTreeMap::new()).address();
        let local = Some(("127.0.0.1".to_owned(), 31001));
        assert_eq!(address("http://127.0.0.1:31001/v1"), local);
        assert_eq!(address("http://[::1]:80"), Some(("::1".to_owned(), 80)));
        assert_eq!(address("http://host/a:1"), None);
        assert_eq!(address(""), None);
    }
}
