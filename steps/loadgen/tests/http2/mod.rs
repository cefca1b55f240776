//! The same client over HTTP/2, against a server that limits, refuses, breaks off and says goodbye.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use loadgen::{Class, HttpVersion, Load, NoObserver, Outcome, Record, RunPlan, Secret, run};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::server::{self, DONE, FINISH, USAGE, piece};
use crate::tls::Authority;
use crate::{HasRead, assert_good, failure, go};

type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a server has seen.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    open: AtomicUsize,
    heads: Mutex<Vec<http::request::Parts>>,
    /// Why streams were given up.
    gone: Mutex<Vec<Reason>>,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
}

/// What to do with a request.
enum Deed {
    Answer(Box<dyn FnOnce(SendResponse<Bytes>) -> Answering + Send>),
    /// Goes away in peace: this request is the last of the connection.
    AnswerAndGo(Box<dyn FnOnce(SendResponse<Bytes>) -> Answering + Send>),
}

impl Server {
    /// Allows so many streams a connection, and deals with request number `n` as `deed(n)` says.
    async fn start(streams: u32, deed: impl Fn(usize) -> Deed + Send + Sync + 'static) -> Self {
        Self::with(streams, deed, None).await
    }

    async fn with(
        streams: u32,
        deed: impl Fn(usize) -> Deed + Send + Sync + 'static,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (deed, seen) = (Arc::new(deed), Arc::new(Seen::default()));
        let log = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                log.connections.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                let (deed, log, tls) = (deed.clone(), log.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => connection(stream, streams, deed, log).await,
                        Some(tls) => {
                            let stream = TlsAcceptor::from(tls).accept(stream).await.unwrap();
                            connection(stream, streams, deed, log).await;
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    streams: u32,
    deed: Arc<impl Fn(usize) -> Deed>,
    seen: Arc<Seen>,
) {
    let mut builder = h2::server::Builder::new();
    let handshake = builder.max_concurrent_streams(streams).handshake(stream);
    // A client that does not want it goes away.
    let Ok(mut connection) = handshake.await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let n = seen.requests.fetch_add(1, Ordering::SeqCst);
        let (parts, mut body) = request.into_parts();
        seen.heads.lock().unwrap().push(parts);
        seen.open.fetch_add(1, Ordering::SeqCst);
        let (answer, goes) = match deed(n) {
            Deed::Answer(answer) => (answer, false),
            Deed::AnswerAndGo(answer) => (answer, true),
        };
        let seen = seen.clone();
        tokio::spawn(async move {
            while body.data().await.is_some() {}
            answer(respond).await;
            seen.open.fetch_sub(1, Ordering::SeqCst);
        });
        if goes {
            connection.graceful_shutdown();
        }
    }
}

fn head(respond: &mut SendResponse<Bytes>) -> SendStream<Bytes> {
    let head = http::Response::builder().header("content-type", "text/event-stream; charset=utf-8");
    respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap()
}

fn text() -> String {
    [
        piece("hé"),
        piece("llo"),
        FINISH.into(),
        USAGE.into(),
        DONE.into(),
    ]
    .concat()
}

/// A good answer in pieces of so many bytes.
fn good(size: usize) -> Deed {
    Deed::Answer(Box::new(move |respond| Box::pin(answer(respond, size))))
}

async fn answer(mut respond: SendResponse<Bytes>, size: usize) {
    let mut body = head(&mut respond);
    let text = text();
    let mut pieces = text.as_bytes().chunks(size).peekable();
    while let Some(piece) = pieces.next() {
        // With the last of the answer the stream is over, too, and gives its place back.
        let is_last = pieces.peek().is_none();
        // A client that has what it wants may be gone.
        let _ = body.send_data(Bytes::copy_from_slice(piece), is_last);
        tokio::task::yield_now().await;
    }
}

/// `n` requests of so many users over HTTP/2.
fn plan(address: SocketAddr, n: u32, users: u32) -> RunPlan {
    let mut plan = crate::plan(address, n);
    plan.load = Load::closed(NonZeroU32::new(users).unwrap());
    plan.target.http = HttpVersion::Two;
    plan.target.api_key = Some(Secret::new("hush"));
    plan
}

#[tokio::test]
async fn answers_share_a_connection_however_they_are_cut() {
    let length = text().len();
    let server = Server::start(100, move |n| good(n % length + 1)).await;
    let n = u32::try_from(length).unwrap();
    let run = go(plan(server.address, n, 16)).await;
    run.records.iter().for_each(assert_good);
    assert_eq!(server.connections(), 1);
    // Every user of the first wave waited for the connection, nobody later.
    let made = run.records.iter().filter(|r| r.connected.is_some()).count();
    assert_eq!(made, 16);
    let heads = server.seen.heads.lock().unwrap();
    let first = &heads[0];
    assert_eq!(
        (first.method.as_str(), first.uri.path()),
        ("POST", "/v1/completions")
    );
    assert_eq!(first.headers["authorization"], "Bearer hush");
    assert_eq!(first.headers["accept-encoding"], "identity");
    let name = first.headers["x-request-id"].to_str().unwrap();
    assert!(name.starts_with(&run.info.request_prefix));
}

/// The server's limit shows as more connections, not as requests that wait inside the client.
#[tokio::test]
async fn a_limit_of_streams_makes_more_connections() {
    let users = 24;
    let waiting = Arc::new(tokio::sync::Barrier::new(users));
    let server = Server::start(8, move |_| {
        let waiting = waiting.clone();
        Deed::Answer(Box::new(move |respond| {
            Box::pin(async move {
                // Nobody is answered before all are there.
                waiting.wait().await;
                answer(respond, 7).await;
            })
        }))
    })
    .await;
    let run = go(plan(server.address, 72, 24)).await;
    run.records.iter().for_each(assert_good);
    // All wait for the first one; then the limit is known.
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn what_the_server_refused_is_sent_again_once() {
    let refuse = || {
        Deed::Answer(Box::new(|mut respond: SendResponse<Bytes>| {
            Box::pin(async move { respond.send_reset(Reason::REFUSED_STREAM) }) as Answering
        }))
    };
    let server = Server::start(100, move |n| if n == 0 { refuse() } else { good(100) }).await;
    let run = go(plan(server.address, 1, 1)).await;
    assert_good(&run.records[0]);
    assert_eq!(run.records[0].attempts, 2);

    let server = Server::start(100, move |_| refuse()).await;
    let run = go(plan(server.address, 1, 1)).await;
    let (class, message) = failure(&run.records[0]);
    assert_eq!(class, Class::Truncated, "{message}");
    assert_eq!(server.seen.requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_truncated_with_its_instants() {
    let has_read = Arc::new(Notify::new());
    let read = has_read.clone();
    let server = Server::start(100, move |_| {
        let read = read.clone();
        Deed::Answer(Box::new(|mut respond| {
            Box::pin(async move {
                let mut body = head(&mut respond);
                body.send_data(Bytes::from(piece("hé")), false).unwrap();
                read.notified().await;
                body.send_reset(Reason::INTERNAL_ERROR);
            })
        }))
    })
    .await;
    let mut observer = HasRead(|| has_read.notify_one());
    let run = run(plan(server.address, 1, 1), &mut observer, pending()).await;
    let run = run.unwrap();
    let record = &run.records[0];
    let (class, message) = failure(record);
    assert_eq!(class, Class::Truncated, "{message}");
    assert_eq!((record.events.len(), record.attempts), (1, 1));
}

#[tokio::test]
async fn a_server_that_says_goodbye_loses_no_request() {
    let go_away = |size| {
        Deed::AnswerAndGo(Box::new(move |respond| {
            Box::pin(answer(respond, size)) as Answering
        }))
    };
    let server = Server::start(
        100,
        move |n| if n % 10 == 9 { go_away(50) } else { good(50) },
    )
    .await;
    let run = go(plan(server.address, 200, 4)).await;
    run.records.iter().for_each(assert_good);
    assert!(server.connections() >= 10, "{}", server.connections());
}

#[tokio::test]
async fn silence_times_out_and_others_go_on() {
    let seen = Arc::new(Seen::default());
    let log = seen.clone();
    let silent = move |mut respond: SendResponse<Bytes>| {
        let log = log.clone();
        Box::pin(async move {
            let mut body = head(&mut respond);
            body.send_data(Bytes::from(piece("hé")), false).unwrap();
            let gone = std::future::poll_fn(|context| body.poll_reset(context)).await;
            log.gone.lock().unwrap().extend(gone.ok());
        }) as Answering
    };
    let server = Server::start(100, move |n| match n {
        0 => Deed::Answer(Box::new(silent.clone())),
        _ => good(30),
    })
    .await;
    let mut plan = plan(server.address, 40, 2);
    plan.timeouts.idle = Duration::from_secs(1);
    let run = go(plan).await;
    let failed: Vec<&Record> = run.records.iter().filter(|r| !r.completed()).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failure(failed[0]).0, Class::Timeout);
    assert_eq!(server.connections(), 1);
    // The server hears of it, so that it can stop.
    while seen.gone.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(*seen.gone.lock().unwrap(), [Reason::CANCEL]);
}

/// A connection that lives has nothing to do with it: the server may have worked on the request.
#[tokio::test]
async fn what_the_server_broke_off_itself_is_not_sent_again() {
    let broken = || {
        Deed::Answer(Box::new(|mut respond: SendResponse<Bytes>| {
            Box::pin(async move { respond.send_reset(Reason::INTERNAL_ERROR) }) as Answering
        }))
    };
    let deed = move |n| if n == 1 { broken() } else { good(100) };
    let server = Server::start(100, deed).await;
    let run = go(plan(server.address, 3, 1)).await;
    assert_good(&run.records[0]);
    assert_eq!(failure(&run.records[1]).0, Class::Truncated);
    assert_eq!(run.records[1].attempts, 1);
    assert_good(&run.records[2]);
    assert_eq!(server.seen.requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_server_of_another_version_is_told_so() {
    let server = server::Server::start(|_, stream| {
        server::write(
            stream,
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        );
        server::Then::Close
    });
    // It takes the preface for the head of a request, with which HTTP/2 begins on purpose.
    let run = go(plan(server.address, 1, 1)).await;
    let (class, message) = failure(&run.records[0]);
    assert_eq!(class, Class::Connect);
    assert!(message.contains("HTTP/2"), "{message}");
}

#[tokio::test]
async fn a_cancelled_run_drops_what_is_under_way() {
    let server = Server::start(100, |_| {
        Deed::Answer(Box::new(|mut respond| {
            Box::pin(async move {
                let mut body = head(&mut respond);
                let _ = std::future::poll_fn(|context| body.poll_reset(context)).await;
            })
        }))
    })
    .await;
    let seen = server.seen.clone();
    let all_open = async move {
        while seen.open.load(Ordering::SeqCst) < 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let run = run(plan(server.address, 50, 5), &mut NoObserver, all_open)
        .await
        .unwrap();
    assert_eq!(run.records.len(), 5);
    assert!(run.records.iter().all(|r| r.outcome == Outcome::Dropped));
}

/// With TLS it is the server who chooses the version.
#[tokio::test]
async fn tls_has_to_choose_http2() {
    let authority = Authority::new("ours");
    let mut config = (*authority.sign("127.0.0.1")).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = Server::with(100, |n| good(n + 1), Some(Arc::new(config.clone()))).await;
    let secure = |server: &Server| {
        let mut plan = plan(server.address, 60, 6);
        plan.target.address = format!("https://{}", server.address).parse().unwrap();
        plan.target.trust = authority.trusted();
        plan
    };
    let run = go(secure(&server)).await;
    run.records.iter().for_each(assert_good);
    assert_eq!(server.connections(), 1);

    config.alpn_protocols = Vec::new();
    let server = Server::with(100, |_| good(1), Some(Arc::new(config))).await;
    let run = go(secure(&server)).await;
    let (class, message) = failure(&run.records[0]);
    assert_eq!(class, Class::Connect);
    assert!(message.contains("did not choose it"), "{message}");
}
