//! A server that did not apply what it was asked for: what is measured on it is not what the plan says.

use crate::server::known::DIFFERENCES;
use engine::step::Verdict as StepVerdict;
use loadgen::{Check, Grade, Reason, Verdict};
use std::collections::BTreeMap;

/// The reason, if what is known of the server tells of a difference.
fn reason(target: &BTreeMap<String, String>) -> Option<Reason> {
    let differences = target.get(DIFFERENCES)?;
    Some(Reason {
        check: Check::Applied,
        grade: Grade::Invalid,
        measured: None,
        threshold: 0.0,
        message: format!("the server did not apply what it was asked for: {differences}"),
        help: "ask for what it can do here, or leave it open; its log says why it chose otherwise"
            .to_owned(),
    })
}

/// A verdict that knows of that, too.
pub(super) fn judged(verdict: Verdict, target: &BTreeMap<String, String>) -> Verdict {
    match reason(target) {
        Some(reason) => verdict.with(reason),
        None => verdict,
    }
}

/// The same for a verdict in the engine's words.
pub(super) fn held(mut verdict: StepVerdict, target: &BTreeMap<String, String>) -> StepVerdict {
    if let Some(reason) = reason(target) {
        verdict.grade = verdict.grade.max(super::grade(reason.grade));
        verdict.reasons.push(super::reason_text(&reason));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::step::Grade as StepGrade;

    #[test]
    fn a_difference_invalidates_and_is_told() {
        let valid = || Verdict {
            grade: Grade::Valid,
            reasons: Vec::new(),
            notes: Vec::new(),
        };
        let nothing = BTreeMap::new();
        assert_eq!(judged(valid(), &nothing).grade, Grade::Valid);
        let told = "`page_size` was asked to be 16 and is 1".to_owned();
        let target = BTreeMap::from([(DIFFERENCES.to_owned(), told)]);
        let found = judged(valid(), &target);
        assert_eq!(found.grade, Grade::Invalid);
        assert!(
            found.reasons[0].message.ends_with("16 and is 1"),
            "{found:?}"
        );
        let valid = StepVerdict {
            grade: StepGrade::Valid,
            reasons: Vec::new(),
        };
        let found = held(valid, &target);
        assert_eq!(found.grade, StepGrade::Invalid);
        assert!(
            found.reasons[0].contains("ask for what it can do"),
            "{found:?}"
        );
    }
}
