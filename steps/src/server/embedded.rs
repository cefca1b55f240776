//! `server.embedded`: the built-in server, started as another process of this binary.

use crate::diagnosis;
use crate::http::{self, Peer};
use crate::kinds::{InferenceServer, Model};
use engine::logs::Diagnosis;
use engine::options::Parser;
use engine::service::{Endpoint, Launch, LaunchContext, Probe, Service, ServiceType};
use engine::source::Place;
use engine::step::StepError;
use engine::types::{Arguments, Artifact, ArtifactKind, Positive};
use engine::value::{Kind, Table};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// Answers with status 200 once the model is loaded.
const HEALTH: &str = "/health";

/// Flags that every launch has, whatever the plan says.
const OWN_FLAGS: [&str; 3] = ["model_path", "port", "address_file"];

engine::choices! {
    /// Where weights come from.
    pub enum LoadFormat {
        /// The model folder's own weights if it has any, else as `dummy`.
        Auto = "auto",
        /// Random values of ±0.001: right for timing.
        Dummy = "dummy",
        /// Random values with a standard deviation of 0.02: logits that differ clearly.
        DummyScaled = "dummy-scaled",
        /// The model folder's own safetensors files.
        Safetensors = "safetensors",
    }
}

engine::choices! {
    /// Which waiting request goes next.
    pub enum SchedulePolicy {
        /// First come, first served.
        Fcfs = "fcfs",
        /// Longest prefix match: first what finds most of its prompt in the cache.
        Lpm = "lpm",
    }
}

engine::choices! {
    /// When prefixes are copied to host memory.
    pub enum WritePolicy {
        /// Once they are computed.
        Through = "write_through",
        /// Once they are kept a second time: a prompt is when it was computed, and when its request
        /// ends.
        Selective = "write_through_selective",
        /// Once the device evicts them.
        Back = "write_back",
    }
}

/// The slowest copies that the server makes, GB/s.
const SLOWEST: f64 = 0.01;

engine::options! {
    /// Options of `server.embedded`.
    pub struct ServerEmbedded {
        /// The model's folder.
        model: Artifact<Model>;
        /// The name under which the model is served; `default` if absent.
        served_model_name: Option<String>;
        /// Where weights come from; `auto` if absent.
        load_format: Option<LoadFormat>;
        /// The port on 127.0.0.1; any free one if absent.
        port: Option<u16>;
        /// Tokens that the key-value cache holds; derived from memory if absent.
        max_total_tokens: Option<NonZeroU32>, in "tokens";
        /// Tokens per block of the key-value cache.
        page_size: Option<NonZeroU32>, in "tokens";
        /// Which waiting request goes next; `fcfs` if absent.
        schedule_policy: Option<SchedulePolicy>;
        /// Whether nothing stays in the cache once nobody uses it.
        disable_radix_cache: bool = false;
        /// Whether prefixes are kept in host memory too, behind the cache.
        enable_hierarchical_cache: bool = false;
        /// Host memory for prefixes, in sizes of the cache; 2 if absent.
        hicache_ratio: Option<Positive>;
        /// When prefixes are copied to host memory; `write_through` if absent.
        hicache_write_policy: Option<WritePolicy>;
        /// Makes copies to and from host memory take as long as at this rate, each way; as long as
        /// they take if absent.
        hicache_bandwidth: Option<Positive>, in "GB/s";
        /// Sequences that may run together.
        max_running_requests: Option<NonZeroU32>, in "requests";
        /// Prompt tokens of one request that one step computes at most.
        chunked_prefill_size: Option<NonZeroU32>, in "tokens";
        /// Prompt tokens that one step computes at most, all requests together.
        max_prefill_tokens: Option<NonZeroU32>, in "tokens";
        /// Longest sequence, prompt and answer.
        context_length: Option<NonZeroU32>, in "tokens";
        /// Threads of the forward pass; one if absent, which leaves the other cores to the load
        /// generator.
        threads: Option<NonZeroU32>, in "threads";
        /// Whether the same prompt has bit-equal logits whatever runs beside it; slower.
        deterministic: bool = false;
        /// Starts the random numbers of dummy weights and of sampling; 0 if absent.
        seed: Option<u64>;
        /// Further flags of `benchwright server`: `max_queued_requests = 8` becomes
        /// `--max-queued-requests 8`. What is absent here and there is as `benchwright server`
        /// has it.
        args: Arguments = Arguments::default();
    }
}

