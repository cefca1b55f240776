//! Accepting connections, and letting go of them within a bounded time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::{Clock, MonotonicClock, Nanos};

/// How long a connection may take to send a request's head, or stay idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long answers in progress may take once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept: mostly the process has run out of file descriptors, and trying
/// again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a request knows of the connection that brought it.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// When it was accepted.
    pub(super) accepted: Nanos,
    /// Makes it end with a reset, if it is one of HTTP/1.1.
    pub(super) reset: ResetSwitch,
}

/// Says that a connection is to be reset when it is let go of, not closed.
#[derive(Debug, Clone, Default)]
pub(super) struct ResetSwitch(Arc<AtomicBool>);

impl ResetSwitch {
    pub(super) fn set(&self) {
        self.0.store(true, Relaxed);
    }
}

/// Serves connections until `stop` says so, then closes them: idle ones at once, busy ones after
/// their answer, and all that remain after five seconds.
pub async fn accept(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let connection_stop = stop.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let accepted = MonotonicClock.now();
                    let (router, stop) = (router.clone(), connection_stop.clone());
                    connections.spawn(serve(stream, accepted, router, stop));
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

async fn serve(
    stream: TcpStream,
    accepted: Nanos,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    // A token must not wait for the acknowledgement of the one before. Failing to say so only
    // costs latency.
    let _ = stream.set_nodelay(true);
    let version = tokio::select! {
        version = tokio::time::timeout(HEAD_TIMEOUT, version(&stream)) => version,
        () = is_told(&mut stop) => return,
    };
    let connection = Connection {
        accepted,
        reset: ResetSwitch::default(),
    };
    let switch = connection.reset.clone();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.call(request)
    });
    match version {
        Ok(Ok(Version::One)) => {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT);
            let io = TokioIo::new(Resettable { stream, switch });
            until_told!(builder.serve_connection(io, service), stop);
        }
        Ok(Ok(Version::Two)) => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(HEAD_TIMEOUT);
            // Here a single stream is reset, which is the protocol's own business.
            let io = TokioIo::new(stream);
            until_told!(builder.serve_connection(io, service), stop);
        }
        // It is gone, or has nothing to say.
        Ok(Err(_)) | Err(_) => {}
    }
}

/// A socket that is reset when it is dropped, if its switch says so.
struct Resettable {
    stream: TcpStream,
    switch: ResetSwitch,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.switch.0.load(Relaxed) {
            // One that cannot be told so is closed, which cuts the answer too.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
