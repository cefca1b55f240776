//! Whether the run was ever in a steady state.
//!
//! A rate measured while the system fills or falls behind describes how long the run was.

use super::{Case, Check, Grade, Reason};
use crate::{
    Load, Outcome,
    metrics::{Window, WindowKind, open_mean},
};

impl Case<'_> {
    /// A window of a few latencies is mostly ramp. Bursts have no such window and are exempt.
    pub(super) fn window_length(&self) -> Option<Reason> {
        let window = self.metrics.window;
        if self.is_burst() {
            return None;
        }
        let latency = self.metrics.e2el.completed.mean?;
        let held = match window.kind {
            WindowKind::Steady => window.seconds() * 1e3 / latency.max(f64::MIN_POSITIVE),
            WindowKind::Whole | WindowKind::Unsteady => 0.0,
        };
        let message = match window.kind {
            WindowKind::Unsteady => {
                "no steady state: requests in the system never settled, so there are no steady rates"
                    .to_owned()
            }
            _ => format!(
                "no steady state: requests arrived for only {held:.1} times the mean latency of {latency:.1} ms"
            ),
        };
        (held < self.limits.window).then(|| Reason {
            check: Check::WindowLength,
            grade: Grade::Degraded,
            measured: Some(held),
            threshold: self.limits.window,
            message,
            help: "send more requests, or lower the rate".into(),
        })
    }

    /// In an open loop that the server keeps up with, as many requests are in the system in
    /// the last quarter of the arrivals as in the one before.
    pub(super) fn backlog(&self) -> Option<Reason> {
        if !matches!(self.info.load, Load::Open { .. }) || self.is_burst() {
            return None;
        }
        let Window { start, end, kind } = self.metrics.window;
        let quarter = (end - start) / 4;
        // In the system from when it was scheduled: what waits for a cap is backlog, too.
        let arrived = || {
            self.records
                .iter()
                .filter(|r| r.outcome != Outcome::Dropped)
        };
        let inside = |from| {
            let window = Window {
                start: from,
                end: from + quarter,
                kind,
            };
            open_mean(
                window,
                arrived().map(|record| (record.scheduled, record.done)),
            )
        };
        let (before, after) = (inside(start + 2 * quarter)?, inside(start + 3 * quarter)?);
        let growth = after / before.max(1.0) - 1.0;
        // Chance alone moves a Poisson-like number by its root.
        let chance = 2.0 * before.max(1.0).sqrt();
        (growth > self.limits.backlog && after - before > chance).then(|| Reason {
            check: Check::Backlog,
            grade: Grade::Degraded,
            measured: Some(growth),
            threshold: self.limits.backlog,
            message: format!(
                "no steady state: the server fell behind, {before:.1} requests were waiting or in flight, later {after:.1}"
            ),
            help: match self.metrics.steady.requests.or(self.metrics.whole.requests) {
                Some(rate) => {
                    format!("lower the rate below {rate:.2} requests/s, which is what was completed")
                }
                None => "lower the rate".to_owned(),
            },
        })
    }

    /// An open loop whose requests came at one instant.
    fn is_burst(&self) -> bool {
        matches!(self.info.load, Load::Open { .. }) && self.metrics.window.kind == WindowKind::Whole
    }
}
