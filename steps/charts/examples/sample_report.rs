//! Writes a sample report with every kind of block and chart, and each chart as SVG, PNG and
//! JSON, into the folder given as its only argument.
//!
//! The numbers are made up; they show how gaps, grades and intervals are drawn.

use std::path::{Path, PathBuf};

use charts::{
    Axis, BarChart, Cell, Chart, Column, Definition, FileLink, Grade, HeatmapChart, Language,
    LineChart, Page, Panels, Reading, Section, Series, Span, SpanFill, Table, Theme, Tile,
    TimelineChart, TimelineRow, Tone, Verdict,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args()
        .nth(1)
        .ok_or("expected a folder as the only argument")?;
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("report.html"), page().to_html())?;
    for (i, chart) in charts().iter().enumerate() {
        write_chart(&folder, &format!("chart-{}", i + 1), chart)?;
    }
    Ok(())
}

fn write_chart(folder: &Path, name: &str, chart: &Chart) -> Result<(), Box<dyn std::error::Error>> {
    let path = |kind: &str| folder.join(format!("{name}{kind}"));
    std::fs::write(path(".svg"), chart.to_svg(Theme::Light))?;
    std::fs::write(path(".png"), chart.to_png(2.0)?)?;
    std::fs::write(path("-dark.png"), chart.to_png_themed(Theme::Dark, 2.0)?)?;
    std::fs::write(path(".json"), serde_json::to_vec_pretty(chart)?)?;
    Ok(())
}

/// Every kind of chart.
pub(crate) fn charts() -> Vec<Chart> {
    vec![
        latency().into(),
        throughput().into(),
        phases().into(),
        backends().into(),
        Panels::new("Inter-token latency by backend")
            .subtitle("the same load, three backends, 5 server launches each")
            .panel(itl("median", 1.0))
            .panel(itl("p99", 4.2))
            .into(),
        gain().into(),
        completed().into(),
        relative(),
        moves().into(),
    ]
}

fn latency() -> LineChart {
    let on = Series::new("radix cache on")
        .point(1.0, Reading::new(21.0).interval(19.5, 23.1).samples(5))
        .point(2.0, Reading::new(24.4).interval(22.0, 27.0).samples(5))
        .point(4.0, Reading::new(33.0).interval(29.0, 38.5).samples(5))
        .point(
            8.0,
            degraded(71.0, "client lag reached 4.1 ms")
                .interval(55.0, 96.0)
                .samples(4),
        )
        .point(
            16.0,
            invalid(310.0, "offered 16/s, achieved 11.2/s").samples(3),
        )
        .point(
            f64::INFINITY,
            Reading::new(2200.0).interval(1900.0, 2600.0).samples(5),
        );
    let off = Series::new("radix cache off")
        .point(1.0, Reading::new(39.0).interval(36.0, 42.0).samples(5))
        .point(2.0, Reading::new(47.5).interval(44.0, 52.0).samples(5))
        .point(4.0, Reading::new(88.0).interval(70.0, 120.0).samples(5))
        .point(
            8.0,
            invalid(f64::INFINITY, "2.3% of requests failed").samples(5),
        )
        .point(16.0, Reading::missing("server did not become ready"))
        .point(
            f64::INFINITY,
            invalid(f64::INFINITY, "31% of requests failed").samples(5),
        );
    LineChart::new(
        "p99 time to first token against request rate",
        Axis::new("request rate", "1/s").log(),
        Axis::new("p99 TTFT", "ms").log(),
    )
    .subtitle("Qwen2.5-0.5B, 2 layers, ShareGPT prompts; whiskers are 95% intervals over launches")
    .series(on)
    .series(off)
    .note("A failed request counts as infinitely slow. ∞ is the rate at which all requests are sent at once.")
}

fn degraded(value: f64, why: &str) -> Reading {
    Reading::new(value).grade(Grade::Degraded).note(why)
}

fn invalid(value: f64, why: &str) -> Reading {
    Reading::new(value).grade(Grade::Invalid).note(why)
}

fn throughput() -> LineChart {
    let names = ["flashinfer", "fa3", "triton", "torch native"];
    let mut chart = LineChart::new(
        "Output throughput against concurrency",
        Axis::new("concurrency", "requests"),
        Axis::new("output throughput", "tokens/s"),
    )
    .bands();
    for (i, name) in names.into_iter().enumerate() {
        let series = (0..9).fold(Series::new(name), |series, step| {
            let users = f64::from(step * 8).max(1.0);
            let value = 9000.0 * users / (users + 18.0 + 9.0 * i as f64) * (1.0 - 0.08 * i as f64);
            let spread = value * 0.04;
            let reading = Reading::new(value)
                .interval(value - spread, value + spread)
                .samples(3);
            series.point(users, reading)
        });
        chart = chart.series(series);
    }
    chart
}

