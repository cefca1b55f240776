//! `server.embedded`: the built-in server, started as another process of this binary.

use super::device::DeviceChoice;
use super::own;
use crate::diagnosis;
use crate::kinds::{InferenceServer, Model};
use engine::logs::Diagnosis;
use engine::options::{OptionType, Parser, Walk};
use engine::schema::Schema;
use engine::service::{Endpoint, Launch, LaunchContext, Probe, Service, ServiceType};
use engine::source::Place;
use engine::step::{Resolved, StepContext, StepError};
use engine::types::{Arguments, Artifact, ArtifactKind, Nested, Positive, Text};
use engine::value::{Kind, Table, Value};
use std::num::NonZeroU32;
use std::time::Duration;

/// Flags that a launch has by itself, by what the plan says besides.
const OWN_FLAGS: [&str; 7] = [
    "model_path",
    "model_paths",
    "served_model_names",
    "mem_fraction_statics",
    "init_scheduled_models",
    "port",
    "address_file",
];

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

engine::choices! {
    /// When models leave a device that they share.
    pub enum SwapPolicy {
        /// Where another needs the room.
        Baseline = "baseline",
        /// Also after a time without requests.
        Enhanced = "enhanced",
    }
}

engine::options! {
    /// One of several models that share a device.
    pub struct ServedModel {
        /// The name that requests ask for.
        name: String;
        /// Its folder.
        model: Artifact<Model>;
        /// What it gets of the device's memory, or, where it is there from the start, of what is free then: a
        /// share, or a step that computes one. If absent, 0.88 divided by the models that follow, itself
        /// included.
        mem_fraction_static: Option<Text>;
        /// Whether it is on the device from the start.
        active: bool = true;
    }
}

/// What a server serves.
#[derive(Debug, Clone)]
pub(crate) enum Served {
    /// One model.
    One(Artifact<Model>),
    /// Several, which share the device.
    Several(Vec<Nested<ServedModel>>),
}

impl Served {
    /// The models where there are several.
    fn several(&self) -> &[Nested<ServedModel>] {
        match self {
            Served::One(_) => &[],
            Served::Several(models) => models,
        }
    }
}

impl OptionType for Served {
    fn type_name() -> String {
        Artifact::<Model>::type_name()
    }

    fn schema() -> Schema {
        let one = Artifact::<Model>::schema();
        serde_json::json!({ "anyOf": [one, Vec::<Nested<ServedModel>>::schema()] })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        match &value.kind {
            Kind::List(_) => Vec::parse(value, parser).map(Served::Several),
            _ => Artifact::parse(value, parser).map(Served::One),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        match self {
            Served::One(model) => model.walk(path, walk),
            Served::Several(models) => models.walk(path, walk),
        }
    }
}

/// The slowest copies that the server makes, GB/s.
const SLOWEST: f64 = 0.01;

engine::options! {
    /// Options of `server.embedded`.
    pub struct ServerEmbedded {
        /// The model's folder; or several models that share the device: `[{ name = "…", model = "…" }, …]`.
        model: Served;
        /// Memory of the device, such as `24GiB`, which weights and caches share.
        device_memory: Option<String>;
        /// When models leave the device; `baseline` if absent.
        swap_policy: Option<SwapPolicy>;
        /// Requests that wait for a model before another leaves for it; 10 if absent.
        swap_queue_threshold: Option<NonZeroU32>, in "requests";
        /// How long before the objective of the first waiting request its model is brought; 100 s if
        /// absent.
        swap_lead: Option<Duration>;
        /// For how long a model stays at least before it leaves for another; 2 s if absent.
        swap_quantum: Option<Duration>;
        /// With `enhanced`: how long a model stays without a request; 10 s if absent.
        inactivate_threshold: Option<Duration>;
        /// Makes weights come and go as at this rate; as long as it takes if absent, which is no time
        /// with `sim`.
        swap_bandwidth: Option<Positive>, in "GB/s";
        /// Whether requests that wait and would miss their objective are broken off with status 408.
        enable_abort: bool = false;
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
        /// Takes prompts with images, each of which stands for so many tokens: no image is looked at, and
        /// results say so. Refused if absent.
        image_tokens: Option<NonZeroU32>, in "tokens";
        /// Longest sequence, prompt and answer.
        context_length: Option<NonZeroU32>, in "tokens";
        /// Threads of the forward pass; one if absent, which leaves the other cores to the load
        /// generator.
        threads: Option<NonZeroU32>, in "threads";
        /// The device that stands behind the server: `l4`, `a100-40g`, `h100`, `h200`, `tiny-cpu`, or a
        /// file such as `model.fit_latency` makes. Its memory and the rate of its copies count where
        /// none are given, and with `args = { executor = "sim" }` steps take as long as there.
        device_profile: Option<DeviceChoice>;
        /// Whether the same prompt has bit-equal logits whatever runs beside it; slower.
        deterministic: bool = false;
        /// Starts the random numbers of dummy weights and of sampling; 0 if absent.
        seed: Option<u64>;
        /// Whether it writes down what it did with every request and every token, when. `load.test` holds
        /// its records to that.
        trace: bool = false;
        /// Further flags of `benchwright server`: `max_queued_requests = 8` becomes
        /// `--max-queued-requests 8`. What is absent here and there is as `benchwright server`
        /// has it.
        args: Arguments = Arguments::default();
    }
}

impl ServiceType for ServerEmbedded {
    const NAME: &'static str = "server.embedded";
    const KIND: &'static str = InferenceServer::NAME;
    const VERSION: u32 = 2;
    const SUMMARY: &'static str =
        "Launches the built-in inference server, which computes a real transformer on the CPU.";
    const FACTS: &'static [&'static str] = super::FACTS;
    const READY_TIMEOUT: Duration = Duration::from_secs(300);

