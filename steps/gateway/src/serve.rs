//! The gateway's life: bind, bring the models to where they begin, serve, stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::config::{Config, ConfigError};
use crate::fleet::Fleet;
use crate::{http, mover};

/// Serves what `config` names, on the caller's tokio runtime, until `shutdown` resolves.
///
/// The address is bound first, and told to `on_listening`. Requests are taken from then on;
/// `/health` answers 503 until every model is where it shall begin. `on_failure` is told, in words, of
/// every model that did not come or go. When `shutdown` resolves, what waits is refused, answers get
/// five seconds to come to their end, and models stay where they are; one that is coming or leaving
/// gets there first, within `swap_timeout`.
///
/// # Errors
/// [`GatewayError`], naming what has to change. A server that fails later is told of by `/health` and
/// by the answers to its requests.
pub async fn serve(
    config: Config,
    shutdown: impl Future,
    on_listening: impl FnOnce(SocketAddr),
    on_failure: impl Fn(&str) + Send + Sync + 'static,
) -> Result<(), GatewayError> {
    let (host, port) = (config.host.clone(), config.port);
    let fleet = Arc::new(Fleet::new(config, Box::new(on_failure))?);
    let bound = |source| GatewayError::Bind {
        address: format!("{host}:{port}"),
        source,
    };
    let listener = TcpListener::bind((&*host, port)).await.map_err(bound)?;
    on_listening(listener.local_addr().map_err(bound)?);
    // Sets, because they end their tasks when this future is dropped.
    let mut connections = JoinSet::new();
    let router = http::router(Arc::clone(&fleet));
    connections.spawn(embedded_server::accept(listener, router, fleet.stopped()));
    let (mut moving, mut sampling) = (JoinSet::new(), JoinSet::new());
    moving.spawn(mover::control(Arc::clone(&fleet)));
    sampling.spawn(mover::sample(Arc::clone(&fleet)));
    let outcome = tokio::select! {
        _ = moving.join_next() => Err(GatewayError::Ended),
        _ = sampling.join_next() => Err(GatewayError::Ended),
        _ = shutdown => Ok(()),
    };
    fleet.close();
    // Connections and moves bound their own end.
    while connections.join_next().await.is_some() {}
    while moving.join_next().await.is_some() {}
    outcome
}

/// A gateway that could not start, or did not stay.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It cannot be as it is asked for.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {source}; choose another `port`, or 0 for any free one")]
    Bind {
        /// Host and port.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// What moves models ended by itself.
    #[error("the gateway's own work ended unexpectedly; its message is on standard error")]
    Ended,
}
