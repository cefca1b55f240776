//! `env.python`: a virtual environment of locked packages, such as an engine at a version.
//!
//! The lock is the result; the environment itself lies in a cache beyond all runs, and whoever needs it
//! makes sure that it is there ([`ready`]). What refers to an environment has the digest of its lock in
//! its key.

mod cache;
mod installer;
mod interpreter;
mod mend;
mod named;
mod runner;

pub(crate) use cache::{lock, user_cache};
pub(crate) use runner::{Failure, Runner};

use crate::files;
use crate::kinds::{Files, PythonEnvironment};
use cache::Cache;
use engine::options::Parser;
use engine::process::Supervisor;
use engine::source::Place;
use engine::step::{
    FailureClass, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Artifact, ArtifactKind, Text, TextPart};
use engine::value::Table;
use installer::{Installer, InstallerChoice, Wanted};
use interpreter::Interpreter;
use named::{LOCK, Named, Sources};
use std::path::{Path, PathBuf};

engine::options! {
    /// Options of `env.python`.
    pub struct EnvPython {
        /// What is wanted, each as pip reads it, such as `sglang==0.5.23`.
        requirements: Vec<Text> = Vec::new();
        /// Versions that packages have if they are needed at all.
        constraints: Vec<Text> = Vec::new();
        /// What wins over what packages want of each other; needs uv. `torch==2.13.0` sets a version, and a
        /// condition that never holds leaves a package out.
        overrides: Vec<Text> = Vec::new();
        /// A lock that was made before, in place of `requirements`: nothing is resolved.
        lock: Option<Artifact<Files>>;
        /// The Python to build on: a version such as `3.11`, a program, or a path.
        python: String = "python3".to_owned();
        /// The index in place of PyPI.
        index: Option<Text>;
        /// Further indexes. With `${secret.NAME}` in one, an environment that is missing later cannot be
        /// built from its lock alone.
        extra_index: Vec<Text> = Vec::new();
        /// Folders with wheels. Their paths are part of the key of whatever uses the environment.
        find_links: Vec<Artifact<Files>> = Vec::new();
        /// Who resolves and installs.
        installer: InstallerChoice = InstallerChoice::Automatic;
    }
}

impl StepType for EnvPython {
    const NAME: &'static str = "env.python";
    const KIND: StepKind = StepKind::Fetch;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Locks Python packages and builds a virtual environment of them, such as an engine at a version.";

    fn outputs() -> &'static [OutputSpec] {
        &[
            OutputSpec {
                name: "environment",
                file: "environment",
                kind: PythonEnvironment::NAME,
                doc: "Its lock, its Python and its platform, by which it is found in the cache or built again.",
            },
            OutputSpec {
                name: "lock",
                file: LOCK,
                kind: Files::NAME,
                doc: "The lock: every package with its version and the digests of its files.",
            },
        ]
    }

    fn identity(&self) -> Vec<(String, String)> {
        let platform = [std::env::consts::OS, std::env::consts::ARCH].join("-");
        vec![("platform".to_owned(), platform)]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        let has_lock = self.lock.is_some();
        if !has_lock && self.requirements.is_empty() {
            let help = "write `requirements = [\"PACKAGE==VERSION\"]`, or name a `lock`";
            parser.wrong::<()>(place, "nothing is to be installed", "no package", help);
        }
        let resolved = [
            ("requirements", self.requirements.is_empty()),
            ("constraints", self.constraints.is_empty()),
            ("overrides", self.overrides.is_empty()),
        ];
        for (option, _) in resolved
            .iter()
            .filter(|(_, is_absent)| has_lock && !is_absent)
        {
            let message = format!("a lock is taken as it is, so `{option}` change nothing");
            let help = format!("remove `lock` or `{option}`");
            parser.wrong::<()>(&at(option), message, "not used", &help);
        }
        if self.installer == InstallerChoice::Pip && !self.overrides.is_empty() {
            let help = "write `installer = \"uv\"`, or give the whole `lock`";
            parser.wrong::<()>(&at("overrides"), "pip knows no overrides", "needs uv", help);
        }
    }
}

#[async_trait::async_trait]
impl Step for EnvPython {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let runner = Runner::of(context);
        tokio::select! {
            built = self.build(context, &runner) => built,
            () = context.cancelled() => {
                Err(StepError::new("interrupted").class(FailureClass::Interrupted))
            }
        }
    }
}

impl EnvPython {
    async fn build(&self, context: &StepContext, runner: &Runner) -> Result<StepReport, StepError> {
        let cache = Cache::of_user()?;
        let installer = Installer::find(self.installer)?;
        let python = interpreter::find(&self.python, &installer, runner).await?;
        let sources = self.sources(context, Secrets::Told)?;
        let lock = self.lock(context, &installer, &python, &sources, runner);
        let lock = lock.await?;
        files::write(&context.output(LOCK), &lock)?;
        let kept = self.sources(context, Secrets::LeftOut)?;
        let named = Named::new(lock, &python, kept);
        named.write(&context.output("environment"))?;
        let n = named.n_packages();
        context.doing(format!("installing {n} packages by {}", installer.word()));
        // Secrets are known now, and kept nowhere.
        let mut whole = named.clone();
        whole.told.sources = sources;
        let is_new = cache.provide(&whole, &python, &installer, runner).await?;
        let how = match is_new {
            true => format!("built by {}", installer.word()),
            false => "there already".to_owned(),
        };
        let (version, lock) = (&python.version, named.short_lock());
        let packages = if n == 1 { "package" } else { "packages" };
        Ok(StepReport::line(format!(
            "Python {version}, {n} {packages}, lock {lock}, {how}"
        )))
    }

