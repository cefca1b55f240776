//! Gateways on free ports, and waiting for what is to come true.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway::{Config, GatewayError, ModelConfig, Release, Standing, serve};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{LIMIT, get};

/// A running gateway; dropped without [`Gateway::stop`] it ends with the runtime.
pub(crate) struct Gateway {
    pub(crate) at: SocketAddr,
    shutdown: oneshot::Sender<()>,
    served: JoinHandle<Result<(), GatewayError>>,
    /// Failures that it told of.
    pub(crate) told: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn model(name: &str, at: SocketAddr, release: Release, begins: Standing) -> ModelConfig {
    ModelConfig {
        name: name.to_owned(),
        url: format!("http://{at}"),
        release,
        memory_bytes: Some(1 << 20),
        found: Standing::Active,
        begins,
    }
}

impl Gateway {
    /// A gateway that swaps for a single request and looks often, changed by `change`.
    pub(crate) async fn start(
        models: Vec<ModelConfig>,
        change: impl FnOnce(&mut Config),
    ) -> Gateway {
        let mut config = Config {
            models,
            period: Duration::from_millis(5),
            ..Config::default()
        };
        config.rules.queue_threshold = 1;
        config.rules.quantum = Duration::ZERO;
        change(&mut config);
        let (shutdown, stopped) = oneshot::channel::<()>();
        let (listening, address) = oneshot::channel();
        let told = Arc::new(Mutex::new(Vec::new()));
        let failures = told.clone();
        let served = tokio::spawn(serve(
            config,
            stopped,
            move |at| listening.send(at).unwrap(),
            move |failure: &str| failures.lock().unwrap().push(failure.to_owned()),
        ));
        let at = address.await.unwrap();
        Gateway {
            at,
            shutdown,
            served,
            told,
        }
    }

    /// As [`Gateway::start`], and every model is where it shall begin.
    pub(crate) async fn ready(
        models: Vec<ModelConfig>,
        change: impl FnOnce(&mut Config),
    ) -> Gateway {
        let gateway = Self::start(models, change).await;
        until("the gateway to be ready", async || {
            get(gateway.at, "/health").await.status == 200
        })
        .await;
        gateway
    }

    pub(crate) async fn stop(self) -> Result<(), GatewayError> {
        self.shutdown.send(()).unwrap();
        let served = tokio::time::timeout(LIMIT, self.served).await;
        served.expect("it does not end").unwrap()
    }

    /// Moves so far, in words.
    pub(crate) async fn moves(&self) -> Vec<String> {
        let told = get(self.at, "/swaps").await.json();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let words = |moved: &Value| {
            let words = ["model", "direction", "reason"].map(|field| word(&moved[field]));
            words.join(" ")
        };
        told["swaps"]
            .as_array()
            .unwrap()
            .iter()
            .map(words)
            .collect()
    }

    /// What the last sample tells of a model.
    pub(crate) async fn sampled(&self, model: usize) -> Value {
        let told = get(self.at, "/timeline").await.json();
        let last = told["samples"].as_array().unwrap().last().cloned();
        last.map_or(Value::Null, |sample| sample["models"][model].clone())
    }

    pub(crate) async fn until_waiting(&self, model: usize, n: u64) {
        until("requests to wait", async || {
            self.sampled(model).await["waiting"] == n
        })
        .await;
    }
}

/// Asks until it is so; fails the test when it is not in time.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < LIMIT, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