impl ServiceType for ServerEmbedded {
    const NAME: &'static str = "server.embedded";
    const KIND: &'static str = InferenceServer::NAME;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Launches the built-in inference server, which computes a real transformer on the CPU.";
    const FACTS: &'static [&'static str] = super::FACTS;
    const READY_TIMEOUT: Duration = Duration::from_secs(300);

    fn identity(&self) -> Vec<(String, String)> {
        vec![("binary".to_owned(), binary_digest().to_owned())]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        if self.disable_radix_cache && self.enable_hierarchical_cache {
            let message = "without a prefix cache host memory has nothing to hold";
            let help = "remove `disable_radix_cache` or `enable_hierarchical_cache`";
            let option = "enable_hierarchical_cache";
            parser.wrong::<()>(&at(option), message, "nothing to hold", help);
        }
        if self.hicache_bandwidth.is_some_and(|rate| rate.0 < SLOWEST) {
            let message = format!("expected at least {SLOWEST} GB/s");
            let help = "a slower copy would hold a step up for minutes";
            parser.wrong::<()>(&at("hicache_bandwidth"), message, "too slow", help);
        }
        let Some(Kind::Table(args)) = table.get("args").map(|value| &value.kind) else {
            return;
        };
        let given = |name: &str| table.get(name).is_some() || OWN_FLAGS.contains(&name);
        for (key, _) in args
            .entries
            .iter()
            .filter(|(key, _)| given(&key.name.replace('-', "_")))
        {
            let message = format!("`{}` is given to the server already", key.name);
            let help = "remove it here, or beside `args`";
            parser.wrong::<()>(&key.place, message, "the same flag again", help);
        }
    }
}

/// The digest of this binary: another build is another server.
fn binary_digest() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| {
        let mut hasher = blake3::Hasher::new();
        let hashed = std::fs::File::open("/proc/self/exe")
            .and_then(|file| hasher.update_reader(file).map(drop));
        hashed.map_or_else(
            |e| format!("unreadable: {e}"),
            |()| hasher.finalize().to_hex().to_string(),
        )
    })
}

impl ServerEmbedded {
    fn flags(&self) -> Vec<String> {
        let mut flags: Vec<String> = Vec::new();
        let mut flag = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                flags.extend([name.to_owned(), value]);
            }
        };
        flag("--served-model-name", self.served_model_name.clone());
        flag(
            "--load-format",
            self.load_format.map(|f| f.word().to_owned()),
        );
        flag("--seed", self.seed.map(|seed| seed.to_string()));
        let numbers = [
            ("--threads", self.threads),
            ("--max-total-tokens", self.max_total_tokens),
            ("--page-size", self.page_size),
            ("--max-running-requests", self.max_running_requests),
            ("--chunked-prefill-size", self.chunked_prefill_size),
            ("--max-prefill-tokens", self.max_prefill_tokens),
            ("--context-length", self.context_length),
        ];
        for (name, value) in numbers {
            flag(name, value.map(|v| v.to_string()));
        }
        flags.extend(self.cache_flags());
        if self.deterministic {
            flags.push("--deterministic".to_owned());
        }
        flags
    }

    /// What is kept in the cache, and who goes first because of it.
    fn cache_flags(&self) -> Vec<String> {
        let positive = |value: Option<Positive>| value.map(|Positive(value)| value.to_string());
        let valued = [
            (
                "--schedule-policy",
                self.schedule_policy.map(|policy| policy.word().to_owned()),
            ),
            ("--hicache-ratio", positive(self.hicache_ratio)),
            (
                "--hicache-write-policy",
                self.hicache_write_policy.map(|p| p.word().to_owned()),
            ),
            ("--hicache-bandwidth", positive(self.hicache_bandwidth)),
        ];
        let bare = [
            ("--disable-radix-cache", self.disable_radix_cache),
            (
                "--enable-hierarchical-cache",
                self.enable_hierarchical_cache,
            ),
        ];
        let valued = valued
            .into_iter()
            .filter_map(|(name, value)| Some([name.to_owned(), value?]));
        let bare = bare.into_iter().filter(|(_, is_on)| *is_on);
        valued
            .flatten()
            .chain(bare.map(|(name, _)| name.to_owned()))
            .collect()
    }
}

