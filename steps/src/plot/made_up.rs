//! Options and samples for the tests of charts.

use super::points::Points;
use engine::graph::{Link, NodeId};
use engine::options::{Linked, Linker, Options, Parser};
use engine::problem::{Problem, Problems};
use engine::source::{Place, Sources};
use engine::step::{AxisValue, Grade, Sample, StepType, Verdict};
use engine::value::{self, Key, Kind, Late, Piece, Target, Value};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Brings samples of so many loads, wherever they are asked for.
struct Loads(u32);

impl Linker for Loads {
    fn link(&self, _: &Target, _: &Place) -> Result<Linked, Option<Problem>> {
        Ok(Linked {
            link: Link::All {
                nodes: (0..self.0).map(NodeId).collect(),
            },
            kind: "result",
        })
    }

    fn find(&self, _: &str, _: &Place) -> Result<PathBuf, Vec<PathBuf>> {
        Err(Vec::new())
    }
}

/// Reads the options of a step as a plan's `with` has them, `data` apart.
pub(super) fn options<T: StepType + Options>(text: &str) -> Result<T, Vec<String>> {
    options_of(0, text)
}

/// The same, where `data` has so many loads.
pub(super) fn options_of<T: StepType + Options>(
    n_loads: u32,
    text: &str,
) -> Result<T, Vec<String>> {
    let mut sources = Sources::default();
    let id = sources.add("p.toml", text);
    let mut problems = Problems::default();
    let mut table = value::parse(&sources, id, &mut problems);
    let place = Place::new(id, 0..0);
    let target = Target::All {
        step: "load".to_owned(),
    };
    let late = Late {
        target,
        place: place.clone(),
    };
    let key = Key {
        name: "data".to_owned(),
        place: place.clone(),
    };
    let data = Value {
        kind: Kind::Template(vec![Piece::Late(late)]),
        place: place.clone(),
    };
    table.insert(key, data);
    let loads = Loads(n_loads);
    let mut parser = Parser::new("step `chart`", &loads, &mut problems);
    let read = T::parse(&table, &place, &mut parser);
    if let Some(read) = &read {
        read.check(&table, &place, &mut parser);
    }
    let problems = problems.into_sorted();
    match (read, problems.is_empty()) {
        (Some(read), true) => Ok(read),
        _ => Err(problems.into_iter().map(|p| p.message).collect()),
    }
}

/// A sample of `mode`, `alpha` and `rate`.
pub(super) struct Row {
    pub(super) mode: &'static str,
    pub(super) alpha: f64,
    pub(super) rate: f64,
    pub(super) throughput: f64,
    pub(super) grade: Grade,
}

/// A valid sample.
pub(super) fn row(mode: &'static str, alpha: f64, rate: f64, throughput: f64) -> Row {
    Row {
        mode,
        alpha,
        rate,
        throughput,
        grade: Grade::Valid,
    }
}

/// The samples, each with its result in `folder`.
pub(super) fn samples(folder: &Path, rows: &[Row]) -> Vec<Sample> {
    let sample = |(i, row): (usize, &Row)| {
        let path = folder.join(format!("{i}.json"));
        let result = json!({
            "rows": [{ "labels": {}, "values": { "request_throughput": row.throughput } }],
            "definitions": [
                { "name": "request_throughput", "unit": "requests/s", "formula": "completed / window" },
            ],
            "notes": [], "target": {}, "details": null,
        });
        std::fs::write(&path, result.to_string()).expect("a file");
        let (mode, alpha, rate) = (row.mode, row.alpha, row.rate);
        Sample {
            node: format!("load[mode={mode},alpha={alpha},rate={rate}]"),
            axes: vec![
                ("mode".to_owned(), AxisValue::Text(mode.to_owned())),
                ("alpha".to_owned(), AxisValue::Number(alpha)),
                ("rate".to_owned(), AxisValue::Number(rate)),
            ],
            index: 0,
            verdict: Verdict {
                grade: row.grade,
                reasons: Vec::new(),
            },
            drawn_at: 0,
            outputs: [("result".to_owned(), path)].into(),
        }
    };
    rows.iter().enumerate().map(sample).collect()
}

/// The table of such samples.
pub(super) fn points(rows: &[Row]) -> Points {
    let folder = tempfile::tempdir().expect("a folder");
    Points::read(&samples(folder.path(), rows), None).expect("sound samples")
}
