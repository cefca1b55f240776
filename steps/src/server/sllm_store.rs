//! `server.sllm_store`: the ServerlessLLM store, which reads checkpoints into pinned memory and from there onto GPUs.
//!
//! It is asked over gRPC (crate `sllm_store`), and serves once its whole pool is pinned, which may take a second
//! for every two gigabytes. What it says that it has is held against what was asked for; a store that has
//! something else has failed.

use super::known::{enter, program_of};
use super::{child_environment, port, port_released};
use crate::diagnosis;
use crate::kinds::{ModelStore, PythonEnvironment};
use crate::python;
use engine::logs::Diagnosis;
use engine::options::Parser;
use engine::process::{STDERR_LOG, Supervisor};
use engine::service::{Endpoint, Launch, LaunchContext, Probe, Service, ServiceType};
use engine::source::Place;
use engine::step::{StepContext, StepError};
use engine::types::{Artifact, ArtifactKind, Positive, Text, TextPart};
use engine::value::Table;
use sllm_store::{Config, Store};
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::time::Duration;

/// The fact that names the file of its log.
pub(crate) const LOG: &str = "log";
/// The package that brings it.
const PACKAGE: &str = "serverless-llm-store";
/// Its program and first word.
const PROGRAM: [&str; 2] = ["sllm-store", "start"];
/// Stands for the port in `command` and `env`.
const PORT: &str = "{port}";
/// How long it may take to answer that it is there.
const LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to give its memory back.
const CLEAR_LIMIT: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

engine::options! {
    /// Options of `server.sllm_store`.
    pub struct ServerSllmStore {
        /// The environment that has `serverless-llm-store`, as `env.python` builds one; its program is searched in
        /// `PATH` if absent.
        environment: Option<Artifact<PythonEnvironment>>;
        /// The program and its first arguments, in place of `sllm-store start`.
        command: Vec<Text> = Vec::new();
        /// The port on 127.0.0.1; any free one if absent. Its own client in Python knows no other than 8073.
        port: Option<u16>;
        /// The folder below which its own clients name models; the launch's own folder if absent. What
        /// `checkpoint.load` loads may lie anywhere.
        storage: Option<Text>;
        /// Pinned host memory. The largest model must fit into it.
        pool: Positive = Positive(4.0), in "GiB";
        /// The pieces of the pool, and the most that one read asks for.
        chunk: NonZeroU32 = NonZeroU32::new(32).unwrap_or(NonZeroU32::MIN), in "MiB";
        /// Threads that read.
        threads: NonZeroU32 = NonZeroU32::new(4).unwrap_or(NonZeroU32::MIN);
        /// GPUs that it sees, and may copy to; those of `resources` if absent.
        gpus: Option<NonZeroU32>, in "devices";
        /// Environment variables. `{port}` stands for the port.
        env: BTreeMap<String, Text> = BTreeMap::new();
        /// Environment variables that are passed on as they are. Values other than those of `PATH`,
        /// `HOME` and `LANG` are part of the key.
        inherit: Vec<String> = ["PATH", "HOME", "LANG"].map(str::to_owned).to_vec();
    }
}

impl ServiceType for ServerSllmStore {
    const NAME: &'static str = "server.sllm_store";
    const KIND: &'static str = ModelStore::NAME;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Launches the ServerlessLLM store, and holds it to the pool that was asked of it.";
    const FACTS: &'static [&'static str] =
        &["port", LOG, "version", "environment", "pool", "chunk"];
    const READY_TIMEOUT: Duration = Duration::from_secs(900);

    fn identity(&self) -> Vec<(String, String)> {
        let cwd = std::env::current_dir().unwrap_or_default();
        let usual = [Text {
            parts: vec![TextPart::Plain(PROGRAM[0].to_owned())],
        }];
        // An environment is part of the key by its lock.
        let argv = match (&self.environment, self.command.as_slice()) {
            (Some(_), []) => &[],
            (None, []) => &usual[..],
            (_, command) => command,
        };
        crate::command::identity(argv, &self.inherit, &cwd)
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        if self.asked().is_some() {
            return;
        }
        let at = table.get("pool").map_or(place, |value| &value.place);
        let chunk = self.chunk.get();
        let message = format!(
            "the pool is cut into pieces of {chunk} MiB, and {} GiB are no whole number of them",
            self.pool.0
        );
        let help = "give `pool` a multiple of `chunk`";
        parser.wrong::<()>(at, message, "no whole number", help);
    }
}

#[async_trait::async_trait]
impl Service for ServerSllmStore {
    fn fixed_port(&self) -> Option<u16> {
        self.port.filter(|port| *port != 0)
    }

    fn gpus(&self) -> Option<u32> {
        self.gpus.map(NonZeroU32::get)
    }

