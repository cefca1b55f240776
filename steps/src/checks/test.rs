//! `server.test`: asks every model that a server names a few fixed questions, and looks whether the
//! answers are what the protocol says.

use super::ask::{self, Said, usage};
use crate::files;
use crate::http::{self, Peer};
use crate::kinds::InferenceServer;
use crate::result::{Definition, MeasuredFile, Row};
use engine::step::{
    Figure, Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
    Verdict,
};
use engine::types::{Lease, Positive, Text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

/// Tokens of an answer.
const TOKENS: u64 = 8;
const PROMPT: &str = "The capital of France is the city of";
/// Asked of every model with sampling, as people ask.
const PROMPTS: [&str; 6] = [
    "Write one sentence about the sea:",
    "A recipe for bread begins with",
    "The three largest cities of Europe are",
    "Once upon a time in a small village",
    "To sort a list of numbers, first",
    "The weather tomorrow will be",
];

engine::options! {
    /// Options of `server.test`.
    pub struct ServerTest {
        /// The server.
        server: Lease<InferenceServer>;
        /// Models to ask; all that the server names if empty.
        models: Vec<String> = Vec::new();
        /// Whether chat completions are asked for, too.
        chat: bool = true;
        /// Prompts that every model answers with sampling, one after the other; six fixed ones if empty.
        prompts: Vec<String> = Vec::new();
        /// The sampling temperature of these.
        temperature: Positive = Positive(0.5);
        /// The share of probability that their tokens are chosen from.
        top_p: Positive = Positive(0.9);
        /// How many of the most probable tokens they are chosen from.
        top_k: NonZeroU32 = NonZeroU32::new(50).unwrap_or(NonZeroU32::MIN), in "tokens";
        /// Sent as a bearer token; write `${secret.NAME}`.
        api_key: Option<Text>;
        /// Longest wait for one answer.
        request_timeout: Duration = Duration::from_secs(120);
    }
}

impl StepType for ServerTest {
    const NAME: &'static str = "server.test";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Asks every served model a few fixed prompts, and checks that streaming, stop, usage and errors are as the protocol says.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "result",
            file: "result.json",
            kind: "result",
            doc: "One row per model and check: whether it passed.",
        }]
    }
}

/// What a check found: nothing, or what is wrong.
type Finding = Result<(), String>;

#[async_trait::async_trait]
impl Step for ServerTest {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let key = self.api_key.as_ref().map(|k| context.text(k)).transpose()?;
        let endpoint = context.endpoint(&self.server)?;
        let models = match self.models.is_empty() {
            true => served(Peer::of(endpoint), key.as_deref()).await?,
            false => self.models.clone(),
        };
        let mut rows = Vec::new();
        let mut wrong = Vec::new();
        for model in &models {
            let asking = Asking {
                server: Peer::of(endpoint),
                model,
                key: key.as_deref(),
                limit: self.request_timeout,
            };
            context.doing(format!("asking `{model}`"));
            let mut found = asking.all(self.chat).await?;
            found.push(("prompts", self.prompts(&asking).await?));
            for (check, finding) in found {
                let mut row = Row::default();
                row.labels.insert("model".to_owned(), model.clone());
                row.labels.insert("check".to_owned(), check.to_owned());
                row.set("passed", f64::from(u8::from(finding.is_ok())));
                rows.push(row);
                wrong.extend(
                    finding
                        .err()
                        .map(|why| format!("`{model}`, {check}: {why}")),
                );
            }
        }
        let n = rows.len();
        let passed = n - wrong.len();
        let target = BTreeMap::from([("url".to_owned(), endpoint.url.clone())]);
        files::write_json(&context.output("result.json"), &measured(rows, target))?;
        Ok(StepReport {
            summary: Some(format!(
                "{passed} of {n} checks passed on {} models",
                models.len()
            )),
            verdict: Some(Verdict {
                grade: if wrong.is_empty() {
                    Grade::Valid
                } else {
                    Grade::Invalid
                },
                reasons: wrong,
            }),
            #[expect(clippy::cast_precision_loss, reason = "there are a dozen checks")]
            figures: vec![Figure {
                name: "passed".to_owned(),
                value: passed as f64,
                unit: format!("of {n}"),
            }],
        })
    }
}

impl ServerTest {
    /// Whether every prompt is answered at the length that was asked for.
    async fn prompts(&self, asking: &Asking<'_>) -> Result<Finding, StepError> {
        let own = self.prompts.iter().map(String::as_str);
        let prompts: Vec<&str> = match self.prompts.is_empty() {
            true => PROMPTS.to_vec(),
            false => own.collect(),
        };
        for prompt in prompts {
            let sampling = json!({
                "prompt": prompt, "temperature": self.temperature.0, "top_p": self.top_p.0,
                "top_k": self.top_k,
            });
            let said = asking.completion(sampling).await?;
            if let Err(why) = whole_answer(&said, "/choices/0/text") {
                return Ok(Err(format!("`{prompt}`: {why}")));
            }
        }
        Ok(Ok(()))
    }
}

