//! What a server of this project wrote down during a load, and whether the records of it can be true.
//!
//! A server that keeps a trace says so in `/server_info`, with the machine whose clock it reads and with
//! where its trace ends now. After the load the rest is read and set beside the records, token by token.

use crate::http::{self, Peer};
use crate::result::{Definition, MeasuredFile};
use embedded_server::{AnswerOutcome, AnswerTrace, Trace};
use engine::service::Endpoint;
use engine::step::{FailureClass, StepError};
use loadgen::{Causality, Class, Outcome, Run, Truth, Verdict};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long answers may take to be written down that the client has seen the end of.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long that is waited for at a time.
const PAUSE: Duration = Duration::from_millis(20);

engine::choices! {
    /// Whether records are held to what the server wrote down.
    pub enum CausalityChoice {
        /// Where the server keeps a trace, as `server.embedded` does with `trace = true`.
        Automatic = "automatic",
        /// Always: without a trace the step fails.
        Required = "required",
        /// Never.
        No = "no",
    }
}

/// A trace from where a load begins on.
pub(super) struct ServerTrace<'a> {
    server: Peer<'a>,
    offset: u64,
}

impl<'a> ServerTrace<'a> {
    /// Finds the end of the server's trace, if it has one that can be used and is asked for.
    /// `info` is what the server says of itself now.
    pub(super) fn begin(
        choice: CausalityChoice,
        endpoint: &'a Endpoint,
        info: &Result<Value, StepError>,
    ) -> Result<Option<Self>, StepError> {
        if matches!(choice, CausalityChoice::No) {
            return Ok(None);
        }
        let server = Peer::of(endpoint);
        match offset(info) {
            Ok(offset) => Ok(Some(Self { server, offset })),
            Err(_) if matches!(choice, CausalityChoice::Automatic) => Ok(None),
            Err(why) => Err(StepError::new(format!(
                "the records cannot be held to the server's trace: {why}"
            ))
            .help("start it with a trace (`trace = true` of `server.embedded`), or write `causality = \"automatic\"`")),
        }
    }

    /// Sets the records of a run beside what the server wrote down meanwhile.
    pub(super) async fn causality(mut self, run: &Run) -> Result<Causality, StepError> {
        let begun = Instant::now();
        let mut truths = BTreeMap::new();
        loop {
            self.read(&run.info.request_prefix, &mut truths).await?;
            if is_whole(run, &truths) || begun.elapsed() > PATIENCE {
                let truths: Vec<Truth> = truths.into_values().collect();
                return Ok(Causality::of(&run.info, &run.records, &truths));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads what was written since the last time.
    async fn read(
        &mut self,
        prefix: &str,
        truths: &mut BTreeMap<String, Truth>,
    ) -> Result<(), StepError> {
        loop {
            let path = format!("/trace?since={}", self.offset);
            let (status, lines) = http::get_text(self.server, &path).await?;
            if status != 200 {
                let message = format!("the server answered {status} to `{path}`: {lines}");
                return Err(StepError::new(message).class(FailureClass::Infrastructure));
            }
            if lines.is_empty() {
                return Ok(());
            }
            self.offset += lines.len() as u64;
            let answers = Trace::parse(&lines)
                .map_err(|e| StepError::because("could not understand the server's trace", e))?;
            let ours = answers.into_iter().map(truth);
            let ours = ours.filter(|truth| truth.request.starts_with(prefix));
            truths.extend(ours.map(|truth| (truth.request.clone(), truth)));
        }
    }
}

/// Whether there is a truth for every request that may have come to the server.
fn is_whole(run: &Run, truths: &BTreeMap<String, Truth>) -> bool {
    let unsent = [
        Outcome::Failed(Class::Refused),
        Outcome::Failed(Class::Connect),
        Outcome::Dropped,
    ];
    let mut sent = run.records.iter().filter(|r| !unsent.contains(&r.outcome));
    sent.all(|r| truths.contains_key(&format!("{}{}", run.info.request_prefix, r.index)))
}

/// Where the server's trace ends now, or why it cannot be used.
fn offset(info: &Result<Value, StepError>) -> Result<u64, String> {
    let info = info.as_ref().map_err(|error| error.message.clone())?;
    let Some(trace) = info.get("trace").filter(|trace| !trace.is_null()) else {
        return Err("it keeps none".to_owned());
    };
    let machine = trace.get("machine").and_then(|machine| machine.as_str());
    if machine.is_none() || machine.map(str::to_owned) != embedded_server::machine() {
        return Err("it runs on another machine, whose clock is another one".to_owned());
    }
    let bytes = trace.get("bytes").and_then(Value::as_u64);
    bytes.ok_or_else(|| "it does not say where its trace ends".to_owned())
}

/// An answer as it is set beside records.
pub(super) fn truth(answer: AnswerTrace) -> Truth {
    // A record is of one prompt.
    let prompt = answer.prompts.first();
    let scheduled = prompt.and_then(|prompt| prompt.scheduled_ns);
    let cached = prompt.map(|prompt| (prompt.cached_device + prompt.cached_host) as u64);
    Truth {
        request: answer.request,
        received: answer.received_ns,
        scheduled,
        cached: scheduled.and(cached),
        ready: answer.tokens.iter().map(|token| token.ready_ns).collect(),
        sent: answer.sent_ns,
        tokens: answer.sent_tokens,
        silent: answer.silent,
        is_finished: answer.outcome == AnswerOutcome::Finished,
    }
}

/// A verdict that knows what was found, too.
pub(super) fn judged(verdict: Verdict, found: Option<&Causality>) -> Verdict {
    match found.and_then(Causality::reason) {
        Some(reason) => verdict.with(reason),
        None => verdict,
    }
}

/// Puts what was found into a result.
pub(super) fn describe(found: Option<&Causality>, result: &mut MeasuredFile) {
    let Some(found) = found else { return };
    for row in &mut result.rows {
        for (name, value) in found.values() {
            row.set(name, value);
        }
    }
    let definition = |(name, unit, formula): (&str, &str, &str)| Definition {
        name: name.to_owned(),
        unit: unit.to_owned(),
        formula: format!("{formula}, by the server's trace"),
    };
    let definitions = Causality::definitions().into_iter().map(definition);
    result.definitions.extend(definitions);
    if let Value::Object(details) = &mut result.details {
        details.insert("causality".to_owned(), serde_json::json!(found));
    }
}
