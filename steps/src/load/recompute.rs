//! Numbers of old records by the definitions of now: records are raw, and everything else follows
//! from them.

use super::{records, test};
use crate::breakdown;
use crate::files;
use crate::result::MeasuredFile;
use engine::step::StepError;
use loadgen::{Metrics, RunInfo, Thresholds};
use std::collections::BTreeMap;
use std::path::Path;

/// What became of the numbers of one sample.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Recomputed {
    /// Requests that were recorded.
    pub requests: usize,
    /// Numbers that are others now: what they were, and what they are; `None` is none.
    pub changed: BTreeMap<String, (Option<f64>, Option<f64>)>,
}

/// Computes the result of a load test anew from what lies in `sample`, and writes it to `to`, with
/// the same records by model, turn and group and in the words of vLLM and of SGLang.
///
/// # Errors
/// If the sample is none of a load test, or a file cannot be read or written.
pub fn recompute(sample: &Path, to: &Path) -> Result<Recomputed, StepError> {
    let old: MeasuredFile = files::read_json(&sample.join("result.json"))?;
    let info = old.details.get("info").cloned().unwrap_or_default();
    let info: RunInfo = serde_json::from_value(info).map_err(|e| {
        StepError::because("the result does not say how its records were made", e)
            .help("only samples of `load.test` can be computed anew")
    })?;
    let records = records::read(&sample.join("records"))?;
    let metrics = Metrics::of(&info, &records);
    let judged = loadgen::judge(&info, &records, &metrics, None, &Thresholds::default());
    let simulated = old.simulated().map(str::to_owned);
    let simulated = simulated.as_deref();
    let new = test::measured(&info, &metrics, &judged, None, old.target)?;
    files::create_dir(to)?;
    files::write_json(&to.join("result.json"), &new)?;
    write_views(to, &info, &records, simulated)?;
    let path = to.join("breakdown.parquet");
    breakdown::write(&path, &metrics, &records, simulated)?;
    let values = |rows: &[crate::result::Row]| rows.first().map(|r| r.values.clone());
    let then = values(&old.rows).unwrap_or_default();
    let now = values(&new.rows).unwrap_or_default();
    // What was measured about the client, and what the server wrote down, lies in no record.
    let is_own =
        |name: &&String| !name.starts_with("client_error_") && !name.starts_with("causality_");
    let names = then.keys().chain(now.keys()).filter(is_own);
    let pair = |name: &String| {
        let (then, now) = (then.get(name).copied(), now.get(name).copied());
        (!is_same(then, now)).then(|| (name.clone(), (then.flatten(), now.flatten())))
    };
    Ok(Recomputed {
        requests: records.len(),
        changed: names.filter_map(pair).collect(),
    })
}

/// Whether two values are one: reading a number that was written may cost it its last digit.
fn is_same(then: Option<Option<f64>>, now: Option<Option<f64>>) -> bool {
    match (then, now) {
        (Some(Some(a)), Some(Some(b))) => (a - b).abs() <= 1e-12 * a.abs().max(b.abs()),
        (then, now) => then == now,
    }
}

/// Writes records in other tools' words, to which only `simulated` is added where answers were.
pub(super) fn write_views(
    to: &Path,
    info: &RunInfo,
    records: &[loadgen::Record],
    simulated: Option<&str>,
) -> Result<(), StepError> {
    for (name, mut view) in [
        ("vllm.json", loadgen::views::vllm(info, records)),
        ("sglang.json", loadgen::views::sglang(info, records)),
    ] {
        if let (Some(how), Some(view)) = (simulated, view.as_object_mut()) {
            view.insert("simulated".to_owned(), how.into());
        }
        files::write_json(&to.join(name), &view)?;
    }
    Ok(())
}
