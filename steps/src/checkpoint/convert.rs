//! `checkpoint.convert`: a checkpoint in the other format, tensor by tensor the same bits.

use super::{blocking, failure, gigabytes};
use crate::files;
use crate::kinds::Model;
use checkpoints::{Contents, Format, Limits};
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Artifact, Positive};
use std::path::Path;

engine::choices! {
    /// The form of a checkpoint.
    pub enum FormatChoice {
        /// One file or shards beside an index, as the hub has it; data begins at 4096.
        Safetensors = "safetensors",
        /// Partitions and an index, as the ServerlessLLM store has it.
        Store = "store",
    }
}

engine::options! {
    /// Options of `checkpoint.convert`.
    pub struct CheckpointConvert {
        /// A folder with a checkpoint in either format.
        checkpoint: Artifact<Model>;
        /// What it becomes.
        to: FormatChoice;
        /// The most that one file holds; a larger tensor has a file of its own. 10 GiB if absent, as the
        /// store has it, or 5 GB for safetensors.
        file_size: Option<Positive>, in "GB";
    }
}

impl StepType for CheckpointConvert {
    const NAME: &'static str = "checkpoint.convert";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Converts a checkpoint between safetensors and the ServerlessLLM store's format, bit for bit.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "dir",
            file: "model",
            kind: "model",
            doc: "The folder with the checkpoint, and the JSON files that lay beside it.",
        }]
    }
}

#[async_trait::async_trait]
impl Step for CheckpointConvert {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let from = Contents::read(&context.path(&self.checkpoint)?).map_err(failure)?;
        let out = context.output("model");
        files::create_dir(&out)?;
        let (to, limits) = (self.format(), self.limits());
        let total = from.tensor_bytes();
        let line = blocking(context, "converting", total, move |go_on| {
            let converted =
                checkpoints::convert(&from, to, limits, &out, go_on).map_err(failure)?;
            take_along(&from, &out)?;
            let mut line = format!(
                "{} in {} {}",
                gigabytes(converted.bytes),
                converted.files,
                counted(converted.files)
            );
            if converted.tied > 0 {
                line.push_str(&format!("; {} tied, written once", converted.tied));
            }
            if !converted.not_restored.is_empty() {
                let types = converted.not_restored.join(", ");
                line.push_str(&format!(
                    "; the ServerlessLLM store 0.8 gives no {types} back"
                ));
            }
            Ok(line)
        });
        Ok(StepReport::line(line.await?))
    }
}

impl CheckpointConvert {
    fn format(&self) -> Format {
        match self.to {
            FormatChoice::Safetensors => Format::Safetensors,
            FormatChoice::Store => Format::Store,
        }
    }

    fn limits(&self) -> Limits {
        let usual = match self.to {
            FormatChoice::Safetensors => 5_000_000_000,
            FormatChoice::Store => 10 << 30,
        };
        let max_file_bytes = self.file_size.map_or(usual, |size| (size.0 * 1e9) as u64);
        Limits { max_file_bytes }
    }
}

fn counted(files: usize) -> &'static str {
    match files {
        1 => "file",
        _ => "files",
    }
}

/// Copies what else servers need of a model: its configuration and tokenizer, which are JSON files and no part of
/// the checkpoint.
fn take_along(from: &Contents, out: &Path) -> Result<(), StepError> {
    let listed = std::fs::read_dir(&from.folder);
    let listed =
        listed.map_err(|e| StepError::because("could not list the checkpoint's folder", e))?;
    for entry in listed {
        let path = entry
            .map_err(|e| StepError::because("could not list the checkpoint's folder", e))?
            .path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let is_index = ["tensor_index.json", "model.safetensors.index.json"].contains(&name);
        if name.ends_with(".json") && !name.starts_with('.') && !is_index && path.is_file() {
            files::copy(&path, &out.join(name))?;
        }
    }
    Ok(())
}
