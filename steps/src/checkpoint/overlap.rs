//! What rows tell of loads beside their stages: how well these overlap, what `io_uring` read into, how memory was
//! watched, and how near a load is to what is possible.

use super::best::Ceiling;
use super::rounds::{Rounds, Timed};
use crate::result::Row;
use checkpoints::loader::{Buffers, Way};
use std::collections::BTreeSet;

/// Values of rows: name, unit, meaning.
pub(super) const DEFINITIONS: &[(&str, &str, &str)] = &[
    (
        "total_over_longest",
        "",
        "total_ms / the longest stage: 1 if all others go on beside it",
    ),
    (
        "matching",
        "GB/s",
        "the median of storage.ceiling's job with as many blocks of the same length at once",
    ),
    ("matching_share", "", "rate / matching"),
];

/// Adds what one load has to tell; `rate` is its own, GB/s.
pub(super) fn add(
    row: &mut Row,
    timed: &Timed,
    rounds: &Rounds,
    ceiling: Option<&Ceiling>,
    rate: f64,
) {
    // The first tensor's time is an instant, and no stage.
    let stages = timed
        .parts
        .iter()
        .filter(|(name, _)| *name != "first_tensor_ms");
    let longest = stages.map(|(_, time)| *time).max().unwrap_or_default();
    if !longest.is_zero() {
        row.set(
            "total_over_longest",
            timed.total.as_secs_f64() / longest.as_secs_f64(),
        );
    }
    if let Some(buffers) = &timed.buffers {
        let word = match buffers {
            Buffers::Registered => "registered",
            Buffers::Plain(_) => "plain",
        };
        row.labels.insert("buffers".to_owned(), word.to_owned());
    }
    let Some(ceiling) = ceiling else { return };
    row.set("ceiling", ceiling.rate);
    row.set("ceiling_share", rate / ceiling.rate);
    if !ceiling.doubts.is_empty() {
        row.labels
            .insert("ceiling_trust".to_owned(), "doubtful".to_owned());
    }
    let matching = |way: Way| ceiling.matching(way, way.places(rounds.effort), rounds.block);
    if let Some(matching) = timed.way.and_then(matching) {
        row.set("matching", matching);
        row.set("matching_share", rate / matching);
    }
}

/// Remarks on all loads.
pub(super) fn notes(timed: &[Timed], ceiling: Option<&Ceiling>) -> Vec<String> {
    let why = |timed: &Timed| match &timed.buffers {
        Some(Buffers::Plain(why)) => Some(format!(
            "`{}` read into plain buffers: {why}",
            Way::IoUring.word()
        )),
        _ => None,
    };
    let mut notes: BTreeSet<String> = timed.iter().filter_map(why).collect();
    let peaks = timed.iter().filter_map(|timed| timed.peak_memory);
    notes.extend(peaks.filter(|peak| peak.by != "VmHWM").map(|peak| {
        format!(
            "the kernel forgets no peak of memory: it was told by {}",
            peak.by
        )
    }));
    if let Some(ceiling) = ceiling {
        notes.extend(ceiling.notes.iter().cloned());
    }
    notes.into_iter().collect()
}

/// Why the share of the ceiling is not to be believed, if it is not.
pub(super) fn doubt(ceiling: Option<&Ceiling>) -> Option<String> {
    let doubts = &ceiling?.doubts;
    let reason = || {
        format!(
            "the share of the ceiling is doubtful: {}",
            doubts.join("; ")
        )
    };
    (!doubts.is_empty()).then(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_ceiling_that_is_doubtful_is_told_as_such() {
        let sound = Ceiling {
            rate: 2.0,
            ..Ceiling::default()
        };
        let doubtful = Ceiling {
            doubts: vec!["small pages".to_owned()],
            notes: vec!["ceiling: a note".to_owned()],
            ..sound.clone()
        };
        assert_eq!(doubt(None), None);
        assert_eq!(doubt(Some(&sound)), None);
        let reason = doubt(Some(&doubtful)).unwrap();
        assert_eq!(reason, "the share of the ceiling is doubtful: small pages");
        assert_eq!(notes(&[], Some(&doubtful)), ["ceiling: a note"]);
    }
}
