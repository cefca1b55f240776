//! `server.transformers`: Transformers' own server, `transformers serve`, from an environment.
//!
//! It tells little of itself: no version, no metrics, no cached tokens, and its list of models is that of the
//! hub's cache. So its version is that of what is installed, and what it applied of batching is in its log.

use super::asked::{Asked, Form, Given, differences};
use super::served::served;
use super::{ASKED, Beyond, Common, DIFFERENCES, HEALTH, Nature, USUAL, check_arguments, token};
use crate::http::{self, Peer};
use crate::kinds::{Model, PythonEnvironment};
use crate::load::EXACT_LENGTH;
use engine::options::Parser;
use engine::process::{STDERR_LOG, Supervisor, find_program};
use engine::service::{Endpoint, Launch, LaunchContext, Probe};
use engine::source::Place;
use engine::step::StepError;
use engine::types::{Arguments, Artifact, Positive, Text};
use engine::value::Table;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

const TRANSFORMERS: Nature = Nature {
    name: "Transformers",
    package: "transformers[serving]",
    program: &["transformers", "serve"],
    variables: &[("HF_HUB_OFFLINE", "1")],
    ..USUAL
};

/// The fact that names the file of its log.
pub(crate) const LOG: &str = "log";
/// What it writes of each request, and what follows is whether continuous batching serves it.
const BATCHED: &str = "[Request received] Model: ";

engine::choices! {
    /// How weights are made smaller when they are loaded.
    pub enum Quantization {
        /// Four bits.
        Bnb4Bit = "bnb-4bit",
        /// Eight bits.
        Bnb8Bit = "bnb-8bit",
    }
}

engine::options! {
    /// Options of `server.transformers`.
    pub struct ServerTransformers {
        /// The model's folder, with weights.
        model: Artifact<Model>;
        /// The environment that has the server, as `env.python` builds one; its program is searched in
        /// `PATH` if absent.
        environment: Option<Artifact<PythonEnvironment>>;
        /// The program and its first arguments, in place of the usual ones.
        command: Vec<Text> = Vec::new();
        /// The port on 127.0.0.1; any free one if absent.
        port: Option<u16>;
        /// Where it computes, such as `cuda:0` or `cpu`; its own choice if absent.
        device: Option<String>;
        /// The type of weights, as torch calls it, such as `bfloat16`; that of the folder's if absent.
        dtype: Option<String>;
        /// How attention is computed, such as `sdpa` or `flash_attention_2`; its own choice if absent.
        attn_implementation: Option<String>;
        /// How weights are made smaller when they are loaded; not at all if absent.
        quantization: Option<Quantization>;
        /// Whether the model is compiled.
        compile: bool = false;
        /// Whether requests run together. It keeps prefixes then that nothing empties, so that this needs
        /// `flush_cache = false`; and all requests are sampled as the first one was, which is greedily.
        continuous_batching: bool = false;
        /// Tokens per block of the key-value cache.
        cb_block_size: Option<NonZeroU32>, in "tokens";
        /// Blocks of the key-value cache; derived from memory if absent.
        cb_num_blocks: Option<NonZeroU32>, in "blocks";
        /// Tokens that one step computes at most.
        cb_max_batch_tokens: Option<NonZeroU32>, in "tokens";
        /// The share of free memory that the key-value cache takes, up to 1; on a processor that is the
        /// machine's own memory, of which it takes nearly all if absent.
        cb_max_memory_percent: Option<Positive>;
        /// Whether steps are captured as graphs on a GPU; its own choice if absent.
        cb_use_cuda_graph: Option<bool>;
        /// Further flags as a table: `default_seed = 2` becomes `--default-seed 2`, `true` a bare flag, `false`
        /// none, a list one flag with several values, a table one JSON value. `{port}` stands for the port.
        args: Arguments = Arguments::default();
        /// Environment variables. `{port}` stands for the port.
        env: BTreeMap<String, Text> = BTreeMap::new();
        /// Environment variables that are passed on as they are. Values other than those of `PATH`,
        /// `HOME` and `LANG` are part of the key.
        inherit: Vec<String> = ["PATH", "HOME", "LANG"].map(str::to_owned).to_vec();
        /// Whether every sample finds it with an empty cache: without continuous batching it keeps nothing, and
        /// with it nothing empties it.
        flush_cache: bool = true;
    }
}

served! {
    ServerTransformers, "server.transformers", 1,
    "Launches `transformers serve`, and holds it to what was asked of it as far as it tells."
}

impl Beyond for ServerTransformers {}

