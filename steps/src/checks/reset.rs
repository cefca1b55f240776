//! `server.reset`: empties a server's prefix cache, and asks whether that happened.

use super::ask::{self, usage};
use crate::http::Peer;
use crate::kinds::InferenceServer;
use crate::server::flush;
use engine::step::{
    FailureClass, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Lease, Text};
use serde_json::json;
use std::time::Duration;

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
            server: Peer::of(endpoint),
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
    server: Peer<'a>,
    model: &'a str,
    key: Option<&'a str>,
    limit: Duration,
}

impl Asking<'_> {
    /// Empties the cache by the first way that the server knows.
    async fn flush(&self) -> Result<&'static str, StepError> {
        let route = flush::flush(self.server, self.limit, self.key).await?;
        route.ok_or_else(|| {
            let message = format!("the server knows none of `{}`", flush::ROUTES.join("`, `"));
            StepError::new(message).help(
                "start it with its cache-reset route (vLLM: VLLM_SERVER_DEV_MODE=1), or restart it",
            )
        })
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
            self.server,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    const KEY: &str = "open sesame";

    /// Answers one request: refuses without the key, knows vLLM's route alone, and has everything
    /// cached that it was asked before.
    fn answer(stream: TcpStream, cached: &mut u64) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        while head.last().is_none_or(|line: &String| line != "\r\n") {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            head.push(line);
        }
        let value = |name: &str| head.iter().find_map(|line| line.strip_prefix(name));
        let length = value("content-length: ").and_then(|v| v.trim().parse().ok());
        reader.read_exact(&mut vec![0; length.unwrap_or(0)])?;
        let is_known = value("authorization: Bearer ").is_some_and(|v| v.trim() == KEY);
        let (status, body) = match head[0].split(' ').nth(1) {
            _ if !is_known => (401, String::new()),
            Some("/reset_prefix_cache") => {
                *cached = 0;
                (200, String::new())
            }
            Some("/v1/completions") => {
                let details = json!({ "cached_tokens": *cached });
                *cached = 300;
                let usage = json!({ "usage": { "prompt_tokens_details": details } });
                (200, usage.to_string())
            }
            _ => (404, String::new()),
        };
        let length = body.len();
        write!(
            reader.get_mut(),
            "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    }

    #[tokio::test]
    async fn a_key_is_given_and_an_emptied_cache_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // It ends with the test's process.
        std::thread::spawn(move || {
            let mut cached = 0;
            for stream in listener.incoming().flatten() {
                answer(stream, &mut cached).unwrap();
            }
        });
        let mut asking = Asking {
            server: Peer::at(&url),
            model: "m",
            key: Some(KEY),
            limit: Duration::from_secs(20),
        };
        assert_eq!(asking.cached_again().await.unwrap(), Some(300));
        assert_eq!(asking.flush().await.unwrap(), "/reset_prefix_cache");
        assert_eq!(asking.cached().await.unwrap(), Some(0));
        asking.key = None;
        let refused = asking.flush().await.unwrap_err();
        assert!(refused.help.iter().any(|help| help.contains("api_key")));
    }
}
