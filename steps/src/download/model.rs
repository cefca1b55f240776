//! `model.download`: a repository of the hub as a model's folder.

use super::options::{Connections, ModelSource, check_revision, check_token};
use super::{How, Record, at, failed, summary};
use crate::files;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::Text;
use engine::value::Table;
use fetch::{Request, Selection, Source};

engine::options! {
    /// Options of `model.download`.
    pub struct ModelDownload {
        /// The repository: `hf:OWNER/NAME`, perhaps with `@REVISION`.
        source: ModelSource;
        /// The branch, tag or commit; only a commit never moves.
        revision: Option<String>;
        /// Which files, by patterns such as `*.safetensors`; all if there is none.
        files: Vec<String> = Vec::new();
        /// Of these the ones that are left out, such as `*.bin` where there is `*.safetensors`.
        leave: Vec<String> = Vec::new();
        /// The hub's token; write `${secret.HF_TOKEN}`. It is sent to the hub and to nobody else.
        token: Option<Text>;
        /// Connections for each file.
        connections: Connections;
    }
}

impl StepType for ModelDownload {
    const NAME: &'static str = "model.download";
    const KIND: StepKind = StepKind::Fetch;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Brings a model, or some of its files, from the Hugging Face hub, all from one commit.";

    fn outputs() -> &'static [OutputSpec] {
        &[
            OutputSpec {
                name: "dir",
                file: "model",
                kind: "model",
                doc: "The model's folder, as the hub has it.",
            },
            OutputSpec {
                name: "record",
                file: "fetch.json",
                kind: "record",
                doc: "The repository, its commit, licence, size and digest of each file, time and rate.",
            },
        ]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        check_token(self.token.as_ref(), table, place, parser);
        check_revision(self.revision.as_deref(), table, place, parser);
    }
}

#[async_trait::async_trait]
impl Step for ModelDownload {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let into = context.output("model");
        files::create_dir(&into)?;
        let mut hub = self.source.hub.clone();
        if let Some(revision) = &self.revision {
            hub = at(hub, revision)?;
        }
        let request = Request {
            source: Source::Hub(hub),
            files: Selection {
                take: self.files.clone(),
                leave: self.leave.clone(),
            },
            sha256: None,
        };
        let how = How {
            token: self.token.as_ref(),
            connections: self.connections.0.get(),
            lfs: None,
        };
        let delivery = how.bring(context, &request, &into).await?;
        let receipt = delivery.place_all(&into).await.map_err(failed)?;
        Record::of(&receipt).write(&context.output("fetch.json"))?;
        Ok(StepReport::line(summary(&receipt, 0)))
    }
}
