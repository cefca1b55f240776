//! What a step is, and what it sees while it runs.
//!
//! A step is a function from its options to files in a folder; everything else (caching, order,
//! retries, tear-down) is the engine's. Knows no plan text.

use crate::graph::{Link, NodeId};
use crate::loan::{Desks, Loan};
use crate::notes::Notes;
use crate::options::{Options, Parser, Walk};
use crate::process::{Process, ProcessSpec, Supervisor};
use crate::secrets::SecretSource;
use crate::service::Endpoint;
use crate::types::{Artifact, Lease, Origin, Samples, Text, TextPart};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How a step's results may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// A function of its inputs: cached by content.
    Pure,
    /// Brings something from outside that never changes once pinned.
    Fetch,
    /// Draws samples, keyed by recipe and environment.
    Measure,
    /// Acts on one incarnation of a service; never cached.
    Effect,
    /// A function of a set of samples.
    Report,
}

/// Something that a step leaves behind.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct OutputSpec {
    /// Its name in `${steps.STEP.NAME}`.
    pub name: &'static str,
    /// The name of the file or folder in the step's folder.
    pub file: &'static str,
    /// The kind of artifact, see [`ArtifactKind`](crate::types::ArtifactKind).
    pub kind: &'static str,
    /// What it holds.
    pub doc: &'static str,
}

/// How far a measurement can be believed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Nothing speaks against it.
    Valid,
    /// Usable with the reasons in mind.
    Degraded,
    /// Not a result.
    Invalid,
}

impl std::fmt::Display for Grade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Grade::Valid => "valid",
            Grade::Degraded => "degraded",
            Grade::Invalid => "invalid",
        })
    }
}

/// A grade and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// The grade.
    pub grade: Grade,
    /// One sentence each.
    pub reasons: Vec<String>,
}

/// What a step has to say when it is done.
#[derive(Debug, Clone, Default)]
pub struct StepReport {
    /// A short line for the summary, such as `TTFT p50 12 ms`.
    pub summary: Option<String>,
    /// For measurements: how far the sample can be believed.
    pub verdict: Option<Verdict>,
    /// For measurements: the numbers of the summary, so that of several samples their medians can be
    /// shown.
    pub figures: Vec<Figure>,
}

/// One number of a summary, such as `TTFT p50 12 ms`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Figure {
    /// What it is, such as `TTFT p50`; empty where the unit says it.
    pub name: String,
    /// The number; infinite where failures count as such, NaN if there is none.
    #[serde(with = "number_as_text")]
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

/// JSON knows neither infinities nor NaN.
mod number_as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl StepReport {
    /// Builds a report of one line.
    pub fn line(summary: impl Into<String>) -> Self {
        Self {
            summary: Some(summary.into()),
            ..Self::default()
        }
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// What happened: a lowercase phrase.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// The log that tells more, if one was written.
    pub log: Option<PathBuf>,
    /// Whose fault it was, as far as that is known.
    pub class: FailureClass,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The plan's or the step's own.
    Step,
    /// The machine's, the network's or a service's: trying again may help.
    Infrastructure,
    /// It took longer than it was allowed to.
    Timeout,
    /// Somebody stopped the run.
    Interrupted,
}

impl StepError {
    /// Builds an error of the step itself.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
            log: None,
            class: FailureClass::Step,
        }
    }

    /// Builds an error from `what` could not be done and why.
    pub fn because(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::new(format!("{what}: {why}"))
    }

    /// Adds the mend.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Names the log that tells more.
    #[must_use]
    pub fn log(mut self, log: impl Into<PathBuf>) -> Self {
        self.log = Some(log.into());
        self
    }

    /// Says whose fault it was.
    #[must_use]
    pub fn class(mut self, class: FailureClass) -> Self {
        self.class = class;
        self
    }
}

/// A step that can run.
#[async_trait::async_trait]
pub trait Step: Send + Sync {
    /// Does the work: writes every declared output, see [`StepContext::output`].
    ///
    /// # Errors
    /// Why it could not be done; what was written is thrown away then.
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError>;
}

