//! From a plan to its sealed graph: parameters set, axes multiplied out, references linked,
//! options read by the library. Finds every problem at once.
//!
//! Order of work: `params` → declarations in order of what they mention → instances → options.

mod axes;
mod linker;

use crate::graph::{
    Body, Graph, Link, Node, NodeId, NodeName, ServiceNode, StepNode, stable_order,
};
use crate::interpolate::{self, Mentions, Scope};
use crate::library::{Library, ServiceEntry, StepEntry};
use crate::options::{Options, Parser, Walk};
use crate::params::{self, ParamValue, Settings};
use crate::plan::{NodeDecl, NodeSort, Plan, SettingsDecl};
use crate::policy::{
    Demand, LIVENESS_EVERY, LIVENESS_FAILURES, LIVENESS_TIMEOUT, Liveness, Machine, Policy,
    REPLACEMENTS, RESTARTS, RUN_TIMEOUT, Readiness, Sampling, ServicePolicy,
};
use crate::problem::{Problem, Problems, did_you_mean};
use crate::source::Sources;
use crate::step::{PlanText, StepKind, Timeout};
use crate::types::Pattern;
use crate::value::{Kind, Table, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axes::{Axes, agree, axis_value};
use linker::{Declared, Entry, Instance, InstanceLinker};

crate::options! {
    /// The `samples` of a measurement.
    pub struct SamplesOptions {
        /// Samples wanted.
        target: NonZeroU32 = NonZeroU32::MIN;
        /// Older samples do not count.
        max_age: Option<Duration>;
    }
}

crate::options! {
    /// The `timeout` of a step.
    pub struct TimeoutOptions {
        /// The longest that it may take.
        run: Duration = RUN_TIMEOUT;
        /// The longest that it may say nothing.
        idle: Option<Duration>;
    }
}

crate::options! {
    /// The `ready` of a service.
    pub struct ReadyOptions {
        /// The longest that a launch may take; the kind of service says if absent.
        timeout: Option<Duration>;
        /// A path that must answer with status 200, besides the one that its kind asks.
        http: Option<String>;
        /// Whether its port must accept connections.
        tcp: bool = false;
        /// What its log must have said: text, or a regular expression between slashes.
        log: Option<Pattern>;
        /// A program and its arguments that must return status 0. `{url}` and `{port}` stand for
        /// where the service answers.
        command: Vec<String> = Vec::new();
    }
}

crate::options! {
    /// The `liveness` of a service.
    pub struct LivenessOptions {
        /// Whether a service that hangs is taken for dead, ended and launched again.
        enabled: bool = true;
        /// The path that must answer with status 200; the one that its kind asks if absent.
        http: Option<String>;
        /// The pause between two questions.
        every: Duration = LIVENESS_EVERY;
        /// The longest that an answer may take.
        timeout: Duration = LIVENESS_TIMEOUT;
        /// How many questions in a row must fail.
        failures: NonZeroU32 = LIVENESS_FAILURES;
    }
}

/// A plan that is sound.
pub struct Expanded {
    /// Its name.
    pub name: String,
    /// Every instance.
    pub graph: Arc<Graph>,
    /// What steps that show the plan see.
    pub text: Arc<PlanText>,
}

/// Reads, checks and expands the plan at `path`.
///
/// # Errors
/// Every problem that was found, sorted by place; `sources` holds the texts they point into.
pub fn load(
    path: &Path,
    settings: &Settings,
    library: &Library,
    sources: &mut Sources,
) -> Result<Expanded, Vec<Problem>> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let problem = Problem::whole(format!("could not read the plan `{}`: {e}", path.display()));
        vec![problem.help("give the path of a plan file, such as `plans/quickstart.toml`")]
    })?;
    expand(path, text, settings, library, sources)
}

