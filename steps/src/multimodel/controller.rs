//! `multimodel.controller`: a gateway before several servers of one model each, which brings models
//! onto the device that they share and takes them off it.
//!
//! It leases its servers, as a step would, so that they are declared, launched and torn down like any
//! other. They are launched one after the other, and each is taken off the device before the next
//! comes: two that fill it could not be up together otherwise. The gateway itself is another process
//! of this binary ([`gateway::serve`]) and brings those onto the device that begin there. When it or
//! one of its servers ends, all are launched anew, because nobody else knows which are on the device.
//!
//! Does not know how much memory there is: the plan says how many models fit at once.

use crate::diagnosis;
use crate::http::{self, Peer};
use crate::kinds::InferenceServer;
use crate::server::{self, SwapPolicy, own};
use embedded_server::flags::size;
use embedded_server::swapping::{self, Rules};
use engine::graph::NodeId;
use engine::logs::Diagnosis;
use engine::options::Parser;
use engine::service::{Endpoint, Launch, LaunchContext, Probe, Service, ServiceType};
use engine::source::Place;
use engine::step::{FailureClass, StepError};
use engine::types::{ArtifactKind, Lease, Nested};
use engine::value::{Kind, Table};
use gateway::{Backend, Config, ModelConfig, Standing};
use std::num::NonZeroU32;
use std::time::Duration;

engine::choices! {
    /// How a server gives its memory back.
    pub enum Release {
        /// As it turns out to, by the routes that it has.
        Auto = "auto",
        /// `/release_memory_occupation` and `/resume_memory_occupation`, once it is idle.
        Sglang = "sglang",
        /// `/sleep?level=1` and `/wake_up`.
        Vllm = "vllm",
    }
}

engine::choices! {
    /// Where a model begins.
    pub enum Initially {
        /// On the device.
        Active = "active",
        /// Off it.
        Off = "off",
    }
}

engine::options! {
    /// A model and its server.
    pub struct ControlledModel {
        /// The name that requests ask for.
        name: String;
        /// Its server, which serves this model alone.
        server: Lease<InferenceServer>;
        /// How the server gives its memory back.
        release: Release = Release::Auto;
        /// What it holds of the device, such as `7GiB`: only told in the time line.
        memory: Option<String>;
        /// Where it begins; on the device as long as there is room if absent.
        initially: Option<Initially>;
    }
}

engine::options! {
    /// Options of `multimodel.controller`.
    pub struct Controller {
        /// The models, each `{ name, server }`, if need be with `release` (`auto`, `sglang` or `vllm`),
        /// `initially` (`active` or `off`) and `memory`, such as `7GiB`, for the time line. The first
        /// that is on the device leaves first.
        models: Vec<Nested<ControlledModel>>;
        /// The port on 127.0.0.1; any free one if absent.
        port: Option<u16>;
        /// How many models fit onto the device at once: servers do not say how much memory there is.
        most_active: NonZeroU32 = NonZeroU32::MIN, in "models";
        /// When models leave the device.
        policy: SwapPolicy = SwapPolicy::Baseline;
        /// Requests that wait for a model before another leaves for it.
        queue_threshold: NonZeroU32 = NonZeroU32::MIN.saturating_add(9), in "requests";
        /// How long before the objective (`slo`) of the first waiting request its model is brought.
        lead: Duration = Duration::from_secs(100);
        /// With `enhanced`: how long a model stays without a request.
        idle: Duration = Duration::from_secs(10);
        /// For how long a model stays at least before it leaves for another.
        quantum: Duration = Duration::from_secs(2);
        /// Whether requests that wait and would miss their objective are broken off with status 408.
        abort_late: bool = false;
        /// Requests that may wait for one model; more are refused with status 429.
        queue_limit: NonZeroU32 = NonZeroU32::MIN.saturating_add(1023), in "requests";
        /// How long a model may take to come or to go, the end of its requests included.
        swap_timeout: Duration = Duration::from_secs(300);
    }
}

