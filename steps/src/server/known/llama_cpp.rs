//! `server.llama_cpp`: llama.cpp's server, of a file of weights in its own form.
//!
//! What it keeps of prompts lies in its slots, one sequence each, and, where `cache_ram` allows it, in host
//! memory behind them. The first can be emptied slot by slot; nothing empties the second.

use super::applied::Source;
use super::asked::{Asked, Form, Given, asked};
use super::profiler::Reach;
use super::served::served;
use super::{ASKED, HEALTH, Nature, PORT, USUAL, check_arguments};
use crate::kinds::LlamaServer;
use crate::server::{child_environment, flags, flush_cache, port};
use engine::options::Parser;
use engine::process::Supervisor;
use engine::service::{Endpoint, Launch, LaunchContext, Probe};
use engine::source::Place;
use engine::step::{StepContext, StepError};
use engine::types::{Any, Arguments, Artifact, Text, TextPart};
use engine::value::Table;
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

const LLAMA_CPP: Nature = Nature {
    name: "llama.cpp",
    package: "llama-server",
    program: &["llama-server"],
    model_flag: &["--model"],
    version: ("/props", "/build_info"),
    applied: &[Source::Json("/props"), Source::Models],
    aliases: &[
        ("parallel", "total_slots"),
        ("alias", "model_alias"),
        ("metrics", "endpoint_metrics"),
        (SLOT_CONTEXT, "n_ctx"),
    ],
    ..USUAL
};

/// What follows from `ctx_size` and `parallel`, and is told.
const SLOT_CONTEXT: &str = "ctx_size of each slot";
/// A context is rounded up to a multiple of so many tokens.
const CONTEXT_STEP: u32 = 256;
/// How deep below a folder its file of weights may lie: a package has it in a folder of its own.
const DEPTH: usize = 3;
/// How many files are named where there are several.
const TOLD: usize = 8;

engine::choices! {
    /// Whether attention is computed block by block.
    pub enum FlashAttention {
        /// It is.
        On = "on",
        /// It is not.
        Off = "off",
        /// Where the device can.
        Auto = "auto",
    }
}

engine::choices! {
    /// How numbers of the key-value cache are kept.
    pub enum CacheType {
        /// 32 bits.
        F32 = "f32",
        /// 16 bits.
        F16 = "f16",
        /// 16 bits with a long exponent.
        Bf16 = "bf16",
        /// 8 bits in blocks.
        Q8Zero = "q8_0",
        /// 4 bits in blocks.
        Q4Zero = "q4_0",
        /// 4 bits in blocks with a least value.
        Q4One = "q4_1",
        /// 4 bits by a table.
        Iq4Nl = "iq4_nl",
        /// 5 bits in blocks.
        Q5Zero = "q5_0",
        /// 5 bits in blocks with a least value.
        Q5One = "q5_1",
    }
}