/// Checks and expands the plan `text`, which lies or lay at `path`.
///
/// # Errors
/// Every problem that was found, sorted by place; `sources` holds the texts they point into.
pub fn expand(
    path: &Path,
    text: String,
    settings: &Settings,
    library: &Library,
    sources: &mut Sources,
) -> Result<Expanded, Vec<Problem>> {
    let source = sources.add(path, text);
    let mut problems = Problems::default();
    let root = crate::value::parse(sources, source, &mut problems);
    let broken = broken_lines(&problems, sources);
    let plan = Plan::read(source, &root, &mut problems);
    let params = params::resolve(&plan, settings, sources, &mut problems);
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let nodes = Expansion::new(&plan, &params, library, sources, &mut problems).nodes(&folder);
    if !problems.is_empty() {
        return Err(once_per_broken_line(
            problems.into_sorted(),
            &broken,
            sources,
        ));
    }
    let graph = Graph::seal(nodes).map_err(|cycle| vec![Problem::whole(cycle.to_string())])?;
    let text = PlanText {
        name: plan.name.clone(),
        description: plan.description.clone(),
        sources: vec![(path.to_owned(), sources.get(source).text.clone())],
        params: plan
            .params
            .iter()
            .filter_map(|p| {
                params
                    .get(&p.key.name)
                    .map(|v| (p.key.name.clone(), v.value.to_line(), v.set))
            })
            .collect(),
    };
    Ok(Expanded {
        name: plan.name,
        graph: Arc::new(graph),
        text: Arc::new(text),
    })
}

/// Lines that are not TOML.
fn broken_lines(problems: &Problems, sources: &Sources) -> BTreeSet<usize> {
    problems
        .clone()
        .into_sorted()
        .iter()
        .filter_map(|p| line_of(p, sources))
        .collect()
}

fn line_of(problem: &Problem, sources: &Sources) -> Option<usize> {
    problem
        .place
        .as_ref()
        .map(|(place, _)| sources.line_column(place).0)
}

/// Keeps the first problem of each line that is not TOML: whatever else is wrong there follows.
fn once_per_broken_line(
    problems: Vec<Problem>,
    broken: &BTreeSet<usize>,
    sources: &Sources,
) -> Vec<Problem> {
    let mut told = BTreeSet::new();
    let is_news = |p: &Problem| {
        line_of(p, sources).is_none_or(|line| !broken.contains(&line) || told.insert(line))
    };
    problems.into_iter().filter(is_news).collect()
}

struct Expansion<'a> {
    plan: &'a Plan,
    library: &'a Library,
    sources: &'a Sources,
    problems: &'a mut Problems,
    scope: Scope,
    axes: Axes,
    declared: BTreeMap<(bool, String), Declared>,
    n_nodes: u32,
}

impl<'a> Expansion<'a> {
    fn new(
        plan: &'a Plan,
        params: &BTreeMap<String, ParamValue>,
        library: &'a Library,
        sources: &'a Sources,
        problems: &'a mut Problems,
    ) -> Self {
        let named = |sort| {
            plan.nodes
                .iter()
                .filter(move |n| n.sort == sort)
                .map(|n| n.key.name.clone())
                .collect()
        };
        let scope = Scope {
            params: params
                .iter()
                .map(|(k, v)| (k.clone(), v.value.clone()))
                .collect(),
            broken: plan.broken_params.clone(),
            axes: None,
            steps: named(NodeSort::Step),
            services: named(NodeSort::Service),
        };
        let axes = Axes::read(plan, &scope, sources, problems);
        Self {
            plan,
            library,
            sources,
            problems,
            scope,
            axes,
            declared: BTreeMap::new(),
            n_nodes: 0,
        }
    }

    /// Expands every declaration; the folder is where paths are searched from.
    fn nodes(mut self, folder: &Path) -> Vec<Node> {
        let mentions: Vec<Mentions> = self
            .plan
            .nodes
            .iter()
            .map(|n| interpolate::mentions(&n.with, self.sources))
            .collect();
        let Some(order) = self.order(&mentions) else {
            return Vec::new();
        };
        for at in &order {
            self.declare(*at, &mentions[*at]);
        }
        let mut nodes = Vec::new();
        for at in &order {
            let decl = &self.plan.nodes[*at];
            let key = (decl.sort == NodeSort::Service, decl.key.name.clone());
            let count = self.declared.get(&key).map_or(0, |d| d.instances.len());
            for i in 0..count {
                nodes.extend(self.instance(decl, &key, i, folder));
            }
        }
        nodes
    }

