//! Several models on one device: side by side, and in turn.

use embedded_server::{ModelOptions, ServerOptions, load};
use serde_json::{Value, json};

use crate::client::{get, post, send};
use crate::fixture::{Server, model_folder, options, poll, reference};

/// Enough for both models and their caches.
const DEVICE: u64 = 4 << 20;

/// Two models of one folder, named `a` and `b`.
fn two(options: &mut ServerOptions, shares: [f64; 2], active: [bool; 2]) {
    let path = options.model_path.clone();
    options.device_memory_bytes = Some(DEVICE);
    options.swap.queue_threshold = 1;
    options.swap.quantum = std::time::Duration::ZERO;
    options.swap_period = std::time::Duration::from_millis(5);
    let model = |at: usize, name: &str| ModelOptions {
        path: path.clone(),
        name: name.to_owned(),
        mem_fraction_static: shares[at],
        is_active: active[at],
    };
    options.models = vec![model(0, "a"), model(1, "b")];
}

fn completion(model: &str, prompt: &[u32], max_tokens: usize) -> Value {
    json!({ "model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0,
            "ignore_eos": true, "return_token_ids": true })
}

async fn states(server: &Server) -> Vec<String> {
    let models = get(server.at, "/v1/models").await.json();
    let data = models["data"].as_array().unwrap();
    let state = |model: &Value| model["state"].as_str().unwrap().to_owned();
    data.iter().map(state).collect()
}

/// Who moved where and why, as `/swaps` tells it.
fn seen(told: &Value) -> Vec<String> {
    let moves = told["swaps"].as_array().unwrap().iter();
    let words = moves.map(|m| format!("{} {} {}", m["model"], m["direction"], m["reason"]));
    words.map(|words| words.replace('"', "")).collect()
}

