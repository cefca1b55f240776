//! A load over time as rows of a chart: what the client saw beside what the server told of itself, and its GPUs.
//!
//! Knows nothing of steps. A reading that was missed is a gap in the server's lines and none in the client's. Long
//! loads are thinned: a point is the mean of some readings that follow each other.

use crate::load::quantities::Quantity;
use crate::load::telemetry::{GpuReading, GpuSeries, How, Scrape, Telemetry};
use charts::{Axis, TimelineChart, TimelineRow, format_number};
use engine::step::StepError;
use tables::{Column, Table};
use telemetry::Reading;

/// Points of a line at most: more could not be told apart.
const MOST: usize = 240;
/// Series that every load has; GPUs follow.
const SERIES: [&str; 3] = ["client", "server", "server, waiting"];

/// The chart of a load; `None` if nothing was read.
pub(crate) fn chart(heading: String, telemetry: &Telemetry) -> Option<TimelineChart> {
    let how = telemetry.how.as_ref()?;
    if telemetry.scrapes.is_empty() && telemetry.gpus.is_empty() {
        return None;
    }
    let gpus = telemetry
        .gpus
        .iter()
        .map(|g| format!("GPU {}", g.gpu.index));
    let server = SERIES.map(str::to_owned);
    let server = server.into_iter().filter(|_| !telemetry.scrapes.is_empty());
    let series: Vec<String> = server.chain(gpus).collect();
    let chart = TimelineChart::new(heading, Axis::new("time", "s"), series);
    let rows = server_rows(&telemetry.scrapes)
        .into_iter()
        .chain(gpu_rows(telemetry));
    let chart = rows.fold(chart, TimelineChart::row);
    Some(
        notes(telemetry, how)
            .into_iter()
            .fold(chart, TimelineChart::note),
    )
}

/// How it was read, in two sentences.
pub(crate) fn said(how: &How) -> String {
    let every = format!("every {} s", format_number(how.interval_s));
    let server = match &how.server {
        Some(at) => format!("The server's metrics were read at {at} {every}."),
        None => format!("The server tells no metrics; what else there is was read {every}."),
    };
    format!("{server} GPUs that were read: {}.", how.gpus)
}

fn notes(telemetry: &Telemetry, how: &How) -> Vec<String> {
    let missed = telemetry
        .scrapes
        .iter()
        .filter(|s| s.answer.is_err())
        .count();
    let all = telemetry.scrapes.len();
    let missed = (missed > 0)
        .then(|| format!("{missed} of {all} readings of the server's metrics were missed: gaps."));
    let readings = telemetry.gpus.iter().flat_map(|gpu| &gpu.readings);
    let told: Vec<bool> = readings
        .filter_map(|r| Some(r.reading.as_ref().ok()?.throttle?.slows()))
        .collect();
    let slowed = told.iter().filter(|slows| **slows).count();
    let slowed = (slowed > 0).then(|| {
        format!(
            "Power or heat held clocks down in {slowed} of {} readings of GPUs.",
            told.len()
        )
    });
    let size = size(
        all.max(
            telemetry
                .gpus
                .iter()
                .map(|g| g.readings.len())
                .max()
                .unwrap_or(0),
        ),
    );
    let thinned = (size > 1).then(|| {
        let seconds = format_number(how.interval_s * count(size));
        format!("Points are means over {seconds} s each.")
    });
    [thinned, missed, slowed].into_iter().flatten().collect()
}

/// How many readings are one point.
fn size(readings: usize) -> usize {
    readings.div_ceil(MOST).max(1)
}

