//! Before two embedded servers that queue, batch and move as with a model, each step taking a stated
//! time.

use std::net::SocketAddr;
use std::time::Duration;

use embedded_server::swapping::SwapPolicy;
use embedded_server::{ExecutorKind, ServeError, ServerOptions};
use gateway::{ModelConfig, Release, Standing};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{get, post, send};
use crate::fixture::{Gateway, model, until};

const WEIGHTS: u64 = 3 << 20;

struct Server {
    at: SocketAddr,
    shutdown: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    async fn start(name: &str) -> Server {
        let options = ServerOptions {
            executor: ExecutorKind::Sim,
            sim_steps: true,
            sim_tpot_ms: 2.0,
            sim_prefill_us: 1.0,
            sim_bytes_per_token: Some(64),
            sim_weight_bytes: Some(WEIGHTS),
            max_total_tokens: Some(65_536),
            context_length: Some(65_536),
            served_model_name: Some(name.to_owned()),
            port: 0,
            ..ServerOptions::default()
        };
        let (shutdown, stopped) = oneshot::channel::<()>();
        let (listening, address) = oneshot::channel();
        let served = tokio::spawn(embedded_server::serve(options, stopped, move |at| {
            listening.send(at).unwrap();
        }));
        let at = address.await.unwrap();
        until("the server to be ready", async || {
            get(at, "/health").await.status == 200
        })
        .await;
        Server {
            at,
            shutdown,
            served,
        }
    }

    async fn stop(self) {
        self.shutdown.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }

    async fn n_running(&self) -> Value {
        let info = get(self.at, "/server_info").await.json();
        info["internal_states"][0]["num_running_reqs"].clone()
    }
}

/// Two servers, and their models: the first begins on the device.
async fn two() -> ([Server; 2], Vec<ModelConfig>) {
    let servers = [Server::start("a").await, Server::start("b").await];
    let models = vec![
        model("a", servers[0].at, Release::Sglang, Standing::Active),
        model("b", servers[1].at, Release::Vllm, Standing::Off),
    ];
    (servers, models)
}

fn completion(model: &str, max_tokens: usize) -> Value {
    json!({ "model": model, "prompt": "one two three", "max_tokens": max_tokens,
            "temperature": 0, "ignore_eos": true })
}

