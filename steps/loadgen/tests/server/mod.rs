//! A server for tests: raw sockets and threads, so that a test decides every byte and every
//! close. A handler answers one request; what was asked is kept for the test to look at.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// What to do with a connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    KeepAlive,
    Close,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    pub(crate) head: String,
    pub(crate) body: serde_json::Value,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Answers each request by `handler(number of the request, its connection)`.
    pub(crate) fn start(
        handler: impl Fn(usize, &mut TcpStream) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (handler, log) = (Arc::new(handler), asked.clone());
        let requests = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (handler, log, requests) = (handler.clone(), log.clone(), requests.clone());
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    stream.set_nodelay(true).unwrap();
                    while let Some((head, body)) = read_request(&stream) {
                        log.lock().unwrap().push(Asked {
                            connection,
                            head,
                            body,
                        });
                        let number = requests.fetch_add(1, Ordering::SeqCst);
                        if handler(number, &mut stream) == Then::Close {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// Reads one request; `None` where the client has gone.
pub(crate) fn read_request(stream: impl Read) -> Option<(String, serde_json::Value)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).unwrap()))
}

pub(crate) const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// One chunk of the chunked encoding; the empty one ends the body.
pub(crate) fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// An event with one piece of a completion.
pub(crate) fn piece(text: &str) -> String {
    let choice =
        serde_json::json!({ "choices": [{ "index": 0, "text": text, "finish_reason": null }] });
    format!("data: {choice}\n\n")
}

pub(crate) const FINISH: &str =
    "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n";

pub(crate) const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\
    \"prompt_tokens_details\":{\"cached_tokens\":1}}}\n\n";

pub(crate) const DONE: &str = "data: [DONE]\n\n";

/// The whole of a good answer, `héllo` in two tokens.
pub(crate) fn good() -> String {
    let events = [
        piece("hé"),
        piece("llo"),
        FINISH.into(),
        USAGE.into(),
        DONE.into(),
        String::new(),
    ];
    let chunks: String = events.iter().map(|event| chunk(event)).collect();
    format!("{HEAD}{chunks}")
}

/// Writes what it can: a client that is gone is no failure of the server.
pub(crate) fn write(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    let _ = stream.write_all(bytes.as_ref());
}

/// Waits until the client closes the connection.
pub(crate) fn until_closed(stream: &mut TcpStream) -> Then {
    let _ = stream.read(&mut [0; 1]);
    Then::Close
}
