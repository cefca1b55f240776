//! An index says only what is true, and nothing once it is damaged.

use super::*;

fn known(outputs: &[(&str, &ArtifactRef)]) -> Known {
    let outputs = outputs
        .iter()
        .map(|(name, a)| (name.to_string(), (*a).clone()));
    Known {
        outputs: outputs.collect(),
        note: "{\"at\":\"tab\tand\nline\"}".to_owned(),
    }
}

fn saved(bench: &Bench, known: &Known) -> Digest {
    let key = Digest::of(b"key");
    let mut index = bench.store.load_index("a/plan").unwrap();
    assert_eq!(index.get(&key), None);
    index.learn(key, known);
    index.save().unwrap();
    key
}

#[test]
fn what_was_learned_is_known_as_long_as_the_outputs_are_there() {
    let bench = Bench::new();
    let file = bench
        .store
        .import(&bench.file("odd\tname", "content"))
        .unwrap();
    let folder = bench
        .store
        .import(&bench.folder("d", &[("f", "1")]))
        .unwrap();
    let known = known(&[("file", &file), ("folder", &folder)]);
    let key = saved(&bench, &known);
    let index = bench.store.load_index("a/plan").unwrap();
    assert_eq!(index.get(&key), Some(known.clone()));
    assert_eq!(bench.store.load_index("other").unwrap().get(&key), None);

    let path = bench.store.path(&file);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, "CONTENT").unwrap();
    assert_eq!(index.get(&key), None, "it was written to");
    assert!(!bench.store.present(&file));
    bench
        .store
        .import(&bench.file("odd\tname", "content"))
        .unwrap();
    assert_eq!(index.get(&key), Some(known.clone()));
    fs::remove_dir_all(bench.store.path(&folder)).unwrap();
    assert_eq!(index.get(&key), Some(known.clone()), "a tree is made again");
    fs::remove_file(bench.blob_of("1")).unwrap();
    fs::remove_dir_all(bench.store.path(&folder)).unwrap();
    assert_eq!(index.get(&key), None, "neither tree nor blob is left");
}

#[test]
fn a_damaged_line_is_forgotten_whatever_is_wrong_with_it() {
    let bench = Bench::new();
    let file = bench.store.import(&bench.file("f", "content")).unwrap();
    let known = known(&[("file", &file)]);
    let key = saved(&bench, &known);
    let path = walk::files(&bench.store.root().join("index")).remove(0);
    let sound = fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 1 << (at % 7);
        fs::write(&path, &damaged).unwrap();
        let found = bench.store.load_index("a/plan").unwrap().get(&key);
        assert_eq!(found, None, "flipped at {at}");
        fs::write(&path, &sound[..at]).unwrap();
        let cut = bench.store.load_index("a/plan").unwrap().get(&key);
        assert_eq!(cut, None, "cut at {at}");
    }
}

#[test]
fn sweeping_results_forgets_what_the_indexes_say() {
    let bench = Bench::new();
    let file = bench.store.import(&bench.file("f", "content")).unwrap();
    let key = saved(&bench, &known(&[("file", &file)]));
    let value = serde_json::json!({ "out": file });
    bench.store.put_record("actions", "key", &value).unwrap();
    bench
        .store
        .put_record("samples/class", "key", &value)
        .unwrap();
    let options = GcOptions {
        grace: Default::default(),
        max_size: Some(0),
        ..GcOptions::default()
    };
    let report = bench.store.gc(Roots::default, &options).unwrap();
    assert_eq!(
        (report.actions.count, report.blobs.count),
        (0, 0),
        "it is a sample's too"
    );
    bench.store.remove_record("samples/class", "key").unwrap();
    let report = bench.store.gc(Roots::default, &options).unwrap();
    assert_eq!(report.actions.count, 1);
    assert_eq!(bench.store.load_index("a/plan").unwrap().get(&key), None);
}
