//! `plot.roofline`: what devices allow over the arithmetic intensity, with batches on it.

use super::{OUTPUT, write_chart};
use crate::analyze::Roof;
use crate::files;
use crate::kinds::Measured;
use crate::result::{MeasuredFile, Row, stamp};
use charts::{Axis, Chart, LineChart, Reading, Series};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::Artifact;
use engine::value::Table;
use std::collections::BTreeMap;

/// How far beyond the batches a roof is drawn, as a factor.
const MARGIN: f64 = 2.0;

engine::options! {
    /// Options of `plot.roofline`.
    pub struct PlotRoofline {
        /// Results of `analyze.cost`.
        data: Vec<Artifact<Measured>>;
        /// The title; made from the devices if absent.
        title: Option<String>;
    }
}

impl StepType for PlotRoofline {
    const NAME: &'static str = "plot.roofline";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Draws the rooflines of devices, and batches by their arithmetic intensity.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        if self.data.is_empty() {
            let place = table.get("data").map_or(place, |v| &v.place);
            let help = "name results of `analyze.cost`: `[\"${steps.NAME.result}\"]`";
            parser.wrong::<()>(place, "there is nothing to draw", "an empty list", help);
        }
    }
}

#[async_trait::async_trait]
impl Step for PlotRoofline {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let read = |data: &Artifact<Measured>| -> Result<MeasuredFile, StepError> {
            files::read_json(&context.path(data)?)
        };
        let results: Vec<MeasuredFile> = self
            .data
            .iter()
            .map(read)
            .collect::<Result<_, StepError>>()?;
        let drawn = Drawn::of(&results)?;
        let chart = drawn.chart(self.title.clone());
        write_chart(context, &chart, &drawn.csv())?;
        let n_measured = drawn.batches.iter().filter(|b| b.is_measured).count();
        let n = drawn.batches.len();
        Ok(StepReport::line(format!(
            "{n} batches, {n_measured} measured"
        )))
    }
}

/// A batch on the chart.
#[derive(Debug, Clone, PartialEq)]
struct Batch {
    device: String,
    phase: String,
    batch: f64,
    length: f64,
    /// Operations per byte.
    intensity: f64,
    /// Operations per second of one device: attained, or else what its classes of work allow.
    flops_per_s: f64,
    is_measured: bool,
}

/// What is drawn.
#[derive(Debug)]
struct Drawn {
    roofs: Vec<Roof>,
    batches: Vec<Batch>,
    stamp: String,
}

impl Drawn {
    fn of(results: &[MeasuredFile]) -> Result<Self, StepError> {
        let mut drawn = Drawn {
            roofs: Vec::new(),
            batches: Vec::new(),
            stamp: stamp(results.iter().map(MeasuredFile::simulated)),
        };
        for result in results {
            let roof = result.details.get("roof").cloned().unwrap_or_default();
            let roof: Roof = serde_json::from_value(roof).map_err(|_| {
                StepError::new("a result of `data` has no roof to draw")
                    .help("give results of `analyze.cost`: `${steps.NAME.result}`")
            })?;
            drawn.batches.extend(result.rows.iter().filter_map(batch));
            if !drawn.roofs.contains(&roof) {
                drawn.roofs.push(roof);
            }
        }
        match drawn.batches.is_empty() {
            true => Err(StepError::new("the results of `data` have no batches")),
            false => Ok(drawn),
        }
    }

    fn chart(&self, title: Option<String>) -> Chart {
        let names: Vec<&str> = self.roofs.iter().map(|roof| roof.device.as_str()).collect();
        let title = title.unwrap_or_else(|| format!("Roofline of {}", names.join(", ")));
        let x = Axis::new("arithmetic intensity", "FLOP/byte").log();
        let y = Axis::new("rate of one device", "TFLOPS").log();
        let mut chart = LineChart::new(title, x, y).subtitle(&self.stamp);
        let (low, high) = self.span();
        for roof in &self.roofs {
            let ridge = roof.flops_per_s / roof.bytes_per_s;
            let mut series = Series::new(format!("{} allows", roof.device));
            for at in [low, ridge, high.max(ridge * MARGIN)] {
                let allowed = (at * roof.bytes_per_s).min(roof.flops_per_s);
                series = series.point(at, allowed / 1e12);
            }
            chart = chart.series(series);
        }
        for (name, batches) in self.series() {
            let mut series = Series::new(name);
            for batch in batches {
                let told = format!("batch {}, length {}", batch.batch, batch.length);
                let reading = Reading::new(batch.flops_per_s / 1e12).note(told);
                series = series.point(batch.intensity, reading);
            }
            chart = chart.series(series);
        }
        if self.batches.iter().any(|batch| !batch.is_measured) {
            chart = chart.note(
                "Batches without a time stand where their classes of work, one after the other, are allowed to be.",
            );
        }
        for roof in &self.roofs {
            chart = chart.note(format!("{}: {}.", roof.device, roof.source));
        }
        chart.into()
    }

