//! `model.derive`: another model configuration from one that exists.

use super::beside::{self, Content};
use super::placing::{GoOn, place};
use super::tokenizer::{TokenizerSource, write_generated};
use super::{failure, of_decoder, read_config, report};
use crate::files;
use crate::kinds::Model;
use engine::options::Parser;
use engine::problem::{did_you_mean, nearest};
use engine::source::Place;
use engine::step::{
    OutputSpec, Progress, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Artifact, Json, Origin, Positive};
use engine::value::Table;
use models::{
    Changes, Checkpoint, Fit, INDEX_FILE, Inventory, Part, SINGLE_FILE, decoder_layers, derive,
    known_keys,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

engine::choices! {
    /// What becomes of the weights of a base that has some.
    pub enum WeightsSource {
        /// Linked if they are those of the derived configuration and it uses most, else left out.
        Auto = "auto",
        /// Linked; a failure if they do not fit or cannot be read.
        Base = "base",
        /// Left out.
        None = "none",
    }
}

engine::options! {
    /// Options of `model.derive`.
    pub struct ModelDerive {
        /// A folder with `config_full.json` or `config.json`, and whatever else belongs to a model.
        /// Nothing in it is changed.
        base: Artifact<Model>;
        /// Keys of the configuration and their new values, such as `num_hidden_layers`, dotted where
        /// objects lie within each other, as in `"text_config.num_hidden_layers"`. A key that the
        /// base does not have needs a `+` before it.
        set: Json = Json::default();
        /// Keys that are removed.
        unset: Vec<String> = Vec::new();
        /// Keys whose numbers are multiplied; what is an integer must stay one.
        scale: BTreeMap<String, Positive> = BTreeMap::new();
        /// Where the tokenizer comes from.
        tokenizer: TokenizerSource = TokenizerSource::Auto;
        /// What becomes of the weights of a base that has some.
        weights: WeightsSource = WeightsSource::Auto;
    }
}

impl StepType for ModelDerive {
    const NAME: &'static str = "model.derive";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 4;
    const SUMMARY: &'static str =
        "Derives a model folder from another: fewer layers, another vocabulary, a tokenizer.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "dir",
            file: "model",
            kind: "model",
            doc: "The model's folder: `config.json`, tokenizer and code, and the base's weights \
                  where they fit.",
        }]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let Origin::Path(base) = &self.base.origin else {
            return;
        };
        let config = match read_config(base) {
            Ok(config) => config,
            Err(error) => {
                parser.wrong::<()>(
                    table.get("base").map_or(place, |v| &v.place),
                    error.message,
                    "no model configuration",
                    "name a folder with `config_full.json` or `config.json`",
                );
                return;
            }
        };
        let factors = self.factors();
        let changes = self.changes(&factors);
        let unknown = changes.unknown(&config);
        for (part, key) in &unknown {
            let place = super::place_of_key(table, *part, key).unwrap_or(place);
            let message = format!("the base has no key `{key}`");
            parser.wrong::<()>(place, message, "unknown key", &mend(&config, *part, key));
        }
        // What is unknown may be what would have made the rest possible.
        if unknown.is_empty()
            && let Err(problems) = derive(&config, &changes)
        {
            for problem in &problems {
                report(problem, table, place, "base", parser);
            }
        }
    }
}

#[async_trait::async_trait]
impl Step for ModelDerive {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let base = context.path(&self.base)?;
        let out = context.output("model");
        files::create_dir(&out)?;
        let (step, cancel) = (self.clone(), context.cancel.clone());
        let progress = context.progress.clone();
        let derived = tokio::task::spawn_blocking(move || {
            let go_on = |file: &Path, done, total| {
                progress(Progress {
                    doing: format!("copying `{}`", file.display()),
                    done: Some((done, total)),
                });
                !*cancel.borrow()
            };
            step.make(&base, &out, &go_on)
        });
        let line = derived
            .await
            .map_err(|e| StepError::because("the model was not derived", e))??;
        Ok(StepReport::line(line))
    }
}

impl ModelDerive {
    fn factors(&self) -> BTreeMap<String, f64> {
        let factors = self.scale.iter();
        factors
            .map(|(key, factor)| (key.clone(), factor.0))
            .collect()
    }

    fn changes<'a>(&'a self, factors: &'a BTreeMap<String, f64>) -> Changes<'a> {
        Changes {
            set: &self.set.0,
            unset: &self.unset,
            scale: factors,
        }
    }

    /// Derives the model in the folder `base` into the folder `out`; returns what was done. Blocks.
    fn make(&self, base: &Path, out: &Path, go_on: GoOn<'_>) -> Result<String, StepError> {
        let full = read_config(base)?;
        let factors = self.factors();
        let changes = self.changes(&factors);
        if let Some((part, key)) = changes.unknown(&full).first() {
            let message = format!("the base has no key `{key}`");
            return Err(StepError::new(message).help(mend(&full, *part, key)));
        }
        let derived = derive(&full, &changes).map_err(|problems| failure(&problems))?;
        let (mut config, mut notes) = (derived.config, derived.notes);
        let unchanged = of_decoder(&config, "vocab_size") == of_decoder(&full, "vocab_size");
        let is_base = self.tokenizer.is_base(base, unchanged)?;
        if !is_base {
            write_generated(&mut config, out)?;
        }
        let beside = beside::list(base)?;
        let comes_along = |content: Content| {
            content == Content::Other || content == Content::Tokenizer && is_base
        };
        let others = beside.iter().filter(|(_, content)| comes_along(*content));
        let mut names: Vec<String> = others.map(|(name, _)| name.clone()).collect();
        let weights = match self.weights_of(base, &beside, &config)? {
            Some(Ok(fit)) => {
                let phrase = fit.phrase();
                names.extend(fit.files);
                Some(phrase)
            }
            Some(Err(why)) => Some(format!("the base's weights left out: {why}")),
            None => None,
        };
        let placed = place(names, base, out, go_on)?;
        notes.extend(placed.any().then(|| placed.phrase()));
        notes.extend(weights);
        files::write_json(&out.join("config.json"), &config)?;
        Ok(summary(&config, &full, is_base, &notes))
    }

