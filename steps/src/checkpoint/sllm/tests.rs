//! Loads by a store that behaves, and by some that do not.

use super::*;
use crate::cuda_double as cuda;
use crate::store_double::{Double, Manner, POOL};
use checkpoints::{Limits, convert};
use std::collections::BTreeMap;
use std::fs;
use tempfile::TempDir;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A checkpoint of the store's format, of several partitions with tied and empty tensors; and its bytes.
pub(super) fn checkpoint(root: &Path) -> (PathBuf, u64) {
    let own = root.join("own");
    fs::create_dir(&own).unwrap();
    let header = r#"{"a":{"dtype":"U8","shape":[3000],"data_offsets":[0,3000]},"b":{"dtype":"BF16","shape":[0],"data_offsets":[3000,3000]},"c":{"dtype":"U8","shape":[3000],"data_offsets":[3000,6000]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + 6000, 7);
    fs::write(own.join("model.safetensors"), bytes).unwrap();
    let contents = Contents::read(&own).unwrap();
    let store = root.join("store");
    fs::create_dir(&store).unwrap();
    let limits = Limits {
        max_file_bytes: 4096,
    };
    convert(&contents, Format::Store, limits, &store, &|_| true).unwrap();
    (store, 6000)
}

struct World {
    folder: TempDir,
    double: Double,
}

impl World {
    fn new(manner: Manner) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let double = Double::start(manner, &folder.path().join("log"));
        Self { folder, double }
    }

    fn endpoint(&self) -> Endpoint {
        let log = self.folder.path().join("log").display().to_string();
        let version = "0.8.0".to_owned();
        let facts = [(STORE_LOG.to_owned(), log), ("version".to_owned(), version)];
        Endpoint::new(self.double.url.as_str(), BTreeMap::from(facts))
    }
}

/// Loads on a thread that may block, as steps do.
async fn load(
    world: &World,
    target: StoreTarget,
    folder: PathBuf,
    limit: Duration,
) -> Result<ForeignLoad, StepError> {
    let mut loader = SllmStore::of(&world.endpoint(), target, true).unwrap();
    let load = tokio::task::spawn_blocking(move || loader.load(&folder, limit));
    load.await.unwrap()
}

#[tokio::test]
async fn a_load_ends_with_the_log_and_leaves_nothing() {
    let world = World::new(Manner::Documented);
    let (folder, bytes) = checkpoint(world.folder.path());
    let loader = SllmStore::of(&world.endpoint(), StoreTarget::Host, true).unwrap();
    assert_eq!(loader.name(), "sllm_store 0.8.0");
    assert!(loader.reads(Format::Store) && !loader.reads(Format::Safetensors));
    assert!(loader.loads_into_memory());
    for _ in 0..2 {
        let loaded = load(&world, StoreTarget::Host, folder.clone(), LONG).await;
        let loaded = loaded.unwrap();
        assert_eq!(loaded.bytes, bytes);
        assert_eq!(loaded.parts, [("read_ms", Duration::ZERO)]);
        assert!(loaded.total > Duration::ZERO && loaded.total < LONG);
        assert!(loaded.cpu < LONG);
        assert!(loaded.peak_memory.is_none_or(|peak| peak > 0));
        assert!(world.double.loaded().is_empty());
    }
}

#[tokio::test]
async fn a_load_that_fails_is_told_with_the_log() {
    let world = World::new(Manner::FailsToLoad);
    let (folder, _) = checkpoint(world.folder.path());
    let failed = load(&world, StoreTarget::Host, folder, LONG).await;
    let error = failed.err().unwrap();
    assert!(error.message.contains("Failed to load model"), "{error:?}");
    assert!(error.message.contains("Invalid argument"), "{error:?}");
    assert_eq!(error.log, Some(world.folder.path().join("log")));
}

#[tokio::test]
async fn a_load_that_never_ends_is_given_up() {
    let world = World::new(Manner::NeverLoads);
    let (folder, _) = checkpoint(world.folder.path());
    let limit = Duration::from_millis(300);
    let failed = load(&world, StoreTarget::Host, folder, limit).await;
    let error = failed.err().unwrap();
    assert_eq!(error.class, FailureClass::Timeout);
    assert!(error.message.contains("has loaded the model"), "{error:?}");
}