    /// From the least to the largest intensity, with some room.
    fn span(&self) -> (f64, f64) {
        let intensities = self.batches.iter().map(|batch| batch.intensity);
        let (low, high) = intensities.fold((f64::INFINITY, 0.0_f64), |(low, high), at| {
            (low.min(at), high.max(at))
        });
        let ridges = self.roofs.iter().map(|r| r.flops_per_s / r.bytes_per_s);
        (ridges.fold(low, f64::min) / MARGIN, high * MARGIN)
    }

    /// Batches by what they have in common, ordered by intensity.
    fn series(&self) -> BTreeMap<String, Vec<&Batch>> {
        let mut series: BTreeMap<String, Vec<&Batch>> = BTreeMap::new();
        for batch in &self.batches {
            let mut name = batch.phase.clone();
            if self.roofs.len() > 1 {
                name = format!("{name}, {}", batch.device);
            }
            if !batch.is_measured {
                name.push_str(", allowed");
            }
            series.entry(name).or_default().push(batch);
        }
        for batches in series.values_mut() {
            batches.sort_by(|a, b| a.intensity.total_cmp(&b.intensity));
        }
        series
    }

    fn csv(&self) -> String {
        let mut csv = "device,phase,batch,length,flop_per_byte,tflops,measured\n".to_owned();
        for b in &self.batches {
            let device = b.device.replace(['"', '\n'], " ");
            let tera = b.flops_per_s / 1e12;
            csv.push_str(&format!(
                "\"{device}\",{},{},{},{},{tera},{}\n",
                b.phase, b.batch, b.length, b.intensity, b.is_measured
            ));
        }
        csv
    }
}

/// The batch of a row; `None` for rows by the suite's formula, which know no bytes.
fn batch(row: &Row) -> Option<Batch> {
    let intensity = row.value("intensity")?;
    let flops = row.value("rank_flops")?;
    let measured = row.value("time_ms");
    let ms = measured.or_else(|| row.value("class_bound_ms"))?;
    let label = |name: &str| row.labels.get(name).cloned().unwrap_or_default();
    Some(Batch {
        device: label("device"),
        phase: label("phase"),
        batch: row.value("batch")?,
        length: row.value("length")?,
        intensity,
        flops_per_s: flops / (ms / 1e3),
        is_measured: measured.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(device: &str, time: Option<f64>) -> MeasuredFile {
        let mut row = Row::default();
        for (name, value) in [("phase", "decode"), ("device", device)] {
            row.labels.insert(name.to_owned(), value.to_owned());
        }
        let values = [
            ("batch", 4.0),
            ("length", 128.0),
            ("intensity", 10.0),
            ("rank_flops", 5e9),
            ("class_bound_ms", 1.0),
        ];
        for (name, value) in values {
            row.set(name, value);
        }
        if let Some(time) = time {
            row.set("time_ms", time);
        }
        let suite = Row {
            values: [("flops".to_owned(), Some(1.0))].into(),
            ..Row::default()
        };
        MeasuredFile {
            rows: vec![row, suite],
            definitions: Vec::new(),
            notes: Vec::new(),
            target: BTreeMap::new(),
            details: json!({ "roof": {
                "device": device, "source": "a sheet", "flops_per_s": 100e12,
                "other_flops_per_s": 100e12, "bytes_per_s": 1e12, "precisions": ["bf16", "bf16"],
            } }),
        }
    }

    fn line(chart: Chart) -> LineChart {
        match chart {
            Chart::Line(chart) => chart,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn batches_stand_where_they_were_measured_under_the_roof() {
        let drawn = Drawn::of(&[result("one", Some(2.0))]).expect("drawn");
        let chart = line(drawn.chart(None));
        assert_eq!(chart.title, "Roofline of one");
        let [roof, batches] = chart.series.as_slice() else {
            panic!("{:?}", chart.series)
        };
        // Half of the batch's intensity, the ridge at 100, and beyond it.
        let points: Vec<(f64, Option<f64>)> =
            roof.points.iter().map(|p| (p.x, p.y.value)).collect();
        let expected = [(5.0, Some(5.0)), (100.0, Some(100.0)), (200.0, Some(100.0))];
        assert_eq!(points, expected);
        assert_eq!(batches.name, "decode");
        assert_eq!(
            (batches.points[0].x, batches.points[0].y.value),
            (10.0, Some(2.5))
        );
    }

    #[test]
    fn batches_without_a_time_say_that_they_are_only_allowed() {
        let results = [result("one", None), result("two", Some(2.0))];
        let chart = line(Drawn::of(&results).expect("drawn").chart(None));
        let names: Vec<&str> = chart.series.iter().map(|s| s.name.as_str()).collect();
        let expected = [
            "one allows",
            "two allows",
            "decode, one, allowed",
            "decode, two",
        ];
        assert_eq!(names, expected);
        assert!(chart.notes[0].starts_with("Batches without a time"));
    }

    #[test]
    fn other_results_have_no_roof() {
        let mut other = result("one", None);
        other.details = serde_json::Value::Null;
        let told = Drawn::of(&[other]).expect_err("no roof");
        assert_eq!(told.message, "a result of `data` has no roof to draw");
    }
}
