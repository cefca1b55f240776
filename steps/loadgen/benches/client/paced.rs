//! A server of known truth: it answers completions at absolute deadlines and writes down, on the
//! clock that the client uses, when it had read a request and when it wrote each event.
//!
//! One thread, one epoll, no allocation per event, so that it can stay ahead of the clients that
//! it is to judge. It understands what the clients of this benchmark send and nothing else.

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

/// How a served answer is paced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From the request to the first token, nanoseconds.
    pub(crate) ttft: u64,
    /// From one token to the next, nanoseconds; 0 writes everything as fast as it is read.
    pub(crate) tpot: u64,
    /// Events that one write carries.
    pub(crate) batch: u32,
}

impl Pace {
    /// Microseconds to the first token, microseconds from one to the next, events per write.
    pub(crate) fn read(arguments: &[String]) -> Self {
        let numbers: Vec<u64> = arguments
            .iter()
            .map(|a| a.parse().expect("a number"))
            .collect();
        Self {
            ttft: numbers[0] * 1000,
            tpot: numbers[1] * 1000,
            batch: u32::try_from(numbers[2]).expect("a number of events"),
        }
    }
}

/// What the server knows of one answer; nanoseconds of the monotonic clock.
#[derive(Default)]
struct Truth {
    /// What the prompt began with, for whoever wants to find its own requests again.
    name: String,
    received: u64,
    sent: Vec<u64>,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// Whether the socket would take no more.
    blocked: bool,
    /// The answer that is being written: tokens asked for, tokens written.
    answer: Option<(u32, u32)>,
    /// Whether the answer ends with what it used, which some clients cannot read unasked.
    wants_usage: bool,
    due: u64,
    truth: Truth,
}

struct Server {
    epoll: OwnedFd,
    pace: Pace,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    done: Vec<Truth>,
    open: usize,
    peak: usize,
}

const LISTENER: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
    transfer-encoding: chunked\r\n\r\n";

pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Serves until it is asked to quit; prints its port first.
pub(crate) fn serve(pace: Pace) -> std::io::Result<()> {
    let listener = listener()?;
    listener.set_nonblocking(true)?;
    say!("{}", listener.local_addr()?.port());
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        &listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let mut server = Server {
        epoll,
        pace,
        connections: Vec::new(),
        free: Vec::new(),
        due: BinaryHeap::new(),
        done: Vec::new(),
        open: 0,
        peak: 0,
    };
    // epoll itself counts whole milliseconds.
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    let data = EventData::new_u64(TIMER);
    epoll::add(&server.epoll, &timer, data, EventFlags::IN)?;
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        if let Some(due) = server.timer() {
            timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &due)?;
        }
        match epoll::wait(
            &server.epoll,
            rustix::buffer::spare_capacity(&mut events),
            None,
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        server.write_due();
        for event in &events {
            match event.data.u64() {
                LISTENER => server.accept(&listener)?,
                TIMER => {
                    let _ = rustix::io::read(&timer, &mut [0_u8; 8]);
                }
                at => {
                    if server.ready(at as usize, event.flags) {
                        return Ok(());
                    }
                    server.write_due();
                }
            }
        }
    }
}

/// Thousands connect at once, and a queue of 128 would let them try again after a second.
fn listener() -> std::io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], 0)))?;
    listen(&socket, 16_384)?;
    Ok(TcpListener::from(socket))
}

impl Server {
    /// When it has to be woken.
    fn timer(&self) -> Option<Itimerspec> {
        let Reverse((due, _)) = self.due.peek()?;
        let spec = |ns: u64| Timespec {
            tv_sec: (ns / 1_000_000_000) as i64,
            tv_nsec: (ns % 1_000_000_000) as i64,
        };
        Some(Itimerspec {
            it_interval: spec(0),
            // Zero would never come.
            it_value: spec((*due).max(1)),
        })
    }