#[async_trait::async_trait]
impl Service for ServerEmbedded {
    fn fixed_port(&self) -> Option<u16> {
        self.port.filter(|port| *port != 0)
    }

    fn launch(&self, context: &LaunchContext) -> Result<Launch, StepError> {
        // A named port is checked here for a clear message; without one the server takes any
        // and says which, so that nobody can take it in between.
        let port = self
            .port
            .map(|p| super::port(Some(p)))
            .transpose()?
            .unwrap_or(0);
        let address_file = context.folder.join("address");
        let mut argv: Vec<String> = vec!["/proc/self/exe".to_owned(), "server".to_owned()];
        argv.extend([
            "--model-path".to_owned(),
            context.path(&self.model)?.display().to_string(),
        ]);
        argv.extend(["--port".to_owned(), port.to_string()]);
        argv.extend([
            "--address-file".to_owned(),
            address_file.display().to_string(),
        ]);
        argv.extend(self.flags());
        argv.extend(super::flags(&self.args, context)?);
        let spec = context.process(with_program(argv)?, BTreeMap::new(), &context.folder);
        let facts = BTreeMap::from([(
            "address_file".to_owned(),
            address_file.display().to_string(),
        )]);
        Ok(Launch::Process {
            spec,
            endpoint: Endpoint::new("", facts),
        })
    }

    async fn probe(&self, endpoint: &Endpoint) -> Probe {
        let Some(url) = read_address(endpoint) else {
            return Probe::NotYet("it has not begun to listen yet".to_owned());
        };
        match http::probe(Peer::at(&url), HEALTH).await {
            Probe::Ready(mut facts) => {
                if let Some((_, port)) = url.rsplit_once(':') {
                    facts.insert("port".to_owned(), port.to_owned());
                }
                facts.insert("url".to_owned(), url);
                Probe::Ready(facts)
            }
            other => other,
        }
    }

    async fn http_status(&self, endpoint: &Endpoint, path: &str) -> Result<u16, String> {
        match read_address(endpoint) {
            Some(url) => http::status(Peer::at(&url), path).await,
            None => Err("it has not begun to listen yet".to_owned()),
        }
    }

    fn health(&self) -> Option<String> {
        Some(HEALTH.to_owned())
    }

    fn diagnose(&self, log: &str) -> Option<Diagnosis> {
        diagnosis::diagnose(log)
    }

    async fn reset(&self, endpoint: &Endpoint) -> Result<(), StepError> {
        super::flush_cache(endpoint).await
    }

    async fn released(&self, endpoint: &Endpoint) -> Result<(), String> {
        super::port_released(endpoint)
    }
}

/// Replaces the first word by this binary's own path, which a guardian can start.
fn with_program(mut argv: Vec<String>) -> Result<Vec<String>, StepError> {
    let program =
        std::env::current_exe().map_err(|e| StepError::because("could not find this binary", e))?;
    argv[0] = program.display().to_string();
    Ok(argv)
}

fn read_address(endpoint: &Endpoint) -> Option<String> {
    let text = std::fs::read_to_string(Path::new(endpoint.facts.get("address_file")?)).ok()?;
    let url = text.trim();
    (!url.is_empty()).then(|| url.to_owned())
}
