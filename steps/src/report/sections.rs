//! The sections of the page, each from the same samples.

use crate::breakdown::{self, Part};
use crate::files;
use crate::plot::most_believable;
use crate::result::{Definition, MeasuredFile, definition, stamp};
use charts::{Cell, Chart, Column, FileLink, Grade, Language, Section, Table, Tile, Tone, Verdict};
use engine::step::{self, Sample, StepContext, StepError};
use std::collections::BTreeSet;

/// Samples of one measurement with their results.
pub(super) struct Data {
    samples: Vec<(Sample, MeasuredFile)>,
    /// What each sample shows by model, turn and group, as far as it was taken apart.
    parts: Vec<Vec<Part>>,
}

impl Data {
    pub(super) fn read(samples: &[Sample]) -> Result<Self, StepError> {
        let read = |sample: &Sample| {
            let path = sample
                .outputs
                .get("result")
                .ok_or_else(|| StepError::new(format!("`{}` left no result", sample.node)))?;
            Ok((sample.clone(), files::read_json(path)?))
        };
        let parts = |sample: &Sample| {
            let path = sample.outputs.get("breakdown");
            path.map_or(Ok(Vec::new()), |path| breakdown::read(path))
        };
        Ok(Self {
            samples: samples.iter().map(read).collect::<Result<_, StepError>>()?,
            parts: samples
                .iter()
                .map(parts)
                .collect::<Result<_, StepError>>()?,
        })
    }

    /// The samples with their parts.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&Sample, &[Part])> {
        let samples = self.samples.iter().map(|(sample, _)| sample);
        samples.zip(self.parts.iter().map(Vec::as_slice))
    }

    /// The most believable sample of each load, and the first of those.
    pub(super) fn most_believable(&self) -> Vec<&Sample> {
        let samples: Vec<&Sample> = self.samples.iter().map(|(sample, _)| sample).collect();
        most_believable(&samples)
    }

    /// When the newest sample was drawn, seconds since 1970.
    pub(super) fn drawn(&self) -> Option<u64> {
        self.samples.iter().map(|(s, _)| s.drawn_at).max()
    }

    pub(super) fn name(&self) -> String {
        self.samples.first().map_or_else(String::new, |(s, _)| {
            s.node.split('[').next().unwrap_or("").to_owned()
        })
    }

    pub(super) fn axes(&self) -> Vec<String> {
        self.samples
            .first()
            .map(|(s, _)| s.axes.iter().map(|(name, _)| name.clone()).collect())
            .unwrap_or_default()
    }

    fn labels(&self) -> Vec<String> {
        let all: BTreeSet<&String> = self
            .samples
            .iter()
            .flat_map(|(_, f)| &f.rows)
            .flat_map(|r| r.labels.keys())
            .collect();
        all.into_iter().cloned().collect()
    }

    /// What stands beside all of it where samples were simulated; else empty.
    pub(super) fn stamp(&self) -> String {
        stamp(self.samples.iter().map(|(_, file)| file.simulated()))
    }

    /// What it is called in tables: its name, and that it was simulated.
    pub(super) fn caption(&self) -> String {
        match self.stamp() {
            stamp if stamp.is_empty() => self.name(),
            stamp => format!("{}: {stamp}", self.name()),
        }
    }

    pub(super) fn definitions(&self) -> &[Definition] {
        self.samples.first().map_or(&[], |(_, f)| &f.definitions)
    }

    fn has(&self, column: &str) -> bool {
        self.samples
            .iter()
            .flat_map(|(_, f)| &f.rows)
            .any(|r| r.values.contains_key(column))
    }
}

pub(super) fn default_columns() -> Vec<String> {
    [
        "offered_rate",
        "request_throughput",
        "output_throughput",
        "ttft_p50_ms",
        "ttft_p90_ms",
        "ttft_p99_ms",
        "tpot_p50_ms",
        "itl_p50_ms",
        "itl_p99_ms",
        "e2el_p50_ms",
        "concurrency_mean",
        "client_lag_p99_ms",
        "client_error_ttft_p50_ms",
        "client_error_ttft_p99_ms",
        "client_error_itl_p99_ms",
        "gpu_power_mean_w",
        "gpu_energy_per_output_token_j",
        "gpu_slowed_share",
        "highest_request_rate",
        "lowest_failing_request_rate",
        "highest_concurrency",
        "lowest_failing_concurrency",
        "trials",
        "passed",
        "completed",
        "failed",
        "step_ms",
        "tokens_per_s",
        "steps",
        "scheduling_ms",
        "sampling_ms",
    ]
    .map(str::to_owned)
    .to_vec()
}

