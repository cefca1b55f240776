//! What it costs to find out that a step's result is there: by its record, and by the index.
//!
//! `cargo bench -p engine --bench hits -- [STEPS] [FOLDER]`; the store is made in FOLDER, or where
//! syncing costs nothing.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports on standard output"
)]

use engine::freshness::{ActionRecord, look_up_action};
use engine::hits::Hits;
use engine::key::Manifest;
use engine::store::{Digest, Store};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often each way is measured; the best is told, the others met a busy machine.
const ROUNDS: usize = 5;

fn main() {
    // cargo passes its own flags, such as `--bench`.
    let arguments = || std::env::args().skip(1);
    let n_steps: usize = arguments()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(10_000);
    let folder = arguments().find(|argument| Path::new(argument).is_dir());
    let folder = folder.unwrap_or_else(|| "/dev/shm".to_owned());
    let root = tempfile::tempdir_in(&folder)
        .or_else(|_| tempfile::tempdir())
        .expect("a folder");
    let store = Store::open(&root.path().join("store")).expect("a store");
    let manifests: Vec<Manifest> = (0..n_steps).map(manifest).collect();
    let began = Instant::now();
    let mut hits = Hits::load(&store, "bench");
    for manifest in &manifests {
        keep(&store, &mut hits, manifest, root.path());
    }
    println!(
        "{n_steps} steps in {folder}, kept in {:.1?}",
        began.elapsed()
    );

    let keys: Vec<Digest> = manifests.iter().map(Manifest::digest).collect();
    told("save the index", 1, once(|| hits.save().expect("a save")));
    told(
        "load the index",
        1,
        best(|| drop(Hits::load(&store, "bench"))),
    );
    let by_record = best(|| {
        for manifest in &manifests {
            let found = look_up_action(&store, "node", "bench", manifest).expect("a store");
            assert!(found.record.is_some());
        }
    });
    told("by the record, per step", n_steps, by_record);
    let hits = Hits::load(&store, "bench");
    let by_index = best(|| {
        for key in &keys {
            assert!(hits.get(key).is_some());
        }
    });
    told("by the index, per step", n_steps, by_index);
}

/// What a step with five options may depend on.
fn manifest(step: usize) -> Manifest {
    let field = |i: usize| (format!("with.option_{i}"), format!("{step} of {i}"));
    Manifest {
        fields: (0..5).map(field).collect(),
    }
}

fn keep(store: &Store, hits: &mut Hits, manifest: &Manifest, folder: &Path) {
    let path = folder.join("out.json");
    let key = manifest.digest();
    std::fs::write(&path, format!("the result of {key}")).expect("a file");
    let record = ActionRecord {
        manifest: manifest.clone(),
        outputs: BTreeMap::from([("out".to_owned(), store.import(&path).expect("an artifact"))]),
        finished_at: 1,
        took_ms: 1,
        summary: None,
    };
    let value = serde_json::to_value(&record).expect("a value");
    store
        .put_record("actions", &key.to_string(), &value)
        .expect("a record");
    hits.learn(key, &record);
}

fn once(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn best(mut work: impl FnMut()) -> Duration {
    let rounds = (0..ROUNDS).map(|_| once(&mut work));
    rounds.min().unwrap_or_default()
}

fn told(what: &str, n: usize, took: Duration) {
    let each = took.as_secs_f64() * 1e6 / n as f64;
    println!("{what:<28} {each:>12.2} us");
}
