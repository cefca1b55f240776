//! `load.warm`: requests whose only purpose is that later ones do not pay for first times.

use super::{HttpChoice, ProtocolChoice, target};
use crate::kinds::InferenceServer;
use engine::step::{
    FailureClass, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Lease, Text};
use loadgen::{
    Generation, Load, Observer, ObserverError, Prompt, Record, Request, RunPlan, Secret, Stop,
    Workload,
};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

/// What a plan gets that does not say.
const USUAL_REQUESTS: NonZeroU32 = of(16);
const USUAL_CONCURRENCY: NonZeroU32 = of(4);
const USUAL_WORDS: NonZeroU32 = of(32);
const USUAL_TOKENS: NonZeroU32 = of(16);
const USUAL_TIMEOUT: Duration = Duration::from_secs(300);

const fn of(n: u32) -> NonZeroU32 {
    match NonZeroU32::new(n) {
        Some(n) => n,
        None => NonZeroU32::MIN,
    }
}

engine::options! {
    /// Options of `load.warm`.
    pub struct LoadWarm {
        /// The server.
        server: Lease<InferenceServer>;
        /// Number of requests.
        requests: NonZeroU32 = USUAL_REQUESTS, in "requests";
        /// Requests at a time.
        concurrency: NonZeroU32 = USUAL_CONCURRENCY, in "requests";
        /// Words of a prompt.
        input_words: NonZeroU32 = USUAL_WORDS, in "words";
        /// Answer length.
        output_tokens: NonZeroU32 = USUAL_TOKENS, in "tokens";
        /// How to talk to the server.
        protocol: ProtocolChoice = ProtocolChoice::Completions;
        /// The version of HTTP; with TLS the server has to choose 2, without it is spoken unasked.
        http: HttpChoice = HttpChoice::One;
        /// Sent as a bearer token; write `${secret.NAME}`.
        api_key: Option<Text>;
        /// Longest wait for one answer.
        request_timeout: Duration = USUAL_TIMEOUT;
    }
}

impl StepType for LoadWarm {
    const NAME: &'static str = "load.warm";
    const KIND: StepKind = StepKind::Effect;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Warms a server with prompts of its own that no measurement uses.";

    fn outputs() -> &'static [OutputSpec] {
        &[]
    }
}

impl LoadWarm {
    /// As a plan would have it that says nothing but which server.
    pub(crate) fn of(server: Lease<InferenceServer>) -> Self {
        Self {
            server,
            requests: USUAL_REQUESTS,
            concurrency: USUAL_CONCURRENCY,
            input_words: USUAL_WORDS,
            output_tokens: USUAL_TOKENS,
            protocol: ProtocolChoice::Completions,
            http: HttpChoice::One,
            api_key: None,
            request_timeout: USUAL_TIMEOUT,
        }
    }

    fn workload(&self) -> Result<Workload, StepError> {
        let words = self.input_words.get();
        let prompt = |i: u32| {
            let words = (0..words).map(|j| format!("warm{i}x{j}"));
            Prompt::Text(words.collect::<Vec<_>>().join(" "))
        };
        let requests = (0..self.requests.get())
            .map(|i| Request::new(format!("warm-{i}"), prompt(i), words, self.output_tokens));
        Workload::new(requests.collect()).map_err(|e| StepError::new(e.to_string()))
    }
}

/// Passes progress on; warm-up keeps no records.
struct Follow<'a>(&'a StepContext);

impl Observer for Follow<'_> {
    fn progress(&mut self, progress: &loadgen::Progress) {
        let done = progress.completed + progress.failed;
        self.0
            .done("warming up", done, progress.planned.unwrap_or(done));
    }

    fn records(&mut self, _: &[Record]) -> Result<(), ObserverError> {
        Ok(())
    }
}

#[async_trait::async_trait]
impl Step for LoadWarm {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let api_key = self
            .api_key
            .as_ref()
            .map(|k| context.text(k).map(Secret::new))
            .transpose()?;
        let endpoint = context.endpoint(&self.server)?;
        let target = target(
            endpoint,
            self.protocol.into(),
            self.http.into(),
            Generation::default(),
            api_key,
        )?;
        let load = Load::closed(self.concurrency);
        let stop = Stop::Requests(NonZeroU64::from(self.requests));
        let mut plan = RunPlan::new(self.workload()?, load, stop, target);
        plan.timeouts.request = self.request_timeout;
        let run = loadgen::run(plan, &mut Follow(context), context.cancelled()).await;
        let run = run.map_err(|e| StepError::new(e.to_string()))?;
        let failed: Vec<&Record> = run.records.iter().filter(|r| !r.completed()).collect();
        if context.is_cancelled() {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
        if let Some(first) = failed.first() {
            let why = first
                .error
                .clone()
                .unwrap_or_else(|| first.outcome.to_string());
            return Err(StepError::new(format!(
                "{} of {} warm-up requests failed; the first: {why}",
                failed.len(),
                run.records.len()
            ))
            .class(FailureClass::Infrastructure));
        }
        Ok(StepReport::line(format!("{} requests", run.records.len())))
    }
}
