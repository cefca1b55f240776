//! Bars that begin anywhere: plotly.js knows their base, the crate that describes them does not.

use plotly::{Bar, Trace};
use serde::Serialize;

/// A trace of bars, each from its own base.
#[derive(Clone, Serialize)]
pub(super) struct Based {
    #[serde(flatten)]
    bars: Bar<f64, f64>,
    base: Vec<f64>,
}

impl Based {
    /// Gives each bar the place where it begins.
    pub(super) fn trace(bars: Bar<f64, f64>, base: Vec<f64>) -> Box<dyn Trace> {
        Box::new(Self { bars, base })
    }
}

impl Trace for Based {
    fn to_json(&self) -> String {
        // Strings and numbers: there is nothing that could not be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}
