//! A time line as rows of a chart: requests, memory and arrivals of each model, and its moves.
//!
//! Knows nothing of steps. Long time lines are thinned: a line has a point for each stretch of
//! time, and says for how long a stretch is.

use crate::load::timeline::{ModelSample, Sample as Moment, Swap, Timeline};
use charts::{Axis, Span, SpanFill, TimelineRow, format_number};
use engine::step::StepError;
use tables::{Column, Table};

/// Points of a line at most: more could not be told apart.
const MOST: usize = 240;
/// Arrivals are counted over at least so many seconds: between two samples come few.
const LEAST_WINDOW: f64 = 1.0;
/// Lengths of stretches that are easy to read, seconds.
const WINDOWS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];

const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;

/// Requests that run, of each model: means over stretches.
pub(super) fn running(timeline: &Timeline) -> TimelineRow {
    row(
        timeline,
        Axis::new("running requests", ""),
        |stretch, model| {
            let models = stretch.iter().filter_map(|moment| moment.models.get(model));
            let running: Vec<f64> = models.map(|model| count(model.running)).collect();
            statistics::mean(&running)
        },
    )
}

/// Memory of each model's weights and cache, on each other: of a stretch as it was when it was most.
pub(super) fn memory(timeline: &Timeline) -> TimelineRow {
    let total = |moment: &Moment| moment.models.iter().filter_map(bytes).sum::<f64>();
    let totals = timeline.samples.iter().map(total);
    let device = timeline.device_memory.map(count);
    let largest = totals.chain(device).fold(0.0, f64::max);
    let (unit, size) = if largest < GIB {
        ("MiB", MIB)
    } else {
        ("GiB", GIB)
    };
    // All of one moment: what two models had one after the other they never had together.
    let row = row(
        timeline,
        Axis::new("device memory", unit),
        |stretch, model| {
            let fullest = stretch.iter().max_by(|a, b| total(a).total_cmp(&total(b)));
            let model = fullest?.models.get(model)?;
            bytes(model).map(|bytes| bytes / size)
        },
    )
    .stacked();
    match device {
        Some(all) => row.reference(
            all / size,
            format!("device: {} {unit}", format_number(all / size)),
        ),
        None => row,
    }
}

/// Arrivals per second, of each model: what came between the first samples of two stretches.
pub(super) fn arrivals(timeline: &Timeline) -> TimelineRow {
    let stretches = stretches(timeline, arrival_window(timeline));
    let mut knots: Vec<&Moment> = stretches.iter().filter_map(|s| s.first()).collect();
    // The last stretch ends with its last sample.
    knots.extend(
        timeline
            .samples
            .last()
            .filter(|_| stretches.last().is_some_and(|s| s.len() > 1)),
    );
    let middle = |pair: &[&Moment]| f64::midpoint(pair[0].t_s, pair[1].t_s);
    let rate = |pair: &[&Moment], model: usize| {
        let arrived = |moment: &Moment| moment.models.get(model).map(|m| m.arrived);
        // Less than before is a server that began anew.
        let came = arrived(pair[1])?.checked_sub(arrived(pair[0])?)?;
        let lasted = pair[1].t_s - pair[0].t_s;
        (lasted > 0.0).then(|| count(came) / lasted)
    };
    let of = |model| knots.windows(2).map(|pair| rate(pair, model)).collect();
    TimelineRow::new(
        Axis::new("arrivals", "requests/s"),
        knots.windows(2).map(middle).collect(),
        (0..timeline.models.len()).map(of).collect(),
    )
}

