//! Servers of others that are known by name: each has its launch line, says when it generates, what it is
//! and what it applied.
//!
//! A kind is a [`Nature`], which is data, and the options that it has beyond those of all. The plan's
//! options, then its `args`, make the command line; the same list is held to what the server tells of
//! itself, and a difference makes what is measured on it invalid.

mod applied;
mod asked;
mod declare;
mod llama_cpp;
mod lmdeploy;
pub(crate) mod profiler;
mod ranks;
mod served;
mod sglang;
mod token;
mod transformers;
mod trtllm;
mod vllm;
mod words;

pub(crate) use llama_cpp::ServerLlamaCpp;
pub(crate) use lmdeploy::ServerLmdeploy;
pub(crate) use sglang::ServerSglang;
pub(crate) use transformers::{LOG, ServerTransformers};
pub(crate) use trtllm::ServerTrtllm;
pub(crate) use vllm::ServerVllm;

use super::port;
use crate::http::{self, Peer};
use crate::kinds::{Model, PythonEnvironment};
use crate::python;
use applied::Source;
use asked::{Asked, Asking, Given, Spelling, asked, differences};
use declare::known_server;
use engine::options::Parser;
use engine::process::{ProcessSpec, Supervisor};
use engine::service::{Endpoint, Launch, LaunchContext, Probe};
use engine::step::{Resolved, StepError};
use engine::types::{Arguments, Artifact, Text};
use engine::value::{Kind, Table};
use profiler::{Profiling, Reach};
use ranks::{Follower, Rank, Ranks};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Stands for the port in `command`, `args` and `env`.
const PORT: &str = "{port}";
/// The fact that holds what was asked for, for the comparison.
pub(crate) const ASKED: &str = "asked";
/// The fact that says what was not applied; absent where everything was.
pub(crate) const DIFFERENCES: &str = "differences";
/// The fact that says where rank 0 is, of a rank that serves nothing.
const MASTER: &str = "master";
/// Facts that such a server brings besides `url`.
const FACTS: &[&str] = &["port", "model", "version", "environment"];

/// What one kind of server is.
struct Nature {
    /// What people call it.
    name: &'static str,
    /// The package that brings it, for the mend.
    package: &'static str,
    /// Its program and first words; the program is searched in the environment, or in `PATH`.
    program: &'static [&'static str],
    /// What stands before the model's folder, if anything does.
    model_flag: &'static [&'static str],
    /// The flags that say where it listens: address and port.
    address: [&'static str; 2],
    /// How it writes the names of its flags.
    spelling: Spelling,
    /// What a launch needs of variables; those of the plan win.
    variables: &'static [(&'static str, &'static str)],
    /// Where it tells its version, and where in the answer; both empty of one that does not tell it.
    version: (&'static str, &'static str),
    /// Where it tells its metrics.
    metrics: &'static str,
    /// Where it tells what it applied.
    applied: &'static [Source],
    /// Names of flags, and what it calls the same when it tells them.
    aliases: &'static [(&'static str, &'static str)],
    /// Flags under which others are told by another name: the flag, and the pair of names.
    moved: &'static [(&'static str, (&'static str, &'static str))],
    /// The option that lets it keep prefixes, of one that cannot empty its cache between samples.
    keeps_by: Option<&'static str>,
    /// When a rank that serves nothing counts as ready, of one that has ranks.
    follower: Follower,
    /// What its profiler is reached by.
    profiling: Profiling,
}

/// What most of them are; a kind names what it is.
const USUAL: Nature = Nature {
    name: "",
    package: "",
    program: &[],
    model_flag: &[],
    address: ["--host", "--port"],
    spelling: Spelling::Kebab,
    variables: &[],
    version: ("", ""),
    metrics: "/metrics",
    applied: &[],
    aliases: &[],
    moved: &[],
    keeps_by: None,
    follower: Follower::Answers,
    profiling: Profiling::Never("use a profiler from outside, such as `nsys` or `perf`"),
};