#[tokio::test]
async fn models_side_by_side_share_the_device_s_memory_in_their_order() {
    let server = Server::start(|options| two(options, [0.5, 0.5], [true, true])).await;
    assert_eq!(states(&server).await, ["active", "active"]);
    let info = get(server.at, "/server_info").await.json();
    let used: Vec<u64> = [0, 1]
        .map(|i| {
            let memory = &info["models"][i]["internal_states"][0]["memory_usage"];
            memory["total_used_memory"].as_u64().unwrap()
        })
        .to_vec();
    // Half of all, then half of what is left, each in whole blocks.
    assert!(
        used[0] <= DEVICE / 2 && used[0] > DEVICE / 2 - 40_000,
        "{used:?}"
    );
    let left = DEVICE - used[0];
    assert!(
        used[1] <= left / 2 && used[1] > left / 2 - 40_000,
        "{used:?}"
    );
    assert_eq!(info["device_memory"]["free"], DEVICE - used[0] - used[1]);
    for model in ["a", "b"] {
        let answer = post(
            server.at,
            "/v1/completions",
            &completion(model, &[20, 21], 4),
        )
        .await;
        assert_eq!(
            (answer.status, &answer.json()["model"]),
            (200, &json!(model))
        );
    }
    let text = get(server.at, "/metrics").await;
    for model in ["a", "b"] {
        let series = format!("sglang:num_requests_total{{model_name=\"{model}\"}} 1\n");
        assert!(text.text().contains(&series));
    }
    let families = text.text().matches("# TYPE sglang:num_requests_total ");
    assert_eq!(families.count(), 1);
    let swaps = get(server.at, "/swaps").await.json();
    assert_eq!(swaps["swaps"], json!([]));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_model_must_be_named_and_known() {
    let server = Server::start(|options| two(options, [0.5, 0.5], [true, true])).await;
    let nameless = json!({ "prompt": [20] });
    let answer = post(server.at, "/v1/completions", &nameless).await;
    assert_eq!(answer.status, 400);
    let message = answer.error_message();
    assert!(message.contains("`a`, `b`"), "{message}");
    let answer = post(server.at, "/v1/completions", &completion("c", &[20], 1)).await;
    assert_eq!(answer.status, 404);
    assert!(answer.error_message().contains("the models are `a`, `b`"));
    let answer = post(server.at, "/activate", &json!({ "model_name": "c" })).await;
    assert_eq!(answer.status, 404);
    let answer = post(server.at, "/activate", &json!({})).await;
    assert!(answer.error_message().contains("field `model_name`"));
    let answer = post(
        server.at,
        "/deactivate",
        &json!({ "model_name": "a", "gpu_id": 1 }),
    )
    .await;
    assert!(answer.error_message().contains("field `gpu_id`"));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_model_that_is_off_comes_for_its_requests_and_computes_as_ever() {
    let folder = model_folder();
    let mut model = load(&options(folder.path())).unwrap().remove(0);
    let server = Server::start(|options| two(options, [0.8, 0.8], [true, false])).await;
    assert_eq!(states(&server).await, ["active", "off"]);
    let prompt = [20, 31, 42, 53];
    let expected = reference(&mut model, &prompt, 12);
    for name in ["b", "a", "b"] {
        let body = completion(name, &prompt, 12);
        let answer = post(server.at, "/v1/completions", &body).await.json();
        assert_eq!(
            answer["choices"][0]["token_ids"],
            json!(expected),
            "{answer}"
        );
    }
    let told = get(server.at, "/swaps").await.json();
    let moves = told["swaps"].as_array().unwrap();
    let seen = seen(&told);
    let (b_comes, a_comes) = (
        ["a out victim", "b in queue"],
        ["b out victim", "a in queue"],
    );
    assert_eq!(seen, [b_comes, a_comes, b_comes].concat());
    for moved in moves {
        assert!(moved["bytes"].as_u64() > Some(0) && moved["pool_bytes"].as_u64() > Some(0));
        let spent: f64 = ["drain_s", "copy_s", "pool_s"]
            .map(|n| moved[n].as_f64().unwrap())
            .iter()
            .sum();
        let took = moved["ended_ns"].as_u64().unwrap() - moved["began_ns"].as_u64().unwrap();
        assert!((spent - took as f64 / 1e9).abs() < 0.01, "{moved}");
    }
    let last = moves.last().unwrap()["ended_ns"].as_u64().unwrap();
    let later = get(server.at, &format!("/swaps?since_ns={last}"))
        .await
        .json();
    assert_eq!(later["swaps"].as_array().unwrap().len(), 1);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn as_many_models_leave_as_another_needs_the_room_of() {
    let server = Server::start(|options| {
        two(options, [0.4, 0.4], [true, true]);
        options.models.push(ModelOptions {
            name: "c".to_owned(),
            mem_fraction_static: 0.9,
            is_active: false,
            ..options.models[0].clone()
        });
    })
    .await;
    let body = completion("c", &[20, 31], 3);
    assert_eq!(post(server.at, "/v1/completions", &body).await.status, 200);
    let seen = seen(&get(server.at, "/swaps").await.json());
    assert_eq!(seen, ["a out victim", "b out victim", "c in queue"]);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn models_are_deactivated_and_activated_by_hand() {
    let server = Server::start(|options| {
        two(options, [0.8, 0.8], [true, false]);
        // Too little for both.
        options.device_memory_bytes = Some(DEVICE / 2);
        options.swap.queue_threshold = 100;
    })
    .await;
    let named = |name: &str| json!({ "model_name": name });
    let answer = post(server.at, "/activate", &named("b")).await;
    assert_eq!(
        (answer.status, &answer.json()["success"]),
        (400, &json!(false))
    );
    let answer = post(server.at, "/deactivate", &named("a")).await.json();
    assert_eq!(answer["success"], true);
    assert_eq!(answer["memory_usage"]["total_used_memory"], 0);
    assert_eq!(get(server.at, "/health_generate").await.status, 503);
    assert_eq!(
        get(server.at, "/is_sleeping").await.json()["is_sleeping"],
        true
    );
    let small = json!({ "model_name": "b", "memory_pool_size": 0.0001 });
    let answer = post(server.at, "/activate", &small).await.json();
    assert_eq!(answer["success"], true, "{answer}");
    let pool = answer["memory_usage"]["token_to_kv_pool_memory"]
        .as_u64()
        .unwrap();
    assert!(pool > 0 && pool <= 107_374, "{pool}");
    let info = get(server.at, "/server_info").await.json();
    let info = &info["models"][1];
    let capacity = info["internal_states"][0]["memory_usage"]["token_capacity"].as_u64();
    let bytes_per_token = info["cache"]["bytes_per_token"].as_u64().unwrap();
    assert_eq!(capacity, Some(pool / bytes_per_token));
    // The door knows the larger cache that it might have.
    let answer = post(
        server.at,
        "/v1/completions",
        &completion("b", &[20; 200], 40),
    )
    .await;
    let code = &answer.json()["error"]["code"];
    assert_eq!((answer.status, code), (400, &json!("cache_size_exceeded")));
    assert_eq!(get(server.at, "/health_generate").await.status, 200);
    assert_eq!(
        get(server.at, "/get_model_names").await.json()["model_names"],
        json!(["a", "b"])
    );
    // Samples are taken four times a second.
    poll(async || {
        let timeline = get(server.at, "/timeline").await.json();
        let last = timeline["samples"]
            .as_array()
            .and_then(|samples| samples.last());
        let states = last.map(|sample| [0, 1].map(|i| sample["models"][i]["state"].clone()));
        timeline["models"] == json!(["a", "b"]) && states == Some([json!("off"), json!("active")])
    })
    .await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn one_model_sleeps_and_wakes_too() {
    let server = Server::start(|_| {}).await;
    let tagged = |tag: &str| json!({ "tags": [tag] });
    let answer = post(server.at, "/release_memory_occupation", &tagged("kv")).await;
    assert_eq!(answer.status, 400);
    let path = "/release_memory_occupation";
    assert_eq!(post(server.at, path, &tagged("kv_cache")).await.status, 200);
    let mut waiting = send(
        server.at,
        "POST",
        "/v1/completions",
        &completion("tiny", &[20], 3).to_string(),
    )
    .await;
    poll(async || server.metric("num_queue_reqs").await == 1.0).await;
    assert_eq!(post(server.at, path, &tagged("weights")).await.status, 400);
    let path = "/resume_memory_occupation";
    assert_eq!(post(server.at, path, &tagged("weights")).await.status, 400);
    // Of both only the cache is missing.
    let moved = post(server.at, path, &json!({})).await.json();
    assert_eq!(moved["bytes"], 0);
    assert!(moved["pool_bytes"].as_u64() > Some(0), "{moved}");
    waiting.read_until("200 OK").await;
    assert_eq!(
        waiting.finish().await.json()["usage"]["completion_tokens"],
        3
    );
    assert_eq!(
        post(server.at, "/sleep?level=1", &json!({})).await.status,
        200
    );
    assert_eq!(
        get(server.at, "/is_sleeping").await.json()["is_sleeping"],
        true
    );
    assert_eq!(post(server.at, "/wake_up", &json!({})).await.status, 200);
    let body = completion("tiny", &[20], 3);
    assert_eq!(post(server.at, "/v1/completions", &body).await.status, 200);
    assert_eq!(
        post(server.at, "/sleep?mode=nap", &json!({})).await.status,
        400
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_would_miss_its_objective_is_told_so_by_its_status() {
    let server = Server::start(|options| {
        two(options, [0.8, 0.8], [true, false]);
        options.swap.queue_threshold = 100;
        options.swap.lead = std::time::Duration::ZERO;
        options.aborts_late = true;
    })
    .await;
    for stream in [true, false] {
        let mut body = completion("b", &[20], 3);
        (body["stream"], body["slo"]) = (json!(stream), json!(0.6));
        let answer = post(server.at, "/v1/completions", &body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (408, &json!("aborted"))
        );
    }
    let mut body = completion("a", &[20], 3);
    (body["stream"], body["slo"]) = (json!(true), json!(60));
    let answer = post(server.at, "/v1/completions", &body).await;
    assert_eq!((answer.status, answer.events().len()), (200, 4));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn models_that_do_not_fit_side_by_side_are_refused_at_the_start() {
    let folder = model_folder();
    let mut options = options(folder.path());
    two(&mut options, [1.0, 0.5], [true, true]);
    let served = embedded_server::serve(options, std::future::pending::<()>(), |_| {}).await;
    let message = served.unwrap_err().to_string();
    assert!(message.contains("model `b` does not fit"), "{message}");
}

#[tokio::test]
async fn several_models_need_a_device_and_names_of_their_own() {
    let folder = model_folder();
    let refused = async |change: &dyn Fn(&mut ServerOptions)| {
        let mut options = options(folder.path());
        two(&mut options, [0.5, 0.5], [true, true]);
        change(&mut options);
        let served = embedded_server::serve(options, std::future::pending::<()>(), |_| {}).await;
        served.unwrap_err().to_string()
    };
    let message = refused(&|o| o.device_memory_bytes = None).await;
    assert!(message.contains("`device_memory`"), "{message}");
    let message = refused(&|o| o.models[1].name = "a".to_owned()).await;
    assert!(message.contains("two models are called `a`"), "{message}");
    let message = refused(&|o| o.models[1].mem_fraction_static = 1.5).await;
    assert!(message.contains("`mem_fraction_statics`"), "{message}");
}