fn phases() -> BarChart {
    let rates = ["1/s", "2/s", "4/s", "8/s", "16/s"];
    BarChart::new(
        "Where the time goes",
        Axis::new("mean time per request", "ms"),
        rates,
    )
    .subtitle("mean end-to-end latency, split")
    .category_label("request rate")
    .series("queue", [0.4, 0.9, 3.0, 22.0, 140.0])
    .series("prefill", [18.0, 19.0, 21.0, 30.0, 44.0])
    .series(
        "decode",
        [Some(210.0), Some(214.0), Some(230.0), Some(270.0), None],
    )
    .stacked()
}

fn backends() -> BarChart {
    let names = [
        "flashinfer",
        "flashattention 3",
        "triton",
        "torch native (reference)",
    ];
    let before = [410.0, 432.0, 388.0, 120.0].map(|v| Reading::new(v).interval(v - 18.0, v + 18.0));
    let after = [
        Reading::new(455.0).interval(441.0, 470.0),
        degraded(447.0, "thermal throttling").interval(410.0, 480.0),
        invalid(391.0, "another process used the GPU"),
        invalid(f64::INFINITY, "every request failed"),
    ];
    BarChart::new(
        "Goodput by attention backend",
        Axis::new("goodput", "requests/s"),
        names,
    )
    .series("before", before)
    .series("after", after)
    .horizontal()
}

fn itl(what: &str, factor: f64) -> LineChart {
    let curve = |slope: f64| {
        (1..=6).map(move |n| (f64::from(n * 4), factor * (6.0 + slope * f64::from(n))))
    };
    let series =
        |name: &str, slope| curve(slope).fold(Series::new(name), |s, (x, y)| s.point(x, y));
    LineChart::new(
        format!("{what} inter-token latency"),
        Axis::new("concurrency", "requests"),
        Axis::new(format!("{what} ITL"), "ms"),
    )
    .series(series("flashinfer", 0.6))
    .series(series("fa3", 0.5))
    .series(series("triton", 1.1))
}

/// Request rates and degrees of skew of the heatmaps.
const RATES: [f64; 5] = [2.0, 4.0, 8.0, 16.0, 32.0];
const ALPHAS: [f64; 4] = [2.0, 1.0, 0.5, 0.0];

/// Requests per second that are completed when models swap and when they share the device.
fn throughputs(alpha: f64, rate: f64) -> (f64, f64) {
    let swapped = rate.min(6.0 + 9.0 * alpha);
    let shared = rate.min(14.0 - 1.5 * alpha);
    (swapped, shared)
}

fn gain() -> HeatmapChart {
    let cell = |alpha: f64, rate: f64| {
        let (swapped, shared) = throughputs(alpha, rate);
        let reading = Reading::new((swapped - shared) / rate).samples(3);
        match (alpha, rate) {
            (2.0, 32.0) => reading
                .grade(Grade::Degraded)
                .note("client lag reached 4.1 ms"),
            (0.5, 32.0) => reading
                .grade(Grade::Invalid)
                .note("2.3% of requests failed"),
            (0.0, 16.0 | 32.0) => Reading::missing("no `single` was measured there"),
            _ => reading,
        }
    };
    let chart = HeatmapChart::new(
        "Completed requests: swapping against collocation",
        Axis::new("request throughput, swap − collocate", "× single"),
        RATES.map(|rate| rate.to_string()),
    )
    .subtitle("three models on one device; alpha is the skew of their popularity")
    .labels("request rate (requests/s)", "alpha")
    .diverging("more with collocate", "more with swap");
    ALPHAS.iter().fold(chart, |chart, alpha| {
        chart.row(alpha.to_string(), RATES.map(|rate| cell(*alpha, rate)))
    })
}

fn completed() -> HeatmapChart {
    let chart = HeatmapChart::new(
        "Completed requests with swapping",
        Axis::new("request throughput", "requests/s"),
        RATES.map(|rate| rate.to_string()),
    )
    .labels("request rate (requests/s)", "alpha");
    ALPHAS.iter().fold(chart, |chart, alpha| {
        chart.row(
            alpha.to_string(),
            RATES.map(|rate| throughputs(*alpha, rate).0),
        )
    })
}

