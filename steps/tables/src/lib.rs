//! Tables of measurements: named columns in memory, Parquet on disk, and the few operations
//! that reports need.
//!
//! A [`Table`] is plain vectors, so that callers work with it without any data-frame library;
//! the Parquet files themselves are written and read by polars, which no other crate here
//! knows. It knows nothing of what the columns mean.
//!
//! ```
//! use tables::{Aggregate, Column, Table};
//!
//! let table = Table::new([
//!     ("cache", Column::text(["on", "off", "on"])),
//!     ("ttft_ms", Column::f64([20.0, 40.0, 30.0])),
//! ])?;
//! let by_cache = table.group_by(&["cache"])?.aggregate(&[Aggregate::Mean("ttft_ms")])?;
//! assert_eq!(by_cache.f64s("ttft_ms_mean")?, [Some(25.0), Some(40.0)]);
//! # Ok::<(), tables::TableError>(())
//! ```

#![forbid(unsafe_code)]

mod column;
mod table;

mod csv;
mod group;
mod parquet;

mod error;

pub use column::{Column, Kind, Value};
pub use error::TableError;
pub use group::{Aggregate, Groups};
pub use parquet::{read_parquet, write_parquet, write_parquet_with};
pub use table::{Order, Table};
