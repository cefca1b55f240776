//! A client that hides nothing: HTTP/1.1 written and read by hand.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bound of every wait in these tests; nothing comes near it unless something is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        let read = serde_json::from_str(&self.text);
        read.unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(crate) fn message(&self) -> String {
        let message = self.json()["error"]["message"].as_str().map(str::to_owned);
        message.unwrap_or_default()
    }
}

/// A connection whose answer is still coming.
pub(crate) struct Pending {
    stream: TcpStream,
    bytes: Vec<u8>,
}

pub(crate) async fn send(at: SocketAddr, method: &str, path: &str, body: &str) -> Pending {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let bytes = Vec::new();
    Pending { stream, bytes }
}

impl Pending {
    /// Reads until `mark` has come, or fails.
    pub(crate) async fn read_until(&mut self, mark: &str) {
        let has_come = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(mark);
        while !has_come(&self.bytes) {
            assert!(self.read().await > 0, "the answer ended before `{mark}`");
        }
    }

    /// Reads the answer to its end.
    pub(crate) async fn finish(mut self) -> Answer {
        while self.read().await > 0 {}
        let text = String::from_utf8(self.bytes).unwrap();
        let (head, rest) = text.split_once("\r\n\r\n").expect("no end of the head");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let text = match is_chunked {
            true => unchunked(rest),
            false => rest.to_owned(),
        };
        Answer { status, text }
    }

    async fn read(&mut self) -> usize {
        let read = self.stream.read_buf(&mut self.bytes);
        let read = tokio::time::timeout(LIMIT, read).await;
        read.expect("no answer in time").unwrap()
    }
}

pub(crate) async fn get(at: SocketAddr, path: &str) -> Answer {
    send(at, "GET", path, "").await.finish().await
}

pub(crate) async fn post(at: SocketAddr, path: &str, body: &Value) -> Answer {
    let pending = send(at, "POST", path, &body.to_string()).await;
    pending.finish().await
}

/// Joins chunks; the last one must be there, or the answer was cut off.
fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").expect("a cut-off answer");
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body += &after[..size];
        rest = &after[size + 2..];
    }
}
