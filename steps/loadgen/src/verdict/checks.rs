//! The checks, one function each: a reason, or nothing to object.

use super::{Case, Check, Grade, Reason, Thresholds};
use crate::{Class, ClientError, Load, Outcome, OutputLength, Record, run::Ended};

/// `NN.N %`.
fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The grade of a value against two limits, and the limit that it crossed.
fn graded(value: f64, (degraded, invalid): (f64, f64)) -> Option<(Grade, f64)> {
    if value > invalid {
        Some((Grade::Invalid, invalid))
    } else if value > degraded {
        Some((Grade::Degraded, degraded))
    } else {
        None
    }
}

/// Objects to what the client adds to numbers of completed requests, in milliseconds, as `measured` has
/// them under the names of [`ClientError::worst`], where that is much of them.
#[must_use]
pub fn client_error(
    error: &ClientError,
    measured: impl Fn(&str) -> Option<f64>,
    limits: &Thresholds,
) -> Option<Reason> {
    let worst = error.worst(measured)?;
    let (grade, threshold) = graded(worst.share, limits.client_error)?;
    Some(Reason {
        check: Check::ClientError,
        grade,
        measured: Some(worst.share),
        threshold,
        message: format!(
            "the client adds {:.3} ms to `{}` under this load, {}",
            worst.added_ms,
            worst.name,
            match worst.share.is_finite() {
                true => format!("{} of what was measured", percent(worst.share)),
                false => "which was measured as 0".to_owned(),
            }
        ),
        help: "give the client processors of its own, or lower the load".into(),
    })
}

