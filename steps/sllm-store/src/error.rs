//! Why a store did not do what it was asked for.

use std::time::Duration;

/// What went wrong between this side and the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The address is none.
    #[error("`{url}` is no address of a store: {why}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody is there.
    #[error("no store answers at `{url}`: {why}")]
    Unreachable {
        /// Where it was searched.
        url: String,
        /// What the system said.
        why: String,
    },
    /// The connection ended before there was an answer.
    #[error("the store broke off `{call}`: {why}")]
    Broken {
        /// What was asked.
        call: &'static str,
        /// How it ended.
        why: String,
    },
    /// There was no answer in time.
    #[error("the store did not answer `{call}` within {} s", limit.as_secs_f64())]
    TooLong {
        /// What was asked.
        call: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The store said no.
    #[error("the store refused `{call}` with {code}: {message}")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// The code of gRPC.
        code: String,
        /// What it said; it rarely says anything, and its log does.
        message: String,
    },
    /// The store said yes, and something that does not belong to that.
    #[error("the store answered `{call}` with {found}, where {expected} was expected")]
    Answer {
        /// What was asked.
        call: &'static str,
        /// What it said.
        found: String,
        /// What belongs to a yes.
        expected: String,
    },
}