fn streamed(model: &str, max_tokens: usize) -> String {
    let mut body = completion(model, max_tokens);
    body["stream"] = json!(true);
    body.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_off_comes_for_its_requests() {
    let (servers, models) = two().await;
    let gateway = Gateway::ready(models, |_| {}).await;
    assert_eq!(gateway.moves().await, ["b out asked"]);
    for name in ["b", "a", "b"] {
        let answer = post(gateway.at, "/v1/completions", &completion(name, 3)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json()["usage"]["completion_tokens"], 3);
        assert_eq!(answer.json()["model"], name);
    }
    let (b_comes, a_comes) = (
        ["a out victim", "b in queue"],
        ["b out victim", "a in queue"],
    );
    let moves = [&["b out asked"][..], &b_comes, &a_comes, &b_comes].concat();
    assert_eq!(gateway.moves().await, moves);
    let told = get(gateway.at, "/swaps").await.json();
    assert_eq!(told["clock"], "CLOCK_MONOTONIC");
    assert_eq!(told["failures"], json!([]));
    for moved in told["swaps"].as_array().unwrap() {
        // The embedded server tells what it copied.
        assert_eq!(moved["bytes"], WEIGHTS, "{moved}");
        assert!(moved["pool_bytes"].as_u64() > Some(0), "{moved}");
        assert!(moved["began_ns"].as_u64() <= moved["ended_ns"].as_u64());
    }
    let last = told["swaps"][6]["ended_ns"].as_u64().unwrap();
    let later = get(gateway.at, &format!("/swaps?since_ns={last}")).await;
    assert_eq!(later.json()["swaps"].as_array().unwrap().len(), 1);
    gateway.stop().await.unwrap();
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_until_enough_do() {
    let (_servers, models) = two().await;
    let change = |config: &mut gateway::Config| config.rules.queue_threshold = 3;
    let gateway = Gateway::ready(models, change).await;
    let body = completion("b", 2).to_string();
    let mut pending = Vec::new();
    for _ in 0..2 {
        pending.push(send(gateway.at, "POST", "/v1/completions", &body).await);
    }
    gateway.until_waiting(1, 2).await;
    assert_eq!(gateway.sampled(1).await["state"], "off");
    assert_eq!(gateway.moves().await, ["b out asked"]);
    pending.push(send(gateway.at, "POST", "/v1/completions", &body).await);
    for pending in pending {
        assert_eq!(pending.finish().await.status, 200);
    }
    let moves = ["b out asked", "a out victim", "b in queue"];
    assert_eq!(gateway.moves().await, moves);
    until("a sample after the swap", async || {
        let sampled = gateway.sampled(1).await;
        sampled["arrived"] == 3 && sampled["model_weights_memory"] == 1 << 20
    })
    .await;
    assert_eq!(gateway.sampled(0).await["model_weights_memory"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_ends_before_its_model_leaves() {
    let (_servers, models) = two().await;
    let gateway = Gateway::ready(models, |_| {}).await;
    let body = streamed("a", 60);
    let mut running = send(gateway.at, "POST", "/v1/completions", &body).await;
    running.read_until("data:").await;
    let other = post(gateway.at, "/v1/completions", &completion("b", 2)).await;
    assert_eq!(other.status, 200, "{}", other.text);
    let running = running.finish().await;
    assert_eq!(running.text.matches("\"finish_reason\":null").count(), 59);
    assert!(running.text.ends_with("data: [DONE]\n\n"));
    let told = get(gateway.at, "/swaps").await.json();
    let (out, came) = (&told["swaps"][1], &told["swaps"][2]);
    assert_eq!(
        (&out["model"], &out["direction"]),
        (&json!("a"), &json!("out"))
    );
    assert!(out["ended_ns"].as_u64() <= came["began_ns"].as_u64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_passes_and_a_server_s_own_name_is_no_matter() {
    let server = Server::start("something-else").await;
    let models = vec![model("a", server.at, Release::Auto, Standing::Off)];
    let gateway = Gateway::ready(models, |_| {}).await;
    let answer = post(gateway.at, "/v1/completions", &completion("a", 2)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let chat = json!({ "model": "a", "messages": [{ "role": "user", "content": "hi" }],
                       "max_tokens": 2, "slo": 30 });
    let answer = post(gateway.at, "/v1/chat/completions", &chat).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    // Where there is one model it need not be named.
    let native = json!({ "text": "hi", "sampling_params": { "max_new_tokens": 2 } });
    let answer = post(gateway.at, "/generate", &native).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        get(gateway.at, "/v1/models").await.json()["data"][0]["id"],
        "a"
    );
    let info = get(gateway.at, "/server_info").await.json();
    assert_eq!(info["simulated"], info["models"][0]["info"]["simulated"]);
    assert!(info["simulated"].is_string(), "{info}");
    let flushed = post(gateway.at, "/flush_cache", &json!({})).await;
    assert_eq!(flushed.status, 200, "{}", flushed.text);
    assert_eq!(gateway.moves().await, ["a out asked", "a in room"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_must_name_a_model_that_is_served() {
    let (_servers, models) = two().await;
    let gateway = Gateway::ready(models, |_| {}).await;
    let ask = async |body: Value| post(gateway.at, "/v1/completions", &body).await;
    let answer = ask(json!({ "prompt": "x" })).await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().contains("the models are `a`, `b`"));
    let answer = ask(completion("c", 1)).await;
    assert_eq!(answer.status, 404);
    assert!(answer.message().contains("the models are `a`, `b`"));
    let mut wrong = completion("a", 1);
    wrong["slo"] = json!(-1);
    assert!(ask(wrong).await.message().contains("field `slo`"));
    let broken = send(gateway.at, "POST", "/v1/completions", "{").await;
    assert_eq!(broken.finish().await.status, 400);
    assert_eq!(get(gateway.at, "/v2").await.status, 404);
    assert_eq!(get(gateway.at, "/v1/completions").await.status, 405);
    let answer = get(gateway.at, "/swaps?since_ns=x").await;
    assert!(answer.message().contains("field `since_ns`"));
    // What the server itself refuses comes back as it says it.
    let answer = ask(json!({ "model": "a", "prompt": "x", "max_tokens": -1 })).await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().contains("max_tokens"), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_would_be_late_is_told_so_where_that_is_asked_for() {
    let (_servers, models) = two().await;
    let change = |config: &mut gateway::Config| {
        config.aborts_late = true;
        config.rules.queue_threshold = 100;
        config.rules.lead = Duration::ZERO;
    };
    let gateway = Gateway::ready(models, change).await;
    let mut late = completion("b", 1);
    late["slo"] = json!(0.6);
    let answer = post(gateway.at, "/v1/completions", &late).await;
    assert_eq!(answer.status, 408, "{}", answer.text);
    gateway.until_waiting(1, 0).await;
    // On the device nobody waits, so nobody is late.
    let mut quick = completion("a", 1);
    quick["slo"] = json!(0.01);
    let answer = post(gateway.at, "/v1/completions", &quick).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_objective_that_presses_brings_its_model() {
    let (_servers, models) = two().await;
    let change = |config: &mut gateway::Config| config.rules.queue_threshold = 100;
    let gateway = Gateway::ready(models, change).await;
    let mut pressing = completion("b", 1);
    pressing["slo"] = json!(50);
    let answer = post(gateway.at, "/v1/completions", &pressing).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let moves = ["b out asked", "a out victim", "b in objective"];
    assert_eq!(gateway.moves().await, moves);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_model_leaves_under_the_enhanced_policy() {
    let (_servers, models) = two().await;
    let change = |config: &mut gateway::Config| {
        config.rules.policy = SwapPolicy::Enhanced;
        config.rules.idle = Duration::from_millis(20);
    };
    let gateway = Gateway::ready(models, change).await;
    until("the idle model to leave", async || {
        gateway.moves().await == ["b out asked", "a out idle"]
    })
    .await;
    let answer = post(gateway.at, "/v1/completions", &completion("a", 1)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(gateway.moves().await[2], "a in room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_and_a_client_that_left_makes_room() {
    let (_servers, models) = two().await;
    let change = |config: &mut gateway::Config| {
        config.rules.queue_threshold = 100;
        config.queue_limit = 1;
    };
    let gateway = Gateway::ready(models, change).await;
    let body = completion("b", 1).to_string();
    let waiting = send(gateway.at, "POST", "/v1/completions", &body).await;
    gateway.until_waiting(1, 1).await;
    let answer = post(gateway.at, "/v1/completions", &completion("b", 1)).await;
    assert_eq!(answer.status, 429);
    drop(waiting);
    gateway.until_waiting(1, 0).await;
    let _waiting = send(gateway.at, "POST", "/v1/completions", &body).await;
    gateway.until_waiting(1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_ends_its_request_on_the_server() {
    let (servers, models) = two().await;
    let gateway = Gateway::ready(models, |_| {}).await;
    let body = streamed("a", 60_000);
    let mut running = send(gateway.at, "POST", "/v1/completions", &body).await;
    running.read_until("data:").await;
    assert_eq!(servers[0].n_running().await, 1);
    drop(running);
    until("the server to be idle", async || {
        servers[0].n_running().await == 0
    })
    .await;
    // And so the model can leave.
    let other = post(gateway.at, "/v1/completions", &completion("b", 1)).await;
    assert_eq!(other.status, 200, "{}", other.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_told_of_and_the_others_go_on() {
    let (servers, models) = two().await;
    let gateway = Gateway::ready(models, |_| {}).await;
    let [a, b] = servers;
    b.stop().await;
    let answer = post(gateway.at, "/v1/completions", &completion("b", 1)).await;
    assert_eq!(answer.status, 502);
    let what = "model `b` could not come onto the device: no server answers at";
    assert!(answer.message().contains(what), "{}", answer.text);
    // The next one is told at once.
    let again = post(gateway.at, "/v1/completions", &completion("b", 1)).await;
    assert_eq!((again.status, again.message()), (502, answer.message()));
    let health = get(gateway.at, "/health").await;
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["models"][0]["trouble"], Value::Null);
    assert_eq!(health.json()["models"][1]["trouble"], answer.message());
    let told = get(gateway.at, "/swaps").await.json();
    assert_eq!(told["failures"][0]["model"], "b");
    assert_eq!(told["failures"][0]["direction"], "in");
    let other = post(gateway.at, "/v1/completions", &completion("a", 1)).await;
    assert_eq!(other.status, 200, "{}", other.text);
    a.stop().await;
    let answer = post(gateway.at, "/v1/completions", &completion("a", 1)).await;
    assert_eq!(answer.status, 502, "{}", answer.text);
    assert!(answer.message().contains("no server answers at"));
    let health = get(gateway.at, "/health").await.json();
    let trouble = health["models"][0]["trouble"].as_str().unwrap();
    assert!(trouble.contains("no server answers at"), "{trouble}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_that_fit_together_do_not_leave_for_each_other() {
    let (_servers, mut models) = two().await;
    models[1].begins = Standing::Active;
    let gateway = Gateway::ready(models, |config| config.most_active = 2).await;
    for name in ["a", "b", "a"] {
        let answer = post(gateway.at, "/v1/completions", &completion(name, 1)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(gateway.moves().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_brings_models_to_where_they_begin() {
    let (servers, models) = two().await;
    let gateway = Gateway::ready(models, |_| {}).await;
    let reset = async || post(gateway.at, "/reset", &json!({})).await;
    assert_eq!(reset().await.status, 200);
    assert_eq!(gateway.moves().await, ["b out asked"]);
    let answer = post(gateway.at, "/v1/completions", &completion("b", 1)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = reset().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let moves = ["a out victim", "b in queue", "b out asked", "a in asked"];
    assert_eq!(gateway.moves().await[1..], moves);
    // One that cannot come is told of.
    let answer = post(gateway.at, "/v1/completions", &completion("b", 1)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let [a, _b] = servers;
    a.stop().await;
    let answer = reset().await;
    assert_eq!(answer.status, 502);
    let why = "model `a` is not where it begins: model `a` could not come onto the device";
    assert!(answer.message().starts_with(why), "{}", answer.text);
}
