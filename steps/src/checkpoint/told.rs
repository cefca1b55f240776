//! What is told of rounds of loads: rows, their meaning, remarks, and how far it can be believed.

use super::best::Ceiling;
use super::overlap;
use super::rounds::{Outcome, Rounds, Source, Timed};
use crate::result::{Definition, MeasuredFile, Row};
use engine::step::{Figure, Grade, Verdict};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// A set whose slowest load took so much more than the middle one has more than one way to go.
const BIMODAL: f64 = 1.5;

/// Rounds of loads, and what they are held to.
pub(super) struct Told<'a> {
    pub(super) rounds: &'a Rounds,
    pub(super) outcome: &'a Outcome,
    /// Which arm others are held to within each round.
    pub(super) baseline: Option<usize>,
    /// What storage, memory or the way to a GPU can do.
    pub(super) ceiling: Option<Ceiling>,
}

impl<'a> Told<'a> {
    /// Everything, for whoever draws or reads it; `target` is what is the same of all loads.
    pub(super) fn result(&self, target: BTreeMap<String, String>) -> MeasuredFile {
        let kept = self
            .outcome
            .timed
            .iter()
            .filter(|timed| timed.trouble.is_none());
        MeasuredFile {
            rows: kept.map(|timed| self.row(timed)).collect(),
            definitions: definitions(),
            notes: self.notes(),
            target,
            details: self.details(),
        }
    }

    fn row(&self, timed: &Timed) -> Row {
        let mut row = row(timed, &self.rounds.sources[timed.source]);
        let other = self.baseline.and_then(|arm| self.of_round(timed, arm));
        if let Some(other) = other {
            row.set("speedup", rate(timed) / rate(other));
        }
        let ceiling = self.ceiling.as_ref();
        overlap::add(&mut row, timed, self.rounds, ceiling, rate(timed));
        row
    }

    /// The load of another loader in the same round, of the same checkpoint; where that loader does not read its format,
    /// of one in another format that holds as many bytes of tensors.
    fn of_round(&self, timed: &Timed, arm: usize) -> Option<&'a Timed> {
        let by_it = || self.outcome.timed.iter().filter(|other| other.arm == arm);
        let reads_it = by_it().any(|other| other.source == timed.source);
        let is_it = |other: &&Timed| match reads_it {
            true => other.source == timed.source,
            false => other.bytes == timed.bytes,
        };
        by_it()
            .filter(|other| other.round == timed.round)
            .find(is_it)
            .filter(|other| other.trouble.is_none())
    }

    /// Loads by who loaded what, checkpoint by checkpoint, in the order of the plan.
    fn arms(&self) -> Vec<(String, Vec<&'a Timed>)> {
        let mut arms: BTreeMap<(usize, usize), Vec<&Timed>> = BTreeMap::new();
        for timed in self
            .outcome
            .timed
            .iter()
            .filter(|timed| timed.trouble.is_none())
        {
            arms.entry((timed.source, timed.arm))
                .or_default()
                .push(timed);
        }
        let formats: Vec<_> = self
            .rounds
            .sources
            .iter()
            .map(|source| source.format)
            .collect();
        let named = |((source, _), loads): ((usize, usize), Vec<&'a Timed>)| {
            let loader = loads
                .first()
                .map_or_else(String::new, |timed| timed.loader.clone());
            let name = match formats.len() {
                1 => loader,
                _ => format!("{loader}, {}", formats[source].word()),
            };
            (name, loads)
        };
        arms.into_iter().map(named).collect()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self
            .outcome
            .refused
            .iter()
            .map(|(way, why)| format!("`{}` was not there: {why}", way.word()))
            .chain(self.outcome.remarks.iter().cloned())
            .collect();
        for (arm, loads) in self.arms() {
            let times: Vec<f64> = loads
                .iter()
                .map(|timed| timed.total.as_secs_f64())
                .collect();
            let slowest = times.iter().copied().fold(0.0, f64::max);
            let median = statistics::median(&times).unwrap_or(f64::NAN);
            if slowest > BIMODAL * median {
                notes.push(format!(
                    "{arm}: the slowest load took {:.1} times the median, so there may be more than one way that it goes",
                    slowest / median
                ));
            }
        }
        notes.extend(overlap::notes(&self.outcome.timed, self.ceiling.as_ref()));
        notes
    }

    fn details(&self) -> serde_json::Value {
        let rejected = self.outcome.timed.iter().filter_map(|timed| {
            let why = timed.trouble.as_ref()?;
            Some(json!({ "round": timed.round, "loader": timed.loader, "why": why }))
        });
        let arms = self.arms().into_iter().map(|(arm, loads)| {
            let rates: Vec<f64> = loads.iter().map(|timed| rate(timed)).collect();
            let interval = statistics::median_interval(&rates, 0.95);
            json!({
                "arm": arm,
                "rate": rates,
                "median": statistics::median(&rates),
                "interval": interval.map(|i| [i.low, i.high]),
            })
        });
        json!({
            "pool_ready_ms": self.outcome.pool_ready.as_secs_f64() * 1e3,
            "pin_ms": self.outcome.pinned.as_ref().map(|(time, _)| time.as_secs_f64() * 1e3),
            "gpu": self.outcome.pinned.as_ref().map(|(_, gpu)| gpu),
            "peak_memory_by": self.outcome.timed.first().and_then(|timed| timed.peak_memory).map(|peak| peak.by),
            "residency_by": self.outcome.timed.first().map(|timed| timed.told_by),
            "rejected": rejected.collect::<Vec<_>>(),
            "arms": arms.collect::<Vec<_>>(),
        })
    }

    /// Loads that were not what they should be make the sample no result; others in place of loaders that are not there
    /// have to be kept in mind.
    pub(super) fn verdict(&self) -> Verdict {
        let of_round = |timed: &Timed| {
            let why = timed.trouble.as_ref()?;
            Some(format!("round {}, {}: {why}", timed.round, timed.loader))
        };
        let rejected: Vec<String> = self.outcome.timed.iter().filter_map(of_round).collect();
        if !rejected.is_empty() {
            return Verdict {
                grade: Grade::Invalid,
                reasons: rejected,
            };
        }
        let refused = self.outcome.refused.iter();
        let mut reasons: Vec<String> = refused
            .map(|(_, why)| format!("another loader was taken: {why}"))
            .collect();
        reasons.extend(overlap::doubt(self.ceiling.as_ref()));
        Verdict {
            grade: if reasons.is_empty() {
                Grade::Valid
            } else {
                Grade::Degraded
            },
            reasons,
        }
    }

    pub(super) fn figures(&self) -> Vec<Figure> {
        let figure = |(name, loads): (String, Vec<&Timed>)| {
            let rates: Vec<f64> = loads.iter().map(|timed| rate(timed)).collect();
            Figure {
                name,
                value: statistics::median(&rates).unwrap_or(f64::NAN),
                unit: "GB/s".to_owned(),
            }
        };
        self.arms().into_iter().map(figure).collect()
    }
}

