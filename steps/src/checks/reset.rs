//! `server.reset`: empties a server's prefix cache, and asks whether that happened.

use super::ask::{self, usage};
use crate::http;
use crate::kinds::InferenceServer;
use engine::step::{
    FailureClass, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Lease, Text};
use serde_json::json;
use std::time::Duration;

/// Where servers empty their caches: SGLang and the embedded one, vLLM.
const ROUTES: [&str; 2] = ["/flush_cache", "/reset_prefix_cache"];
/// Words of the prompt that tells whether something is kept: more than any block of a cache has.
const WORDS: usize = 300;

engine::choices! {
    /// Whether a reset has to be shown to have worked.
    pub enum VerifyChoice {
        /// It fails if the server does not tell.
        Required = "required",
        /// It fails only if the server tells that something is left.
        IfPossible = "if_possible",
        /// The server's word is taken for it.
        No = "no",
    }
}

engine::options! {
    /// Options of `server.reset`.
    pub struct ServerReset {
        /// The server.
        server: Lease<InferenceServer>;
        /// Whether the reset has to be shown to have worked, by the cached tokens that the server
        /// reports for a prompt that it had seen.
        verify: VerifyChoice = VerifyChoice::IfPossible;
        /// Sent as a bearer token; write `${secret.NAME}`.
        api_key: Option<Text>;
        /// Longest wait for one answer.
        request_timeout: Duration = Duration::from_secs(60);
    }
}

impl StepType for ServerReset {
    const NAME: &'static str = "server.reset";
    const KIND: StepKind = StepKind::Effect;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Empties a server's prefix cache, and verifies by its own counts that nothing is left.";

    fn outputs() -> &'static [OutputSpec] {
        &[]
    }
}

#[async_trait::async_trait]
impl Step for ServerReset {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let key = self.api_key.as_ref().map(|k| context.text(k)).transpose()?;
        let endpoint = context.endpoint(&self.server)?;
        let asking = Asking {
            url: &endpoint.url,
            model: endpoint.facts.get("model").map_or("", String::as_str),
            key: key.as_deref(),
            limit: self.request_timeout,
        };
        if matches!(self.verify, VerifyChoice::No) {
            let route = asking.flush().await?;
            return Ok(StepReport::line(format!(
                "emptied by `{route}`, not verified"
            )));
        }
        let before = asking.cached_again().await?;
        let route = asking.flush().await?;
        match before.filter(|cached| *cached > 0) {
            Some(before) => {
                let left = asking.cached().await?.unwrap_or(0);
                // The question has filled it again.
                asking.flush().await?;
                if left > 0 {
                    let message = format!(
                        "`{route}` was answered, but {left} of {before} prompt tokens are still cached"
                    );
                    return Err(StepError::new(message)
                        .help("restart the server between measurements")
                        .class(FailureClass::Infrastructure));
                }
                Ok(StepReport::line(format!(
                    "emptied by `{route}`: {before} cached tokens before, 0 after"
                )))
            }
            None if matches!(self.verify, VerifyChoice::Required) => Err(StepError::new(
                "the server reports no cached tokens, so nobody can tell whether its cache is empty",
            )
            .help("let the server report them (SGLang: `--enable-cache-report`; vLLM: `--enable-prompt-tokens-details`), or write `verify = \"if_possible\"`")),
            None => Ok(StepReport::line(format!(
                "emptied by `{route}`; the server reports no cached tokens, so that is not verified"
            ))),
        }
    }
}

/// Whom to ask.
struct Asking<'a> {
    url: &'a str,
    model: &'a str,
    key: Option<&'a str>,
    limit: Duration,
}

impl Asking<'_> {
    /// Empties the cache by the first way that the server knows.
    async fn flush(&self) -> Result<&'static str, StepError> {
        let mut refusals = Vec::new();
        for route in ROUTES {
            let answer = http::post(self.url, route).await?;
            match answer.status {
                200 => return Ok(route),
                404 | 405 => refusals.push(route),
                status => {
                    let message = format!("the server answered {status} to `{route}`");
                    return Err(StepError::new(message)
                        .help("nothing may run on it meanwhile")
                        .class(FailureClass::Infrastructure));
                }
            }
        }
        let message = format!("the server knows none of `{}`", refusals.join("`, `"));
        Err(StepError::new(message).help(
            "start it with its cache-reset route (vLLM: VLLM_SERVER_DEV_MODE=1), or restart it",
        ))
    }

    /// Asks twice, and returns how much of the prompt was cached the second time.
    async fn cached_again(&self) -> Result<Option<u64>, StepError> {
        self.cached().await?;
        self.cached().await
    }

    /// Asks a prompt that no measurement uses; how much of it was cached, if the server says so.
    async fn cached(&self) -> Result<Option<u64>, StepError> {
        let prompt: Vec<String> = (0..WORDS).map(|i| format!("reset{i}")).collect();
        let body = json!({
            "model": self.model,
            "prompt": prompt.join(" "),
            "max_tokens": 1,
            "temperature": 0,
        });
        let said = ask::post(
            self.url,
            "/v1/completions",
            body.to_string(),
            self.limit,
            self.key,
        )
        .await?;
        if said.status != 200 {
            let message = format!(
                "the server answered {} to a completion: {}",
                said.status, said.text
            );
            return Err(StepError::new(message).class(FailureClass::Infrastructure));
        }
        Ok(usage(&said.json()).cached)
    }
}
