//! What streaming costs the server, and how late its steps of stated time are.
//!
//! ```text
//! cargo bench -p embedded-server --bench serving           # everything, five runs each
//! RUNS=1 cargo bench -p embedded-server --bench serving -- 256
//! ```
//!
//! Server and client are processes of their own, the server on the first processor, the client on the
//! second: a closed loop of so many users over OpenAI's completions, every token an event of its own.
//! Queue, cache, batching, HTTP and text are the real ones; a step takes a stated time instead of
//! being computed (`--executor sim --sim-steps`). Prints a table in Markdown, medians of the runs.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::num::{NonZeroU32, NonZeroU64};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use embedded_server::flags::ServerFlags;
use embedded_server::serve;
use loadgen::{Load, NoObserver, Prompt, Protocol, Request, RunPlan, Stop, Target, Workload};

/// Tokens of each prompt.
const INPUT: u32 = 32;
/// Answers of each user.
const WAVES: u32 = 5;
/// Tokens of each answer.
const OUTPUT: u32 = 100;
/// How often, and how long after the other, it is asked whether the server is ready.
const MOST_LOOKS: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(10);
/// Streams at once, and milliseconds between tokens.
const LOADS: [(u32, u32); 3] = [(64, 20), (256, 20), (1000, 50)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| *argument != "--bench")
        .collect();
    match arguments[..] {
        ["--serve", tpot] => server(tpot),
        ["--client", port, streams] => client(number(port), number(streams)),
        _ => all(&arguments
            .iter()
            .map(|wanted| number(wanted))
            .collect::<Vec<u32>>()),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    let parsed = text.parse().ok();
    parsed.unwrap_or_else(|| panic!("`{text}` is no number"))
}

fn all(wanted: &[u32]) {
    let runs = std::env::var("RUNS").ok().and_then(|n| n.parse().ok());
    let runs: usize = runs.unwrap_or(5);
    println!(
        "| streams × ms a token | CPU µs per token | step lateness p50, µs | p99, µs | streams at once | failed |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for (streams, tpot) in LOADS {
        if !wanted.is_empty() && !wanted.contains(&streams) {
            continue;
        }
        let runs: Vec<[f64; 5]> = (0..runs.max(1)).map(|_| run(streams, tpot)).collect();
        let median = |i: usize| {
            let mut values: Vec<f64> = runs.iter().map(|run| run[i]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let [cpu, p50, p99, most, failed] = [0, 1, 2, 3, 4].map(median);
        println!(
            "| {streams} × {tpot} | {cpu:.1} | {p50:.0} | {p99:.0} | {most:.0} | {failed:.0} |"
        );
    }
}

/// One load: CPU microseconds per token, lateness of steps, most streams at once, requests that failed.
fn run(streams: u32, tpot: u32) -> [f64; 5] {
    let mut server = Served::start(tpot);
    let before = cpu_ns(server.child.id());
    let client = itself()
        .args(["--client", &server.port.to_string(), &streams.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("a client");
    assert!(client.status.success(), "the client failed");
    let used = cpu_ns(server.child.id()) - before;
    let steps = server.steps();
    let mut late: Vec<u64> = steps
        .iter()
        .map(|step| step["late_ns"].as_u64().unwrap_or(0))
        .collect();
    late.sort_unstable();
    let share = |percent: usize| late[(late.len() - 1) * percent / 100] as f64 / 1e3;
    let most = steps
        .iter()
        .filter_map(|step| step["n_sequences"].as_u64())
        .max();
    let failed: f64 = number(String::from_utf8_lossy(&client.stdout).trim());
    let tokens = f64::from(streams * WAVES * OUTPUT);
    server.end();
    [
        used as f64 / 1e3 / tokens,
        share(50),
        share(99),
        most.unwrap_or(0) as f64,
        failed,
    ]
}

fn itself() -> Command {
    Command::new(std::env::current_exe().expect("this program"))
}

/// Keeps this process on one processor.
fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).expect("an affinity");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Serves until it is killed, and says its port first.
fn server(tpot: &str) {
    pin(0);
    let flags = format!(
        "--executor sim --sim-steps --sim-tpot-ms {tpot} --sim-prefill-us 1 --sim-bytes-per-token 64 \
         --max-running-requests 1024 --port 0"
    );
    let flags = ServerFlags::read(flags.split_whitespace().map(str::to_owned)).expect("flags");
    let options = flags.options().expect("options");
    let ready = |at: std::net::SocketAddr| println!("{}", at.port());
    let served = serve(options, std::future::pending::<()>(), ready);
    runtime().block_on(served).expect("a server");
}

/// Runs the load and says how many requests failed.
fn client(port: u16, streams: u32) {
    pin(1);
    let mut nobody = NoObserver;
    let run = loadgen::run(plan(port, streams), &mut nobody, std::future::pending());
    let run = runtime().block_on(run).expect("a run");
    let failed = run.records.iter().filter(|record| !record.completed());
    println!("{}", failed.count());
}

fn plan(port: u16, streams: u32) -> RunPlan {
    let tokens = NonZeroU32::new(OUTPUT).expect("tokens");
    let request = |i: u32| {
        let prompt = (0..INPUT).map(|at| (i * 31 + at * 7) % 1000);
        Request::new(
            format!("r{i}"),
            Prompt::Tokens(prompt.collect()),
            INPUT,
            tokens,
        )
    };
    let n = streams * WAVES;
    let workload = Workload::new((0..n).map(request).collect()).expect("requests");
    let load = Load::closed(NonZeroU32::new(streams).expect("streams"));
    let stop = Stop::Requests(NonZeroU64::new(n.into()).expect("requests"));
    let address = format!("http://127.0.0.1:{port}");
    let address = address.parse().expect("an address");
    let target = Target::new(address, "default", Protocol::Completions);
    RunPlan::new(workload, load, stop, target)
}

/// A server in a process of its own.
struct Served {
    child: Child,
    port: u16,
}

impl Served {
    fn start(tpot: u32) -> Self {
        let mut child = itself()
            .args(["--serve", &tpot.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a server");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("its port");
        let port = number(line.trim());
        // It listens before it has loaded.
        for _ in 0..MOST_LOOKS {
            if get(port, "/health").0 == 200 {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Self { child, port }
    }

    /// The steps that it took, in pages.
    fn steps(&self) -> Vec<serde_json::Value> {
        let mut all = Vec::new();
        loop {
            let (_, page) = get(self.port, &format!("/forward_steps?since={}", all.len()));
            let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
            let steps = page["steps"].as_array().expect("steps");
            if steps.is_empty() {
                return all;
            }
            all.extend(steps.iter().cloned());
        }
    }

    fn end(&mut self) {
        // One that has ended by itself is just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}

/// The status and the body that a path of the server answers with.
fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    let status = head.split(' ').nth(1).expect("a status");
    (number(status), body.to_owned())
}

/// Processor time of all threads of a process so far, nanoseconds.
fn cpu_ns(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let time = |thread: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    threads.filter_map(time).sum()
}