/// Bytes of tensors per second, in GB.
fn rate(timed: &Timed) -> f64 {
    timed.bytes as f64 / 1e9 / timed.total.as_secs_f64().max(1e-9)
}

fn row(timed: &Timed, source: &Source) -> Row {
    let mut row = Row::default();
    let (loader, format) = (timed.loader.clone(), source.format.word());
    let mut label = |name: &str, text: String| row.labels.insert(name.to_owned(), text);
    label("arm", format!("{loader}, {format}"));
    label("loader", loader);
    label("format", format.to_owned());
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    for (name, value) in [
        ("round", timed.round.into()),
        ("total_ms", ms(timed.total)),
        ("rate", rate(timed)),
        ("tensor_data", timed.bytes as f64 / 1e9),
        ("cpu_ms", ms(timed.cpu)),
        ("resident_before", timed.resident),
    ] {
        row.set(name, value);
    }
    // What a loader does not time is not zero.
    for (name, time) in &timed.parts {
        row.set(*name, ms(*time));
    }
    if let Some(blocks) = timed.blocks {
        row.set("reads", blocks as f64);
    }
    if let Some(bytes) = timed.device_bytes {
        row.set("device_data", bytes as f64 / 1e9);
    }
    if let Some(peak) = timed.peak_memory {
        row.set("peak_memory", peak.bytes as f64 / 1e9);
    }
    row
}

/// Every value of a row: name, unit, meaning.
const DEFINITIONS: &[(&str, &str, &str)] = &[
    (
        "total_ms",
        "ms",
        "from the beginning until every tensor could be used",
    ),
    ("header_ms", "ms", "reading headers and index"),
    ("open_ms", "ms", "opening the files with data"),
    (
        "allocate_ms",
        "ms",
        "planning reads and finding memory; not the time that a pool takes to be ready",
    ),
    (
        "read_ms",
        "ms",
        "from when memory was there until the last block was",
    ),
    (
        "copy_ms",
        "ms",
        "copying within memory, beside reading with a ring; to a GPU by its own clock, beside reading",
    ),
    (
        "first_tensor_ms",
        "ms",
        "from the beginning until the first tensor of the first file could be used",
    ),
    ("rate", "GB/s", "tensor_data / total_ms, 1 GB = 10^9 bytes"),
    ("tensor_data", "GB", "bytes of all tensors, tied ones once"),
    ("reads", "reads", "blocks that the files were cut into"),
    (
        "cpu_ms",
        "ms",
        "processor time during the load of the process that loads, kernel included",
    ),
    (
        "device_data",
        "GB",
        "bytes that devices brought for a native loader (read_bytes of /proc/self/io)",
    ),
    (
        "peak_memory",
        "GB",
        "largest resident set during the load of the process that loads (VmHWM), pool included",
    ),
    (
        "resident_before",
        "",
        "share of the files' pages in the page cache before the load",
    ),
    (
        "speedup",
        "×",
        "rate / that of the baseline in the same round, of the same checkpoint or, where it does not read its format, of the same tensors in another",
    ),
    (
        "ceiling",
        "GB/s",
        "the best that storage.ceiling found of the tier that the load comes from",
    ),
    ("ceiling_share", "", "rate / ceiling"),
    ("round", "", "which round, from 0"),
];

fn definitions() -> Vec<Definition> {
    let definition = |(name, unit, formula): &(&str, &str, &str)| Definition {
        name: (*name).to_owned(),
        unit: (*unit).to_owned(),
        formula: (*formula).to_owned(),
    };
    let all = DEFINITIONS.iter().chain(overlap::DEFINITIONS);
    all.map(definition).collect()
}

#[cfg(test)]
mod tests;
