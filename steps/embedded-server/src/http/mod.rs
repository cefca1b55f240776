//! The server's face: OpenAI's routes and SGLang's administrative ones.
//!
//! It reads JSON, asks the engine and writes JSON; it schedules nothing and computes nothing.
//! Until the model is loaded every route answers 503.

mod admin;
mod error;
mod events;
mod faulty;
mod fields;
mod generate;
mod listen;
mod memory;
mod offline;
mod parse;
mod reply;
mod stream;
mod tokens;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::faults::Faults;
use crate::fleet::Fleet;
use crate::trace::Trace;
use error::ApiError;
pub use listen::accept;
pub(crate) use offline::{Counter, Said, Saying};
pub(crate) use parse::Served;

/// What every route shares, before and after the model is loaded.
pub(crate) struct App {
    max_body_bytes: usize,
    service: OnceLock<Arc<Service>>,
}

/// What routes need once the models are loaded.
pub(crate) struct Service {
    /// What requests are checked against, in the order of the fleet's models.
    served: Vec<Served>,
    fleet: Arc<Fleet>,
    trace: Option<Arc<Trace>>,
    faults: Option<Faults>,
    seed: u64,
    n_requests: AtomicU64,
}

/// The parts of a [`Service`].
pub(crate) struct ServiceParts {
    pub(crate) served: Vec<Served>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) trace: Option<Arc<Trace>>,
    pub(crate) faults: Option<Faults>,
    pub(crate) seed: u64,
}

impl Service {
    fn new(parts: ServiceParts) -> Self {
        Service {
            served: parts.served,
            fleet: parts.fleet,
            trace: parts.trace,
            faults: parts.faults,
            seed: parts.seed,
            n_requests: AtomicU64::new(0),
        }
    }
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
        self.service.get_or_init(|| Arc::new(Service::new(parts)));
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
        .route("/reset_prefix_cache", post(admin::flush_cache))
        .route("/metrics", get(admin::prometheus))
        .route("/trace", get(admin::trace))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/activate", post(memory::activate))
        .route("/deactivate", post(memory::deactivate))
        .route("/release_memory_occupation", post(memory::release))
        .route("/resume_memory_occupation", post(memory::resume))
        .route("/sleep", post(memory::sleep))
        .route("/wake_up", post(memory::wake_up))
        .route("/is_sleeping", get(memory::is_sleeping))
        .route("/get_model_names", get(memory::names).post(memory::names))
        .route(
            "/get_memory_pool_size",
            get(memory::pools).post(memory::pools),
        )
        .route("/swaps", get(memory::swaps))
        .route("/timeline", get(memory::timeline))
        .route("/forward_steps", get(admin::forward_steps))
        .fallback(admin::no_such_route)
        .method_not_allowed_fallback(admin::wrong_method)
        .layer(limit)
        .with_state(app)
}
