//! A run in which nothing is to be done: by the index, by the records, and never by what is wrong.

mod scripted;

use engine::event::{Event, Outcome};
use engine::freshness::Freshness;
use scripted::PLAN;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Runs the usual plan in `out` and returns how often each step began, and which were reused.
fn run(out: &Path) -> (BTreeMap<String, usize>, Vec<String>) {
    run_plan(PLAN, out)
}

fn run_plan(plan: &str, out: &Path) -> (BTreeMap<String, usize>, Vec<String>) {
    let expanded = scripted::expand(plan);
    let performed = scripted::perform(&expanded, out, None);
    let (outcome, events) = scripted::runtime().block_on(performed);
    assert_eq!(outcome.expect("a run"), Outcome::Done);
    let reused = events.iter().filter_map(|event| match event {
        Event::Decided {
            node, freshness, ..
        } => matches!(freshness, Freshness::Reused { .. }).then(|| node.clone()),
        _ => None,
    });
    (scripted::starts(&events), reused.collect())
}

#[test]
fn the_index_and_the_records_say_the_same() {
    let out = scripted::scratch();
    let (starts, _) = run(out.path());
    assert_eq!(starts, scripted::targets());
    for derived in ["records/latest", "records/actions", "index"] {
        let (starts, reused) = run(out.path());
        assert!(starts.is_empty(), "before {derived} is removed: {starts:?}");
        assert_eq!(reused.len(), 4);
        let path = out.path().join("store").join(derived);
        fs::remove_dir_all(path).expect("it is there");
    }
    let (starts, reused) = run(out.path());
    assert_eq!(starts.len(), 3, "without both it is not known: {starts:?}");
    assert_eq!(reused, ["draw"]);
}

#[test]
fn an_index_is_made_again_from_the_records() {
    let out = scripted::scratch();
    run(out.path());
    let index = out.path().join("store/index");
    let before = fs::read(index.join("t")).expect("an index");
    fs::remove_dir_all(&index).expect("it is there");
    let (starts, _) = run(out.path());
    assert!(starts.is_empty(), "{starts:?}");
    assert_eq!(fs::read(index.join("t")).expect("an index"), before);
}

#[test]
fn a_result_that_is_gone_is_made_again_whatever_the_index_says() {
    let out = scripted::scratch();
    run(out.path());
    let results = out.path().join("latest/results/words/text.txt");
    let file = fs::canonicalize(results).expect("a result");
    fs::remove_dir_all(file.parent().expect("a tree")).expect("it is there");
    let (starts, _) = run(out.path());
    assert!(starts.is_empty(), "the tree is made again: {starts:?}");
    assert_eq!(fs::read_to_string(&file).expect("a result"), "one ");

    for part in ["blobs", "trees"] {
        fs::remove_dir_all(out.path().join("store").join(part)).expect("it is there");
    }
    let (starts, _) = run(out.path());
    let mut wanted = scripted::targets();
    // Samples of this step are equal, so with the first of them those of before are there again.
    wanted.insert("draw".to_owned(), 1);
    assert_eq!(starts, wanted);
}

/// Enough steps without inputs that they are looked at by several threads, and one beside them.
fn wide_plan(beside: &str) -> String {
    let numbers: Vec<String> = (0..600).map(|i| i.to_string()).collect();
    format!(
        "schema = 1\nname = \"wide\"\n[axes]\ni = [{}]\n\
         [steps.many]\nuse = \"test.write\"\naxes = [\"i\"]\nwith = {{ text = \"w${{axes.i}}\" }}\n\
         [steps.beside]\nuse = \"test.write\"\nwith = {{ text = \"{beside}\" }}\n",
        numbers.join(", ")
    )
}

#[test]
fn many_nodes_at_once_are_decided_as_each_would_be_alone() {
    let out = scripted::scratch();
    let counts = |beside: &str| {
        let (starts, reused) = run_plan(&wide_plan(beside), out.path());
        (starts.len(), reused.len())
    };
    assert_eq!(counts("one"), (601, 0));
    assert_eq!(counts("one"), (0, 601));
    assert_eq!(counts("two"), (1, 600));
    // Two nodes of one key.
    assert_eq!(counts("w7"), (0, 601));
    fs::remove_dir_all(out.path().join("store/index")).expect("an index");
    assert_eq!(counts("w7"), (0, 601));
}