/// What a kind has beyond its flags.
trait Beyond: Sync {
    /// How it spreads over nodes, if it can.
    fn ranks(&self) -> Option<Ranks<'_>> {
        None
    }

    /// How many GPUs all of it uses, if what is asked for says that.
    fn gpus(&self, _asking: &Asking<'_>) -> Option<u32> {
        None
    }

    /// How many processes all of it computes with, on whatever device.
    fn workers(&self, asking: &Asking<'_>) -> u32 {
        self.gpus(asking).unwrap_or(1)
    }

    /// Further words that say where it writes, in the folder of its launch.
    fn words_of_places(&self, _folder: &Path) -> Vec<String> {
        Vec::new()
    }

    /// How its profiler is reached, where its kind has one; `folder` is that of its launch.
    fn reach(&self, nature: &Nature, processes: u32, _folder: &Path) -> Reach {
        match nature.profiling {
            Profiling::Never(instead) => Reach::never(nature.name, instead),
            Profiling::While(dialect) => Reach::Open {
                dialect,
                folder: None,
                processes,
            },
        }
    }

    /// Reports what does not fit together besides what all kinds have.
    fn check(&self, _args: &Arguments, _table: &Table, _parser: &mut Parser<'_>) {}

    /// A file of options that it reads besides its flags, if it does.
    fn options_file(&self, _resolved: &Resolved) -> Result<Option<OptionsFile>, StepError> {
        Ok(None)
    }
}

/// A file of options.
struct OptionsFile {
    /// The flag that names it.
    flag: &'static str,
    /// What it is called in the folder of the launch.
    name: &'static str,
    text: String,
}

/// All of them answer there with status 200 while they live.
const HEALTH: &str = "/health";

/// What every such server has.
struct Common<'a> {
    nature: &'a Nature,
    beyond: &'a dyn Beyond,
    model: &'a Artifact<Model>,
    environment: Option<&'a Artifact<PythonEnvironment>>,
    command: &'a [Text],
    port: Option<u16>,
    /// Its own options, as they are given to it, but for those whose flags are among `args`.
    given: Vec<Given>,
    args: &'a Arguments,
    env: &'a BTreeMap<String, Text>,
    inherit: &'a [String],
    flush_cache: bool,
}

/// Options that no further flag takes the place of: an overlay that switches something on is not switched off by
/// what the option is where a plan says nothing.
fn but_for(given: Vec<Given>, args: &Arguments) -> Vec<Given> {
    let is_among = |given: &Given| args.iter().any(|(key, _)| given.is_called(key));
    given.into_iter().filter(|given| !is_among(given)).collect()
}