    async fn prepare(
        &self,
        context: &LaunchContext,
        supervisor: &Supervisor,
    ) -> Result<(), StepError> {
        let Some(environment) = &self.environment else {
            return Ok(());
        };
        let logs = context.folder.join("environment");
        let artifact = context.path(environment)?;
        let ready = python::ready(&artifact, &context.node, supervisor, logs);
        ready.await.map(drop)
    }

    fn launch(&self, context: &LaunchContext) -> Result<Launch, StepError> {
        let port = port(self.port)?.to_string();
        let fill = |text: &Text| {
            let text = StepContext::resolve_text(&context.resolved, text)?;
            Ok::<_, StepError>(text.replace(PORT, &port))
        };
        let log = context.folder.join(STDERR_LOG).display().to_string();
        let mut facts = BTreeMap::from([("port".to_owned(), port.clone()), (LOG.to_owned(), log)]);
        let declared = self.env.iter();
        let declared = declared.map(|(name, value)| Ok((name.clone(), fill(value)?)));
        let declared: BTreeMap<_, _> = declared.collect::<Result<_, StepError>>()?;
        let mut variables = child_environment(declared, &self.inherit);
        // What Python says is to stand in the log when it is said.
        let usual = ("PYTHONUNBUFFERED".to_owned(), "1".to_owned());
        variables.entry(usual.0).or_insert(usual.1);
        let mut program = PROGRAM.map(str::to_owned).to_vec();
        if let Some(artifact) = &self.environment {
            let artifact = context.path(artifact)?;
            let (folder, lock) = python::folder(&artifact)?;
            if self.command.is_empty() {
                program[0] = program_of(&folder, PROGRAM[0], "ServerlessLLM store", PACKAGE)?;
            }
            enter(&folder, &mut variables);
            let version = python::version_of(&artifact, PACKAGE);
            facts.extend(version.map(|version| ("version".to_owned(), version)));
            facts.insert("environment".to_owned(), lock);
        }
        let mut argv = match self.command.as_slice() {
            [] => program,
            command => command.iter().map(fill).collect::<Result<_, _>>()?,
        };
        let storage = match &self.storage {
            Some(storage) => fill(storage)?,
            None => context.folder.display().to_string(),
        };
        argv.extend(self.flags(&port, storage)?);
        let url = format!("http://127.0.0.1:{port}");
        Ok(Launch::Process {
            spec: context.process(argv, variables, &context.folder),
            endpoint: Endpoint::new(url, facts),
        })
    }

    async fn probe(&self, endpoint: &Endpoint) -> Probe {
        let Ok(mut store) = Store::connect(&endpoint.url, LIMIT).await else {
            let url = &endpoint.url;
            let message = format!("nothing answers at `{url}` yet: it pins its pool first");
            return Probe::NotYet(message);
        };
        match store.config().await {
            Ok(config) => self.held_to(config, endpoint),
            Err(error) => Probe::Unhealthy(error.to_string()),
        }
    }

    fn diagnose(&self, log: &str) -> Option<Diagnosis> {
        diagnosis::diagnose(log)
    }

    async fn reset(&self, endpoint: &Endpoint) -> Result<(), StepError> {
        let failed = |error: sllm_store::StoreError| {
            StepError::because("could not empty the store's pool", error)
        };
        let connected = Store::connect(&endpoint.url, CLEAR_LIMIT).await;
        let mut store = connected.map_err(failed)?;
        store.clear().await.map_err(failed)
    }

    async fn released(&self, endpoint: &Endpoint) -> Result<(), String> {
        port_released(endpoint)
    }
}

impl ServerSllmStore {
    /// What it is to have, if the pool is a whole number of pieces.
    fn asked(&self) -> Option<Config> {
        let mib = self.pool.0 * 1024.0;
        let chunk = u64::from(self.chunk.get());
        let is_whole = mib.fract() == 0.0 && (mib as u64).is_multiple_of(chunk);
        is_whole.then_some(Config {
            pool: mib as u64 * MIB,
            chunk: chunk * MIB,
        })
    }

    /// Its flags; it counts in powers of two.
    fn flags(&self, port: &str, storage: String) -> Result<Vec<String>, StepError> {
        let asked = self.asked();
        let Config { pool, chunk } =
            asked.ok_or_else(|| StepError::new("the pool is no whole number of pieces"))?;
        let flags = [
            ("--host", "127.0.0.1".to_owned()),
            ("--port", port.to_owned()),
            ("--storage-path", storage),
            ("--mem-pool-size", format!("{}MB", pool / MIB)),
            ("--chunk-size", format!("{}MB", chunk / MIB)),
            ("--num-thread", self.threads.to_string()),
        ];
        let words = flags.into_iter();
        Ok(words
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect())
    }

