//! From a request's JSON to what the engine is asked.
//!
//! Pure: bytes and the served model in, requests or a refusal out.

mod choosing;
mod prompt;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::error::ApiError;
use super::fields::Fields;
use crate::engine::Request;
use crate::scheduler::Door;
use crate::tokenizer::{Detokenizer, StopStrings, TextStream, Tokenizer};
use choosing::{AskedEnding, sampling, stop_strings};
use prompt::{Prompts, chatted, generated, prompts};

/// What requests are checked against.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) model_name: String,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) door: Door,
    /// Ids that the model embeds.
    pub(crate) vocab_size: usize,
    /// Tokens that an image stands for, if there may be any.
    pub(crate) image_tokens: Option<usize>,
}

/// Which of the routes was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Completion,
    Chat,
    /// SGLang's own.
    Generate,
}

/// A request that can be submitted.
#[derive(Debug)]
pub(super) struct Generation {
    /// Position of the model that is asked.
    pub(super) model: usize,
    /// One per prompt.
    pub(super) requests: Vec<Request>,
    /// The text of each, before its first token.
    pub(super) texts: Vec<TextStream>,
    pub(super) delivery: Delivery,
    pub(super) ids: TokenIds,
    /// Whether prompts came in a list, even if in a list of one.
    pub(super) is_list: bool,
}

/// Whether an answer tells the ids of its tokens beside their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenIds {
    Untold,
    /// As vLLM's `return_token_ids` asks for them, and as SGLang's own protocol always does.
    Told,
}

/// How the answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Whole,
    Stream(UsageEvents),
}

/// When a stream tells token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageEvents {
    Never,
    /// In an event of its own at the end.
    AtEnd,
    /// In every event, and at the end.
    Always,
}

/// Reads and checks a request body. `fallback_seed` is for requests that name none.
pub(super) fn parse(
    body: &[u8],
    route: Route,
    served: &[Served],
    fallback_seed: u64,
) -> Result<Generation, ApiError> {
    let mut fields = Fields::parse(body)?;
    if route == Route::Generate {
        fields.flatten("sampling_params")?;
    }
    let model = chosen(&mut fields, served)?;
    let served = &served[model];
    fields.refuse_unsupported()?;
    let delivery = delivery(&mut fields)?;
    let sampling = sampling(&mut fields, fallback_seed)?;
    let stop = stop_strings(&mut fields)?;
    let Prompts { ids, is_list } = match route {
        Route::Completion => prompts(&mut fields, &["prompt"], served)?,
        Route::Generate => generated(&mut fields, served)?,
        Route::Chat => chatted(&mut fields, served)?,
    };
    let ending = AskedEnding::take(&mut fields, route)?;
    let objective = objective(&mut fields)?;
    let mut generation = Generation {
        model,
        requests: Vec::new(),
        texts: Vec::new(),
        delivery,
        ids: token_ids(&mut fields, route)?,
        is_list,
    };
    for prompt in ids {
        let ending = ending.for_prompt(route, prompt.len(), served)?;
        let detokenizer = match route {
            Route::Completion | Route::Generate => {
                Detokenizer::after(served.tokenizer.clone(), &prompt)
            }
            Route::Chat => Detokenizer::fresh(served.tokenizer.clone()),
        };
        let stop = StopStrings {
            strings: stop.clone(),
            min_tokens: ending.min_tokens,
        };
        let text = TextStream::new(detokenizer, stop.clone());
        let watched = (!stop.strings.is_empty()).then(|| text.clone());
        generation.requests.push(Request {
            prompt,
            sampling,
            ending,
            watched,
            objective,
        });
        generation.texts.push(text);
    }
    Ok(generation)
}

/// The position of the model that a request names; it need not where there is one.
pub(super) fn chosen(fields: &mut Fields, served: &[Served]) -> Result<usize, ApiError> {
    let names = || served.iter().map(|one| &*one.model_name);
    match fields.take::<String>("model", "a model's name")? {
        Some(asked) => {
            let at = names().position(|name| name == asked);
            at.ok_or_else(|| ApiError::no_such_model(&asked, names()))
        }
        None if served.len() == 1 => Ok(0),
        None => {
            let names: Vec<_> = names().collect();
            let problem = format!("missing; the models are `{}`", names.join("`, `"));
            Err(ApiError::field("model", problem))
        }
    }
}

/// How long after its arrival a request has to be answered: `slo`, in seconds.
fn objective(fields: &mut Fields) -> Result<Option<Duration>, ApiError> {
    let expected = "seconds above 0, at most 1e6";
    let seconds = fields.take_number("slo", expected, |s: f64| s > 0.0 && s <= 1e6)?;
    Ok(seconds.map(Duration::from_secs_f64))
}

fn token_ids(fields: &mut Fields, route: Route) -> Result<TokenIds, ApiError> {
    let asked = fields.take("return_token_ids", "`true` or `false`")?;
    let is_told = route == Route::Generate || asked.unwrap_or(false);
    Ok(if is_told {
        TokenIds::Told
    } else {
        TokenIds::Untold
    })
}

fn delivery(fields: &mut Fields) -> Result<Delivery, ApiError> {
    #[derive(Deserialize)]
    struct StreamOptions {
        #[serde(default)]
        include_usage: bool,
        #[serde(default)]
        continuous_usage_stats: bool,
    }
    let expected = "an object with `include_usage` and `continuous_usage_stats`";
    let options: Option<StreamOptions> = fields.take("stream_options", expected)?;
    let is_stream = fields.take("stream", "`true` or `false`")?.unwrap_or(false);
    match options {
        None if is_stream => Ok(Delivery::Stream(UsageEvents::Never)),
        None => Ok(Delivery::Whole),
        Some(_) if !is_stream => Err(ApiError::field(
            "stream_options",
            "only allowed with `stream: true`",
        )),
        Some(options) if options.continuous_usage_stats => {
            Ok(Delivery::Stream(UsageEvents::Always))
        }
        Some(options) if options.include_usage => Ok(Delivery::Stream(UsageEvents::AtEnd)),
        Some(_) => Ok(Delivery::Stream(UsageEvents::Never)),
    }
}

#[cfg(test)]
mod tests;
