//! Sweeping: what is needed or young stays, the rest goes, and of samples only what was asked for.

use super::*;
use crate::store::records;
use serde_json::json;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Bench {
    /// Keeps a result whose record is so many days old, with one file of 100 bytes and more.
    fn result(&self, space: &str, key: &str, days: u32) -> ArtifactRef {
        let content = key.repeat(100 / key.len() + 1);
        let artifact = self.store.import(&self.file(key, &content)).unwrap();
        let value = json!({ "outputs": { "out": artifact } });
        self.store.put_record(space, key, &value).unwrap();
        let folder = self.store.inner.records.join(space);
        for path in walk::files(&folder) {
            if records::key_of(&path).as_deref() == Some(key) {
                let then = SystemTime::now() - DAY * days;
                fs::File::open(path).unwrap().set_modified(then).unwrap();
            }
        }
        artifact
    }

    fn has(&self, artifact: &ArtifactRef) -> bool {
        let shown = self.store.path(artifact).exists();
        assert_eq!(self.store.present(artifact), shown);
        shown
    }
}

/// Nothing is too young.
fn now() -> GcOptions {
    GcOptions {
        grace: Duration::ZERO,
        ..GcOptions::default()
    }
}

#[test]
fn what_no_record_names_goes_once_it_is_old() {
    let bench = Bench::new();
    let orphan = bench.store.import(&bench.file("a", "orphan")).unwrap();
    let named = bench.result("actions", "named", 400);
    let sample = bench.result("samples/class", "sample", 400);
    let none = Roots::default();

    let report = bench
        .store
        .gc(|| none.clone(), &GcOptions::default())
        .unwrap();
    assert_eq!((report.blobs.count, bench.has(&orphan)), (0, true));
    let rooted = Roots {
        artifacts: [orphan.digest].into(),
        ..Roots::default()
    };
    let report = bench.store.gc(|| rooted.clone(), &now()).unwrap();
    assert_eq!((report.blobs.count, bench.has(&orphan)), (0, true));

    let dry = GcOptions {
        dry_run: true,
        ..now()
    };
    let foreseen = bench.store.gc(|| none.clone(), &dry).unwrap();
    assert!(bench.has(&orphan));
    let report = bench.store.gc(|| none.clone(), &now()).unwrap();
    assert_eq!(
        (report.blobs, report.trees),
        (foreseen.blobs, foreseen.trees)
    );
    assert_eq!(report.kept_bytes, foreseen.kept_bytes);
    // Its content and its list.
    assert_eq!((report.blobs.count, report.trees.count), (2, 1));
    assert!(
        report.bytes() > 6 && report.trouble.is_empty(),
        "{report:?}"
    );
    assert_eq!(
        [&orphan, &named, &sample].map(|a| bench.has(a)),
        [false, true, true]
    );
    assert_eq!(bench.n_blobs(), 4);
}

#[test]
fn cached_results_go_by_age_unless_pinned_and_samples_do_not() {
    let bench = Bench::new();
    let [old, new, pinned] = [("old", 9), ("new", 1), ("pinned", 9)]
        .map(|(key, days)| bench.result("actions", key, days));
    let sample = bench.result("samples/class", "sample", 9);
    let roots = Roots {
        actions: ["pinned".to_owned()].into(),
        ..Roots::default()
    };
    let aged = GcOptions {
        max_age: Some(DAY * 7),
        max_size: Some(0),
        ..now()
    };
    let by_age = GcOptions {
        max_size: None,
        ..aged.clone()
    };
    let report = bench.store.gc(|| roots.clone(), &by_age).unwrap();
    assert_eq!((report.actions.count, report.samples.count), (1, 0));
    assert_eq!(bench.store.get_record("actions", "old"), None);
    let shown = [&old, &new, &pinned, &sample].map(|a| bench.has(a));
    assert_eq!(shown, [false, true, true, true]);

    let report = bench.store.gc(|| roots.clone(), &aged).unwrap();
    assert_eq!((report.actions.count, report.samples.count), (1, 0));
    let shown = [&new, &pinned, &sample].map(|a| bench.has(a));
    assert_eq!(shown, [false, true, true]);

    let samples_too = GcOptions {
        samples_max_age: Some(DAY * 7),
        ..now()
    };
    let report = bench.store.gc(|| roots.clone(), &samples_too).unwrap();
    assert_eq!((report.samples.count, bench.has(&sample)), (1, false));
}

#[test]
fn the_oldest_results_go_until_the_rest_fits() {
    let bench = Bench::new();
    let results: Vec<ArtifactRef> = (1..=4)
        .map(|days| bench.result("actions", &days.to_string(), days))
        .collect();
    let options = GcOptions {
        max_size: Some(250),
        ..now()
    };
    let report = bench.store.gc(Roots::default, &options).unwrap();
    assert_eq!(report.actions.count, 2);
    let shown: Vec<bool> = results.iter().map(|a| bench.has(a)).collect();
    assert_eq!(shown, [true, true, false, false]);
}

#[test]
fn what_two_results_share_stays_with_the_one_that_stays() {
    let bench = Bench::new();
    let shared = bench
        .store
        .import(&bench.folder("x", &[("f", "shared"), ("g", "own")]))
        .unwrap();
    let other = bench
        .store
        .import(&bench.folder("y", &[("f", "shared")]))
        .unwrap();
    for (key, artifact) in [("keep", &other), ("lose", &shared)] {
        bench
            .store
            .put_record("actions", key, &json!([artifact]))
            .unwrap();
    }
    bench.store.remove_record("actions", "lose").unwrap();
    bench.store.gc(Roots::default, &now()).unwrap();
    assert_eq!([&shared, &other].map(|a| bench.has(a)), [false, true]);
    assert!(bench.blob_of("shared").exists() && !bench.blob_of("own").exists());
}

#[test]
fn what_the_dead_left_unfinished_goes_and_what_the_living_write_stays() {
    let bench = Bench::new();
    let tmp = bench.store.root().join("tmp");
    fs::create_dir(tmp.join("dead")).unwrap();
    fs::write(tmp.join("dead/part"), "half").unwrap();
    let report = bench.store.gc(Roots::default, &now()).unwrap();
    assert_eq!(report.unfinished, Freed { count: 1, bytes: 4 });
    assert_eq!(fs::read_dir(tmp).unwrap().count(), 1);
}

#[test]
fn nothing_is_swept_under_a_run() {
    let bench = Bench::new();
    let _lease = bench.store.lease(Duration::ZERO).unwrap();
    let error = bench.store.gc(Roots::default, &now()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[test]
fn nothing_goes_while_a_sample_cannot_be_read_that_may_need_it() {
    let bench = Bench::new();
    let sample = bench.result("samples/class", "sample", 9);
    let folder = bench.store.inner.records.join("samples");
    let record = walk::files(&folder).pop().expect("a record");
    let whole = fs::read(&record).unwrap();
    fs::write(&record, "damaged").unwrap();
    let error = bench.store.gc(Roots::default, &now()).unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("benchwright fsck"), "{error}");
    fs::write(&record, whole).unwrap();
    bench.store.gc(Roots::default, &now()).unwrap();
    assert!(bench.has(&sample));
}