fn server_rows(scrapes: &[Scrape]) -> Vec<TimelineRow> {
    if scrapes.is_empty() {
        return Vec::new();
    }
    let groups: Vec<&[Scrape]> = scrapes.chunks(size(scrapes.len())).collect();
    let times: Vec<f64> = groups
        .iter()
        .filter_map(|group| mean(group, |s| Some(seconds(s.instant()).max(0.0))))
        .collect();
    let gauge = |quantity, scale: f64| -> Vec<Option<f64>> {
        let value = |s: &Scrape| Some(s.told()?.get(quantity)? * scale);
        groups.iter().map(|group| mean(group, value)).collect()
    };
    let in_flight = groups
        .iter()
        .map(|group| mean(group, |s| Some(s.client.in_flight.into())));
    let requests = vec![
        in_flight.collect(),
        gauge(Quantity::Running, 1.0),
        gauge(Quantity::Waiting, 1.0),
    ];
    let requests = TimelineRow::new(
        Axis::new("requests in flight, running, waiting", ""),
        times.clone(),
        requests,
    );
    let cache = vec![Vec::new(), gauge(Quantity::CacheUse, 100.0)];
    let cache = TimelineRow::new(Axis::new("key-value cache in use", "%"), times, cache);
    let [tokens, hits] = rate_rows(&groups);
    let told = |row: &TimelineRow| row.values.iter().flatten().any(Option::is_some);
    // A cache that nothing ever used is none, such as that of a server that only keeps a stated pace.
    let used = |row: &TimelineRow| row.values.iter().flatten().flatten().any(|v| *v > 0.0);
    let rows = [requests, tokens].into_iter().filter(told);
    rows.chain([cache, hits].into_iter().filter(used)).collect()
}

/// Output tokens per second, and what was found in the prefix cache of what was looked for, between the last
/// readings of two groups.
fn rate_rows(groups: &[&[Scrape]]) -> [TimelineRow; 2] {
    let last = |group: &&[Scrape]| {
        group
            .iter()
            .rfind(|s| s.answer.is_ok())
            .or(group.last())
            .cloned()
    };
    let first = groups.first().and_then(|group| group.first()).cloned();
    let ends = groups.iter().filter_map(last);
    // What a group of one begins with is also what it ends with.
    let mut knots: Vec<Scrape> = first.into_iter().chain(ends).collect();
    knots.dedup_by_key(|knot| knot.asked);
    let pairs: Vec<(&Scrape, &Scrape)> =
        knots.windows(2).map(|pair| (&pair[0], &pair[1])).collect();
    let times: Vec<f64> = pairs
        .iter()
        .map(|(a, b)| seconds(i64::midpoint(a.instant(), b.instant())).max(0.0))
        .collect();
    let took = |(a, b): &(&Scrape, &Scrape)| seconds(b.instant() - a.instant());
    let client = |pair: &(&Scrape, &Scrape)| {
        let tokens = pair.1.client.output_tokens - pair.0.client.output_tokens;
        Some(tokens / took(pair))
    };
    let server =
        |pair: &(&Scrape, &Scrape)| Some(added(pair, Quantity::OutputTokens)? / took(pair));
    let hits = |pair: &(&Scrape, &Scrape)| {
        let queried = added(pair, Quantity::QueriedTokens).filter(|queried| *queried > 0.0)?;
        Some(100.0 * added(pair, Quantity::CachedTokens)? / queried)
    };
    let tokens = vec![
        pairs.iter().map(client).collect(),
        pairs.iter().map(server).collect(),
    ];
    let hits: Vec<Option<f64>> = pairs.iter().map(hits).collect();
    [
        TimelineRow::new(Axis::new("output tokens", "1/s"), times.clone(), tokens),
        TimelineRow::new(
            Axis::new("prefix cache hit rate", "%"),
            times,
            vec![Vec::new(), hits],
        ),
    ]
}

/// What a counter grew by; one that fell began anew.
fn added((from, to): &(&Scrape, &Scrape), quantity: Quantity) -> Option<f64> {
    let added = to.told()?.get(quantity)? - from.told()?.get(quantity)?;
    (added >= 0.0).then_some(added)
}

