//! Stores in use: what goes in comes out, what is damaged is a miss, nothing half-made shows.

mod damage;
mod fsck;
mod gc;
mod imports;
mod index;
mod records;
mod sources;

use super::*;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

struct Bench {
    folder: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("out/store")).unwrap();
        Self { folder, store }
    }

    /// Makes a folder `name` with these files; a path that ends in `/` is an empty folder.
    fn folder(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = self.folder.path().join(name);
        fs::create_dir_all(&root).unwrap();
        for (path, content) in files {
            let path = root.join(path);
            if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
        }
        root
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn blob_of(&self, content: &str) -> PathBuf {
        self.store.blobs().path(&Digest::of(content.as_bytes()))
    }

    fn n_blobs(&self) -> usize {
        let shards = fs::read_dir(&self.store.inner.blobs).unwrap();
        shards
            .map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().count())
            .sum()
    }
}

/// What a folder holds: files with content and whether they are programs, links with target.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::symlink_metadata(&path).unwrap();
            let shown = if data.is_dir() {
                open.push(path.clone());
                "folder".to_owned()
            } else if data.is_symlink() {
                format!("to {}", fs::read_link(&path).unwrap().display())
            } else {
                format!(
                    "{:o} {}",
                    data.mode() & 0o111,
                    fs::read_to_string(&path).unwrap()
                )
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), shown);
        }
    }
    found
}

#[test]
fn a_root_that_cannot_be_written_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for root in [folder.path().join("file/store"), "/proc/benchwright".into()] {
        let error = Store::open(&root).unwrap_err();
        assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains(&format!("the store `{}` cannot be written", root.display())),
            "{error}"
        );
    }
}

#[test]
fn a_closed_store_leaves_no_unfinished_files() {
    let bench = Bench::new();
    bench
        .store
        .import(&bench.folder("work", &[("a", "1")]))
        .unwrap();
    let tmp = bench.store.root().join("tmp");
    drop(bench.store);
    assert_eq!(fs::read_dir(tmp).unwrap().count(), 0);
}
