//! A server in the test's own process that answers as a test says and writes down what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A completion of one token, as a stream.
pub(crate) const ANSWER: &str = "data: {\"choices\":[{\"index\":0,\"text\":\"a\",\"finish_reason\":\"length\"}]}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n\
    data: [DONE]\n\n";

/// What was asked: the path, and the body as JSON or null.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) body: serde_json::Value,
}

/// What is said: the status, the kind of content, the body.
pub(crate) type Said = (u16, &'static str, String);

/// Ends with the test's process.
pub(crate) struct Scripted {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// Answers by `answer`, but names its model `small` by itself.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (log.clone(), answer.clone());
                // A client that leaves in the middle ends its connection and nothing else.
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { url, asked }
    }

    /// Everything that was asked at `path`.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let asked = self.asked.lock().expect("no panic").clone();
        asked.into_iter().filter(|a| a.path == path).collect()
    }

    /// The service of a plan that this is.
    pub(crate) fn service(&self) -> String {
        let url = &self.url;
        format!("use = \"server.external\"\nwith = {{ url = \"{url}\", flush_cache = false }}")
    }
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    answer: &dyn Fn(&Asked) -> Said,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader)? {
        log.lock().expect("no panic").push(asked.clone());
        let (status, kind, body) = match asked.path.as_str() {
            "/v1/models" => {
                let models = r#"{"data":[{"id":"small"}]}"#;
                (200, "application/json", models.to_owned())
            }
            _ => answer(&asked),
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        reader.get_mut().write_all((head + &body).as_bytes())?;
    }
    Ok(())
}

/// Reads one request; `None` where the client has gone.
fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Asked>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        is_it.then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(Asked { path, body }))
}
