//! `[secrets]`: where those come from that are not in the variable of their name.

use crate::compose::files::{Files, searched_help};
use crate::problem::{Problem, Problems};
use crate::secrets::SecretSource;
use crate::source::{Place, Sources};
use crate::value::{Key, Kind, Table, Value};
use std::collections::BTreeMap;

/// Reads `[secrets]`; what is wrong with it goes to `problems`.
pub(super) fn sources(
    declared: &Table,
    files: &Files,
    sources: &Sources,
    problems: &mut Problems,
) -> BTreeMap<String, SecretSource> {
    let mut found = BTreeMap::new();
    for (key, value) in &declared.entries {
        match source(key, value, files, sources) {
            Ok(source) => {
                found.insert(key.name.clone(), source);
            }
            Err(problem) => problems.push(problem),
        }
    }
    found
}

fn source(
    key: &Key,
    value: &Value,
    files: &Files,
    sources: &Sources,
) -> Result<SecretSource, Problem> {
    if let Kind::Table(table) = &value.kind
        && let [(kind, given)] = table.entries.as_slice()
        && let Kind::Text(text) = &given.kind
    {
        match kind.name.as_str() {
            "env" => return Ok(SecretSource::Variable(text.clone())),
            "file" => return file(text, &given.place, files, sources),
            _ => {}
        }
    }
    let message = format!("secret `{}` comes from a file or a variable", key.name);
    let help = "write `{ file = \"PATH\" }` or `{ env = \"NAME\" }`; a value itself has no place in a plan";
    Err(Problem::at(&value.place, message, "not understood").help(help))
}

fn file(
    path: &str,
    place: &Place,
    files: &Files,
    sources: &Sources,
) -> Result<SecretSource, Problem> {
    match files.find(sources.folder_of(place), path) {
        // Steps have working folders of their own, so nothing found may be relative.
        Ok(path) => Ok(SecretSource::File(
            std::path::absolute(&path).unwrap_or(path),
        )),
        Err(searched) => {
            let message = format!("there is no file `{path}`");
            Err(Problem::at(place, message, "not found").help(searched_help(&searched)))
        }
    }
}
