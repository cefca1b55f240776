//! `checkpoint.replicate`: several copies of a checkpoint on the storage that is to be measured.

use super::{blocking, failure};
use crate::files;
use crate::kinds::Model;
use checkpoints::{Contents, How, Replicas};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::Artifact;
use engine::value::Table;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

engine::choices! {
    /// How replicas are made.
    pub enum HowChoice {
        /// Reflinks where the file system makes them, else copies.
        Automatic = "automatic",
        /// Reflinks: blocks of the disk are shared, the page cache is not.
        Reflink = "reflink",
        /// Hard links: the same files by other names, also to the page cache.
        HardLink = "hard_link",
        /// Copies: as many bytes as replicas.
        Copy = "copy",
    }
}

engine::options! {
    /// Options of `checkpoint.replicate`.
    pub struct CheckpointReplicate {
        /// A folder with a checkpoint in either format.
        checkpoint: Artifact<Model>;
        /// Where replicas are made: an absolute path on the storage that is to be measured. The folder must not
        /// exist, or hold replicas that this step has made; nothing of it is ever deleted.
        folder: String;
        /// How many.
        count: NonZeroU32;
        /// How they are made.
        how: HowChoice = HowChoice::Automatic;
    }
}

impl StepType for CheckpointReplicate {
    const NAME: &'static str = "checkpoint.replicate";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Makes replicas of a checkpoint in a folder of its own on the storage that is to be measured.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "replicas",
            file: "replicas.json",
            kind: "replicas",
            doc: "Where the replicas lie, and how they were made.",
        }]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        if !Path::new(&self.folder).is_absolute() {
            let at = table.get("folder").map_or(place, |v| &v.place);
            let message = format!("`{}` is no absolute path", self.folder);
            let help = "write where the storage is mounted, such as `/mnt/nvme/replicas`";
            parser.wrong::<()>(at, message, "depends on where it is run", help);
        }
    }
}

#[async_trait::async_trait]
impl Step for CheckpointReplicate {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let from = Contents::read(&context.path(&self.checkpoint)?).map_err(failure)?;
        let (count, folder) = (self.count.get() as usize, PathBuf::from(&self.folder));
        let how = match self.how {
            HowChoice::Automatic => None,
            HowChoice::Reflink => Some(How::Reflink),
            HowChoice::HardLink => Some(How::HardLink),
            HowChoice::Copy => Some(How::Copy),
        };
        let total = from.file_bytes() * count as u64;
        let replicas = blocking(context, "replicating", total, move |go_on| {
            checkpoints::replicate(&from, count, how, &folder, go_on).map_err(failure)
        });
        let replicas: Replicas = replicas.await?;
        files::write_json(&context.output("replicas.json"), &replicas)?;
        let how = match replicas.how {
            How::Reflink => "reflinks",
            How::HardLink => "hard links",
            How::Copy => "copies",
        };
        Ok(StepReport::line(format!(
            "{} replicas by {how}",
            replicas.folders.len()
        )))
    }
}
