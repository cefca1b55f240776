//! `workload.schedule`: writes into a workload when each request arrives, so that whoever replays it
//! does exactly the same work at exactly the same instants.

use super::arrivals::{ArrivalChoice, LoadOptions, StageOptions};
use crate::kinds::Workload as WorkloadKind;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Artifact, Nested, Positive};
use engine::value::Table;
use loadgen::{Load, Workload};
use std::num::NonZeroU64;

engine::options! {
    /// Options of `workload.schedule`.
    pub struct WorkloadSchedule {
        /// What is asked.
        workload: Artifact<WorkloadKind>;
        /// Mean arrivals per second.
        request_rate: Option<Positive>, in "requests/s";
        /// The arrival process.
        arrivals: ArrivalChoice = ArrivalChoice::Poisson;
        /// The shape of `gamma` arrivals.
        burstiness: Option<Positive>;
        /// Rates that follow each other; what arrives after the last one is left out.
        stages: Vec<Nested<StageOptions>> = Vec::new();
        /// So many requests; the whole workload if absent.
        requests: Option<NonZeroU64>, in "requests";
        /// Starts the random numbers.
        seed: u64 = 42;
    }
}

impl StepType for WorkloadSchedule {
    const NAME: &'static str = "workload.schedule";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes into a workload when each request arrives, for loads that replay it as `listed` arrivals.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "workload",
            file: "workload.jsonl",
            kind: "workload",
            doc: "The requests with their instants.",
        }]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        self.load().check(table, place, parser);
        if matches!(self.arrivals, ArrivalChoice::Listed) {
            let at = table.get("arrivals").map_or(place, |v| &v.place);
            let message = "`listed` arrivals are what this step writes";
            parser.wrong::<()>(
                at,
                message,
                "no process",
                "choose `poisson` or another process",
            );
        }
    }
}

impl WorkloadSchedule {
    fn load(&self) -> LoadOptions<'_> {
        LoadOptions {
            request_rate: self.request_rate,
            arrivals: Some(self.arrivals),
            burstiness: self.burstiness,
            stages: &self.stages,
            has_end: false,
            ..LoadOptions::none(self.seed)
        }
    }
}

#[async_trait::async_trait]
impl Step for WorkloadSchedule {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let failed = |e: loadgen::WorkloadError| StepError::new(e.to_string());
        let workload = Workload::read(&context.path(&self.workload)?).map_err(failed)?;
        let Load::Open { arrivals, seed, .. } = self.load().load(0)? else {
            return Err(StepError::new("the load is not open"));
        };
        let most = self.requests.map_or(u64::MAX, NonZeroU64::get);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let requests = workload.requests().iter().take(most);
        let scheduled: Vec<_> = requests
            .zip(arrivals.instants(seed))
            .map(|(request, at)| {
                let mut request = request.clone();
                request.arrival = Some(at);
                request
            })
            .collect();
        let last = scheduled.last().and_then(|r| r.arrival).unwrap_or_default();
        let n = scheduled.len();
        let scheduled = workload.with_requests(scheduled).map_err(failed)?;
        scheduled
            .write(&context.output("workload.jsonl"))
            .map_err(failed)?;
        Ok(StepReport::line(format!(
            "{n} requests within {:.1} s",
            last.as_secs_f64()
        )))
    }
}
