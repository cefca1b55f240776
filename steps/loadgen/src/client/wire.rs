//! What all requests of a run have in common on the wire.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use rustls::CertificateError::{BadSignature, UnknownIssuer};
use rustls::pki_types::ServerName;

use super::socket::{HTTP2, Socket, Tls};
use crate::{
    Address, Class, EventTime, HttpVersion, PlanError, RunPlan, Secret, Target, protocol::Fault,
};

const AGENT: &str = concat!("benchwright/", env!("CARGO_PKG_VERSION"));

/// How requests of one run reach their server.
pub(crate) struct Wire {
    authority: String,
    /// Where the name leads, or why it leads nowhere.
    addresses: Result<Vec<SocketAddr>, String>,
    tls: Option<Tls>,
    event_time: EventTime,
    head: Template,
    /// What the names of this run's requests begin with, among those of other runs.
    run: String,
}

impl Wire {
    /// Looks the server's name up, for at most as long as a connection may take.
    ///
    /// # Errors
    ///
    /// [`PlanError`] for a key that no header can carry, or a host that cannot be verified.
    pub(crate) async fn new(plan: &RunPlan, run: &str) -> Result<Self, PlanError> {
        let address = &plan.target.address;
        let bad = |problem| PlanError::Address {
            address: address.to_string(),
            problem,
        };
        let tls = address
            .tls
            .then(|| tls(&address.host, &plan.target))
            .transpose()
            .map_err(bad)?;
        Ok(Self {
            authority: address.authority(),
            head: Template::of(plan)?,
            run: run.to_owned(),
            addresses: look_up(address, plan.timeouts.connect).await,
            tls,
            event_time: plan.event_time,
        })
    }

    /// Which version of HTTP is spoken.
    pub(crate) fn http(&self) -> HttpVersion {
        match self.head {
            Template::One(_) => HttpVersion::One,
            Template::Two(_) => HttpVersion::Two,
        }
    }

    /// The head of the run's request number `index`, whose body has so many bytes.
    pub(crate) fn head(&self, index: u64, length: usize) -> RequestHead {
        let name = format!("{}{index}", self.run);
        match &self.head {
            Template::One(begins) => {
                let mut head = Vec::with_capacity(begins.len() + 64);
                head.extend_from_slice(begins);
                // A vector accepts every write.
                let _ = write!(head, "{length}\r\nx-request-id: {name}\r\n\r\n");
                RequestHead::One(head)
            }
            Template::Two(request) => {
                let mut request = request.clone();
                let fields = request.headers_mut();
                fields.insert(CONTENT_LENGTH, length.into());
                // Letters, digits and dashes.
                if let Ok(name) = HeaderValue::try_from(name) {
                    fields.insert("x-request-id", name);
                }
                RequestHead::Two(Box::new(request))
            }
        }
    }

    /// Whether the server has an address number `n`.
    pub(crate) fn has(&self, n: usize) -> bool {
        self.addresses.as_ref().is_ok_and(|all| n < all.len())
    }

    /// Begins to connect to the server's address number `n`; `None` if there are not so many.
    pub(crate) fn connect(&self, n: usize) -> Option<Result<Socket, Fault>> {
        let to = match &self.addresses {
            Ok(addresses) => *addresses.get(n)?,
            Err(why) if n == 0 => return Some(Err(self.unreachable(Class::Connect, why))),
            Err(_) => return None,
        };
        Some({
            let socket = Socket::connect(to, self.tls.as_ref(), self.event_time);
            socket.map_err(|error| self.fault(&error))
        })
    }

    /// Why no connection came to be.
    pub(crate) fn fault(&self, error: &std::io::Error) -> Fault {
        let class = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Class::Refused,
            _ => Class::Connect,
        };
        self.unreachable(class, &(error.to_string() + mend(error)))
    }

    /// That none came in time.
    pub(crate) fn too_late(&self, after: Duration) -> Fault {
        Fault {
            class: Class::Connect,
            message: format!("no connection to {} within {after:?}", self.authority),
        }
    }

    fn unreachable(&self, class: Class, why: &str) -> Fault {
        Fault {
            class,
            message: format!("cannot connect to {}: {why}", self.authority),
        }
    }
}

/// What helps against a certificate that nobody known has signed.
fn mend(error: &std::io::Error) -> &'static str {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)) => {
            "; help: name the file of the CA that signed it"
        }
        _ => "",
    }
}

async fn look_up(address: &Address, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    let to = (address.host.as_str(), address.port);
    match tokio::time::timeout(limit, tokio::net::lookup_host(to)).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("its name was not found within {limit:?}")),
    }
}

/// The head of one request.
pub(crate) enum RequestHead {
    /// As it is written.
    One(Vec<u8>),
    /// As it is to be encoded.
    Two(Box<http::Request<()>>),
}

impl RequestHead {
    /// What is written of it; nothing where the connection encodes it.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::Two(_) => &[],
        }
    }
}

/// What the heads of all requests have in common.
enum Template {
    /// Everything up to the length of the body.
    One(Vec<u8>),
    Two(http::Request<()>),
}

impl Template {
    fn of(plan: &RunPlan) -> Result<Self, PlanError> {
        let target = &plan.target;
        let key = target.api_key.as_ref().map(Secret::expose);
        if key.is_some_and(|key| key.bytes().any(|b| b.is_ascii_control())) {
            return Err(PlanError::ApiKey);
        }
        let path = target.address.path(&target.protocol.path(&target.model));
        let authority = target.address.authority();
        let fields = [
            ("content-type", "application/json"),
            ("accept", "text/event-stream"),
            ("accept-encoding", "identity"),
            ("user-agent", AGENT),
        ];
        match target.http {
            HttpVersion::One => Ok(Self::One(first(&path, &authority, &fields, key))),
            HttpVersion::Two => {
                let scheme = if target.address.tls { "https" } else { "http" };
                let to = format!("{scheme}://{authority}{path}");
                let request = second(&to, &fields, key);
                request.map(Self::Two).map_err(|error| PlanError::Address {
                    address: target.address.to_string(),
                    problem: error.to_string(),
                })
            }
        }
    }
}

fn first(path: &str, authority: &str, fields: &[(&str, &str)], key: Option<&str>) -> Vec<u8> {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: {authority}\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(key) = key {
        head.push_str(&format!("authorization: Bearer {key}\r\n"));
    }
    head.push_str("content-length: ");
    head.into_bytes()
}

fn second(
    to: &str,
    fields: &[(&str, &str)],
    key: Option<&str>,
) -> Result<http::Request<()>, http::Error> {
    let mut request = http::Request::post(to).version(http::Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    if let Some(key) = key {
        let mut value = HeaderValue::try_from(format!("Bearer {key}"))?;
        // Not to be kept in the tables that compress heads.
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(())
}

/// TLS towards `host`, whose certificate must lead to one that is trusted.
fn tls(host: &str, target: &Target) -> Result<Tls, String> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("`{host}` is no name that a certificate can have"))?;
    let mut config = target.trust.client_config()?;
    if target.http == HttpVersion::Two {
        config.alpn_protocols = vec![HTTP2.to_vec()];
    }
    let config = Arc::new(config);
    Ok(Tls { config, name })
}
