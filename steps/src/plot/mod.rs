//! Charts from samples: `plot.lines`, `plot.bars`, `plot.ecdf`, `plot.heatmap`, `plot.timeline` and `plot.telemetry`;
//! and `plot.roofline` from results of `analyze.cost`.

mod bars;
mod ecdf;
mod heatmap;
mod lines;
mod roofline;
mod telemetry;
mod timeline;

mod data;
mod during;
mod moments;
mod points;
mod relative;

#[cfg(test)]
mod made_up;

pub(crate) use bars::PlotBars;
pub(crate) use ecdf::PlotEcdf;
pub(crate) use heatmap::PlotHeatmap;
pub(crate) use lines::PlotLines;
pub(crate) use points::believed;
pub(crate) use roofline::PlotRoofline;
pub(crate) use telemetry::{PlotTelemetry, of as telemetry_of, together as telemetry_chart};
pub(crate) use timeline::{MOST as LOADS, PlotTimeline, most_believable};

use crate::files;
use charts::{Chart, Theme};
use engine::step::{OutputSpec, StepContext, StepError};

/// Pixels of the PNG per unit of the drawing.
const PNG_SCALE: f32 = 2.0;

const OUTPUT: &[OutputSpec] = &[OutputSpec {
    name: "chart",
    file: "chart",
    kind: "chart",
    doc: "The chart as data (`chart.json`), SVG and PNG, and its points as CSV.",
}];

/// Writes a chart in all its forms into the step's folder `chart`.
pub(crate) fn write_chart(
    context: &StepContext,
    chart: &Chart,
    csv: &str,
) -> Result<(), StepError> {
    let folder = context.output("chart");
    files::create_dir(&folder)?;
    files::write_json(&folder.join("chart.json"), chart)?;
    files::write(&folder.join("chart.svg"), chart.to_svg(Theme::Light))?;
    files::write(&folder.join("chart-dark.svg"), chart.to_svg(Theme::Dark))?;
    let png = chart
        .to_png(PNG_SCALE)
        .map_err(|e| StepError::because("could not draw the PNG", e))?;
    files::write(&folder.join("chart.png"), png)?;
    files::write(&folder.join("points.csv"), csv)
}
