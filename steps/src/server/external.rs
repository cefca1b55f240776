//! `server.external`: a server that runs already and is left running.

use crate::http::{self, CA_CERTIFICATES, Peer};
use crate::kinds::{Files, InferenceServer};
use engine::options::Parser;
use engine::service::{Endpoint, Launch, LaunchContext, Probe, Service, ServiceType};
use engine::source::Place;
use engine::step::StepError;
use engine::types::{Artifact, ArtifactKind, Origin};
use engine::value::Table;
use loadgen::{Address, Trust};
use std::collections::BTreeMap;
use std::time::Duration;

engine::options! {
    /// Options of `server.external`.
    pub struct ServerExternal {
        /// Its base address, such as `http://127.0.0.1:8000`.
        url: String;
        /// A PEM file with the certificate of the CA that signed the server's, or several; they are
        /// trusted in place of Mozilla's roots. For an address with `https://`.
        ca_certificates: Option<Artifact<Files>>;
        /// The model to ask for; the first one that `/v1/models` names if absent.
        model: Option<String>;
        /// The path that answers with status 200 when the server serves.
        health: String = "/v1/models".to_owned();
        /// What this server is, in your own words: its version, its arguments, its machine. Part
        /// of every measurement's key, because nobody else can tell that it was changed.
        label: String = String::new();
        /// Where it tells metrics in Prometheus' text: a path, or a whole address such as
        /// `http://127.0.0.1:9090/metrics`; `/metrics` if absent, where it tells any there.
        metrics_at: Option<String>;
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
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        let address = self.url.parse::<Address>();
        if let Err(error) = &address {
            parser.wrong::<()>(
                &at("url"),
                error.to_string().split("; help").next().unwrap_or(""),
                "no address",
                "write it like `http://127.0.0.1:8000`",
            );
        }
        super::check_metrics(self.metrics_at.as_deref(), table, place, parser);
        let Some(certificates) = &self.ca_certificates else {
            return;
        };
        if address.is_ok_and(|address| address.to_string().starts_with("http://")) {
            let message = "an address with `http://` has no certificate";
            let help = "write `https://`, or remove `ca_certificates`";
            parser.wrong::<()>(&at(CA_CERTIFICATES), message, "not used", help);
        }
        if let Origin::Path(path) = &certificates.origin
            && let Err(error) = Trust::read(path)
        {
            let error = error.to_string();
            let (message, help) = error.split_once("; help: ").unwrap_or((&error, ""));
            let label = "no certificates";
            parser.wrong::<()>(&at(CA_CERTIFICATES), message, label, help);
        }
    }
}

#[async_trait::async_trait]
impl Service for ServerExternal {
    fn launch(&self, context: &LaunchContext) -> Result<Launch, StepError> {
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
        if let Some(certificates) = &self.ca_certificates {
            let path = context.path(certificates)?;
            // Read once before anything rests on it.
            Trust::read(&path).map_err(|e| StepError::new(e.to_string()))?;
            facts.insert(CA_CERTIFICATES.to_owned(), path.display().to_string());
        }
        Ok(Launch::External {
            endpoint: Endpoint::new(self.url.as_str(), facts),
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

    async fn reset(&self, endpoint: &Endpoint) -> Result<(), StepError> {
        if self.flush_cache {
            super::flush_cache(endpoint).await
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::crypto::ring;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    const MODELS: &str = r#"{"data":[{"id":"small"}]}"#;

    /// Names one model to whoever accepts the certificate.
    fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
        let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        let length = MODELS.len();
        let head = format!("HTTP/1.1 200 x\r\ncontent-length: {length}\r\n\r\n");
        let stream = reader.get_mut();
        stream.write_all((head + MODELS).as_bytes())?;
        stream.conn.send_close_notify();
        stream.flush()
    }

    /// The address of a server whose certificate is its own, and that as PEM.
    fn server() -> (String, String) {
        let names = vec!["127.0.0.1".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let config = config.with_single_cert(vec![cert.der().clone()], key);
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        // It ends with the test's process; who does not accept its certificate has no answer.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, config.clone());
            }
        });
        (url, cert.pem())
    }

    #[tokio::test]
    async fn control_calls_accept_the_certificates_that_the_plan_names_and_no_others() {
        let (url, pem) = server();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, pem).unwrap();
        let known = |file: &std::path::Path| {
            let path = file.display().to_string();
            let facts = BTreeMap::from([(CA_CERTIFICATES.to_owned(), path)]);
            Endpoint::new(url.as_str(), facts)
        };
        let said = || super::super::Said {
            health: "/v1/models",
            model: None,
            metrics: None,
        };
        let ready = super::super::probe(&known(&file), said()).await;
        let facts = BTreeMap::from([("model".to_owned(), "small".to_owned())]);
        assert_eq!(ready, Probe::Ready(facts));
        let status = http::status(Peer::of(&known(&file)), "/v1/models").await;
        assert_eq!(status, Ok(200));
        std::fs::write(&file, server().1).unwrap();
        for endpoint in [known(&file), Endpoint::new(url.as_str(), BTreeMap::new())] {
            let refused = super::super::probe(&endpoint, said()).await;
            let Probe::Failed(why) = refused else {
                panic!("accepted: {refused:?}");
            };
            assert!(why.contains("invalid peer certificate"), "{why}");
            assert!(why.contains("by `ca_certificates`"), "{why}");
        }
    }
}