fn relative() -> Chart {
    let panel = |alpha: f64| {
        let series = |name: &str, ink: usize, of: fn((f64, f64)) -> f64| {
            RATES
                .iter()
                .fold(Series::new(name).ink(ink), |series, rate| {
                    let share = of(throughputs(alpha, *rate)) / rate;
                    let reading = Reading::new(share).interval(share * 0.96, share * 1.03);
                    series.point(*rate, reading.samples(3))
                })
        };
        LineChart::new(
            format!("alpha {alpha}"),
            Axis::new("request rate", "requests/s").log(),
            Axis::new("request throughput", "× single"),
        )
        .series(series("collocate", 0, |(_, shared)| shared))
        .series(series("swap", 2, |(swapped, _)| swapped))
        .reference(1.0, "single")
    };
    let panels =
        Panels::new("Request throughput, relative to a device for each model").same_scales();
    ALPHAS
        .iter()
        .rev()
        .fold(panels, |panels, alpha| panels.panel(panel(*alpha)))
        .into()
}

/// Models of the timeline; who has the device until when, and how long each move takes.
const MODELS: [&str; 3] = ["qwen2.5-7b", "llama-3.1-8b", "mistral-7b"];
const TURNS: [(usize, f64); 5] = [(0, 14.0), (1, 27.0), (0, 38.0), (2, 52.0), (1, 60.0)];
const MOVE: f64 = 1.6;

/// Whether a model has the device.
fn is_on(model: usize, at: f64) -> bool {
    let turn = TURNS.iter().find(|(_, end)| at <= *end);
    turn.is_some_and(|(owner, _)| *owner == model)
}

fn row(label: &str, unit: &str, value: impl Fn(usize, f64) -> f64) -> TimelineRow {
    let times: Vec<f64> = (0..=240).map(|i| f64::from(i) * 0.25).collect();
    let of = |model| times.iter().map(|at| Some(value(model, *at))).collect();
    let values = (0..MODELS.len()).map(of).collect();
    TimelineRow::new(Axis::new(label, unit), times, values)
}

fn spans() -> impl Iterator<Item = Span> {
    let span = |series: usize, from: f64, label: &str, fill, reason: &str| Span {
        series,
        from,
        to: from + MOVE,
        label: label.to_owned(),
        fill,
        details: vec![
            format!("reason: {reason}"),
            "15.2 GiB of weights".to_owned(),
        ],
    };
    TURNS.windows(2).flat_map(move |turns| {
        let ((before, end), (after, _)) = (turns[0], turns[1]);
        [
            span(before, end - MOVE, "out", SpanFill::Hollow, "victim"),
            span(after, end, "in", SpanFill::Solid, "queue"),
        ]
    })
}

fn moves() -> TimelineChart {
    let when_on = |value: f64, model, at| if is_on(model, at) { value } else { 0.0 };
    let running =
        |model: usize, at: f64| when_on((8.0 + 5.0 * (at * 0.7).sin()).round(), model, at);
    let memory = |model: usize, at: f64| when_on(15.2 + 50.0, model, at);
    let arrivals = |model: usize, at: f64| {
        let share = [3.0, 2.0, 1.0][model];
        share + (at * (0.3 + 0.1 * share)).sin() * 0.6 * share
    };
    let memory = row("device memory", "GiB", memory).stacked();
    TimelineChart::new("What the models did", Axis::new("time", "s"), MODELS)
        .subtitle("load[mode=swap,alpha=1,request_rate=8], sample 1")
        .row(row("running requests", "", running))
        .row(memory.reference(79.1, "device: 79.1 GiB"))
        .row(row("arrivals", "requests/s", arrivals))
        .spans("moves", spans())
        .note("Device memory is that of weights and cache pools, one model's on the other's.")
}

/// A report with every kind of block.
pub(crate) fn page() -> Page {
    let mut charts = charts().into_iter();
    let results = charts.by_ref().take(2).fold(results(), Section::chart);
    let breakdown = charts.fold(Section::new("Breakdown"), Section::chart);
    Page::new("Online serving")
        .subtitle("Latency and throughput against request rate, 2 of 24 layers, ShareGPT prompts")
        .generated("2025-11-22 05:30 UTC")
        .section(summary())
        .section(results)
        .section(breakdown)
        .section(method())
}

