//! Before servers that do what a test says: what is asked of them, in what order, and what becomes of
//! one that does not do it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use embedded_server::clock::{Clock, MonotonicClock, Nanos};
use gateway::{Backend, BackendError, ModelConfig, Release, Standing};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::client::{get, post, send};
use crate::fixture::{Gateway, model, until};

/// What a scripted server answers.
enum Say {
    Status(u16, &'static str),
    /// Chunks as a test sends them.
    Stream(mpsc::Receiver<&'static str>),
    /// Nothing, for ever.
    Nothing,
}

/// A server that notes what it is asked.
struct Scripted {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _stop: watch::Sender<bool>,
}

impl Scripted {
    async fn start(say: impl Fn(&str) -> Say + Send + Sync + 'static) -> Scripted {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, say) = (asked.clone(), Arc::new(say));
        let handler = move |method: Method, uri: Uri| {
            let (log, say) = (log.clone(), say.clone());
            async move {
                log.lock().unwrap().push(format!("{method} {uri}"));
                match say(uri.path()) {
                    Say::Status(status, text) => {
                        let status = StatusCode::from_u16(status).unwrap();
                        (status, text).into_response()
                    }
                    Say::Stream(chunks) => Response::new(Body::new(Chunks(chunks))),
                    Say::Nothing => std::future::pending().await,
                }
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().fallback(handler);
        tokio::spawn(embedded_server::accept(listener, router, stopped));
        Scripted {
            at,
            asked,
            _stop: stop,
        }
    }

    /// What it was asked to do; questions are left out.
    fn posts(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let posts = asked.iter().filter_map(|line| line.strip_prefix("POST "));
        posts.map(str::to_owned).collect()
    }
}

/// A body in chunks.
struct Chunks(mpsc::Receiver<&'static str>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = std::task::ready!(self.0.poll_recv(context));
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes())))))
    }
}