async fn served(server: Peer<'_>, api_key: Option<&str>) -> Result<Vec<String>, StepError> {
    let answer = http::get_as(server, "/v1/models", api_key).await?;
    let listed = answer.body.get("data").and_then(Value::as_array);
    let names = listed.into_iter().flatten();
    let names = names.filter_map(|m| m.get("id")?.as_str().map(str::to_owned));
    let names: Vec<String> = names.collect();
    if names.is_empty() {
        return Err(StepError::new("`/v1/models` names no model").help("name them: `models = […]`"));
    }
    Ok(names)
}

fn measured(rows: Vec<Row>, target: BTreeMap<String, String>) -> MeasuredFile {
    MeasuredFile {
        rows,
        definitions: vec![Definition {
            name: "passed".to_owned(),
            unit: "1 or 0".to_owned(),
            formula: "1 if the answer was what the protocol says".to_owned(),
        }],
        notes: Vec::new(),
        target,
        details: Value::Null,
    }
}

/// Whom to ask.
struct Asking<'a> {
    server: Peer<'a>,
    model: &'a str,
    key: Option<&'a str>,
    limit: Duration,
}

impl Asking<'_> {
    async fn all(&self, chat: bool) -> Result<Vec<(&'static str, Finding)>, StepError> {
        let whole = self.completion(json!({})).await?;
        let streamed =
            self.completion(json!({ "stream": true, "stream_options": { "include_usage": true } }));
        let streamed = streamed.await?;
        let mut found = vec![
            ("completion", whole_answer(&whole, "/choices/0/text")),
            ("stream", stream(&streamed, "/choices/0/text")),
            ("stream says the same", same(&whole, &streamed)),
            ("stop", self.stop(&whole).await?),
            ("unknown model", self.unknown_model().await?),
            ("impossible length", self.impossible().await?),
            ("broken request", self.broken().await?),
        ];
        if chat {
            let whole = self.chat(json!({})).await?;
            let streamed =
                self.chat(json!({ "stream": true, "stream_options": { "include_usage": true } }));
            found.push(("chat", whole_answer(&whole, "/choices/0/message/content")));
            found.push((
                "chat stream",
                stream(&streamed.await?, "/choices/0/delta/content"),
            ));
        }
        Ok(found)
    }

    async fn completion(&self, more: Value) -> Result<Said, StepError> {
        let body = json!({
            "model": self.model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0,
            "ignore_eos": true,
        });
        self.post("/v1/completions", with(body, more).to_string())
            .await
    }

    async fn chat(&self, more: Value) -> Result<Said, StepError> {
        let body = json!({
            "model": self.model, "messages": [{ "role": "user", "content": PROMPT }],
            "max_tokens": TOKENS, "temperature": 0, "ignore_eos": true,
        });
        self.post("/v1/chat/completions", with(body, more).to_string())
            .await
    }

    async fn post(&self, path: &str, body: String) -> Result<Said, StepError> {
        ask::post(self.server, path, body, self.limit, self.key).await
    }

    /// A word of the answer, as a stop string, ends it before that word.
    async fn stop(&self, whole: &Said) -> Result<Finding, StepError> {
        let text = text_at(&whole.json(), "/choices/0/text");
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some(word) = words
            .iter()
            .skip(1)
            .find(|word| word.chars().all(char::is_alphanumeric))
        else {
            return Ok(Err("the answer has no second word to stop at".to_owned()));
        };
        let said = self.completion(json!({ "stop": [word] })).await?;
        let answer = said.json();
        let (text, reason) = (
            text_at(&answer, "/choices/0/text"),
            text_at(&answer, "/choices/0/finish_reason"),
        );
        Ok(match (said.status, text.contains(word), reason.as_str()) {
            (200, false, "stop") => Ok(()),
            (200, true, _) => Err(format!("the stop string `{word}` is in the answer")),
            (200, false, reason) => Err(format!("it finished with reason `{reason}`, not `stop`")),
            (status, ..) => Err(format!("status {status}")),
        })
    }

    async fn unknown_model(&self) -> Result<Finding, StepError> {
        let said = self
            .completion(json!({ "model": "no-such-model-is-served-here" }))
            .await?;
        // Servers of one model may take any name, which harms nobody.
        Ok(match said.status {
            200 => Ok(()),
            _ => refused(&said),
        })
    }

    async fn impossible(&self) -> Result<Finding, StepError> {
        let said = self.completion(json!({ "max_tokens": -1 })).await?;
        Ok(refused(&said))
    }

    async fn broken(&self) -> Result<Finding, StepError> {
        let said = self
            .post("/v1/completions", "{\"model\": ".to_owned())
            .await?;
        Ok(refused(&said))
    }
}