    /// Orders declarations so that each follows what it mentions; a cycle is a problem.
    fn order(&mut self, mentions: &[Mentions]) -> Option<Vec<usize>> {
        let at = |sort: NodeSort, name: &str| {
            self.plan
                .nodes
                .iter()
                .position(|n| n.sort == sort && n.key.name == name)
        };
        let mut graph = petgraph::graph::DiGraph::<usize, ()>::new();
        let ids: Vec<_> = (0..self.plan.nodes.len())
            .map(|i| graph.add_node(i))
            .collect();
        for (i, found) in mentions.iter().enumerate() {
            let steps = found
                .steps
                .iter()
                .chain(&found.all)
                .filter_map(|n| at(NodeSort::Step, n));
            let services = found
                .services
                .iter()
                .filter_map(|n| at(NodeSort::Service, n));
            let after = self.plan.nodes[i]
                .after
                .iter()
                .filter_map(|(n, _)| at(NodeSort::Step, n));
            for from in steps.chain(services).chain(after) {
                graph.add_edge(ids[from], ids[i], ());
            }
        }
        let circles: Vec<Vec<usize>> = petgraph::algo::tarjan_scc(&graph)
            .into_iter()
            .filter(|scc| scc.len() > 1 || graph.contains_edge(scc[0], scc[0]))
            .map(|scc| scc.into_iter().map(|n| graph[n]).collect())
            .collect();
        for mut circle in circles.clone() {
            circle.sort_unstable();
            let names: Vec<String> = circle
                .iter()
                .map(|i| format!("`{}`", self.plan.nodes[*i].key.name))
                .collect();
            let first = &self.plan.nodes[circle[0]];
            let message = match names.as_slice() {
                [head @ .., last] if !head.is_empty() => {
                    format!("{} and {last} wait for each other", head.join(", "))
                }
                alone => format!("{} waits for itself", alone.concat()),
            };
            self.problems.push(
                Problem::at(&first.key.place, message, "part of a circle")
                    .help("remove one of the references or one `after`"),
            );
        }
        if !circles.is_empty() {
            return None;
        }
        Some(stable_order(&graph))
    }

    /// Finds out what a declaration uses and which instances it has.
    fn declare(&mut self, at: usize, mentions: &Mentions) {
        let decl = &self.plan.nodes[at];
        let entry = self.entry(decl);
        let axes = self.axes_of(decl, mentions);
        let instances = self
            .axes
            .product(&axes)
            .into_iter()
            .map(|axes| {
                let id = NodeId(self.n_nodes);
                self.n_nodes += 1;
                Instance { id, axes }
            })
            .collect();
        let key = (decl.sort == NodeSort::Service, decl.key.name.clone());
        self.declared.insert(
            key,
            Declared {
                entry,
                instances,
                axes,
            },
        );
    }

    fn entry(&mut self, decl: &NodeDecl) -> Option<Entry> {
        let (name, place) = decl.uses.as_ref()?;
        let found = match decl.sort {
            NodeSort::Step => self.library.find_step(name).cloned().map(Entry::Step),
            NodeSort::Service => self.library.find_service(name).cloned().map(Entry::Service),
        };
        if found.is_none() {
            let (what, known): (_, Vec<&str>) = match decl.sort {
                NodeSort::Step => ("step", self.library.steps().map(|s| s.name).collect()),
                NodeSort::Service => ("service", self.library.services().map(|s| s.name).collect()),
            };
            let other = match decl.sort {
                NodeSort::Step => self.library.find_service(name).map(|_| "services"),
                NodeSort::Service => self.library.find_step(name).map(|_| "steps"),
            };
            let help = match other {
                Some(section) => format!("declare it as `[{section}.{}]`", decl.key.name),
                None => did_you_mean(name, known),
            };
            let message = format!("the library has no {what} `{name}`");
            self.problems
                .push(Problem::at(place, message, format!("unknown kind of {what}")).help(help));
        }
        found
    }

    /// The axes of a declaration in the plan's order: its own and those of what it reads.
    fn axes_of(&mut self, decl: &NodeDecl, mentions: &Mentions) -> Vec<String> {
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        for (name, place) in &decl.axes {
            if self.axes.names().any(|n| n == name) {
                wanted.insert(name.clone());
            } else {
                let help = did_you_mean(name, self.axes.names());
                self.problems.push(
                    Problem::at(place, format!("there is no axis `{name}`"), "unknown axis")
                        .help(help),
                );
            }
        }
        let read = mentions
            .steps
            .iter()
            .map(|n| (false, n.clone()))
            .chain(mentions.services.iter().map(|n| (true, n.clone())));
        for key in read {
            if let Some(declared) = self.declared.get(&key) {
                wanted.extend(declared.axes.iter().cloned());
            }
        }
        for (axis, place) in &mentions.axes {
            if self.axes.names().any(|n| n == axis) && !wanted.contains(axis) {
                let message = format!("`{}` does not vary over axis `{axis}`", decl.key.name);
                self.problems.push(
                    Problem::at(place, message, "not one of its axes")
                        .help(format!("add `axes = [\"{axis}\"]`")),
                );
                wanted.insert(axis.clone());
            }
        }
        self.axes
            .names()
            .filter(|n| wanted.contains(*n))
            .map(str::to_owned)
            .collect()
    }

