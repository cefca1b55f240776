//! Texts into ids and back, as vLLM and SGLang offer it to clients that have another tokenizer.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::Fields;
use super::generate::LimitedBody;
use super::parse::{Served, chosen};
use super::{App, Service};
use crate::engine::Failure;

/// `POST /tokenize {"prompt": …, "add_special_tokens": …}`, which are added if that is absent.
pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    body: Result<LimitedBody, ApiError>,
) -> Result<Json<Value>, ApiError> {
    with_model(&app, body?.into_bytes(), |served, fields| {
        let text: String = required(fields, "prompt", "a string")?;
        let is_bare = fields.take("add_special_tokens", "`true` or `false`")? == Some(false);
        let ids = match is_bare {
            true => served.tokenizer.encode_rendered(&text)?,
            false => served.tokenizer.encode(&text)?,
        };
        Ok(json!({
            "tokens": ids,
            "count": ids.len(),
            "max_model_len": served.door.context_length,
        }))
    })
    .await
}

/// `POST /detokenize {"tokens": […]}`: the text by vLLM's name and by SGLang's.
pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    body: Result<LimitedBody, ApiError>,
) -> Result<Json<Value>, ApiError> {
    with_model(&app, body?.into_bytes(), |served, fields| {
        let ids: Vec<u32> = required(fields, "tokens", "an array of token ids")?;
        let text = served.tokenizer.decode(&ids);
        Ok(json!({ "prompt": text, "text": text }))
    })
    .await
}

/// Does something with the model that a body names, on a thread where it holds nobody up.
async fn with_model(
    app: &App,
    body: Bytes,
    answer: fn(&Served, &mut Fields) -> Result<Value, ApiError>,
) -> Result<Json<Value>, ApiError> {
    let service: Arc<Service> = app.service()?;
    let task = tokio::task::spawn_blocking(move || {
        let mut fields = Fields::parse(&body)?;
        let model = chosen(&mut fields, &service.served)?;
        answer(&service.served[model], &mut fields)
    });
    let answered = task.await;
    answered
        .unwrap_or_else(|_| Err(ApiError::from(Failure::Stopping)))
        .map(Json)
}

fn required<T: serde::de::DeserializeOwned>(
    fields: &mut Fields,
    name: &'static str,
    expected: &str,
) -> Result<T, ApiError> {
    let missing = || ApiError::field(name, format!("missing, expected {expected}"));
    fields.take(name, expected)?.ok_or_else(missing)
}