    fn accept(&mut self, listener: &TcpListener) -> std::io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let at = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            epoll::add(
                &self.epoll,
                &stream,
                EventData::new_u64(at as u64),
                EventFlags::IN,
            )?;
            self.connections[at] = Some(Connection {
                stream,
                input: Vec::new(),
                output: Vec::new(),
                written: 0,
                blocked: false,
                answer: None,
                wants_usage: false,
                due: 0,
                truth: Truth::default(),
            });
        }
    }

    /// Whether to quit.
    fn ready(&mut self, at: usize, flags: EventFlags) -> bool {
        if flags.contains(EventFlags::OUT) {
            self.flush(at);
        }
        let Some(connection) = self.connections[at].as_mut() else {
            return false;
        };
        let mut buffer = [0; 16_384];
        match connection.stream.read(&mut buffer) {
            Ok(n @ 1..) => connection.input.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Ok(_) | Err(_) => {
                self.close(at);
                return false;
            }
        }
        while let Some((path, body, end)) = request(&connection.input) {
            match path {
                b"/quit" => return true,
                b"/truth" => {
                    let truth = told(&self.done, self.peak);
                    self.done.clear();
                    self.peak = 0;
                    plain(&mut connection.output, "text/plain", &truth);
                }
                b"/v1/completions" => {
                    let tokens = number(body, b"\"max_tokens\":").unwrap_or(16);
                    connection.truth = Truth {
                        name: name(body),
                        received: now(),
                        sent: Vec::with_capacity(tokens as usize),
                    };
                    connection.answer = Some((tokens.max(1), 0));
                    connection.wants_usage =
                        memchr::memmem::find(body, b"\"include_usage\"").is_some();
                    connection.due = connection.truth.received + self.pace.ttft;
                    self.due.push(Reverse((connection.due, at)));
                    self.open += 1;
                    self.peak = self.peak.max(self.open);
                }
                b"/v1/models" => plain(
                    &mut connection.output,
                    "application/json",
                    r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#,
                ),
                _ => plain(&mut connection.output, "application/json", "{}"),
            }
            connection.input.drain(..end);
        }
        self.flush(at);
        false
    }

    /// Writes what is due by now.
    fn write_due(&mut self) {
        let until = now();
        while let Some(Reverse((due, at))) = self.due.peek().copied() {
            if due > until {
                return;
            }
            self.due.pop();
            let Some(connection) = self.connections[at].as_mut() else {
                continue;
            };
            let Some((asked, told)) = connection.answer else {
                continue;
            };
            if told == 0 {
                connection.output.extend_from_slice(HEAD.as_bytes());
            }
            let next = asked.min(told + self.pace.batch);
            let sent = now();
            for token in told..next {
                event(&mut connection.output, token + 1 == asked);
                connection.truth.sent.push(sent);
            }
            connection.answer = Some((asked, next));
            if next < asked {
                connection.due += self.pace.tpot * u64::from(next - told);
                self.due.push(Reverse((connection.due, at)));
            } else {
                end(
                    &mut connection.output,
                    connection.wants_usage.then_some(asked),
                );
                connection.answer = None;
                self.open -= 1;
                self.done.push(std::mem::take(&mut connection.truth));
            }
            self.flush(at);
        }
    }

    fn flush(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_mut() else {
            return;
        };
        while connection.written < connection.output.len() {
            match connection
                .stream
                .write(&connection.output[connection.written..])
            {
                Ok(n) => connection.written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.blocked = true;
                    self.want(at, EventFlags::IN | EventFlags::OUT);
                    return;
                }
                Err(_) => return self.close(at),
            }
        }
        connection.output.clear();
        connection.written = 0;
        if std::mem::take(&mut connection.blocked) {
            self.want(at, EventFlags::IN);
        }
    }

    fn want(&self, at: usize, flags: EventFlags) {
        if let Some(connection) = &self.connections[at] {
            let _ = epoll::modify(
                &self.epoll,
                &connection.stream,
                EventData::new_u64(at as u64),
                flags,
            );
        }
    }

    fn close(&mut self, at: usize) {
        if let Some(connection) = self.connections[at].take() {
            self.open -= usize::from(connection.answer.is_some());
            self.free.push(at);
        }
    }
}