/// A kind of step: what the library lists.
pub trait StepType: Step + Options + 'static {
    /// The name in `use`.
    const NAME: &'static str;
    /// How its results may be used again.
    const KIND: StepKind;
    /// Raised whenever the same options bring a different result.
    const VERSION: u32;
    /// One sentence.
    const SUMMARY: &'static str;
    /// Whether its result shows the plan itself, so that a changed plan makes it stale.
    const READS_PLAN: bool = false;
    /// What it leaves behind.
    fn outputs() -> &'static [OutputSpec];
    /// Finds problems between options; each option alone is sound already.
    fn check(
        &self,
        _table: &crate::value::Table,
        _place: &crate::source::Place,
        _parser: &mut Parser<'_>,
    ) {
    }
    /// Says what else the result depends on besides the options, such as a digest of a binary.
    fn identity(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// A [`StepType`] whose type is forgotten.
pub trait DynStep: Step {
    /// See [`Options::walk`].
    fn walk(&self, walk: &mut dyn Walk);
    /// See [`StepType::identity`].
    fn identity(&self) -> Vec<(String, String)>;
}

impl<T: StepType> DynStep for T {
    fn walk(&self, walk: &mut dyn Walk) {
        Options::walk(self, walk);
    }

    fn identity(&self) -> Vec<(String, String)> {
        StepType::identity(self)
    }
}

/// One sample of a measurement, as a step that reads samples sees it.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The measurement's name, such as `load[request_rate=4]`.
    pub node: String,
    /// The values of its axes, in the order of the plan.
    pub axes: Vec<(String, AxisValue)>,
    /// Which sample of its set, from 0.
    pub index: u32,
    /// How far it can be believed.
    pub verdict: Verdict,
    /// When it was drawn, seconds since 1970.
    pub drawn_at: u64,
    /// Its outputs by name.
    pub outputs: BTreeMap<String, PathBuf>,
}

/// A value of an axis.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum AxisValue {
    /// `true` or `false`.
    Bool(bool),
    /// A number; equal numbers are one value however they are written.
    Number(f64),
    /// Text.
    Text(String),
}

impl std::fmt::Display for AxisValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AxisValue::Bool(b) => write!(f, "{b}"),
            AxisValue::Number(n) => f.write_str(&crate::types::number_text(*n)),
            AxisValue::Text(t) if is_ambiguous(t) => write!(f, "{t:?}"),
            AxisValue::Text(t) => f.write_str(t),
        }
    }
}

/// Whether a text, as it is, could be taken for another value or for more than one value of a name.
fn is_ambiguous(text: &str) -> bool {
    let reads_otherwise = text.parse::<bool>().is_ok() || text.parse::<f64>().is_ok();
    text.is_empty() || reads_otherwise || text.contains(['"', ',', '=', '[', ']'])
}

/// What a step is doing right now.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// A few words.
    pub doing: String,
    /// How much is done and of how much, if the total is known.
    pub done: Option<(u64, u64)>,
}

/// The plan as it ran, for steps that show it.
#[derive(Debug, Clone)]
pub struct PlanText {
    /// The plan's name.
    pub name: String,
    /// The plan's description.
    pub description: String,
    /// Files with their texts.
    pub sources: Vec<(PathBuf, String)>,
    /// The parameters with their values and where those come from.
    pub params: Vec<(String, String, bool)>,
}

/// What the engine looks up for a running step.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// Paths of outputs by node and output name.
    pub outputs: BTreeMap<(NodeId, String), PathBuf>,
    /// Samples by node.
    pub samples: BTreeMap<NodeId, Vec<Sample>>,
    /// Addresses of leased services by node.
    pub endpoints: BTreeMap<NodeId, Endpoint>,
    /// Values of all secrets that the options mention: not to be written to any file.
    pub secrets: Vec<String>,
}

impl Resolved {
    /// Returns the path of an input.
    ///
    /// # Errors
    /// If the engine has not resolved it, which is a fault of the engine.
    pub fn path<K>(&self, artifact: &Artifact<K>) -> Result<PathBuf, StepError> {
        match &artifact.origin {
            Origin::Path(path) => Ok(path.clone()),
            Origin::Link(link) => self.output(link),
        }
    }

