//! Models: folders as the hub has them, derived from others and filled with random weights.
//!
//! What configurations and weights are is the crate `models`'s; here are the steps, and the files
//! of folders.

mod beside;
mod placing;

mod tokenizer;

mod derive;

mod weights;

pub(crate) use derive::ModelDerive;
pub(crate) use weights::ModelWeights;

use crate::files;
use engine::options::Parser;
use engine::source::Place;
use engine::step::StepError;
use engine::value::{Kind, Table};
use models::{Part, Problem};
use serde_json::{Map, Value};
use std::path::Path;

/// What a model's folder calls its configuration; the first that is there counts.
const CONFIGS: [&str; 2] = ["config_full.json", "config.json"];

/// Reads `config_full.json` or `config.json` of a folder.
pub(crate) fn read_config(folder: &Path) -> Result<Map<String, Value>, StepError> {
    if folder.is_file() {
        // Its folder is what the tokenizer comes from, and what the key has to cover.
        return Err(StepError::new(format!(
            "`{}` is a file; name its folder",
            folder.display()
        )));
    }
    for name in CONFIGS {
        let path = folder.join(name);
        if path.exists() {
            return files::read_json(&path);
        }
    }
    Err(StepError::new(format!(
        "`{}` has neither `config_full.json` nor `config.json`",
        folder.display()
    )))
}

/// Returns a value of a configuration, of its decoder where that is an object within.
fn of_decoder<'a>(config: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let within = || config.get("text_config")?.get(key);
    config.get(key).or_else(within)
}

/// Bytes, said in gigabytes.
fn gigabytes(bytes: u64) -> String {
    format!("{:.3} GB", bytes as f64 / 1e9)
}

/// Makes the first of several problems a failure of the step.
pub(crate) fn failure(problems: &[Problem]) -> StepError {
    match problems {
        [] => StepError::new("the configuration cannot be used"),
        [one] => StepError::new(one.message.clone()).help(one.help.clone()),
        [first, rest @ ..] => {
            let message = format!("{}, and {} more problems", first.message, rest.len());
            StepError::new(message).help(first.help.clone())
        }
    }
}

/// Reports a problem where the plan says what it is about; at the option `otherwise` if nowhere.
pub(crate) fn report(
    problem: &Problem,
    table: &Table,
    place: &Place,
    otherwise: &str,
    parser: &mut Parser<'_>,
) {
    let fallback = table.get(otherwise).map_or(place, |v| &v.place);
    let at = place_of(problem, table).unwrap_or(fallback);
    parser.wrong::<()>(at, problem.message.clone(), "not possible", &problem.help);
}

/// Finds the change that a problem is about: by its option and key, or by its keys in any.
fn place_of<'a>(problem: &Problem, table: &'a Table) -> Option<&'a Place> {
    let parts = match problem.part {
        Some(part) => vec![part],
        None => vec![Part::Set, Part::Scale, Part::Unset],
    };
    let keys = problem.keys.iter();
    keys.flat_map(|key| parts.iter().map(move |part| (*part, key)))
        .find_map(|(part, key)| place_of_key(table, part, key))
}

/// Finds a key among the changes of one kind; of a list that names it twice, the last.
fn place_of_key<'a>(table: &'a Table, part: Part, key: &str) -> Option<&'a Place> {
    match &table.get(part.name())?.kind {
        Kind::Table(changes) => {
            let is_it = |name: &str| name == key || name.strip_prefix('+') == Some(key);
            let mut entries = changes.entries.iter();
            entries.find(|(k, _)| is_it(&k.name)).map(|(k, _)| &k.place)
        }
        Kind::List(list) => {
            let is_it = |kind: &Kind| matches!(kind, Kind::Text(text) if text == key);
            list.iter().rfind(|v| is_it(&v.kind)).map(|v| &v.place)
        }
        _ => None,
    }
}
