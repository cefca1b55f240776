//! `dataset.random` and `dataset.file`: workloads, one JSON line per request.

use crate::files;
use crate::kinds::Model;
use crate::workload::prompts::{PromptForm, Prompts};
use crate::workload::tokens::{Counter, Text, Tokens};
use crate::workload::{
    OUTPUT, check_ratio, check_tokens, ideal_text, made, tokens_text, write, write_beside,
};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Any, Artifact};
use engine::value::Table;
use loadgen::{Prefixes, Prompt, Request, Workload};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;

engine::options! {
    /// Options of `dataset.random`.
    pub struct DatasetRandom {
        /// The model whose tokenizer counts.
        model: Artifact<Model>;
        /// Number of requests.
        requests: NonZeroU32, in "requests";
        /// Prompt length, exact also after the server tokenises it again.
        input_tokens: NonZeroU32, in "tokens";
        /// Answer length to ask for.
        output_tokens: NonZeroU32, in "tokens";
        /// Lengths are drawn evenly from this share of the given length up to the length itself.
        range_ratio: f64 = 1.0;
        /// What a prompt is sent as.
        prompt: PromptForm = PromptForm::Text;
        /// Starts the random numbers.
        seed: u64 = 42;
    }
}

impl StepType for DatasetRandom {
    const NAME: &'static str = "dataset.random";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Makes random prompts of exact lengths in tokens.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let each = u64::from(self.input_tokens.get());
        let tokens = u64::from(self.requests.get()) * each;
        check_tokens(tokens, "requests", (table, place), parser);
        check_ratio(self.range_ratio, (table, place), parser);
    }
}

#[async_trait::async_trait]
impl Step for DatasetRandom {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let mut prompts = Prompts::new(&context.path(&self.model)?, self.prompt, self.seed)?;
        let mut seen = Prefixes::default();
        let total = self.requests;
        let mut requests = Vec::new();
        for i in 0..total.get() {
            if i % 100 == 0 {
                made(context, "making prompts", i, total)?;
            }
            requests.push(self.request(i, &mut prompts, &mut seen)?);
        }
        let workload = write(context, requests)?;
        Ok(StepReport::line(format!(
            "{total} requests of {} in, {} out",
            tokens_text(&workload, |r| r.input_tokens),
            tokens_text(&workload, |r| r.output_tokens.get())
        )))
    }
}

impl DatasetRandom {
    fn request(
        &self,
        i: u32,
        prompts: &mut Prompts,
        seen: &mut Prefixes,
    ) -> Result<Request, StepError> {
        let input = prompts.length(self.input_tokens, self.range_ratio);
        let output = prompts.length(self.output_tokens, self.range_ratio);
        let drawn = prompts.draw(input)?;
        let id = format!("random-{i}");
        Ok(Request {
            cacheable_tokens: Some(count(seen.add(&drawn.ids))),
            ..Request::new(id, drawn.prompt, input.get(), output)
        })
    }
}

engine::choices! {
    /// How a file of prompts is written.
    pub enum FileFormat {
        /// One JSON object per line, as every workload is.
        Workload = "workload",
        /// One prompt per line, as it stands.
        Lines = "lines",
    }
}

engine::options! {
    /// Options of `dataset.file`.
    pub struct DatasetFile {
        /// The file.
        path: Artifact<Any>;
        /// How it is written.
        format: FileFormat = FileFormat::Workload;
        /// The model whose tokenizer counts the tokens of `lines`.
        model: Option<Artifact<Model>>;
        /// Takes only so many, from the beginning.
        requests: Option<NonZeroU32>, in "requests";
        /// Answer length to ask for, instead of the file's own; needed for `lines`.
        output_tokens: Option<NonZeroU32>, in "tokens";
    }
}