    fn identity(&self) -> Vec<(String, String)> {
        own::identity()
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        self.check_models(table, place, parser);
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

impl ServerEmbedded {
    fn check_models(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        let Served::Several(several) = &self.model else {
            return;
        };
        if several.is_empty() {
            let help = "write `model = [{ name = \"…\", model = \"…\" }, …]`, or name one folder";
            parser.wrong::<()>(&at("model"), "a server needs a model", "no model", help);
            return;
        }
        for (i, Nested(model)) in several.iter().enumerate() {
            if several[..i]
                .iter()
                .any(|Nested(other)| other.name == model.name)
            {
                let message = format!("two models are called `{}`", model.name);
                let help = "give each a name of its own: requests choose by it";
                parser.wrong::<()>(&at("model"), message, "the same name", help);
            }
        }
        let n_shares = several
            .iter()
            .filter(|m| m.0.mem_fraction_static.is_some())
            .count();
        if n_shares > 0 && n_shares < several.len() {
            let message = "some models have a `mem_fraction_static` and some have none";
            let help = "give it to all of them, or to none";
            parser.wrong::<()>(&at("model"), message, "not all have one", help);
        }
        if several.iter().all(|model| !model.0.active) {
            let help = "leave one with `active = true`";
            parser.wrong::<()>(&at("model"), "no model is on the device", "all off", help);
        }
        if self.served_model_name.is_some() {
            let help = "remove it: models have their names in `model`";
            let message = "several models have names of their own";
            parser.wrong::<()>(&at("served_model_name"), message, "one name", help);
        }
    }

    /// Which models are served.
    fn model_flags(&self, resolved: &Resolved) -> Result<Vec<String>, StepError> {
        let folder = |model: &Artifact<Model>| Ok(resolved.path(model)?.display().to_string());
        if let Served::One(model) = &self.model {
            return Ok(vec!["--model-path".to_owned(), folder(model)?]);
        }
        let models = || self.model.several().iter().map(|Nested(model)| model);
        let mut flags = vec!["--model-paths".to_owned()];
        for model in models() {
            flags.push(folder(&model.model)?);
        }
        flags.push("--served-model-names".to_owned());
        flags.extend(models().map(|model| model.name.clone()));
        let shares: Vec<_> = models()
            .filter_map(|m| m.mem_fraction_static.as_ref())
            .collect();
        if !shares.is_empty() {
            flags.push("--mem-fraction-statics".to_owned());
            for share in shares {
                flags.push(StepContext::resolve_text(resolved, share)?);
            }
        }
        if models().any(|model| !model.active) {
            flags.push("--init-scheduled-models".to_owned());
            flags.extend(
                models()
                    .filter(|m| m.active)
                    .map(|model| model.name.clone()),
            );
        }
        Ok(flags)
    }

    /// How models share the device.
    fn swap_flags(&self) -> Vec<String> {
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs_f64().to_string());
        let valued = [
            ("--device-memory", self.device_memory.clone()),
            (
                "--swap-policy",
                self.swap_policy.map(|p| p.word().to_owned()),
            ),
            (
                "--swap-queue-threshold",
                self.swap_queue_threshold.map(|n| n.to_string()),
            ),
            ("--swap-lead", seconds(self.swap_lead)),
            ("--swap-quantum", seconds(self.swap_quantum)),
            ("--inactivate-threshold", seconds(self.inactivate_threshold)),
            (
                "--swap-bandwidth",
                self.swap_bandwidth.map(|Positive(rate)| rate.to_string()),
            ),
        ];
        let valued = valued
            .into_iter()
            .filter_map(|(name, value)| Some([name.to_owned(), value?]));
        let abort = self.enable_abort.then(|| "--enable-abort".to_owned());
        valued.flatten().chain(abort).collect()
    }

    /// All flags that say what is served and how, but not where.
    pub(crate) fn all_flags(&self, resolved: &Resolved) -> Result<Vec<String>, StepError> {
        let mut flags = self.model_flags(resolved)?;
        flags.extend(self.flags());
        if let Some(device) = &self.device_profile {
            flags.extend(["--device-profile".to_owned(), device.word(resolved)?]);
        }
        flags.extend(super::flags(&self.args, resolved)?);
        Ok(flags)
    }

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
            ("--image-tokens", self.image_tokens),
            ("--context-length", self.context_length),
        ];
        for (name, value) in numbers {
            flag(name, value.map(|v| v.to_string()));
        }
        flags.extend(self.cache_flags());
        flags.extend(self.swap_flags());
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
        let mut words = vec!["server".to_owned()];
        words.extend(["--port".to_owned(), port.to_string()]);
        if self.trace {
            let file = context.folder.join("trace.jsonl");
            words.extend(["--trace".to_owned(), file.display().to_string()]);
        }
        words.extend(self.all_flags(&context.resolved)?);
        own::launch(context, words)
    }

    fn address(&self, endpoint: &Endpoint) -> Option<String> {
        own::address(endpoint)
    }

    async fn probe(&self, endpoint: &Endpoint) -> Probe {
        own::probe(endpoint).await
    }

    async fn http_status(&self, endpoint: &Endpoint, path: &str) -> Result<u16, String> {
        own::http_status(endpoint, path).await
    }

    fn health(&self) -> Option<String> {
        Some(own::HEALTH.to_owned())
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
