//! Digests of what lies outside, and when they may be remembered.

use super::*;
use std::fs::File;
use std::time::{Duration, SystemTime};

#[test]
fn the_digest_of_a_source_is_that_of_the_import() {
    let bench = Bench::new();
    let work = bench.folder("work", &[("a", "1"), ("d/b", "2"), ("e/", "")]);
    let digest = bench.store.digest_path(&work).unwrap();
    let file = bench.store.digest_path(&work.join("a")).unwrap();
    assert_eq!(file, Digest::of(b"1"));
    assert_eq!(bench.store.import(&work).unwrap().digest, digest);
}

#[test]
fn sources_may_link_elsewhere_and_count_by_content() {
    let bench = Bench::new();
    let cache = bench.folder("cache", &[("blob", "weights")]);
    let plain = bench.folder("plain", &[("model.bin", "weights")]);
    let linked = bench.folder("linked", &[]);
    symlink(cache.join("blob"), linked.join("model.bin")).unwrap();
    let digest = |path: &Path| bench.store.digest_path(path).unwrap();
    assert_eq!(digest(&linked), digest(&plain));
    fs::write(cache.join("blob"), "WEIGHTS").unwrap();
    assert_ne!(digest(&linked), digest(&plain));
}

/// Makes a file look as if it had not been touched for long, in all that a program may set.
fn age(path: &Path) {
    File::open(path)
        .unwrap()
        .set_modified(SystemTime::now() - Duration::from_secs(3600))
        .unwrap();
}

#[test]
fn a_source_rewritten_at_once_with_the_same_size_and_time_is_noticed() {
    let bench = Bench::new();
    let path = bench.file("source", "one");
    age(&path);
    assert_eq!(bench.store.digest_path(&path).unwrap(), Digest::of(b"one"));
    fs::write(&path, "two").unwrap();
    age(&path);
    assert_eq!(bench.store.digest_path(&path).unwrap(), Digest::of(b"two"));
}

#[test]
fn a_known_source_is_not_read_again_also_by_another_store() {
    let bench = Bench::new();
    let path = bench.file("source", "content");
    let stamp = stat_cache::Stamp::of(&fs::metadata(&path).unwrap());
    // Whatever the cache says shows whether the file was read.
    let planted = Digest::of(b"planted");
    let later = SystemTime::now() + Duration::from_secs(3600);
    lock(&bench.store.inner.stat_cache).learn(stamp, planted, later);
    assert_eq!(bench.store.digest_path(&path).unwrap(), planted);
    bench.store.save_stat_cache().unwrap();
    let other = Store::open(bench.store.root()).unwrap();
    assert_eq!(other.digest_path(&path).unwrap(), planted);
    fs::write(&path, "other content").unwrap();
    assert_eq!(
        other.digest_path(&path).unwrap(),
        Digest::of(b"other content")
    );
}