engine::options! {
    /// Options of `server.llama_cpp`.
    pub struct ServerLlamaCpp {
        /// The weights: a `.gguf` file, or a folder with one.
        model: Artifact<Any>;
        /// Which `.gguf` file of the folder, relative to it; the only one if absent.
        file: Option<String>;
        /// The program `llama-server`: a path, or what `env.llama_cpp` compiles; searched in `PATH` if absent.
        binary: Option<Artifact<LlamaServer>>;
        /// The program and its first arguments, in place of `binary`.
        command: Vec<Text> = Vec::new();
        /// The port on 127.0.0.1; any free one if absent.
        port: Option<u16>;
        /// The name under which the model is served; that of its file if absent.
        alias: Option<String>;
        /// Context of all slots together, prompts and answers; as much as the model was trained for if absent.
        ctx_size: Option<NonZeroU32>, in "tokens";
        /// Slots: sequences that may run together, each with an equal part of `ctx_size`; if absent 4 that
        /// share all of it.
        parallel: Option<NonZeroU32>, in "sequences";
        /// Whether slots share the context, whoever needs it, where `parallel` says how many there are.
        kv_unified: bool = false;
        /// Threads that make tokens; the server's own choice if absent.
        threads: Option<NonZeroU32>;
        /// Threads that read prompts; as many as make tokens if absent.
        threads_batch: Option<NonZeroU32>;
        /// Tokens that one step computes at most.
        batch_size: Option<NonZeroU32>, in "tokens";
        /// Tokens that a device computes at a time.
        ubatch_size: Option<NonZeroU32>, in "tokens";
        /// Layers that lie on GPUs; as many as fit if absent.
        n_gpu_layers: Option<u32>, in "layers";
        /// Whether attention is computed block by block.
        flash_attn: Option<FlashAttention>;
        /// How keys are kept.
        cache_type_k: Option<CacheType>;
        /// How values are kept.
        cache_type_v: Option<CacheType>;
        /// Whether a slot keeps its prompt for the next request that begins alike.
        cache_prompt: bool = true;
        /// The shortest piece that is taken from a slot's cache also where it has moved; none is if absent.
        cache_reuse: Option<NonZeroU32>, in "tokens";
        /// Host memory for prompts that slots give up, where the server's own choice is 8192. Nothing empties
        /// it, so that what is more than 0 needs `flush_cache = false`.
        cache_ram: u32 = 0, in "MiB";
        /// Whether it counts and tells, in its metrics.
        metrics: bool = true;
        /// Further flags as a table: `rope_scale = 2` becomes `--rope-scale 2`, `true` a bare flag, `false` none,
        /// a list one flag with several values, a table one JSON value. `{port}` stands for the port.
        args: Arguments = Arguments::default();
        /// Environment variables. `{port}` stands for the port.
        env: BTreeMap<String, Text> = BTreeMap::new();
        /// Environment variables that are passed on as they are. Values other than those of `PATH`,
        /// `HOME` and `LANG` are part of the key.
        inherit: Vec<String> = ["PATH", "HOME", "LANG"].map(str::to_owned).to_vec();
        /// Whether its slots are emptied between samples.
        flush_cache: bool = true;
    }
}

served! {
    ServerLlamaCpp, "server.llama_cpp", 1,
    "Launches llama.cpp's server, and holds it to what was asked of it."
}

impl ServerLlamaCpp {
    /// It takes whatever it finds, unless its flags say otherwise. A plan says it in `resources`.
    fn gpus_of(&self) -> Option<u32> {
        None
    }

    fn health_of(&self) -> Option<String> {
        Some(HEALTH.to_owned())
    }

    fn identity_of(&self) -> Vec<(String, String)> {
        let cwd = std::env::current_dir().unwrap_or_default();
        let usual = [Text {
            parts: vec![TextPart::Plain(LLAMA_CPP.program[0].to_owned())],
        }];
        // A binary is part of the key by its content.
        let argv = match (&self.binary, self.command.as_slice()) {
            (Some(_), []) => &[],
            (None, []) => &usual[..],
            (_, command) => command,
        };
        crate::command::identity(argv, &self.inherit, &cwd)
    }

    fn check_options(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        check_arguments(table, &LLAMA_CPP, parser);
        let at = |option: &str| table.get(option).map_or(place, |value| &value.place);
        if self.cache_ram > 0 && self.flush_cache {
            let message = "prompts in host memory stay there whatever is emptied between samples";
            let help = "remove `cache_ram`, or write `flush_cache = false` and give each sample prompts of its own";
            parser.wrong::<()>(at("cache_ram"), message, "cannot be emptied", help);
        }
        if self.kv_unified && self.parallel.is_none() {
            let message = "without `parallel` slots share their context already";
            let help = "remove it, or say how many slots there are";
            parser.wrong::<()>(at("kv_unified"), message, "changes nothing", help);
        }
        if self.cache_reuse.is_some() && !self.cache_prompt {
            let message = "`cache_reuse` takes from what `cache_prompt` keeps";
            parser.wrong::<()>(
                at("cache_reuse"),
                message,
                "nothing is kept",
                "remove one of both",
            );
        }
        if self.binary.is_some() && !self.command.is_empty() {
            let message = "a program is given twice: `binary` and `command`";
            parser.wrong::<()>(
                at("command"),
                message,
                "a second program",
                "remove one of both",
            );
        }
        let file = self.file.as_deref();
        if file.is_some_and(|file| !is_within(Path::new(file))) {
            let message = "`file` names a file of the folder `model`";
            let help = "write its path from there, such as `model.gguf`";
            parser.wrong::<()>(at("file"), message, "outside the folder", help);
        }
    }

    async fn prepared(&self, _: &LaunchContext, _: &Supervisor) -> Result<(), StepError> {
        Ok(())
    }

