//! Servers of others that are known by name: each has its launch line, says when it generates, what it is
//! and what it applied.
//!
//! A kind is a [`Nature`], which is data, and the options that it has beyond those of all. The plan's
//! options, then its `args`, make the command line; the same list is held to what the server tells of
//! itself, and a difference makes what is measured on it invalid.

mod applied;
mod asked;
mod llama_cpp;
mod served;
mod sglang;
mod token;
mod transformers;
mod vllm;

pub(crate) use llama_cpp::ServerLlamaCpp;
pub(crate) use sglang::ServerSglang;
pub(crate) use transformers::{LOG, ServerTransformers};
pub(crate) use vllm::ServerVllm;

use super::{child_environment, flags, port};
use crate::http::{self, Peer};
use crate::kinds::{Model, PythonEnvironment};
use crate::python;
use applied::Source;
use asked::{Asked, Given, asked, differences};
use engine::options::Parser;
use engine::process::Supervisor;
use engine::service::{Endpoint, Launch, LaunchContext, Probe};
use engine::step::{StepContext, StepError};
use engine::types::{Arguments, Artifact, Text};
use engine::value::{Kind, Table};
use std::collections::BTreeMap;
use std::path::Path;

/// Stands for the port in `command`, `args` and `env`.
const PORT: &str = "{port}";
/// The fact that holds what was asked for, for the comparison.
pub(crate) const ASKED: &str = "asked";
/// The fact that says what was not applied; absent where everything was.
pub(crate) const DIFFERENCES: &str = "differences";
/// The fact that names where counters are told.
pub(crate) const METRICS: &str = "metrics";
/// Facts that such a server brings besides `url`.
const FACTS: &[&str] = &["port", "model", "version", "environment"];

engine::choices! {
    /// Where weights come from.
    pub enum LoadFormat {
        /// The model folder's own weights.
        Auto = "auto",
        /// Random values: right for timing.
        Dummy = "dummy",
        /// The model folder's own safetensors files.
        Safetensors = "safetensors",
    }
}

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
    /// What a launch needs of variables; those of the plan win.
    variables: &'static [(&'static str, &'static str)],
    /// Where it tells its version, and where in the answer.
    version: (&'static str, &'static str),
    /// Where it tells what it applied.
    applied: &'static [Source],
    /// Names of flags, and what it calls the same when it tells them.
    aliases: &'static [(&'static str, &'static str)],
}

