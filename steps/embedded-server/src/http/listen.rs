//! Accepting connections, and letting go of them within a bounded time.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a connection may take to send a request's head, or stay idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long answers in progress may take once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept: mostly the process has run out of file descriptors, and trying
/// again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until `stop` says so, then closes them: idle ones at once, busy ones after
/// their answer, and all that remain after five seconds.
pub(crate) async fn accept(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let connection_stop = stop.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, router.clone(), connection_stop.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            // Reaps connections that have ended.
            Some(_) = connections.join_next() => {}
            () = is_told(&mut stop) => break,
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// Serves a connection to its end, or until `stop` says so and its answers are over. Errors are the
/// client's: it went away or sent no HTTP.
macro_rules! until_told {
    ($connection:expr, $stop:expr) => {{
        let mut connection = std::pin::pin!($connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = is_told(&mut $stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }};
}

async fn serve(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>) {
    // A token must not wait for the acknowledgement of the one before. Failing to say so only
    // costs latency.
    let _ = stream.set_nodelay(true);
    let version = tokio::select! {
        version = tokio::time::timeout(HEAD_TIMEOUT, version(&stream)) => version,
        () = is_told(&mut stop) => return,
    };
    let service = TowerToHyperService::new(router);
    let io = TokioIo::new(stream);
    match version {
        Ok(Ok(Version::One)) => {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT);
            until_told!(builder.serve_connection(io, service), stop);
        }
        Ok(Ok(Version::Two)) => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(HEAD_TIMEOUT);
            until_told!(builder.serve_connection(io, service), stop);
        }
        // It is gone, or has nothing to say.
        Ok(Err(_)) | Err(_) => {}
    }
}

enum Version {
    One,
    Two,
}

/// The version of HTTP by how a connection begins: `PRI` is no method of HTTP/1.1.
async fn version(stream: &TcpStream) -> std::io::Result<Version> {
    let mut begins = [0; 3];
    loop {
        stream.readable().await?;
        match stream.peek(&mut begins).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n if !b"PRI".starts_with(&begins[..n]) => return Ok(Version::One),
            3 => return Ok(Version::Two),
            // The rest is on its way, and nothing tells of it while these lie there.
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Resolves when the server shall stop, or is gone itself.
async fn is_told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