/// A move of a model.
pub(super) fn span(timeline: &Timeline, swap: &Swap) -> Span {
    let model = timeline
        .models
        .iter()
        .position(|model| *model == swap.model);
    let seconds = |what: &str, s: f64| format!("{what}: {} s", format_number(s));
    // Not every server tells these.
    let moved = |what: &str, s: Option<f64>, bytes: Option<u64>, of: &str| {
        let bytes = bytes.map(|bytes| format!("{} of {of}", size(bytes)));
        let told: Vec<String> = s
            .map(|s| seconds(what, s))
            .into_iter()
            .chain(bytes)
            .collect();
        (!told.is_empty()).then(|| told.join(", "))
    };
    let told = [
        Some(format!("reason: {}", swap.reason)),
        Some(seconds("until no request ran", swap.drain_s)),
        moved("copy", swap.copy_s, swap.bytes, "weights"),
        moved("pool", swap.pool_s, swap.pool_bytes, "cache"),
    ];
    Span {
        // One that is not among the models has no track, which the chart says.
        series: model.unwrap_or(usize::MAX),
        from: swap.begin_s,
        to: swap.end_s,
        label: swap.direction.clone(),
        fill: match swap.direction.as_str() {
            "out" => SpanFill::Hollow,
            _ => SpanFill::Solid,
        },
        details: told.into_iter().flatten().collect(),
    }
}

/// Sentences about how long the stretches are.
pub(super) fn windows(timeline: &Timeline) -> Vec<String> {
    let thinned = window(timeline);
    let thinned = thinned.map(|window| {
        let s = format_number(window);
        format!("Requests are means over {s} s each, and memory is that of the moment in which it was most.")
    });
    let s = format_number(arrival_window(timeline));
    let counted = format!("Arrivals are counted over {s} s each.");
    thinned.into_iter().chain([counted]).collect()
}

/// All samples as CSV, a line for each model of each load at each instant.
///
/// # Errors
/// If the columns do not make a table, which is a fault of this function.
pub(super) fn csv(loads: &[(&str, &Timeline)]) -> Result<String, StepError> {
    let rows: Vec<(&str, f64, &str, &ModelSample)> = loads
        .iter()
        .flat_map(|(load, timeline)| {
            timeline.samples.iter().flat_map(move |moment| {
                let models = timeline.models.iter().zip(&moment.models);
                models.map(move |(name, model)| (*load, moment.t_s, name.as_str(), model))
            })
        })
        .collect();
    let counts = |of: fn(&ModelSample) -> u64| Column::u64(rows.iter().map(|row| of(row.3)));
    let told = |of: fn(&ModelSample) -> Option<u64>| {
        Column::U64(rows.iter().map(|row| of(row.3)).collect())
    };
    let table = Table::new([
        ("load", Column::text(rows.iter().map(|row| row.0))),
        ("t_s", Column::f64(rows.iter().map(|row| row.1))),
        ("model", Column::text(rows.iter().map(|row| row.2))),
        (
            "state",
            Column::text(rows.iter().map(|row| row.3.state.as_str())),
        ),
        ("running", counts(|m| m.running)),
        ("waiting", counts(|m| m.waiting)),
        ("used_tokens", told(|m| m.used_tokens)),
        ("arrived", counts(|m| m.arrived)),
        ("model_weights_memory", told(|m| m.model_weights_memory)),
        (
            "token_to_kv_pool_memory",
            told(|m| m.token_to_kv_pool_memory),
        ),
    ]);
    let table = table.map_err(|e| StepError::new(e.to_string()))?;
    Ok(table.to_csv())
}

/// A row with a point for each stretch: `summary` says what it was there for the model of a number.
fn row(
    timeline: &Timeline,
    value: Axis,
    summary: impl Fn(&[Moment], usize) -> Option<f64>,
) -> TimelineRow {
    let stretches = stretches(timeline, window(timeline).unwrap_or(0.0));
    let times = stretches.iter().filter_map(|stretch| {
        let times: Vec<f64> = stretch.iter().map(|moment| moment.t_s).collect();
        statistics::mean(&times)
    });
    let of_model = |model: usize| {
        let value = |stretch: &&[Moment]| summary(stretch, model);
        stretches.iter().map(value).collect()
    };
    let values = (0..timeline.models.len()).map(of_model).collect();
    TimelineRow::new(value, times.collect(), values)
}

/// How long a stretch is, seconds; `None` if each sample can have a point of its own.
fn window(timeline: &Timeline) -> Option<f64> {
    (timeline.samples.len() > MOST).then(|| enough(timeline))
}

