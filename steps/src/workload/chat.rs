//! `workload.chat`: chat requests that exist already, one body of OpenAI's protocol on each line.
//!
//! What is counted are the tokens of what messages say: what a server's template puts around them is not
//! known here.

use super::prompts::load_tokenizer;
use super::records::{Damaged, Whole, read};
use super::{OUTPUT, ideal_text, tokens_text, write};
use crate::kinds::Model;
use embedded_server::tokenizer::Tokenizer;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Any, Artifact};
use loadgen::{Prefixes, Prompt, Request};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::num::NonZeroU32;
use std::path::Path;

/// What a load says itself, for all requests alike.
const OF_THE_LOAD: &[&str] = &["model", "stream", "stream_options", "temperature"];

engine::options! {
    /// Options of `workload.chat`.
    pub struct WorkloadChat {
        /// The requests: one JSON object per line with `messages`, and `max_completion_tokens` or `max_tokens`. What
        /// a load says itself is passed over: `model`, `stream`, `stream_options`, `temperature`. Anything else cannot
        /// be sent, and the step fails.
        source: Artifact<Any>;
        /// The model whose tokenizer counts what messages say.
        model: Artifact<Model>;
        /// Takes only so many, from the beginning.
        requests: Option<NonZeroU32>, in "requests";
        /// Answer length to ask for, instead of the file's own.
        output_tokens: Option<NonZeroU32>, in "tokens";
        /// What becomes of a file that is damaged.
        damaged: Damaged = Damaged::Refuse;
    }
}

impl StepType for WorkloadChat {
    const NAME: &'static str = "workload.chat";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Reads chat requests as OpenAI's protocol has them, one per line.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }
}

/// A line.
#[derive(Deserialize)]
struct Body {
    messages: Vec<Value>,
    max_completion_tokens: Option<NonZeroU32>,
    max_tokens: Option<NonZeroU32>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Body {
    fn request(
        self,
        number: u64,
        output: Option<NonZeroU32>,
        counting: &mut Counting<'_>,
    ) -> Result<Request, String> {
        let unknown = self
            .rest
            .keys()
            .find(|key| !OF_THE_LOAD.contains(&key.as_str()));
        if let Some(unknown) = unknown {
            return Err(format!("`{unknown}` of a single request cannot be sent"));
        }
        let own = self.max_completion_tokens.or(self.max_tokens);
        let output = output.or(own);
        let output =
            output.ok_or("no `max_completion_tokens`, and no `output_tokens` in the plan")?;
        let (input, cacheable) = counting.count(&self.messages)?;
        let prompt = Prompt::Messages(self.messages);
        Ok(Request {
            cacheable_tokens: Some(cacheable),
            ..Request::new(format!("chat-{number}"), prompt, input, output)
        })
    }
}

/// Counts what messages say, and how much of it was said before.
struct Counting<'a> {
    tokenizer: &'a Tokenizer,
    seen: Prefixes,
    /// Where each message begins: ids behind the vocabulary, one for each role.
    roles: Vec<String>,
}

impl Counting<'_> {
    /// The tokens of all messages, and how many of them begin a request before.
    fn count(&mut self, messages: &[Value]) -> Result<(u32, u32), String> {
        let size = u32::try_from(self.tokenizer.vocab_size()).unwrap_or(u32::MAX);
        let mut ids = Vec::new();
        for message in messages {
            ids.push(size.saturating_add(self.role(message)?));
            for text in texts(message)? {
                ids.extend(self.tokenizer.encode(text).map_err(|e| e.to_string())?);
            }
        }
        let said = |ids: &[u32]| {
            let said = ids.iter().filter(|id| **id < size).count();
            u32::try_from(said).unwrap_or(u32::MAX)
        };
        let shared = self.seen.add(&ids);
        Ok((said(&ids), said(&ids[..shared])))
    }

    /// The number of a message's role.
    fn role(&mut self, message: &Value) -> Result<u32, String> {
        let role = message["role"].as_str().ok_or("a message has no `role`")?;
        let known = self.roles.iter().position(|known| known == role);
        let at = known.unwrap_or(self.roles.len());
        if known.is_none() {
            self.roles.push(role.to_owned());
        }
        u32::try_from(at).map_err(|_| "too many roles".to_owned())
    }
}

