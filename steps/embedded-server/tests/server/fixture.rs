//! A tiny model in a temporary folder, and servers of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::Receiver;

use embedded_server::executor::{Batch, CacheShape, Executor, StepError, StepOutput};
use embedded_server::executor::{BlockId, Direction, HostBlockId, Phase, SequenceChunk};
use embedded_server::tokenizer::{Tokenizer, generate, generate_config};
use embedded_server::{
    Computing, LoadFormat, LoadedModel, ServeError, ServerOptions, load, serve_loaded,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{TIMEOUT, get};

pub(crate) const VOCAB: usize = 512;
/// Tokens of the model's context.
pub(crate) const CONTEXT: usize = 256;

/// A model folder: two small layers and a generated vocabulary.
pub(crate) fn model_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "tie_word_embeddings": false,
        "hidden_act": "silu", "attention_bias": false, "eos_token_id": 1,
    });
    write(folder.path(), "config.json", &config);
    write(folder.path(), "tokenizer.json", &generate(VOCAB));
    write(
        folder.path(),
        "tokenizer_config.json",
        &generate_config(CONTEXT),
    );
    folder
}

pub(crate) fn write(folder: &Path, name: &str, content: &Value) {
    std::fs::write(folder.join(name), content.to_string()).unwrap();
}

/// Options of a server of that model.
pub(crate) fn options(folder: &Path) -> ServerOptions {
    ServerOptions {
        model_path: folder.to_owned(),
        served_model_name: Some("tiny".to_owned()),
        load_format: LoadFormat::DummyScaled,
        deterministic: true,
        seed: 11,
        ..ServerOptions::default()
    }
}

/// A running server; dropping it without [`Server::stop`] ends it with the runtime.
pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    pub(crate) tokenizer: Tokenizer,
    shutdown: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
    _folder: tempfile::TempDir,
}

impl Server {
    /// A ready server, with options changed by `change`.
    pub(crate) async fn start(change: impl FnOnce(&mut ServerOptions)) -> Server {
        let server = Self::start_loading(change, load).await;
        server.become_ready().await;
        server
    }

    /// A ready server whose every step waits for a message in `permits`, until that is closed.
    pub(crate) async fn start_gated(
        change: impl FnOnce(&mut ServerOptions),
        permits: Receiver<()>,
    ) -> Server {
        let gated = |options: &ServerOptions| {
            let mut models = load(options)?;
            let mut model = models.remove(0);
            if let Computing::Model(inner) = model.computing {
                model.computing = Computing::Model(Box::new(Gated { inner, permits }));
            }
            models.insert(0, model);
            Ok(models)
        };
        let server = Self::start_loading(change, gated).await;
        server.become_ready().await;
        server
    }

    /// A server that may still be loading.
    pub(crate) async fn start_loading(
        change: impl FnOnce(&mut ServerOptions),
        load: impl FnOnce(&ServerOptions) -> Result<Vec<LoadedModel>, ServeError> + Send + 'static,
    ) -> Server {
        let folder = model_folder();
        let tokenizer = Tokenizer::load(folder.path()).unwrap();
        let mut options = options(folder.path());
        change(&mut options);
        let (shutdown, stopped) = oneshot::channel::<()>();
        let (listening, address) = oneshot::channel();
        let for_load = options.clone();
        let served = tokio::spawn(serve_loaded(
            options,
            move || load(&for_load),
            stopped,
            move |address| listening.send(address).unwrap(),
        ));
        let at = address.await.unwrap();
        Server {
            at,
            tokenizer,
            shutdown,
            served,
            _folder: folder,
        }
    }

    /// Waits until `/health` says so.
    pub(crate) async fn become_ready(&self) {
        poll(async || get(self.at, "/health").await.status == 200).await;
    }

    /// Waits until the server ends by itself.
    pub(crate) async fn ended(self) -> Result<(), ServeError> {
        tokio::time::timeout(TIMEOUT, self.served)
            .await
            .expect("the server does not end")
            .unwrap()
    }

    /// Stops the server and returns what it ended with.
    pub(crate) async fn stop(self) -> Result<(), ServeError> {
        self.shutdown.send(()).unwrap();
        tokio::time::timeout(TIMEOUT, self.served)
            .await
            .expect("the server does not end")
            .unwrap()
    }

    /// One figure of `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = get(self.at, "/metrics").await;
        let series = format!("sglang:{name}{{");
        let line = answer
            .text()
            .lines()
            .find(|line| line.starts_with(&series))
            .unwrap()
            .to_owned();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// Asks again and again until it is so, within the bound of all waits.
pub(crate) async fn poll(is_so: impl AsyncFn() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, asking)
        .await
        .expect("it never became so");
}

/// An executor whose steps wait.
struct Gated {
    inner: Box<dyn Executor>,
    permits: Receiver<()>,
}

impl Executor for Gated {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    fn cache_shape(&self) -> CacheShape {
        self.inner.cache_shape()
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<StepOutput<'_>, StepError> {
        // A closed channel lets every step pass.
        let _ = self.permits.recv();
        self.inner.step(batch)
    }

    fn weight_bytes(&self) -> u64 {
        self.inner.weight_bytes()
    }

    fn move_weights(&mut self, direction: Direction) {
        self.inner.move_weights(direction);
    }

    fn resize_cache(&mut self, n_blocks: u32) {
        self.inner.resize_cache(n_blocks);
    }

    fn n_host_blocks(&self) -> u32 {
        self.inner.n_host_blocks()
    }

    fn copy(&mut self, direction: Direction, pairs: &[(BlockId, HostBlockId)]) {
        self.inner.copy(direction, pairs);
    }
}

/// Greedy continuation of `prompt` by the executor alone: no server, no scheduler, no batch.
pub(crate) fn reference(model: &mut LoadedModel, prompt: &[u32], n_tokens: usize) -> Vec<u32> {
    let special = model.tokenizer.special_ids().to_vec();
    let Computing::Model(executor) = &mut model.computing else {
        panic!("a model")
    };
    let blocks: Vec<BlockId> = (0..executor.cache_shape().n_blocks).map(BlockId).collect();
    let mut tokens = prompt.to_vec();
    let mut position = 0;
    while tokens.len() < prompt.len() + n_tokens {
        let phase = if position == 0 {
            Phase::Prefill
        } else {
            Phase::Decode
        };
        let chunk = SequenceChunk {
            tokens: &tokens[position..],
            position,
            blocks: &blocks,
            wants_logits: true,
        };
        let output = executor
            .step(&Batch {
                phase,
                sequences: vec![chunk],
            })
            .unwrap();
        let allowed = output
            .logits
            .iter()
            .zip(0u32..)
            .filter(|(_, id)| !special.contains(id));
        let best = allowed.reduce(|best, next| if next.0 > best.0 { next } else { best });
        let next = best.unwrap().1;
        position = tokens.len();
        tokens.push(next);
    }
    tokens.split_off(prompt.len())
}
