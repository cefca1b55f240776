//! Whether a node's result can be used again, and if not, why not. Nothing is stale without a
//! reason.

use crate::key::{Change, Manifest};
use crate::past;
use crate::policy::Sampling;
use crate::samples::{SampleRecord, SampleSet, now_s};
use crate::store::{ArtifactRef, Digest, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was found for a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Freshness {
    /// Its result is there.
    Reused {
        /// How old it is, seconds.
        age_s: u64,
        /// For measurements: how many samples, and how many of them are invalid.
        samples: Option<SampleCount>,
    },
    /// Some samples are there and some are missing.
    ToppedUp {
        /// The samples that are there.
        have: SampleCount,
        /// How many are wanted.
        want: u32,
        /// How old the newest is, seconds.
        age_s: u64,
    },
    /// It has to run.
    Stale {
        /// Why.
        reason: Reason,
    },
    /// An effect: it runs when something that comes after it does.
    OnDemand,
    /// A service: it is launched when a step that has to run leases it.
    Service,
    /// It depends on something that has to run first.
    Undecided {
        /// The node that has to run.
        waits_for: String,
    },
}

/// How many samples there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleCount {
    /// All that count.
    pub have: u32,
    /// Those whose verdict is invalid.
    pub invalid: u32,
    /// Whether all were drawn since this machine was started.
    pub same_boot: bool,
}

/// Why a node has to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// It never ran under this name.
    NeverRan,
    /// Something that it depends on changed.
    Changed {
        /// What.
        changes: Vec<Change>,
    },
    /// A file of its result is missing or damaged.
    Lost {
        /// The output.
        output: String,
    },
    /// All its samples are older than the plan allows.
    TooOld,
    /// The command line asked for it.
    Asked,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::NeverRan => f.write_str("never ran"),
            Reason::Changed { changes } => write_changes(f, changes),
            Reason::Lost { output } => write!(f, "its `{output}` is missing from the store"),
            Reason::TooOld => f.write_str("its samples are older than `max_age`"),
            Reason::Asked => f.write_str("`--fresh` asks for it"),
        }
    }
}

fn write_changes(f: &mut std::fmt::Formatter<'_>, changes: &[Change]) -> std::fmt::Result {
    let Some(first) = changes.first() else {
        return f.write_str("its key changed");
    };
    let short = |v: &Option<String>| v.as_deref().map_or_else(|| "nothing".to_owned(), shorten);
    write!(
        f,
        "`{}` changed from {} to {}",
        first.field,
        short(&first.old),
        short(&first.new)
    )?;
    match changes.len() {
        1 => Ok(()),
        n => write!(f, " (and {} more)", n - 1),
    }
}

/// Shortens digests and long texts for one line, and quotes what has blanks.
fn shorten(value: &str) -> String {
    let is_digest = value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit());
    if is_digest {
        return value[..10].to_owned();
    }
    let short = match value.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value.to_owned(),
    };
    if short.is_empty() || short.contains(char::is_whitespace) {
        return format!("`{short}`");
    }
    short
}

impl std::fmt::Display for Freshness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Freshness::Reused {
                age_s,
                samples: None,
            } => write!(f, "reused, {} old", age(*age_s)),
            Freshness::Reused {
                age_s,
                samples: Some(count),
            } => {
                write!(
                    f,
                    "reused {}, {} old{}",
                    plural(count.have, "sample"),
                    age(*age_s),
                    remarks(count)
                )
            }
            Freshness::ToppedUp { have, want, age_s } => {
                write!(
                    f,
                    "reused {} of {}, {} old{}",
                    have.have - have.invalid,
                    plural(*want, "sample"),
                    age(*age_s),
                    remarks(have)
                )
            }
            Freshness::Stale { reason } => write!(f, "will run: {reason}"),
            Freshness::OnDemand => f.write_str("runs when something after it does"),
            Freshness::Service => f.write_str("launched when a step needs it"),
            Freshness::Undecided { waits_for } => {
                write!(f, "runs or is reused after `{waits_for}`")
            }
        }
    }
}

fn remarks(count: &SampleCount) -> String {
    let boot = if count.same_boot { ", same boot" } else { "" };
    let invalid = if count.invalid > 0 {
        format!(", {} suspect: `--fresh` measures again", count.invalid)
    } else {
        String::new()
    };
    format!("{boot}{invalid}")
}

fn plural(n: u32, word: &str) -> String {
    if n == 1 {
        format!("{n} {word}")
    } else {
        format!("{n} {word}s")
    }
}

/// Writes an age in the largest unit that fits.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// The record of a result that is kept by content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// What the result depends on.
    pub manifest: Manifest,
    /// Its outputs by name.
    pub outputs: BTreeMap<String, ArtifactRef>,
    /// Seconds since 1970.
    pub finished_at: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// What the step had to say.
    pub summary: Option<String>,
}

/// What was found in the store for a node's key.
pub struct Found {
    /// What is left to do and why.
    pub freshness: Freshness,
    /// The result, if it is there.
    pub record: Option<ActionRecord>,
    /// The samples that are there.
    pub samples: SampleSet,
}

