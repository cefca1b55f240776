//! Locks as TOML that people read and compare line by line: a block for each node in the order of
//! the plan; above some thousands of nodes a line for each.

use super::{Lock, Pinned, Pins};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The form of lock files.
const FORM: u32 = 1;
/// Above so many nodes each is one line.
const COMPACT: usize = 5000;

/// Why a text is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It is no TOML, or has other keys.
    #[error("{0}")]
    Form(String),
    /// A later version wrote it.
    #[error("it has form {found}, and only form {FORM} is known")]
    Version {
        /// The form that it has.
        found: u32,
    },
}

/// A lock as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    lock: u32,
    engine: String,
    plan: String,
    #[serde(default)]
    params: BTreeMap<String, String>,
    #[serde(default)]
    sources: BTreeMap<String, String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    node: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    result: BTreeMap<String, ReadResult>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadResult {
    key: String,
    samples: Option<u32>,
    #[serde(default)]
    outputs: BTreeMap<String, String>,
}

impl Lock {
    /// Reads a lock; nodes come by name.
    ///
    /// # Errors
    /// If the text is no lock of a form that is known.
    pub fn read(text: &str) -> Result<Self, LockError> {
        let read: Read = toml::from_str(text)
            .map_err(|error| LockError::Form(error.to_string().trim_end().to_owned()))?;
        if read.lock != FORM {
            return Err(LockError::Version { found: read.lock });
        }
        let result = |(name, result): (String, ReadResult)| {
            let pinned = Pinned {
                key: result.key,
                samples: result.samples,
                outputs: result.outputs,
            };
            (name, pinned)
        };
        let nodes = read.node.into_iter();
        Ok(Self {
            engine: read.engine,
            plan: read.plan,
            params: read.params,
            sources: read.sources,
            environment: read.environment,
            nodes: nodes
                .map(|(name, pins)| (name, pins.into_iter().collect()))
                .collect(),
            results: read.result.into_iter().map(result).collect(),
        })
    }

    /// Writes a lock.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from(
            "# What the plan resolved to, written by benchwright. `benchwright run PLAN --locked` refuses\n\
             # whatever differs from it, but for the machine and for what is measured on it.\n",
        );
        let head = [("engine", &self.engine), ("plan", &self.plan)];
        let _ = writeln!(text, "lock = {FORM}");
        for (key, value) in head {
            let _ = writeln!(text, "{key} = {}", quote(value));
        }
        for (title, map) in [
            ("params", &self.params),
            ("sources", &self.sources),
            ("environment", &self.environment),
        ] {
            section(&mut text, title, map);
        }
        if self.nodes.len() > COMPACT {
            self.write_lines(&mut text);
        } else {
            self.write_blocks(&mut text);
        }
        text
    }

    fn write_blocks(&self, text: &mut String) {
        for (name, pins) in &self.nodes {
            let _ = writeln!(text, "\n[node.{}]", key(name));
            for (field, value) in pins {
                let _ = writeln!(text, "{} = {}", key(field), quote(value));
            }
            let Some(result) = self.results.get(name) else {
                continue;
            };
            let _ = writeln!(text, "\n[result.{}]", key(name));
            for (field, value) in of_result(result) {
                let _ = writeln!(text, "{field} = {value}");
            }
        }
    }

    fn write_lines(&self, text: &mut String) {
        text.push_str("\n[node]\n");
        for (name, pins) in &self.nodes {
            let _ = writeln!(text, "{} = {}", key(name), inline(pins));
        }
        text.push_str("\n[result]\n");
        let known = |(name, _): &(String, Pins)| Some((name.clone(), self.results.get(name)?));
        for (name, result) in self.nodes.iter().filter_map(known) {
            let fields = of_result(result).into_iter();
            let fields: Vec<String> = fields.map(|(k, v)| format!("{k} = {v}")).collect();
            let _ = writeln!(text, "{} = {{ {} }}", key(&name), fields.join(", "));
        }
    }
}

fn section(text: &mut String, title: &str, map: &BTreeMap<String, String>) {
    if map.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n[{title}]");
    for (name, value) in map {
        let _ = writeln!(text, "{} = {}", key(name), quote(value));
    }
}

fn of_result(result: &Pinned) -> Vec<(&'static str, String)> {
    let mut fields = vec![("key", quote(&result.key))];
    if let Some(samples) = result.samples {
        fields.push(("samples", samples.to_string()));
    }
    let outputs: Pins = result.outputs.clone().into_iter().collect();
    fields.push(("outputs", inline(&outputs)));
    fields
}

fn inline(pins: &Pins) -> String {
    let fields = pins
        .iter()
        .map(|(k, v)| format!("{} = {}", key(k), quote(v)));
    format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
}

fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(is_bare) {
        return name.to_owned();
    }
    quote(name)
}

/// Writes a basic string, the only form that can stand for a key and a value alike.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