    /// Whether it has what was asked for, by its own word.
    fn held_to(&self, told: Config, endpoint: &Endpoint) -> Probe {
        let log = endpoint.facts.get(LOG).map(fs::read);
        let log = log.and_then(Result::ok).unwrap_or_default();
        let threads = threads(&String::from_utf8_lossy(&log));
        let asked = self.asked().unwrap_or(told);
        let pairs = [
            ("pool", "bytes", Some(told.pool), asked.pool),
            ("chunk", "bytes", Some(told.chunk), asked.chunk),
            ("threads", "threads", threads, self.threads.get().into()),
        ];
        let differs = pairs.iter().filter_map(|(name, unit, told, asked)| {
            let told = (*told).filter(|told| told != asked)?;
            Some(format!(
                "`{name}` was asked to be {asked} {unit} and is {told}"
            ))
        });
        let differs: Vec<String> = differs.collect();
        if !differs.is_empty() {
            return Probe::Failed(format!("it serves, but {}", differs.join("; ")));
        }
        Probe::Ready(BTreeMap::from([
            ("pool".to_owned(), told.pool.to_string()),
            ("chunk".to_owned(), told.chunk.to_string()),
        ]))
    }
}

/// With how many threads it reads, which it tells in its log alone.
fn threads(log: &str) -> Option<u64> {
    let line = log
        .lines()
        .find_map(|line| line.split_once("I/O threads: "));
    let number = line?.1.split(|c: char| !c.is_ascii_digit()).next()?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_double::{Double, Manner, POOL};
    use engine::step::Resolved;

    fn store() -> ServerSllmStore {
        ServerSllmStore {
            environment: None,
            command: Vec::new(),
            port: None,
            storage: None,
            pool: Positive(POOL as f64 / (1_u64 << 30) as f64),
            chunk: NonZeroU32::new(16).unwrap(),
            threads: NonZeroU32::new(4).unwrap(),
            gpus: NonZeroU32::new(2),
            env: BTreeMap::new(),
            inherit: Vec::new(),
        }
    }

    #[test]
    fn the_launch_line_is_that_of_the_package() {
        let folder = tempfile::tempdir().unwrap();
        let context = LaunchContext {
            node: "store".to_owned(),
            folder: folder.path().to_owned(),
            resolved: Resolved::default(),
            claims: BTreeMap::new(),
        };
        let mut service = store();
        service.pool = Positive(1.5);
        let Ok(Launch::Process { spec, endpoint }) = service.launch(&context) else {
            panic!("no process");
        };
        let port = &endpoint.facts["port"];
        let storage = folder.path().display();
        let expected = format!(
            "sllm-store start --host 127.0.0.1 --port {port} --storage-path {storage} --mem-pool-size 1536MB --chunk-size 16MB --num-thread 4"
        );
        assert_eq!(spec.argv.join(" "), expected);
        assert_eq!(endpoint.url, format!("http://127.0.0.1:{port}"));
        assert_eq!(endpoint.facts[LOG], spec.stderr.display().to_string());
        assert_eq!(spec.env["PYTHONUNBUFFERED"], "1");
        assert_eq!(Service::gpus(&service), Some(2));
    }

    #[tokio::test]
    async fn it_is_held_to_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let double = Double::start(Manner::Documented, &log);
        let facts = BTreeMap::from([(LOG.to_owned(), log.display().to_string())]);
        let endpoint = Endpoint::new(double.url.as_str(), facts);
        let Probe::Ready(facts) = store().probe(&endpoint).await else {
            panic!("not ready");
        };
        assert_eq!(facts["pool"], POOL.to_string());
        let line = "I20260301 18:12:39.000001  4711 checkpoint_store.cpp:46] I/O threads: 2, chunk size: 16MB\n";
        fs::write(&log, line).unwrap();
        let mut other = store();
        other.pool = Positive(2.0);
        let expected = "it serves, but `pool` was asked to be 2147483648 bytes and is 1073741824; `threads` was asked to be 4 threads and is 2";
        let found = other.probe(&endpoint).await;
        assert_eq!(found, Probe::Failed(expected.to_owned()));
        store().reset(&endpoint).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_does_not_answer_yet_is_waited_for() {
        let endpoint = Endpoint::new("http://127.0.0.1:9", BTreeMap::new());
        let found = store().probe(&endpoint).await;
        assert!(matches!(found, Probe::NotYet(_)), "{found:?}");
        let folder = tempfile::tempdir().unwrap();
        let manner = Manner::Refuses("GetServerConfig");
        let double = Double::start(manner, &folder.path().join("log"));
        let facts = BTreeMap::from([("port".to_owned(), double.port.to_string())]);
        let endpoint = Endpoint::new(double.url.as_str(), facts);
        let found = store().probe(&endpoint).await;
        assert!(matches!(found, Probe::Unhealthy(_)), "{found:?}");
        // It still listens.
        assert!(store().released(&endpoint).await.is_err());
    }

    #[test]
    fn a_pool_is_a_whole_number_of_pieces() {
        let mut service = store();
        assert!(service.asked().is_some());
        for pool in [0.01, 1.0 / 128.0, 0.015] {
            service.pool = Positive(pool);
            assert_eq!(service.asked(), None, "{pool}");
        }
    }
}
