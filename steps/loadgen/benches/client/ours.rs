//! Our client: its records beside what the server wrote down.

use super::load::{Load, Outcome};
use super::processes::{Served, Watched, itself};
use loadgen::{
    Arrivals, ClientError, Ended, EventTime, NoObserver, Process, Prompt, Protocol, Rate, Record,
    Request, Rounds, Run, RunInfo, RunPlan, Stop, Target, Truth, Workload,
};
use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::process::Stdio;

/// Runs the load and writes info and records to standard output.
pub(crate) fn client((port, load): &(u16, Load), event_time: EventTime) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut nobody = NoObserver;
    let run = loadgen::run(
        plan(*port, load, event_time),
        &mut nobody,
        std::future::pending(),
    );
    let Run { info, records } = runtime.block_on(run).expect("a run");
    assert_eq!(info.ended, Ended::Reached);
    serde_json::to_writer(std::io::stdout(), &(info, records)).expect("written");
}

fn plan(port: u16, load: &Load, event_time: EventTime) -> RunPlan {
    let filler = "word ".repeat(31);
    let tokens = NonZeroU32::new(load.tokens as u32).expect("tokens");
    let request = |i: u64| {
        let prompt = Prompt::Text(format!("r{i} {filler}"));
        Request::new(format!("r{i}"), prompt, 32, tokens)
    };
    let workload = Workload::new((0..load.requests).map(request).collect()).expect("requests");
    let when = match load.rate {
        0 => loadgen::Load::closed(NonZeroU32::new(load.streams as u32).expect("streams")),
        rate => loadgen::Load::Open {
            arrivals: Arrivals::at(
                Process::Constant,
                Rate::per_second(rate as f64).expect("a rate"),
            ),
            seed: 0,
            max_in_flight: None,
            ready_queue: None,
            rounds: Rounds::Overlap,
        },
    };
    let stop = Stop::Requests(NonZeroU64::new(load.requests).expect("requests"));
    let address = format!("http://127.0.0.1:{port}");
    let address = address.parse().expect("an address");
    let target = Target::new(address, "m", Protocol::Completions);
    RunPlan {
        event_time,
        ..RunPlan::new(workload, when, stop, target)
    }
}

pub(crate) fn measured(load: &Load, served: &Served, event_time: EventTime) -> Outcome {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut child = itself()
        .arg(match event_time {
            EventTime::Read => "--client",
            EventTime::Kernel => "--client-by-kernel-time",
        })
        .args(load.arguments(served.port))
        .stdout(Stdio::from(file.reopen().expect("the file")))
        .spawn()
        .expect("a client");
    let watched = Watched::until_the_end(&mut child);
    let text = std::fs::read_to_string(file.path()).expect("its output");
    let (info, records): (RunInfo, Vec<Record>) = serde_json::from_str(&text).expect("records");
    let truth = served.truth();
    let truths = truths(&info, &records, &truth);
    let completed = records.iter().filter(|r| r.completed());
    let warm: Vec<Record> = completed
        .clone()
        .filter(|r| r.connected.is_none())
        .cloned()
        .collect();
    let error = ClientError::of(
        &info,
        if load.rate == 0 { &warm } else { &records },
        &truths,
    );
    let all = ClientError::of(&info, &records, &truths);
    let n = |x: Option<f64>| x.unwrap_or(f64::NAN);
    let cpu = watched.between(truth.span());
    let tokens = truth.tokens().max(1) as f64;
    let wall = info.wall_ns as f64 / 1e9;
    Outcome {
        numbers: vec![
            ("cpu/token us", cpu / 1e3 / tokens),
            ("cpu/request us", cpu / 1e3 / records.len().max(1) as f64),
            ("TTFT error ms p50", n(error.ttft.p50)),
            ("p99", n(error.ttft.p99)),
            ("mean", n(error.ttft.mean)),
            ("cold p50", n(all.ttft_cold.p50)),
            ("ITL error p99", n(error.itl.p99)),
            ("lag p50", n(all.lag.p50)),
            ("p99", n(all.lag.p99)),
            ("requests/s", records.len() as f64 / wall),
            ("tokens/s", tokens / wall),
            ("tokens per core second", tokens / (cpu / 1e9)),
            ("peak", truth.peak as f64),
            ("failed", (records.len() - completed.count()) as f64),
        ],
    }
}

/// What the server wrote down, by the names that the client gave its requests.
fn truths(info: &RunInfo, records: &[Record], truth: &super::processes::Truth) -> Vec<Truth> {
    let names: HashMap<String, u64> = records
        .iter()
        .map(|r| (r.request.clone(), r.index))
        .collect();
    truth
        .answers
        .iter()
        .filter_map(|(name, received, sent)| {
            Some(Truth {
                request: format!("{}{}", info.request_prefix, names.get(name)?),
                received: *received,
                sent: sent.clone(),
                ..Truth::default()
            })
        })
        .collect()
}