impl Common<'_> {
    /// What tells one build of the program from another: the lock is part of the key by its link, a program
    /// of `PATH` by its digest.
    fn identity(&self) -> Vec<(String, String)> {
        let cwd = std::env::current_dir().unwrap_or_default();
        let usual = [Text {
            parts: vec![engine::types::TextPart::Plain(
                self.nature.program[0].to_owned(),
            )],
        }];
        let argv = match (self.environment, self.command) {
            (Some(_), []) => &[],
            (None, []) => &usual[..],
            (_, command) => command,
        };
        crate::command::identity(argv, self.inherit, &cwd)
    }

    async fn prepare(
        &self,
        context: &LaunchContext,
        supervisor: &Supervisor,
    ) -> Result<(), StepError> {
        let Some(environment) = self.environment else {
            return Ok(());
        };
        let logs = context.folder.join("environment");
        let artifact = context.path(environment)?;
        python::ready(&artifact, &context.node, supervisor, logs)
            .await
            .map(drop)
    }

    /// Every rank that is launched here; most servers have none, and one process.
    fn launch(&self, context: &LaunchContext) -> Result<Launch, StepError> {
        let own_port = port(self.port)?;
        let ranks = self.beyond.ranks();
        let here = ranks.map_or_else(|| Ok(Vec::new()), |ranks| ranks.here(self.args))?;
        let mut facts = BTreeMap::from([("port".to_owned(), own_port.to_string())]);
        if let ([one], true) = (here.as_slice(), self.is_follower()) {
            facts.insert(MASTER.to_owned(), one.meets_at());
        }
        let environment = self.environment.map(|e| python::folder(&context.path(e)?));
        let environment = environment.transpose()?;
        let folder = environment.as_ref().map(|(folder, _)| folder.as_path());
        let asked = serde_json::to_string(&self.asked())
            .map_err(|e| StepError::because("could not write down what is asked for", e))?;
        facts.insert(ASKED.to_owned(), asked);
        let folder_of_launch = whole(&context.folder);
        let reach = self
            .beyond
            .reach(self.nature, self.workers(), &folder_of_launch);
        facts.extend([reach.fact()?]);
        let (argv, variables) = self.command_line(context, own_port, here.first(), folder)?;
        let mut specs = vec![context.process(argv, variables, &context.folder)];
        for rank in here.iter().skip(1) {
            let (argv, variables) = self.command_line(context, port(None)?, Some(rank), folder)?;
            specs.push(beside(context, rank, argv, variables));
        }
        facts.extend(self.of_environment(context, environment)?);
        let endpoint = Endpoint::new(format!("http://127.0.0.1:{own_port}"), facts);
        if specs.len() > 1 {
            specs[0].label = format!("{} {}", context.node, here[0].name());
            return Ok(Launch::Processes { specs, endpoint });
        }
        let spec = specs.remove(0);
        Ok(Launch::Process { spec, endpoint })
    }

    /// What is known by the environment: which it is, and the version until the server tells it, if it does.
    fn of_environment(
        &self,
        context: &LaunchContext,
        environment: Option<(PathBuf, String)>,
    ) -> Result<BTreeMap<String, String>, StepError> {
        let (Some((_, lock)), Some(artifact)) = (environment, self.environment) else {
            return Ok(BTreeMap::new());
        };
        let version = python::version_of(&context.path(artifact)?, self.nature.package);
        let version = version.map(|version| ("version".to_owned(), version));
        Ok([("environment".to_owned(), lock)]
            .into_iter()
            .chain(version)
            .collect())
    }

    /// Everything that it is asked for.
    fn asked(&self) -> Vec<Asked> {
        asked(&self.given, self.args)
    }

    /// The GPUs that are used on this machine, if what is asked for says how many.
    fn gpus(&self) -> Option<u32> {
        let all = self.beyond.gpus(&Asking(&self.asked()))?;
        Some(self.share_here(all))
    }

    /// The processes of this machine that compute.
    fn workers(&self) -> u32 {
        self.share_here(self.beyond.workers(&Asking(&self.asked())))
    }

    /// How many of all are on this machine.
    fn share_here(&self, all: u32) -> u32 {
        let (here, nodes) = match self.beyond.ranks() {
            Some(ranks) => ranks.share(self.args),
            None => (1, 1),
        };
        all.div_ceil(nodes).saturating_mul(here).min(all)
    }

    /// Whether this is a rank that serves nothing.
    fn is_follower(&self) -> bool {
        let ranks = self.beyond.ranks();
        ranks.is_some_and(|ranks| ranks.is_follower(self.args))
    }

    /// Reports what does not fit together.
    fn check(&self, table: &Table, parser: &mut Parser<'_>) {
        check_arguments(table, self.nature, parser);
        if let Some(ranks) = self.beyond.ranks() {
            ranks.check(table, self.args, parser);
        }
        self.beyond.check(self.args, table, parser);
        let Some(option) = self.nature.keeps_by.filter(|_| self.flush_cache) else {
            return;
        };
        if Asking(&self.asked()).is_on(option) {
            let args = match table.get("args").map(|args| &args.kind) {
                Some(Kind::Table(args)) => args.get(option),
                _ => None,
            };
            let value = table.get(option).or(args);
            if let Some(value) = value.or_else(|| table.get("args")) {
                let message = format!(
                    "{} cannot empty its cache between samples, and keeps prefixes",
                    self.nature.name
                );
                let help =
                    "write `flush_cache = false` if later samples may find what earlier ones left";
                parser.wrong::<()>(&value.place, message, "would be kept", help);
            }
        }
    }
}

