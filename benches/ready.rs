//! How long the embedded server takes from its start until it answers, as a process of its own.
//!
//! `cargo bench --bench ready`. Prints a table in Markdown; medians of several starts.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use embedded_server::tokenizer::{generate, generate_config};
use serde_json::json;

/// Starts of each kind.
const REPEATS: usize = 9;
/// Between two looks at whether the server answers.
const PAUSE: Duration = Duration::from_micros(500);
/// The longest that any start may take.
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let (small, large) = (folder.path().join("small"), folder.path().join("large"));
    write_model(&small, 8192);
    write_model(&large, 151_936);
    let (small, large) = (small.display().to_string(), large.display().to_string());
    let sim = ["--executor", "sim"];
    let device = ["--device-profile", "l4"];
    let cpu = ["--load-format", "dummy"];
    let with = |flags: &[&str], more: &[&str]| [flags, more].concat().join(" ");
    println!("| start to ready | promised, ms | median, ms | slowest, ms |");
    println!("|---|---:|---:|---:|");
    for (name, promised, flags) in [
        ("`sim`, no model", "200", with(&sim, &[])),
        (
            "`sim` as an L4, a vocabulary of 8,192",
            "200",
            with(&sim, &[&device[..], &["--model-path", &small]].concat()),
        ),
        (
            "`sim` as an L4, a vocabulary of 151,936",
            "",
            with(&sim, &[&device[..], &["--model-path", &large]].concat()),
        ),
        (
            "`cpu`, two layers of hidden size 896, a vocabulary of 8,192",
            "1000",
            with(&cpu, &["--model-path", &small]),
        ),
    ] {
        let mut times: Vec<f64> = (0..REPEATS).map(|_| start(folder.path(), &flags)).collect();
        times.sort_by(f64::total_cmp);
        let (median, slowest) = (times[REPEATS / 2], times[REPEATS - 1]);
        println!("| {name} | {promised} | {median:.0} | {slowest:.0} |");
    }
}

/// A model folder without weights: two layers of Qwen2.5-0.5B's shape.
fn write_model(folder: &Path, vocab_size: usize) {
    let config = json!({
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 2, "num_attention_heads": 14, "num_key_value_heads": 2,
        "vocab_size": vocab_size, "max_position_embeddings": 4096, "tie_word_embeddings": true
    });
    fs::create_dir(folder).expect("a folder");
    for (name, content) in [
        ("config.json", config),
        ("tokenizer.json", generate(vocab_size)),
        ("tokenizer_config.json", generate_config(4096)),
    ] {
        fs::write(folder.join(name), content.to_string()).expect("a file");
    }
}

/// A server that ends with its owner.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended by itself is just as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Milliseconds from the start of a process until its `/health` answers with 200.
fn start(folder: &Path, flags: &str) -> f64 {
    let address = folder.join("address");
    let _ = fs::remove_file(&address);
    let mut command = Command::new(env!("CARGO_BIN_EXE_benchwright"));
    command.args(["server", "--port", "0", "--quiet", "--address-file"]);
    command.arg(&address).args(flags.split(' '));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let _server = Server(command.spawn().expect("a server"));
    while began.elapsed() < LIMIT {
        let url = fs::read_to_string(&address).unwrap_or_default();
        let found = url.trim_start_matches("http://").parse().ok();
        if found.is_some_and(is_ready) {
            return began.elapsed().as_secs_f64() * 1e3;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("a server with `{flags}` was not ready in time");
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        std::io::Result::Ok(status)
    };
    ask().is_ok_and(|status| status.ends_with(b" 200"))
}