    /// Returns where a leased service answers.
    pub(crate) fn endpoint<K>(&self, lease: &Lease<K>) -> Result<&Endpoint, StepError> {
        let endpoint = self.endpoints.get(&lease.node);
        endpoint.ok_or_else(|| StepError::new("the service is not leased"))
    }

    /// Returns the path that a link to an output means; an error is a fault of the engine.
    fn output(&self, link: &Link) -> Result<PathBuf, StepError> {
        if let Link::Output { node, output } = link
            && let Some(path) = self.outputs.get(&(*node, output.clone()))
        {
            return Ok(path.clone());
        }
        Err(StepError::new(format!(
            "the engine did not resolve {link:?}"
        )))
    }

    /// Notes the values of the secrets that options mention; `walk` goes through those.
    pub(crate) fn note_secrets(&mut self, walk: impl FnOnce(&mut dyn Walk)) {
        let mut names = SecretWalk::default();
        walk(&mut names);
        // One that is not set fails where it is used.
        self.secrets = names
            .0
            .iter()
            .filter_map(|(name, source)| read_secret(name, source).ok())
            .collect();
    }
}

/// Collects secrets and where they come from.
#[derive(Default)]
struct SecretWalk(Vec<(String, SecretSource)>);

impl Walk for SecretWalk {
    fn value(&mut self, _: &str, _: &str) {}

    fn link(&mut self, _: &str, link: &Link) {
        if let Link::Secret { name, source } = link {
            self.0.push((name.clone(), source.clone()));
        }
    }

    fn file(&mut self, _: &str, _: &Path) {}
}

/// What a step sees while it runs.
pub struct StepContext {
    /// The node's name, such as `load[request_rate=4]`.
    pub node: String,
    /// The values of its axes.
    pub axes: Vec<(String, AxisValue)>,
    /// Which sample is drawn, from 0.
    pub sample: u32,
    /// The folder for outputs: one entry per declared output.
    pub folder: PathBuf,
    /// The folder for logs, kept also when the step fails.
    pub logs: PathBuf,
    /// What the references mean now.
    pub resolved: Resolved,
    /// Facts about this machine.
    pub environment: Arc<crate::environment::Environment>,
    /// What is kept beyond this run.
    pub notes: Notes,
    /// The plan.
    pub plan: Arc<PlanText>,
    /// What it was given of the machine's pools: names of devices, numbers of ports.
    pub claims: BTreeMap<String, Vec<String>>,
    /// Starts processes that cannot outlive the engine.
    pub supervisor: Supervisor,
    /// Where leased services are asked for.
    pub desks: Desks,
    /// Where progress goes.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
    /// Becomes true when the step should stop.
    pub cancel: tokio::sync::watch::Receiver<bool>,
}