/// Declares options of a server with those of all among them, and what a service of it does.
macro_rules! known_server {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident { $($own:tt)* }
        use $use:literal, $nature:ident, $version:literal, $summary:literal;
    ) => {
        engine::options! {
            $(#[doc = $doc])+
            pub struct $name {
                /// The model's folder.
                model: engine::types::Artifact<crate::kinds::Model>;
                /// The environment that has the server, as `env.python` builds one; its program is searched in
                /// `PATH` if absent.
                environment: Option<engine::types::Artifact<crate::kinds::PythonEnvironment>>;
                /// The program and its first arguments, in place of the usual ones.
                command: Vec<engine::types::Text> = Vec::new();
                /// The port on 127.0.0.1; any free one if absent.
                port: Option<u16>;
                /// The name under which the model is served; the server's own choice if absent.
                served_model_name: Option<String>;
                $($own)*
                /// Whether it counts, and tells, what it finds in its prefix cache, in its metrics and of each
                /// request.
                metrics: bool = true;
                /// Further flags as a table: `tp_size = 2` becomes `--tp-size 2`, `true` a bare flag, `false` none,
                /// a list one flag with several values, a table one JSON value. `{port}` stands for the port.
                args: engine::types::Arguments = engine::types::Arguments::default();
                /// Environment variables. `{port}` stands for the port.
                env: std::collections::BTreeMap<String, engine::types::Text> = std::collections::BTreeMap::new();
                /// Environment variables that are passed on as they are. Values other than those of `PATH`,
                /// `HOME` and `LANG` are part of the key.
                inherit: Vec<String> = ["PATH", "HOME", "LANG"].map(str::to_owned).to_vec();
                /// Whether its cache is flushed between samples.
                flush_cache: bool = true;
            }
        }

        impl $name {
            fn common(&self) -> super::Common<'_> {
                super::Common {
                    nature: &$nature,
                    model: &self.model,
                    environment: self.environment.as_ref(),
                    command: &self.command,
                    port: self.port,
                    given: self.given(),
                    args: &self.args,
                    env: &self.env,
                    inherit: &self.inherit,
                }
            }
        }

        impl engine::service::ServiceType for $name {
            const NAME: &'static str = $use;
            const KIND: &'static str = <crate::kinds::InferenceServer as engine::types::ArtifactKind>::NAME;
            const VERSION: u32 = $version;
            const SUMMARY: &'static str = $summary;
            const FACTS: &'static [&'static str] = super::FACTS;
            const READY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1800);

            fn identity(&self) -> Vec<(String, String)> {
                self.common().identity()
            }

            fn check(
                &self,
                table: &engine::value::Table,
                _: &engine::source::Place,
                parser: &mut engine::options::Parser<'_>,
            ) {
                super::check_arguments(table, $nature.name, parser);
            }
        }

        #[async_trait::async_trait]
        impl engine::service::Service for $name {
            fn fixed_port(&self) -> Option<u16> {
                self.port.filter(|port| *port != 0)
            }

            async fn prepare(
                &self,
                context: &engine::service::LaunchContext,
                supervisor: &engine::process::Supervisor,
            ) -> Result<(), engine::step::StepError> {
                self.common().prepare(context, supervisor).await
            }

            fn launch(
                &self,
                context: &engine::service::LaunchContext,
            ) -> Result<engine::service::Launch, engine::step::StepError> {
                self.common().launch(context)
            }

            async fn probe(&self, endpoint: &engine::service::Endpoint) -> engine::service::Probe {
                super::probe(&$nature, endpoint).await
            }

            async fn http_status(
                &self,
                endpoint: &engine::service::Endpoint,
                path: &str,
            ) -> Result<u16, String> {
                crate::http::status(crate::http::Peer::of(endpoint), path).await
            }

            fn health(&self) -> Option<String> {
                Some(super::HEALTH.to_owned())
            }

            fn diagnose(&self, log: &str) -> Option<engine::logs::Diagnosis> {
                crate::diagnosis::diagnose(log)
            }

            async fn reset(
                &self,
                endpoint: &engine::service::Endpoint,
            ) -> Result<(), engine::step::StepError> {
                match self.flush_cache {
                    true => crate::server::flush_cache(endpoint).await,
                    false => Ok(()),
                }
            }

            async fn released(&self, endpoint: &engine::service::Endpoint) -> Result<(), String> {
                crate::server::port_released(endpoint)
            }
        }
    };
}

use known_server;

/// All of them answer there with status 200 while they live.
const HEALTH: &str = "/health";

