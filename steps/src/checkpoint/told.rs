//! What is told of rounds of loads: rows, their meaning, remarks, and how far it can be believed.

use super::best::Ceiling;
use super::overlap;
use super::rounds::{Outcome, Rounds, Source, Timed};
use crate::result::{Definition, MeasuredFile, Row};
use checkpoints::loader::Way;
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
    /// The loader to which others are held within each round.
    pub(super) baseline: Option<Way>,
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
        let other = self.baseline.and_then(|way| self.of_round(timed, way));
        if let Some(other) = other {
            row.set("speedup", rate(timed) / rate(other));
        }
        let ceiling = self.ceiling.as_ref();
        overlap::add(&mut row, timed, self.rounds, ceiling, rate(timed));
        row
    }

    /// The load of another loader in the same round, of the same checkpoint.
    fn of_round(&self, timed: &Timed, way: Way) -> Option<&'a Timed> {
        let is_it = |other: &&Timed| {
            (other.round, other.source, other.way) == (timed.round, timed.source, way)
        };
        self.outcome
            .timed
            .iter()
            .find(is_it)
            .filter(|other| other.trouble.is_none())
    }

    /// Loads by who loaded what, in the order in which they were first made.
    fn arms(&self) -> Vec<(String, Vec<&'a Timed>)> {
        let mut arms: BTreeMap<(usize, Way), Vec<&Timed>> = BTreeMap::new();
        for timed in self
            .outcome
            .timed
            .iter()
            .filter(|timed| timed.trouble.is_none())
        {
            arms.entry((timed.source, timed.way))
                .or_default()
                .push(timed);
        }
        let formats: Vec<_> = self
            .rounds
            .sources
            .iter()
            .map(|source| source.format)
            .collect();
        let named = |((source, _), loads): ((usize, Way), Vec<&'a Timed>)| {
            let loader = loads
                .first()
                .map_or_else(String::new, |timed| loader(timed));
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
            .collect();
        for (arm, loads) in self.arms() {
            let times: Vec<f64> = loads
                .iter()
                .map(|timed| timed.stages.total.as_secs_f64())
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
            Some(json!({ "round": timed.round, "loader": loader(timed), "why": why }))
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
            Some(format!("round {}, {}: {why}", timed.round, loader(timed)))
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
    timed.bytes as f64 / 1e9 / timed.stages.total.as_secs_f64().max(1e-9)
}

/// What a load is called: who loaded, and what took its place.
fn loader(timed: &Timed) -> String {
    match timed.instead {
        Some(instead) => format!("{} in place of {}", instead.word(), timed.way.word()),
        None => timed.way.word().to_owned(),
    }
}

fn row(timed: &Timed, source: &Source) -> Row {
    let mut row = Row::default();
    let (loader, format) = (loader(timed), source.format.word());
    let mut label = |name: &str, text: String| row.labels.insert(name.to_owned(), text);
    label("arm", format!("{loader}, {format}"));
    label("loader", loader);
    label("format", format.to_owned());
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let stages = &timed.stages;
    for (name, value) in [
        ("round", timed.round.into()),
        ("total_ms", ms(stages.total)),
        ("header_ms", ms(stages.header)),
        ("open_ms", ms(stages.open)),
        ("allocate_ms", ms(stages.allocate)),
        ("read_ms", ms(stages.read)),
        ("copy_ms", ms(stages.copy)),
        ("first_tensor_ms", ms(stages.first_tensor)),
        ("rate", rate(timed)),
        ("tensor_data", timed.bytes as f64 / 1e9),
        ("reads", timed.blocks as f64),
        ("cpu_ms", ms(timed.cpu)),
        ("resident_before", timed.resident),
    ] {
        row.set(name, value);
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
        "processor time of the whole process during the load, kernel included",
    ),
    (
        "device_data",
        "GB",
        "bytes that devices brought for this process (read_bytes of /proc/self/io)",
    ),
    (
        "peak_memory",
        "GB",
        "largest resident set of the whole process during the load (VmHWM), pool included",
    ),
    (
        "resident_before",
        "",
        "share of the files' pages in the page cache before the load",
    ),
    (
        "speedup",
        "×",
        "rate / that of the baseline in the same round",
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
mod tests {
    use super::super::rounds::{Keeping, Order};
    use super::super::state::StateChoice;
    use super::super::target::Target;
    use super::*;
    use checkpoints::loader::Effort;
    use checkpoints::{Contents, Format, Stages};
    use std::num::NonZeroUsize;
    use std::path::PathBuf;

    fn rounds() -> Rounds {
        let one = NonZeroUsize::MIN;
        let contents = Contents {
            folder: PathBuf::new(),
            format: Format::Store,
            files: Vec::new(),
            tensors: Vec::new(),
        };
        Rounds {
            sources: vec![Source {
                format: Format::Store,
                folders: vec![PathBuf::new()],
                contents,
            }],
            ways: vec![Way::Buffered, Way::IoUring],
            rounds: 2,
            to: Target::Host,
            state: StateChoice::GuestCold,
            keeping: Keeping::Fresh,
            effort: Effort {
                threads: one,
                depth: one,
            },
            block: 1 << 20,
            is_checked: false,
            order: Order::Random,
            seed: 0,
        }
    }

    /// A load of 1 GB that took so many seconds.
    fn timed(round: u32, way: Way, seconds: u64) -> Timed {
        Timed {
            round,
            source: 0,
            way,
            instead: None,
            stages: Stages {
                total: Duration::from_secs(seconds),
                ..Stages::default()
            },
            bytes: 1_000_000_000,
            blocks: 1,
            resident: 0.0,
            told_by: "cachestat",
            cpu: Duration::ZERO,
            device_bytes: None,
            peak_memory: None,
            buffers: None,
            trouble: None,
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            timed: vec![
                timed(0, Way::Buffered, 4),
                timed(0, Way::IoUring, 2),
                timed(1, Way::IoUring, 4),
                timed(1, Way::Buffered, 16),
            ],
            pool_ready: Duration::ZERO,
            pinned: None,
            refused: Vec::new(),
        }
    }

    #[test]
    fn loads_are_held_to_the_baseline_of_their_own_round() {
        let (rounds, outcome) = (rounds(), outcome());
        let told = Told {
            rounds: &rounds,
            outcome: &outcome,
            baseline: Some(Way::Buffered),
            ceiling: Some(Ceiling {
                rate: 2.0,
                ..Ceiling::default()
            }),
        };
        let result = told.result(BTreeMap::new());
        let column = |name| -> Vec<f64> {
            let rows = result.rows.iter();
            rows.map(|row| row.value(name).unwrap_or(f64::NAN))
                .collect()
        };
        assert_eq!(column("speedup"), [1.0, 2.0, 4.0, 1.0]);
        assert_eq!(column("ceiling_share"), [0.125, 0.25, 0.125, 0.03125]);
        let names = result.rows.iter().flat_map(|row| row.values.keys());
        let is_defined = |name: &&String| result.definitions.iter().any(|d| d.name == **name);
        assert_eq!(names.filter(|name| !is_defined(name)).count(), 0);
        // 16 s are 1.6 times the median, 10 s.
        assert!(
            result
                .notes
                .iter()
                .any(|note| note.starts_with("buffered: ")),
            "{:?}",
            result.notes
        );
        assert_eq!(told.verdict().grade, Grade::Valid);
        let figures: Vec<_> = told
            .figures()
            .into_iter()
            .map(|f| (f.name, f.value))
            .collect();
        assert_eq!(
            figures,
            [
                ("buffered".to_owned(), 0.15625),
                ("io_uring".to_owned(), 0.375)
            ]
        );
    }

    #[test]
    fn a_load_from_another_state_makes_the_sample_invalid_and_enters_no_row() {
        let rounds = rounds();
        let mut outcome = outcome();
        outcome.refused.push((Way::IoUring, "forbidden".to_owned()));
        for timed in outcome
            .timed
            .iter_mut()
            .filter(|timed| timed.way == Way::IoUring)
        {
            timed.instead = Some(Way::Direct);
        }
        let told = |outcome: &Outcome| {
            let told = Told {
                rounds: &rounds,
                outcome,
                baseline: None,
                ceiling: None,
            };
            (told.verdict(), told.result(BTreeMap::new()))
        };
        let (verdict, result) = told(&outcome);
        assert_eq!((verdict.grade, result.rows.len()), (Grade::Degraded, 4));
        assert_eq!(
            result.rows[1].labels["loader"],
            "direct in place of io_uring"
        );
        outcome.timed[3].trouble = Some("2.00 % were there".to_owned());
        let (verdict, result) = told(&outcome);
        assert_eq!((verdict.grade, result.rows.len()), (Grade::Invalid, 3));
        assert_eq!(verdict.reasons, ["round 1, buffered: 2.00 % were there"]);
        assert_eq!(result.details["rejected"][0]["loader"], "buffered");
    }
}