    /// Which of the base's weights come along, or why they are left out; nothing if there are none, or
    /// none are to come.
    fn weights_of(
        &self,
        base: &Path,
        beside: &[(String, Content)],
        config: &Map<String, Value>,
    ) -> Result<Option<Result<Fitting, String>>, StepError> {
        let has_some = beside.iter().any(|(_, c)| *c == Content::Weights);
        match self.weights {
            WeightsSource::None => return Ok(None),
            WeightsSource::Auto if !has_some => return Ok(None),
            WeightsSource::Base if !has_some => {
                return Err(StepError::new(format!(
                    "the base `{}` has no weights",
                    base.display()
                ))
                .help("make some with `model.weights`, or write `weights = \"auto\"`"));
            }
            WeightsSource::Auto | WeightsSource::Base => {}
        }
        match fitting(base, config) {
            Ok(fit) if self.weights == WeightsSource::Auto && fit.is_mostly_idle() => {
                Ok(Some(Err(format!(
                    "{} of {} tensors have no place in the model (`weights = \"base\"` brings them)",
                    fit.idle, fit.tensors
                ))))
            }
            Err(why) if self.weights == WeightsSource::Base => Err(StepError::new(format!(
                "the base's weights do not fit: {why}"
            ))
            .help(
                "make others with `model.weights`, or write `weights = \"none\"` to leave them out",
            )),
            fit => Ok(Some(fit)),
        }
    }
}

/// Weights of a base that a configuration can use.
struct Fitting {
    files: Vec<String>,
    tensors: usize,
    /// How many of the tensors have no place.
    idle: usize,
}

impl Fitting {
    /// Whether more would be carried along in vain than is used, as after cutting most layers.
    fn is_mostly_idle(&self) -> bool {
        self.idle > self.tensors / 2
    }

    /// Says of the files that came along that these are among them.
    fn phrase(&self) -> String {
        let beyond = match self.idle {
            0 => String::new(),
            n => format!(", of which {n} tensors have no place in the model"),
        };
        format!("the base's weights are among them{beyond}")
    }
}

/// The base's weights if they can be read and are those of `config`; else why not.
fn fitting(base: &Path, config: &Map<String, Value>) -> Result<Fitting, String> {
    let read = Checkpoint::read(base).map_err(|e| e.to_string())?;
    let none = || format!("there is neither `{SINGLE_FILE}` nor `{INDEX_FILE}`");
    let checkpoint = read.ok_or_else(none)?;
    let inventory = Inventory::of(config).map_err(|problem| problem.message)?;
    match checkpoint.fit(&inventory) {
        Fit::Fits { idle } => Ok(Fitting {
            tensors: checkpoint.n_tensors(),
            files: checkpoint.files,
            idle,
        }),
        Fit::Differs { why } => Err(why),
    }
}

/// How to mend a key that the base does not have.
fn mend(config: &Map<String, Value>, part: Part, key: &str) -> String {
    let known = known_keys(config);
    let meant = meant(&known, key);
    match part {
        Part::Set => format!("{meant} (`\"+{key}\"` adds a key)"),
        Part::Unset | Part::Scale => meant,
    }
}

/// What a key that is not known may mean: the same name elsewhere, a similar one, or one of its
/// neighbours.
fn meant(known: &[String], key: &str) -> String {
    let inner = |known: &&String| known.ends_with(&format!(".{key}"));
    let elsewhere: Vec<String> = known
        .iter()
        .filter(inner)
        .map(|known| format!("`{known}`"))
        .collect();
    if !elsewhere.is_empty() {
        return format!("did you mean {}?", elsewhere.join(" or "));
    }
    if let Some(near) = nearest(key, known.iter().map(String::as_str)) {
        return format!("did you mean `{near}`?");
    }
    let above = |key: &str| key.rsplit_once('.').map(|(above, _)| above.to_owned());
    let beside = known.iter().filter(|known| above(known) == above(key));
    did_you_mean(key, beside.map(String::as_str))
}

fn summary(
    config: &Map<String, Value>,
    full: &Map<String, Value>,
    is_base: bool,
    notes: &[String],
) -> String {
    let told = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let vocabulary = of_decoder(config, "vocab_size").and_then(Value::as_u64);
    let tokenizer = if is_base {
        "the base's tokenizer"
    } else {
        "generated tokenizer"
    };
    let mut line = format!(
        "{} of {} layers, vocabulary {}, {tokenizer}",
        told(decoder_layers(config)),
        told(decoder_layers(full)),
        told(vocabulary)
    );
    for note in notes {
        line.push_str("; ");
        line.push_str(note);
    }
    line
}

#[cfg(test)]
mod tests;