#[tokio::test]
async fn a_refusal_and_the_end_of_the_store_are_told_apart() {
    let world = World::new(Manner::Refuses("LoadModelAsync"));
    let (folder, _) = checkpoint(world.folder.path());
    let refused = load(&world, StoreTarget::Host, folder.clone(), LONG).await;
    let error = refused.err().unwrap();
    assert!(
        error.message.contains("refused `LoadModelAsync`"),
        "{error:?}"
    );
    let mut world = World::new(Manner::Documented);
    let mut loader = SllmStore::of(&world.endpoint(), StoreTarget::Host, true).unwrap();
    world.double.die();
    let load = tokio::task::spawn_blocking(move || loader.load(&folder, LONG).err());
    let error = load.await.unwrap().unwrap();
    assert_eq!(error.class, FailureClass::Infrastructure);
    assert!(error.message.contains("no store answers at"), "{error:?}");
}

#[tokio::test]
async fn what_the_store_would_get_wrong_is_not_asked_of_it() {
    let world = World::new(Manner::Documented);
    let (folder, _) = checkpoint(world.folder.path());
    load(&world, StoreTarget::Host, folder.clone(), LONG)
        .await
        .unwrap();
    // It knows another size by now.
    let path = folder.join("tensor.data_1");
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(8192).unwrap();
    let other = load(&world, StoreTarget::Host, folder.clone(), LONG).await;
    let error = other.err().unwrap();
    assert!(error.message.contains("it looks at them once"), "{error:?}");
    // The tail that its own writer loses: the index reaches further than the file.
    file.set_len(2048).unwrap();
    let cut = load(&world, StoreTarget::Host, folder.clone(), LONG).await;
    let error = cut.err().unwrap();
    assert!(error.message.contains("they were cut off"), "{error:?}");
    // More than the pool.
    let large = world.folder.path().join("large");
    fs::create_dir(&large).unwrap();
    fs::write(large.join("tensor_index.json"), "{}").unwrap();
    let file = fs::File::create(large.join("tensor.data_0")).unwrap();
    file.set_len(POOL as u64 + 1).unwrap();
    let error = load(&world, StoreTarget::Host, large, LONG).await;
    let error = error.err().unwrap();
    assert!(
        error.message.contains("the store's pool has 1073741824"),
        "{error:?}"
    );
    let own = world.folder.path().join("own");
    let error = load(&world, StoreTarget::Host, own, LONG)
        .await
        .err()
        .unwrap();
    assert!(
        error.message.contains("a checkpoint of safetensors"),
        "{error:?}"
    );
    assert!(world.double.loaded().is_empty());
}

#[tokio::test]
async fn a_gpu_that_is_not_there_is_an_error_with_its_reason() {
    let world = World::new(Manner::Documented);
    let (folder, _) = checkpoint(world.folder.path());
    let error = load(&world, StoreTarget::Gpu, folder.clone(), LONG).await;
    let error = error.err().unwrap();
    assert_eq!(error.message, "the store sees no GPU");
    let line = format!("{GPU_LINE}none of this machine\n");
    fs::write(world.folder.path().join("log"), line).unwrap();
    let error = load(&world, StoreTarget::Gpu, folder, LONG).await;
    let error = error.err().unwrap();
    let reasons = ["no CUDA driver", "no GPU here has", "could not"];
    let is_known = reasons.iter().any(|reason| error.message.contains(reason));
    assert!(is_known, "{error:?}");
    // The load to the host had gone on meanwhile.
    assert!(world.double.loaded().is_empty());
}

const GPU_LINE: &str = "I20260301 18:12:39.000001  4711 checkpoint_store.cpp:68] GPU 0 UUID: ";

#[test]
fn what_comes_to_a_gpu_is_held_to_the_files() {
    let name = "checkpoint::sllm::tests::what_comes_to_a_gpu_is_held_to_the_files";
    if !cuda::is_here() {
        return cuda::again(name);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let world = World::new(Manner::Documented);
        let (folder, bytes) = checkpoint(world.folder.path());
        let log = world.folder.path().join("log");
        fs::write(&log, format!("{GPU_LINE}{}\n", cuda::UUID)).unwrap();
        let loaded = load(&world, StoreTarget::Gpu, folder.clone(), LONG).await;
        let loaded = loaded.unwrap();
        assert_eq!(loaded.bytes, bytes);
        let names: Vec<_> = loaded.parts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["allocate_ms", "read_ms", "copy_ms"]);
        assert!(world.double.loaded().is_empty());
    });
}

#[tokio::test]
async fn a_service_without_a_log_is_no_store() {
    let endpoint = Endpoint::new("http://127.0.0.1:9", BTreeMap::new());
    let error = SllmStore::of(&endpoint, StoreTarget::Host, true)
        .err()
        .unwrap();
    assert!(error.message.contains("log is not known"), "{error:?}");
}
