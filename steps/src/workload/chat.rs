//! `workload.chat`: chat requests that exist already, one body of OpenAI's protocol on each line.
//!
//! What is counted are the tokens of what messages say: what a server's template puts around them is not
//! known here.

use super::records::{Damaged, Whole, read};
use super::tokens::{Counter, Text};
use super::{OUTPUT, ideal_text, tokens_text, write};
use crate::kinds::Model;
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

/// A line that can be sent, before its tokens are counted.
struct Asked {
    id: String,
    messages: Vec<Value>,
    output: NonZeroU32,
    /// For each message its role, and the texts that it says.
    says: Vec<(u32, Vec<String>)>,
}

impl Body {
    fn asked(
        self,
        number: u64,
        output: Option<NonZeroU32>,
        roles: &mut Roles,
    ) -> Result<Asked, String> {
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
        let says = |message: &Value| Ok::<_, String>((roles.number(message)?, texts(message)?));
        let says = self.messages.iter().map(says).collect::<Result<_, _>>()?;
        Ok(Asked {
            id: format!("chat-{number}"),
            messages: self.messages,
            output,
            says,
        })
    }
}

/// Roles in the order in which they came.
#[derive(Default)]
struct Roles(Vec<String>);

impl Roles {
    /// The number of a message's role.
    fn number(&mut self, message: &Value) -> Result<u32, String> {
        let role = message["role"].as_str().ok_or("a message has no `role`")?;
        let known = self.0.iter().position(|known| known == role);
        let at = known.unwrap_or(self.0.len());
        if known.is_none() {
            self.0.push(role.to_owned());
        }
        u32::try_from(at).map_err(|_| "too many roles".to_owned())
    }
}

/// Counts what messages say, on all processors, and how much of it was said before.
fn requests(asked: Vec<Asked>, counter: &mut Counter) -> Result<Vec<Request>, StepError> {
    let all = asked.iter().flat_map(|one| &one.says);
    let texts = all.flat_map(|(_, texts)| texts).map(|text| Text::Ids(text));
    let mut counted = counter.count(&texts.collect::<Vec<_>>())?.into_iter();
    // Where each message begins stands an id behind the vocabulary, one for each role.
    let size = u32::try_from(counter.tokenizer().vocab_size()).unwrap_or(u32::MAX);
    let number = |ids: &[u32]| {
        let said = ids.iter().filter(|id| **id < size).count();
        u32::try_from(said).unwrap_or(u32::MAX)
    };
    let mut seen = Prefixes::default();
    let request = |one: Asked| {
        let mut ids = Vec::new();
        for (role, texts) in &one.says {
            ids.push(size.saturating_add(*role));
            let tokens = counted.by_ref().take(texts.len());
            ids.extend(tokens.flat_map(|tokens| tokens.ids));
        }
        let shared = seen.add(&ids);
        let prompt = Prompt::Messages(one.messages);
        Request {
            cacheable_tokens: Some(number(&ids[..shared])),
            ..Request::new(one.id, prompt, number(&ids), one.output)
        }
    };
    Ok(asked.into_iter().map(request).collect())
}

/// What a message says: one text, or several.
fn texts(message: &Value) -> Result<Vec<String>, String> {
    match &message["content"] {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Null => Ok(Vec::new()),
        Value::Array(parts) => parts
            .iter()
            .map(|part| {
                let text = part["text"].as_str().map(str::to_owned);
                text.ok_or_else(|| format!("a part of a message that is no text: {}", part["type"]))
            })
            .collect(),
        other => Err(format!(
            "expected `content` to be a text or parts, found `{other}`"
        )),
    }
}

impl WorkloadChat {
    fn asked(&self, path: &Path) -> Result<(Vec<Asked>, Whole), StepError> {
        let most = self.requests.map_or(usize::MAX, |n| n.get() as usize);
        let mut roles = Roles::default();
        let mut asked = Vec::new();
        let whole = read(path, self.damaged, |number, body: Body| {
            if asked.len() < most {
                asked.push(body.asked(number, self.output_tokens, &mut roles)?);
            }
            Ok(())
        })?;
        Ok((asked, whole))
    }
}

#[async_trait::async_trait]
impl Step for WorkloadChat {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let mut counter = Counter::load(&context.path(&self.model)?)?;
        context.doing("reading requests");
        let (asked, whole) = self.asked(&context.path(&self.source)?)?;
        context.doing("counting tokens");
        let requests = requests(asked, &mut counter)?;
        let known = counter.finish();
        let workload = write(context, requests)?;
        Ok(StepReport::line(format!(
            "{} requests of {} in, {} out{}{}{known}",
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
        let tokenizer = embedded_server::tokenizer::Tokenizer::of_words(500).unwrap();
        let mut roles = Roles::default();
        let all = (0..).zip(bodies).map(|(number, body)| {
            let body: Body = serde_json::from_value(body.clone()).map_err(|e| e.to_string())?;
            body.asked(number, None, &mut roles)
        });
        let asked = all.collect::<Result<_, String>>()?;
        let requests = requests(asked, &mut Counter::of(tokenizer)).map_err(|e| e.message)?;
        let told = |r: &Request| (r.input_tokens, r.cacheable_tokens, r.output_tokens.get());
        Ok(requests.iter().map(told).collect())
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
