//! The processes of the benchmark: who runs where, what it costs, what the server says.

use super::load::Load;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Keeps this process on one processor.
pub(crate) fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).expect("an affinity");
}

pub(crate) fn itself() -> Command {
    Command::new(std::env::current_exe().expect("this program"))
}

/// A server in a process of its own.
pub(crate) struct Served {
    child: Child,
    pub(crate) port: u16,
}

impl Served {
    pub(crate) fn start(load: &Load) -> Self {
        let numbers = [load.ttft_us, load.tpot_us, load.batch];
        let mut child = itself()
            .arg("--serve")
            .args(numbers.iter().map(u64::to_string))
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

    /// What the server wrote down since it was asked last.
    pub(crate) fn truth(&self) -> Truth {
        Truth::read(&get(self.port, "/truth").expect("the truth"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = get(self.port, "/quit");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server wrote down; nanoseconds of the monotonic clock.
pub(crate) struct Truth {
    /// The most answers that were under way at once.
    pub(crate) peak: u64,
    /// The first word of the prompt, when the request was read, when each event was written.
    pub(crate) answers: Vec<(String, u64, Vec<u64>)>,
}

impl Truth {
    fn read(text: &str) -> Self {
        let mut lines = text.lines();
        let peak = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
        let answer = |line: &str| {
            let (name, rest) = line.split_once(' ')?;
            let mut numbers = rest.split(' ').map(|n| n.parse().expect("a number"));
            Some((name.to_owned(), numbers.next()?, numbers.collect()))
        };
        Self {
            peak,
            answers: lines.filter_map(answer).collect(),
        }
    }

    /// From the first request to the last event.
    pub(crate) fn span(&self) -> (u64, u64) {
        let first = self.answers.iter().map(|(_, at, _)| *at).min();
        let last = self
            .answers
            .iter()
            .filter_map(|(_, _, sent)| sent.last().copied())
            .max();
        (first.unwrap_or(0), last.unwrap_or(0))
    }

    pub(crate) fn tokens(&self) -> usize {
        self.answers.iter().map(|(_, _, sent)| sent.len()).sum()
    }
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

/// The processor time of a process and its children over time.
pub(crate) struct Watched {
    /// Instant of the monotonic clock and processor time so far, nanoseconds.
    samples: Vec<(u64, u64)>,
}

impl Watched {
    /// Waits for a process to end, and looks at what it uses meanwhile.
    pub(crate) fn until_the_end(child: &mut Child) -> Self {
        let mut samples = Vec::new();
        // By thread: what one that has ended had used still counts.
        let mut threads = HashMap::new();
        while child.try_wait().expect("a process").is_none() {
            look(child.id(), &mut threads);
            samples.push((super::paced::now(), threads.values().sum()));
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { samples }
    }

    /// What was used between two instants, nanoseconds.
    pub(crate) fn between(&self, (from, to): (u64, u64)) -> f64 {
        let at = |instant: u64| {
            let i = self.samples.partition_point(|(at, _)| *at < instant);
            let i = i.min(self.samples.len().saturating_sub(1));
            self.samples.get(i).map_or(0, |(_, used)| *used)
        };
        at(to).saturating_sub(at(from)) as f64
    }
}

/// Notes the processor time of all threads of a process and of its children.
fn look(pid: u32, threads: &mut HashMap<String, u64>) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    for task in tasks
        .into_iter()
        .flatten()
        .flatten()
        .map(|task| task.path())
    {
        let read = |name: &str| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        let time = read("schedstat");
        let time = time.split(' ').next().and_then(|n| n.parse().ok());
        if let Some(time) = time {
            threads.insert(task.display().to_string(), time);
        }
        for child in read("children").split_whitespace() {
            if let Ok(child) = child.parse() {
                look(child, threads);
            }
        }
    }
}
