//! `checkpoint.verify`: every byte of a checkpoint is read, and may be held to another checkpoint.

use super::{blocking, failure, gigabytes};
use crate::files;
use crate::kinds::Model;
use checkpoints::{Contents, Tensor};
use engine::step::{
    FailureClass, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::Artifact;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes that are read at a time.
const PIECE: usize = 4 << 20;

engine::options! {
    /// Options of `checkpoint.verify`.
    pub struct CheckpointVerify {
        /// A folder with a checkpoint in either format.
        checkpoint: Artifact<Model>;
        /// Another checkpoint, of either format, that must have the same tensors, types, shapes and bits.
        against: Option<Artifact<Model>>;
    }
}

impl StepType for CheckpointVerify {
    const NAME: &'static str = "checkpoint.verify";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Reads every tensor of a checkpoint, and fails if another checkpoint has other tensors or bits.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "digests",
            file: "digests.json",
            kind: "digests",
            doc: "Type, shape and BLAKE3 of every tensor by its name.",
        }]
    }
}

#[async_trait::async_trait]
impl Step for CheckpointVerify {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let contents = Contents::read(&context.path(&self.checkpoint)?).map_err(failure)?;
        let against = self.against.as_ref().map(|other| context.path(other));
        let against = against.transpose()?.map(|folder| Contents::read(&folder));
        let against = against.transpose().map_err(failure)?;
        let own = contents.tensor_bytes();
        let total = own + against.as_ref().map_or(0, Contents::tensor_bytes);
        let n = contents.tensors.len();
        let has_other = against.is_some();
        let digests = blocking(context, "reading tensors", total, move |go_on| {
            let found = digests(&contents, &|done| go_on(done))?;
            if let Some(other) = &against {
                let others = digests(other, &|done| go_on(own + done))?;
                compare(&found, &others)?;
            }
            Ok(found)
        });
        files::write_json(
            &context.output("digests.json"),
            &Value::Object(digests.await?),
        )?;
        let same = if has_other {
            ", all as in the other"
        } else {
            ""
        };
        Ok(StepReport::line(format!(
            "{n} tensors, {}{same}",
            gigabytes(own)
        )))
    }
}

/// What tells a tensor from another, by its name.
fn digests(
    contents: &Contents,
    go_on: &dyn Fn(u64) -> bool,
) -> Result<Map<String, Value>, StepError> {
    let mut found = Map::new();
    let mut done = 0;
    let mut last: Option<(&Tensor, String)> = None;
    let mut tensors: Vec<(&String, Value)> = Vec::new();
    for tensor in &contents.tensors {
        let digest = match &last {
            Some((other, digest)) if tensor.is_tied_to(other) => digest.clone(),
            _ => {
                done += tensor.bytes;
                digest(contents, tensor)?
            }
        };
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "blake3": digest });
        tensors.push((&tensor.name, entry));
        last = Some((tensor, digest));
        if !go_on(done) {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
    }
    tensors.sort_by_key(|(name, _)| *name);
    found.extend(
        tensors
            .into_iter()
            .map(|(name, entry)| (name.clone(), entry)),
    );
    Ok(found)
}

fn digest(contents: &Contents, tensor: &Tensor) -> Result<String, StepError> {
    let path = contents.path(tensor.file);
    let failed = |e: std::io::Error| {
        let what = format!("could not read `{}` of `{}`", tensor.name, path.display());
        StepError::because(what, e).class(FailureClass::Infrastructure)
    };
    let file = File::open(&path).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE.min(tensor.bytes as usize)];
    let mut at = 0;
    while at < tensor.bytes {
        let piece = buffer.len().min((tensor.bytes - at) as usize);
        let piece = &mut buffer[..piece];
        file.read_exact_at(piece, tensor.offset + at)
            .map_err(failed)?;
        hasher.update(piece);
        at += piece.len() as u64;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Says which tensor two checkpoints do not have alike.
fn compare(own: &Map<String, Value>, others: &Map<String, Value>) -> Result<(), StepError> {
    let differs = own
        .iter()
        .find(|(name, entry)| others.get(*name) != Some(*entry));
    let problem = match differs {
        Some((name, _)) if !others.contains_key(name) => {
            format!("`{name}` is not in the other checkpoint")
        }
        Some((name, entry)) => {
            let (a, b) = (entry, &others[name]);
            let what = ["dtype", "shape", "blake3"]
                .into_iter()
                .find(|key| a[*key] != b[*key]);
            let what = what.unwrap_or("blake3");
            format!(
                "`{name}` has {what} {} here and {} in the other checkpoint",
                a[what], b[what]
            )
        }
        None => match others.keys().find(|name| !own.contains_key(*name)) {
            Some(name) => format!("`{name}` is only in the other checkpoint"),
            None => return Ok(()),
        },
    };
    Err(StepError::new(format!("the checkpoints differ: {problem}")))
}