fn gpu_rows(telemetry: &Telemetry) -> Vec<TimelineRow> {
    let before = if telemetry.scrapes.is_empty() {
        0
    } else {
        SERIES.len()
    };
    let Some(first) = telemetry.gpus.first() else {
        return Vec::new();
    };
    let size = size(first.readings.len());
    let at = |group: &[GpuReading]| mean(group, |r| Some(seconds(r.asked).max(0.0)));
    let times: Vec<f64> = first.readings.chunks(size).filter_map(at).collect();
    let row = |name: &str, unit: &str, of: fn(&Reading) -> Option<f64>| {
        let line = |gpu: &GpuSeries| -> Vec<Option<f64>> {
            let groups = gpu.readings.chunks(size);
            groups
                .map(|group| mean(group, |r| of(r.reading.as_ref().ok()?)))
                .collect()
        };
        let nothing = std::iter::repeat_n(Vec::new(), before);
        let values = nothing.chain(telemetry.gpus.iter().map(line)).collect();
        TimelineRow::new(Axis::new(name, unit), times.clone(), values)
    };
    let rows = [
        row("GPU power", "W", |r| Some(whole(r.power_mw?) / 1e3)),
        row("GPU clock", "MHz", |r| r.sm_clock_mhz.map(whole)),
        row("GPU temperature", "°C", |r| r.temperature_c.map(whole)),
    ];
    let told = |row: &TimelineRow| row.values.iter().flatten().any(Option::is_some);
    rows.into_iter().filter(told).collect()
}

/// All that was read as CSV, a line for each value.
///
/// # Errors
/// If the columns do not make a table, which is a fault of this function.
pub(super) fn csv(loads: &[(&str, &Telemetry)]) -> Result<String, StepError> {
    let mut rows: Vec<(&str, f64, String, f64)> = Vec::new();
    for (load, telemetry) in loads {
        for scrape in &telemetry.scrapes {
            let mut add = |name: &str, value: f64| {
                rows.push((load, seconds(scrape.instant()), name.to_owned(), value))
            };
            add("client_in_flight", scrape.client.in_flight.into());
            add("client_output_tokens", scrape.client.output_tokens);
            let told = |quantity| Some((quantity, scrape.told()?.get(quantity)?));
            for (quantity, value) in Quantity::ALL.into_iter().filter_map(told) {
                add(&format!("server_{}", quantity.name()), value);
            }
        }
        for (gpu, r) in telemetry
            .gpus
            .iter()
            .flat_map(|g| g.readings.iter().map(|r| (g.gpu.index, r)))
        {
            let Ok(reading) = &r.reading else { continue };
            for (name, value) in [
                ("power_mw", reading.power_mw),
                ("energy_mj", reading.energy_mj),
                ("sm_clock_mhz", reading.sm_clock_mhz),
                ("memory_clock_mhz", reading.memory_clock_mhz),
                ("temperature_c", reading.temperature_c),
                ("memory_used_bytes", reading.memory_used),
                ("busy_percent", reading.busy_percent),
            ] {
                let name = format!("gpu_{gpu}_{name}");
                rows.extend(value.map(|value| (*load, seconds(r.asked), name, whole(value))));
            }
        }
    }
    let table = Table::new([
        ("load", Column::text(rows.iter().map(|row| row.0))),
        ("t_s", Column::f64(rows.iter().map(|row| row.1))),
        ("what", Column::text(rows.iter().map(|row| row.2.as_str()))),
        ("value", Column::f64(rows.iter().map(|row| row.3))),
    ]);
    let table = table.map_err(|e| StepError::new(e.to_string()))?;
    Ok(table.to_csv())
}

fn mean<T>(group: &[T], of: impl Fn(&T) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = group.iter().filter_map(of).collect();
    statistics::mean(&values)
}

#[expect(clippy::cast_precision_loss, reason = "no load lasts 2^53 ns")]
fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "no GPU tells 2^53 of anything")]
fn whole(n: u64) -> f64 {
    n as f64
}

