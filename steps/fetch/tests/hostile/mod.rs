//! A server that does what servers do on bad days: it cuts, stalls, lies about lengths, changes what it has,
//! sends elsewhere and asks to be left alone. Each connection carries one request.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Written at a time, bytes: fine enough that a cut can be anywhere.
const SLICE: usize = 1024;

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// As it stands in the request: with the host if it went through a proxy.
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The bytes that were asked for of `size`.
    pub(crate) fn range(&self, size: usize) -> Option<Range<usize>> {
        let (first, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let last: usize = last.parse().unwrap_or(usize::MAX - 1);
        Some(first.parse().ok()?..(last + 1).min(size))
    }
}

/// How the length of an answer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// As it is.
    True,
    /// As something else.
    Said(usize),
    /// By chunks.
    Chunked,
    /// By the end of the connection.
    ByEnd,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) length: Length,
    /// After how many bytes of the body the connection breaks.
    pub(crate) cut: Option<usize>,
    /// Instead of breaking, nothing comes any more.
    pub(crate) stalls: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            length: Length::True,
            cut: None,
            stalls: false,
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    pub(crate) fn stalls_after(mut self, bytes: usize) -> Self {
        (self.cut, self.stalls) = (Some(bytes), true);
        self
    }

    pub(crate) fn length(mut self, length: Length) -> Self {
        self.length = length;
        self
    }
}

/// A part of a content or all of it, as a good server answers.
pub(crate) fn ranged(content: &[u8], tag: &str, asked: &Asked) -> Reply {
    let same = asked
        .header("if-range")
        .is_none_or(|condition| condition == tag);
    let tagged = |reply: Reply| reply.with("ETag", tag).with("Accept-Ranges", "bytes");
    match asked.range(content.len()).filter(|_| same) {
        Some(range) if range.start >= content.len() => {
            tagged(Reply::new(416, "")).with("Content-Range", format!("bytes */{}", content.len()))
        }
        Some(range) => {
            let said = format!("bytes {}-{}/{}", range.start, range.end - 1, content.len());
            tagged(Reply::new(206, &content[range])).with("Content-Range", said)
        }
        None => tagged(Reply::new(200, content)),
    }
}

type Answer = dyn Fn(&Asked, usize) -> Reply + Send + Sync;
type Sent = dyn Fn(u64) + Send + Sync;

/// A server on a free port, until it is dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    gone: Arc<AtomicBool>,
}

impl Server {
    /// Answers each request by what it is and how many came before.
    pub(crate) fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::counting(answer, |_| {})
    }

    /// Like [`Server::start`]; `sent` hears after each slice how many bytes of bodies were sent in all.
    pub(crate) fn counting(
        answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
        sent: impl Fn(u64) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let gone = Arc::new(AtomicBool::new(false));
        let (answer, sent): (Arc<Answer>, Arc<Sent>) = (Arc::new(answer), Arc::new(sent));
        let total = Arc::new(Mutex::new(0));
        let (all, left) = (asked.clone(), gone.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if left.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, sent, total) = (answer.clone(), sent.clone(), total.clone());
                let (all, left) = (all.clone(), left.clone());
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else {
                        return;
                    };
                    let n = {
                        let mut all = all.lock().expect("no panic");
                        all.push(request.clone());
                        all.len() - 1
                    };
                    // An error means that the other side went away.
                    let _ = write(
                        &stream,
                        &request,
                        &answer(&request, n),
                        &*sent,
                        &total,
                        &left,
                    );
                });
            }
        });
        Self { port, asked, gone }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        // Wakes it up, so that it sees.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        method,
        target,
        headers,
        body,
    })
}

fn write(
    mut stream: &TcpStream,
    asked: &Asked,
    reply: &Reply,
    sent: &Sent,
    total: &Mutex<u64>,
    gone: &AtomicBool,
) -> std::io::Result<()> {
    let mut head = format!(
        "HTTP/1.1 {} Whatever\r\nConnection: close\r\n",
        reply.status
    );
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &match reply.length {
        Length::True => format!("Content-Length: {}\r\n", reply.body.len()),
        Length::Said(length) => format!("Content-Length: {length}\r\n"),
        Length::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        Length::ByEnd => String::new(),
    };
    stream.write_all((head + "\r\n").as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    let until = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    for slice in reply.body[..until].chunks(SLICE) {
        if reply.length == Length::Chunked {
            stream.write_all(format!("{:x}\r\n", slice.len()).as_bytes())?;
        }
        stream.write_all(slice)?;
        if reply.length == Length::Chunked {
            stream.write_all(b"\r\n")?;
        }
        let mut total = total.lock().expect("no panic");
        *total += slice.len() as u64;
        sent(*total);
    }
    if reply.stalls {
        while !gone.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    if reply.length == Length::Chunked && reply.cut.is_none() {
        stream.write_all(b"0\r\n\r\n")?;
    }
    stream.flush()
}

/// Random numbers that a seed repeats: Steele, Lea and Flood's `SplitMix64` (2014).
#[derive(Debug, Clone)]
pub(crate) struct Luck(pub(crate) u64);

impl Luck {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// Bytes of which no part is like another.
    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        let words = (0..n.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(n).collect()
    }
}
