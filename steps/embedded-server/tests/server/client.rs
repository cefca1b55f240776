//! A client that hides nothing: HTTP/1.1 written and read by hand.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bound of every wait in these tests; nothing comes near it unless something is broken.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn error_message(&self) -> String {
        self.json()["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The data of each server-sent event; `[DONE]` as a string.
    pub(crate) fn events(&self) -> Vec<Value> {
        let events = self.text().split_terminator("\n\n");
        let data = events.map(|event| event.strip_prefix("data: ").unwrap());
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into()))
            .collect()
    }
}

/// A connection whose answer is still coming.
pub(crate) struct Pending {
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// Sends a request whose body is already text.
pub(crate) async fn send(at: SocketAddr, method: &str, path: &str, body: &str) -> Pending {
    let head = format!(
        "content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    send_raw(at, method, path, &head, body.as_bytes()).await
}

/// Sends a request with header lines of the caller's.
pub(crate) async fn send_raw(
    at: SocketAddr,
    method: &str,
    path: &str,
    head: &str,
    body: &[u8],
) -> Pending {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{head}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    Pending {
        stream,
        bytes: Vec::new(),
    }
}

impl Pending {
    /// Reads until `mark` has come, or fails.
    pub(crate) async fn read_until(&mut self, mark: &str) {
        let found = |bytes: &[u8]| {
            bytes
                .windows(mark.len())
                .any(|part| part == mark.as_bytes())
        };
        while !found(&self.bytes) {
            assert!(self.read().await > 0, "the answer ended before `{mark}`");
        }
    }

    /// Reads the answer to its end.
    pub(crate) async fn finish(mut self) -> Answer {
        while self.read().await > 0 {}
        parse(&self.bytes)
    }

    async fn read(&mut self) -> usize {
        let read = self.stream.read_buf(&mut self.bytes);
        tokio::time::timeout(TIMEOUT, read)
            .await
            .expect("no answer in time")
            .unwrap()
    }
}

pub(crate) async fn get(at: SocketAddr, path: &str) -> Answer {
    send(at, "GET", path, "").await.finish().await
}

pub(crate) async fn post(at: SocketAddr, path: &str, body: &Value) -> Answer {
    send(at, "POST", path, &body.to_string())
        .await
        .finish()
        .await
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes
        .windows(4)
        .position(|part| part == b"\r\n\r\n")
        .expect("no end of the head");
    let head = String::from_utf8(bytes[..end].to_vec())
        .unwrap()
        .to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let rest = &bytes[end + 4..];
    let is_chunked = head.contains("transfer-encoding: chunked");
    let body = if is_chunked {
        unchunked(rest)
    } else {
        rest.to_vec()
    };
    Answer { status, head, body }
}

/// Joins chunks; the last one must be there, or the answer was cut off.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes
            .windows(2)
            .position(|part| part == b"\r\n")
            .expect("a cut-off answer");
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 2 + size + 2..];
    }
}
