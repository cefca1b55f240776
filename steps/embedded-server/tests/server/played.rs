//! Loads that this project's own client plays to a server, and what each side wrote down of them.

use std::collections::HashMap;
use std::future::pending;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::Path;

use embedded_server::{AnswerOutcome, AnswerTrace, ExecutorKind, Fault, ServerOptions, Trace};
use loadgen::{
    HttpVersion, Load, NoObserver, Prompt, Protocol, Record, Request, Run, RunPlan, Stop, Target,
    Truth, Workload,
};

use crate::fixture::Server;

/// Tokens that each answer has.
pub(crate) const TOKENS: u32 = 12;

/// What is played.
#[derive(Debug, Clone)]
pub(crate) struct Play {
    pub(crate) faults: Vec<Fault>,
    pub(crate) seed: u64,
    pub(crate) requests: u32,
    pub(crate) users: u32,
    pub(crate) protocol: Protocol,
    pub(crate) http: HttpVersion,
    /// Whether the server tells how many tokens there are by each event.
    pub(crate) counts_on: bool,
}

impl Play {
    /// A short load of completions with these faults.
    pub(crate) fn with(faults: &[&str]) -> Self {
        Play {
            faults: faults.iter().map(|text| text.parse().unwrap()).collect(),
            seed: 5,
            requests: 24,
            users: 4,
            protocol: Protocol::Completions,
            http: HttpVersion::One,
            counts_on: false,
        }
    }
}

/// What came of it.
pub(crate) struct Played {
    pub(crate) run: Run,
    /// What the server wrote down, by the index of the record.
    pub(crate) answers: HashMap<u64, AnswerTrace>,
}

impl Played {
    /// Every record with what the server says of it, in their order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&Record, &AnswerTrace)> {
        let records = self.run.records.iter();
        records.map(|record| (record, &self.answers[&record.index]))
    }

    /// The truths that records are set beside.
    pub(crate) fn truths(&self) -> Vec<Truth> {
        self.answers.values().map(truth).collect()
    }

    /// Digests of all texts, in the order of the requests.
    pub(crate) fn texts(&self) -> Vec<&Option<String>> {
        let mut records: Vec<&Record> = self.run.records.iter().collect();
        records.sort_by(|a, b| a.request.cmp(&b.request));
        records.iter().map(|record| &record.text_digest).collect()
    }
}

fn truth(answer: &AnswerTrace) -> Truth {
    let [prompt] = &answer.prompts[..] else {
        return Truth {
            request: answer.request.clone(),
            received: answer.received_ns,
            ..Truth::default()
        };
    };
    Truth {
        request: answer.request.clone(),
        received: answer.received_ns,
        scheduled: prompt.scheduled_ns,
        cached: Some((prompt.cached_device + prompt.cached_host) as u64),
        ready: answer.tokens.iter().map(|token| token.ready_ns).collect(),
        sent: answer.sent_ns.clone(),
        tokens: answer.sent_tokens.clone(),
        silent: answer.silent.clone(),
        is_finished: answer.outcome == AnswerOutcome::Finished,
    }
}

/// Simulated steps of half a millisecond, in which an answer depends on its prompt alone.
pub(crate) fn simulated(options: &mut ServerOptions) {
    options.executor = ExecutorKind::Sim;
    options.sim_steps = true;
    (options.sim_tpot_ms, options.sim_prefill_us) = (0.5, 10.0);
    respell(&options.model_path);
}

/// Gives a folder's words letters of two and of three bytes.
fn respell(folder: &Path) {
    let path = folder.join("tokenizer.json");
    let mut file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let words = file["model"]["vocab"].as_object().unwrap().clone();
    let words = words
        .into_iter()
        .map(|(word, id)| match word.starts_with('<') {
            true => (word, id),
            false => (word.replace('a', "ä").replace('o', "語"), id),
        });
    file["model"]["vocab"] = serde_json::Value::Object(words.collect());
    std::fs::write(path, file.to_string()).unwrap();
}

/// Plays a load to a server of simulated steps and stops that.
pub(crate) async fn play(play: &Play) -> Played {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let (trace, faults, seed) = (path.clone(), play.faults.clone(), play.seed);
    let server = Server::start(move |options| {
        simulated(options);
        options.trace = Some(trace);
        options.faults = faults;
        options.fault_seed = seed;
    })
    .await;
    let plan = plan(play, &format!("http://{}", server.at));
    let run = loadgen::run(plan, &mut NoObserver, pending())
        .await
        .unwrap();
    server.stop().await.unwrap();
    let prefix = &run.info.request_prefix;
    let answers = Trace::read(&path).unwrap().into_iter();
    let answers = answers.filter_map(|answer| {
        let index = answer.request.strip_prefix(prefix)?.parse().ok()?;
        Some((index, answer))
    });
    Played {
        answers: answers.collect(),
        run,
    }
}

/// The plan of a load on the server at `address`.
pub(crate) fn plan(play: &Play, address: &str) -> RunPlan {
    let request = |i: u32| {
        let prompt = match play.protocol {
            Protocol::Chat => Prompt::Text(format!("bäba bebe {i}")),
            // Some begin alike, and find that in the cache.
            _ => Prompt::Tokens((0..40).map(|n| 7 + n + (i % 5)).collect()),
        };
        Request::new(
            format!("r{i:04}"),
            prompt,
            40,
            NonZeroU32::new(TOKENS).unwrap(),
        )
    };
    let mut extra = serde_json::Map::new();
    if play.counts_on {
        let counts = serde_json::json!({ "include_usage": true, "continuous_usage_stats": true });
        extra.insert("stream_options".to_owned(), counts);
    }
    let workload = Workload::new((0..play.requests).map(request).collect()).unwrap();
    let load = Load::closed(NonZeroU32::new(play.users).unwrap());
    let stop = Stop::Requests(NonZeroU64::new(play.requests.into()).unwrap());
    let target = Target {
        http: play.http,
        extra,
        ..Target::new(address.parse().unwrap(), "tiny", play.protocol)
    };
    RunPlan::new(workload, load, stop, target)
}