/// How long a stretch is over which arrivals are counted, seconds.
fn arrival_window(timeline: &Timeline) -> f64 {
    enough(timeline).max(LEAST_WINDOW)
}

/// The shortest readable stretch of which there are not too many.
fn enough(timeline: &Timeline) -> f64 {
    let at = |moment: Option<&Moment>| moment.map_or(0.0, |moment| moment.t_s);
    let lasted = at(timeline.samples.last()) - at(timeline.samples.first());
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let least = lasted / MOST as f64;
    let readable = WINDOWS.into_iter().find(|window| *window >= least);
    readable.unwrap_or(least)
}

/// The samples in stretches of `window` seconds, or one by one if that is 0.
fn stretches(timeline: &Timeline, window: f64) -> Vec<&[Moment]> {
    let place = |moment: &Moment| (moment.t_s / window).floor();
    let together = |a: &Moment, b: &Moment| window > 0.0 && place(a) == place(b);
    timeline.samples.chunk_by(together).collect()
}

/// Bytes of the device that a model has, as far as they are told.
fn bytes(model: &ModelSample) -> Option<f64> {
    let parts = [model.model_weights_memory, model.token_to_kv_pool_memory];
    let told = parts.into_iter().flatten().map(count);
    told.reduce(|a, b| a + b)
}

/// `1.5 GiB`.
fn size(bytes: u64) -> String {
    let bytes = count(bytes);
    let (unit, size) = if bytes < GIB {
        ("MiB", MIB)
    } else {
        ("GiB", GIB)
    };
    format!("{} {unit}", format_number(bytes / size))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no server has 2^53 bytes or requests"
)]
fn count(n: u64) -> f64 {
    n as f64
}