/// Looks up a cached result.
///
/// # Errors
/// If the store cannot be read.
pub fn look_up_action(
    store: &Store,
    node: &str,
    plan: &str,
    manifest: &Manifest,
) -> Result<Found, StoreError> {
    let record = read_action(store, &manifest.digest());
    let lost = record.as_ref().and_then(|r| lost_output(store, r));
    let freshness = match (&record, lost) {
        (Some(record), None) => reused(record.finished_at),
        (Some(_), Some(output)) => Freshness::Stale {
            reason: Reason::Lost { output },
        },
        (None, _) => Freshness::Stale {
            reason: reason(store, node, plan, manifest),
        },
    };
    let record = record.filter(|_| matches!(freshness, Freshness::Reused { .. }));
    Ok(Found {
        freshness,
        record,
        samples: SampleSet::default(),
    })
}

/// Finds a cached result that is whole.
pub fn find_action(store: &Store, key: &Digest) -> Option<ActionRecord> {
    read_action(store, key).filter(|record| lost_output(store, record).is_none())
}

fn read_action(store: &Store, key: &Digest) -> Option<ActionRecord> {
    let value = store.get_record("actions", &key.to_string())?;
    serde_json::from_value(value).ok()
}

fn lost_output(store: &Store, record: &ActionRecord) -> Option<String> {
    let mut outputs = record.outputs.iter();
    let (name, _) = outputs.find(|(_, output)| !store.present(output))?;
    Some(name.clone())
}

/// Says that a cached result is used again.
pub fn reused(finished_at: u64) -> Freshness {
    Freshness::Reused {
        age_s: now_s().saturating_sub(finished_at),
        samples: None,
    }
}

/// Looks up the samples of a measurement.
///
/// # Errors
/// If the store cannot be read.
pub fn look_up_samples(
    store: &Store,
    node: &str,
    plan: &str,
    manifest: &Manifest,
    wanted: &Wanted<'_>,
) -> Result<Found, StoreError> {
    let class = manifest.digest();
    let samples = SampleSet::load(store, &class, wanted.sampling.max_age)?;
    let current = samples.current(wanted.sampling.target.get());
    let have = SampleCount {
        have: count(current.records.len()),
        invalid: count(current.records.iter().filter(|r| r.is_suspect()).count()),
        same_boot: current.records.iter().all(|r| r.boot_id == wanted.boot_id),
    };
    let newest = samples
        .records
        .last()
        .map_or(0, |r| now_s().saturating_sub(r.drawn_at));
    let missing = wanted.missing(&samples);
    let freshness = match have.have {
        _ if missing > 0 && wanted.wish != &Wish::Enough => Freshness::Stale {
            reason: Reason::Asked,
        },
        n if n > 0 && missing == 0 => Freshness::Reused {
            age_s: newest,
            samples: Some(have),
        },
        0 if !SampleSet::load(store, &class, None)?.records.is_empty() => Freshness::Stale {
            reason: Reason::TooOld,
        },
        0 => Freshness::Stale {
            reason: reason(store, node, plan, manifest),
        },
        _ => Freshness::ToppedUp {
            have,
            want: wanted.sampling.target.get(),
            age_s: newest,
        },
    };
    Ok(Found {
        freshness,
        record: None,
        samples,
    })
}

/// How many samples are wanted and which count.
pub struct Wanted<'a> {
    /// How many, how old, and how often suspect ones are replaced.
    pub sampling: Sampling,
    /// Whether those of earlier runs suffice.
    pub wish: &'a Wish,
    /// The boot of this machine.
    pub boot_id: &'a str,
}

/// Whether samples of earlier runs suffice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// They do.
    Enough,
    /// The target is to be reached by samples of the run with this name alone.
    NewIn(String),
}

impl Wanted<'_> {
    /// Returns how many samples are still to be drawn beside `samples`.
    ///
    /// A suspect sample is kept and replaced, but a set never grows beyond its target by more than
    /// the replacements that are allowed: what is suspect every time is content with being so.
    pub fn missing(&self, samples: &SampleSet) -> u32 {
        let counts = |record: &&SampleRecord| match self.wish {
            Wish::Enough => true,
            Wish::NewIn(run) => record.run == *run,
        };
        let counting = || samples.records.iter().filter(counts);
        let n_believed = counting().filter(|r| !r.is_suspect()).count();
        let target = self.sampling.target.get();
        let most = target.saturating_add(self.sampling.replacements);
        let short = target.saturating_sub(count(n_believed));
        short.min(most.saturating_sub(count(counting().count())))
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Compares with what the node was when it last ran under this name.
fn reason(store: &Store, node: &str, plan: &str, manifest: &Manifest) -> Reason {
    match past::recall(store, plan, node) {
        None => Reason::NeverRan,
        Some(memory) => Reason::Changed {
            changes: manifest.changes_since(&memory.manifest),
        },
    }
}