/// What a message says: one text, or several.
fn texts(message: &Value) -> Result<Vec<&str>, String> {
    match &message["content"] {
        Value::String(text) => Ok(vec![text]),
        Value::Null => Ok(Vec::new()),
        Value::Array(parts) => parts
            .iter()
            .map(|part| {
                let text = part["text"].as_str();
                text.ok_or_else(|| format!("a part of a message that is no text: {}", part["type"]))
            })
            .collect(),
        other => Err(format!(
            "expected `content` to be a text or parts, found `{other}`"
        )),
    }
}

impl WorkloadChat {
    fn requests(
        &self,
        path: &Path,
        tokenizer: &Tokenizer,
    ) -> Result<(Vec<Request>, Whole), StepError> {
        let most = self.requests.map_or(usize::MAX, |n| n.get() as usize);
        let mut counting = Counting {
            tokenizer,
            seen: Prefixes::default(),
            roles: Vec::new(),
        };
        let mut requests = Vec::new();
        let whole = read(path, self.damaged, |number, body: Body| {
            if requests.len() < most {
                requests.push(body.request(number, self.output_tokens, &mut counting)?);
            }
            Ok(())
        })?;
        Ok((requests, whole))
    }
}

#[async_trait::async_trait]
impl Step for WorkloadChat {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let tokenizer = load_tokenizer(&context.path(&self.model)?)?;
        context.doing("reading requests");
        let (requests, whole) = self.requests(&context.path(&self.source)?, &tokenizer)?;
        let workload = write(context, requests)?;
        Ok(StepReport::line(format!(
            "{} requests of {} in, {} out{}{}",
            workload.requests().len(),
            tokens_text(&workload, |r| r.input_tokens),
            tokens_text(&workload, |r| r.output_tokens.get()),
            ideal_text(&workload),
            whole.text()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(bodies: &[Value]) -> Result<Vec<(u32, Option<u32>, u32)>, String> {
        let tokenizer = Tokenizer::of_words(500).unwrap();
        let mut counting = Counting {
            tokenizer: &tokenizer,
            seen: Prefixes::default(),
            roles: Vec::new(),
        };
        let all = (0..).zip(bodies);
        all.map(|(number, body)| {
            let body: Body = serde_json::from_value(body.clone()).map_err(|e| e.to_string())?;
            let request = body.request(number, None, &mut counting)?;
            Ok((
                request.input_tokens,
                request.cacheable_tokens,
                request.output_tokens.get(),
            ))
        })
        .collect()
    }

    fn body(messages: &[(&str, &str)], more: Value) -> Value {
        let message = |(role, content): &(&str, &str)| json!({"role": role, "content": content});
        let mut body = more;
        body["messages"] = messages.iter().map(message).collect();
        body
    }

    #[test]
    fn what_messages_say_is_counted_and_what_they_share() {
        let system = ("system", "baba babe babi");
        let bodies = [
            body(
                &[system, ("user", "babo babu")],
                json!({"max_tokens": 7, "stream": true, "model": "m"}),
            ),
            body(
                &[system, ("user", "babo bada")],
                json!({"max_completion_tokens": 8, "max_tokens": 1}),
            ),
            // Another who says the same begins another prompt.
            body(&[("user", "baba babe babi")], json!({"max_tokens": 9})),
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "baba babe"}]}], "max_tokens": 1}),
        ];
        let expected = [
            (5, Some(0), 7),
            (5, Some(4), 8),
            (3, Some(0), 9),
            (2, Some(2), 1),
        ];
        assert_eq!(told(&bodies).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_sent_or_counted_is_told() {
        let user = &[("user", "baba")];
        let image = json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}], "max_tokens": 1});
        for (body, expected) in [
            (
                body(user, json!({"max_tokens": 1, "tools": []})),
                "`tools` of a single request",
            ),
            (body(user, json!({})), "no `max_completion_tokens`"),
            (body(user, json!({"max_tokens": 0})), "nonzero"),
            (json!({"max_tokens": 1}), "missing field `messages`"),
            (
                json!({"messages": [{"content": "x"}], "max_tokens": 1}),
                "no `role`",
            ),
            (image, "no text: \"image_url\""),
        ] {
            let error = told(&[body]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
