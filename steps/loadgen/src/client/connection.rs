//! One HTTP/1.1 connection: made, driven by whoever waits on it, reused or dropped.
//!
//! hyper wants a connection to be polled beside its requests, usually by a task of its own.
//! Here whoever waits for an answer polls both: no task switch stands between the bytes and
//! the one who takes the time. A pooled connection is polled by nobody, so that it was closed
//! shows when it is next taken.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use super::{
    address::Address,
    socket::{BytesRead, Socket, Stream},
};
use crate::{Class, protocol::Fault};

/// hyper's smallest buffer.
const SMALLEST_HEAD: usize = 8192;

type Body = Full<Bytes>;

/// What is needed to make a connection, the same for all of a run.
#[derive(Clone)]
pub(super) struct Connector {
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    head_limit: usize,
}

impl Connector {
    /// Fails only for a host that cannot be the subject of a certificate.
    pub(super) fn new(
        address: Address,
        timeout: Duration,
        head_limit: usize,
    ) -> Result<Self, String> {
        let tls = if address.tls {
            Some(tls(&address.host)?)
        } else {
            None
        };
        Ok(Self {
            address,
            tls,
            timeout,
            head_limit: head_limit.max(SMALLEST_HEAD),
        })
    }

    pub(super) async fn connect(&self) -> Result<Connection, Fault> {
        match tokio::time::timeout(self.timeout, self.establish()).await {
            Ok(result) => result,
            Err(_) => {
                let (to, after) = (self.address.authority(), self.timeout);
                Err(Fault {
                    class: Class::Connect,
                    message: format!("no connection to {to} within {after:?}"),
                })
            }
        }
    }

    async fn establish(&self) -> Result<Connection, Fault> {
        let failed = |error: io::Error| self.fault(&error);
        let to = (self.address.host.as_str(), self.address.port);
        let tcp = TcpStream::connect(to).await.map_err(failed)?;
        // Without this a request could wait for the acknowledgement of the one before it.
        tcp.set_nodelay(true).map_err(failed)?;
        let stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some((tls, name)) => Stream::Tls(Box::new(
                tls.connect(name.clone(), tcp).await.map_err(failed)?,
            )),
        };
        let socket = Socket::new(stream);
        let read = socket.bytes_read();
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(self.head_limit)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|error| self.fault(&io::Error::other(error)))?;
        Ok(Connection {
            sender,
            driver: Driver(Some(driver)),
            read,
        })
    }

    fn fault(&self, error: &io::Error) -> Fault {
        let class = match error.kind() {
            io::ErrorKind::ConnectionRefused => Class::Refused,
            _ => Class::Connect,
        };
        let message = format!("cannot connect to {}: {error}", self.address.authority());
        Fault { class, message }
    }
}

/// TLS towards `host`, whose certificate must lead to one of Mozilla's roots.
fn tls(host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("`{host}` is no name that a certificate can have"))?;
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    // Named, because the default is ambiguous once another crate brings a second provider.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// The half of a connection that moves bytes; empty once the connection ended.
struct Driver(Option<http1::Connection<TokioIo<Socket>, Body>>);

impl Driver {
    /// Polls the connection along with `future`, connection first: what it has read is there
    /// when `future` looks.
    async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Some(connection) = &mut self.0 {
                // How it ended reaches `future` by way of hyper's channels.
                if Pin::new(connection).poll(cx).is_ready() {
                    self.0 = None;
                }
            }
            future.as_mut().poll(cx)
        })
        .await
    }
}

/// A live connection, exclusively owned.
pub(super) struct Connection {
    sender: http1::SendRequest<Body>,
    driver: Driver,
    read: BytesRead,
}

impl Connection {
    /// Whether the connection can take a request; finds out when a pooled one was closed.
    pub(super) async fn ready(&mut self) -> bool {
        self.driver.drive(self.sender.ready()).await.is_ok()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        let response = self.sender.send_request(request);
        self.driver.drive(response).await
    }

    /// The next frame of the body that the last [`Connection::send`] returned.
    pub(super) async fn frame(
        &mut self,
        body: &mut Incoming,
    ) -> Option<hyper::Result<Frame<Bytes>>> {
        self.driver.drive(body.frame()).await
    }

    /// Bytes ever read on it.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read.get()
    }

    /// Whether it may be pooled after a body was read to its end.
    pub(super) fn reusable(&self) -> bool {
        self.driver.0.is_some() && !self.sender.is_closed()
    }
}