/// A server as SGLang: it knows how to release and to resume, and does not say whether it sleeps.
fn as_sglang(path: &str) -> Say {
    match path {
        "/v1/models" => Say::Status(200, r#"{"data":[{"id":"a"},{"id":"b"}]}"#),
        "/is_sleeping" => Say::Status(404, ""),
        _ => Say::Status(200, "null"),
    }
}

const ASKED: &str = "/v1/completions";

/// A model that is off and begins so.
fn off(name: &str, at: SocketAddr) -> ModelConfig {
    ModelConfig {
        found: Standing::Off,
        ..model(name, at, Release::Sglang, Standing::Off)
    }
}

/// A server that is asked once for `slow`, and answers there what is sent to it, until the sender is dropped.
async fn streaming(slow: &'static str) -> (mpsc::Sender<&'static str>, Scripted) {
    let (chunks, stream) = mpsc::channel(1);
    let stream = Mutex::new(Some(stream));
    let server = Scripted::start(move |path| match path {
        path if path == slow => Say::Stream(stream.lock().unwrap().take().expect("asked once")),
        path => as_sglang(path),
    })
    .await;
    (chunks, server)
}

fn request(model: &str) -> Value {
    json!({ "model": model, "prompt": "x" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_passes_chunk_by_chunk_and_a_model_leaves_after_its_last() {
    let (chunks, one) = streaming(ASKED).await;
    let two = Scripted::start(as_sglang).await;
    let models = vec![
        model("a", one.at, Release::Auto, Standing::Active),
        model("b", two.at, Release::Sglang, Standing::Off),
    ];
    let gateway = Gateway::ready(models, |_| {}).await;
    assert_eq!(two.posts(), ["/flush_cache", "/release_memory_occupation"]);
    let body = request("a").to_string();
    let mut pending = send(gateway.at, "POST", ASKED, &body).await;
    // The next is not sent before this one has arrived.
    for chunk in ["first", "second", "third"] {
        chunks.send(chunk).await.unwrap();
        pending.read_until(chunk).await;
    }
    let other = send(gateway.at, "POST", ASKED, &request("b").to_string()).await;
    // A sample may be of the beginning, when it was on its way too.
    until("the model to be on its way", async || {
        get(gateway.at, "/v1/models").await.json()["data"][0]["state"] == "in_transit"
    })
    .await;
    let on_its_way = MonotonicClock.now();
    // New requests wait, and the server is asked for nothing as long as it answers.
    let next = send(gateway.at, "POST", ASKED, &body).await;
    gateway.until_waiting(0, 1).await;
    assert_eq!(one.posts(), [ASKED]);
    // Who waits on would bring the model back as soon as it had left.
    drop(next);
    gateway.until_waiting(0, 0).await;
    drop(chunks);
    assert_eq!(pending.finish().await.text, "firstsecondthird");
    assert_eq!(other.finish().await.status, 200);
    let left = [ASKED, "/flush_cache", "/release_memory_occupation"];
    assert_eq!(one.posts(), left);
    let came = ["/resume_memory_occupation", ASKED];
    assert_eq!(two.posts()[2..], came);
    let told = get(gateway.at, "/swaps").await.json();
    // It did not tell what it copied.
    let out = &told["swaps"][1];
    for untold in ["copy_s", "pool_s", "bytes", "pool_bytes"] {
        assert_eq!(out.get(untold), None, "{out}");
    }
    // It was not drained as long as its answer came.
    let drained = Duration::from_secs_f64(out["drain_s"].as_f64().unwrap());
    let began = Nanos(out["began_ns"].as_u64().unwrap());
    assert!(drained >= on_its_way.since(began), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_requests_of_others_is_waited_for() {
    let refusals = Mutex::new(3);
    let server = Scripted::start(move |path| match path {
        "/flush_cache" => {
            let mut refusals = refusals.lock().unwrap();
            *refusals -= 1;
            Say::Status(if *refusals >= 0 { 400 } else { 200 }, "busy")
        }
        path => as_sglang(path),
    })
    .await;
    let backend = Backend::new(&format!("http://{}/v1", server.at), Release::Auto).unwrap();
    let moved = backend.release(Duration::from_secs(60)).await.unwrap();
    assert_eq!((moved.copy_s, moved.bytes), (None, None));
    let flush = "/flush_cache";
    let all = [flush, flush, flush, flush, "/release_memory_occupation"];
    assert_eq!(server.posts(), all);
    // One that never comes to rest is not released.
    let busy = Scripted::start(|path| match path {
        "/flush_cache" => Say::Status(400, "busy"),
        path => as_sglang(path),
    })
    .await;
    let backend = Backend::new(&format!("http://{}", busy.at), Release::Sglang).unwrap();
    let error = backend
        .release(Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(
        !busy
            .posts()
            .contains(&"/release_memory_occupation".to_owned())
    );
    assert!(
        matches!(
            error,
            BackendError::Unfinished { .. } | BackendError::Late { .. }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_before_it_sleeps_is_asked_until_it_does() {
    let questions = Mutex::new(0);
    let server = Scripted::start(move |path| match path {
        "/is_sleeping" => {
            let mut questions = questions.lock().unwrap();
            *questions += 1;
            // It sleeps from the fifth question to the eighth.
            let sleeps = (5..=8).contains(&*questions);
            let told = match sleeps {
                true => r#"{"is_sleeping":true}"#,
                false => r#"{"is_sleeping":false}"#,
            };
            Say::Status(200, told)
        }
        _ => Say::Status(200, ""),
    })
    .await;
    let backend = Backend::new(&format!("http://{}", server.at), Release::Auto).unwrap();
    let limit = Duration::from_secs(60);
    backend.release(limit).await.unwrap();
    // One that sleeps is let sleep.
    backend.release(limit).await.unwrap();
    backend.resume(limit).await.unwrap();
    assert_eq!(server.posts(), ["/sleep?level=1&mode=wait", "/wake_up"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_say_what_it_is_serves_all_the_same() {
    // vLLM's own description of itself fails where its machine has no pip.
    let server = Scripted::start(|path| match path {
        "/server_info" | "/get_server_info" => Say::Status(500, "no pip"),
        path => as_sglang(path),
    })
    .await;
    let models = vec![model("a", server.at, Release::Sglang, Standing::Active)];
    let gateway = Gateway::ready(models, |_| {}).await;
    assert_eq!(post(gateway.at, ASKED, &request("a")).await.status, 200);
    let info = get(gateway.at, "/server_info").await.json();
    assert!(info["models"][0]["info"].is_null(), "{info}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_gives_no_memory_back_is_told_how_it_would() {
    let server = Scripted::start(|_| Say::Status(404, "")).await;
    for release in [Release::Auto, Release::Sglang, Release::Vllm] {
        let backend = Backend::new(&format!("http://{}", server.at), release).unwrap();
        let error = backend.release(Duration::from_secs(60)).await.unwrap_err();
        assert!(error.to_string().contains("--enable-sleep-mode"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_to_leave_takes_the_room_of_all_and_everybody_is_told() {
    for (failing, limit, why) in [
        (
            500,
            Duration::from_secs(60),
            "answered with status 500: the scheduler broke",
        ),
        (0, Duration::from_millis(200), "did not answer within"),
    ] {
        let one = Scripted::start(move |path| match path {
            "/release_memory_occupation" if failing == 0 => Say::Nothing,
            "/release_memory_occupation" => Say::Status(failing, "the scheduler broke"),
            path => as_sglang(path),
        })
        .await;
        let two = Scripted::start(as_sglang).await;
        let models = vec![
            model("a", one.at, Release::Sglang, Standing::Active),
            // It has nothing to do within the limit.
            off("b", two.at),
        ];
        let gateway = Gateway::ready(models, |config| config.swap_timeout = limit).await;
        let answer = post(gateway.at, ASKED, &request("b")).await;
        assert_eq!(answer.status, 502);
        let what = "model `b` finds no room on the device: model `a` could not leave the device";
        assert!(answer.message().contains(what), "{}", answer.text);
        assert!(answer.message().contains(why), "{}", answer.text);
        let answer = post(gateway.at, ASKED, &request("a")).await;
        assert_eq!(answer.status, 502);
        assert_eq!(get(gateway.at, "/health").await.status, 503);
        let told = get(gateway.at, "/swaps").await.json();
        let failure = &told["failures"][0];
        assert_eq!(failure["direction"], "out");
        assert!(
            failure["error"].as_str().unwrap().contains(why),
            "{failure}"
        );
        let told = gateway.told.lock().unwrap().clone();
        assert!(told[0].contains(why), "{told:?}");
        assert!(told[1].starts_with(what), "{told:?}");
        gateway.until_waiting(1, 0).await;
        gateway.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_whose_answers_do_not_end_stays_and_leaves_once_they_do() {
    let (chunks, stream) = mpsc::channel(1);
    let stream = Mutex::new(Some(stream));
    let one = Scripted::start(move |path| {
        if path != ASKED {
            return as_sglang(path);
        }
        let first = stream.lock().unwrap().take();
        first.map_or_else(|| as_sglang(path), Say::Stream)
    })
    .await;
    let two = Scripted::start(as_sglang).await;
    let models = vec![
        model("a", one.at, Release::Sglang, Standing::Active),
        off("b", two.at),
    ];
    let limit = Duration::from_secs(2);
    let gateway = Gateway::ready(models, |config| config.swap_timeout = limit).await;
    let pending = send(gateway.at, "POST", ASKED, &request("a").to_string()).await;
    until("the request to run", async || {
        gateway.sampled(0).await["running"] == 1
    })
    .await;
    let other = send(gateway.at, "POST", ASKED, &request("b").to_string()).await;
    let why = "1 of its requests did not end within 2 s";
    until("the failure to be told", async || {
        let told = get(gateway.at, "/swaps").await.json();
        let error = told["failures"][0]["error"].as_str();
        error.is_some_and(|error| error.contains(why))
    })
    .await;
    assert!(gateway.told.lock().unwrap()[0].contains(why));
    // It serves on, and nobody was asked for anything else.
    assert_eq!(post(gateway.at, ASKED, &request("a")).await.status, 200);
    assert_eq!(get(gateway.at, "/health").await.status, 200);
    assert_eq!(one.posts(), [ASKED, ASKED]);
    drop(chunks);
    assert_eq!(pending.finish().await.status, 200);
    assert_eq!(other.finish().await.status, 200);
    assert_eq!(two.posts(), ["/resume_memory_occupation", ASKED]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_does_not_keep_its_model() {
    // More than sockets hold.
    let chunk: &str = Box::leak("x".repeat(1 << 20).into_boxed_str());
    let (chunks, one) = streaming(ASKED).await;
    let two = Scripted::start(as_sglang).await;
    let models = vec![
        model("a", one.at, Release::Sglang, Standing::Active),
        off("b", two.at),
    ];
    let limit = Duration::from_millis(200);
    let gateway = Gateway::ready(models, |config| config.reading_timeout = limit).await;
    let unread = send(gateway.at, "POST", ASKED, &request("a").to_string()).await;
    until("the server to be asked", async || one.posts() == [ASKED]).await;
    // Ends once nobody takes them any more.
    let sent = tokio::spawn(async move { while chunks.send(chunk).await.is_ok() {} });
    let answer = post(gateway.at, ASKED, &request("b")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    sent.await.unwrap();
    drop(unread);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_found_off_and_is_not_met_takes_no_room() {
    let silent = Scripted::start(|path| match path {
        "/v1/models" => Say::Status(500, "the model broke"),
        path => as_sglang(path),
    })
    .await;
    let one = Scripted::start(as_sglang).await;
    let models = vec![
        off("b", silent.at),
        ModelConfig {
            begins: Standing::Active,
            ..off("a", one.at)
        },
    ];
    let gateway = Gateway::start(models, |_| {}).await;
    let answer = post(gateway.at, ASKED, &request("a")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = post(gateway.at, ASKED, &request("b")).await;
    assert_eq!(answer.status, 502);
    let why = "model `b` could not come onto the device";
    assert!(answer.message().contains(why), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_none_is_brought_to_where_it_begins() {
    let one = Scripted::start(|path| match path {
        "/release_memory_occupation" => Say::Status(500, "the scheduler broke"),
        path => as_sglang(path),
    })
    .await;
    let two = Scripted::start(as_sglang).await;
    let models = vec![
        model("a", one.at, Release::Sglang, Standing::Off),
        ModelConfig {
            begins: Standing::Active,
            ..off("b", two.at)
        },
    ];
    let gateway = Gateway::start(models, |_| {}).await;
    let answer = post(gateway.at, ASKED, &request("b")).await;
    let why = "finds no room on the device: model `a` could not leave the device";
    assert!(answer.message().contains(why), "{}", answer.text);
    assert_eq!(two.posts(), Vec::<String>::new());
    let answer = post(gateway.at, "/reset", &json!({})).await;
    assert_eq!(answer.status, 502, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_goes_along() {
    let one = Scripted::start(as_sglang).await;
    let models = vec![model("a", one.at, Release::Sglang, Standing::Active)];
    let gateway = Gateway::ready(models, |_| {}).await;
    let asked = "/v1/completions?trace=1&x=a%20b";
    let answer = post(gateway.at, asked, &request("a")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(one.posts(), [asked]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_end_refuses_what_waits_and_lets_answers_end() {
    let (chunks, one) = streaming(ASKED).await;
    let two = Scripted::start(as_sglang).await;
    let models = vec![
        model("a", one.at, Release::Sglang, Standing::Active),
        off("b", two.at),
    ];
    let change = |config: &mut gateway::Config| config.rules.queue_threshold = 100;
    let gateway = Gateway::ready(models, change).await;
    let mut running = send(gateway.at, "POST", ASKED, &request("a").to_string()).await;
    chunks.send("first").await.unwrap();
    running.read_until("first").await;
    let waiting = send(gateway.at, "POST", ASKED, &request("b").to_string()).await;
    gateway.until_waiting(1, 1).await;
    let stopped = tokio::spawn(gateway.stop());
    let waiting = waiting.finish().await;
    assert_eq!(waiting.status, 503);
    assert!(waiting.message().contains("stopping"));
    // It is stopping, and the answer is not over.
    chunks.send("second").await.unwrap();
    drop(chunks);
    assert_eq!(running.finish().await.text, "firstsecond");
    stopped.await.unwrap().unwrap();
    // Models stay where they are.
    assert_eq!(one.posts(), [ASKED]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_leaving_when_the_gateway_ends_is_waited_for() {
    let (answered, one) = streaming("/release_memory_occupation").await;
    let two = Scripted::start(as_sglang).await;
    let models = vec![
        model("a", one.at, Release::Sglang, Standing::Active),
        off("b", two.at),
    ];
    let gateway = Gateway::ready(models, |_| {}).await;
    let waiting = send(gateway.at, "POST", ASKED, &request("b").to_string()).await;
    until("the server to be asked", async || {
        one.posts()
            .contains(&"/release_memory_occupation".to_owned())
    })
    .await;
    let stopped = tokio::spawn(gateway.stop());
    assert_eq!(waiting.finish().await.status, 503);
    // Somebody still waits for the answer, and nobody asks for anything after it.
    answered.send("null").await.unwrap();
    drop(answered);
    stopped.await.unwrap().unwrap();
    assert_eq!(two.posts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_breaks_its_connection_off_still_holds_the_device() {
    // Accepts, reads and hangs up as soon as it is to release.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(hang_up_when_released(stream));
        }
    });
    let two = Scripted::start(as_sglang).await;
    let models = vec![
        model("a", at, Release::Sglang, Standing::Active),
        off("b", two.at),
    ];
    let gateway = Gateway::ready(models, |_| {}).await;
    let answer = post(gateway.at, ASKED, &request("b")).await;
    assert_eq!(answer.status, 502);
    let why = "finds no room on the device: model `a` could not leave the device";
    assert!(answer.message().contains(why), "{}", answer.text);
    assert_eq!(two.posts(), Vec::<String>::new());
}

/// Answers as SGLang does, one question for each connection, until it is to release.
async fn hang_up_when_released(mut stream: TcpStream) {
    let mut asked = Vec::new();
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut asked).await, Ok(1..)) {
            return;
        }
    }
    let asked = String::from_utf8_lossy(&asked);
    let path = asked.split(' ').nth(1).unwrap_or_default();
    if path == "/release_memory_occupation" {
        return;
    }
    let Say::Status(status, text) = as_sglang(path) else {
        return;
    };
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}"
    );
    let _ = stream.write_all(head.as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_given_up() {
    let one = Scripted::start(|path| match path {
        ASKED => Say::Nothing,
        path => as_sglang(path),
    })
    .await;
    let models = vec![model("a", one.at, Release::Sglang, Standing::Active)];
    let limit = Duration::from_millis(100);
    let gateway = Gateway::ready(models, |config| config.answer_timeout = limit).await;
    let answer = post(gateway.at, ASKED, &request("a")).await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.message().contains("did not answer within"),
        "{}",
        answer.text
    );
    until("nothing to run", async || {
        gateway.sampled(0).await["running"] == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_listens_is_waited_for_and_given_up() {
    // Bound, so that nobody else listens there.
    let reserved = TcpSocket::new_v4().unwrap();
    reserved.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let at = reserved.local_addr().unwrap();
    let models = vec![model("a", at, Release::Sglang, Standing::Active)];
    let limit = Duration::from_millis(100);
    let gateway = Gateway::start(models, |config| config.swap_timeout = limit).await;
    let answer = post(gateway.at, ASKED, &request("a")).await;
    assert_eq!(answer.status, 502, "{}", answer.text);
    assert!(answer.message().contains("no server answers at"));
    let health = get(gateway.at, "/health").await;
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["status"], "unhealthy");
}
