//! The server's face: OpenAI's routes and SGLang's administrative ones.
//!
//! It reads JSON, asks the engine and writes JSON; it schedules nothing and computes nothing.
//! Until the model is loaded every route answers 503.

mod admin;
mod error;
mod fields;
mod generate;
mod listen;
mod parse;
mod reply;
mod stream;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use serde_json::Value;

use crate::engine::EngineHandle;
use crate::metrics::Metrics;
use crate::scheduler::Door;
use crate::steplog::StepLog;
use crate::tokenizer::Tokenizer;
use crate::trace::Trace;
use error::ApiError;
pub(crate) use listen::accept;
use parse::Served;

/// What every route shares, before and after the model is loaded.
pub(crate) struct App {
    max_body_bytes: usize,
    service: OnceLock<Arc<Service>>,
}

/// What routes need once the model is loaded.
pub(crate) struct Service {
    served: Served,
    engine: EngineHandle,
    metrics: Arc<Metrics>,
    steps: Arc<StepLog>,
    /// The unchanging part of `/server_info`.
    info: Value,
    trace: Option<Arc<Trace>>,
    seed: u64,
    n_requests: AtomicU64,
}

/// The parts of a [`Service`].
pub(crate) struct ServiceParts {
    pub(crate) model_name: String,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) door: Door,
    pub(crate) vocab_size: usize,
    pub(crate) engine: EngineHandle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) steps: Arc<StepLog>,
    pub(crate) info: Value,
    pub(crate) trace: Option<Arc<Trace>>,
    pub(crate) seed: u64,
}

impl App {
    /// An app that is not ready.
    pub(crate) fn new(max_body_bytes: usize) -> Self {
        App {
            max_body_bytes,
            service: OnceLock::new(),
        }
    }

    /// Answers from now on. Only the first call counts.
    pub(crate) fn become_ready(&self, parts: ServiceParts) {
        self.service.get_or_init(|| {
            Arc::new(Service {
                served: Served {
                    model_name: parts.model_name,
                    tokenizer: parts.tokenizer,
                    door: parts.door,
                    vocab_size: parts.vocab_size,
                },
                engine: parts.engine,
                metrics: parts.metrics,
                steps: parts.steps,
                info: parts.info,
                trace: parts.trace,
                seed: parts.seed,
                n_requests: AtomicU64::new(0),
            })
        });
    }

    fn service(&self) -> Result<Arc<Service>, ApiError> {
        self.service.get().cloned().ok_or_else(ApiError::not_ready)
    }
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let limit = DefaultBodyLimit::max(app.max_body_bytes);
    Router::new()
        .route("/v1/completions", post(generate::completions))
        .route("/v1/chat/completions", post(generate::chat_completions))
        .route("/generate", post(generate::generate_native))
        .route("/v1/models", get(admin::models))
        .route("/health", get(admin::health))
        .route("/health_generate", get(admin::health_generate))
        .route("/model_info", get(admin::model_info))
        .route("/get_model_info", get(admin::model_info))
        .route("/server_info", get(admin::server_info))
        .route("/get_server_info", get(admin::server_info))
        .route(
            "/flush_cache",
            get(admin::flush_cache).post(admin::flush_cache),
        )
        .route("/metrics", get(admin::metrics))
        .route("/forward_steps", get(admin::forward_steps))
        .fallback(admin::no_such_route)
        .method_not_allowed_fallback(admin::wrong_method)
        .layer(limit)
        .with_state(app)
}
