//! Work in which a panic is an error like others: who waits for its news would otherwise do so for ever.

use crate::step::StepError;
use tokio::task::JoinSet;

/// Waits for the end of `work`. Dropping the future drops the work.
///
/// # Errors
/// If it panics; the panic itself is told where panics are.
pub(super) async fn catching_panics<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, StepError> {
    let mut only = JoinSet::new();
    only.spawn(work);
    match only.join_next().await {
        Some(Ok(done)) => Ok(done),
        Some(Err(_)) | None => Err(
            StepError::new("the engine failed at it: see above for where")
                .help("this is a fault of benchwright; please report it with the lines above"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_everything_else_is_what_it_is() {
        assert_eq!(catching_panics(async { 7 }).await.unwrap(), 7);
        let error = catching_panics(async { panic!("on purpose") }).await;
        let error: StepError = error.map(|()| 0).unwrap_err();
        assert!(
            error.message.starts_with("the engine failed at it"),
            "{error}"
        );
    }
}