/// A whole request at the beginning of `input`: its path, its body, where it ends.
fn request(input: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let head = memchr::memmem::find(input, b"\r\n\r\n")? + 4;
    let path = input.split(|b| *b == b' ').nth(1)?;
    let lower = input[..head].to_ascii_lowercase();
    let length = memchr::memmem::find(&lower, b"content-length:")
        .and_then(|at| number(&lower[at..], b"content-length:"))
        .unwrap_or(0) as usize;
    (input.len() >= head + length).then(|| (path, &input[head..head + length], head + length))
}

/// The number that follows `key`.
fn number(text: &[u8], key: &[u8]) -> Option<u32> {
    let at = memchr::memmem::find(text, key)? + key.len();
    let digits = text[at..].iter().skip_while(|b| **b == b' ');
    let digits: Vec<u8> = digits.take_while(|b| b.is_ascii_digit()).copied().collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// The first word of the prompt.
fn name(body: &[u8]) -> String {
    const KEY: &[u8] = b"\"prompt\":\"";
    let Some(at) = memchr::memmem::find(body, KEY) else {
        return String::new();
    };
    let word = body[at + KEY.len()..].iter().take(24);
    let word = word.take_while(|b| b.is_ascii_alphanumeric());
    word.map(|b| char::from(*b)).collect()
}

fn plain(output: &mut Vec<u8>, kind: &str, body: &str) {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    output.extend_from_slice(head.as_bytes());
    output.extend_from_slice(body.as_bytes());
}

/// An event as vLLM writes it.
fn event(output: &mut Vec<u8>, last: bool) {
    const PIECE: &str = "data: {\"id\":\"cmpl-8a9be2c1\",\"object\":\"text_completion\",\"created\":1790000000,\
        \"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\" token\",\"logprobs\":null,\
        \"finish_reason\":null,\"stop_reason\":null}],\"usage\":null}\n\n";
    const LAST: &str = "data: {\"id\":\"cmpl-8a9be2c1\",\"object\":\"text_completion\",\"created\":1790000000,\
        \"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\" token\",\"logprobs\":null,\
        \"finish_reason\":\"length\",\"stop_reason\":null}],\"usage\":null}\n\n";
    chunk(output, if last { LAST } else { PIECE });
}

fn end(output: &mut Vec<u8>, used: Option<u32>) {
    if let Some(tokens) = used {
        usage(output, tokens);
    }
    chunk(output, "data: [DONE]\n\n");
    output.extend_from_slice(b"0\r\n\r\n");
}

fn usage(output: &mut Vec<u8>, tokens: u32) {
    let usage = format!(
        "data: {{\"id\":\"cmpl-8a9be2c1\",\"object\":\"text_completion\",\"created\":1790000000,\"model\":\"m\",\
         \"choices\":[],\"usage\":{{\"prompt_tokens\":32,\"total_tokens\":{},\"completion_tokens\":{tokens}}}}}\n\n",
        tokens + 32
    );
    chunk(output, &usage);
}

fn chunk(output: &mut Vec<u8>, data: &str) {
    // A vector accepts every write.
    let _ = write!(output, "{:x}\r\n", data.len());
    output.extend_from_slice(data.as_bytes());
    output.extend_from_slice(b"\r\n");
}

/// One line for each answer: its name, when it was received, when each event was written; first
/// the most answers that were under way at once.
fn told(done: &[Truth], peak: usize) -> String {
    let mut text = format!("{peak}\n");
    for truth in done {
        let _ = write!(text, "{} {}", truth.name, truth.received);
        for at in &truth.sent {
            let _ = write!(text, " {at}");
        }
        text.push('\n');
    }
    text
}
