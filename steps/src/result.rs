//! What every measurement leaves: rows of labelled values, with the definition of each value.
//!
//! Plots and reports read this and nothing else, so that a new kind of measurement needs no new
//! kind of plot.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a target says of itself if it computes nothing, such as `sim, device l4, illustrative`.
pub(crate) const SIMULATED: &str = "server.simulated";

/// The content of a `result.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MeasuredFile {
    /// Rows in the order in which they were measured.
    pub(crate) rows: Vec<Row>,
    /// What the values mean.
    pub(crate) definitions: Vec<Definition>,
    /// Remarks that take nothing from the result.
    pub(crate) notes: Vec<String>,
    /// The target that was measured and how it described itself.
    pub(crate) target: BTreeMap<String, String>,
    /// Everything else that was found, for those who want to look closer.
    pub(crate) details: serde_json::Value,
}

/// One row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What tells it from other rows of the same sample, such as `phase`.
    pub(crate) labels: BTreeMap<String, String>,
    /// Values by name; `None` is +∞, which JSON cannot write.
    pub(crate) values: BTreeMap<String, Option<f64>>,
}

/// What a value means.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// Its name, or the stem of names such as `ttft` of `ttft_p50_ms`.
    pub(crate) name: String,
    /// Its unit.
    pub(crate) unit: String,
    /// How it is computed.
    pub(crate) formula: String,
}

impl MeasuredFile {
    /// How the numbers came about if nothing was computed.
    pub(crate) fn simulated(&self) -> Option<&str> {
        simulated(&self.target)
    }
}

/// How the numbers of a target come about if it computes nothing.
pub(crate) fn simulated(target: &BTreeMap<String, String>) -> Option<&str> {
    target.get(SIMULATED).map(String::as_str)
}

/// What stands beside whatever shows several results of which some were simulated; empty if none was.
pub(crate) fn stamp<'a>(results: impl IntoIterator<Item = Option<&'a str>>) -> String {
    let mut how: Vec<&str> = Vec::new();
    let mut word = "simulated";
    for result in results {
        match result {
            None => word = "partly simulated",
            Some(said) if how.contains(&said) => {}
            Some(said) => how.push(said),
        }
    }
    match how.as_slice() {
        [] => String::new(),
        how => format!("{word} ({})", how.join("; ")),
    }
}

impl Row {
    /// Returns a value; what is not there is `None`.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.values.get(name).map(|v| v.unwrap_or(f64::INFINITY))
    }

    /// Sets a value; a NaN is left out.
    pub(crate) fn set(&mut self, name: impl Into<String>, value: f64) {
        if !value.is_nan() {
            self.values
                .insert(name.into(), value.is_finite().then_some(value));
        }
    }
}

/// Finds the definition behind a flat name such as `ttft_p99_ms`.
pub(crate) fn definition<'a>(definitions: &'a [Definition], flat: &str) -> Option<&'a Definition> {
    let exact = definitions.iter().find(|d| d.name == flat);
    exact.or_else(|| {
        let stems = definitions
            .iter()
            .filter(|d| flat.starts_with(&format!("{}_", d.name)));
        stems.max_by_key(|d| d.name.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_simulated_says_so_once_and_says_if_other_things_were_not() {
        let l4 = Some("sim, device l4, illustrative");
        let pace = Some("sim, stated pace");
        assert_eq!(stamp([None, None]), "");
        assert_eq!(stamp([l4, l4]), "simulated (sim, device l4, illustrative)");
        assert_eq!(
            stamp([l4, None, pace, l4]),
            "partly simulated (sim, device l4, illustrative; sim, stated pace)"
        );
    }
}
