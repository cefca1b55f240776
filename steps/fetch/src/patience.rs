//! How long something is tried: what a failure means, and how long to rest after it.

use crate::client::Limits;
use crate::error::FetchError;
use std::time::Duration;

/// Why one try failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Trying again may help.
    Again {
        /// What happened.
        why: String,
        /// How long the server asks to be left alone.
        after: Option<Duration>,
    },
    /// The source is not what it was: what was brought belongs to another.
    Changed,
    /// Trying again will not help.
    Never(FetchError),
}

impl Failure {
    pub(crate) fn again(why: impl Into<String>) -> Self {
        Self::Again {
            why: why.into(),
            after: None,
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::Never(error)
    }
}

/// Counts failures in a row.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    limits: &'a Limits,
    failures: u32,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            failures: 0,
        }
    }

    /// Something came: failures before it count no more.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Rests after a failure that may not be the last.
    ///
    /// # Errors
    /// [`FetchError::GivenUp`] if it was tried often enough, or would have to wait for too long.
    pub(crate) async fn rest(
        &mut self,
        url: &str,
        why: String,
        after: Option<Duration>,
    ) -> Result<(), FetchError> {
        self.failures += 1;
        let given_up = |why: String, tries: u32| FetchError::GivenUp {
            url: url.to_owned(),
            tries,
            why,
        };
        if let Some(asked) = after.filter(|asked| *asked > self.limits.longest_wait) {
            let why = format!("{why}, and it asks to wait for {} s", asked.as_secs());
            return Err(given_up(why, self.failures));
        }
        if self.failures >= self.limits.tries {
            return Err(given_up(why, self.failures));
        }
        let jitter = rand::random_range(0.5..1.0);
        let pause = pause(self.limits, self.failures, jitter);
        tokio::time::sleep(pause.max(after.unwrap_or_default())).await;
        Ok(())
    }
}

/// How long to rest after so many failures in a row: twice as long each time, up to a limit, and
/// less by chance, so that those who failed together do not come back together.
fn pause(limits: &Limits, failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = limits.first_pause.saturating_mul(1 << doublings);
    whole.min(limits.longest_pause).mul_f64(jitter)
}

/// Reads how long a server asks to be left alone: seconds, or a date that `now` is before.
pub(crate) fn retry_after(text: &str, now: std::time::SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        let limits = Limits {
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(5),
            ..Limits::default()
        };
        let pauses = [1, 2, 3, 4, 5, 60].map(|n| pause(&limits, n, 1.0).as_millis());
        assert_eq!(pauses, [500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(pause(&limits, 2, 0.5), Duration::from_millis(500));
    }

    #[test]
    fn servers_ask_by_seconds_or_by_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let ask = |text| retry_after(text, now);
        assert_eq!(ask(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(
            ask("Sun, 06 Nov 1994 08:49:40 GMT"),
            Some(Duration::from_secs(3))
        );
        assert_eq!(ask("Sun, 06 Nov 1994 08:49:30 GMT"), Some(Duration::ZERO));
        assert_eq!(ask("soon"), None);
    }

    #[test]
    fn who_asks_for_too_long_is_not_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let limits = Limits::default();
        let day = Some(Duration::from_secs(86_400));
        let error = runtime.block_on(async {
            let mut patience = Patience::new(&limits);
            patience.rest("http://h/a", "429".into(), day).await
        });
        let error = error.expect_err("too long").to_string();
        assert!(error.contains("asks to wait for 86400 s"), "{error}");
    }
}