impl StepType for DatasetFile {
    const NAME: &'static str = "dataset.file";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Reads a workload, or a file of prompts, that exists already.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, _: &Table, place: &Place, parser: &mut Parser<'_>) {
        if self.format != FileFormat::Lines {
            return;
        }
        for (name, missing) in [
            ("model", self.model.is_none()),
            ("output_tokens", self.output_tokens.is_none()),
        ] {
            if missing {
                parser.wrong::<()>(
                    place,
                    format!("`format = \"lines\"` needs option `{name}`"),
                    "missing",
                    &format!("add `{name} = …`"),
                );
            }
        }
    }
}

#[async_trait::async_trait]
impl Step for DatasetFile {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let path = context.path(&self.path)?;
        let mut images = None;
        let mut requests = match (self.format, &self.model, self.output_tokens) {
            (FileFormat::Lines, Some(model), Some(output)) => {
                let mut counter = Counter::load(&context.path(model)?)?;
                let requests = read_lines(&path, &mut counter, output)?;
                counter.finish();
                requests
            }
            _ => {
                let read = Workload::read(&path).map_err(|e| StepError::new(e.to_string()))?;
                images.insert(read).requests().to_vec()
            }
        };
        if let Some(most) = self.requests {
            requests.truncate(most.get() as usize);
        }
        if let Some(output) = self.output_tokens {
            requests.iter_mut().for_each(|r| r.output_tokens = output);
        }
        count_prefixes(&mut requests);
        let workload = write_beside(context, images.as_ref(), requests)
            .map_err(|e| StepError::because(format!("`{}`", path.display()), e))?;
        Ok(StepReport::line(format!(
            "{} requests of {} in{}",
            workload.requests().len(),
            tokens_text(&workload, |r| r.input_tokens),
            ideal_text(&workload)
        )))
    }
}

fn read_lines(
    path: &Path,
    counter: &mut Counter,
    output_tokens: NonZeroU32,
) -> Result<Vec<Request>, StepError> {
    let text = files::read_text(path)?;
    let mut seen = Prefixes::default();
    let lines = (1..).zip(text.lines());
    let lines: Vec<(usize, &str)> = lines.filter(|(_, line)| !line.trim().is_empty()).collect();
    let texts: Vec<Text<'_>> = lines.iter().map(|(_, line)| Text::Ids(line)).collect();
    let counted = counter.count(&texts)?;
    let request = |((number, line), tokens): ((usize, &str), Tokens)| {
        let prompt = Prompt::Text(line.to_owned());
        Request {
            cacheable_tokens: Some(count(seen.add(&tokens.ids))),
            ..Request::new(
                format!("line-{number}"),
                prompt,
                tokens.number,
                output_tokens,
            )
        }
    };
    Ok(lines.into_iter().zip(counted).map(request).collect())
}

/// Says of workloads of token ids alone, which say nothing of it themselves, how much of each prompt
/// a prefix cache could hold.
fn count_prefixes(requests: &mut [Request]) {
    let is_open = |r: &Request| {
        matches!(r.prompt, Prompt::Tokens(_)) && !r.continues && r.cacheable_tokens.is_none()
    };
    if !requests.iter().all(is_open) {
        return;
    }
    // Models share no cache.
    let mut seen: HashMap<Option<String>, Prefixes> = HashMap::new();
    for request in requests {
        if let Prompt::Tokens(ids) = &request.prompt {
            let seen = seen.entry(request.model.clone()).or_default();
            request.cacheable_tokens = Some(count(seen.add(ids)));
        }
    }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_share_no_prefixes() {
        let output = NonZeroU32::MIN;
        let request = |i: usize, model: &str| Request {
            model: Some(model.to_owned()),
            ..Request::new(format!("r{i}"), Prompt::Tokens(vec![1, 2, 3]), 3, output)
        };
        let models = ["a", "b", "a"].into_iter().enumerate();
        let mut requests: Vec<Request> = models.map(|(i, m)| request(i, m)).collect();
        count_prefixes(&mut requests);
        let found: Vec<_> = requests.iter().map(|r| r.cacheable_tokens).collect();
        assert_eq!(found, [Some(0), Some(0), Some(3)]);
    }
}
