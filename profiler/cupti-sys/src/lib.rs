//! NVIDIA's CUPTI, as far as a profiler that is asleep most of the time needs it: activity records and
//! the subscription that they take.
//!
//! The library is found and loaded at run time, in whatever version the process has: [`find`] says where
//! it is looked for, [`Library::open`] calls nothing of it, [`Cupti::open`] asks its version. [`Quirk`]s
//! are what a version is known to do wrong. [`Strides`] are the sizes of its records, asked of the library
//! and held to a table; [`records`] reads a buffer by them and never beyond. Calls that a version lacks are
//! told apart from calls that fail.
//!
//! Written from NVIDIA's documents and headers, of which nothing is part of this crate. It starts no
//! thread, keeps no state and knows nothing of windows, sockets or files.
//!
//! Reading order: `constants` and `code` (numbers and their names), `version` (what is known of each),
//! `library`, `driver` and `find` (how one comes by it), `symbols` and `cupti` (what it can do),
//! `strides` and `records` (what it says).

#![deny(unsafe_code)]

mod constants;

mod code;

mod version;

mod library;

mod driver;

pub mod find;

mod symbols;

mod cupti;

pub mod records;

mod strides;

pub use code::{Code, CuptiError};
pub use constants::{Attribute, Domain, Flush, Kind, cbid};
pub use cupti::{Cupti, Subscriber};
pub use driver::Driver;
pub use library::{Library, LoadError};
pub use strides::{StrideError, Strides};
pub use symbols::{BufferCompleted, BufferRequested, Callback};
pub use version::{Quirk, Version};
