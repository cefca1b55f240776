//! Services that are further processes of this binary: how they are started, where they listen, and
//! what makes one build another server.

use crate::http::{self, Peer};
use crate::load::timeline;
use engine::service::{Endpoint, Launch, LaunchContext, Probe};
use engine::step::StepError;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

/// Answers with status 200 once everything is loaded.
pub(crate) const HEALTH: &str = "/health";

/// The fact that names the file to which such a process writes its address.
pub(crate) const ADDRESS_FILE: &str = "address_file";

/// What of this binary a measurement depends on: another build is another server.
pub(crate) fn identity() -> Vec<(String, String)> {
    static DIGEST: OnceLock<String> = OnceLock::new();
    let digest = DIGEST.get_or_init(|| {
        let mut hasher = blake3::Hasher::new();
        let hashed = std::fs::File::open("/proc/self/exe")
            .and_then(|file| hasher.update_reader(file).map(drop));
        hashed.map_or_else(
            |e| format!("unreadable: {e}"),
            |()| hasher.finalize().to_hex().to_string(),
        )
    });
    vec![("binary".to_owned(), digest.clone())]
}

/// Starts this binary with these words, and with the file to which it is to write its address.
pub(crate) fn launch(context: &LaunchContext, words: Vec<String>) -> Result<Launch, StepError> {
    // By its own path, which a guardian can start.
    let program =
        std::env::current_exe().map_err(|e| StepError::because("could not find this binary", e))?;
    let file = context.folder.join("address").display().to_string();
    let mut argv = vec![program.display().to_string()];
    // Behind the command, so that what a plan says of its own comes last.
    let mut words = words.into_iter();
    argv.extend(words.next());
    argv.extend(["--address-file".to_owned(), file.clone()]);
    argv.extend(words);
    let facts = BTreeMap::from([(ADDRESS_FILE.to_owned(), file)]);
    Ok(Launch::Process {
        spec: context.process(argv, BTreeMap::new(), &context.folder),
        endpoint: Endpoint::new("", facts),
    })
}

/// Asks once whether it serves, where it listens.
pub(crate) async fn probe(endpoint: &Endpoint) -> Probe {
    let Some(url) = address(endpoint) else {
        return Probe::NotYet("it has not begun to listen yet".to_owned());
    };
    match http::probe(Peer::at(&url), HEALTH).await {
        Probe::Ready(mut facts) => {
            if let Some((_, port)) = url.rsplit_once(':') {
                facts.insert("port".to_owned(), port.to_owned());
            }
            facts.extend(super::metrics(Peer::at(&url), None).await);
            facts.insert("url".to_owned(), url);
            facts.insert(timeline::FACT.to_owned(), "told".to_owned());
            Probe::Ready(facts)
        }
        other => other,
    }
}

/// Asks for `path` once and returns the status of the answer.
pub(crate) async fn http_status(endpoint: &Endpoint, path: &str) -> Result<u16, String> {
    match address(endpoint) {
        Some(url) => http::status(Peer::at(&url), path).await,
        None => Err("it has not begun to listen yet".to_owned()),
    }
}

/// Asks for `path` once and returns what is told there, where anything is.
pub(crate) async fn told(endpoint: &Endpoint, path: &str) -> Option<Value> {
    let url = address(endpoint)?;
    let answer = http::get(Peer::at(&url), path).await;
    answer.ok().map(|answer| answer.body)
}

/// Where it listens, once it has written that down.
pub(crate) fn address(endpoint: &Endpoint) -> Option<String> {
    let text = std::fs::read_to_string(Path::new(endpoint.facts.get(ADDRESS_FILE)?)).ok()?;
    let url = text.trim();
    (!url.is_empty()).then(|| url.to_owned())
}
