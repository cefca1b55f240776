//! What the client saw at instants that others chose, to be set beside what they saw.

use super::latency::carried;
use crate::Record;

/// What the client saw at an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// Requests dispatched and not over.
    pub in_flight: u32,
    /// Output tokens received since the start of the run, of all requests, failed ones included.
    pub output_tokens: f64,
}

/// What the client saw at each of these instants, nanoseconds since the start of the run, ascending.
#[must_use]
pub fn moments(records: &[Record], at: &[u64]) -> Vec<Moment> {
    let from = |instant: u64| at.partition_point(|at| *at < instant);
    // What changes with each instant; what changes after the last one is of no interest.
    let mut requests = vec![0_i64; at.len() + 1];
    let mut tokens = vec![0.0; at.len() + 1];
    for record in records {
        if let Some(dispatched) = record.dispatched {
            requests[from(dispatched)] += 1;
            requests[from(record.done.max(dispatched))] -= 1;
        }
        for event in carried(record) {
            tokens[from(event.at)] += event.tokens;
        }
    }
    let (mut in_flight, mut output_tokens) = (0, 0.0);
    let changes = requests.into_iter().zip(tokens).take(at.len());
    let moment = |(requests, tokens)| {
        in_flight += requests;
        output_tokens += tokens;
        Moment {
            in_flight: u32::try_from(in_flight).unwrap_or(0),
            output_tokens,
        }
    };
    changes.map(moment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{MS, completed};

    #[test]
    fn a_request_is_in_flight_from_its_dispatch_until_it_is_over() {
        let records = [
            completed(0, 1, &[(11, 1), (21, 1), (41, 2)]),
            completed(10, 10, &[(30, 1), (60, 3)]),
        ];
        let at = [0, 1, 10, 30, 41, 60, 61].map(|ms| ms * MS);
        let seen = moments(&records, &at);
        let in_flight: Vec<u32> = seen.iter().map(|m| m.in_flight).collect();
        // What begins or ends at an instant has begun or ended then.
        assert_eq!(in_flight, [0, 1, 2, 2, 1, 0, 0]);
        let tokens: Vec<f64> = seen.iter().map(|m| m.output_tokens).collect();
        assert_eq!(tokens, [0.0, 0.0, 0.0, 3.0, 5.0, 8.0, 8.0]);
        assert!(moments(&records, &[]).is_empty());
    }
}
