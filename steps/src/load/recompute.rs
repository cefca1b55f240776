//! Numbers of old records by the definitions of now: records are raw, and everything else follows
//! from them.

use super::counters::{self, Counts};
use super::telemetry;
use super::timeline::Timeline;
use super::{applied, records, test, truth};
use crate::breakdown;
use crate::files;
use crate::result::{MeasuredFile, Row};
use engine::step::StepError;
use loadgen::{Causality, Metrics, RunInfo, Thresholds};
use serde::de::DeserializeOwned;
use serde_json::Value;
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
/// the same records by model, turn and group and in the words of vLLM and of SGLang. What the server told
/// is taken as it was: whether records can be true, its time line, and the telemetry.
///
/// # Errors
/// If the sample is none of a load test, or a file cannot be read or written.
pub fn recompute(sample: &Path, to: &Path) -> Result<Recomputed, StepError> {
    let old: MeasuredFile = files::read_json(&sample.join("result.json"))?;
    let info: RunInfo = detail(&old.details, "info")?;
    let causality: Option<Causality> = detail(&old.details, "causality")?;
    let counted: Option<Counts> = detail(&old.details, "counters")?;
    let telemetry = telemetry::read(&sample.join("telemetry"), telemetry::how(&old))?;
    let told = sample.join("timeline.json");
    let timeline = match told.exists() {
        true => files::read_json(&told)?,
        // Samples of earlier versions have none.
        false => Timeline::default(),
    };
    let records = records::read(&sample.join("records"))?;
    let metrics = Metrics::of(&info, &records);
    let judged = loadgen::judge(&info, &records, &metrics, None, &Thresholds::default());
    let judged = truth::judged(judged, causality.as_ref());
    let judged = applied::judged(judged, &old.target);
    let judged = counters::judged(judged, counted.as_ref(), &records);
    let simulated = old.simulated().map(str::to_owned);
    let simulated = simulated.as_deref();
    let mut new = test::measured(&info, &metrics, &judged, None, old.target)?;
    truth::describe(causality.as_ref(), &mut new);
    counters::describe(counted.as_ref(), &mut new);
    timeline.measure(&mut new);
    telemetry::describe(&telemetry, &info, &records, &mut new);
    files::create_dir(to)?;
    files::write_json(&to.join("result.json"), &new)?;
    if told.exists() {
        files::copy(&told, &to.join("timeline.json"))?;
    }
    write_views(to, &info, &records, simulated)?;
    let path = to.join("breakdown.parquet");
    breakdown::write(&path, &metrics, &records, simulated)?;
    Ok(Recomputed {
        requests: records.len(),
        changed: changed(&old.rows, &new.rows),
    })
}

/// Something of a result's details; what is not there reads as null.
fn detail<T: DeserializeOwned>(details: &Value, name: &str) -> Result<T, StepError> {
    let detail = details.get(name).cloned().unwrap_or_default();
    serde_json::from_value(detail).map_err(|e| {
        StepError::because("the result does not say how its records were made", e)
            .help("only samples of `load.test` can be computed anew")
    })
}

