//! Quantiles, intervals over few samples, and the comparison of runs.
//!
//! Everything here is a pure function of numbers: it knows no requests, no runs and no units.
//! Two facts of benchmarking shape it. A failed request is a latency of `+inf`, so quantiles
//! and means accept infinities and never turn them into NaN. And the number of repeats is
//! small, so an interval that cannot be had from the samples given is `None`, never a guess.

#![forbid(unsafe_code)]

mod blocks;
mod compare;
mod interval;
mod line;
mod quantile;
mod student;
mod summary;

pub use blocks::{batch_means, moving_block_bootstrap};
pub use compare::{Effect, relative_difference, relative_effect};
pub use interval::{Interval, bootstrap_mean, mean_interval, median_interval, wilson};
pub use line::{Deviation, Level, Line};
pub use quantile::{Sorted, Weighted};
pub use student::{student_cdf, student_quantile};
pub use summary::{mean, median, standard_deviation, variance};
