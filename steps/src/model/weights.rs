//! `model.weights`: a checkpoint of random values for any configuration.

use super::beside::{self, Content};
use super::placing::place;
use super::{failure, gigabytes, read_config, report, tokenizer};
use crate::files;
use crate::kinds::Model;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{
    FailureClass, OutputSpec, Progress, Step, StepContext, StepError, StepKind, StepReport,
    StepType,
};
use engine::types::{Artifact, Origin, Positive};
use engine::value::Table;
use models::{
    DTYPE_KEYS, Dtype, Inventory, Problem, Recipe, WriteError, Written, impossible_shapes,
};
use serde_json::{Map, Value};
use std::path::Path;

engine::choices! {
    /// The type of random weights.
    pub enum WeightsDtype {
        /// Each tensor's own, as the configuration says, also quantised ones.
        Config = "config",
        /// The upper half of `f32`.
        Bf16 = "bf16",
        /// IEEE 754 binary16.
        F16 = "f16",
        /// IEEE 754 binary32.
        F32 = "f32",
    }
}

engine::options! {
    /// Options of `model.weights`.
    pub struct ModelWeights {
        /// A folder with `config_full.json` or `config.json`. What else lies there, tokenizer and
        /// code, is linked beside the weights.
        model: Artifact<Model>;
        /// The type of the weights.
        dtype: WeightsDtype = WeightsDtype::Config;
        /// Chooses the values: the same on every machine, however many processors write them.
        seed: u64 = 42;
        /// Standard deviation of the weights, which are bell-shaped around 0; gains of norms are 1
        /// and biases 0.
        std: Positive = Positive(0.02);
        /// The most that one file holds.
        shard_size: Positive = Positive(5.0), in "GB";
    }
}

impl StepType for ModelWeights {
    const NAME: &'static str = "model.weights";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Writes random weights for a model's configuration, as files that are laid out like the hub's.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "dir",
            file: "model",
            kind: "model",
            doc: "The model's folder: weights as safetensors, `config.json`, tokenizer and code.",
        }]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let Origin::Path(folder) = &self.model.origin else {
            return;
        };
        let at = table.get("model").map_or(place, |v| &v.place);
        match read_config(folder) {
            Err(error) => {
                let help = "name a folder with `config_full.json` or `config.json`";
                parser.wrong::<()>(at, error.message, "no model configuration", help);
            }
            Ok(mut config) => {
                self.dtype.write_to(&mut config);
                for problem in listed(&config).err().unwrap_or_default() {
                    report(&problem, table, place, "model", parser);
                }
            }
        }
    }
}

#[async_trait::async_trait]
impl Step for ModelWeights {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let folder = context.path(&self.model)?;
        let out = context.output("model");
        files::create_dir(&out)?;
        let (step, cancel) = (self.clone(), context.cancel.clone());
        let progress = context.progress.clone();
        let written = tokio::task::spawn_blocking(move || {
            let go_on = |done: u64, total: u64| {
                progress(Progress {
                    doing: "writing weights".to_owned(),
                    done: Some((done, total)),
                });
                !*cancel.borrow()
            };
            step.make(&folder, &out, &go_on)
        });
        let line = written
            .await
            .map_err(|e| StepError::because("the weights were not written", e))??;
        Ok(StepReport::line(line))
    }
}

impl ModelWeights {
    /// Writes weights for the model in `folder` into `out`, behind everything that lies beside them,
    /// which takes less time to fail; returns what was done.
    fn make(
        &self,
        folder: &Path,
        out: &Path,
        go_on: &(dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<String, StepError> {
        let mut config = read_config(folder)?;
        self.dtype.write_to(&mut config);
        let inventory = listed(&config).map_err(|problems| failure(&problems))?;
        files::write_json(&out.join("config.json"), &config)?;
        let beside = beside::list(folder)?.into_iter();
        let names = beside
            .filter(|(_, content)| matches!(content, Content::Tokenizer | Content::Other))
            .map(|(name, _)| name);
        place(names, folder, out, &|_, done, total| go_on(done, total))?;
        let total = inventory.bytes();
        let written = models::write(out, &inventory, &self.recipe(), &|done| go_on(done, total))
            .map_err(refused)?;
        let mut line = summary(&inventory, &written);
        if !tokenizer::is_in(out) {
            line.push_str("; no tokenizer: `model.derive` brings one");
        }
        Ok(line)
    }

    fn recipe(&self) -> Recipe {
        Recipe {
            seed: self.seed,
            std: self.std.0 as f32,
            max_shard_bytes: (self.shard_size.0 * 1e9) as u64,
            threads: None,
        }
    }
}

/// The tensors of a configuration whose shapes are possible.
fn listed(config: &Map<String, Value>) -> Result<Inventory, Vec<Problem>> {
    let problems = impossible_shapes(config);
    if !problems.is_empty() {
        return Err(problems);
    }
    Inventory::of(config).map_err(|problem| vec![problem])
}

impl WeightsDtype {
    /// Makes the configuration say what its weights will be.
    fn write_to(self, config: &mut Map<String, Value>) {
        let dtype = match self {
            WeightsDtype::Config => return,
            WeightsDtype::Bf16 => Dtype::Bf16,
            WeightsDtype::F16 => Dtype::F16,
            WeightsDtype::F32 => Dtype::F32,
        };
        config.shift_remove("quantization_config");
        if !DTYPE_KEYS.iter().any(|key| config.contains_key(*key)) {
            // Known to servers of any age.
            config.insert("torch_dtype".to_owned(), Value::Null);
        }
        let name = Value::from(dtype.config_name());
        let set = |config: &mut Map<String, Value>| {
            for key in DTYPE_KEYS {
                if let Some(value) = config.get_mut(key) {
                    *value = name.clone();
                }
            }
        };
        set(config);
        let inner = config
            .iter_mut()
            .filter(|(key, _)| key.ends_with("_config"));
        inner
            .filter_map(|(_, inner)| inner.as_object_mut())
            .for_each(set);
    }
}

fn refused(error: WriteError) -> StepError {
    match error {
        WriteError::NoSpace {
            folder,
            needed,
            free,
        } => StepError::new(format!(
            "the weights need {} in `{}`, where {} are free",
            gigabytes(needed),
            folder.display(),
            gigabytes(free)
        ))
        .help(
            "free some space, name a folder on a larger disk with `--out`, or derive fewer layers",
        ),
        WriteError::Stopped => {
            StepError::new("writing the weights was stopped").class(FailureClass::Interrupted)
        }
        other => StepError::new(other.to_string()),
    }
}

fn summary(inventory: &Inventory, written: &Written) -> String {
    let files = if written.files == 1 { "file" } else { "files" };
    let active = match inventory.experts {
        Some(_) => format!(
            ", {} of them active,",
            grouped(inventory.active_parameters())
        ),
        None => String::new(),
    };
    format!(
        "{} parameters{active} in {} {files}, {}, {:.1} s, {:.0} MB/s",
        grouped(inventory.parameters()),
        written.files,
        gigabytes(written.bytes),
        written.took.as_secs_f64(),
        written.bytes_per_s() / 1e6
    )
}

/// A number with a comma before every three digits.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