/// A folder by its whole path: processes have a working folder of their own.
fn whole(folder: &Path) -> PathBuf {
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

/// A program of an environment; `package` is what brings `name`.
pub(super) fn program_of(
    environment: &Path,
    program: &str,
    name: &str,
    package: &str,
) -> Result<String, StepError> {
    let path = environment.join("bin").join(program);
    match path.exists() {
        true => Ok(path.display().to_string()),
        false => Err(
            StepError::new(format!("the environment has no {name}: no `{program}`")).help(format!(
                "add `{package}` to the `requirements` of its `env.python`"
            )),
        ),
    }
}

/// Lets the programs of an environment come first.
pub(super) fn enter(environment: &Path, variables: &mut BTreeMap<String, String>) {
    let bin = environment.join("bin").display().to_string();
    let path = match variables.get("PATH") {
        Some(path) => format!("{bin}:{path}"),
        None => bin,
    };
    variables.insert("PATH".to_owned(), path);
    variables.insert("VIRTUAL_ENV".to_owned(), environment.display().to_string());
}

/// A rank beside the first: it has a folder of its own below that of the service.
fn beside(
    context: &LaunchContext,
    rank: &Rank,
    argv: Vec<String>,
    variables: BTreeMap<String, String>,
) -> ProcessSpec {
    let (label, name) = (format!("{} {}", context.node, rank.name()), rank.name());
    let folder = context.folder.join(name.replace(' ', "-"));
    let mut spec = ProcessSpec::new(label, argv, variables, &context.folder, &folder);
    spec.secrets.clone_from(&context.resolved.secrets);
    spec
}

/// Asks whether the server generates, and then what it is and what it applied.
async fn probe(nature: &Nature, endpoint: &Endpoint) -> Probe {
    let server = Peer::of(endpoint);
    if let Some(master) = endpoint.facts.get(MASTER) {
        let status = http::status(server, HEALTH);
        return ranks::probe_follower(nature.follower, status, master).await;
    }
    let mut facts = match http::probe(server, HEALTH).await {
        Probe::Ready(facts) => facts,
        other => return other,
    };
    let model = facts.get("model").map_or("", String::as_str);
    if let Err(not_yet) = token::generated(server, model).await {
        return not_yet;
    }
    let told = |path| async move { http::get(server, path).await.ok().map(|answer| answer.body) };
    let (path, at) = nature.version;
    let version = match path {
        "" => None,
        path => told(path).await,
    };
    let version = version.as_ref().and_then(|v| v.pointer(at)?.as_str());
    facts.extend(version.map(|version| ("version".to_owned(), version.to_owned())));
    let applied = applied::told(server, nature.applied, nature.metrics).await;
    let asked = endpoint.facts.get(ASKED);
    let asked: Vec<Asked> = asked
        .and_then(|asked| serde_json::from_str(asked).ok())
        .unwrap_or_default();
    let moved = nature.moved.iter();
    let moved = moved
        .filter(|(by, _)| Asking(&asked).is_on(by))
        .map(|(_, names)| *names);
    let aliases: Vec<_> = moved.chain(nature.aliases.iter().copied()).collect();
    let found = differences(&asked, &applied, &aliases).join("; ");
    if !found.is_empty() {
        facts.insert(DIFFERENCES.to_owned(), found);
    }
    facts.extend(super::metrics_at(server, nature.metrics).await);
    Probe::Ready(facts)
}

/// Reports arguments that repeat an option, or what a launch sets by itself.
fn check_arguments(table: &Table, nature: &Nature, parser: &mut Parser<'_>) {
    const OWN: [&str; 4] = ["model_path", "model", "host", "port"];
    let Some(Kind::Table(args)) = table.get("args").map(|value| &value.kind) else {
        return;
    };
    for (key, _) in &args.entries {
        let flag = key.name.replace('-', "_");
        let is_address = nature
            .address
            .contains(&nature.spelling.flag(&flag).as_str());
        if OWN.contains(&flag.as_str()) || is_address || table.get(&flag).is_some() {
            let message = format!("`{}` is given to {} already", key.name, nature.name);
            let help = "remove it here, or beside `args`";
            parser.wrong::<()>(&key.place, message, "the same flag again", help);
        }
    }
}

#[cfg(test)]
mod tests;
