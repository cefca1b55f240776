//! What goes in comes out, once, and nothing half-made shows.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::thread;

#[test]
fn a_folder_comes_out_as_it_went_in() {
    let bench = Bench::new();
    let work = bench.folder(
        "work",
        &[
            ("a.txt", "a"),
            ("d/b", "b"),
            ("d/again", "a"),
            ("empty/", ""),
            ("tool", "#!"),
        ],
    );
    fs::set_permissions(work.join("tool"), Permissions::from_mode(0o777)).unwrap();
    symlink("../a.txt", work.join("d/link")).unwrap();
    let before = listing(&work);
    let artifact = bench.store.import(&work).unwrap();
    assert_eq!(artifact.kind, ArtifactKind::Folder);
    assert!(!work.exists(), "import consumes");
    assert_eq!(listing(&bench.store.path(&artifact)), before);
    assert!(bench.store.present(&artifact));
    assert_eq!(bench.store.manifest(&artifact).unwrap().size(), 5);
    // Three contents and the manifest.
    assert_eq!(bench.n_blobs(), 4);
    assert!(bench.store.take_warnings().is_empty());
}

#[test]
fn a_file_keeps_its_name_and_is_read_only() {
    let bench = Bench::new();
    let artifact = bench.store.import(&bench.file("trace.json", "{}")).unwrap();
    let path = bench.store.path(&artifact);
    assert_eq!(path.file_name().unwrap(), "trace.json");
    assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o444);
    assert!(bench.store.present(&artifact));
    let renamed = ArtifactRef {
        kind: ArtifactKind::File {
            name: "../trace.json".into(),
        },
        ..artifact
    };
    assert!(!bench.store.present(&renamed));
}

#[test]
fn equal_content_is_one_artifact_whatever_its_history() {
    let bench = Bench::new();
    let files = [("x", "1"), ("y/z", "2")];
    let one = bench.store.import(&bench.folder("one", &files)).unwrap();
    let two = bench.store.import(&bench.folder("two", &files)).unwrap();
    assert_eq!(one, two);
    let other = bench
        .store
        .import(&bench.folder("three", &[("x", "1"), ("y/w", "2")]))
        .unwrap();
    assert_ne!(one, other);
    // Two contents and two manifests.
    assert_eq!(bench.n_blobs(), 4);
}

#[test]
fn what_belongs_to_others_is_copied_and_not_moved() {
    let bench = Bench::new();
    let theirs = bench.file("theirs", "shared");
    let work = bench.folder("work", &[]);
    fs::hard_link(&theirs, work.join("mine")).unwrap();
    let artifact = bench.store.import(&work).unwrap();
    fs::write(&theirs, "changed").unwrap();
    assert_eq!(
        fs::read_to_string(bench.store.path(&artifact).join("mine")).unwrap(),
        "shared"
    );
    assert!(bench.store.present(&artifact));
}

#[test]
fn a_step_may_pass_its_input_on() {
    let bench = Bench::new();
    let input = bench.store.import(&bench.file("input", "data")).unwrap();
    let work = bench.folder("work", &[]);
    fs::hard_link(bench.store.path(&input), work.join("output")).unwrap();
    let output = bench.store.import(&work).unwrap();
    assert!(bench.store.present(&input) && bench.store.present(&output));
}

#[test]
fn what_cannot_be_stored_is_refused_before_anything_moves() {
    let bench = Bench::new();
    let work = bench.folder("work", &[("a", "1"), ("b", "2")]);
    symlink("/etc/passwd", work.join("c")).unwrap();
    let before = listing(&work);
    let error = bench.store.import(&work).unwrap_err();
    let text = format!(
        "`{}` is a link to `/etc/passwd`, outside of what is stored; put the file itself there",
        work.join("c").display()
    );
    assert_eq!(error.to_string(), text);
    assert_eq!(listing(&work), before);
    assert_eq!(bench.n_blobs(), 0);
    let missing = bench
        .store
        .import(&bench.folder.path().join("none"))
        .unwrap_err();
    assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");
    symlink("work", bench.folder.path().join("link")).unwrap();
    let link = bench
        .store
        .import(&bench.folder.path().join("link"))
        .unwrap_err();
    assert!(
        matches!(
            link,
            StoreError::Unfit {
                reason: Unfit::Link,
                ..
            }
        ),
        "{link}"
    );
}

#[test]
fn an_interrupted_import_leaves_nothing_to_see() {
    let bench = Bench::new();
    let whole = bench
        .store
        .import(&bench.folder("twin", &[("a", "1"), ("b", "2")]))
        .unwrap();
    // As it is after the files have moved, but before their list was written.
    fs::remove_file(bench.store.blobs().path(&whole.digest)).unwrap();
    durable::remove_all(&bench.store.path(&whole)).unwrap();
    assert!(!bench.store.present(&whole));
    assert_eq!(fs::read_dir(&bench.store.inner.trees).unwrap().count(), 0);
    // As it is after the list was written, but before there was a tree.
    bench
        .store
        .import(&bench.folder("twin", &[("a", "1"), ("b", "2")]))
        .unwrap();
    durable::remove_all(&bench.store.path(&whole)).unwrap();
    assert!(bench.store.present(&whole) && bench.store.path(&whole).join("a").exists());
}

#[test]
fn threads_that_import_the_same_do_not_disturb_each_other() {
    let bench = Bench::new();
    let files: Vec<(String, String)> = (0..40)
        .map(|i| (format!("d{}/f{i}", i % 7), format!("{}", i % 30)))
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_str()))
        .collect();
    let works: Vec<PathBuf> = (0..4)
        .map(|i| bench.folder(&format!("work{i}"), &files))
        .collect();
    let wanted = listing(&works[0]);
    let artifacts: BTreeSet<Digest> = thread::scope(|scope| {
        let threads: Vec<_> = works
            .iter()
            .map(|work| scope.spawn(|| bench.store.import(work).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap().digest)
            .collect()
    });
    assert_eq!(artifacts.len(), 1);
    let artifact = ArtifactRef {
        digest: *artifacts.first().unwrap(),
        kind: ArtifactKind::Folder,
    };
    assert!(bench.store.present(&artifact));
    assert_eq!(listing(&bench.store.path(&artifact)), wanted);
    assert!(works.iter().all(|work| !work.exists()));
    assert_eq!(bench.store.take_warnings(), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_folder_comes_out_as_it_went_in(
        files in prop::collection::btree_map("[abü\n\t\\\\ ]{1,3}(/[ab]{1,2}){0,2}x", ".{0,50}", 0..8),
    ) {
        let bench = Bench::new();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
        let work = bench.folder("work", &files);
        let (before, digest) = (listing(&work), bench.store.digest_path(&work).unwrap());
        let artifact = bench.store.import(&work).unwrap();
        prop_assert_eq!(listing(&bench.store.path(&artifact)), before);
        prop_assert_eq!(artifact.digest, digest);
        prop_assert!(bench.store.present(&artifact));
    }
}
