//! What is known of every node so far, and what that leaves to do for the next one.
//!
//! The run and `check` both ask here, so that what is announced is what happens.

use crate::environment::Environment;
use crate::freshness::{self, ActionRecord, Found, Freshness, Wanted, Wish};
use crate::graph::{Edge, Graph, NodeId};
use crate::hits::{Hit, Hits};
use crate::key::{Keys, Known, Manifest};
use crate::past::{self, Memory};
use crate::policy::Sampling;
use crate::samples::{SampleRecord, SampleSet};
use crate::schedule::Decision;
use crate::step::{PlanText, Resolved, Sample, StepKind};
use crate::store::{ArtifactRef, Digest, Store, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many nodes are worth a thread of their own.
const WORTH_A_THREAD: usize = 256;
/// The most threads that look at nodes: what they wait for is the file system.
const MOST_THREADS: usize = 8;

/// Finds out whether another run has brought a result.
pub type Recheck = Box<dyn Fn() -> Result<bool, StoreError> + Send + Sync>;

/// What is known of every node.
pub struct Ledger {
    graph: Arc<Graph>,
    store: Arc<Store>,
    environment: Arc<Environment>,
    plan: Arc<PlanText>,
    plan_digest: Digest,
    wish: Wish,
    known: Known,
    /// The digests of the known manifests.
    keys: BTreeMap<NodeId, Digest>,
    artifacts: BTreeMap<(NodeId, String), ArtifactRef>,
    samples: BTreeMap<NodeId, SampleSet>,
    hits: Hits,
    /// What was looked at and is not decided yet.
    ahead: BTreeMap<NodeId, Looked>,
}

/// What a look at a node shows, before anything follows from it.
struct Looked {
    manifest: Manifest,
    key: Digest,
    /// The result that the last runs found, if it is still there.
    hit: Option<Hit>,
}

impl Ledger {
    /// Builds a ledger that knows nothing yet; `wish` says whether earlier samples suffice.
    pub fn new(
        graph: Arc<Graph>,
        store: Arc<Store>,
        environment: Arc<Environment>,
        plan: Arc<PlanText>,
        wish: Wish,
    ) -> Self {
        let plan_digest = digest_plan(&plan);
        let hits = Hits::load(&store, &plan.name);
        Self {
            graph,
            store,
            environment,
            plan,
            plan_digest,
            wish,
            known: Known::default(),
            keys: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            samples: BTreeMap::new(),
            hits,
            ahead: BTreeMap::new(),
        }
    }

    /// Keeps what makes the next run of the plan quick.
    ///
    /// # Errors
    /// If the store cannot be written; what is lost thereby is time.
    pub fn save_hits(&mut self) -> Result<(), StoreError> {
        self.hits.save()
    }

    /// Returns the digest of the plan's texts and parameters.
    pub fn plan_digest(&self) -> &Digest {
        &self.plan_digest
    }

    /// Returns the key of a node that was decided: the digest of its manifest.
    pub fn key(&self, node: NodeId) -> Option<Digest> {
        self.keys.get(&node).copied()
    }

    /// Returns the manifest of a node that was decided.
    pub fn manifest(&self, node: NodeId) -> Option<&Manifest> {
        self.known.manifests.get(&node)
    }

    /// Returns the samples that the result of a measurement rests on, once it was decided.
    pub fn samples(&self, node: NodeId) -> Option<SampleSet> {
        let target = self.graph.step(node)?.target();
        Some(self.samples.get(&node)?.current(target))
    }

    /// Returns one output of a step that is done.
    pub fn artifact(&self, node: NodeId, output: &str) -> Option<&ArtifactRef> {
        self.artifacts.get(&(node, output.to_owned()))
    }

    /// Looks at `nodes`, of which everything that they need must be done, several at a time; each
    /// of them is to be decided next, before anything else happens.
    pub fn look_ahead(&mut self, nodes: &[NodeId]) {
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let n_threads = n_threads
            .min(nodes.len() / WORTH_A_THREAD)
            .min(MOST_THREADS);
        if n_threads < 2 {
            return;
        }
        let this = &*self;
        // Only a gain of time: what is not found here is looked at when it is decided, and if that
        // fails it fails there.
        let look = |part: &[NodeId]| -> Vec<(NodeId, Looked)> {
            let looked = part
                .iter()
                .map(|node| Some((*node, this.look(*node).ok()?)));
            looked.flatten().collect()
        };
        let found: Vec<Vec<(NodeId, Looked)>> = std::thread::scope(|scope| {
            let parts = nodes.chunks(nodes.len().div_ceil(n_threads));
            let threads: Vec<_> = parts.map(|part| scope.spawn(move || look(part))).collect();
            let ends = threads.into_iter().map(|thread| thread.join());
            ends.map(Result::unwrap_or_default).collect()
        });
        self.ahead = found.into_iter().flatten().collect();
    }

    /// Whether deciding `node` takes no time any more.
    pub fn has_looked_at(&self, node: NodeId) -> bool {
        self.ahead.contains_key(&node)
    }

    /// Changes nothing, so that several nodes can be looked at side by side.
    fn look(&self, node: NodeId) -> Result<Looked, StoreError> {
        let keys = Keys {
            graph: &self.graph,
            store: &self.store,
            environment: &self.environment,
            known: &self.known,
            plan: &self.plan_digest,
        };
        let manifest = keys.manifest(node)?;
        let key = manifest.digest();
        let hit = match self.graph.step_kind(node) {
            Some(StepKind::Pure | StepKind::Fetch | StepKind::Report) => self.hits.get(&key),
            Some(StepKind::Effect | StepKind::Measure) | None => None,
        };
        Ok(Looked { manifest, key, hit })
    }

    /// Finds out what is left to do for `node`; everything that it needs must be done.
    ///
    /// # Errors
    /// If an input or the store cannot be read.
    pub fn decide(&mut self, node: NodeId) -> Result<(Freshness, Decision), StoreError> {
        let Looked { manifest, key, hit } = match self.ahead.remove(&node) {
            Some(looked) => looked,
            None => self.look(node)?,
        };
        let decided = match self.graph.step_kind(node) {
            None => (Freshness::Service, Decision::Known),
            Some(StepKind::Effect) => (Freshness::OnDemand, Decision::OnDemand),
            Some(StepKind::Measure) => self.decide_measurement(node, &manifest)?,
            Some(StepKind::Pure | StepKind::Fetch | StepKind::Report) => match hit {
                Some(hit) => self.take_hit(node, hit),
                None => self.decide_action(node, &manifest, key)?,
            },
        };
        self.known.manifests.insert(node, manifest);
        self.keys.insert(node, key);
        Ok(decided)
    }

    fn take_hit(&mut self, node: NodeId, hit: Hit) -> (Freshness, Decision) {
        self.take_outputs(node, hit.outputs);
        (freshness::reused(hit.finished_at), Decision::Satisfied)
    }

    fn decide_action(
        &mut self,
        node: NodeId,
        manifest: &Manifest,
        key: Digest,
    ) -> Result<(Freshness, Decision), StoreError> {
        let found = freshness::look_up_action(
            &self.store,
            &self.graph.name(node),
            &self.plan.name,
            manifest,
        )?;
        if let Some(record) = found.record {
            self.hits.learn(key, &record);
            self.take_outputs(node, record.outputs);
            return Ok((found.freshness, Decision::Satisfied));
        }
        Ok((found.freshness, Decision::Run { times: 1, first: 0 }))
    }

    fn decide_measurement(
        &mut self,
        node: NodeId,
        manifest: &Manifest,
    ) -> Result<(Freshness, Decision), StoreError> {
        let Some(step) = self.graph.step(node) else {
            return Ok((Freshness::Service, Decision::Known));
        };
        let wanted = self.wanted(step.policy.samples);
        let Found {
            freshness, samples, ..
        } = freshness::look_up_samples(
            &self.store,
            &self.graph.name(node),
            &self.plan.name,
            manifest,
            &wanted,
        )?;
        let have = u32::try_from(samples.records.len()).unwrap_or(u32::MAX);
        let missing = wanted.missing(&samples);
        self.take_samples(node, samples);
        Ok((
            freshness,
            Decision::Run {
                times: missing,
                first: have,
            },
        ))
    }

    fn wanted(&self, sampling: Sampling) -> Wanted<'_> {
        Wanted {
            sampling,
            wish: &self.wish,
            boot_id: &self.environment.boot_id,
        }
    }

    /// Remembers how long a launch of a service took.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn keep_launch(&self, service: NodeId, took_ms: u64) -> Result<(), StoreError> {
        match self.known.manifests.get(&service) {
            Some(manifest) => past::remember(
                &self.store,
                &self.plan.name,
                &self.graph.name(service),
                manifest,
                took_ms,
            ),
            None => Ok(()),
        }
    }

    /// Returns what is remembered of a node: what it was, and how long its runs took.
    pub fn memory(&self, node: NodeId) -> Option<Memory> {
        past::recall(&self.store, &self.plan.name, &self.graph.name(node))
    }

    /// Returns how many samples a measurement still lacks, once it was decided.
    pub fn missing(&self, node: NodeId) -> u32 {
        let sampling = self.graph.step(node).map(|s| s.policy.samples);
        match (sampling, self.samples.get(&node)) {
            (Some(sampling), Some(set)) => self.wanted(sampling).missing(set),
            _ => 0,
        }
    }

    /// Returns what the result of a decided step is kept by, and a way to find out later, from any
    /// thread, whether another run has brought it; `None` for what is never kept.
    pub fn recheck(&self, node: NodeId) -> Option<(Digest, Recheck)> {
        let step = self.graph.step(node)?;
        let (key, store) = (self.key(node)?, self.store.clone());
        match step.entry.kind {
            StepKind::Effect => None,
            StepKind::Measure => {
                let (sampling, wish) = (step.policy.samples, self.wish.clone());
                let boot_id = self.environment.boot_id.clone();
                let is_done = move || {
                    let wanted = Wanted {
                        sampling,
                        wish: &wish,
                        boot_id: &boot_id,
                    };
                    let set = SampleSet::load(&store, &key, sampling.max_age)?;
                    Ok(wanted.missing(&set) == 0)
                };
                Some((key, Box::new(is_done)))
            }
            StepKind::Pure | StepKind::Fetch | StepKind::Report => {
                let is_done = move || Ok(freshness::find_action(&store, &key).is_some());
                Some((key, Box::new(is_done)))
            }
        }
    }

    /// Takes in the result of a step and keeps it for later runs.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn keep_action(
        &mut self,
        node: NodeId,
        outputs: BTreeMap<String, ArtifactRef>,
        took_ms: u64,
        summary: Option<String>,
    ) -> Result<(), StoreError> {
        let Some(manifest) = self.known.manifests.get(&node) else {
            return Ok(());
        };
        let record = ActionRecord {
            manifest: manifest.clone(),
            outputs: outputs.clone(),
            finished_at: crate::samples::now_s(),
            took_ms,
            summary,
        };
        let value = serde_json::to_value(&record).unwrap_or_default();
        self.store
            .put_record("actions", &manifest.digest().to_string(), &value)?;
        self.hits.learn(manifest.digest(), &record);
        past::remember(
            &self.store,
            &self.plan.name,
            &self.graph.name(node),
            manifest,
            took_ms,
        )?;
        self.take_outputs(node, outputs);
        Ok(())
    }

    /// Takes in the result of a step that no later run may use, because what it rests on was `changed`
    /// while it ran; warns of that.
    pub fn take_unkept(
        &mut self,
        node: NodeId,
        outputs: BTreeMap<String, ArtifactRef>,
        changed: &str,
    ) {
        let node_name = self.graph.name(node);
        self.store.warn(format!(
            "the result of `{node_name}` is not kept for later runs: `{changed}` was changed while it ran"
        ));
        self.take_outputs(node, outputs);
    }

    /// Names what a step that has just ended depends on and that is not what it was when the step was
    /// decided: a file that was edited meanwhile.
    pub fn changed_meanwhile(&self, node: NodeId) -> Option<String> {
        let then = self.known.manifests.get(&node)?;
        match self.look(node) {
            Ok(now) if Some(now.key) == self.key(node) => None,
            Ok(now) => {
                let changes = now.manifest.changes_since(then);
                changes.into_iter().next().map(|change| change.field)
            }
            Err(error) => Some(error.to_string()),
        }
    }

    /// Takes in a sample and keeps it for later runs.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn keep_sample(&mut self, node: NodeId, record: SampleRecord) -> Result<(), StoreError> {
        let Some(manifest) = self.known.manifests.get(&node) else {
            return Ok(());
        };
        past::keep_class(&self.store, manifest)?;
        SampleSet::keep(&self.store, &manifest.digest(), &record)?;
        past::remember(
            &self.store,
            &self.plan.name,
            &self.graph.name(node),
            manifest,
            record.took_ms,
        )?;
        // Another run may have drawn samples of the same class meanwhile.
        let max_age = self.graph.step(node).and_then(|s| s.policy.samples.max_age);
        let set = SampleSet::load(&self.store, &manifest.digest(), max_age)?;
        self.take_samples(node, set);
        Ok(())
    }

    fn take_outputs(&mut self, node: NodeId, outputs: BTreeMap<String, ArtifactRef>) {
        for (name, output) in outputs {
            self.known
                .outputs
                .insert((node, name.clone()), output.digest);
            self.artifacts.insert((node, name), output);
        }
    }

    fn take_samples(&mut self, node: NodeId, set: SampleSet) {
        self.samples.insert(node, set);
        if let Some(current) = self.samples(node) {
            self.known.samples.insert(node, current.digest());
        }
    }

    /// Returns what the references of `node` mean now, but for the addresses of services.
    pub fn resolved(&self, node: NodeId) -> Resolved {
        let mut resolved = Resolved::default();
        let incoming = self.graph.incoming(node);
        for (from, _) in incoming.filter(|(_, e)| matches!(e, Edge::Needs | Edge::Reads)) {
            for ((owner, output), artifact) in self.artifacts.range((from, String::new())..) {
                if *owner != from {
                    break;
                }
                resolved
                    .outputs
                    .insert((from, output.clone()), self.store.path(artifact));
            }
            if let Some(set) = self.samples(from) {
                resolved.samples.insert(from, self.sample_views(from, &set));
            }
        }
        resolved
    }

    fn sample_views(&self, node: NodeId, set: &SampleSet) -> Vec<Sample> {
        let name = &self.graph.node(node).name;
        let view = |(i, record): (usize, &SampleRecord)| Sample {
            node: name.to_string(),
            axes: name.axes.values(),
            index: u32::try_from(i).unwrap_or(u32::MAX),
            verdict: record.verdict.clone(),
            drawn_at: record.drawn_at,
            outputs: record
                .outputs
                .iter()
                .map(|(k, v)| (k.clone(), self.store.path(v)))
                .collect(),
        };
        set.records.iter().enumerate().map(view).collect()
    }

    /// Says for every node what a run would do, without doing anything.
    ///
    /// # Errors
    /// If an input or the store cannot be read.
    pub fn assess(&mut self) -> Result<Vec<(NodeId, Freshness)>, StoreError> {
        let graph = self.graph.clone();
        let mut settled: BTreeMap<NodeId, bool> = BTreeMap::new();
        let mut found = Vec::new();
        for node in graph.order() {
            let open = graph.incoming(*node).find(|(from, edge)| match edge {
                Edge::Needs | Edge::Reads => !settled.get(from).copied().unwrap_or(false),
                Edge::Leases => !self.known.manifests.contains_key(from),
                Edge::After => {
                    graph.step_kind(*from) == Some(StepKind::Effect)
                        && !self.known.manifests.contains_key(from)
                }
            });
            let freshness = match open {
                Some((from, _)) => Freshness::Undecided {
                    waits_for: self.first_cause(from, &found),
                },
                None => self.decide(*node)?.0,
            };
            settled.insert(*node, matches!(freshness, Freshness::Reused { .. }));
            found.push((*node, freshness));
        }
        Ok(found)
    }

    /// Names the node that really runs, rather than one that waits for it itself.
    fn first_cause(&self, from: NodeId, found: &[(NodeId, Freshness)]) -> String {
        match found.iter().find(|(node, _)| *node == from) {
            Some((_, Freshness::Undecided { waits_for })) => waits_for.clone(),
            _ => self.graph.name(from),
        }
    }
}

fn digest_plan(plan: &PlanText) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (_, text) in &plan.sources {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    for (name, value, _) in &plan.params {
        hasher.update(format!("{name}={value}\n").as_bytes());
    }
    Digest::from(hasher.finalize())
}