    fn given(&self) -> Vec<Given> {
        let word = |kind: Option<CacheType>| kind.map(CacheType::word);
        let valued = [
            Given::valued("alias", self.alias.as_ref()),
            Given::valued("ctx_size", self.ctx_size),
            Given::valued("parallel", self.parallel),
            Given::valued("threads", self.threads),
            Given::valued("threads_batch", self.threads_batch),
            Given::valued("batch_size", self.batch_size),
            Given::valued("ubatch_size", self.ubatch_size),
            Given::valued("n_gpu_layers", self.n_gpu_layers),
            Given::valued("flash_attn", self.flash_attn.map(FlashAttention::word)),
            Given::valued("cache_type_k", word(self.cache_type_k)),
            Given::valued("cache_type_v", word(self.cache_type_v)),
            Given::valued("cache_reuse", self.cache_reuse),
            Given::valued("cache_ram", Some(self.cache_ram)),
        ];
        let on = [
            ("kv_unified", self.kv_unified, Form::Bare),
            ("cache_prompt", self.cache_prompt, Form::Switch),
            ("metrics", self.metrics, Form::Bare),
        ];
        let on = on.map(|(name, is_on, form)| Given::on(name, is_on, form));
        valued.into_iter().flatten().chain(on).collect()
    }

    /// What is held against what the server tells.
    fn asked(&self) -> Vec<Asked> {
        let mut given = self.given();
        given.extend(Given::valued(SLOT_CONTEXT, self.slot_context()));
        asked(&given, &self.args)
    }

    /// The context that each slot gets of what is asked for.
    fn slot_context(&self) -> Option<u32> {
        let all = self.ctx_size?.get().next_multiple_of(CONTEXT_STEP);
        match self.parallel {
            Some(n) if !self.kv_unified => Some((all / n).next_multiple_of(CONTEXT_STEP)),
            _ => Some(all),
        }
    }

    fn launched(&self, context: &LaunchContext) -> Result<Launch, StepError> {
        let port = port(self.port)?.to_string();
        let fill = |text: &Text| {
            let text = StepContext::resolve_text(&context.resolved, text)?;
            Ok::<_, StepError>(text.replace(PORT, &port))
        };
        let mut argv = match (&self.binary, self.command.as_slice()) {
            (Some(binary), []) => vec![program(&context.path(binary)?)?],
            (None, []) => vec![LLAMA_CPP.program[0].to_owned()],
            (_, command) => command.iter().map(fill).collect::<Result<_, _>>()?,
        };
        let weights = weights(&context.path(&self.model)?, self.file.as_deref())?;
        argv.extend(["--model".to_owned(), weights.display().to_string()]);
        argv.extend(["--host", "127.0.0.1", "--port", &port].map(str::to_owned));
        let given = self.given();
        argv.extend(given.iter().flat_map(|g| g.words(LLAMA_CPP.spelling)));
        if self.flush_cache {
            // It empties slots only where it could save them, and puts names behind the path as it stands.
            let folder = format!("{}/", context.folder.display());
            argv.extend(["--slot-save-path".to_owned(), folder]);
        }
        let flags = flags(&self.args, &context.resolved)?;
        argv.extend(flags.into_iter().map(|flag| flag.replace(PORT, &port)));
        let declared = self.env.iter();
        let declared = declared.map(|(name, value)| Ok((name.clone(), fill(value)?)));
        let declared = declared.collect::<Result<_, StepError>>()?;
        let asked = serde_json::to_string(&self.asked())
            .map_err(|e| StepError::because("could not write down what is asked for", e))?;
        let url = format!("http://127.0.0.1:{port}");
        let reach = Reach::never(
            LLAMA_CPP.name,
            "use a profiler from outside, such as `perf`",
        );
        let facts = [
            ("port".to_owned(), port),
            (ASKED.to_owned(), asked),
            reach.fact()?,
        ];
        let facts = BTreeMap::from(facts);
        let variables = child_environment(declared, &self.inherit);
        Ok(Launch::Process {
            spec: context.process(argv, variables, &context.folder),
            endpoint: Endpoint::new(url, facts),
        })
    }

    async fn probed(&self, endpoint: &Endpoint) -> Probe {
        super::probe(&LLAMA_CPP, endpoint).await
    }

    async fn emptied(&self, endpoint: &Endpoint) -> Result<(), StepError> {
        match self.flush_cache {
            true => flush_cache(endpoint).await,
            false => Ok(()),
        }
    }
}

