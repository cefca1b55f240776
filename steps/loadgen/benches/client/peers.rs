//! Other clients under the same load, as far as they are there.

use super::load::{Load, Outcome};
use super::processes::{Served, Watched};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A client that is not ours.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Its arguments: the load, the server's port, the folder of peers, where its result goes.
    arguments: fn(&Load, u16, &Path, &Path) -> Vec<String>,
    /// Mean time to first token and mean gap that it reports, milliseconds.
    reported: fn(&Path) -> Option<(f64, f64)>,
}

const PEERS: [Peer; 5] = [
    Peer {
        name: "sglang-bench",
        arguments: sglang,
        reported: sglang_reported,
    },
    Peer {
        name: "aiperf",
        arguments: aiperf,
        reported: aiperf_reported,
    },
    Peer {
        name: "sglang-py",
        arguments: sglang_py,
        reported: sglang_reported,
    },
    Peer {
        name: "vllm",
        arguments: vllm,
        reported: vllm_reported,
    },
    Peer {
        name: "guidellm",
        arguments: guidellm,
        reported: guidellm_reported,
    },
];

fn folder() -> Option<PathBuf> {
    std::env::var_os("BENCHWRIGHT_PEERS").map(PathBuf::from)
}

/// The peers that are there.
pub(crate) fn all() -> Vec<Peer> {
    let Some(folder) = folder() else {
        return Vec::new();
    };
    // Without `PEERS=slow` only the one that comes near.
    let with_slow = std::env::var("PEERS").is_ok_and(|which| which == "slow");
    let there = |peer: &Peer| folder.join(peer.name).exists();
    let wanted = |peer: &Peer| with_slow || peer.name == PEERS[0].name;
    PEERS
        .into_iter()
        .filter(|p| there(p) && wanted(p))
        .collect()
}

