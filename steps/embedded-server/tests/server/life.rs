//! Starting, overload, clients that leave, and stopping.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use embedded_server::{ServeError, ServerOptions, load, serve};
use serde_json::{Value, json};

use crate::client::{get, post, send};
use crate::fixture::{Server, model_folder, options, poll, write};

fn gate() -> (SyncSender<()>, Receiver<()>) {
    sync_channel(256)
}

fn long_stream() -> Value {
    json!({ "prompt": vec![20; 40], "max_tokens": 100, "temperature": 0, "ignore_eos": true,
            "stream": true })
}

#[tokio::test]
async fn nothing_is_served_before_the_model_is_loaded() {
    let (go, gone) = channel::<()>();
    let server = Server::start_loading(
        |_| {},
        move |options| {
            let _ = gone.recv();
            load(options)
        },
    )
    .await;
    for path in ["/health", "/v1/models", "/metrics", "/server_info"] {
        let answer = get(server.at, path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert_eq!(answer.json()["error"]["code"], "loading");
        assert!(answer.head.contains("retry-after: "));
    }
    assert_eq!(
        post(server.at, "/v1/completions", &json!({ "prompt": "x" }))
            .await
            .status,
        503
    );
    drop(go);
    server.become_ready().await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_blocks() {
    let (permit, permits) = gate();
    let server = Server::start_gated(|_| {}, permits).await;
    let mut leaving = send(
        server.at,
        "POST",
        "/v1/completions",
        &long_stream().to_string(),
    )
    .await;
    permit.send(()).unwrap();
    leaving.read_until("data: ").await;
    assert!(server.metric("num_used_tokens").await > 0.0);
    drop(leaving);
    // Steps go on one by one until the server has noticed.
    poll(async || {
        let _ = permit.try_send(());
        server.metric("num_used_tokens").await == 0.0
    })
    .await;
    assert_eq!(server.metric("num_running_reqs").await, 0.0);
    assert_eq!(server.metric("num_aborted_requests_total").await, 1.0);
    assert!(server.metric("generation_tokens_total").await < 100.0);
    drop(permit);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_before_its_whole_answer_is_noticed_too() {
    let (permit, permits) = gate();
    let server = Server::start_gated(|_| {}, permits).await;
    let mut body = long_stream();
    body["stream"] = json!(false);
    let leaving = send(server.at, "POST", "/v1/completions", &body.to_string()).await;
    poll(async || server.metric("num_running_reqs").await == 1.0).await;
    drop(leaving);
    poll(async || {
        let _ = permit.try_send(());
        server.metric("num_aborted_requests_total").await == 1.0
    })
    .await;
    assert_eq!(server.metric("num_used_tokens").await, 0.0);
    drop(permit);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_full_queue_refuses_and_recovers() {
    let (permit, permits) = gate();
    let change = |options: &mut ServerOptions| {
        options.queue_limit = 2;
        options.max_running_requests = 1;
    };
    let server = Server::start_gated(change, permits).await;
    let mut body = long_stream();
    body["max_tokens"] = json!(200);
    let running = send(server.at, "POST", "/v1/completions", &body.to_string()).await;
    poll(async || server.metric("num_running_reqs").await == 1.0).await;
    let mut two = long_stream();
    two["prompt"] = json!([[30], [31]]);
    let waiting = send(server.at, "POST", "/v1/completions", &two.to_string()).await;
    // Steps go on one by one until the engine has seen them.
    poll(async || {
        let _ = permit.try_send(());
        server.metric("num_queue_reqs").await == 2.0
    })
    .await;
    let refused = post(server.at, "/v1/completions", &json!({ "prompt": [9] })).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (429, &json!("queue_full"))
    );
    assert!(
        refused
            .error_message()
            .contains("the queue of 2 waiting requests")
    );
    drop(permit);
    for answer in [running.finish().await, waiting.finish().await] {
        assert_eq!(answer.events().last().unwrap(), "[DONE]");
    }
    assert_eq!(
        post(server.at, "/v1/completions", &json!({ "prompt": [9] }))
            .await
            .status,
        200
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_cache_is_flushed_only_while_nothing_uses_it() {
    let (permit, permits) = gate();
    let server = Server::start_gated(|_| {}, permits).await;
    assert_eq!(get(server.at, "/flush_cache").await.status, 200);
    let running = send(
        server.at,
        "POST",
        "/v1/completions",
        &long_stream().to_string(),
    )
    .await;
    poll(async || server.metric("num_running_reqs").await == 1.0).await;
    let at = server.at;
    let flush = tokio::spawn(async move { post(at, "/flush_cache", &json!({})).await });
    // It is answered between two steps.
    poll(async || {
        let _ = permit.try_send(());
        server.metric("num_running_reqs").await;
        flush.is_finished()
    })
    .await;
    let flush = flush.await.unwrap();
    assert_eq!(
        (flush.status, &flush.json()["error"]["code"]),
        (400, &json!("busy"))
    );
    drop(permit);
    assert_eq!(running.finish().await.events().last().unwrap(), "[DONE]");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn stopping_breaks_streams_off_with_an_error_in_them() {
    let (permit, permits) = gate();
    let server = Server::start_gated(|_| {}, permits).await;
    let at = server.at;
    let mut stream = send(at, "POST", "/v1/completions", &long_stream().to_string()).await;
    permit.send(()).unwrap();
    stream.read_until("data: ").await;
    let stopping = tokio::spawn(server.stop());
    poll(async || {
        let _ = permit.try_send(());
        stopping.is_finished()
    })
    .await;
    stopping.await.unwrap().unwrap();
    let events = stream.finish().await.events();
    assert_eq!(events.last().unwrap()["error"]["code"], "stopping");
    assert!(
        tokio::net::TcpStream::connect(at).await.is_err(),
        "it still listens"
    );
}

async fn start_error(options: ServerOptions) -> String {
    let never = std::future::pending::<()>();
    serve(options, never, |_| {}).await.unwrap_err().to_string()
}

#[tokio::test]
async fn what_keeps_a_server_from_starting_is_named() {
    let folder = model_folder();
    let good = options(folder.path());

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let message = start_error(ServerOptions {
        port,
        ..good.clone()
    })
    .await;
    assert!(
        message.contains(&format!("127.0.0.1:{port} is in use")),
        "{message}"
    );

    let model_path = folder.path().join("nowhere");
    let message = start_error(ServerOptions {
        model_path,
        ..good.clone()
    })
    .await;
    assert!(message.contains("nowhere` does not exist"), "{message}");

    let message = start_error(ServerOptions {
        threads: 0,
        ..good.clone()
    })
    .await;
    assert!(message.contains("`threads`: found 0"), "{message}");

    // More than any machine has, and little enough for the blocks to be numbered.
    let max_total_tokens = Some(1 << 35);
    let message = start_error(ServerOptions {
        max_total_tokens,
        ..good.clone()
    })
    .await;
    assert!(message.contains("not enough memory: "), "{message}");

    let context_length = Some(257);
    let message = start_error(ServerOptions {
        context_length,
        ..good.clone()
    })
    .await;
    assert!(
        message.contains("257 is more than the 256 positions"),
        "{message}"
    );

    write(
        folder.path(),
        "tokenizer.json",
        &embedded_server::tokenizer::generate(600),
    );
    let message = start_error(good.clone()).await;
    assert!(
        message.contains("600 ids but the model's `vocab_size` is 512"),
        "{message}"
    );

    for name in ["tokenizer.json", "config.json"] {
        std::fs::write(folder.path().join(name), "{").unwrap();
        let message = start_error(good.clone()).await;
        assert!(message.contains(name), "{message}");
        std::fs::remove_file(folder.path().join(name)).unwrap();
        let message = start_error(good.clone()).await;
        assert!(
            message.contains("cannot read") && message.contains(name),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_failing_load_ends_the_server() {
    let folder = model_folder();
    let server = Server::start_loading(
        |_| {},
        move |_| {
            Err(ServeError::ModelFolder {
                path: folder.path().to_owned(),
            })
        },
    )
    .await;
    let ended = server.ended().await;
    assert!(matches!(ended, Err(ServeError::ModelFolder { .. })));
}
