//! What is damaged is a miss or is mended, and never passes for whole.

use super::*;
use std::fs::File;
use std::time::SystemTime;

#[test]
fn a_missing_or_short_blob_is_a_miss_and_importing_again_mends_it() {
    let harms: [fn(&Path); 4] = [
        |blob| fs::remove_file(blob).unwrap(),
        |blob| {
            File::options()
                .write(true)
                .open(blob)
                .unwrap()
                .set_len(1)
                .unwrap()
        },
        // As root may do through a tree: same size, other content.
        |blob| fs::write(blob, "CONTENT").unwrap(),
        |blob| fs::write(blob, "").unwrap(),
    ];
    for harm in harms {
        let bench = Bench::new();
        let import = || {
            bench
                .store
                .import(&bench.folder("work", &[("f", "content")]))
                .unwrap()
        };
        let artifact = import();
        let blob = bench.blob_of("content");
        fs::set_permissions(&blob, Permissions::from_mode(0o644)).unwrap();
        harm(&blob);
        assert!(!bench.store.present(&artifact));
        assert!(bench.store.take_warnings().is_empty(), "absence is no news");
        assert_eq!(import(), artifact);
        assert!(bench.store.present(&artifact));
        assert_eq!(
            fs::read_to_string(bench.store.path(&artifact).join("f")).unwrap(),
            "content"
        );
    }
}

#[test]
fn an_untouched_blob_with_another_time_is_read_and_sealed_again() {
    let bench = Bench::new();
    let artifact = bench.store.import(&bench.file("f", "content")).unwrap();
    let blob = bench.blob_of("content");
    // As a copy of the store to another disk would have.
    File::open(&blob)
        .unwrap()
        .set_modified(SystemTime::now())
        .unwrap();
    assert!(bench.store.present(&artifact));
    assert!(blobs::is_sealed(&fs::metadata(&blob).unwrap(), 7));
}

#[test]
fn a_damaged_manifest_is_a_miss() {
    let bench = Bench::new();
    let artifact = bench.store.import(&bench.file("f", "content")).unwrap();
    let manifest = bench.store.blobs().path(&artifact.digest);
    let text = fs::read_to_string(&manifest)
        .unwrap()
        .replace("\t7\t", "\t8\t");
    fs::set_permissions(&manifest, Permissions::from_mode(0o644)).unwrap();
    fs::write(&manifest, text).unwrap();
    assert!(!bench.store.present(&artifact));
    assert_eq!(
        bench.store.import(&bench.file("f", "content")).unwrap(),
        artifact
    );
    assert!(bench.store.present(&artifact));
}

#[test]
fn a_damaged_tree_is_mended_from_whole_blobs() {
    let files = [
        ("f", "content"),
        ("d/g", "more"),
        ("e/", ""),
        ("tool", "#!"),
    ];
    let harms: [fn(&Path); 7] = [
        |tree| fs::remove_dir_all(tree).unwrap(),
        |tree| fs::remove_file(tree.join("f")).unwrap(),
        |tree| fs::remove_dir_all(tree.join("d")).unwrap(),
        |tree| fs::remove_dir(tree.join("e")).unwrap(),
        |tree| {
            fs::remove_file(tree.join("f")).unwrap();
            fs::create_dir_all(tree.join("f/in/the/way")).unwrap();
        },
        |tree| {
            fs::remove_dir_all(tree.join("d")).unwrap();
            fs::write(tree.join("d"), "in the way").unwrap();
        },
        |tree| {
            fs::set_permissions(tree.join("tool"), Permissions::from_mode(0o644)).unwrap();
            fs::write(tree.join("tool"), "??").unwrap();
        },
    ];
    for (i, harm) in harms.iter().enumerate() {
        let bench = Bench::new();
        let work = bench.folder("work", &files);
        fs::set_permissions(work.join("tool"), Permissions::from_mode(0o755)).unwrap();
        let before = listing(&work);
        let artifact = bench.store.import(&work).unwrap();
        let tree = bench.store.path(&artifact);
        harm(&tree);
        assert_ne!(
            fs::read_dir(&tree)
                .map(|_| listing(&tree))
                .unwrap_or_default(),
            before,
            "harm {i} does harm"
        );
        assert!(bench.store.present(&artifact), "harm {i}");
        assert_eq!(listing(&tree), before, "harm {i}");
    }
}

#[test]
fn verifying_finds_what_sizes_and_times_do_not_show() {
    let bench = Bench::new();
    let import = || {
        bench
            .store
            .import(&bench.folder("work", &[("f", "content"), ("g", "fine")]))
            .unwrap()
    };
    let artifact = import();
    assert!(bench.store.verify(&artifact).unwrap().is_empty());
    let blob = bench.blob_of("content");
    fs::set_permissions(&blob, Permissions::from_mode(0o644)).unwrap();
    fs::write(&blob, "cOntent").unwrap();
    blobs::seal(&blob, false).unwrap();
    assert!(bench.store.present(&artifact), "this is why one verifies");
    let damaged = bench.store.verify(&artifact).unwrap();
    assert_eq!(damaged, [blob, bench.store.path(&artifact).join("f")]);
    assert!(!bench.store.present(&artifact));
    assert_eq!(import(), artifact);
    assert!(bench.store.present(&artifact) && bench.store.verify(&artifact).unwrap().is_empty());
}
