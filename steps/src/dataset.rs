//! `dataset.random` and `dataset.file`: workloads, one JSON line per request.

use crate::files;
use crate::kinds::Model;
use embedded_server::tokenizer::Tokenizer;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Any, Artifact};
use engine::value::Table;
use loadgen::{Prompt, Request, Workload};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use std::num::NonZeroU32;
use std::path::Path;

const OUTPUT: &[OutputSpec] = &[OutputSpec {
    name: "workload",
    file: "workload.jsonl",
    kind: "workload",
    doc: "The requests, one JSON line each.",
}];

/// More prompt tokens than any run of a day needs; they are kept in memory while they are made.
const MOST_TOKENS: u64 = 500_000_000;

/// How often a text is cut and filled up until it has its length in tokens.
const ATTEMPTS: usize = 20;

engine::choices! {
    /// What a prompt is sent as.
    pub enum PromptForm {
        /// Text, which the server tokenises.
        Text = "text",
        /// Token ids, which leave the server nothing to tokenise.
        Tokens = "tokens",
    }
}

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
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Makes random prompts of exact lengths in tokens.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let tokens = u64::from(self.requests.get()) * u64::from(self.input_tokens.get());
        if tokens > MOST_TOKENS {
            let at = table.get("requests").map_or(place, |v| &v.place);
            let message = format!("{tokens} prompt tokens are more than {MOST_TOKENS}");
            parser.wrong::<()>(
                at,
                message,
                "too many",
                "make fewer or shorter requests; a load can reuse a workload with `reuse = \"cycle\"`",
            );
        }
        if !(self.range_ratio > 0.0 && self.range_ratio <= 1.0) {
            let at = table.get("range_ratio").map_or(place, |v| &v.place);
            let message = format!(
                "expected a share above 0 and up to 1, found {}",
                self.range_ratio
            );
            parser.wrong::<()>(
                at,
                message,
                "out of range",
                "1.0 makes every request as long as asked for",
            );
        }
    }
}

#[async_trait::async_trait]
impl Step for DatasetRandom {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let tokenizer = load_tokenizer(&context.path(&self.model)?)?;
        let mut random = ChaCha12Rng::seed_from_u64(self.seed);
        let allowed = allowed_ids(&tokenizer);
        if allowed.is_empty() {
            return Err(StepError::new(
                "the tokenizer has no ids besides special ones",
            ));
        }
        let total = self.requests.get();
        let mut requests = Vec::new();
        for i in 0..total {
            if i % 100 == 0 {
                context.done("making prompts", i.into(), total.into());
            }
            if context.is_cancelled() {
                return Err(StepError::new("interrupted"));
            }
            requests.push(self.request(i, &tokenizer, &allowed, &mut random)?);
        }
        let workload = Workload::new(requests).map_err(|e| StepError::new(e.to_string()))?;
        write_workload(context, &workload)?;
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
        tokenizer: &Tokenizer,
        allowed: &[u32],
        random: &mut ChaCha12Rng,
    ) -> Result<Request, StepError> {
        let input = self.length(self.input_tokens, random);
        let output = self.length(self.output_tokens, random);
        let ids: Vec<u32> = (0..input)
            .map(|_| allowed[random.random_range(0..allowed.len())])
            .collect();
        let prompt = match self.prompt {
            PromptForm::Tokens => Prompt::Tokens(ids),
            PromptForm::Text => Prompt::Text(exact_text(tokenizer, ids, allowed, random)?),
        };
        Ok(Request {
            id: format!("random-{i}"),
            conversation: None,
            turn: 0,
            arrival: None,
            model: None,
            prompt,
            input_tokens: input,
            output_tokens: NonZeroU32::new(output).unwrap_or(NonZeroU32::MIN),
            slo: None,
            group: None,
        })
    }

    fn length(&self, most: NonZeroU32, random: &mut ChaCha12Rng) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a u32, rounded up, is one"
        )]
        let least = (f64::from(most.get()) * self.range_ratio).ceil() as u32;
        random.random_range(least.clamp(1, most.get())..=most.get())
    }
}