    fn instance(
        &mut self,
        decl: &NodeDecl,
        key: &(bool, String),
        i: usize,
        folder: &Path,
    ) -> Option<Node> {
        let declared = self.declared.get(key)?;
        let axes = &declared.instances[i].axes;
        let entry = declared.entry.clone();
        let mut scope = self.scope.clone();
        scope.axes = Some(axes.iter().cloned().collect());
        let name = NodeName {
            decl: decl.key.name.clone(),
            axes: axes
                .iter()
                .filter_map(|(k, v)| axis_value(v).map(|v| (k.clone(), v)))
                .collect(),
        };
        let with = interpolate::table(&decl.with, &scope, self.sources, self.problems);
        let mut resolve = |settings: &Option<SettingsDecl>| {
            settings.as_ref().map(|settings| SettingsDecl {
                table: interpolate::table(&settings.table, &scope, self.sources, self.problems),
                place: settings.place.clone(),
            })
        };
        let samples = resolve(&decl.samples);
        let limits = match decl.sort {
            NodeSort::Step => resolve(&decl.timeout),
            NodeSort::Service => resolve(&decl.ready),
        };
        let liveness = resolve(&decl.liveness);
        let linker = InstanceLinker {
            declared: &self.declared,
            axes,
            folder,
        };
        let what = match decl.sort {
            NodeSort::Step => format!("step `{}`", decl.key.name),
            NodeSort::Service => format!("service `{}`", decl.key.name),
        };
        let mut parser = Parser::new(what, &linker, self.problems);
        let body = match entry? {
            Entry::Step(entry) => step_body(decl, entry, &with, samples, limits, &mut parser),
            Entry::Service(entry) => {
                service_body(decl, entry, &with, [limits, liveness], &mut parser)
            }
        };
        let after = after(decl, &self.declared, axes, self.problems);
        Some(Node {
            name,
            place: decl.key.place.clone(),
            body: body?,
            after,
        })
    }
}

fn step_body(
    decl: &NodeDecl,
    entry: Arc<StepEntry>,
    with: &Table,
    samples: Option<SettingsDecl>,
    limits: Option<SettingsDecl>,
    parser: &mut Parser<'_>,
) -> Option<Body> {
    let step = (entry.parse)(with, &decl.with_place, parser);
    if let Some(samples) = samples.as_ref().filter(|_| entry.kind != StepKind::Measure) {
        let message = format!(
            "`{}` is not a measurement, so it has no samples",
            entry.name
        );
        let problem = Problem::at(&samples.place, message, "not possible here");
        parser.problems.push(problem.help("remove `samples`"));
    }
    let samples: Option<SamplesOptions> = settings(samples, "`samples`", decl, parser);
    let limits: Option<TimeoutOptions> = settings(limits, "`timeout`", decl, parser);
    let (samples, limits) = (samples?, limits?);
    Some(Body::Step(StepNode {
        step: step?,
        policy: Arc::new(Policy {
            samples: Sampling {
                target: samples.target,
                max_age: samples.max_age,
                replacements: REPLACEMENTS,
            },
            timeout: Timeout {
                run: limits.run,
                idle: limits.idle,
            },
            demand: demand_of(entry.kind),
            ..Policy::default()
        }),
        entry,
    }))
}

fn service_body(
    decl: &NodeDecl,
    entry: Arc<ServiceEntry>,
    with: &Table,
    [ready, liveness]: [Option<SettingsDecl>; 2],
    parser: &mut Parser<'_>,
) -> Option<Body> {
    let service = (entry.parse)(with, &decl.with_place, parser);
    for settings in [&ready, &liveness].into_iter().flatten() {
        check_path(&settings.table, parser);
    }
    let ready: Option<ReadyOptions> = settings(ready, "`ready`", decl, parser);
    let liveness: Option<LivenessOptions> = settings(liveness, "`liveness`", decl, parser);
    let service = service?;
    let mut leases = LeaseWalk::default();
    service.walk(&mut leases);
    if leases.found {
        let message = format!("service `{}` refers to another service", decl.key.name);
        let problem = Problem::at(
            &decl.with_place,
            message,
            "services cannot wait for each other",
        );
        let help = "give the other one a fixed `port`, and write its address";
        parser.problems.push(problem.help(help));
    }
    Some(Body::Service(ServiceNode {
        service,
        policy: Arc::new(ServicePolicy {
            ready: ready?.readiness(entry.ready_timeout),
            liveness: liveness?.liveness(),
            restarts: RESTARTS,
            demand: demand_of_service(),
        }),
        entry,
    }))
}