/// The numbers that are others.
fn changed(then: &[Row], now: &[Row]) -> BTreeMap<String, (Option<f64>, Option<f64>)> {
    let values = |rows: &[Row]| rows.first().map(|r| r.values.clone()).unwrap_or_default();
    let (then, now) = (values(then), values(now));
    // What was measured about the client lies in no record.
    let is_own = |name: &&String| !name.starts_with("client_error_");
    let names = then.keys().chain(now.keys()).filter(is_own);
    let pair = |name: &String| {
        let (then, now) = (then.get(name).copied(), now.get(name).copied());
        (!is_same(then, now)).then(|| (name.clone(), (then.flatten(), now.flatten())))
    };
    names.filter_map(pair).collect()
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

/// A request of one token.
#[cfg(test)]
pub(super) fn one_record() -> loadgen::Record {
    use loadgen::{Event, Outcome};
    loadgen::Record {
        index: 0,
        request: "r".to_owned(),
        conversation: None,
        turn: 0,
        group: None,
        model: "m".to_owned(),
        input_tokens: 1,
        cacheable_tokens: None,
        output_tokens: std::num::NonZeroU32::MIN,
        slo: None,
        scheduled: 0,
        dispatched: Some(0),
        connected: None,
        headers: Some(10_000_000),
        events: vec![Event {
            at: 20_000_000,
            tokens: 1,
        }],
        done: 30_000_000,
        attempts: 1,
        outcome: Outcome::Completed,
        error: None,
        usage: None,
        finish: Some("length".to_owned()),
        text_digest: None,
    }
}

/// The run of that request.
#[cfg(test)]
pub(super) fn one_info() -> RunInfo {
    use loadgen::{ClientUse, Ended, EventTime, Load, OutputLength, Protocol, Reuse, Stop};
    use std::num::{NonZeroU32, NonZeroU64};
    RunInfo {
        load: Load::closed(NonZeroU32::MIN),
        stop: Stop::Requests(NonZeroU64::MIN),
        reuse: Reuse::Once,
        workload_digest: String::new(),
        address: "http://127.0.0.1:1".to_owned(),
        model: "m".to_owned(),
        protocol: Protocol::Completions,
        length: OutputLength::Exact,
        started_unix_ms: 0,
        event_time: EventTime::Read,
        request_prefix: "x-".to_owned(),
        started_monotonic_ns: 0,
        wall_ns: 30_000_000,
        ended: Ended::Reached,
        client: ClientUse::default(),
        in_flight_area_ns: 30_000_000,
        in_flight_peak: 1,
        unused_arrivals: 0,
        images: 0,
        image_bytes: 0,
        is_offline: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A sample of one request, whose server wrote nothing down of it and moved a model.
    fn sample() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let causality = Causality {
            unknown: 1,
            ..Causality::default()
        };
        let (info, records) = (one_info(), [one_record()]);
        let metrics = Metrics::of(&info, &records);
        let judged = loadgen::judge(&info, &records, &metrics, None, &Thresholds::default());
        let judged = truth::judged(judged, Some(&causality));
        let result = test::measured(&info, &metrics, &judged, None, BTreeMap::new());
        let mut result = result.expect("a result");
        truth::describe(Some(&causality), &mut result);
        let timeline = json!({ "models": ["a", "b"], "device_memory": null, "samples": [], "swaps": [
            { "model": "a", "direction": "in", "reason": "queue", "begin_s": 0.0, "end_s": 0.01,
                "drain_s": 0.0, "copy_s": 0.01, "bytes": 7 },
        ] });
        let timeline: Timeline = serde_json::from_value(timeline).expect("a time line");
        timeline.measure(&mut result);
        let path = |name: &str| folder.path().join(name);
        files::write_json(&path("result.json"), &result).expect("written");
        files::write_json(&path("timeline.json"), &timeline).expect("written");
        files::create_dir(&path("records")).expect("a folder");
        records::write(&path("records/part-00000.parquet"), &records, None).expect("written");
        folder
    }

    #[test]
    fn what_the_server_told_is_as_it_was() {
        let (sample, to) = (sample(), tempfile::tempdir().expect("a folder"));
        let found = recompute(sample.path(), to.path()).expect("computed");
        assert!(found.changed.is_empty(), "{:?}", found.changed);
        let path = to.path().join("result.json");
        let new: MeasuredFile = files::read_json(&path).expect("a result");
        let value = |name: &str| new.rows[0].values[name];
        let told = (
            value("causality_unknown"),
            value("swaps"),
            value("swap_bytes"),
        );
        assert_eq!(told, (Some(1.0), Some(1.0), Some(7.0)));
        // The verdict still knows what cannot be.
        let verdict = &new.details["verdict"];
        assert_eq!(verdict["grade"], "invalid", "{verdict}");
        let checks = verdict["reasons"].as_array().expect("reasons");
        assert!(
            checks.iter().any(|r| r["check"] == "causality"),
            "{verdict}"
        );
        assert_eq!(new.details["causality"]["unknown"], 1);
        let texts = [sample.path(), to.path()].map(|at| std::fs::read(at.join("timeline.json")));
        let [then, now] = texts.map(|text| text.expect("a time line"));
        assert_eq!(then, now);
    }

    #[test]
    fn a_sample_of_an_earlier_version_has_no_time_line() {
        let (sample, to) = (sample(), tempfile::tempdir().expect("a folder"));
        std::fs::remove_file(sample.path().join("timeline.json")).expect("removed");
        let found = recompute(sample.path(), to.path()).expect("computed");
        let changed: Vec<&str> = found.changed.keys().map(String::as_str).collect();
        assert_eq!(
            changed,
            ["swap_bytes", "swap_copy_s", "swap_drain_s", "swaps"]
        );
    }
}
