//! `report.page`: one page that shows what was measured and how far it can be believed.

mod during;
mod parts;
mod sections;

use crate::files;
use crate::kinds::{Chart as ChartKind, Measured};
use charts::{Chart, Page};
use during::during_section;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Artifact, Samples};
use parts::parts_section;
use sections::{
    Data, charts_section, definitions_section, environment_section, plan_section, results_section,
    summary_section,
};

engine::options! {
    /// Options of `report.page`.
    pub struct ReportPage {
        /// The title; the plan's name if absent.
        title: Option<String>;
        /// Charts in reading order.
        charts: Vec<Artifact<ChartKind>> = Vec::new();
        /// Samples whose values and verdicts are listed.
        data: Vec<Samples<Measured>> = Vec::new();
        /// Values that the tables show, in order; those that a measurement lacks are left out.
        columns: Vec<String> = sections::default_columns();
    }
}

impl StepType for ReportPage {
    const NAME: &'static str = "report.page";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Writes one self-contained HTML page: charts, tables, definitions, verdicts, environment, plan.";
    const READS_PLAN: bool = true;

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "page",
            file: "page",
            kind: "page",
            doc: "`report.html`, which needs no network, and its charts as SVG and PNG in `charts/`.",
        }]
    }
}

#[async_trait::async_trait]
impl Step for ReportPage {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let folder = context.output("page");
        files::create_dir(&folder.join("charts"))?;
        let charts = self.take_charts(context)?;
        let data = self
            .data
            .iter()
            .map(|d| Data::read(&context.samples(d)))
            .collect::<Result<Vec<_>, _>>()?;
        let title = self
            .title
            .clone()
            .unwrap_or_else(|| context.plan.name.clone());
        let page = Page::new(title)
            .subtitle(context.plan.description.clone())
            .section(summary_section(&data))
            .section(charts_section(charts))
            .section(results_section(&data, &self.columns));
        let page = during_section(&data)?.into_iter().fold(page, Page::section);
        let page = parts_section(&data).into_iter().fold(page, Page::section);
        let page = page
            .section(definitions_section(&data))
            .section(environment_section(context, &data))
            .section(plan_section(context));
        let page = match data.iter().filter_map(Data::drawn).max() {
            Some(newest) => page.generated(format!("Last measured {}", sections::date(newest))),
            None => page,
        };
        let html = page.to_html();
        files::write(&folder.join("report.html"), &html)?;
        Ok(StepReport::line(format!(
            "{} KiB of HTML",
            html.len() / 1024
        )))
    }
}

impl ReportPage {
    /// Reads the charts and copies their static forms beside the page.
    fn take_charts(&self, context: &StepContext) -> Result<Vec<Chart>, StepError> {
        let mut charts = Vec::new();
        for (i, artifact) in self.charts.iter().enumerate() {
            let from = context.path(artifact)?;
            for (name, extension) in [("chart", "svg"), ("chart-dark", "svg"), ("chart", "png")] {
                let suffix = name.strip_prefix("chart").unwrap_or("");
                let to = context
                    .output("page")
                    .join("charts")
                    .join(format!("{:02}{suffix}.{extension}", i + 1));
                files::copy(&from.join(format!("{name}.{extension}")), &to)?;
            }
            charts.push(files::read_json(&from.join("chart.json"))?);
        }
        Ok(charts)
    }
}
