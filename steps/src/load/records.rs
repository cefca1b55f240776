//! The records of a load test, written as Parquet while it runs, so that a run that is killed
//! keeps what it saw.

use crate::files;
use engine::step::{StepContext, StepError};
use loadgen::{Event, Observer, ObserverError, Outcome, Progress, Record, Usage};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tables::{Column, Table, write_parquet_with};

/// A part is written when it has so many records …
const PART_RECORDS: usize = 4096;
/// … or when its first record has waited so long.
const PART_AGE: Duration = Duration::from_secs(5);

/// A growing folder of Parquet files: `part-00000.parquet` and so on.
pub(super) struct RecordFiles<'a> {
    folder: PathBuf,
    context: &'a StepContext,
    /// How the answers came about, if nothing was computed.
    simulated: Option<String>,
    waiting: Vec<Record>,
    since: Instant,
    n_parts: u32,
}

impl<'a> RecordFiles<'a> {
    pub(super) fn create(
        folder: PathBuf,
        context: &'a StepContext,
        simulated: Option<&str>,
    ) -> Result<Self, StepError> {
        files::create_dir(&folder)?;
        Ok(Self {
            folder,
            context,
            simulated: simulated.map(str::to_owned),
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
        let name = format!("part-{:05}.parquet", self.n_parts);
        let path = self.folder.join(name);
        write(&path, &self.waiting, self.simulated.as_deref())?;
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

/// Writes records to one file, with how their answers came about if nothing was computed.
pub(super) fn write(
    path: &Path,
    records: &[Record],
    simulated: Option<&str>,
) -> Result<(), tables::TableError> {
    let simulated = simulated.map(|how| ("simulated", how));
    write_parquet_with(&table(records)?, simulated.as_slice(), path)
}

/// Reads the records of a load test back.
pub(crate) fn read(folder: &Path) -> Result<Vec<Record>, StepError> {
    let failed = |e: &dyn std::fmt::Display| {
        StepError::because(
            format!("could not read the records in `{}`", folder.display()),
            e,
        )
    };
    let entries = std::fs::read_dir(folder).map_err(|e| failed(&e))?;
    let mut parts: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    parts.retain(|path| path.extension().is_some_and(|e| e == "parquet"));
    parts.sort();
    let table = tables::read_parquet(&parts).map_err(|e| failed(&e))?;
    let mut records = rows(&table).map_err(|e| failed(&e))?;
    records.sort_by_key(|record| record.index);
    Ok(records)
}

/// The records in a table, as [`table`] lays them out.
fn rows(table: &Table) -> Result<Vec<Record>, tables::TableError> {
    let u64s = |name: &str| table.u64s(name);
    let texts = |name: &str| table.texts(name);
    let (index, turn) = (u64s("index")?, u64s("turn")?);
    let (request, conversation) = (texts("request")?, texts("conversation")?);
    let (group, model) = (texts("group")?, texts("model")?);
    let (input, output) = (u64s("input_tokens")?, u64s("output_tokens")?);
    let slo = [
        table.f64s("slo_ttft_ms")?,
        table.f64s("slo_tpot_ms")?,
        table.f64s("slo_e2el_ms")?,
    ];
    // Records of earlier versions do not have it.
    let cacheable = u64s("cacheable_tokens").ok();
    let (scheduled, dispatched) = (u64s("scheduled_ns")?, u64s("dispatched_ns")?);
    let (connected, headers) = (u64s("connected_ns")?, u64s("headers_ns")?);
    let (event_ns, event_tokens) = (table.lists("event_ns")?, table.lists("event_tokens")?);
    let (done, attempts) = (u64s("done_ns")?, u64s("attempts")?);
    let (outcome, error) = (texts("outcome")?, texts("error")?);
    let usage = [
        u64s("usage_prompt_tokens")?,
        u64s("usage_completion_tokens")?,
        u64s("usage_cached_tokens")?,
    ];
    let (finish, digest) = (texts("finish")?, texts("text_digest")?);
    let record = |i: usize| Record {
        index: index[i].unwrap_or(0),
        request: request[i].clone().unwrap_or_default(),
        conversation: conversation[i].clone(),
        turn: small(turn[i]),
        group: group[i].clone(),
        model: model[i].clone().unwrap_or_default(),
        input_tokens: small(input[i]),
        cacheable_tokens: cacheable
            .and_then(|column| column[i])
            .map(|n| small(Some(n))),
        output_tokens: NonZeroU32::new(small(output[i])).unwrap_or(NonZeroU32::MIN),
        slo: slo_of(slo.map(|column| column[i])),
        scheduled: scheduled[i].unwrap_or(0),
        dispatched: dispatched[i],
        connected: connected[i],
        headers: headers[i],
        events: events_of(&event_ns[i], &event_tokens[i]),
        done: done[i].unwrap_or(0),
        attempts: small(attempts[i]),
        outcome: outcome_of(outcome[i].as_deref()),
        error: error[i].clone(),
        usage: usage_of(usage.map(|column| column[i])),
        finish: finish[i].clone(),
        text_digest: digest[i].clone(),
    };
    Ok((0..table.n_rows()).map(record).collect())
}

fn small(n: Option<u64>) -> u32 {
    u32::try_from(n.unwrap_or(0)).unwrap_or(u32::MAX)
}

fn events_of(at: &[u64], tokens: &[u64]) -> Vec<Event> {
    let event = |(at, tokens): (&u64, &u64)| Event {
        at: *at,
        tokens: small(Some(*tokens)),
    };
    at.iter().zip(tokens).map(event).collect()
}

/// What no version has written is no answer that was finished.
fn outcome_of(text: Option<&str>) -> Outcome {
    text.and_then(|text| text.parse().ok())
        .unwrap_or(Outcome::Dropped)
}

fn usage_of([prompt, completion, cached]: [Option<u64>; 3]) -> Option<Usage> {
    Some(Usage {
        prompt_tokens: small(Some(prompt?)),
        completion_tokens: small(Some(completion?)),
        cached_tokens: cached.map(|n| small(Some(n))),
    })
}

fn slo_of(ms: [Option<f64>; 3]) -> Option<loadgen::Slo> {
    let span = |ms: Option<f64>| Duration::try_from_secs_f64(ms? / 1e3).ok();
    let [ttft, tpot, e2el] = ms.map(span);
    let slo = loadgen::Slo { ttft, tpot, e2el };
    (slo != loadgen::Slo::default()).then_some(slo)
}

/// One row per request; instants are nanoseconds since the start of the run.
fn table(records: &[Record]) -> Result<Table, tables::TableError> {
    let u64s = |of: fn(&Record) -> Option<u64>| Column::U64(records.iter().map(of).collect());
    let texts = |of: fn(&Record) -> Option<String>| Column::Text(records.iter().map(of).collect());
    let lists = |of: fn(&Record) -> Vec<u64>| Column::ListU64(records.iter().map(of).collect());
    let slo_ms = |of: fn(&loadgen::Slo) -> Option<Duration>| slo_column(records, of);
    Table::new([
        ("index", u64s(|r| Some(r.index))),
        ("request", texts(|r| Some(r.request.clone()))),
        ("conversation", texts(|r| r.conversation.clone())),
        ("turn", u64s(|r| Some(r.turn.into()))),
        ("group", texts(|r| r.group.clone())),
        ("model", texts(|r| Some(r.model.clone()))),
        ("input_tokens", u64s(|r| Some(r.input_tokens.into()))),
        (
            "cacheable_tokens",
            u64s(|r| r.cacheable_tokens.map(Into::into)),
        ),
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

/// An objective of each request, in milliseconds.
fn slo_column(records: &[Record], of: fn(&loadgen::Slo) -> Option<Duration>) -> Column {
    let ms = |r: &Record| r.slo.as_ref().and_then(of).map(|d| d.as_secs_f64() * 1e3);
    Column::F64(records.iter().map(ms).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let record = Record {
            index: 3,
            request: "r".into(),
            conversation: Some("c".into()),
            turn: 2,
            group: None,
            model: "m".into(),
            input_tokens: 7,
            cacheable_tokens: Some(5),
            output_tokens: NonZeroU32::new(9).expect("tokens"),
            slo: Some(loadgen::Slo {
                ttft: Some(Duration::from_millis(250)),
                ..Default::default()
            }),
            scheduled: 1,
            dispatched: Some(2),
            connected: None,
            headers: Some(3),
            events: vec![Event { at: 4, tokens: 1 }, Event { at: 9, tokens: 2 }],
            done: 10,
            attempts: 1,
            outcome: Outcome::Completed,
            error: None,
            usage: Some(Usage {
                prompt_tokens: 7,
                completion_tokens: 3,
                cached_tokens: Some(0),
            }),
            finish: Some("length".into()),
            text_digest: Some("d".into()),
        };
        let mut failed = record.clone();
        failed.index = 1;
        failed.outcome = Outcome::Failed(loadgen::Class::HttpStatus(503));
        failed.events.clear();
        (failed.usage, failed.slo, failed.dispatched) = (None, None, None);
        let folder = tempfile::tempdir().expect("a folder");
        let all = [record.clone(), failed.clone()];
        write(&folder.path().join("part-00000.parquet"), &all, None).expect("written");
        assert_eq!(read(folder.path()).expect("read"), [failed, record]);
    }
}
