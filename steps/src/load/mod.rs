//! Load on a server: `load.warm` brings it into its stride, `load.test` measures it.

mod applied;
mod arrivals;
mod bisect;
mod calibrate;
mod calibration;
mod counters;
pub(crate) mod quantities;
mod recompute;
mod records;
mod rehearsal;
mod schedule;
mod search;
mod simulate;
pub(crate) mod telemetry;
mod test;
pub(crate) mod timeline;
mod truth;
mod warm;

pub use recompute::{Recomputed, recompute};

pub(crate) use calibrate::LoadCalibrate;
pub(crate) use records::read as read_records;
pub(crate) use schedule::WorkloadSchedule;
pub(crate) use search::LoadSearch;
pub(crate) use simulate::LoadSimulate;
pub(crate) use test::{LoadTest, describe_target};
pub(crate) use warm::LoadWarm;

use crate::http::Peer;
use crate::result::Definition;
use engine::service::Endpoint;
use engine::step::{Grade, StepError, Verdict};
use loadgen::{
    Address, ClientError, EventTime, Generation, HttpVersion, OutputLength, Protocol, Secret,
    Target,
};

engine::choices! {
    /// How to talk to the server.
    pub enum ProtocolChoice {
        /// `/v1/completions`: prompts of text or of token ids.
        Completions = "completions",
        /// `/v1/chat/completions`: messages; a text prompt becomes one user message.
        Chat = "chat",
        /// SGLang's own `/generate`: prompts of text or of token ids.
        Sglang = "sglang",
        /// `generate_stream` of TensorRT-LLM behind Triton: prompts of text. It tells no counts.
        Triton = "triton",
    }
}

engine::choices! {
    /// Whose time an event of an answer gets.
    pub enum EventTimeChoice {
        /// The client's, right after the read that brought it.
        Read = "read",
        /// The kernel's, when it received the packet. Sockets are then read together, at most every
        /// millisecond, which costs less and holds up the next request of a closed loop so long.
        Kernel = "kernel",
    }
}

impl From<EventTimeChoice> for EventTime {
    fn from(choice: EventTimeChoice) -> Self {
        match choice {
            EventTimeChoice::Read => EventTime::Read,
            EventTimeChoice::Kernel => EventTime::Kernel,
        }
    }
}

engine::choices! {
    /// The version of HTTP.
    pub enum HttpChoice {
        /// A connection for every request under way.
        One = "1.1",
        /// Many requests over one connection, as many as the server allows.
        Two = "2",
    }
}

impl From<HttpChoice> for HttpVersion {
    fn from(choice: HttpChoice) -> Self {
        match choice {
            HttpChoice::One => HttpVersion::One,
            HttpChoice::Two => HttpVersion::Two,
        }
    }
}

impl From<ProtocolChoice> for Protocol {
    fn from(choice: ProtocolChoice) -> Self {
        match choice {
            ProtocolChoice::Completions => Protocol::Completions,
            ProtocolChoice::Chat => Protocol::Chat,
            ProtocolChoice::Sglang => Protocol::Sglang,
            ProtocolChoice::Triton => Protocol::Triton,
        }
    }
}

/// What stands for an image in the texts of SGLang's own protocol.
pub(crate) fn image_token(asked: Option<&String>) -> String {
    asked
        .map_or(loadgen::IMAGE_TOKEN, String::as_str)
        .to_owned()
}

/// The fact that says what bodies hold in place of `ignore_eos`, which some servers refuse.
pub(crate) const EXACT_LENGTH: &str = "exact_length";

/// Whom to ask: the address and model of a leased server.
pub(crate) fn target(
    endpoint: &Endpoint,
    protocol: Protocol,
    http: HttpVersion,
    generation: Generation,
    api_key: Option<Secret>,
) -> Result<Target, StepError> {
    let address: Address = endpoint
        .url
        .parse()
        .map_err(|e: loadgen::AddressError| StepError::new(e.to_string()))?;
    let model = endpoint
        .facts
        .get("model")
        .cloned()
        .ok_or_else(|| StepError::new("the server did not say which model it serves"))?;
    let exact = match generation.length {
        OutputLength::Exact => endpoint.facts.get(EXACT_LENGTH),
        OutputLength::AtMost => None,
    };
    let extra = exact.and_then(|exact| serde_json::from_str(exact).ok());
    Ok(Target {
        trust: Peer::of(endpoint).trust()?,
        extra: extra.unwrap_or_default(),
        http,
        api_key,
        generation,
        ..Target::new(address, model, protocol)
    })
}

/// What a server says of itself in `/server_info`, where that is one value, by names such as
/// `server.executor`.
fn told_facts(info: serde_json::Value) -> impl Iterator<Item = (String, String)> {
    let info = match info {
        serde_json::Value::Object(info) => info,
        _ => serde_json::Map::new(),
    };
    let plain =
        |(_, v): &(String, serde_json::Value)| !v.is_array() && !v.is_object() && !v.is_null();
    info.into_iter().filter(plain).map(|(key, value)| {
        let text = value.as_str().map(str::to_owned);
        (
            format!("server.{key}"),
            text.unwrap_or_else(|| value.to_string()),
        )
    })
}

/// Translates a verdict on a load into the engine's words.
pub(crate) fn verdict(verdict: &loadgen::Verdict) -> Verdict {
    Verdict {
        grade: grade(verdict.grade),
        reasons: verdict.reasons.iter().map(reason_text).collect(),
    }
}

/// What the numbers mean that say what the client adds.
fn client_error_definitions() -> impl Iterator<Item = Definition> {
    let definition = |(name, formula): (&str, &str)| Definition {
        name: name.to_owned(),
        unit: "ms".to_owned(),
        formula: formula.to_owned(),
    };
    ClientError::definitions().into_iter().map(definition)
}

/// A reason and its mend.
fn reason_text(reason: &loadgen::Reason) -> String {
    format!("{} ({})", reason.message, reason.help)
}

fn grade(grade: loadgen::Grade) -> Grade {
    match grade {
        loadgen::Grade::Valid => Grade::Valid,
        loadgen::Grade::Degraded => Grade::Degraded,
        loadgen::Grade::Invalid => Grade::Invalid,
    }
}
