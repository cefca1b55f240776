//! Tells a service that hangs from one that is busy: it is asked again and again, and taken for
//! dead after so many failures in a row.
//!
//! Knows nothing of processes: what a death leads to is in `live`.

use crate::freshness::age;
use crate::policy::Liveness;
use crate::service::{DynService, Endpoint};
use std::time::Instant;

/// Failures in a row.
struct Failures {
    count: u32,
    since: Instant,
    last: String,
}

/// Returns once the service counts as dead, with a phrase that continues `it`; never if nothing
/// is to be asked.
pub(super) async fn until_dead(
    service: &dyn DynService,
    endpoint: &Endpoint,
    asked: &Liveness,
) -> String {
    let path = asked.http.clone().or_else(|| service.health());
    let Some(path) = path.filter(|_| asked.enabled) else {
        return std::future::pending().await;
    };
    let mut failures = Failures::none();
    loop {
        tokio::time::sleep(asked.every).await;
        match question(service, endpoint, &path, asked).await {
            Ok(()) => failures = Failures::none(),
            Err(why) => failures.add(why),
        }
        if failures.count >= asked.failures.get() {
            return failures.words(&path);
        }
    }
}

async fn question(
    service: &dyn DynService,
    endpoint: &Endpoint,
    path: &str,
    asked: &Liveness,
) -> Result<(), String> {
    let answer = service.http_status(endpoint, path);
    match tokio::time::timeout(asked.timeout, answer).await {
        Ok(Ok(200)) => Ok(()),
        Ok(Ok(status)) => Err(format!("status {status}")),
        Ok(Err(why)) => Err(why),
        Err(_) => {
            let limit = crate::types::duration_text(asked.timeout);
            Err(format!("no answer within {limit}"))
        }
    }
}

impl Failures {
    fn none() -> Self {
        Self {
            count: 0,
            since: Instant::now(),
            last: String::new(),
        }
    }

    fn add(&mut self, why: String) {
        if self.count == 0 {
            self.since = Instant::now();
        }
        self.count += 1;
        self.last = why;
    }

    fn words(&self, path: &str) -> String {
        format!(
            "hung: `{path}` failed {} times in a row over {}, the last time with: {}",
            self.count,
            age(self.since.elapsed().as_secs()),
            self.last
        )
    }
}