impl ReadyOptions {
    fn readiness(self, timeout: Duration) -> Readiness {
        Readiness {
            timeout: self.timeout.unwrap_or(timeout),
            http: self.http,
            tcp: self.tcp,
            log: self.log,
            command: self.command,
        }
    }
}

impl LivenessOptions {
    fn liveness(self) -> Liveness {
        Liveness {
            enabled: self.enabled,
            http: self.http,
            every: self.every,
            timeout: self.timeout,
            failures: self.failures,
        }
    }
}

/// Finds an `http` that is no path.
fn check_path(settings: &Table, parser: &mut Parser<'_>) {
    let Some(value) = settings.get("http") else {
        return;
    };
    if let Kind::Text(path) = &value.kind
        && !path.starts_with('/')
    {
        let message = format!("`{path}` is no path of a server");
        let help = "write the path alone, such as `/health`";
        parser.wrong::<()>(&value.place, message, "does not begin with `/`", help);
    }
}

/// What a step takes of the machine when the plan does not say: a measurement all of it.
fn demand_of(kind: StepKind) -> Demand {
    let machine = match kind {
        StepKind::Measure | StepKind::Effect => Machine::Exclusive,
        StepKind::Pure | StepKind::Fetch | StepKind::Report => Machine::Shared,
    };
    Demand {
        machine,
        ..Demand::default()
    }
}

/// What a service takes when the plan does not say: it is there to be measured.
fn demand_of_service() -> Demand {
    Demand {
        machine: Machine::Exclusive,
        ..Demand::default()
    }
}

/// Reads a table of settings, or its defaults where there is none.
fn settings<T: Options>(
    given: Option<SettingsDecl>,
    what: &str,
    decl: &NodeDecl,
    parser: &mut Parser<'_>,
) -> Option<T> {
    let given = given.unwrap_or_else(|| SettingsDecl {
        table: Table::default(),
        place: decl.key.place.clone(),
    });
    let owner = format!("{what} of `{}`", decl.key.name);
    let mut parser = Parser::new(owner, parser.linker(), parser.problems);
    T::parse(&given.table, &given.place, &mut parser)
}

/// Finds out whether options refer to a service.
#[derive(Default)]
struct LeaseWalk {
    found: bool,
}

impl Walk for LeaseWalk {
    fn value(&mut self, _: &str, _: &str) {}

    fn link(&mut self, _: &str, link: &Link) {
        self.found |= matches!(link, Link::Service { .. } | Link::Fact { .. });
    }

    fn file(&mut self, _: &str, _: &Path) {}
}

/// Links `after`: to every instance that agrees on the axes that both have.
fn after(
    decl: &NodeDecl,
    declared: &BTreeMap<(bool, String), Declared>,
    axes: &[(String, Value)],
    problems: &mut Problems,
) -> Vec<NodeId> {
    let mut found = Vec::new();
    for (name, place) in &decl.after {
        match declared.get(&(false, name.clone())) {
            Some(other) => found.extend(
                other
                    .instances
                    .iter()
                    .filter(|i| agree(&i.axes, axes))
                    .map(|i| i.id),
            ),
            None => {
                let is_service = declared.contains_key(&(true, name.clone()));
                let known: Vec<&str> = declared
                    .keys()
                    .filter(|(service, _)| !service)
                    .map(|(_, n)| n.as_str())
                    .collect();
                let (message, help) = if is_service {
                    (
                        format!("`{name}` is a service, and a service never ends"),
                        "refer to it in `with`: a step that uses a service leases it".to_owned(),
                    )
                } else {
                    (
                        format!("no step is called `{name}`"),
                        did_you_mean(name, known),
                    )
                };
                problems.push(Problem::at(place, message, "cannot come after this").help(help));
            }
        }
    }
    found
}
