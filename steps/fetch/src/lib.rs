//! Brings data sets and models from hubs, servers and package indexes, whatever happens on the way.
//!
//! A [`Source`] says where something is. [`Fetcher::fetch`] finds out what files that means, brings each
//! of them by ranges over a few connections, holds it to its digest and says what it did in a
//! [`Receipt`]. What was brought before a cut, a kill or a power failure is not brought again.
//! [`unpack()`] takes archives apart within a folder; [`catalogue`] has names for what benchmarks use.
//!
//! Knows nothing of plans, steps or terminals.
//!
//! Reading order: `source` (what can be brought), `request` and `receipt` (what is asked
//! for, and what is told of it), `fetcher` (how the one becomes the other), `delivery` (what
//! came, until it is in its place), `download` (one
//! file from one of its mirrors), `ranges` and `partial` (what of it is there, and surely so),
//! `transfer` (its bytes), `client` (one request), then `hub`, `pypi` and `lfs` (who is asked for
//! addresses), `unpack` and `catalogue`.

#![forbid(unsafe_code)]

mod source;

mod receipt;
mod request;

mod fetcher;

mod delivery;

mod local;

mod download;

mod partial;
mod ranges;

mod transfer;

mod client;
mod patience;
mod remote;

mod hub;
mod lfs;
mod pypi;

mod unpack;

pub mod catalogue;

mod cache;
mod digest;
mod error;
mod names;
mod progress;
mod space;

pub use cache::Cache;
pub use client::{Client, Limits, Token};
pub use delivery::Delivery;
pub use digest::{Sha256, digest_file};
pub use error::FetchError;
pub use fetcher::Fetcher;
pub use names::Selection;
pub use progress::{Phase, Progress, bytes_text};
pub use receipt::{Fetched, Pin, Receipt};
pub use request::{Options, Request};
pub use source::{Hub, Pypi, RepoKind, Source, SourceError};
pub use unpack::{ArchiveKind, UnpackLimits, Unpacked, archive_kind, unpack};
