//! Servers as services: the embedded one, those of others by name, one that runs already, any command.

mod command;
mod device;
mod embedded;
mod external;
pub(crate) mod flush;
pub(crate) mod known;
pub(crate) mod own;

pub(crate) use command::ServerCommand;
pub(crate) use embedded::{SchedulePolicy, ServerEmbedded, SwapPolicy, WritePolicy};
pub(crate) use external::ServerExternal;
pub(crate) use known::{ServerLlamaCpp, ServerSglang, ServerTransformers, ServerVllm};

use crate::http::{self, Peer};
use engine::service::{Endpoint, Probe};
use engine::step::{Resolved, StepContext, StepError};
use engine::types::Arguments;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Facts that every server brings besides `url`.
pub(crate) const FACTS: &[&str] = &["port", "model"];

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

/// Asks whether a server serves; a model that the plan names counts more than the first one that
/// the server names.
async fn probe(endpoint: &Endpoint, health: &str, model: Option<&str>) -> Probe {
    match (http::probe(Peer::of(endpoint), health).await, model) {
        (Probe::Ready(mut facts), Some(model)) => {
            facts.insert("model".to_owned(), model.to_owned());
            Probe::Ready(facts)
        }
        (probe, _) => probe,
    }
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