/// Two models that take turns of `seconds` each, four samples a second, and swap in between.
#[cfg(test)]
pub(super) fn made_up(seconds: f64) -> Timeline {
    let model = |is_on: bool, arrived: u64| ModelSample {
        state: if is_on { "active" } else { "off" }.to_owned(),
        running: if is_on { 4 } else { 0 },
        waiting: 0,
        used_tokens: Some(0),
        arrived,
        model_weights_memory: Some(if is_on { 3 << 30 } else { 0 }),
        token_to_kv_pool_memory: Some(if is_on { 1 << 30 } else { 0 }),
    };
    let swap = |model: &str, direction: &str| Swap {
        model: model.to_owned(),
        direction: direction.to_owned(),
        reason: "queue".to_owned(),
        begin_s: seconds,
        end_s: seconds + 0.5,
        drain_s: 0.25,
        copy_s: Some(0.2),
        pool_s: Some(0.05),
        bytes: Some(3 << 30),
        pool_bytes: Some(1 << 20),
    };
    let n = (seconds * 8.0) as u32;
    let moment = |i: u32| {
        let t_s = f64::from(i) * 0.25;
        let is_first = t_s < seconds;
        Moment {
            t_s,
            models: vec![
                model(is_first, u64::from(i) * 2),
                model(!is_first, u64::from(i)),
            ],
        }
    };
    Timeline {
        models: vec!["a".to_owned(), "b".to_owned()],
        device_memory: Some(6 << 30),
        samples: (0..=n).map(moment).collect(),
        swaps: vec![swap("a", "out"), swap("b", "in")],
        missing: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_line_keeps_every_sample() {
        let timeline = made_up(5.0);
        let row = running(&timeline);
        assert_eq!(row.times.len(), timeline.samples.len());
        assert_eq!(row.values[0][0], Some(4.0));
        assert_eq!(row.values[0].last(), Some(&Some(0.0)));
        assert_eq!(windows(&timeline), ["Arrivals are counted over 1 s each."]);
    }

    #[test]
    fn a_long_one_is_thinned_by_means_and_by_the_fullest_moments() {
        let timeline = made_up(400.5);
        let (requests, bytes) = (running(&timeline), memory(&timeline));
        assert!(requests.times.len() <= MOST && requests.times.len() > MOST / 3);
        // Stretches of five seconds: that in which the models change has two samples of the first.
        let change = requests.times.iter().position(|at| *at > 400.0).unwrap();
        assert_eq!(requests.values[0][change], Some(0.4));
        // Never both, although each was there within the stretch.
        let both = bytes.values[0][change].zip(bytes.values[1][change]);
        assert!(both.is_some_and(|(a, b)| a + b == 4.0), "{both:?}");
        assert!(windows(&timeline)[0].contains("5 s"));
    }

    #[test]
    fn arrivals_are_differences_over_time() {
        let row = arrivals(&made_up(5.0));
        assert_eq!(row.times[0], 0.5);
        assert!(row.values[0].iter().all(|rate| *rate == Some(8.0)));
        assert!(row.values[1].iter().all(|rate| *rate == Some(4.0)));
    }

    #[test]
    fn a_count_that_fell_is_no_rate() {
        let mut timeline = made_up(2.0);
        for moment in timeline.samples.iter_mut().skip(8) {
            moment.models[0].arrived = 0;
        }
        let row = arrivals(&timeline);
        assert!(row.values[0].contains(&None) && row.values[0].contains(&Some(8.0)));
    }

    #[test]
    fn memory_is_in_the_unit_that_fits_with_the_device_as_a_reference() {
        let mut timeline = made_up(2.0);
        let row = memory(&timeline);
        assert_eq!(row.value.unit, "GiB");
        assert_eq!(row.values[0][0], Some(4.0));
        assert_eq!(
            (row.references[0].value, row.references[0].label.as_str()),
            (6.0, "device: 6 GiB")
        );
        timeline.device_memory = None;
        for model in timeline.samples.iter_mut().flat_map(|m| &mut m.models) {
            model.model_weights_memory = Some(3 << 20);
            model.token_to_kv_pool_memory = Some(0);
        }
        let row = memory(&timeline);
        assert_eq!(
            (row.value.unit.as_str(), row.values[0][0]),
            ("MiB", Some(3.0))
        );
        assert!(row.references.is_empty());
    }

    #[test]
    fn what_servers_do_not_tell_is_not_drawn() {
        let mut timeline = made_up(2.0);
        for model in timeline.samples.iter_mut().map(|m| &mut m.models[0]) {
            model.model_weights_memory = None;
            model.token_to_kv_pool_memory = None;
        }
        let row = memory(&timeline);
        assert!(row.values[0].iter().all(Option::is_none));
        assert_eq!(row.values[1].last(), Some(&Some(4.0)));
        let swap = &mut timeline.swaps[0];
        (swap.copy_s, swap.pool_s) = (None, None);
        (swap.bytes, swap.pool_bytes) = (None, None);
        assert_eq!(span(&timeline, &timeline.swaps[0]).details.len(), 2);
    }

    #[test]
    fn moves_are_told_apart_by_direction_and_say_why() {
        let timeline = made_up(2.0);
        let out = span(&timeline, &timeline.swaps[0]);
        assert_eq!((out.series, out.fill), (0, SpanFill::Hollow));
        assert_eq!(out.details[0], "reason: queue");
        assert_eq!(out.details[2], "copy: 0.2 s, 3 GiB of weights");
        assert_eq!(out.details[3], "pool: 0.05 s, 1 MiB of cache");
        let into = span(&timeline, &timeline.swaps[1]);
        assert_eq!((into.series, into.fill), (1, SpanFill::Solid));
    }

    #[test]
    fn the_csv_has_every_sample_of_every_model_of_every_load() {
        let (one, other) = (made_up(2.0), made_up(3.0));
        let csv = csv(&[("load[rate=1]", &one), ("load[rate=2]", &other)]).expect("a table");
        let n_samples = one.samples.len() + other.samples.len();
        assert_eq!(csv.lines().count(), 1 + 2 * n_samples);
        assert!(csv.starts_with("load,t_s,model,state,running,"));
    }
}
