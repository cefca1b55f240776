//! Counts of what passed, failed and was skipped, and the one line that says so.

use std::fmt;

/// How many passed, failed and were skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Adds another count to this one.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Whether anything ran, and nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_run_is_not_good() {
        let mut tally = Tally::default();
        assert!(!tally.is_good());
        tally.add(Tally {
            skipped: 2,
            ..Tally::default()
        });
        assert!(!tally.is_good());
        tally.add(Tally {
            passed: 1,
            ..Tally::default()
        });
        assert!(tally.is_good());
        tally.add(Tally {
            failed: 1,
            ..Tally::default()
        });
        assert!(!tally.is_good());
        assert_eq!(tally.to_string(), "1 passed, 1 failed, 2 skipped");
    }
}