impl ServerTransformers {
    fn common(&self) -> Common<'_> {
        Common {
            nature: &TRANSFORMERS,
            beyond: self,
            model: &self.model,
            environment: self.environment.as_ref(),
            command: &self.command,
            port: self.port,
            given: self.given(),
            args: &self.args,
            env: &self.env,
            inherit: &self.inherit,
            flush_cache: self.flush_cache,
        }
    }

    /// Where it computes is a word of its own, and no number of GPUs. A plan says it in `resources`.
    fn gpus_of(&self) -> Option<u32> {
        None
    }

    fn health_of(&self) -> Option<String> {
        Some(HEALTH.to_owned())
    }

    fn identity_of(&self) -> Vec<(String, String)> {
        self.common().identity()
    }

    fn check_options(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        check_arguments(table, &TRANSFORMERS, parser);
        let at = |option: &str| table.get(option).map_or(place, |value| &value.place);
        if self.continuous_batching && self.flush_cache {
            let message =
                "with continuous batching it keeps prefixes, and has no way to empty them";
            let help = "write `flush_cache = false` and give each sample prompts of its own, or leave `continuous_batching` out";
            parser.wrong::<()>(
                at("continuous_batching"),
                message,
                "cannot be emptied",
                help,
            );
        }
        let of_batching = [
            ("cb_block_size", self.cb_block_size.is_some()),
            ("cb_num_blocks", self.cb_num_blocks.is_some()),
            ("cb_max_batch_tokens", self.cb_max_batch_tokens.is_some()),
            (
                "cb_max_memory_percent",
                self.cb_max_memory_percent.is_some(),
            ),
            ("cb_use_cuda_graph", self.cb_use_cuda_graph.is_some()),
        ];
        let given = of_batching.iter().filter(|(_, is_given)| *is_given);
        for (option, _) in given.filter(|_| !self.continuous_batching) {
            let message = format!("`{option}` is of continuous batching, which is off");
            let help = "write `continuous_batching = true`, or remove it";
            parser.wrong::<()>(at(option), message, "changes nothing", help);
        }
        if self
            .cb_max_memory_percent
            .is_some_and(|Positive(share)| share > 1.0)
        {
            let message = "expected a share of memory up to 1";
            let help = "write 0.03 for three percent";
            parser.wrong::<()>(at("cb_max_memory_percent"), message, "out of range", help);
        }
    }

    async fn prepared(
        &self,
        context: &LaunchContext,
        supervisor: &Supervisor,
    ) -> Result<(), StepError> {
        self.common().prepare(context, supervisor).await
    }

    fn given(&self) -> Vec<Given> {
        let memory = self.cb_max_memory_percent.map(|Positive(share)| share);
        let valued = [
            Given::valued("device", self.device.as_ref()),
            Given::valued("dtype", self.dtype.as_ref()),
            Given::valued("attn_implementation", self.attn_implementation.as_ref()),
            Given::valued("quantization", self.quantization.map(Quantization::word)),
            Given::valued("cb_block_size", self.cb_block_size),
            Given::valued("cb_num_blocks", self.cb_num_blocks),
            Given::valued("cb_max_batch_tokens", self.cb_max_batch_tokens),
            Given::valued("cb_max_memory_percent", memory),
        ];
        let on = [
            ("compile", self.compile, Form::Bare),
            ("continuous_batching", self.continuous_batching, Form::Bare),
        ];
        let on = on.map(|(name, is_on, form)| Given::on(name, is_on, form));
        let graphs = self.cb_use_cuda_graph;
        let graphs = graphs.map(|is_on| Given::on("cb_use_cuda_graph", is_on, Form::Switch));
        valued
            .into_iter()
            .flatten()
            .chain(on)
            .chain(graphs)
            .collect()
    }

    fn launched(&self, context: &LaunchContext) -> Result<Launch, StepError> {
        let model = context.path(&self.model)?.display().to_string();
        if model.contains('@') {
            // It takes what follows for a revision of the hub.
            let message = format!("Transformers reads `{model}` as a model and its revision");
            return Err(
                StepError::new(message).help("put it into a folder without `@` in its path")
            );
        }
        let common = self.common();
        let mut launch = common.launch(context)?;
        if let Launch::Process { endpoint, .. } = &mut launch {
            let log = context.folder.join(STDERR_LOG).display().to_string();
            let exact = exact_length().to_string();
            let mut facts = BTreeMap::from([
                // It wants to be asked for the very words that it was started with.
                ("model".to_owned(), model),
                (LOG.to_owned(), log),
                (EXACT_LENGTH.to_owned(), exact),
            ]);
            let version = self.program(context)?.and_then(|program| version(&program));
            facts.extend(version.map(|version| ("version".to_owned(), version)));
            endpoint.learn(facts);
        }
        Ok(launch)
    }

    /// The program that is run, if that is known before.
    fn program(&self, context: &LaunchContext) -> Result<Option<PathBuf>, StepError> {
        if !self.command.is_empty() {
            return Ok(None);
        }
        let name = TRANSFORMERS.program[0];
        let Some(environment) = &self.environment else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            return Ok(find_program(name, Path::new("/"), &path).ok());
        };
        let (folder, _) = crate::python::folder(&context.path(environment)?)?;
        Ok(Some(folder.join("bin").join(name)))
    }

    async fn probed(&self, endpoint: &Endpoint) -> Probe {
        let server = Peer::of(endpoint);
        match http::get(server, HEALTH).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => return Probe::Unhealthy(format!("{} at `{HEALTH}`", answer.status)),
            Err(_) => {
                return Probe::NotYet(format!("nothing answers at `{}` yet", endpoint.url));
            }
        }
        let fact = |name: &str| endpoint.facts.get(name).map_or("", String::as_str);
        if let Err(not_yet) = token::generated(server, fact("model")).await {
            return not_yet;
        }
        let asked: Vec<Asked> = serde_json::from_str(fact(ASKED)).unwrap_or_default();
        let log = fs::read(fact(LOG)).unwrap_or_default();
        let told = applied(&String::from_utf8_lossy(&log));
        let found = differences(&asked, &told, TRANSFORMERS.aliases).join("; ");
        let found = (!found.is_empty()).then(|| (DIFFERENCES.to_owned(), found));
        Probe::Ready(found.into_iter().collect())
    }

    async fn emptied(&self, _: &Endpoint) -> Result<(), StepError> {
        // Where it keeps anything a plan says that it stays.
        Ok(())
    }
}