impl ServiceType for Controller {
    const NAME: &'static str = "multimodel.controller";
    const KIND: &'static str = InferenceServer::NAME;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Serves several models that share one device, each by a server of its own, in turn.";
    const FACTS: &'static [&'static str] = server::FACTS;
    const READY_TIMEOUT: Duration = Duration::from_secs(600);

    fn identity(&self) -> Vec<(String, String)> {
        own::identity()
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = table.get("models").map_or(place, |v| &v.place);
        if self.models.is_empty() {
            let help = "write `models = [{ name = \"…\", server = \"${services.NAME}\" }, …]`";
            parser.wrong::<()>(at, "a controller needs models", "none", help);
        }
        let n_active = self
            .standings()
            .into_iter()
            .filter(|s| *s == Standing::Active);
        let (n_active, most) = (n_active.count(), self.most_active.get() as usize);
        if n_active > most {
            let message = format!("{n_active} models begin on the device, and {most} fit at once");
            let help = "raise `most_active`, or let some begin with `initially = \"off\"`";
            parser.wrong::<()>(at, message, "too many", help);
        }
        for (i, model) in self.models().enumerate() {
            let list = table.get("models").map(|v| &v.kind);
            let at = match list {
                Some(Kind::List(list)) => list.get(i).map_or(at, |v| &v.place),
                _ => at,
            };
            self.check_model(i, model, at, parser);
        }
        if self.swap_timeout.is_zero() {
            let at = table.get("swap_timeout").map_or(place, |v| &v.place);
            let help = "leave it out: then it is 5 minutes";
            parser.wrong::<()>(at, "nothing comes in no time", "zero", help);
        }
    }
}

impl Controller {
    fn check_model(&self, i: usize, model: &ControlledModel, at: &Place, parser: &mut Parser<'_>) {
        let before = || self.models().take(i);
        if before().any(|other| other.name == model.name) {
            let message = format!("two models are called `{}`", model.name);
            let help = "give each a name of its own: requests choose by it";
            parser.wrong::<()>(at, message, "the same name", help);
        }
        if before().any(|other| other.server.node == model.server.node) {
            let message = format!("the server of `{}` has another model too", model.name);
            let help = "declare a server for each model";
            parser.wrong::<()>(at, message, "the same server", help);
        }
        if let Some(memory) = model.memory.as_ref().filter(|m| size(m).is_err()) {
            let message = format!("`{memory}` is no size");
            let help = "write a number and a unit, such as `7GiB` or `500MiB`";
            parser.wrong::<()>(at, message, "not understood", help);
        }
    }

    fn models(&self) -> impl Iterator<Item = &ControlledModel> {
        self.models.iter().map(|Nested(model)| model)
    }

    /// Where each model begins: what the plan leaves open is on the device while there is room.
    fn standings(&self) -> Vec<Standing> {
        let asked = self
            .models()
            .filter(|m| m.initially == Some(Initially::Active));
        let most = self.most_active.get() as usize;
        let mut room = most.saturating_sub(asked.count());
        let mut place = |model: &ControlledModel| match model.initially {
            Some(Initially::Active) => Standing::Active,
            None if room > 0 => {
                room -= 1;
                Standing::Active
            }
            Some(Initially::Off) | None => Standing::Off,
        };
        self.models().map(&mut place).collect()
    }

    fn rules(&self) -> Rules {
        Rules {
            policy: match self.policy {
                SwapPolicy::Baseline => swapping::SwapPolicy::Baseline,
                SwapPolicy::Enhanced => swapping::SwapPolicy::Enhanced,
            },
            queue_threshold: self.queue_threshold.get() as usize,
            lead: self.lead,
            idle: self.idle,
            quantum: self.quantum,
        }
    }

    fn config(&self, context: &LaunchContext) -> Result<Config, StepError> {
        let standings = self.standings();
        let model = |(model, begins): (&ControlledModel, &Standing)| {
            Ok(ModelConfig {
                name: model.name.clone(),
                url: context.endpoint(&model.server)?.url.clone(),
                release: model.release.into(),
                memory_bytes: model.memory.as_deref().and_then(|m| size(m).ok()),
                // Each was taken off the device when it had come up.
                found: Standing::Off,
                begins: *begins,
            })
        };
        let models = self.models().zip(&standings).map(model);
        Ok(Config {
            port: self
                .port
                .map(|port| server::port(Some(port)))
                .transpose()?
                .unwrap_or(0),
            models: models.collect::<Result<_, StepError>>()?,
            rules: self.rules(),
            most_active: self.most_active.get() as usize,
            aborts_late: self.abort_late,
            queue_limit: self.queue_limit.get() as usize,
            swap_timeout: self.swap_timeout,
            ..Config::default()
        })
    }
}

impl From<Release> for gateway::Release {
    fn from(release: Release) -> Self {
        match release {
            Release::Auto => gateway::Release::Auto,
            Release::Sglang => gateway::Release::Sglang,
            Release::Vllm => gateway::Release::Vllm,
        }
    }
}