/// What every such server has.
struct Common<'a> {
    nature: &'a Nature,
    model: &'a Artifact<Model>,
    environment: Option<&'a Artifact<PythonEnvironment>>,
    command: &'a [Text],
    port: Option<u16>,
    /// Its own options, as they are given to it.
    given: Vec<Given>,
    args: &'a Arguments,
    env: &'a BTreeMap<String, Text>,
    inherit: &'a [String],
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

    fn launch(&self, context: &LaunchContext) -> Result<Launch, StepError> {
        let port = port(self.port)?.to_string();
        let fill = |text: &Text| {
            let text = StepContext::resolve_text(&context.resolved, text)?;
            Ok(text.replace(PORT, &port))
        };
        let environment = self.environment.map(|e| python::folder(&context.path(e)?));
        let environment = environment.transpose()?;
        let folder = environment.as_ref().map(|(folder, _)| folder.as_path());
        let declared = self
            .env
            .iter()
            .map(|(name, value)| Ok((name.clone(), fill(value)?)))
            .collect::<Result<_, StepError>>()?;
        let variables = self.variables(declared, folder);
        let mut argv = self.program(folder, fill)?;
        argv.extend(self.nature.model_flag.iter().map(|w| (*w).to_owned()));
        argv.push(context.path(self.model)?.display().to_string());
        argv.extend(["--host", "127.0.0.1", "--port", &port].map(str::to_owned));
        argv.extend(self.given.iter().flat_map(Given::words));
        let flags = flags(self.args, &context.resolved)?;
        argv.extend(flags.into_iter().map(|flag| flag.replace(PORT, &port)));
        let asked = serde_json::to_string(&asked(&self.given, self.args))
            .map_err(|e| StepError::because("could not write down what is asked for", e))?;
        let url = format!("http://127.0.0.1:{port}");
        let mut facts = BTreeMap::from([("port".to_owned(), port), (ASKED.to_owned(), asked)]);
        facts.extend(environment.map(|(_, lock)| ("environment".to_owned(), lock)));
        Ok(Launch::Process {
            spec: context.process(argv, variables, &context.folder),
            endpoint: Endpoint::new(url, facts),
        })
    }

    /// The program and its first words.
    fn program(
        &self,
        environment: Option<&Path>,
        fill: impl Fn(&Text) -> Result<String, StepError>,
    ) -> Result<Vec<String>, StepError> {
        if !self.command.is_empty() {
            return self.command.iter().map(fill).collect();
        }
        let mut words: Vec<String> = self
            .nature
            .program
            .iter()
            .map(|w| (*w).to_owned())
            .collect();
        let Some(environment) = environment else {
            return Ok(words);
        };
        let program = environment.join("bin").join(&words[0]);
        if !program.exists() {
            let (name, package) = (self.nature.name, self.nature.package);
            return Err(StepError::new(format!(
                "the environment has no {name}: no `{}`",
                words[0]
            ))
            .help(format!(
                "add `{package}` to the `requirements` of its `env.python`"
            )));
        }
        words[0] = program.display().to_string();
        Ok(words)
    }

    /// The variables of the process: inherited, usual, declared; programs of its environment come first.
    fn variables(
        &self,
        declared: BTreeMap<String, String>,
        environment: Option<&Path>,
    ) -> BTreeMap<String, String> {
        let usual = self.nature.variables.iter();
        let mut all: BTreeMap<String, String> = usual
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        all.extend(declared);
        let mut all = child_environment(all, self.inherit);
        if let Some(environment) = environment {
            let bin = environment.join("bin").display().to_string();
            let path = match all.get("PATH") {
                Some(path) => format!("{bin}:{path}"),
                None => bin,
            };
            all.insert("PATH".to_owned(), path);
            all.insert("VIRTUAL_ENV".to_owned(), environment.display().to_string());
        }
        all
    }
}

/// Asks whether the server generates, and then what it is and what it applied.
async fn probe(nature: &Nature, endpoint: &Endpoint) -> Probe {
    let server = Peer::of(endpoint);
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
    let version = told(path).await;
    let version = version.as_ref().and_then(|v| v.pointer(at)?.as_str());
    facts.extend(version.map(|version| ("version".to_owned(), version.to_owned())));
    let applied = applied::told(server, nature.applied).await;
    let asked = endpoint.facts.get(ASKED);
    let asked: Vec<Asked> = asked
        .and_then(|asked| serde_json::from_str(asked).ok())
        .unwrap_or_default();
    let found = differences(&asked, &applied, nature.aliases).join("; ");
    if !found.is_empty() {
        facts.insert(DIFFERENCES.to_owned(), found);
    }
    if let Ok((200, text)) = http::get_text(server, "/metrics").await
        && text.contains("# TYPE")
    {
        facts.insert(METRICS.to_owned(), "/metrics".to_owned());
    }
    Probe::Ready(facts)
}

/// Reports arguments that repeat an option, or what a launch sets by itself.
fn check_arguments(table: &Table, name: &str, parser: &mut Parser<'_>) {
    const OWN: [&str; 4] = ["model_path", "model", "host", "port"];
    let Some(Kind::Table(args)) = table.get("args").map(|value| &value.kind) else {
        return;
    };
    for (key, _) in &args.entries {
        let flag = key.name.replace('-', "_");
        if OWN.contains(&flag.as_str()) || table.get(&flag).is_some() {
            let message = format!("`{}` is given to {name} already", key.name);
            let help = "remove it here, or beside `args`";
            parser.wrong::<()>(&key.place, message, "the same flag again", help);
        }
    }
}
