//! `server.command`: any server that a command starts.

use crate::command;
use crate::diagnosis;
use crate::http::{self, Peer};
use crate::kinds::InferenceServer;
use engine::logs::Diagnosis;
use engine::options::Parser;
use engine::service::{Endpoint, Launch, LaunchContext, Probe, Service, ServiceType};
use engine::source::Place;
use engine::step::{StepContext, StepError};
use engine::types::{Arguments, ArtifactKind, Text};
use engine::value::Table;
use std::collections::BTreeMap;
use std::time::Duration;

/// Stands for the port in `argv` and `env`.
const PORT: &str = "{port}";

engine::options! {
    /// Options of `server.command`.
    pub struct ServerCommand {
        /// The program and its arguments; no shell is involved. `{port}` stands for the port. The
        /// program and arguments that are files are part of the key by their content.
        argv: Vec<Text>;
        /// Arguments as a table, appended to `argv` as flags: `tp_size = 2` becomes `--tp-size 2`,
        /// `true` a bare flag, `false` none, a list one flag with several values, a table one JSON
        /// value. `{port}` stands for the port.
        args: Arguments = Arguments::default();
        /// The port on 127.0.0.1; any free one if absent.
        port: Option<u16>;
        /// Environment variables. `{port}` stands for the port.
        env: BTreeMap<String, Text> = BTreeMap::new();
        /// Environment variables that are passed on as they are. Values other than those of `PATH`,
        /// `HOME` and `LANG` are part of the key.
        inherit: Vec<String> = ["PATH", "HOME", "LANG"].map(str::to_owned).to_vec();
        /// The model to ask for; the first one that `/v1/models` names if absent.
        model: Option<String>;
        /// The path that answers with status 200 when the server serves.
        health: String = "/health".to_owned();
        /// Where it tells metrics in Prometheus' text: a path, or a whole address such as
        /// `http://127.0.0.1:9090/metrics`; `/metrics` if absent, where it tells any there.
        metrics_at: Option<String>;
        /// Whether its cache is flushed between samples, where it can.
        flush_cache: bool = true;
    }
}

impl ServiceType for ServerCommand {
    const NAME: &'static str = "server.command";
    const KIND: &'static str = InferenceServer::NAME;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Launches any OpenAI-compatible server by its command.";
    const FACTS: &'static [&'static str] = super::FACTS;
    const READY_TIMEOUT: Duration = Duration::from_secs(1200);

    fn identity(&self) -> Vec<(String, String)> {
        let cwd = std::env::current_dir().unwrap_or_default();
        command::identity(&self.argv, &self.inherit, &cwd)
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        if self.argv.is_empty() {
            let at = table.get("argv").map_or(place, |v| &v.place);
            parser.wrong::<()>(
                at,
                "the command is empty",
                "no program",
                "write `argv = [\"PROGRAM\", \"ARGUMENT\", …]`",
            );
        }
        command::check_inputs(table, &[], parser);
        super::check_metrics(self.metrics_at.as_deref(), table, place, parser);
    }
}

#[async_trait::async_trait]
impl Service for ServerCommand {
    fn fixed_port(&self) -> Option<u16> {
        self.port.filter(|port| *port != 0)
    }

    fn launch(&self, context: &LaunchContext) -> Result<Launch, StepError> {
        let port = super::port(self.port)?.to_string();
        let fill = |text: &Text| {
            StepContext::resolve_text(&context.resolved, text).map(|t| t.replace(PORT, &port))
        };
        let mut argv = self.argv.iter().map(fill).collect::<Result<Vec<_>, _>>()?;
        let flags = super::flags(&self.args, &context.resolved)?;
        argv.extend(flags.into_iter().map(|flag| flag.replace(PORT, &port)));
        let declared = self
            .env
            .iter()
            .map(|(k, v)| Ok((k.clone(), fill(v)?)))
            .collect::<Result<_, StepError>>()?;
        let env = super::child_environment(declared, &self.inherit);
        let cwd = std::env::current_dir()
            .map_err(|e| StepError::because("could not find the working folder", e))?;
        let spec = context.process(argv, env, &cwd);
        let url = format!("http://127.0.0.1:{port}");
        let facts = BTreeMap::from([("port".to_owned(), port)]);
        Ok(Launch::Process {
            spec,
            endpoint: Endpoint::new(url, facts),
        })
    }

    async fn probe(&self, endpoint: &Endpoint) -> Probe {
        let said = super::Said {
            health: &self.health,
            model: self.model.as_deref(),
            metrics: self.metrics_at.as_deref(),
        };
        super::probe(endpoint, said).await
    }

    async fn http_status(&self, endpoint: &Endpoint, path: &str) -> Result<u16, String> {
        http::status(Peer::of(endpoint), path).await
    }

    fn health(&self) -> Option<String> {
        Some(self.health.clone())
    }

    fn diagnose(&self, log: &str) -> Option<Diagnosis> {
        diagnosis::diagnose(log)
    }

    async fn reset(&self, endpoint: &Endpoint) -> Result<(), StepError> {
        if self.flush_cache {
            super::flush_cache(endpoint).await
        } else {
            Ok(())
        }
    }

    async fn released(&self, endpoint: &Endpoint) -> Result<(), String> {
        super::port_released(endpoint)
    }
}
