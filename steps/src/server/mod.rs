//! Servers as services: the embedded one, those of others by name, one that runs already, any command; and a store
//! that serves checkpoints, not tokens.

mod command;
mod device;
mod embedded;
mod external;
pub(crate) mod flush;
pub(crate) mod known;
pub(crate) mod own;
mod sllm_store;

pub(crate) use command::ServerCommand;
pub(crate) use embedded::{SchedulePolicy, ServerEmbedded, SwapPolicy, WritePolicy};
pub(crate) use external::ServerExternal;
pub(crate) use known::{
    ServerLlamaCpp, ServerLmdeploy, ServerSglang, ServerTransformers, ServerTrtllm, ServerVllm,
};

pub(crate) use sllm_store::{LOG as STORE_LOG, ServerSllmStore};

use crate::http::{self, Peer};
use engine::options::Parser;
use engine::service::{Endpoint, Probe};
use engine::source::Place;
use engine::step::{Resolved, StepContext, StepError};
use engine::types::Arguments;
use engine::value::Table;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Facts that every server brings besides `url`.
pub(crate) const FACTS: &[&str] = &["port", "model"];

/// The fact that names where metrics are told: a path, or a whole address; absent where none are.
pub(crate) const METRICS: &str = "metrics";
/// Where they are told by most.
const USUAL_METRICS: &str = "/metrics";

/// How long a server may take to empty its cache.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Picks the port: the one that the plan names, which must be free, or any if it names none or 0.
pub(crate) fn port(wanted: Option<u16>) -> Result<u16, StepError> {
    let Some(port) = wanted.filter(|port| *port != 0) else {
        return engine::process::free_port()
            .map_err(|e| StepError::because("found no free port", e));
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if engine::process::port_is_free(address) {
        return Ok(port);
    }
    Err(
        StepError::new(format!("port {port} is in use by another process"))
            .help("remove `port` to take any free one, or end what uses it"),
    )
}

/// Verifies that nothing listens on the port any more.
pub(crate) fn port_released(endpoint: &Endpoint) -> Result<(), String> {
    let port = endpoint
        .facts
        .get("port")
        .and_then(|p| p.parse::<u16>().ok());
    match port {
        Some(port)
            if !engine::process::port_closed(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) =>
        {
            Err(format!("port {port} still answers"))
        }
        _ => Ok(()),
    }
}

/// What a plan may say of a server of whatever kind.
struct Said<'a> {
    /// The path that answers with status 200 when it serves.
    health: &'a str,
    /// The model to ask for; else the first one that it names.
    model: Option<&'a str>,
    /// Where it tells metrics.
    metrics: Option<&'a str>,
}

/// Asks whether a server serves, and where it tells metrics.
async fn probe(endpoint: &Endpoint, said: Said<'_>) -> Probe {
    let server = Peer::of(endpoint);
    let mut facts = match http::probe(server, said.health).await {
        Probe::Ready(facts) => facts,
        other => return other,
    };
    let model = said
        .model
        .map(|model| ("model".to_owned(), model.to_owned()));
    facts.extend(model);
    facts.extend(metrics(server, said.metrics).await);
    Probe::Ready(facts)
}

/// Where metrics are told, as a fact: where the plan says so, or at the usual place if a look there shows some.
async fn metrics(server: Peer<'_>, said: Option<&str>) -> Option<(String, String)> {
    match said {
        Some(at) => Some((METRICS.to_owned(), at.to_owned())),
        None => metrics_at(server, USUAL_METRICS).await,
    }
}

/// That metrics are told at a path, as a fact, if a look there shows some.
async fn metrics_at(server: Peer<'_>, path: &str) -> Option<(String, String)> {
    match http::get_text(server, path).await {
        Ok((200, text)) if text.contains("# TYPE") => Some((METRICS.to_owned(), path.to_owned())),
        _ => None,
    }
}

/// Reports a place of metrics that is neither a path nor an address.
fn check_metrics(said: Option<&str>, table: &Table, place: &Place, parser: &mut Parser<'_>) {
    let is_place = |at: &str| {
        ["/", "http://", "https://"]
            .iter()
            .any(|begin| at.starts_with(begin))
    };
    if said.is_none_or(is_place) {
        return;
    }
    let at = table.get("metrics_at").map_or(place, |value| &value.place);
    let help =
        "write a path such as `/metrics`, or an address such as `http://127.0.0.1:9090/metrics`";
    parser.wrong::<()>(
        at,
        "metrics are told at a path or at an address",
        "neither",
        help,
    );
}

/// Empties the prefix cache of a server that can; one that cannot has nothing to reset.
pub(crate) async fn flush_cache(endpoint: &Endpoint) -> Result<(), StepError> {
    flush::flush(Peer::of(endpoint), FLUSH_LIMIT, None)
        .await
        .map(drop)
}

/// Renders a table of arguments as flags.
fn flags(arguments: &Arguments, resolved: &Resolved) -> Result<Vec<String>, StepError> {
    arguments.flags(|text| StepContext::resolve_text(resolved, text))
}

/// The environment of a child: what is declared, and what it inherits by name.
fn child_environment(
    declared: BTreeMap<String, String>,
    inherit: &[String],
) -> BTreeMap<String, String> {
    let inherited = inherit
        .iter()
        .filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
    inherited.chain(declared).collect()
}
