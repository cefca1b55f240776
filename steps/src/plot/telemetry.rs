//! `plot.telemetry`: a load over time, as its client, its server and GPUs have it.

use super::during::{chart, csv, said};
use super::timeline::{check_loads, choose, doubts, headed, subtitle};
use super::{OUTPUT, write_chart};
use crate::files;
use crate::kinds::Measured;
use crate::load::telemetry::{self, Telemetry};
use crate::result::MeasuredFile;
use charts::{Chart, Panels, TimelineChart};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{
    OutputSpec, Sample, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Json, Samples};
use engine::value::Table;
use std::collections::BTreeSet;

engine::options! {
    /// Options of `plot.telemetry`.
    pub struct PlotTelemetry {
        /// The samples. Of each load the most believable sample is drawn, and the first of those; up to
        /// four loads stand side by side.
        data: Samples<Measured>;
        /// Which loads are drawn, where `data` has more: values of their axes, such as
        /// `{ mode = "swap", request_rate = 8 }`.
        at: Json = Json::default();
        /// The title; `Client, server and GPUs over time` if absent.
        title: Option<String>;
    }
}

impl StepType for PlotTelemetry {
    const NAME: &'static str = "plot.telemetry";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Draws a load over time: the client's requests and tokens beside the server's own counts, its cache, and GPUs.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        check_loads(self.data.nodes.len(), &self.at, (table, place), parser);
    }
}

#[async_trait::async_trait]
impl Step for PlotTelemetry {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let samples = context.samples(&self.data);
        let chosen = choose(&samples, &self.at)?;
        let read: Vec<(&Sample, Telemetry)> = chosen
            .into_iter()
            .map(|sample| Ok((sample, read(sample)?)))
            .collect::<Result<_, StepError>>()?;
        let loads: Vec<(&Sample, &Telemetry)> = read.iter().map(|(s, t)| (*s, t)).collect();
        let heading = self.title.clone();
        let heading = heading.unwrap_or_else(|| "Client, server and GPUs over time".to_owned());
        let told: Vec<(&str, &Telemetry)> =
            loads.iter().map(|(s, t)| (s.node.as_str(), *t)).collect();
        write_chart(context, &together(heading, &loads)?, &csv(&told)?)?;
        let readings: usize = told.iter().map(|(_, t)| t.scrapes.len()).sum();
        let loads = loads.len();
        Ok(StepReport::line(format!(
            "{loads} loads, {readings} readings"
        )))
    }
}

/// Reads the series of a sample; a load during which nothing was read is an error.
fn read(sample: &Sample) -> Result<Telemetry, StepError> {
    let telemetry = of(sample)?;
    if telemetry.scrapes.is_empty() && telemetry.gpus.is_empty() {
        let message = format!("during `{}` nothing was read of its server", sample.node);
        return Err(StepError::new(message).help(
            "draw a `load.test` on a server that tells metrics, or on a machine with GPUs, and with `telemetry` as it is by itself",
        ));
    }
    Ok(telemetry)
}

/// The series of a sample; nothing where it has none.
pub(crate) fn of(sample: &Sample) -> Result<Telemetry, StepError> {
    let (Some(result), Some(folder)) = (
        sample.outputs.get("result"),
        sample.outputs.get("telemetry"),
    ) else {
        return Ok(Telemetry::default());
    };
    let result: MeasuredFile = files::read_json(result)?;
    telemetry::read(folder, telemetry::how(&result))
}

/// One chart of up to four loads.
pub(crate) fn together(
    heading: String,
    loads: &[(&Sample, &Telemetry)],
) -> Result<Chart, StepError> {
    let how = loads
        .iter()
        .filter_map(|(_, telemetry)| telemetry.how.as_ref());
    let said: BTreeSet<String> = how.map(said).collect();
    let said = said.into_iter().collect::<Vec<_>>().join(" ");
    if let [(sample, telemetry)] = loads {
        return Ok(one(heading, sample, telemetry)?.note(said).into());
    }
    let samples: Vec<&Sample> = loads.iter().map(|(sample, _)| *sample).collect();
    let headings = headed(&samples).into_iter();
    let mut panels = Panels::new(heading).subtitle(said);
    for (heading, (sample, telemetry)) in headings.zip(loads) {
        panels = panels.panel(one(heading, sample, telemetry)?);
    }
    Ok(panels.into())
}

fn one(
    heading: String,
    sample: &Sample,
    telemetry: &Telemetry,
) -> Result<TimelineChart, StepError> {
    let chart = chart(heading, telemetry).ok_or_else(|| StepError::new("nothing was read"))?;
    let chart = chart.subtitle(subtitle(sample)?);
    Ok(doubts(sample).into_iter().fold(chart, TimelineChart::note))
}