/// Why the gateway has given models up, if it has. A server that did not answer just now may answer yet.
async fn trouble(endpoint: &Endpoint) -> Option<String> {
    let health = own::told(endpoint, own::HEALTH).await?;
    let models = health["models"].as_array()?.iter();
    let given_up = models.filter(|model| model["given_up"] == true);
    let troubles: Vec<&str> = given_up.filter_map(|m| m["trouble"].as_str()).collect();
    (!troubles.is_empty()).then(|| troubles.join("; "))
}

#[async_trait::async_trait]
impl Service for Controller {
    fn fixed_port(&self) -> Option<u16> {
        self.port.filter(|port| *port != 0)
    }

    fn launch(&self, context: &LaunchContext) -> Result<Launch, StepError> {
        let failed = |e: String| StepError::because("could not write what the gateway is told", e);
        let config = serde_json::to_vec_pretty(&self.config(context)?);
        let file = context.folder.join("gateway.json");
        std::fs::write(&file, config.map_err(|e| failed(e.to_string()))?)
            .map_err(|e| failed(format!("`{}`: {e}", file.display())))?;
        let words = ["gateway", "--config"].map(str::to_owned);
        let words = words.into_iter().chain([file.display().to_string()]);
        own::launch(context, words.collect())
    }

    async fn take_over(&self, behind: NodeId, endpoint: &Endpoint) -> Result<(), StepError> {
        let mut models = self.models();
        let Some(model) = models.find(|model| model.server.node == behind) else {
            return Ok(());
        };
        let failed = |why: String| {
            let what = format!("model `{}` could not be taken off the device", model.name);
            StepError::because(what, why).class(FailureClass::Infrastructure)
        };
        let backend = Backend::new(&endpoint.url, model.release.into());
        let backend = backend.map_err(|e| failed(e.to_string()))?;
        let released = backend.release(self.swap_timeout).await;
        released.map(drop).map_err(|e| failed(e.to_string()))
    }

    async fn probe(&self, endpoint: &Endpoint) -> Probe {
        match own::probe(endpoint).await {
            Probe::Unhealthy(what) => match trouble(endpoint).await {
                Some(trouble) => Probe::Failed(trouble),
                None => Probe::Unhealthy(what),
            },
            other => other,
        }
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

    /// Brings models to where they begin, and empties their caches: samples begin alike.
    async fn reset(&self, endpoint: &Endpoint) -> Result<(), StepError> {
        // Each of them moves once at most, behind two that may be under way; a move has its limit twice, to come to
        // rest and to go.
        let n = u32::try_from(self.models.len()).unwrap_or(u32::MAX);
        let limit = self
            .swap_timeout
            .saturating_mul(n.saturating_add(2).saturating_mul(2));
        let peer = Peer::of(endpoint);
        let (status, said) = http::post_text(peer, "/reset", String::new(), limit, None).await?;
        if status == 200 {
            return Ok(());
        }
        let what = "models could not be brought to where they begin";
        Err(StepError::because(what, said).class(FailureClass::Infrastructure))
    }

    async fn released(&self, endpoint: &Endpoint) -> Result<(), String> {
        server::port_released(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A gateway that answers everything with status 503 and this text, once for each question.
    fn gateway(health: &'static str, folder: &std::path::Path) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let file = folder.join("address").display().to_string();
        std::fs::write(&file, format!("http://{}", listener.local_addr().unwrap())).unwrap();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let length = health.len();
                let head = format!("HTTP/1.1 503 x\r\ncontent-length: {length}\r\n\r\n");
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all((head + health).as_bytes());
            }
        });
        Endpoint::new("", BTreeMap::from([(own::ADDRESS_FILE.to_owned(), file)]))
    }

    #[tokio::test]
    async fn a_gateway_that_gave_models_up_says_why_and_one_that_begins_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let unhealthy = r#"{ "status": "unhealthy", "models": [
            { "trouble": null, "given_up": false }, { "trouble": "b is gone", "given_up": true },
            { "trouble": "c is stuck", "given_up": true }, { "trouble": "d is slow", "given_up": false }] }"#;
        let told = trouble(&gateway(unhealthy, folder.path())).await;
        assert_eq!(told.as_deref(), Some("b is gone; c is stuck"));
        let may_yet =
            r#"{ "status": "unhealthy", "models": [{ "trouble": "slow", "given_up": false }] }"#;
        assert_eq!(trouble(&gateway(may_yet, folder.path())).await, None);
    }
}
