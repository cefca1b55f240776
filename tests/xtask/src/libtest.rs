//! Reads what `cargo test` prints on stdout, line by line, into counts.
//!
//! A suite's own summary is believed over its single lines, which tests may garble by letting
//! child processes print among them. A suite that ends without a summary has died: what it
//! had passed counts, and its death is one failure.

use crate::tally::Tally;

/// The counts of all suites read so far.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    tally: Tally,
    failed: Vec<String>,
    ignored: Vec<Ignored>,
    open: Option<Suite>,
}

/// A test that did not run because its source says so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ignored {
    /// The test's path.
    pub(crate) name: String,
    /// The reason given in `#[ignore = "…"]`, or empty.
    pub(crate) reason: String,
}

/// A suite whose summary has not been seen yet.
#[derive(Debug, Default)]
struct Suite {
    passed: u64,
    last: Option<String>,
}

/// What one line tells.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Running,
    Passed(&'a str),
    Failed(&'a str),
    Ignored(&'a str, &'a str),
    Summary(Tally),
}

impl Reading {
    /// Takes the next line.
    pub(crate) fn line(&mut self, line: &str) {
        match classify(line) {
            None => {}
            Some(Line::Running) => {
                self.close();
                self.open = Some(Suite::default());
            }
            Some(Line::Passed(name)) => {
                if let Some(suite) = &mut self.open {
                    suite.passed += 1;
                    suite.last = Some(name.to_owned());
                }
            }
            Some(Line::Failed(name)) => self.failed.push(name.to_owned()),
            Some(Line::Ignored(name, reason)) => self.ignored.push(Ignored {
                name: name.to_owned(),
                reason: reason.to_owned(),
            }),
            Some(Line::Summary(counts)) => self.sum_up(counts),
        }
    }

    /// Ends the reading: a suite still open has died.
    pub(crate) fn end(&mut self) {
        self.close();
    }

    /// The counts of the suites that ended.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Names of failed tests, and words for suites that died.
    pub(crate) fn failed(&self) -> &[String] {
        &self.failed
    }

    /// Tests that their source says to ignore.
    pub(crate) fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// Only an open suite has a summary; another is a test's own printing.
    fn sum_up(&mut self, counts: Tally) {
        if self.open.take().is_some() {
            self.tally.add(counts);
        }
    }

    fn close(&mut self) {
        let Some(suite) = self.open.take() else {
            return;
        };
        self.tally.passed += suite.passed;
        self.tally.failed += 1;
        let last = suite.last.as_deref().unwrap_or("none");
        self.failed.push(format!(
            "a test binary that ended without a summary (the last to pass in it: {last})"
        ));
    }
}

fn classify(line: &str) -> Option<Line<'_>> {
    let line = line.trim_end();
    if let Some(counts) = line.strip_prefix("test result: ") {
        return summary(counts).map(Line::Summary);
    }
    if let Some(rest) = line.strip_prefix("running ") {
        let count = rest
            .strip_suffix(" tests")
            .or_else(|| rest.strip_suffix(" test"))?;
        return count.parse::<u64>().is_ok().then_some(Line::Running);
    }
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    match result {
        "ok" => Some(Line::Passed(name)),
        "FAILED" => Some(Line::Failed(name)),
        "ignored" => Some(Line::Ignored(name, "")),
        _ => result
            .strip_prefix("ignored, ")
            .map(|reason| Line::Ignored(name, reason)),
    }
}

/// Reads `ok. 3 passed; 0 failed; 1 ignored; …`.
fn summary(counts: &str) -> Option<Tally> {
    let (verdict, counts) = counts.split_once(". ")?;
    if !matches!(verdict, "ok" | "FAILED") {
        return None;
    }
    let count = |word: &str| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
    };
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Reading {
        let mut reading = Reading::default();
        text.lines().for_each(|line| reading.line(line));
        reading.end();
        reading
    }

    fn tally(passed: u64, failed: u64, skipped: u64) -> Tally {
        Tally {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn suites_and_doc_tests_add_up() {
        let reading = read(
            "\
running 4 tests
test journal::tests::reads ... ok
test journal::tests::writes - should panic ... ok
test soak_journal ... ignored, takes minutes
test gpu ... ignored

test result: ok. 2 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s


running 2 tests
test engine/src/lib.rs - (line 3) ... ok
test engine/src/store.rs - store::Store::open (line 9) ... FAILED

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.30s
",
        );
        assert_eq!(reading.tally(), tally(3, 1, 2));
        assert_eq!(
            reading.failed(),
            ["engine/src/store.rs - store::Store::open (line 9)"]
        );
        let ignored: Vec<_> = reading
            .ignored()
            .iter()
            .map(|test| (test.name.as_str(), test.reason.as_str()))
            .collect();
        assert_eq!(ignored, [("soak_journal", "takes minutes"), ("gpu", "")]);
    }

    #[test]
    fn a_summary_outweighs_garbled_lines() {
        let reading = read(
            "\
running 2 tests
test starts_a_server ... listening on 127.0.0.1:4000
ok
test ends ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
",
        );
        assert_eq!(reading.tally(), tally(2, 0, 0));
    }

    #[test]
    fn a_suite_that_dies_is_one_failure() {
        let died = "running 9 tests\ntest a ... ok\ntest b ... ok\n";
        let next = "running 1 test\ntest c ... ok\ntest result: ok. 1 passed; 0 failed; \
                    0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(read(died).tally(), tally(2, 1, 0));
        let both = read(&format!("{died}{next}"));
        assert_eq!(both.tally(), tally(3, 1, 0));
        assert!(both.failed()[0].ends_with("(the last to pass in it: b)"));
    }

    #[test]
    fn printing_that_looks_alike_counts_nothing() {
        for line in [
            "running late",
            "running 3 testsuites",
            "test result: lost. 3 passed; 0 failed; 0 ignored",
            "test result: ok. 3 passed",
            "test flight ... delayed",
            "latest a ... ok",
        ] {
            assert_eq!(classify(line), None, "{line}");
        }
        let alone = "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(read(alone).tally(), tally(0, 0, 0));
    }
}
