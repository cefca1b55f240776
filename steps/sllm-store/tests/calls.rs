//! The calls against a store that behaves as documented, refuses, hangs, and dies.

#[expect(dead_code, reason = "some of it is for the tests of `steps`")]
mod double;

use double::{CHUNK, Double, Manner, POOL};
use sllm_store::{Config, Store, StoreError, packed};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);
/// Shorter than what never comes.
const SHORT: Duration = Duration::from_millis(50);

/// A folder with a log and a model of two partitions, 5000 bytes.
fn folder() -> (TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("tensor.data_0"), [0; 4096]).unwrap();
    std::fs::write(model.join("tensor.data_1"), [0; 904]).unwrap();
    let log = folder.path().join("log");
    let model = model.to_str().unwrap().to_owned();
    (folder, log, model)
}

async fn connected(double: &Double, limit: Duration) -> Store {
    // A connection of its own may take long on a busy machine.
    let mut store = Store::connect(&double.url, LONG).await.unwrap();
    store.set_limit(limit);
    store
}

#[tokio::test]
async fn every_call_has_its_answer() {
    let (_folder, log, model) = folder();
    let double = Double::start(Manner::Documented, &log);
    let mut store = connected(&double, LONG).await;
    let config = Config {
        pool: POOL as u64,
        chunk: CHUNK as u64,
    };
    assert_eq!(store.config().await, Ok(config));
    assert_eq!(store.register(&model).await, Ok(5000));
    // It looks at files once.
    std::fs::write(Path::new(&model).join("tensor.data_1"), []).unwrap();
    assert_eq!(store.register(&model).await, Ok(5000));
    store.load_to_host(&model).await.unwrap();
    assert_eq!(double.loaded(), std::slice::from_ref(&model));
    let packed = packed([(0, 10), (4096, 6)]);
    let handle = [7; 64];
    let copy = store.load_to_gpu(&model, "r", "gpu", &handle, packed.chunks.clone());
    copy.await.unwrap();
    store.confirm(&model, "r", LONG).await.unwrap();
    let asked = double.replica("r").unwrap();
    assert_eq!(asked.chunks["gpu"], packed.chunks);
    assert_eq!(asked.handles["gpu"].handles[0].cuda_ipc_handle, handle);
    store.unload(&model).await.unwrap();
    assert!(double.loaded().is_empty());
    store.clear().await.unwrap();
    assert_eq!(store.register(&model).await, Ok(4096));
}

#[tokio::test]
async fn a_refusal_is_told_with_its_code() {
    let (folder, log, model) = folder();
    let double = Double::start(Manner::Refuses("LoadModelAsync"), &log);
    let mut store = connected(&double, LONG).await;
    let refused = store.load_to_host(&model).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the store refused `LoadModelAsync` with Internal: it says no more, see its log"
    );
    for refused in [
        store.register(folder.path().to_str().unwrap()).await.err(),
        store.confirm(&model, "never asked for", LONG).await.err(),
        store.unload(&model).await.err(),
    ] {
        let is_refusal =
            matches!(&refused, Some(StoreError::Refused { code, .. }) if code == "Internal");
        assert!(is_refusal, "{refused:?}");
    }
    // One refusal ends nothing.
    assert_eq!(store.register(&model).await, Ok(5000));
}

#[tokio::test]
async fn a_call_that_hangs_ends_with_its_limit() {
    let (_folder, log, model) = folder();
    let double = Double::start(Manner::Hangs("ConfirmModel"), &log);
    let mut store = connected(&double, LONG).await;
    let error = store.confirm(&model, "r", SHORT).await.unwrap_err();
    let call = "ConfirmModel";
    assert_eq!(error, StoreError::TooLong { call, limit: SHORT });
    let double = Double::start(Manner::Hangs("GetServerConfig"), &log);
    let mut store = connected(&double, SHORT).await;
    let error = store.config().await.unwrap_err().to_string();
    assert_eq!(
        error,
        "the store did not answer `GetServerConfig` within 0.05 s"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_store_that_dies_is_told_from_one_that_refuses() {
    let (_folder, log, model) = folder();
    let mut double = Double::start(Manner::Hangs("ConfirmModel"), &log);
    let mut store = connected(&double, LONG).await;
    let asked = model.clone();
    let confirming = tokio::spawn(async move { store.confirm(&asked, "r", LONG).await });
    tokio::task::block_in_place(|| {
        assert_eq!(double.calls.recv_timeout(LONG).unwrap(), "ConfirmModel");
        double.die();
    });
    let error = confirming.await.unwrap().unwrap_err();
    let is_broken = matches!(&error, StoreError::Broken { call, .. } if *call == "ConfirmModel");
    assert!(is_broken, "{error:?}");
    let gone = Store::connect(&double.url, LONG).await.unwrap_err();
    assert!(matches!(gone, StoreError::Unreachable { .. }), "{gone:?}");
}

#[tokio::test]
async fn what_is_no_address_is_told_so() {
    let error = Store::connect("not an address", LONG).await.unwrap_err();
    assert!(matches!(error, StoreError::Address { .. }), "{error:?}");
}
