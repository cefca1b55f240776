//! Records by name.

use super::*;

#[test]
fn records_are_kept_replaced_listed_and_removed() {
    let bench = Bench::new();
    let value = |n: u64| serde_json::json!({ "n": n, "x": 0.1 });
    assert_eq!(bench.store.get_record("actions", "k"), None);
    for key in ["abc", "abd", "a", "ü/..", ".hidden", "x"] {
        bench.store.put_record("actions", key, &value(1)).unwrap();
        assert_eq!(
            bench.store.get_record("actions", key),
            Some(value(1)),
            "{key}"
        );
    }
    bench.store.put_record("actions", "abc", &value(2)).unwrap();
    assert_eq!(bench.store.get_record("actions", "abc"), Some(value(2)));
    bench
        .store
        .put_record("actions/ab", "inner", &value(3))
        .unwrap();
    let list = |namespace, prefix| bench.store.list_records(namespace, prefix).unwrap();
    assert_eq!(
        list("actions", ""),
        [".hidden", "a", "abc", "abd", "x", "ü/.."]
    );
    assert_eq!(list("actions", "ab"), ["abc", "abd"]);
    assert_eq!(list("actions", "a"), ["a", "abc", "abd"]);
    assert_eq!(list("actions", "ü"), ["ü/.."]);
    assert_eq!(list("actions/ab", ""), ["inner"]);
    assert_eq!(list("nothing", ""), Vec::<String>::new());
    assert!(bench.store.remove_record("actions", "abc").unwrap());
    assert!(!bench.store.remove_record("actions", "abc").unwrap());
    assert_eq!(bench.store.get_record("actions", "abc"), None);
    assert!(bench.store.take_warnings().is_empty());
}

#[test]
fn a_damaged_record_is_absent_with_one_warning() {
    let bench = Bench::new();
    bench
        .store
        .put_record("n", "key", &serde_json::json!([1]))
        .unwrap();
    let path = bench.store.root().join("records/n/ke/key.json");
    fs::write(&path, "{\"cut\":").unwrap();
    assert_eq!(bench.store.get_record("n", "key"), None);
    assert_eq!(bench.store.get_record("n", "key"), None);
    let wanted = format!("ignored the record `{}`: it is damaged", path.display());
    assert_eq!(bench.store.take_warnings(), [wanted]);
    assert!(bench.store.take_warnings().is_empty());
}

#[test]
fn impossible_keys_are_refused() {
    let bench = Bench::new();
    for (namespace, key) in [
        ("n", ""),
        ("", "k"),
        ("a//b", "k"),
        ("n", "x".repeat(300).as_str()),
    ] {
        let error = bench
            .store
            .put_record(namespace, key, &Value::Null)
            .unwrap_err();
        assert!(matches!(error, StoreError::BadKey { .. }), "{error}");
    }
    bench
        .store
        .put_record("../..", "../../x", &Value::Null)
        .unwrap();
    assert!(!bench.folder.path().join("x.json").exists());
    assert_eq!(bench.store.list_records("../..", "").unwrap(), ["../../x"]);
}