impl StepContext {
    /// Returns the path of a file or folder among the outputs, see [`OutputSpec::file`].
    pub fn output(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Returns the path of an input.
    ///
    /// # Errors
    /// If the engine has not resolved it, which is a fault of the engine.
    pub fn path<K>(&self, artifact: &Artifact<K>) -> Result<PathBuf, StepError> {
        self.resolved.path(artifact)
    }

    /// Returns where a leased service answers.
    ///
    /// # Errors
    /// If the engine has not resolved it, which is a fault of the engine.
    pub fn endpoint<K>(&self, lease: &Lease<K>) -> Result<&Endpoint, StepError> {
        self.resolved.endpoint(lease)
    }

    /// Has a leased service for itself, to end it and to launch it anew. It has to be alone on the machine, as
    /// a measurement is.
    ///
    /// # Errors
    /// If the service is gone.
    pub async fn borrow<K>(&self, lease: &Lease<K>) -> Result<Loan, StepError> {
        self.desks.borrow(lease.node).await
    }

    /// Returns all samples of a measurement, by instance and then by index.
    pub fn samples<K>(&self, samples: &Samples<K>) -> Vec<Sample> {
        samples
            .nodes
            .iter()
            .filter_map(|n| self.resolved.samples.get(n))
            .flatten()
            .cloned()
            .collect()
    }

    /// Puts a text with references together.
    ///
    /// # Errors
    /// If a reference cannot be written as text, or a secret is not set.
    pub fn text(&self, text: &Text) -> Result<String, StepError> {
        Self::resolve_text(&self.resolved, text)
    }

    /// Puts a text with references together from what is resolved.
    ///
    /// # Errors
    /// If a reference cannot be written as text, or a secret is not set.
    pub fn resolve_text(resolved: &Resolved, text: &Text) -> Result<String, StepError> {
        let write = |part: &TextPart| match part {
            TextPart::Plain(plain) => Ok(plain.clone()),
            TextPart::Link(link) => link_text(resolved, link),
            TextPart::Number(link) => link_number(resolved, link),
        };
        text.parts.iter().map(write).collect()
    }

    /// Says what the step is doing.
    pub fn doing(&self, doing: impl Into<String>) {
        (self.progress)(Progress {
            doing: doing.into(),
            done: None,
        });
    }

    /// Says what the step is doing and how far it is.
    pub fn done(&self, doing: impl Into<String>, done: u64, total: u64) {
        (self.progress)(Progress {
            doing: doing.into(),
            done: Some((done, total)),
        });
    }

    /// Whether the step should stop.
    pub fn is_cancelled(&self) -> bool {
        *self.cancel.borrow()
    }

    /// Waits until the step should stop.
    pub async fn cancelled(&self) {
        let mut cancel = self.cancel.clone();
        // An error means that the engine is gone: a reason to stop too.
        let _ = cancel.wait_for(|stop| *stop).await;
    }

    /// Starts a process that ends with the step. Its command, its environment, what it says and
    /// how it ends are kept in the step's folder of logs.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub async fn spawn(
        &self,
        argv: Vec<String>,
        mut env: BTreeMap<String, String>,
        cwd: &Path,
    ) -> Result<Process, StepError> {
        crate::claims::show_devices(&self.claims, &mut env);
        let mut spec = ProcessSpec::new(self.node.as_str(), argv, env, cwd, &self.logs);
        spec.secrets.clone_from(&self.resolved.secrets);
        self.supervisor
            .start(spec)
            .await
            .map_err(|e| StepError::new(e.to_string()))
    }
}

fn link_text(resolved: &Resolved, link: &Link) -> Result<String, StepError> {
    match link {
        Link::Output { .. } => Ok(resolved.output(link)?.display().to_string()),
        Link::Fact { node, fact } => {
            let endpoint = resolved
                .endpoints
                .get(node)
                .ok_or_else(|| StepError::new("the service is not leased"))?;
            let value = endpoint.facts.get(fact).cloned();
            value.ok_or_else(|| StepError::new(format!("the service has no `{fact}`")))
        }
        Link::Secret { name, source } => read_secret(name, source),
        Link::Service { .. } | Link::All { .. } => Err(StepError::new(
            "a service or a set of samples cannot be written as text",
        )),
    }
}

/// The number that an output holds, as it stands there.
fn link_number(resolved: &Resolved, link: &Link) -> Result<String, StepError> {
    let path = resolved.output(link)?;
    let unreadable = |why: String| {
        StepError::new(format!(
            "could not read a number from `{}`: {why}",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(&path).map_err(|e| unreadable(e.to_string()))?;
    let number = text.trim();
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(number.to_owned()),
        _ => Err(unreadable("it holds none".to_owned())),
    }
}

/// Reads a secret where it comes from.
///
/// # Errors
/// If it is not set, or its file cannot be read.
pub fn read_secret(name: &str, source: &SecretSource) -> Result<String, StepError> {
    crate::secrets::read(name, source)
        .map_err(|error| StepError::new(error.to_string()).help(error.help(name)))
}

/// How long a step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout {
    /// The whole run.
    pub run: Duration,
    /// Without any progress.
    pub idle: Option<Duration>,
}
