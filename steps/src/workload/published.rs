//! What makers from published data sets have in common: from conversations that were read to a workload
//! and the line that says what became of them.

use super::python_random::PythonRandom;
use super::records::Whole;
use super::talks::{Sample, Sampling, Talk};
use super::{ideal_text, made, tokens_text, write};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{StepContext, StepError, StepReport};
use engine::value::Table;
use loadgen::Request;
use std::num::NonZeroU32;

/// The suites' clients refuse to ask for shorter answers.
const LEAST_OUTPUT: u32 = 4;

/// How the conversations of a data set become a workload.
pub(super) struct Making {
    pub(super) sampling: Sampling,
    /// Starts the random numbers that put them in another order than the file's.
    pub(super) shuffled: Option<u64>,
    /// Puts what was taken in order.
    pub(super) order: fn(Sample) -> Vec<Request>,
}

impl Making {
    /// Writes the workload, and says what it was made of.
    pub(super) fn run(
        mut self,
        context: &StepContext,
        mut talks: Vec<Talk>,
        read: &Whole,
    ) -> Result<StepReport, StepError> {
        if let Some(seed) = self.shuffled {
            PythonRandom::seeded(seed).shuffle(&mut talks);
        }
        let wanted = self.sampling.wanted;
        let taken = self
            .sampling
            .take(&talks, |n| made(context, "counting tokens", n, wanted));
        // What was counted counts for the next time, also where this one fails.
        let known = self.sampling.counter.finish();
        let sample = taken?;
        let told = sample.text(wanted);
        let workload = write(context, (self.order)(sample))?;
        Ok(StepReport::line(format!(
            "{} requests of {} in, {} out{}; {told}{}{known}",
            workload.requests().len(),
            tokens_text(&workload, |r| r.input_tokens),
            tokens_text(&workload, |r| r.output_tokens.get()),
            ideal_text(&workload),
            read.text()
        )))
    }
}

/// Reports an answer length that the suites' clients refuse.
pub(super) fn check_output(
    output: Option<NonZeroU32>,
    (table, place): (&Table, &Place),
    parser: &mut Parser<'_>,
) {
    if let Some(output) = output.filter(|output| output.get() < LEAST_OUTPUT) {
        let at = table.get("output_tokens").map_or(place, |v| &v.place);
        let message = format!("expected at least {LEAST_OUTPUT} tokens, found {output}");
        let help = "remove it: then answers are as long as those of the data set";
        parser.wrong::<()>(at, message, "too short", help);
    }
}