/// Turns ids into a text that has exactly as many tokens when it is tokenised again.
///
/// Decoding and encoding merge or split tokens of most tokenizers, so the text is cut or filled
/// up until its length stands.
fn exact_text(
    tokenizer: &Tokenizer,
    mut ids: Vec<u32>,
    allowed: &[u32],
    random: &mut ChaCha12Rng,
) -> Result<String, StepError> {
    let wanted = ids.len();
    for _ in 0..ATTEMPTS {
        let text = tokenizer.decode(&ids);
        let again = tokenizer
            .encode(&text)
            .map_err(|e| StepError::new(e.to_string()))?;
        if again.len() == wanted {
            return Ok(text);
        }
        ids = again;
        ids.truncate(wanted);
        while ids.len() < wanted {
            ids.push(allowed[random.random_range(0..allowed.len())]);
        }
    }
    Err(StepError::new(format!(
        "no text of exactly {wanted} tokens was found in {ATTEMPTS} attempts"
    ))
    .help("write `prompt = \"tokens\"`: token ids have their length by themselves"))
}

fn allowed_ids(tokenizer: &Tokenizer) -> Vec<u32> {
    let special = tokenizer.special_ids();
    let size = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
    (0..size).filter(|id| !special.contains(id)).collect()
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
    const VERSION: u32 = 1;
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
        let mut requests = match (self.format, &self.model, self.output_tokens) {
            (FileFormat::Lines, Some(model), Some(output)) => {
                read_lines(&path, &load_tokenizer(&context.path(model)?)?, output)?
            }
            _ => Workload::read(&path)
                .map_err(|e| StepError::new(e.to_string()))?
                .requests()
                .to_vec(),
        };
        if let Some(most) = self.requests {
            requests.truncate(most.get() as usize);
        }
        if let Some(output) = self.output_tokens {
            requests.iter_mut().for_each(|r| r.output_tokens = output);
        }
        let workload = Workload::new(requests)
            .map_err(|e| StepError::because(format!("`{}`", path.display()), e))?;
        write_workload(context, &workload)?;
        Ok(StepReport::line(format!(
            "{} requests of {} in",
            workload.requests().len(),
            tokens_text(&workload, |r| r.input_tokens)
        )))
    }
}

fn read_lines(
    path: &Path,
    tokenizer: &Tokenizer,
    output_tokens: NonZeroU32,
) -> Result<Vec<Request>, StepError> {
    let text = files::read_text(path)?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let ids = tokenizer.encode(line).map_err(|e| {
                StepError::new(format!("line {} of `{}`: {e}", i + 1, path.display()))
            })?;
            Ok(Request {
                id: format!("line-{}", i + 1),
                conversation: None,
                turn: 0,
                arrival: None,
                model: None,
                prompt: Prompt::Text(line.to_owned()),
                input_tokens: u32::try_from(ids.len()).unwrap_or(u32::MAX),
                output_tokens,
                slo: None,
                group: None,
            })
        })
        .collect()
}

fn load_tokenizer(model: &Path) -> Result<Tokenizer, StepError> {
    Tokenizer::load(model).map_err(|e| {
        StepError::new(e.to_string())
            .help("derive the model with `model.derive`, which brings a tokenizer")
    })
}

fn write_workload(context: &StepContext, workload: &Workload) -> Result<(), StepError> {
    workload
        .write(&context.output("workload.jsonl"))
        .map_err(|e| StepError::new(e.to_string()))
}

fn tokens_text(workload: &Workload, of: impl Fn(&Request) -> u32) -> String {
    let lengths: Vec<u32> = workload.requests().iter().map(of).collect();
    match (lengths.iter().min(), lengths.iter().max()) {
        (Some(least), Some(most)) if least == most => format!("{most} tokens"),
        (Some(least), Some(most)) => format!("{least} to {most} tokens"),
        _ => "no tokens".to_owned(),
    }
}