/// Whether a path leads to nothing but what lies below where it is taken from.
fn is_within(path: &Path) -> bool {
    let mut parts = path.components();
    parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// The program itself: an artifact may be the folder that it lies in.
fn program(path: &Path) -> Result<String, StepError> {
    let inside = path.join(LLAMA_CPP.program[0]);
    let found = if path.is_dir() { &inside } else { path };
    match found.is_file() {
        true => Ok(found.display().to_string()),
        false => Err(StepError::new(format!(
            "there is no `llama-server` in `{}`",
            path.display()
        ))
        .help("name the program itself, or let `env.llama_cpp` compile it")),
    }
}

/// The file of weights that a path means.
fn weights(path: &Path, file: Option<&str>) -> Result<PathBuf, StepError> {
    let there = path.display();
    match file {
        Some(file) if path.join(file).is_file() => return Ok(path.join(file)),
        Some(file) => {
            let found = StepError::new(format!("there is no `{file}` in `{there}`"));
            return Err(found.help(format!("it has {}", listed(path, &all_weights(path)))));
        }
        None if path.is_file() => return Ok(path.to_owned()),
        None => {}
    }
    let found = all_weights(path);
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(StepError::new(format!("there is no `.gguf` file in `{there}`"))
            .help("llama.cpp reads weights in its own form: name such a file, or a folder that has one")),
        several => Err(StepError::new(format!("several files of `{there}` end with `.gguf`"))
            .help(format!("name one by `file`: {}", listed(path, several)))),
    }
}

/// All files of weights below a folder, in order; of one in several parts the first.
fn all_weights(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), DEPTH)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && depth > 0 {
                folders.push((path, depth - 1));
            } else if path.is_file() && name.ends_with(".gguf") && !is_later_part(&name) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Whether a file is a part of weights besides the first: `NAME-00002-of-00003.gguf`.
fn is_later_part(name: &str) -> bool {
    let stem = name.strip_suffix(".gguf").unwrap_or(name);
    let part = stem
        .rsplit_once("-of-")
        .and_then(|(before, _)| before.rsplit_once('-'));
    part.is_some_and(|(_, n)| n.len() == 5 && n.parse::<u32>().is_ok_and(|n| n > 1))
}

fn listed(folder: &Path, files: &[PathBuf]) -> String {
    let names = files.iter().take(TOLD);
    let names = names.map(|file| file.strip_prefix(folder).unwrap_or(file));
    let names: Vec<String> = names.map(|name| format!("`{}`", name.display())).collect();
    match names.is_empty() {
        true => "no `.gguf` file".to_owned(),
        false => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, "").expect("a file");
        }
        folder
    }

    #[test]
    fn the_only_file_of_weights_is_meant() {
        let one = folder(&["a/x.gguf", "a/readme.md"]);
        let found = weights(one.path(), None).expect("found");
        assert!(found.ends_with("a/x.gguf"));
        assert_eq!(weights(&found, None).expect("itself"), found);
        let none = weights(folder(&["readme.md"]).path(), None).expect_err("none");
        assert!(none.message.contains("no `.gguf` file"), "{none:?}");
    }

    #[test]
    fn of_several_one_is_named() {
        let several = folder(&["x.gguf", "y.gguf"]);
        let error = weights(several.path(), None).expect_err("two");
        assert_eq!(
            error.help.as_deref(),
            Some("name one by `file`: `x.gguf`, `y.gguf`")
        );
        let named = weights(several.path(), Some("y.gguf")).expect("named");
        assert!(named.ends_with("y.gguf"));
        let other = weights(several.path(), Some("z.gguf")).expect_err("another");
        assert!(other.help.is_some_and(|help| help.contains("`x.gguf`")));
    }

    #[test]
    fn weights_in_parts_are_one() {
        let parts = folder(&["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]);
        let found = weights(parts.path(), None).expect("one");
        assert!(found.ends_with("m-00001-of-00002.gguf"));
        assert!(!is_later_part("model-12-of-many.gguf"));
    }

    #[test]
    fn only_what_lies_in_the_folder_can_be_named() {
        assert!(is_within(Path::new("a/b.gguf")));
        for path in ["../b.gguf", "/b.gguf", "a/../../b.gguf"] {
            assert!(!is_within(Path::new(path)), "{path}");
        }
    }
}
