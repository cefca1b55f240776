//! What installers say when they fail, and how to mend it. A pure function of their last lines.

use super::runner::Failure;
use crate::diagnosis;
use engine::step::{FailureClass, StepError};

/// Where a quoted line is cut, characters.
const LONGEST_LINE: usize = 300;

/// A kind of failure.
struct Rule {
    class: FailureClass,
    hint: &'static str,
    /// Any of these in lowercase.
    texts: &'static [&'static str],
}

/// The first that fits counts: what could not be reached cannot be told from what is not there.
const RULES: &[Rule] = &[
    Rule {
        class: FailureClass::Infrastructure,
        hint: "see that the index can be reached from here (`index`, proxies, certificates), then run it again",
        texts: &[
            "dns error",
            "failed to fetch",
            "connection refused",
            "connection reset",
            "connection broken",
            "newconnectionerror",
            "connecttimeout",
            "read timed out",
            "operation timed out",
            "certificate verify failed",
            "temporary failure in name resolution",
            "max retries exceeded",
        ],
    },
    Rule {
        class: FailureClass::Step,
        hint: "what lies at the index is not what the lock names: lock anew without `lock`, or see who changed it",
        texts: &[
            "hash mismatch",
            "do not match the hashes",
            "hashes are required",
        ],
    },
    Rule {
        class: FailureClass::Step,
        hint: "no choice of versions meets all of that: change `requirements` or `constraints`, or say with `overrides` what wins",
        texts: &[
            "no solution found",
            "resolutionimpossible",
            "conflicting dependencies",
            "requirements are unsatisfiable",
        ],
    },
    Rule {
        class: FailureClass::Step,
        hint: "see its name and version, and whether it is built for this Python and this machine; `extra_index` names further indexes",
        texts: &[
            "no matching distribution found",
            "could not find a version that satisfies",
            "was not found in the package registry",
            "no wheels with a matching",
        ],
    },
    Rule {
        class: FailureClass::Step,
        hint: "it has to be built here: install what its build asks for, or name a version that has a wheel",
        texts: &["failed to build", "failed building wheel", "build backend"],
    },
    Rule {
        class: FailureClass::Step,
        hint: "write each as pip reads it, such as `sglang==0.5.23`",
        texts: &[
            "couldn't parse requirement",
            "invalid requirement",
            "expected one of `@`",
        ],
    },
];

/// Builds the error of an installer that failed at `what`.
pub(super) fn failed(what: &str, failure: &Failure) -> StepError {
    let said = failure.said.join("\n").to_lowercase();
    let rule = RULES
        .iter()
        .find(|rule| rule.texts.iter().any(|text| said.contains(text)));
    let how = match failure.exit {
        Some(exit) => exit.to_string(),
        None => "took too long".to_owned(),
    };
    let quoted = telling(&failure.said, rule);
    let mut error = StepError::new(match quoted {
        Some(line) => format!("{what}: the installer {how}: `{line}`"),
        None => format!("{what}: the installer {how}"),
    });
    error.log.clone_from(&failure.log);
    match (rule, diagnosis::diagnose(&failure.said.join("\n"))) {
        (Some(rule), _) => error.help(rule.hint).class(rule.class),
        (None, Some(found)) => error.help(found.hint),
        (None, None) => error,
    }
}

/// The line that tells: the first one that fits, else the last one.
fn telling(said: &[String], rule: Option<&Rule>) -> Option<String> {
    let fits = |line: &&String| {
        let line = line.to_lowercase();
        rule.is_some_and(|rule| rule.texts.iter().any(|text| line.contains(text)))
    };
    let is_blank = |line: &&String| !line.trim().is_empty();
    let line = said.iter().find(fits);
    let line = line.or_else(|| said.iter().rev().find(is_blank))?;
    Some(line.trim().chars().take(LONGEST_LINE).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::process::Exit;

    fn said(lines: &[&str]) -> StepError {
        let failure = Failure {
            exit: Some(Exit::Code(1)),
            said: lines.iter().map(|line| (*line).to_owned()).collect(),
            log: None,
        };
        failed("could not lock the requirements", &failure)
    }

    #[test]
    fn what_installers_say_is_quoted_with_its_mend() {
        for (lines, hint, class) in [
            (
                &[
                    "  × No solution found when resolving dependencies:",
                    "  ╰─▶ Because you require six==1.16 and six==1.15, we can conclude that your",
                    "      requirements are unsatisfiable.",
                ][..],
                "`overrides`",
                FailureClass::Step,
            ),
            (
                &["ERROR: No matching distribution found for sglang==99"],
                "`extra_index`",
                FailureClass::Step,
            ),
            (
                &[
                    "error: Failed to fetch: `https://pypi.org/simple/six/`",
                    "  Caused by: dns error",
                ],
                "`index`",
                FailureClass::Infrastructure,
            ),
            (
                &["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES"],
                "lock anew",
                FailureClass::Step,
            ),
            (
                &["OSError: [Errno 28] No space left on device"],
                "make room",
                FailureClass::Step,
            ),
        ] {
            let error = said(lines);
            assert!(error.help.iter().any(|h| h.contains(hint)), "{error:?}");
            assert_eq!(error.class, class, "{error:?}");
            assert!(error.message.contains('`'), "{error:?}");
        }
    }

    #[test]
    fn what_nobody_knows_is_shown_as_it_is() {
        let error = said(&["all is lost", ""]);
        assert_eq!(
            error.message,
            "could not lock the requirements: the installer exited with status 1: `all is lost`"
        );
        assert_eq!(error.help, None);
    }
}
