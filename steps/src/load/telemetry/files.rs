//! The series as Parquet files in the folder `telemetry` of a sample: `server.parquet`, `gpus.parquet` and
//! `series.parquet`. They are there without rows where nothing was read.

use super::super::quantities::{Quantity, Told};
use super::{Answered, Further, GpuReading, GpuSeries, How, Of, Scrape, Telemetry};
use crate::files;
use engine::step::StepError;
use loadgen::Moment;
use std::path::Path;
use tables::{Column, Table, TableError};
use telemetry::{Gpu, Reading, Throttle};

const SERVER: &str = "server.parquet";
const GPUS: &str = "gpus.parquet";
const SERIES: &str = "series.parquet";

/// What a GPU tells, by the names of its columns.
const TOLD: [(&str, Of); 9] = [
    ("sm_clock_mhz", |r| r.sm_clock_mhz),
    ("memory_clock_mhz", |r| r.memory_clock_mhz),
    ("power_mw", |r| r.power_mw),
    ("energy_mj", |r| r.energy_mj),
    ("temperature_c", |r| r.temperature_c),
    ("throttle_reasons", |r| r.throttle.map(|reasons| reasons.0)),
    ("memory_used_bytes", |r| r.memory_used),
    ("busy_percent", |r| r.busy_percent),
    ("memory_busy_percent", |r| r.memory_busy_percent),
];

/// Writes all three; if the server computed nothing, with how.
pub(crate) fn write(
    telemetry: &Telemetry,
    folder: &Path,
    simulated: Option<&str>,
) -> Result<(), StepError> {
    files::create_dir(folder)?;
    let remarks = simulated.map(|how| ("simulated", how));
    let tables = [
        (SERVER, server(&telemetry.scrapes)),
        (GPUS, gpus(&telemetry.gpus)),
        (SERIES, series(&telemetry.further)),
    ];
    for (name, table) in tables {
        let write =
            |table| tables::write_parquet_with(&table, remarks.as_slice(), &folder.join(name));
        table
            .and_then(write)
            .map_err(|e| StepError::because("could not write the telemetry", e))?;
    }
    Ok(())
}

/// Reads what [`write`] wrote, but the further series, which nothing here needs; samples of earlier versions have
/// nothing.
pub(crate) fn read(folder: &Path, how: Option<How>) -> Result<Telemetry, StepError> {
    let Some(how) = how else {
        return Ok(Telemetry::default());
    };
    let table = |name: &str| tables::read_parquet(&[folder.join(name)]);
    let read = || -> Result<Telemetry, TableError> {
        Ok(Telemetry {
            scrapes: scrapes(&table(SERVER)?)?,
            gpus: gpu_series(&table(GPUS)?)?,
            further: Vec::new(),
            how: Some(how),
        })
    };
    read().map_err(|e| {
        let what = format!("could not read the telemetry in `{}`", folder.display());
        StepError::because(what, e)
    })
}

fn server(scrapes: &[Scrape]) -> Result<Table, TableError> {
    let answered = |s: &Scrape| s.answer.as_ref().ok().map(|answer| answer.at);
    let missed = |s: &Scrape| s.answer.as_ref().err().cloned();
    let mut table = Table::new([
        ("asked_ns", Column::i64(scrapes.iter().map(|s| s.asked))),
        (
            "answered_ns",
            Column::I64(scrapes.iter().map(answered).collect()),
        ),
        ("missed", Column::Text(scrapes.iter().map(missed).collect())),
        (
            "client_in_flight",
            Column::u64(scrapes.iter().map(|s| s.client.in_flight.into())),
        ),
        (
            "client_output_tokens",
            Column::f64(scrapes.iter().map(|s| s.client.output_tokens)),
        ),
    ])?;
    for quantity in Quantity::ALL {
        let value = |s: &Scrape| s.told()?.get(quantity);
        table.push(
            quantity.name(),
            Column::F64(scrapes.iter().map(value).collect()),
        )?;
    }
    Ok(table)
}

fn scrapes(table: &Table) -> Result<Vec<Scrape>, TableError> {
    let (asked, answered) = (table.i64s("asked_ns")?, table.i64s("answered_ns")?);
    let (missed, in_flight) = (table.texts("missed")?, table.u64s("client_in_flight")?);
    let tokens = table.f64s("client_output_tokens")?;
    // A later version may tell more.
    let told = Quantity::ALL.map(|quantity| (quantity, table.f64s(quantity.name()).ok()));
    let answer = |i: usize| {
        let Some(at) = answered[i] else {
            return Err(missed[i].clone().unwrap_or_default());
        };
        let mut all = Told::default();
        for (quantity, column) in &told {
            all.set(*quantity, column.and_then(|column| column[i]));
        }
        Ok(Answered { at, told: all })
    };
    let scrape = |i: usize| Scrape {
        asked: asked[i].unwrap_or(0),
        answer: answer(i),
        client: Moment {
            in_flight: u32::try_from(in_flight[i].unwrap_or(0)).unwrap_or(u32::MAX),
            output_tokens: tokens[i].unwrap_or(0.0),
        },
    };
    Ok((0..table.n_rows()).map(scrape).collect())
}

