//! What is told of loads that were not made, and of some that were.

use super::*;
use crate::checkpoint::arms::Arm;
use crate::checkpoint::rounds::{Keeping, Order};
use crate::checkpoint::scripted::Scripted;
use crate::checkpoint::state::StateChoice;
use crate::checkpoint::target::Target;
use checkpoints::loader::{Effort, Way};
use checkpoints::{Contents, Format};
use std::num::NonZeroUsize;
use std::path::PathBuf;

fn rounds() -> Rounds {
    let one = NonZeroUsize::MIN;
    let contents = Contents {
        folder: PathBuf::new(),
        format: Format::Store,
        files: Vec::new(),
        tensors: Vec::new(),
    };
    Rounds {
        sources: vec![Source {
            format: Format::Store,
            folders: vec![PathBuf::new()],
            contents,
        }],
        rounds: 2,
        to: Target::Host,
        state: StateChoice::GuestCold,
        keeping: Keeping::Fresh,
        effort: Effort {
            threads: one,
            depth: one,
        },
        block: 1 << 20,
        is_checked: false,
        order: Order::Random,
        seed: 0,
        limit: Duration::from_secs(1),
    }
}

const NAMES: [&str; 2] = ["buffered", "io_uring"];

/// A load of 1 GB that took so many seconds.
fn timed(round: u32, arm: usize, seconds: u64) -> Timed {
    Timed {
        round,
        source: 0,
        arm,
        loader: NAMES[arm].to_owned(),
        way: None,
        total: Duration::from_secs(seconds),
        parts: vec![("read_ms", Duration::from_secs(seconds))],
        bytes: 1_000_000_000,
        blocks: Some(1),
        resident: 0.0,
        told_by: "cachestat",
        cpu: Duration::ZERO,
        device_bytes: None,
        peak_memory: None,
        buffers: None,
        trouble: None,
    }
}

fn outcome() -> Outcome {
    Outcome {
        timed: vec![
            timed(0, 0, 4),
            timed(0, 1, 2),
            timed(1, 1, 4),
            timed(1, 0, 16),
        ],
        pool_ready: Duration::ZERO,
        pinned: None,
        refused: Vec::new(),
        remarks: Vec::new(),
    }
}

#[test]
fn programs_of_others_load_in_the_same_rounds_and_only_what_they_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (header, data) = (
        r#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
        [7; 4],
    );
    let bytes = [
        &(header.len() as u64).to_le_bytes(),
        header.as_bytes(),
        &data,
    ]
    .concat();
    std::fs::write(folder.path().join("model.safetensors"), bytes).expect("a checkpoint");
    let source = |format| Source {
        format,
        folders: vec![folder.path().to_owned()],
        contents: Contents::read(folder.path()).expect("contents"),
    };
    let rounds = Rounds {
        sources: vec![source(Format::Safetensors), source(Format::Store)],
        state: StateChoice::PageCache,
        ..rounds()
    };
    let mut arms = vec![
        Arm::Native(Way::Buffered),
        Arm::Foreign(Box::new(Scripted::new("safetensors 0.8.0"))),
    ];
    assert_eq!(rounds.loads(&arms).ok(), Some(2 * 3));
    let outcome = rounds.perform(&mut arms, &|_| true).expect("loads");
    let told = Told {
        rounds: &rounds,
        outcome: &outcome,
        baseline: Some(1),
        ceiling: None,
    };
    let result = told.result(BTreeMap::new());
    let of = |name: &str| {
        let rows = result.rows.iter();
        rows.filter(|row| row.labels["loader"] == name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (of("buffered").len(), of("safetensors 0.8.0").len()),
        (4, 2)
    );
    let row = of("safetensors 0.8.0")[0];
    assert_eq!(row.value("read_ms"), Some(750.0));
    assert_eq!((row.value("header_ms"), row.value("reads")), (None, None));
    assert_eq!(row.value("speedup"), Some(1.0));
    // What is in a format that the baseline does not read is held to what it reads of the same tensors.
    let held = of("buffered")
        .iter()
        .filter(|row| row.value("speedup").is_some())
        .count();
    assert_eq!(held, 4);
    let left_out = "`safetensors 0.8.0` reads no store and was left out of";
    assert!(
        result.notes.iter().any(|note| note.starts_with(left_out)),
        "{:?}",
        result.notes
    );
}

#[test]
fn loads_are_held_to_the_baseline_of_their_own_round() {
    let (rounds, outcome) = (rounds(), outcome());
    let told = Told {
        rounds: &rounds,
        outcome: &outcome,
        baseline: Some(0),
        ceiling: Some(Ceiling {
            rate: 2.0,
            ..Ceiling::default()
        }),
    };
    let result = told.result(BTreeMap::new());
    let column = |name| -> Vec<f64> {
        let rows = result.rows.iter();
        rows.map(|row| row.value(name).unwrap_or(f64::NAN))
            .collect()
    };
    assert_eq!(column("speedup"), [1.0, 2.0, 4.0, 1.0]);
    assert_eq!(column("ceiling_share"), [0.125, 0.25, 0.125, 0.03125]);
    let names = result.rows.iter().flat_map(|row| row.values.keys());
    let is_defined = |name: &&String| result.definitions.iter().any(|d| d.name == **name);
    assert_eq!(names.filter(|name| !is_defined(name)).count(), 0);
    // 16 s are 1.6 times the median, 10 s.
    assert!(
        result
            .notes
            .iter()
            .any(|note| note.starts_with("buffered: ")),
        "{:?}",
        result.notes
    );
    assert_eq!(told.verdict().grade, Grade::Valid);
    let figures: Vec<_> = told
        .figures()
        .into_iter()
        .map(|f| (f.name, f.value))
        .collect();
    assert_eq!(
        figures,
        [
            ("buffered".to_owned(), 0.15625),
            ("io_uring".to_owned(), 0.375)
        ]
    );
}

#[test]
fn a_load_from_another_state_makes_the_sample_invalid_and_enters_no_row() {
    let rounds = rounds();
    let mut outcome = outcome();
    outcome.refused.push((Way::IoUring, "forbidden".to_owned()));
    for timed in outcome.timed.iter_mut().filter(|timed| timed.arm == 1) {
        timed.loader = "direct in place of io_uring".to_owned();
    }
    let told = |outcome: &Outcome| {
        let told = Told {
            rounds: &rounds,
            outcome,
            baseline: None,
            ceiling: None,
        };
        (told.verdict(), told.result(BTreeMap::new()))
    };
    let (verdict, result) = told(&outcome);
    assert_eq!((verdict.grade, result.rows.len()), (Grade::Degraded, 4));
    assert_eq!(
        result.rows[1].labels["loader"],
        "direct in place of io_uring"
    );
    outcome.timed[3].trouble = Some("2.00 % were there".to_owned());
    let (verdict, result) = told(&outcome);
    assert_eq!((verdict.grade, result.rows.len()), (Grade::Invalid, 3));
    assert_eq!(verdict.reasons, ["round 1, buffered: 2.00 % were there"]);
    assert_eq!(result.details["rejected"][0]["loader"], "buffered");
}