/// Sets keys of an object.
fn with(mut body: Value, more: Value) -> Value {
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

fn text_at(answer: &Value, path: &str) -> String {
    let text = answer.pointer(path).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// A refusal is the client's fault by its status, and says why.
fn refused(said: &Said) -> Finding {
    if !(400..500).contains(&said.status) {
        return Err(format!("status {}, expected 400 to 499", said.status));
    }
    let answer = said.json();
    let has_words = answer.get("error").is_some()
        || answer.get("message").is_some()
        || answer.get("detail").is_some();
    match has_words {
        true => Ok(()),
        false => Err("the refusal has no error that says why".to_owned()),
    }
}

fn whole_answer(said: &Said, path: &str) -> Finding {
    if said.status != 200 {
        return Err(format!("status {}: {}", said.status, said.text));
    }
    let answer = said.json();
    if text_at(&answer, path).is_empty() {
        return Err(format!("there is no text at `{path}`"));
    }
    counts(&answer)?;
    match text_at(&answer, "/choices/0/finish_reason").as_str() {
        "length" => Ok(()),
        reason => Err(format!("it finished with reason `{reason}`, not `length`")),
    }
}

fn counts(answer: &Value) -> Finding {
    let usage = usage(answer);
    match (usage.prompt, usage.completion) {
        (Some(1..), Some(TOKENS)) => Ok(()),
        (Some(0) | None, _) => Err("the prompt's tokens are not counted".to_owned()),
        (_, None) => Err("the answer's tokens are not counted".to_owned()),
        (_, Some(n)) => Err(format!(
            "the answer has {n} tokens, and {TOKENS} were asked for"
        )),
    }
}

fn stream(said: &Said, path: &str) -> Finding {
    if said.status != 200 {
        return Err(format!("status {}: {}", said.status, said.text));
    }
    let events = said.events().map_err(|e| e.to_string())?;
    if events.last().map(String::as_str) != Some("[DONE]") {
        return Err("the stream does not end with `[DONE]`".to_owned());
    }
    let chunks: Vec<Value> = events
        .iter()
        .filter_map(|event| serde_json::from_str(event).ok())
        .collect();
    if chunks
        .iter()
        .filter(|c| !text_at(c, path).is_empty())
        .count()
        < 2
    {
        return Err("the text comes in one piece".to_owned());
    }
    let reasons = chunks
        .iter()
        .map(|c| text_at(c, "/choices/0/finish_reason"));
    let reasons: Vec<String> = reasons.filter(|reason| !reason.is_empty()).collect();
    if reasons != ["length"] {
        return Err(format!(
            "reasons for its end are {reasons:?}, expected one: `length`"
        ));
    }
    let last = chunks.last().cloned().unwrap_or_default();
    counts(&last)
}

/// At temperature 0 both ways of answering give one text.
fn same(whole: &Said, streamed: &Said) -> Finding {
    let events = streamed.events().map_err(|e| e.to_string())?;
    let chunks = events
        .iter()
        .filter_map(|e| serde_json::from_str::<Value>(e).ok());
    let streamed: String = chunks.map(|c| text_at(&c, "/choices/0/text")).collect();
    let whole = text_at(&whole.json(), "/choices/0/text");
    match streamed == whole {
        true => Ok(()),
        false => Err(format!("streamed `{streamed}`, whole `{whole}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, text: &str) -> Said {
        Said {
            status,
            text: text.to_owned(),
        }
    }

    fn streamed(events: &[&str]) -> Said {
        let lines = events.iter().map(|event| format!("data: {event}\n\n"));
        said(200, &lines.collect::<String>())
    }

    const PIECE: &str = r#"{"choices":[{"text":" a","finish_reason":null}]}"#;
    const LAST: &str = r#"{"choices":[{"text":" b","finish_reason":"length"}]}"#;
    const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":8}}"#;

    #[test]
    fn streams_are_held_to_the_protocol() {
        let path = "/choices/0/text";
        assert_eq!(
            stream(&streamed(&[PIECE, LAST, USAGE, "[DONE]"]), path),
            Ok(())
        );
        for (events, why) in [
            (&[PIECE, LAST, USAGE][..], "`[DONE]`"),
            (&[LAST, USAGE, "[DONE]"], "one piece"),
            (&[PIECE, PIECE, USAGE, "[DONE]"], "reasons"),
            (&[PIECE, LAST, "[DONE]"], "not counted"),
        ] {
            let found = stream(&streamed(events), path).expect_err(why);
            assert!(found.contains(why), "{found}");
        }
        assert!(stream(&said(500, "no"), path).is_err());
    }

    #[test]
    fn whole_answers_and_refusals_are_held_to_it_too() {
        let answer = r#"{"choices":[{"text":" a b","finish_reason":"length"}],"usage":{"prompt_tokens":9,"completion_tokens":8}}"#;
        assert_eq!(whole_answer(&said(200, answer), "/choices/0/text"), Ok(()));
        let short = answer.replace(":8}", ":7}");
        assert!(whole_answer(&said(200, &short), "/choices/0/text").is_err());
        assert_eq!(refused(&said(400, r#"{"error":{"message":"no"}}"#)), Ok(()));
        assert!(refused(&said(500, r#"{"error":{}}"#)).is_err());
        assert!(refused(&said(422, "no")).is_err());
        let same_text = streamed(&[PIECE, LAST, "[DONE]"]);
        assert_eq!(same(&said(200, answer), &same_text), Ok(()));
    }
}