fn count(n: usize) -> f64 {
    whole(n as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::telemetry::made_up;

    fn names(chart: &TimelineChart) -> Vec<&str> {
        chart
            .rows
            .iter()
            .map(|row| row.value.label.as_str())
            .collect()
    }

    #[test]
    fn client_and_server_stand_beside_each_other_and_gpus_below() {
        let chart = chart("load".to_owned(), &made_up()).expect("a chart");
        assert_eq!(
            chart.series,
            ["client", "server", "server, waiting", "GPU 0", "GPU 1"]
        );
        let expected = [
            "requests in flight, running, waiting",
            "output tokens",
            "key-value cache in use",
            "prefix cache hit rate",
            "GPU power",
            "GPU clock",
            "GPU temperature",
        ];
        assert_eq!(names(&chart), expected);
        let [client, server, waiting] = &chart.rows[0].values[..] else {
            panic!("three lines")
        };
        assert_eq!(client, &[Some(4.0); 6]);
        // The reading that was missed is a gap in what the server told.
        assert_eq!(
            (server[2], server[3], server[4]),
            (Some(3.0), None, Some(3.0))
        );
        assert_eq!(waiting[5], Some(5.0));
        let power = &chart.rows[4].values;
        assert!(power[..3].iter().all(Vec::is_empty));
        assert_eq!((power[3][5], power[4][5]), (Some(200.0), None));
        assert!(
            chart.notes[0].starts_with("1 of 6 readings"),
            "{:?}",
            chart.notes
        );
        assert!(
            chart.notes[1].contains("2 of 11 readings of GPUs"),
            "{:?}",
            chart.notes
        );
    }

    #[test]
    fn rates_are_those_between_readings_and_never_across_a_gap() {
        let telemetry = made_up();
        let [tokens, hits] = rate_rows(&telemetry.scrapes.chunks(1).collect::<Vec<_>>());
        assert_eq!(tokens.times.len(), 5);
        let rates = |row: &TimelineRow, series: usize| -> Vec<Option<i64>> {
            #[expect(clippy::cast_possible_truncation, reason = "rounded to be compared")]
            let rounded = |rate: f64| rate.round() as i64;
            row.values[series]
                .iter()
                .map(|rate| rate.map(rounded))
                .collect()
        };
        let expected = [Some(50), Some(50), None, None, Some(50)];
        assert_eq!(rates(&tokens, 1), expected);
        assert_eq!(rates(&tokens, 0).len(), 5);
        assert!(rates(&tokens, 0).iter().all(Option::is_some));
        assert_eq!(rates(&hits, 1), [Some(25), Some(25), None, None, Some(25)]);
    }

    #[test]
    fn a_long_load_is_thinned() {
        let mut telemetry = made_up();
        let one = telemetry.scrapes[1].clone();
        let at = |i: i64| Scrape {
            asked: i * 1_000_000_000,
            ..one.clone()
        };
        telemetry.scrapes = (0..1_000).map(at).collect();
        let chart = chart(String::new(), &telemetry).expect("a chart");
        assert_eq!(chart.rows[0].times.len(), 200);
        assert_eq!(chart.notes[0], "Points are means over 5 s each.");
    }

    #[test]
    fn where_nothing_was_read_there_is_no_chart() {
        assert_eq!(chart(String::new(), &Telemetry::default()), None);
        let mut gpus = made_up();
        gpus.scrapes.clear();
        let chart = chart(String::new(), &gpus).expect("a chart");
        assert_eq!(chart.series, ["GPU 0", "GPU 1"]);
        assert_eq!(names(&chart)[0], "GPU power");
    }

    #[test]
    fn the_csv_has_every_value() {
        let csv = csv(&[("load[rate=1]", &made_up())]).expect("a table");
        assert!(csv.starts_with("load,t_s,what,value\n"), "{csv:.60}");
        assert!(csv.contains("server_running,3") && csv.contains("gpu_1_power_mw,200000"));
        assert!(csv.contains("client_in_flight"));
    }
}