impl Peer {
    pub(crate) fn measured(&self, load: &Load, served: &Served) -> Outcome {
        let folder = folder().expect("a folder of peers");
        let out = tempfile::tempdir().expect("a folder");
        let mut child = Command::new("taskset")
            .args(["-c", "1"])
            .arg(folder.join(self.name))
            .args((self.arguments)(load, served.port, &folder, out.path()))
            .current_dir(out.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a peer");
        let watched = Watched::until_the_end(&mut child);
        let truth = served.truth();
        // What it asks besides, to warm up or to look whether the server is there, is shorter.
        let asked = truth
            .answers
            .iter()
            .filter(|(_, _, sent)| sent.len() as u64 == load.tokens);
        let ms = |later: u64, earlier: u64| (later - earlier) as f64 / 1e6;
        let (mut ttft, mut itl, mut n) = (0.0, 0.0, 0.0_f64);
        for (_, received, sent) in asked {
            n += 1.0;
            ttft += ms(sent[0], *received);
            let (first, last) = (sent[0], sent[sent.len() - 1]);
            itl += ms(last, first) / (sent.len() as f64 - 1.0).max(1.0);
        }
        let reported = (self.reported)(out.path()).unwrap_or((f64::NAN, f64::NAN));
        let (from, to) = truth.span();
        let cpu = watched.between((from, to));
        let tokens = truth.tokens().max(1) as f64;
        let wall = (to - from) as f64 / 1e9;
        Outcome {
            numbers: vec![
                ("cpu/token us", cpu / 1e3 / tokens),
                ("cpu/request us", cpu / 1e3 / n.max(1.0)),
                ("TTFT error ms mean", reported.0 - ttft / n.max(1.0)),
                ("ITL error mean", reported.1 - itl / n.max(1.0)),
                ("requests/s", n / wall),
                ("peak", truth.peak as f64),
                ("missing", load.requests as f64 - n),
            ],
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn sglang(load: &Load, port: u16, folder: &Path, out: &Path) -> Vec<String> {
    let (tokens, requests, streams) = (load.tokens, load.requests, load.streams);
    let mut all = words(&format!(
        "--backend vllm --base-url http://127.0.0.1:{port} --model m --dataset-name random-ids \
         --random-input-len 32 --random-output-len {tokens} --random-range-ratio 1 \
         --num-prompts {requests} --max-concurrency {streams} --disable-tqdm --disable-retokenize \
         --worker-threads 1"
    ));
    all.extend([
        "--tokenizer".into(),
        folder.join("tokenizer").display().to_string(),
    ]);
    all.extend([
        "--output-file".into(),
        out.join("out.jsonl").display().to_string(),
    ]);
    all
}

fn sglang_reported(out: &Path) -> Option<(f64, f64)> {
    let text = std::fs::read_to_string(out.join("out.jsonl")).ok()?;
    let value: serde_json::Value = serde_json::from_str(text.lines().last()?).ok()?;
    Some((
        value["mean_ttft_ms"].as_f64()?,
        value["mean_itl_ms"].as_f64()?,
    ))
}

fn aiperf(load: &Load, port: u16, folder: &Path, out: &Path) -> Vec<String> {
    let (tokens, requests, streams) = (load.tokens, load.requests, load.streams);
    let mut all = words(&format!(
        "profile --model m --url http://127.0.0.1:{port} --endpoint-type completions --streaming \
         --synthetic-input-tokens-mean 32 --output-tokens-mean {tokens} --concurrency {streams} \
         --request-count {requests} --extra-inputs ignore_eos:true --ui none --no-gpu-telemetry \
         --no-server-metrics"
    ));
    all.extend([
        "--tokenizer".into(),
        folder.join("tokenizer").display().to_string(),
    ]);
    all.extend(["--artifact-dir".into(), out.display().to_string()]);
    all
}

fn aiperf_reported(out: &Path) -> Option<(f64, f64)> {
    let text = std::fs::read_to_string(out.join("profile_export_aiperf.json")).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    let of = |name: &str| value[name]["avg"].as_f64();
    Some((of("time_to_first_token")?, of("inter_token_latency")?))
}

fn sglang_py(load: &Load, port: u16, folder: &Path, out: &Path) -> Vec<String> {
    let (tokens, requests, streams) = (load.tokens, load.requests, load.streams);
    let mut all = words(&format!(
        "--backend vllm --base-url http://127.0.0.1:{port} --model m --dataset-name random-ids \
         --random-input-len 32 --random-output-len {tokens} --random-range-ratio 1 \
         --num-prompts {requests} --max-concurrency {streams} --disable-tqdm --warmup-requests 0"
    ));
    all.extend(pairs(folder, "--tokenizer", "tokenizer"));
    all.extend(pairs(out, "--output-file", "out.jsonl"));
    all
}

fn vllm(load: &Load, port: u16, folder: &Path, out: &Path) -> Vec<String> {
    let (tokens, requests, streams) = (load.tokens, load.requests, load.streams);
    let mut all = words(&format!(
        "--backend openai --base-url http://127.0.0.1:{port} --model m --dataset-name random \
         --random-input-len 32 --random-output-len {tokens} --num-prompts {requests} \
         --max-concurrency {streams} --ignore-eos --disable-tqdm --save-result \
         --result-filename out.json"
    ));
    all.extend(pairs(folder, "--tokenizer", "tokenizer"));
    all.extend(["--result-dir".into(), out.display().to_string()]);
    all
}

fn vllm_reported(out: &Path) -> Option<(f64, f64)> {
    let text = std::fs::read_to_string(out.join("out.json")).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some((
        value["mean_ttft_ms"].as_f64()?,
        value["mean_itl_ms"].as_f64()?,
    ))
}

fn guidellm(load: &Load, port: u16, folder: &Path, out: &Path) -> Vec<String> {
    let (tokens, requests, streams) = (load.tokens, load.requests, load.streams);
    let tokenizer = folder.join("tokenizer").display().to_string();
    let result = out.join("out.json").display().to_string();
    words(&format!(
        "run --disable-console --backend kind=openai_http,target=http://127.0.0.1:{port},model=m,request_format=/v1/completions \
         --profile kind=concurrent,streams={streams} --constraint kind=max_requests,count={requests} \
         --tokenizer kind=hf_auto,model={tokenizer} \
         --data kind=synthetic_text,prompt_tokens=32,output_tokens={tokens} \
         --output kind=json,path={result}"
    ))
}

fn guidellm_reported(out: &Path) -> Option<(f64, f64)> {
    let text = std::fs::read_to_string(out.join("out.json")).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    let metrics = &value["benchmarks"][0]["metrics"];
    let mean = |name: &str| metrics[name]["successful"]["mean"].as_f64();
    Some((
        mean("time_to_first_token_ms")?,
        mean("inter_token_latency_ms")?,
    ))
}

/// An option that names a file of a folder.
fn pairs(folder: &Path, option: &str, file: &str) -> [String; 2] {
    [option.to_owned(), folder.join(file).display().to_string()]
}
