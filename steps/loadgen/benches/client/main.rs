//! The load generator's client against a paced server of known truth.
//!
//! ```text
//! cargo bench -p loadgen --bench client                     # everything
//! cargo bench -p loadgen --bench client -- accuracy 256     # one mode, one number of streams
//! ```
//!
//! Client and server are processes of their own, each pinned to a processor.

/// Writes a line to standard output, which is what a benchmark is for.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        // Nobody listens: then there is nobody to tell.
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod ours;
mod paced;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let numbers = |from: usize| -> Vec<u64> {
        arguments[from..]
            .iter()
            .map(|a| a.parse().expect("a number"))
            .collect()
    };
    match arguments.first().map(String::as_str) {
        Some("--serve") => {
            pin(0);
            let numbers = numbers(1);
            let pace = paced::Pace {
                ttft: numbers[0] * 1000,
                tpot: numbers[1] * 1000,
                batch: numbers[2] as u32,
            };
            paced::serve(pace).expect("a server");
        }
        Some("--client") => {
            pin(1);
            ours::client(&numbers(1));
        }
        _ => orchestrate(&arguments),
    }
}

fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).expect("an affinity");
}

/// A server in a process of its own.
struct Served {
    child: Child,
    port: u16,
}

impl Served {
    fn start(ttft_us: u64, tpot_us: u64, batch: u64) -> Self {
        let mut child = itself()
            .args([
                "--serve".into(),
                ttft_us.to_string(),
                tpot_us.to_string(),
                batch.to_string(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a server");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("its port");
        Self {
            child,
            port: line.trim().parse().expect("a port"),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = get(self.port, "/quit");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn itself() -> Command {
    Command::new(std::env::current_exe().expect("this program"))
}

/// The body that a path of the server answers with.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    )?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn orchestrate(arguments: &[String]) {
    let wanted: Vec<u64> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    for (streams, tpot, waves, tokens) in [
        (64, 10_000, 10, 100),
        (256, 10_000, 10, 100),
        (1024, 50_000, 10, 20),
        (1024, 10_000, 10, 100),
    ] {
        if !wanted.is_empty() && !wanted.contains(&streams) {
            continue;
        }
        let server = Served::start(100_000, tpot, 1);
        let client = itself()
            .args([
                "--client".into(),
                server.port.to_string(),
                streams.to_string(),
                (streams * waves).to_string(),
                tokens.to_string(),
            ])
            .output()
            .expect("a client");
        say!(
            "{streams} x {tpot}: {}{}",
            String::from_utf8_lossy(&client.stdout),
            String::from_utf8_lossy(&client.stderr)
        );
    }
}
