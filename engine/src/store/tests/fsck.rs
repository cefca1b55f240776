//! Checking everything: each kind of damage is found, mended where that is possible, and what is
//! sound is not touched.

use super::*;
use serde_json::json;

const MENDING: FsckOptions = FsckOptions { dry_run: false };

/// A store with one folder that a record names; its program is a copy, its other file a link.
fn bench() -> (Bench, ArtifactRef) {
    let bench = Bench::new();
    let work = bench.folder("work", &[("f", "content"), ("tool", "#!"), ("e/", "")]);
    fs::set_permissions(work.join("tool"), Permissions::from_mode(0o755)).unwrap();
    let artifact = bench.store.import(&work).unwrap();
    bench
        .store
        .put_record("actions", "key", &json!({ "out": artifact }))
        .unwrap();
    // Whoever looks makes the file of the lock, even who changes nothing else.
    drop(bench.store.lease(Default::default()).unwrap());
    (bench, artifact)
}

fn overwrite(path: &Path, content: &str) {
    let data = fs::metadata(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, content).unwrap();
    // As rot does: nothing that a look shows.
    blobs::seal(path, data.mode() & 0o111 != 0).unwrap();
}

fn found(report: &FsckReport) -> Vec<(Problem, Remedy)> {
    let all = report.findings.iter();
    all.map(|f| (f.problem.clone(), f.remedy)).collect()
}

/// Checks that a dry run says the same and changes nothing, then mends.
fn mend(bench: &Bench) -> FsckReport {
    let before = listing(bench.store.root());
    let foreseen = bench.store.fsck(FsckOptions { dry_run: true }).unwrap();
    assert_eq!(listing(bench.store.root()), before);
    let report = bench.store.fsck(MENDING).unwrap();
    assert_eq!(found(&report), found(&foreseen), "{report:#?}");
    assert!(report.trouble.is_empty(), "{report:?}");
    report
}

#[test]
fn a_sound_store_is_said_to_be_sound_and_stays_as_it_is() {
    let (bench, _) = bench();
    let before = listing(bench.store.root());
    let report = bench.store.fsck(MENDING).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.blobs, report.trees, report.records), (3, 1, 1));
    assert_eq!(listing(bench.store.root()), before);
}

#[test]
fn rot_in_a_linked_file_is_found_and_the_artifact_is_lost() {
    let (bench, artifact) = bench();
    overwrite(&bench.blob_of("content"), "CONTENT");
    assert!(bench.store.present(&artifact), "a look does not show it");
    let dangling = Problem::Dangling {
        artifact: artifact.digest,
    };
    let report = mend(&bench);
    assert_eq!(
        found(&report),
        [
            (Problem::Damaged, Remedy::Quarantined),
            (Problem::Damaged, Remedy::Quarantined),
            (dangling, Remedy::Nothing),
        ]
    );
    assert!(report.has_lost() && !bench.store.present(&artifact));
    let kept = bench
        .store
        .root()
        .join("quarantine")
        .join(Digest::of(b"content").to_string());
    assert_eq!(fs::read_to_string(kept).unwrap(), "CONTENT");

    let work = bench.folder("work", &[("f", "content"), ("tool", "#!"), ("e/", "")]);
    fs::set_permissions(work.join("tool"), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(bench.store.import(&work).unwrap(), artifact);
    let text = fs::read_to_string(bench.store.path(&artifact).join("f")).unwrap();
    assert_eq!(text, "content");
    assert!(bench.store.fsck(MENDING).unwrap().is_sound());
}

#[test]
fn what_something_whole_says_too_is_made_again() {
    type Harm = fn(&Bench, &ArtifactRef);
    let harms: [(&str, Harm); 7] = [
        ("the blob of a program", |bench, _| {
            overwrite(&bench.blob_of("#!"), "??")
        }),
        ("a lost blob", |bench, _| {
            fs::remove_file(bench.blob_of("content")).unwrap()
        }),
        ("a list", |bench, a| {
            overwrite(&bench.store.blobs().path(&a.digest), "list")
        }),
        ("a program", |bench, a| {
            overwrite(&bench.store.path(a).join("tool"), "??")
        }),
        ("a lost file", |bench, a| {
            fs::remove_file(bench.store.path(a).join("f")).unwrap()
        }),
        ("an empty folder", |bench, a| {
            fs::remove_dir(bench.store.path(a).join("e")).unwrap()
        }),
        ("a touched blob", |bench, _| {
            let blob = fs::File::open(bench.blob_of("#!")).unwrap();
            blob.set_modified(std::time::SystemTime::now()).unwrap();
        }),
    ];
    for (what, harm) in harms {
        let (bench, artifact) = bench();
        let whole = listing(&bench.store.path(&artifact));
        harm(&bench, &artifact);
        let report = mend(&bench);
        let is_mended = |f: &Finding| matches!(f.remedy, Remedy::Rebuilt | Remedy::Sealed);
        assert!(report.findings.iter().any(is_mended), "{what}: {report:#?}");
        assert!(!report.has_lost(), "{what}: {report:#?}");
        assert_eq!(listing(&bench.store.path(&artifact)), whole, "{what}");
        assert!(bench.store.fsck(MENDING).unwrap().is_sound(), "{what}");
        assert!(bench.store.present(&artifact), "{what}");
    }
}

#[test]
fn damaged_records_and_what_does_not_belong_are_moved_away() {
    let (bench, _) = bench();
    let record = &walk::files(&bench.store.inner.records)[0];
    fs::write(record, "{}").unwrap();
    let stray = bench.store.inner.blobs.join("notes.txt");
    fs::write(&stray, "mine").unwrap();
    fs::create_dir(bench.store.inner.trees.join("mine")).unwrap();
    let report = mend(&bench);
    assert_eq!(
        found(&report),
        [
            (Problem::Stray, Remedy::Quarantined),
            (Problem::Stray, Remedy::Quarantined),
            (Problem::Damaged, Remedy::Quarantined),
        ]
    );
    assert!(!record.exists() && !stray.exists());
    assert_eq!(
        walk::entries(&bench.store.root().join("quarantine")).len(),
        3
    );
}
