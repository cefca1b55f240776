//! The users of a closed loop: each sends, waits for the end of the answer, and sends again.
//!
//! A request counts as scheduled when its user became free, so what the client adds between
//! two requests shows as lag.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use tokio::runtime::Handle;

use super::dispatch::{Dispatcher, Job};
use crate::{Load, Stop, clock::nanoseconds};

/// Starts the users of a closed load, who send at most `most` requests together.
pub(super) fn start(dispatcher: &Dispatcher, most: Option<u64>, runtime: &Handle) {
    let Load::Closed { concurrency } = dispatcher.context.plan.load else {
        return;
    };
    let next = Arc::new(AtomicU64::new(0));
    // A user without a request would only be a task that ends at once.
    let users = u64::from(concurrency.get()).min(most.unwrap_or(u64::MAX));
    for _ in 0..users {
        runtime.spawn(user(dispatcher.clone(), next.clone(), most));
    }
}

async fn user(dispatcher: Dispatcher, next: Arc<AtomicU64>, most: Option<u64>) {
    let context = dispatcher.context.clone();
    let end = match context.plan.stop {
        Stop::Requests(_) => u64::MAX,
        Stop::After(end) => nanoseconds(end),
    };
    tokio::time::sleep_until(context.clock.at(Duration::ZERO).into()).await;
    let mut scheduled = 0;
    while scheduled < end && !*context.stopped.borrow() {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if most.is_some_and(|most| index >= most) {
            let timed = matches!(context.plan.stop, Stop::After(_));
            context.exhausted.fetch_or(timed, Ordering::Relaxed);
            return;
        }
        context.gauge.arrived.add(1);
        let body = context.render(index);
        dispatcher
            .dispatch_now(Job {
                index,
                scheduled,
                body,
            })
            .await;
        scheduled = context.clock.now();
    }
}