pub(super) fn grade(grade: step::Grade) -> Grade {
    match grade {
        step::Grade::Valid => Grade::Valid,
        step::Grade::Degraded => Grade::Degraded,
        step::Grade::Invalid => Grade::Invalid,
    }
}

/// How far all of it can be believed, first of all.
pub(super) fn summary_section(data: &[Data]) -> Section {
    let samples: Vec<&Sample> = data
        .iter()
        .flat_map(|d| d.samples.iter().map(|(s, _)| s))
        .collect();
    let count = |g: step::Grade| samples.iter().filter(|s| s.verdict.grade == g).count();
    let (valid, degraded, invalid) = (
        count(step::Grade::Valid),
        count(step::Grade::Degraded),
        count(step::Grade::Invalid),
    );
    let tile = |label: &str, n: usize, tone: Tone| {
        let tile = Tile::new(label, n.to_string(), "samples");
        if n > 0 { tile.tone(tone) } else { tile }
    };
    let mut section = Section::new("Summary").tiles([
        tile("valid", valid, Tone::Good),
        tile("degraded", degraded, Tone::Warn),
        tile("invalid", invalid, Tone::Bad),
    ]);
    if degraded + invalid == 0 && valid > 0 {
        section = section.callout(
            Tone::Good,
            "Every sample is valid: nothing speaks against these numbers.",
        );
    }
    for data in data.iter().filter(|data| !data.stamp().is_empty()) {
        let said = format!(
            "{}. What is simulated was brought by no hardware.",
            data.caption()
        );
        section = section.callout(Tone::Warn, said);
    }
    for sample in samples
        .iter()
        .filter(|s| s.verdict.grade != step::Grade::Valid)
    {
        let mut verdict = Verdict::new(grade(sample.verdict.grade), subject(sample));
        for reason in &sample.verdict.reasons {
            verdict = verdict.reason(reason.clone());
        }
        section = section.verdict(verdict);
    }
    for (note, nodes) in notes(data) {
        section = section.callout(Tone::Note, format!("{}: {note}", nodes.join(", ")));
    }
    section
}

/// Remarks, each once, with the measurements that they are about.
fn notes(data: &[Data]) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for (sample, file) in data.iter().flat_map(|d| &d.samples) {
        for note in &file.notes {
            match found.iter_mut().find(|(n, _)| n == note) {
                Some((_, nodes)) if nodes.contains(&sample.node) => {}
                Some((_, nodes)) => nodes.push(sample.node.clone()),
                None => found.push((note.clone(), vec![sample.node.clone()])),
            }
        }
    }
    found
}

fn subject(sample: &Sample) -> String {
    format!("{}, sample {}", sample.node, sample.index + 1)
}

pub(super) fn charts_section(charts: Vec<Chart>) -> Section {
    let links: Vec<FileLink> = (1..=charts.len())
        .flat_map(|i| {
            ["svg", "png"].map(|kind| {
                FileLink::new(
                    format!("charts/{i:02}.{kind}"),
                    format!("chart {i} as {}", kind.to_uppercase()),
                )
            })
        })
        .collect();
    let section = charts
        .into_iter()
        .fold(Section::new("Charts"), Section::chart);
    if links.is_empty() {
        section.paragraph("This plan draws no charts.")
    } else {
        section.files(links)
    }
}

/// One table per measurement: a row per sample and per row of its result.
pub(super) fn results_section(data: &[Data], columns: &[String]) -> Section {
    data.iter().fold(Section::new("Results"), |section, data| {
        section.table(table(data, columns))
    })
}

