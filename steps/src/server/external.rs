//! `server.external`: a server that runs already and is left running.

use crate::http;
use crate::kinds::InferenceServer;
use engine::options::Parser;
use engine::service::{Endpoint, Launch, LaunchContext, Probe, Service, ServiceType};
use engine::source::Place;
use engine::step::StepError;
use engine::types::ArtifactKind;
use engine::value::Table;
use loadgen::Address;
use std::collections::BTreeMap;
use std::time::Duration;

engine::options! {
    /// Options of `server.external`.
    pub struct ServerExternal {
        /// Its base address, such as `http://127.0.0.1:8000`.
        url: String;
        /// The model to ask for; the first one that `/v1/models` names if absent.
        model: Option<String>;
        /// The path that answers with status 200 when the server serves.
        health: String = "/v1/models".to_owned();
        /// What this server is, in your own words: its version, its arguments, its machine. Part
        /// of every measurement's key, because nobody else can tell that it was changed.
        label: String = String::new();
        /// Whether its cache is flushed between samples, where it can.
        flush_cache: bool = true;
    }
}

impl ServiceType for ServerExternal {
    const NAME: &'static str = "server.external";
    const KIND: &'static str = InferenceServer::NAME;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Uses a server that is running already, and leaves it running.";
    const FACTS: &'static [&'static str] = super::FACTS;
    const READY_TIMEOUT: Duration = Duration::from_secs(30);

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        if let Err(error) = self.url.parse::<Address>() {
            let at = table.get("url").map_or(place, |v| &v.place);
            parser.wrong::<()>(
                at,
                error.to_string().split("; help").next().unwrap_or(""),
                "no address",
                "write it like `http://127.0.0.1:8000`",
            );
        }
    }
}

#[async_trait::async_trait]
impl Service for ServerExternal {
    fn launch(&self, _: &LaunchContext) -> Result<Launch, StepError> {
        let mut facts = BTreeMap::new();
        if let Some(port) = self
            .url
            .trim_end_matches("/v1")
            .trim_end_matches('/')
            .rsplit(':')
            .next()
            .and_then(|p| p.parse::<u16>().ok())
        {
            facts.insert("port".to_owned(), port.to_string());
        }
        Ok(Launch::External {
            endpoint: Endpoint::new(self.url.as_str(), facts),
        })
    }

    async fn probe(&self, endpoint: &Endpoint) -> Probe {
        super::probe(endpoint, &self.health, self.model.as_deref()).await
    }

    async fn http_status(&self, endpoint: &Endpoint, path: &str) -> Result<u16, String> {
        http::status(&endpoint.url, path).await
    }

    fn health(&self) -> Option<String> {
        Some(self.health.clone())
    }

    async fn reset(&self, endpoint: &Endpoint) -> Result<(), StepError> {
        if self.flush_cache {
            super::flush_cache(endpoint).await
        } else {
            Ok(())
        }
    }
}
