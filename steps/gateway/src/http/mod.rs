//! What clients see: the routes of a server with several models.
//!
//! Requests go to their model's server as they came, and answers come back as they come; everything
//! else is answered here. Decides nothing about where models are.

mod admin;
mod error;
mod pass;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::fleet::Fleet;

/// All routes.
pub(crate) fn router(fleet: Arc<Fleet>) -> Router {
    let limit = DefaultBodyLimit::max(fleet.config.max_body_bytes);
    let flush = get(admin::flush_cache).post(admin::flush_cache);
    Router::new()
        .route("/v1/completions", post(pass::pass))
        .route("/v1/chat/completions", post(pass::pass))
        .route("/generate", post(pass::pass))
        .route("/v1/models", get(admin::models))
        .route("/health", get(admin::health))
        .route("/server_info", get(admin::server_info))
        .route("/get_server_info", get(admin::server_info))
        .route("/swaps", get(admin::swaps))
        .route("/timeline", get(admin::timeline))
        .route("/flush_cache", flush)
        .route("/reset", post(admin::reset))
        .fallback(admin::no_such_route)
        .method_not_allowed_fallback(admin::wrong_method)
        .layer(limit)
        .with_state(fleet)
}
