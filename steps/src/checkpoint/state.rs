//! What a load finds in memory: brought about, looked at, and never taken for granted.

use super::failure;
use checkpoints::cache::{self, Residency};
use engine::step::StepError;
use std::path::PathBuf;

/// The largest share of a file that may lie in the page cache if it is to be cold.
const COLD: f64 = 0.001;
/// How often the kernel is asked to evict; pages that are under way stay.
const TRIES: usize = 3;

engine::choices! {
    /// What is in memory when a load begins.
    pub enum StateChoice {
        /// Nothing in this kernel's page cache. What is below it, a hypervisor or a device with a cache of its own, is
        /// not known.
        GuestCold = "guest_cold",
        /// All of the files in the page cache.
        PageCache = "page_cache",
        /// All of the checkpoint in the pool; what is timed is the way from there to packed tensors.
        HostPool = "host_pool",
    }
}

/// What was found before a load.
pub(super) struct Found {
    pub(super) residency: Residency,
    /// Why a load from here is not what was asked for.
    pub(super) trouble: Option<String>,
}

/// Makes the page cache as it should be, as far as the kernel does it, and looks at it.
pub(super) fn prepare(state: StateChoice, paths: &[PathBuf]) -> Result<Found, StepError> {
    let mut residency = cache::residency(paths).map_err(failure)?;
    for _ in 0..TRIES {
        if trouble(state, &residency).is_none() {
            break;
        }
        match state {
            StateChoice::GuestCold => cache::evict(paths),
            StateChoice::PageCache => cache::warm(paths),
            StateChoice::HostPool => Ok(()),
        }
        .map_err(failure)?;
        residency = cache::residency(paths).map_err(failure)?;
    }
    let trouble = trouble(state, &residency);
    Ok(Found { residency, trouble })
}

/// Why a load is not from `state`, if it is not.
fn trouble(state: StateChoice, residency: &Residency) -> Option<String> {
    let share = residency.share();
    let percent = format!("{:.2} % of the files were in the page cache", 100.0 * share);
    match state {
        StateChoice::GuestCold if share > COLD => Some(format!(
            "{percent}, where at most 0.1 % may be for a cold load"
        )),
        StateChoice::PageCache if share < 1.0 - COLD => Some(format!(
            "{percent}, where at least 99.9 % must be for a warm load"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_cold_below_a_thousandth_and_warm_above_the_rest() {
        let residency = |pages| Residency {
            pages,
            of: 10_000,
            by: "cachestat",
        };
        for (state, pages, is_fine) in [
            (StateChoice::GuestCold, 10, true),
            (StateChoice::GuestCold, 11, false),
            (StateChoice::PageCache, 9_990, true),
            (StateChoice::PageCache, 9_989, false),
            (StateChoice::HostPool, 5_000, true),
        ] {
            assert_eq!(
                trouble(state, &residency(pages)).is_none(),
                is_fine,
                "{pages}"
            );
        }
    }
}
