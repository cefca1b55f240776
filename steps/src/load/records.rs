//! The records of a load test, written as Parquet while it runs, so that a run that is killed
//! keeps what it saw.

use crate::files;
use engine::step::{StepContext, StepError};
use loadgen::{Observer, ObserverError, Progress, Record};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tables::{Column, Table, write_parquet};

/// A part is written when it has so many records …
const PART_RECORDS: usize = 4096;
/// … or when its first record has waited so long.
const PART_AGE: Duration = Duration::from_secs(5);

/// A growing folder of Parquet files: `part-00000.parquet` and so on.
pub(super) struct RecordFiles<'a> {
    folder: PathBuf,
    context: &'a StepContext,
    waiting: Vec<Record>,
    since: Instant,
    n_parts: u32,
}

impl<'a> RecordFiles<'a> {
    pub(super) fn create(folder: PathBuf, context: &'a StepContext) -> Result<Self, StepError> {
        files::create_dir(&folder)?;
        Ok(Self {
            folder,
            context,
            waiting: Vec::new(),
            since: Instant::now(),
            n_parts: 0,
        })
    }

    /// Writes what is left; a run without records leaves one file without rows.
    pub(super) fn finish(mut self) -> Result<(), StepError> {
        if self.waiting.is_empty() && self.n_parts > 0 {
            return Ok(());
        }
        self.write_part()
            .map_err(|e| StepError::because("could not write the records", e))
    }

    fn write_part(&mut self) -> Result<(), tables::TableError> {
        let path = self
            .folder
            .join(format!("part-{:05}.parquet", self.n_parts));
        write_parquet(&table(&self.waiting)?, &path)?;
        self.n_parts += 1;
        self.waiting.clear();
        Ok(())
    }
}

impl Observer for RecordFiles<'_> {
    fn progress(&mut self, progress: &Progress) {
        let done = progress.completed + progress.failed;
        let failed = if progress.failed > 0 {
            format!(", {} failed", progress.failed)
        } else {
            String::new()
        };
        let doing = format!(
            "{} in flight, {} tokens{failed}",
            progress.in_flight, progress.tokens
        );
        match progress.planned {
            Some(planned) => self.context.done(doing, done, planned),
            None => self.context.doing(format!("{done} answered, {doing}")),
        }
    }

    fn records(&mut self, records: &[Record]) -> Result<(), ObserverError> {
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        self.waiting.extend_from_slice(records);
        if self.waiting.len() >= PART_RECORDS || self.since.elapsed() >= PART_AGE {
            self.write_part()?;
        }
        Ok(())
    }
}

/// One row per request; instants are nanoseconds since the start of the run.
fn table(records: &[Record]) -> Result<Table, tables::TableError> {
    let u64s = |of: fn(&Record) -> Option<u64>| Column::U64(records.iter().map(of).collect());
    let texts = |of: fn(&Record) -> Option<String>| Column::Text(records.iter().map(of).collect());
    let lists = |of: fn(&Record) -> Vec<u64>| Column::ListU64(records.iter().map(of).collect());
    let slo_ms = |of: fn(&loadgen::Slo) -> Option<Duration>| {
        Column::F64(
            records
                .iter()
                .map(|r| r.slo.as_ref().and_then(of).map(|d| d.as_secs_f64() * 1e3))
                .collect(),
        )
    };
    Table::new([
        ("index", u64s(|r| Some(r.index))),
        ("request", texts(|r| Some(r.request.clone()))),
        ("conversation", texts(|r| r.conversation.clone())),
        ("turn", u64s(|r| Some(r.turn.into()))),
        ("group", texts(|r| r.group.clone())),
        ("model", texts(|r| Some(r.model.clone()))),
        ("input_tokens", u64s(|r| Some(r.input_tokens.into()))),
        (
            "output_tokens",
            u64s(|r| Some(r.output_tokens.get().into())),
        ),
        ("slo_ttft_ms", slo_ms(|s| s.ttft)),
        ("slo_tpot_ms", slo_ms(|s| s.tpot)),
        ("slo_e2el_ms", slo_ms(|s| s.e2el)),
        ("scheduled_ns", u64s(|r| Some(r.scheduled))),
        ("dispatched_ns", u64s(|r| r.dispatched)),
        ("connected_ns", u64s(|r| r.connected)),
        ("headers_ns", u64s(|r| r.headers)),
        (
            "event_ns",
            lists(|r| r.events.iter().map(|e| e.at).collect()),
        ),
        (
            "event_tokens",
            lists(|r| r.events.iter().map(|e| e.tokens.into()).collect()),
        ),
        ("done_ns", u64s(|r| Some(r.done))),
        ("attempts", u64s(|r| Some(r.attempts.into()))),
        ("outcome", texts(|r| Some(r.outcome.to_string()))),
        ("error", texts(|r| r.error.clone())),
        (
            "usage_prompt_tokens",
            u64s(|r| r.usage.map(|u| u.prompt_tokens.into())),
        ),
        (
            "usage_completion_tokens",
            u64s(|r| r.usage.map(|u| u.completion_tokens.into())),
        ),
        (
            "usage_cached_tokens",
            u64s(|r| r.usage.and_then(|u| u.cached_tokens).map(Into::into)),
        ),
        ("finish", texts(|r| r.finish.clone())),
        ("text_digest", texts(|r| r.text_digest.clone())),
    ])
}