/// What bodies say, in place of `ignore_eos`, that answers end with their length: it refuses what OpenAI's protocol
/// does not know, and takes no token of this number for the end.
fn exact_length() -> Value {
    json!({ "ignore_eos": null, "generation_config": r#"{"eos_token_id": -1}"# })
}

/// What its log tells that it applied: of models that it cannot batch it serves one request after the other.
fn applied(log: &str) -> Value {
    let mut requests = log.lines().filter_map(|line| line.split_once(BATCHED));
    let last = requests
        .next_back()
        .and_then(|(_, of)| of.rsplit_once("CB: "));
    match last.map(|(_, is_batched)| is_batched.trim()) {
        Some("True") => json!({ "continuous_batching": true }),
        Some("False") => json!({ "continuous_batching": false }),
        _ => json!({}),
    }
}

/// The version of the package that a program is of, by what is installed beside it.
fn version(program: &Path) -> Option<String> {
    let program = program.canonicalize().ok()?;
    let library = program.parent()?.parent()?.join("lib");
    let pythons = fs::read_dir(library).ok()?.flatten();
    let sites = pythons.map(|python| python.path().join("site-packages"));
    let mut entries = sites.flat_map(|site| fs::read_dir(site).into_iter().flatten().flatten());
    entries.find_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let version = name
            .strip_prefix("transformers-")?
            .strip_suffix(".dist-info")?;
        Some(version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::super::asked::asked;
    use super::*;

    #[test]
    fn the_log_tells_whether_requests_are_batched() {
        let line = |is: &str| format!("[transformers] {BATCHED}/m/CB: x@main, CB: {is}\n");
        assert_eq!(applied("Loading weights: 100%\n"), json!({}));
        let told = applied(&(line("True") + &line("False")));
        assert_eq!(told, json!({ "continuous_batching": false }));
        let asked = asked(
            &[Given::on("continuous_batching", true, Form::Bare)],
            &Arguments::default(),
        );
        let found = differences(&asked, &told, &[]);
        assert_eq!(
            found,
            ["`continuous_batching` was asked to be true and is false"]
        );
        assert!(differences(&asked, &applied(&line("True")), &[]).is_empty());
    }

    #[test]
    fn the_version_is_that_of_what_is_installed() {
        let folder = tempfile::tempdir().expect("a folder");
        let site = folder.path().join("lib/python3.11/site-packages");
        fs::create_dir_all(site.join("transformers-5.19.0.dist-info")).expect("a folder");
        fs::create_dir_all(folder.path().join("bin")).expect("a folder");
        let program = folder.path().join("bin/transformers");
        assert_eq!(version(&program), None, "there is no program");
        fs::write(&program, "").expect("a file");
        assert_eq!(version(&program).as_deref(), Some("5.19.0"));
    }
}
