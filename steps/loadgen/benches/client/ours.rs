//! Our client: runs a closed load and sets its records beside what the server wrote down.

use loadgen::{
    Generation, Limits, Load, NoObserver, Prompt, Protocol, Request, Reuse, RunPlan, Stop, Target,
    Timeouts, Workload,
};
use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

pub(crate) fn client(numbers: &[u64]) {
    let [port, streams, requests, tokens] = numbers else {
        panic!("port, streams, requests, tokens")
    };
    let plan = plan(*port, *streams as u32, *requests, *tokens as u32);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let run = runtime
        .block_on(loadgen::run(plan, &mut NoObserver, std::future::pending()))
        .expect("a run");
    let truth = super::get(*port as u16, "/truth").expect("the truth");
    let mut lines = truth.lines();
    let peak = lines.next().unwrap_or("");
    let truth: HashMap<&str, Vec<u64>> = lines
        .filter_map(|line| {
            let (name, rest) = line.split_once(' ')?;
            Some((
                name,
                rest.split(' ')
                    .map(|n| n.parse().expect("a number"))
                    .collect(),
            ))
        })
        .collect();
    let origin = run.info.started_monotonic_ns;
    let (mut first, mut ttft, mut itl, mut event, mut cold) =
        (vec![], vec![], vec![], vec![], vec![]);
    let mut failed = 0;
    let mut n_tokens = 0;
    for record in &run.records {
        if !record.completed() {
            failed += 1;
            continue;
        }
        let Some(truth) = truth.get(record.request.as_str()) else {
            failed += 1;
            continue;
        };
        let (received, sent) = (truth[0] as f64, &truth[1..]);
        let seen: Vec<f64> = record
            .events
            .iter()
            .map(|e| (e.at + origin) as f64)
            .collect();
        n_tokens += seen.len();
        let dispatched = (record.dispatched.unwrap_or(0) + origin) as f64;
        let ms = 1e-6;
        let error = ((seen[0] - dispatched) - (sent[0] as f64 - received)) * ms;
        if record.connected.is_some() {
            cold.push(error);
            continue;
        }
        ttft.push(error);
        first.push((seen[0] - sent[0] as f64) * ms);
        for i in 0..seen.len().min(sent.len()) {
            event.push((seen[i] - sent[i] as f64) * ms);
        }
        for i in 1..seen.len().min(sent.len()) {
            itl.push(((seen[i] - seen[i - 1]) - (sent[i] - sent[i - 1]) as f64).abs() * ms);
        }
    }
    let cpu = run.info.client.cpu_ns.unwrap_or(0) as f64;
    say!(
        "peak {peak} failed {failed} cpu/token {:.2} us, cpu/request {:.1} us, {:.0} req/s; {} {} {} {} {}",
        cpu / 1e3 / n_tokens as f64,
        cpu / 1e3 / run.records.len() as f64,
        run.records.len() as f64 / (run.info.wall_ns as f64 / 1e9),
        show("ttft", ttft),
        show("cold", cold),
        show("first", first),
        show("event", event),
        show("itl", itl)
    );
}

fn show(name: &str, mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        return format!("{name} -");
    }
    let at = |q: f64| values[((values.len() - 1) as f64 * q) as usize];
    format!(
        "{name} p50 {:.3} p99 {:.3} max {:.3};",
        at(0.5),
        at(0.99),
        at(1.0)
    )
}

fn plan(port: u64, streams: u32, requests: u64, tokens: u32) -> RunPlan {
    let filler = "word ".repeat(31);
    let request = |i: u64| Request {
        id: format!("r{i}"),
        conversation: None,
        turn: 0,
        arrival: None,
        model: None,
        prompt: Prompt::Text(format!("r{i} {filler}")),
        input_tokens: 32,
        output_tokens: NonZeroU32::new(tokens).expect("tokens"),
        slo: None,
        group: None,
    };
    RunPlan {
        workload: Arc::new(
            Workload::new((0..requests).map(request).collect()).expect("a workload"),
        ),
        load: Load::closed(NonZeroU32::new(streams).expect("streams")),
        stop: Stop::Requests(NonZeroU64::new(requests).expect("requests")),
        reuse: Reuse::Once,
        target: Target {
            address: format!("http://127.0.0.1:{port}")
                .parse()
                .expect("an address"),
            model: "m".into(),
            protocol: Protocol::Completions,
            api_key: None,
            generation: Generation::default(),
            extra: serde_json::Map::new(),
        },
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        threads: loadgen::Threads::default(),
    }
}
