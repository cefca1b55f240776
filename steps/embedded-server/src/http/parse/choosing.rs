//! How tokens are chosen, and when the text ends.

use serde::Deserialize;

use super::super::error::ApiError;
use super::super::fields::Fields;
use super::{Route, Served};
use crate::engine::{Ending, SamplingParams};

/// Output tokens where a completion request names none: OpenAI's default.
const DEFAULT_COMPLETION_TOKENS: usize = 16;
/// Output tokens where a request of SGLang's own names none: SGLang's default.
const DEFAULT_NEW_TOKENS: usize = 128;
/// Stop strings per request: each is searched for at every token.
const MAX_STOP_STRINGS: usize = 16;

pub(super) fn sampling(
    fields: &mut Fields,
    fallback_seed: u64,
) -> Result<SamplingParams, ApiError> {
    let temperature = fields.take_number("temperature", "a number from 0 to 100", |t| {
        (0.0..=100.0).contains(&t)
    })?;
    let top_p = fields.take_number("top_p", "a number above 0, at most 1", |p| {
        p > 0.0 && p <= 1.0
    })?;
    let top_k = fields.take_number("top_k", "-1 for all, or a count", |k: i64| k >= -1)?;
    let seed: Option<i64> = fields.take("seed", "an integer of 64 bits")?;
    Ok(SamplingParams {
        temperature: temperature.unwrap_or(1.0),
        top_p: top_p.unwrap_or(1.0),
        top_k: top_k
            .and_then(|k| usize::try_from(k).ok())
            .filter(|k| *k > 0),
        seed: seed.map_or(fallback_seed, i64::cast_unsigned),
    })
}

pub(super) fn stop_strings(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stop {
        One(String),
        Several(Vec<String>),
    }
    let strings = match fields.take("stop", "a string or an array of strings")? {
        None => Vec::new(),
        Some(Stop::One(string)) => vec![string],
        Some(Stop::Several(strings)) => strings,
    };
    if strings.len() > MAX_STOP_STRINGS {
        let problem = format!(
            "found {} strings, at most {MAX_STOP_STRINGS} are allowed",
            strings.len()
        );
        return Err(ApiError::field("stop", problem));
    }
    if strings.iter().any(String::is_empty) {
        return Err(ApiError::field(
            "stop",
            "an empty string ends every text before it begins",
        ));
    }
    Ok(strings)
}

/// When the text shall end, as far as the client said.
pub(super) struct AskedEnding {
    max_tokens: Option<usize>,
    min_tokens: usize,
    ignores_eos: bool,
    stop_ids: Vec<u32>,
}

impl AskedEnding {
    pub(super) fn take(fields: &mut Fields, route: Route) -> Result<Self, ApiError> {
        let count = "a count of at least 1";
        let mut most = |name| fields.take_number(name, count, |n: usize| n >= 1);
        let (max_tokens, least) = match route {
            Route::Generate => (most("max_new_tokens")?, "min_new_tokens"),
            Route::Completion | Route::Chat => {
                let newer = most("max_completion_tokens")?;
                (newer.or(most("max_tokens")?), "min_tokens")
            }
        };
        Ok(AskedEnding {
            max_tokens,
            min_tokens: fields.take(least, "a count")?.unwrap_or(0),
            ignores_eos: fields
                .take("ignore_eos", "`true` or `false`")?
                .unwrap_or(false),
            stop_ids: fields
                .take("stop_token_ids", "an array of token ids")?
                .unwrap_or_default(),
        })
    }

    /// The ending after a prompt of `n_prompt` tokens, if it can be served at all.
    pub(super) fn for_prompt(
        &self,
        route: Route,
        n_prompt: usize,
        served: &Served,
    ) -> Result<Ending, ApiError> {
        let (field, fallback) = match route {
            Route::Completion => ("prompt", DEFAULT_COMPLETION_TOKENS),
            Route::Generate => ("input_ids", DEFAULT_NEW_TOKENS),
            Route::Chat => ("messages", served.door.room(n_prompt).max(1)),
        };
        let max_tokens = self.max_tokens.unwrap_or(fallback);
        served
            .door
            .check(n_prompt, max_tokens)
            .map_err(|why| ApiError::refused(why, field))?;
        if self.min_tokens > max_tokens {
            let problem = format!(
                "{} is more than the {max_tokens} that are allowed at most",
                self.min_tokens
            );
            let field = match route {
                Route::Generate => "min_new_tokens",
                Route::Completion | Route::Chat => "min_tokens",
            };
            return Err(ApiError::field(field, problem));
        }
        Ok(Ending {
            max_tokens,
            min_tokens: self.min_tokens,
            ignores_eos: self.ignores_eos,
            stop_ids: self.stop_ids.clone(),
        })
    }
}