    async fn lock(
        &self,
        context: &StepContext,
        installer: &Installer,
        python: &Interpreter,
        sources: &Sources,
        runner: &Runner,
    ) -> Result<String, StepError> {
        if let Some(lock) = &self.lock {
            return files::read_text(&context.path(lock)?);
        }
        let texts = |list: &[Text]| -> Result<Vec<String>, StepError> {
            list.iter().map(|t| context.text(t)).collect()
        };
        let wanted = Wanted {
            requirements: texts(&self.requirements)?,
            constraints: texts(&self.constraints)?,
            overrides: texts(&self.overrides)?,
        };
        context.doing(format!("resolving by {}", installer.word()));
        installer.lock(&wanted, sources, python, runner).await
    }

    fn sources(&self, context: &StepContext, secrets: Secrets) -> Result<Sources, StepError> {
        let counts = |text: &&Text| secrets == Secrets::Told || is_plain(text);
        let index = self.index.iter().filter(counts);
        let extra = self.extra_index.iter().filter(counts);
        let links = self.find_links.iter().map(|folder| context.path(folder));
        Ok(Sources {
            index: index.map(|t| context.text(t)).next().transpose()?,
            extra_index: extra.map(|t| context.text(t)).collect::<Result<_, _>>()?,
            find_links: links
                .map(|path| Ok(path?.display().to_string()))
                .collect::<Result<_, StepError>>()?,
        })
    }
}

/// Whether sources whose addresses hold secrets are among them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrets {
    Told,
    LeftOut,
}

fn is_plain(text: &Text) -> bool {
    text.parts.iter().all(|p| matches!(p, TextPart::Plain(_)))
}

/// Makes sure that an environment, which `artifact` names, is whole, and returns its folder; it is built
/// again where it is missing or broken. Minutes may pass then; logs are in `logs`.
pub(crate) async fn ready(
    artifact: &Path,
    label: &str,
    supervisor: &Supervisor,
    logs: PathBuf,
) -> Result<PathBuf, StepError> {
    let named = Named::read(artifact)?;
    let cache = Cache::of_user()?;
    if cache.use_now(&named) {
        return Ok(cache.folder(&named));
    }
    let runner = Runner {
        supervisor: supervisor.clone(),
        label: label.to_owned(),
        logs,
        secrets: Vec::new(),
    };
    let installer = Installer::find(InstallerChoice::Automatic)?;
    let wanted = named.told.python.clone();
    let python = interpreter::find(&wanted, &installer, &runner).await?;
    if python.platform != named.told.platform {
        let message = format!(
            "the environment was locked for {}, and this is {}",
            named.told.platform, python.platform
        );
        return Err(StepError::new(message).help("run its step anew (`--fresh`)"));
    }
    let provided = cache.provide(&named, &python, &installer, &runner).await;
    provided.map_err(|error| match error.help {
        Some(_) => error,
        None => error.help("run the step of the environment anew (`--fresh`)"),
    })?;
    Ok(cache.folder(&named))
}

/// The folder of an environment of programs that a step needs for its own work, on this Python.
pub(crate) async fn tools(
    requirements: &[&str],
    python: &str,
    runner: &Runner,
) -> Result<PathBuf, StepError> {
    let cache = Cache::of_user()?;
    let installer = Installer::find(InstallerChoice::Automatic)?;
    let python = interpreter::find(python, &installer, runner).await?;
    let wanted = Wanted {
        requirements: requirements.iter().map(|r| (*r).to_owned()).collect(),
        constraints: Vec::new(),
        overrides: Vec::new(),
    };
    let sources = Sources::default();
    let lock = installer.lock(&wanted, &sources, &python, runner).await?;
    let named = Named::new(lock, &python, sources);
    cache.provide(&named, &python, &installer, runner).await?;
    Ok(cache.folder(&named))
}

/// The folder of an environment that [`ready`] has made sure of, and the beginning of the digest of its
/// lock.
pub(crate) fn folder(artifact: &Path) -> Result<(PathBuf, String), StepError> {
    let named = Named::read(artifact)?;
    let folder = Cache::of_user()?.folder(&named);
    Ok((folder, named.short_lock().to_owned()))
}

/// The version of a package of an environment, if its lock has that package.
pub(crate) fn version_of(artifact: &Path, package: &str) -> Option<String> {
    let named = Named::read(artifact).ok()?;
    named.version_of(package).map(str::to_owned)
}