impl Case<'_> {
    pub(super) fn reasons(&self) -> Vec<Reason> {
        if let Some(nothing) = self.nothing() {
            return vec![nothing];
        }
        let checks = [
            self.interrupted(),
            self.exhausted(),
            self.failures(),
            self.broken(
                Class::InBand,
                Check::InBandErrors,
                "reported an error inside their stream",
            ),
            self.broken(
                Class::Truncated,
                Check::Truncated,
                "ended before they were finished",
            ),
            self.offered_rate(),
            self.concurrency(),
            self.client_lag(),
            self.client_error(),
            self.client_cpu(),
            self.littles_law(),
            self.output_length(),
            self.usage(),
            self.window_length(),
            self.backlog(),
        ];
        checks.into_iter().flatten().collect()
    }

    fn nothing(&self) -> Option<Reason> {
        (self.metrics.counts.completed + self.metrics.counts.failed == 0).then(|| Reason {
            check: Check::Complete,
            grade: Grade::Invalid,
            measured: Some(0.0),
            threshold: 1.0,
            message: "no request was answered or failed: nothing was measured".into(),
            help: "let the run last longer".into(),
        })
    }

    fn interrupted(&self) -> Option<Reason> {
        let dropped = self.metrics.counts.dropped;
        (self.info.ended == Ended::Interrupted || dropped > 0).then(|| Reason {
            check: Check::Complete,
            grade: Grade::Invalid,
            measured: Some(dropped as f64),
            threshold: 0.0,
            message: format!("the run was interrupted with {dropped} requests unanswered"),
            help: "run it again to its end".into(),
        })
    }

    fn exhausted(&self) -> Option<Reason> {
        (self.info.ended == Ended::Exhausted).then(|| Reason {
            check: Check::Exhausted,
            grade: Grade::Degraded,
            measured: Some(self.records.len() as f64),
            threshold: self.records.len() as f64,
            message: format!(
                "the workload's {} requests were used up before the time was",
                self.records.len()
            ),
            help: "make the workload longer, or let it cycle".into(),
        })
    }

    fn failures(&self) -> Option<Reason> {
        let counts = &self.metrics.counts;
        let share = counts.error_rate().filter(|share| *share > 0.0)?;
        let first = self
            .records
            .iter()
            .find(|r| matches!(r.outcome, Outcome::Failed(_)))?;
        let (grade, threshold) =
            graded(share, (0.0, self.limits.failures)).unwrap_or((Grade::Degraded, 0.0));
        let of = counts.completed + counts.failed;
        let message = match counts.completed {
            0 => format!("all {of} requests failed"),
            _ => format!(
                "{} of {of} requests failed ({})",
                counts.failed,
                percent(share)
            ),
        };
        let why = first.error.as_deref().unwrap_or("no message");
        Some(Reason {
            check: Check::Failures,
            grade: if counts.completed == 0 {
                Grade::Invalid
            } else {
                grade
            },
            measured: Some(share),
            threshold,
            message,
            help: format!(
                "look at the server's log; the first failure was `{}`: {why}",
                first.outcome
            ),
        })
    }

    fn broken(&self, class: Class, check: Check, what: &str) -> Option<Reason> {
        let counts = &self.metrics.counts;
        let broken = self
            .records
            .iter()
            .filter(|r| r.outcome == Outcome::Failed(class))
            .count();
        let share = broken as f64 / (counts.completed + counts.failed) as f64;
        let (grade, threshold) = graded(share, (0.0, self.limits.broken_streams))?;
        Some(Reason {
            check,
            grade,
            measured: Some(share),
            threshold,
            message: format!("{broken} answers {what} ({})", percent(share)),
            help: "look at the server's log for crashes, aborts and memory".into(),
        })
    }

    fn offered_rate(&self) -> Option<Reason> {
        let (offered, achieved) = (self.metrics.offered_rate?, self.metrics.achieved_rate);
        let missed = achieved.map(|achieved| (achieved / offered - 1.0).abs());
        let (grade, threshold) = match missed {
            Some(missed) => graded(missed, self.limits.rate)?,
            None => (Grade::Invalid, self.limits.rate.1),
        };
        Some(Reason {
            check: Check::OfferedRate,
            grade,
            measured: missed,
            threshold,
            message: format!(
                "{offered:.3} requests/s were offered but {:.3} achieved",
                achieved.unwrap_or(0.0)
            ),
            help: match self.info.load {
                Load::Open {
                    max_in_flight: Some(cap),
                    ..
                } => {
                    format!("raise the cap of {cap} requests in flight, or lower the rate")
                }
                _ => "give the client more processors, or lower the rate".into(),
            },
        })
    }

    fn concurrency(&self) -> Option<Reason> {
        // Users who think are not to keep a request in flight all the time.
        let Load::Closed {
            concurrency,
            think: None,
            ..
        } = self.info.load
        else {
            return None;
        };
        let wanted = f64::from(concurrency.get());
        let mean = self.metrics.concurrency_mean;
        let missed = mean.map(|mean| 1.0 - mean / wanted);
        let (grade, threshold) = match missed {
            Some(missed) => graded(missed, self.limits.concurrency)?,
            None => (Grade::Invalid, self.limits.concurrency.1),
        };
        Some(Reason {
            check: Check::Concurrency,
            grade,
            measured: missed,
            threshold,
            message: format!(
                "{concurrency} users kept {:.2} requests in flight",
                mean.unwrap_or(0.0)
            ),
            help: "send several requests per user, and give the client more processors".into(),
        })
    }

    fn client_lag(&self) -> Option<Reason> {
        let lag = self.metrics.client_lag.all.p99;
        // Failures push the signal to infinity, where any lag would look small.
        let signal = self.metrics.ttft.completed.p50;
        let share = lag
            .zip(signal)
            .map(|(lag, signal)| lag / signal.max(f64::MIN_POSITIVE));
        let (grade, threshold) = match share {
            Some(share) => graded(share, self.limits.client_lag)?,
            None => (Grade::Degraded, self.limits.client_lag.0),
        };
        let message = match (lag, signal) {
            (Some(lag), Some(signal)) => format!(
                "requests left the client up to {lag:.3} ms late (p99), with a median time to first token of {signal:.3} ms"
            ),
            _ => "the client's lag cannot be compared with any time to first token".into(),
        };
        Some(Reason {
            check: Check::ClientLag,
            grade,
            measured: share.filter(|share| share.is_finite()),
            threshold,
            message,
            help: match self.info.load {
                Load::Open {
                    max_in_flight: Some(cap),
                    ..
                } => {
                    format!("raise the cap of {cap} requests in flight, where arrivals wait")
                }
                _ => "give the client processors of its own, or lower the load".into(),
            },
        })
    }

    fn client_error(&self) -> Option<Reason> {
        let (ttft, itl) = (&self.metrics.ttft.completed, &self.metrics.itl.completed);
        let measured = |name: &str| match name {
            "ttft_p50" => ttft.p50,
            "ttft_p99" => ttft.p99,
            "itl_p50" => itl.p50,
            _ => itl.p99,
        };
        client_error(self.error?, measured, self.limits)
    }

    fn client_cpu(&self) -> Option<Reason> {
        // In made-up time the client takes none.
        if self.info.is_offline {
            return None;
        }
        let used = self.info.client;
        let most = f64::from(used.threads.min(used.cores).max(1));
        let wall = self.info.wall_ns.max(1) as f64;
        let share = used.cpu_ns.map(|cpu| cpu as f64 / wall / most);
        let (grade, threshold) = match share {
            Some(share) => graded(share, self.limits.client_cpu)?,
            None => (Grade::Degraded, self.limits.client_cpu.0),
        };
        let message = match share {
            Some(share) => format!("the client used {} of its processors", percent(share)),
            None => "how busy the client was is unknown".into(),
        };
        Some(Reason {
            check: Check::ClientCpu,
            grade,
            measured: share,
            threshold,
            message,
            help: "give the client more processors, or lower the load".into(),
        })
    }

    /// Requests in flight, integrated live, against the sum of the records' durations.
    fn littles_law(&self) -> Option<Reason> {
        let lasted = |record: &Record| {
            record
                .dispatched
                .map(|from| record.done.saturating_sub(from))
        };
        let recorded: u64 = self.records.iter().filter_map(lasted).sum();
        let live = self.info.in_flight_area_ns as f64;
        let distance = (recorded as f64 - live).abs() / live.max(1.0);
        let (grade, threshold) = graded(distance, self.limits.littles_law)?;
        let wall = self.info.wall_ns.max(1) as f64;
        Some(Reason {
            check: Check::LittlesLaw,
            grade,
            measured: Some(distance),
            threshold,
            message: format!(
                "{:.3} requests were in flight on average, but rate × latency says {:.3}",
                live / wall,
                recorded as f64 / wall
            ),
            help: "records are missing or their instants are wrong; report it as a defect".into(),
        })
    }

    fn output_length(&self) -> Option<Reason> {
        let wrong = |record: &&Record| {
            let (got, asked) = (
                record.answer_tokens(),
                u64::from(record.output_tokens.get()),
            );
            match self.info.length {
                OutputLength::Exact => got != asked,
                OutputLength::AtMost => got > asked,
            }
        };
        // Without the server's count an answer's length is unknown, which is another check.
        let known = || {
            self.records
                .iter()
                .filter(|r| r.completed() && r.usage.is_some())
        };
        let count = known().filter(wrong).count();
        let share = count as f64 / known().count().max(1) as f64;
        let (grade, threshold) = graded(share, (0.0, self.limits.output_length))?;
        let first = known().find(wrong)?;
        Some(Reason {
            check: Check::OutputLength,
            grade,
            measured: Some(share),
            threshold,
            message: format!(
                "{count} answers ({}) have the wrong length: `{}` has {} tokens of {}",
                percent(share),
                first.request,
                first.answer_tokens(),
                first.output_tokens
            ),
            help: match self.info.length {
                OutputLength::Exact => "use a server that honours `ignore_eos`, allow shorter answers, or look for a context limit",
                OutputLength::AtMost => "use a server that honours `max_tokens`",
            }
            .into(),
        })
    }

    fn usage(&self) -> Option<Reason> {
        let completed = self.records.iter().filter(|r| r.completed());
        let missing = completed.filter(|r| r.usage.is_none()).count();
        let share = missing as f64 / self.metrics.counts.completed.max(1) as f64;
        let (grade, threshold) = graded(share, (0.0, f64::INFINITY))?;
        Some(Reason {
            check: Check::Usage,
            grade,
            measured: Some(share),
            threshold,
            message: format!(
                "the server did not count the tokens of {missing} answers ({}); pieces were counted instead",
                percent(share)
            ),
            help: "use a server that honours `stream_options.include_usage`".into(),
        })
    }
}
