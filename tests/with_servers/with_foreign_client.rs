//! SGLang's own benchmark client, as PyPI has it, against the embedded server.

use crate::other_servers::Somebody;
use crate::world::World;
use embedded_server::{AnswerOutcome, AnswerTrace, Trace};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Requests of a run, behind one that warms up, and tokens of each answer.
const REQUESTS: usize = 12;
const TOKENS: u64 = 8;

fn python(script: &str) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with_servers/foreign");
    let mut command = Command::new("python3");
    // Nothing is written beside the sources.
    command.arg("-B").arg(folder.join(script));
    command.stdin(Stdio::null());
    command
}

/// Whether the client is there; `cargo xtask test` fetches it, or says in one line that these tests
/// are skipped.
fn is_here() -> bool {
    let mut check = python("fetch.py");
    check.arg("--check").stderr(Stdio::null());
    check.status().is_ok_and(|status| status.success())
}

/// Runs the client and returns the result that it writes.
fn benchmarked(world: &World, url: &str, backend: &str) -> Value {
    let out = world.path(&format!("{backend}.jsonl"));
    let numbers = [
        ("--num-prompts", REQUESTS.to_string()),
        ("--random-output-len", TOKENS.to_string()),
        ("--random-input-len", "32".to_owned()),
        ("--random-range-ratio", "1".to_owned()),
        ("--max-concurrency", "4".to_owned()),
        ("--vocab-size", "32000".to_owned()),
    ];
    let mut command = python("sglang_bench.py");
    command
        .args([
            "--backend",
            backend,
            "--base-url",
            url,
            "--model",
            "default",
        ])
        .args(["--dataset-name", "random-ids", "--tokenize-prompt"])
        .args(["--flush-cache", "--disable-tqdm"])
        .args(numbers.iter().flat_map(|(flag, n)| [*flag, n.as_str()]))
        .arg("--output-file")
        .arg(&out);
    let ran = command.output().expect("the client");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let said = said + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{backend}: {said}");
    let text =
        fs::read_to_string(out).unwrap_or_else(|_| panic!("{backend} wrote nothing: {said}"));
    serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
}

/// From when requests had been read to when their first events were sent, on average, milliseconds.
fn mean_ttft_ms(answers: &[AnswerTrace]) -> f64 {
    let ttft = |answer: &AnswerTrace| (answer.sent_ns[0] - answer.received_ns) as f64 / 1e6;
    answers.iter().map(ttft).sum::<f64>() / answers.len() as f64
}

#[test]
fn sglang_s_own_client_runs_unmodified_over_every_route() {
    if !is_here() {
        return;
    }
    let world = World::new();
    let trace = world.path("trace.jsonl");
    let mut flags = "--executor sim --sim-steps --sim-tpot-ms 2 --sim-prefill-us 20 --trace"
        .split(' ')
        .collect::<Vec<_>>();
    flags.push(trace.to_str().expect("a path"));
    let (somebody, url) = Somebody::start(&world, &flags);
    let backends = ["sglang", "sglang-oai", "vllm"];
    let results: Vec<Value> = backends
        .iter()
        .map(|backend| benchmarked(&world, &url, backend))
        .collect();
    somebody.stop();
    let mut answers = Trace::read(&trace).expect("a trace");
    answers.sort_by_key(|answer| answer.number);
    assert_eq!(answers.len(), backends.len() * (REQUESTS + 1));
    for ((backend, result), answers) in backends
        .iter()
        .zip(&results)
        .zip(answers.chunks(REQUESTS + 1))
    {
        let measured = &answers[1..];
        assert_eq!(result["completed"], REQUESTS, "{backend}: {result}");
        assert_eq!(
            result["total_output_tokens"],
            REQUESTS as u64 * TOKENS,
            "{backend}"
        );
        for answer in measured {
            assert_eq!(answer.outcome, AnswerOutcome::Finished, "{backend}");
            assert_eq!(answer.tokens.len() as u64, TOKENS, "{backend}");
        }
        let (theirs, least) = (result["mean_ttft_ms"].as_f64(), mean_ttft_ms(measured));
        assert!(
            theirs >= Some(least),
            "{backend}: {theirs:?} ms, {least} ms"
        );
    }
}
