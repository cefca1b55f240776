//! The same client over TLS, towards servers whose certificates a CA of their own has signed.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use loadgen::{Class, RunPlan, Trust};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use crate::server::{Then, good, read_request};
use crate::{assert_good, failure, go, plan};

/// A CA of its own.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            pem: parameters.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    /// What a server of this name shows.
    pub(crate) fn sign(&self, name: &str) -> Arc<ServerConfig> {
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(config.with_single_cert(chain, key).unwrap())
    }

    /// Trusts this one by a file that begins with other words.
    pub(crate) fn trusted(&self) -> Trust {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, format!("# ours\n\n{}", self.pem)).unwrap();
        Trust::read(&file).unwrap()
    }
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// Answers each request over TLS by `handler(number of the request, its connection)`; also counts
/// connections.
fn serve(
    config: Arc<ServerConfig>,
    handler: impl Fn(usize, &mut Stream) -> Then + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (counted, requests) = (connections.clone(), Arc::new(AtomicUsize::new(0)));
    let handler = Arc::new(handler);
    thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            let (handler, requests) = (handler.clone(), requests.clone());
            let connection = ServerConnection::new(config.clone()).unwrap();
            thread::spawn(move || {
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                // A client that is content with no certificate asks nothing.
                while read_request(&mut stream).is_some() {
                    let number = requests.fetch_add(1, Ordering::SeqCst);
                    if handler(number, &mut stream) == Then::Close {
                        break;
                    }
                }
            });
        }
    });
    (address, connections)
}

/// Writes a good answer in one record per piece, of sizes in turn.
fn write_in_records(stream: &mut Stream, sizes: &[usize]) {
    let answer = good();
    let mut rest = answer.as_bytes();
    for size in sizes.iter().cycle() {
        let (record, after) = rest.split_at((*size).min(rest.len()));
        // A client that is gone is no failure of the server.
        let _ = stream.write_all(record).and_then(|()| stream.flush());
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

fn plan_over_tls(address: SocketAddr, trust: Trust, n: u32) -> RunPlan {
    let mut plan = plan(address, n);
    plan.target.address = format!("https://{address}").parse().unwrap();
    plan.target.trust = trust;
    plan
}

#[tokio::test]
async fn answers_in_records_of_any_size_are_whole() {
    let authority = Authority::new("ours");
    let (address, _) = serve(authority.sign("127.0.0.1"), |number, stream| {
        let sizes: &[usize] = match number {
            0 => &[1],
            1 => &[3, 1, 7, 31, 2],
            2 => &[97, 5],
            3 => &[16_384],
            _ => &[211, 1, 1],
        };
        write_in_records(stream, sizes);
        Then::KeepAlive
    });
    let result = go(plan_over_tls(address, authority.trusted(), 6)).await;
    assert_eq!(result.records.len(), 6);
    result.records.iter().for_each(assert_good);
}

#[tokio::test]
async fn good_answers_share_one_connection_and_its_handshake() {
    let authority = Authority::new("ours");
    let (address, connections) = serve(authority.sign("127.0.0.1"), |_, stream| {
        // In one record, so that the end of the body has come when the answer is over.
        write_in_records(stream, &[16_384]);
        Then::KeepAlive
    });
    let result = go(plan_over_tls(address, authority.trusted(), 5)).await;
    result.records.iter().for_each(assert_good);
    let fresh = result.records.iter().map(|r| r.connected.is_some());
    assert_eq!(
        fresh.collect::<Vec<_>>(),
        [true, false, false, false, false]
    );
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_is_closed_without_farewell_is_replaced() {
    let authority = Authority::new("ours");
    let (address, connections) = serve(authority.sign("127.0.0.1"), |_, stream| {
        write_in_records(stream, &[40]);
        Then::Close
    });
    let result = go(plan_over_tls(address, authority.trusted(), 5)).await;
    result.records.iter().for_each(assert_good);
    assert_eq!(connections.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_cut_inside_the_records_is_a_cut_answer() {
    let authority = Authority::new("ours");
    let (address, _) = serve(authority.sign("127.0.0.1"), |_, stream| {
        let _ = stream.write_all(&good().as_bytes()[..150]);
        let _ = stream.flush();
        Then::Close
    });
    let result = go(plan_over_tls(address, authority.trusted(), 1)).await;
    assert_eq!(failure(&result.records[0]).0, Class::Truncated);
}

/// What the only request came to, towards a server of that name and CA.
async fn refused(signer: &Authority, name: &str, trust: Trust) -> String {
    let (address, _) = serve(signer.sign(name), |_, _| panic!("nobody trusts it"));
    let result = go(plan_over_tls(address, trust, 1)).await;
    let (class, message) = failure(&result.records[0]);
    assert_eq!(class, Class::Connect, "{message}");
    assert!(message.contains("cannot connect to"), "{message}");
    assert!(message.contains("invalid peer certificate"), "{message}");
    message.to_owned()
}

#[tokio::test]
async fn a_certificate_of_another_name_is_no_connection() {
    let authority = Authority::new("ours");
    let message = refused(&authority, "other.example", authority.trusted()).await;
    assert!(
        message.contains("127.0.0.1") && message.contains("other.example"),
        "{message}"
    );
}

#[tokio::test]
async fn a_certificate_of_an_unknown_ca_is_no_connection() {
    let (known, unknown) = (Authority::new("ours"), Authority::new("theirs"));
    for trust in [known.trusted(), Trust::default()] {
        let message = refused(&unknown, "127.0.0.1", trust).await;
        assert!(message.contains("UnknownIssuer"), "{message}");
        assert!(
            message.contains("help: name the file of the CA"),
            "{message}"
        );
    }
}

#[test]
fn a_file_of_several_certificates_trusts_each() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let (one, other) = (Authority::new("ours"), Authority::new("theirs"));
    std::fs::write(&file, format!("{}{}", one.pem, other.pem)).unwrap();
    let Trust::Own(roots) = Trust::read(&file).unwrap() else {
        panic!("a file is not Mozilla");
    };
    assert_eq!(roots.len(), 2);
    let half = &other.pem[..other.pem.len() / 2];
    std::fs::write(&file, format!("{}{half}", one.pem)).unwrap();
    let error = Trust::read(&file).unwrap_err().to_string();
    assert!(error.contains("certificate 2 of"), "{error}");
    assert!(Trust::read(Path::new("/dev/null")).is_err());
}