fn gpus(gpus: &[GpuSeries]) -> Result<Table, TableError> {
    let all = || {
        let of = |series: &GpuSeries| {
            series
                .readings
                .iter()
                .map(|r| (series.gpu.clone(), r.clone()))
                .collect::<Vec<_>>()
        };
        gpus.iter().flat_map(of)
    };
    let missed = |(_, r): (Gpu, GpuReading)| r.reading.err();
    let mut table = Table::new([
        ("gpu", Column::u64(all().map(|(gpu, _)| gpu.index.into()))),
        ("uuid", Column::text(all().map(|(gpu, _)| gpu.uuid))),
        ("name", Column::text(all().map(|(gpu, _)| gpu.name))),
        ("asked_ns", Column::i64(all().map(|(_, r)| r.asked))),
        ("answered_ns", Column::i64(all().map(|(_, r)| r.answered))),
        ("missed", Column::Text(all().map(missed).collect())),
    ])?;
    for (name, of) in TOLD {
        let value = |(_, r): (Gpu, GpuReading)| r.reading.ok().and_then(|reading| of(&reading));
        table.push(name, Column::U64(all().map(value).collect()))?;
    }
    Ok(table)
}

fn gpu_series(table: &Table) -> Result<Vec<GpuSeries>, TableError> {
    let (index, uuid, name) = (
        table.u64s("gpu")?,
        table.texts("uuid")?,
        table.texts("name")?,
    );
    let (asked, answered) = (table.i64s("asked_ns")?, table.i64s("answered_ns")?);
    let missed = table.texts("missed")?;
    let told = TOLD.map(|(name, _)| table.u64s(name).ok());
    let mut all: Vec<GpuSeries> = Vec::new();
    for i in 0..table.n_rows() {
        let gpu = Gpu {
            index: u32::try_from(index[i].unwrap_or(0)).unwrap_or(u32::MAX),
            uuid: uuid[i].clone().unwrap_or_default(),
            name: name[i].clone().unwrap_or_default(),
        };
        let values = told.map(|column| column.and_then(|column| column[i]));
        let reading = GpuReading {
            asked: asked[i].unwrap_or(0),
            answered: answered[i].unwrap_or(0),
            reading: match &missed[i] {
                Some(why) => Err(why.clone()),
                None => Ok(reading(values)),
            },
        };
        match all.last_mut() {
            Some(series) if series.gpu == gpu => series.readings.push(reading),
            _ => all.push(GpuSeries {
                gpu,
                readings: vec![reading],
            }),
        }
    }
    Ok(all)
}

/// In the order of [`TOLD`].
fn reading(values: [Option<u64>; TOLD.len()]) -> Reading {
    let [
        sm_clock_mhz,
        memory_clock_mhz,
        power_mw,
        energy_mj,
        temperature_c,
        throttle,
        memory_used,
        busy_percent,
        memory_busy_percent,
    ] = values;
    Reading {
        sm_clock_mhz,
        memory_clock_mhz,
        power_mw,
        energy_mj,
        temperature_c,
        throttle: throttle.map(Throttle),
        memory_used,
        busy_percent,
        memory_busy_percent,
    }
}

fn series(further: &[Further]) -> Result<Table, TableError> {
    let texts = |of: fn(&Further) -> &str| Column::text(further.iter().map(of));
    Table::new([
        ("asked_ns", Column::i64(further.iter().map(|f| f.asked))),
        ("name", texts(|f| &f.name)),
        ("labels", texts(|f| &f.labels)),
        ("value", Column::f64(further.iter().map(|f| f.value))),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::made_up;
    use super::*;

    #[test]
    fn series_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut written = made_up();
        written.further.push(Further {
            asked: -5,
            name: "sglang:queue_time_seconds_sum".to_owned(),
            labels: "model_name=\"m\"".to_owned(),
            value: 0.5,
        });
        for all in [
            written,
            Telemetry {
                how: Some(How::default()),
                ..Telemetry::default()
            },
        ] {
            write(&all, folder.path(), None).expect("written");
            let read = read(folder.path(), all.how.clone()).expect("read");
            let expected = Telemetry {
                further: Vec::new(),
                ..all
            };
            assert_eq!(read, expected);
        }
        let nowhere = folder.path().join("of an earlier version");
        assert_eq!(read(&nowhere, None).expect("nothing"), Telemetry::default());
    }
}