fn summary() -> Section {
    Section::new("Summary")
        .tiles([
            Tile::new("p99 TTFT at 4/s", "33.0", "ms")
                .detail("29.0 to 38.5, n = 5")
                .tone(Tone::Good),
            Tile::new("goodput", "7.4", "requests/s").detail("SLO: TTFT < 200 ms, TPOT < 40 ms"),
            Tile::new("output throughput", "6,210", "tokens/s").detail("steady window, 60 s"),
            Tile::new("failed requests", "2.3", "%")
                .detail("at 8/s without cache")
                .tone(Tone::Bad),
        ])
        .verdict(Verdict::new(Grade::Valid, "rates 1 to 4"))
        .verdict(
            Verdict::new(Grade::Degraded, "rate 8")
                .reason("client lag reached 4.1 ms, 6% of p99 TTFT"),
        )
        .verdict(
            Verdict::new(Grade::Invalid, "rate 16")
                .reason("offered 16.0 requests/s, achieved 11.2")
                .reason("only 180 requests: p99 needs at least 1,000"),
        )
        .callout(
            Tone::Note,
            "Intervals are over server launches, not over requests.",
        )
        .callout(
            Tone::Good,
            "Little's law holds within 1% at every valid point.",
        )
        .callout(
            Tone::Warn,
            "Cache hit rate drifted by 3% between repeats at rate 8.",
        )
        .callout(Tone::Bad, "The server was restarted once during rate 16.")
}

fn results() -> Section {
    let columns = [
        Column::text("radix cache"),
        Column::number("request rate", "1/s"),
        Column::number("p99 TTFT", "ms").definition("first non-empty content − dispatched, 99th percentile; a failed request counts as infinite"),
        Column::number("goodput", "1/s").definition("requests that met every SLO / length of the steady window"),
        Column::text("verdict"),
    ];
    let row = |cache: &str, rate: f64, ttft: f64, goodput: f64, grade| {
        [
            Cell::text(cache),
            Cell::number(rate),
            Cell::number(ttft),
            Cell::number(goodput),
            Cell::grade(grade),
        ]
    };
    let mut best = row("on", 4.0, 33.0, 3.98, Grade::Valid);
    best[2] = best[2].clone().tone(Tone::Good).hint("best at this rate");
    let table = Table::new(columns)
        .caption("One row for each point")
        .row(row("on", 1.0, 21.0, 1.0, Grade::Valid))
        .row(best)
        .row(row("on", 8.0, 71.0, 7.4, Grade::Degraded))
        .row(row("off", 8.0, f64::INFINITY, 2.1, Grade::Invalid))
        .row(row("off", 16.0, f64::NAN, f64::NAN, Grade::Invalid));
    Section::new("Results")
        .paragraph("Each point is the median of its samples. Point at it for what it rests on.")
        .table(table)
}

fn method() -> Section {
    Section::new("Method and environment")
        .definitions([
            Definition::new("ttft", "ms", "first non-empty content (reasoning included) − dispatched"),
            Definition::new("tpot", "ms", "(last content − first content) / (output tokens − tokens in the first event), per request"),
            Definition::new("cache_hit_rate", "share", "cached prompt tokens / prompt tokens"),
        ])
        .key_values([
            ("GPU", "NVIDIA H100 80GB HBM3"),
            ("Driver", "570.86.15"),
            ("CPU", "AMD EPYC 9554 64-Core Processor"),
            ("Kernel", "6.8.0-52-generic"),
            ("Server", "sglang 0.5.5, sha256:0f3a9c5e7b1d2f4a6c8e0a2b4c6d8e0f1a3b5c7d9e1f2a4b6c8d0e2f4a6b8c0d"),
            ("Argv", "python -m sglang.launch_server --model-path /models/qwen --port 30000"),
        ])
        .code("plan.toml", Language::Toml, PLAN)
        .files([
            FileLink::new("samples/load[radix=true,request_rate=4]/records.parquet", "every request"),
            FileLink::new("chart-1.svg", "the first chart"),
        ])
}

const PLAN: &str = r#"schema = 1
name = "online-serving"   # shown in the title

[params]
rates = { type = "list<float>", default = [1.0, 4.0, 16.0], unit = "requests/s" }

[axes]
request_rate = "${params.rates}"
radix = [true, false]

[services.server]
use = "server.sglang"
with = { model = "${steps.model.dir}", args = { disable_radix_cache = "${not axes.radix}" } }
"#;