fn table(data: &Data, wanted: &[String]) -> Table {
    let (axes, labels) = (data.axes(), data.labels());
    let shown: Vec<&String> = wanted.iter().filter(|c| data.has(c)).collect();
    let mut columns: Vec<Column> = axes.iter().map(|a| Column::number(a.clone(), "")).collect();
    columns.extend(labels.iter().map(Column::text));
    let is_stamped = !data.stamp().is_empty();
    columns.extend(is_stamped.then(|| Column::text("simulated")));
    columns.push(Column::number("sample", ""));
    columns.push(Column::text("verdict"));
    for name in &shown {
        let found = definition(data.definitions(), name);
        let unit = found.map_or("", |d| d.unit.as_str());
        columns.push(
            Column::number((*name).clone(), unit)
                .definition(found.map_or("", |d| d.formula.as_str())),
        );
    }
    let mut table = Table::new(columns).caption(data.caption());
    for (sample, file) in &data.samples {
        for row in &file.rows {
            let mut cells: Vec<Cell> = sample.axes.iter().map(|(_, v)| axis_cell(v)).collect();
            cells.extend(
                labels
                    .iter()
                    .map(|l| Cell::text(row.labels.get(l).cloned().unwrap_or_default())),
            );
            let how = file.simulated().unwrap_or("–");
            cells.extend(is_stamped.then(|| Cell::text(how)));
            cells.push(Cell::number(f64::from(sample.index + 1)));
            cells.push(
                Cell::grade(grade(sample.verdict.grade)).hint(sample.verdict.reasons.join("; ")),
            );
            cells.extend(
                shown
                    .iter()
                    .map(|c| row.value(c).map_or_else(|| Cell::text("–"), Cell::number)),
            );
            table = table.row(cells);
        }
    }
    table
}

pub(super) fn axis_cell(value: &step::AxisValue) -> Cell {
    match value {
        step::AxisValue::Number(n) => Cell::number(*n),
        other => Cell::text(other.to_string()),
    }
}

pub(super) fn definitions_section(data: &[Data]) -> Section {
    let mut seen: Vec<&Definition> = Vec::new();
    for new in data.iter().flat_map(|d| d.definitions()) {
        if !seen.iter().any(|d| d.name == new.name) {
            seen.push(new);
        }
    }
    let definitions = seen.into_iter().map(|d| charts::Definition {
        name: d.name.clone(),
        unit: d.unit.clone(),
        formula: d.formula.clone(),
    });
    Section::new("Definitions")
        .paragraph("Every number is computed from the raw instants of the requests by the formula beside its name. A failed request counts as an infinite latency, so that overload never looks like improvement.")
        .definitions(definitions)
}

pub(super) fn environment_section(context: &StepContext, data: &[Data]) -> Section {
    let identity = context
        .environment
        .identity
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()));
    let mut section = Section::new("Environment")
        .paragraph("Samples stand side by side only if all of this is equal.")
        .key_values(identity);
    let targets: Vec<&MeasuredFile> = data
        .iter()
        .flat_map(|d| &d.samples)
        .map(|(_, f)| f)
        .filter(|f| !f.target.is_empty())
        .collect();
    if let Some(file) = targets.first() {
        section = section
            .paragraph("What the server said of itself:")
            .key_values(file.target.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    section
}

pub(super) fn plan_section(context: &StepContext) -> Section {
    let plan = &context.plan;
    let params = plan.params.iter().map(|(name, value, set)| {
        (
            name.clone(),
            if *set {
                format!("{value} (set for this run)")
            } else {
                value.clone()
            },
        )
    });
    let section = Section::new("Plan").key_values(params);
    plan.sources.iter().fold(section, |section, (path, text)| {
        let name = path
            .file_name()
            .map_or_else(|| "plan".to_owned(), |n| n.to_string_lossy().into_owned());
        section.code(name, Language::Toml, text.clone())
    })
}

/// Writes seconds since 1970 as `2026-11-22 05:45 UTC`.
pub(super) fn date(seconds: u64) -> String {
    let text = engine::run::folder::timestamp(seconds);
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or("");
    format!(
        "{}-{}-{} {}:{} UTC",
        part(0..4),
        part(4..6),
        part(6..8),
        part(9..11),
        part(11..13)
    )
}
