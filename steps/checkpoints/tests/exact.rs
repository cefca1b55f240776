//! Every tensor is the same in every format, by every loader, wherever it is loaded to.

use checkpoints::loader::{Effort, Way};
use checkpoints::memory::{Pool, Region, Touch};
use checkpoints::{Contents, Destination, Dtype, Format, How, Limits, Load, Loaded};
use safetensors::tensor::TensorView;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Types that both formats have.
const DTYPES: [Dtype; 19] = [
    Dtype::BOOL,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F8_E4M3FNUZ,
    Dtype::F8_E5M2FNUZ,
    Dtype::I16,
    Dtype::U16,
    Dtype::F16,
    Dtype::BF16,
    Dtype::I32,
    Dtype::U32,
    Dtype::F32,
    Dtype::C64,
    Dtype::F64,
    Dtype::I64,
    Dtype::U64,
];

/// Type, shape and bytes by name.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Bytes by chance, always the same for a seed.
fn noise(seed: u64, n: usize) -> Vec<u8> {
    let key = models::noise::key(seed, "bytes");
    (0..n as u64)
        .map(|i| models::noise::bits(key, i) as u8)
        .collect()
}

/// Tensors of every type, of lengths that end on and beside pages, empty ones, and one that is tied.
fn tensors() -> Tensors {
    let mut all = Tensors::new();
    for (i, dtype) in DTYPES.into_iter().enumerate() {
        let shape = vec![3, 17 + i];
        let bytes = noise(i as u64, 3 * (17 + i) * dtype.bitsize() / 8);
        all.insert(format!("layers.{i}.weight"), (dtype, shape, bytes));
    }
    for (i, rest) in [0, 8, 256, 4095].into_iter().enumerate() {
        let n = 4096 * (i + 1) + rest;
        all.insert(
            format!("pages.{rest}"),
            (Dtype::U8, vec![n], noise(100 + i as u64, n)),
        );
    }
    all.insert(
        "long".into(),
        (Dtype::F32, vec![5, 5000], noise(200, 100_000)),
    );
    all.insert("empty".into(), (Dtype::F16, vec![0, 4], Vec::new()));
    all.insert("scalar".into(), (Dtype::BF16, vec![], noise(201, 2)));
    all
}

/// What is read back: those tensors, and one that has the bytes of another.
fn expected() -> Tensors {
    let mut all = tensors();
    let long = all["long"].clone();
    all.insert("tied".into(), long);
    all
}

/// Writes them as the `safetensors` crate does, as one file or as two beside an index.
fn write(folder: &Path, files: usize) {
    let tensors = tensors();
    let tied = HashMap::from([
        ("tied".to_owned(), "long".to_owned()),
        ("format".to_owned(), "pt".to_owned()),
    ]);
    let view = |(name, (dtype, shape, bytes)): (&String, &(Dtype, Vec<usize>, Vec<u8>))| {
        let view = TensorView::new(
            *dtype,
            shape.clone(),
            Box::leak(bytes.clone().into_boxed_slice()),
        );
        (name.clone(), view.unwrap())
    };
    let views: Vec<_> = tensors.iter().map(view).collect();
    if files == 1 {
        let bytes = safetensors::serialize(views, Some(tied)).unwrap();
        std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
        return;
    }
    let mut map = serde_json::Map::new();
    for (i, part) in views.chunks(views.len().div_ceil(files)).enumerate() {
        let name = format!("model-{i}.safetensors");
        for (tensor, _) in part {
            map.insert(tensor.clone(), name.clone().into());
        }
        let bytes = safetensors::serialize(part.to_vec(), Some(tied.clone())).unwrap();
        std::fs::write(folder.join(&name), bytes).unwrap();
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
}

fn convert(from: &Path, to: Format, most: u64, out: PathBuf) -> PathBuf {
    std::fs::create_dir(&out).unwrap();
    let contents = Contents::read(from).unwrap();
    let limits = Limits {
        max_file_bytes: most,
    };
    checkpoints::convert(&contents, to, limits, &out, &|_| true).unwrap();
    out
}

fn require_all(loaded: &Loaded<'_>, case: &str) {
    let mut expected = expected();
    for (at, tensor) in loaded.contents.tensors.iter().enumerate() {
        let (dtype, shape, bytes) = expected.remove(&tensor.name).expect(&tensor.name);
        let found: Vec<usize> = tensor.shape.iter().map(|dim| *dim as usize).collect();
        assert_eq!(
            (tensor.dtype, found),
            (dtype, shape),
            "{} {case}",
            tensor.name
        );
        assert!(loaded.bytes(at) == bytes, "{} {case}", tensor.name);
    }
    assert!(expected.is_empty(), "{:?} {case}", expected.keys());
    assert_eq!(loaded.first_difference().unwrap(), None, "{case}");
}

/// Folders with the same tensors in both formats, in one file and in several.
fn folders(root: &Path) -> Vec<PathBuf> {
    for (name, files) in [("one", 1), ("two", 2)] {
        std::fs::create_dir(root.join(name)).unwrap();
        write(&root.join(name), files);
    }
    let store = convert(
        &root.join("two"),
        Format::Store,
        u64::MAX,
        root.join("store"),
    );
    // Smaller than the longest tensor, so that there are many partitions, and one with that tensor alone.
    let cut = convert(&root.join("one"), Format::Store, 9_000, root.join("cut"));
    let back = convert(&cut, Format::Safetensors, u64::MAX, root.join("back"));
    let shards = convert(&store, Format::Safetensors, 20_000, root.join("shards"));
    let again = convert(&shards, Format::Store, 9_000, root.join("again"));
    vec![
        root.join("one"),
        root.join("two"),
        store,
        cut,
        back,
        shards,
        again,
    ]
}

#[test]
fn every_loader_brings_the_same_bytes_of_every_format_to_every_place() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut pool = Pool::new(Region::new(1 << 20, Touch::Before).unwrap());
    let mut ring = Region::new(3 * 8192, Touch::Before).unwrap();
    let mut to = Region::new(1 << 20, Touch::Before).unwrap();
    for folder in folders(root.path()) {
        let file = Contents::read(&folder).unwrap().path(0);
        for way in [
            Way::Mmap,
            Way::MmapCopy,
            Way::Buffered,
            Way::Direct,
            Way::IoUring,
        ] {
            if way.refusal(&file).is_some() {
                continue;
            }
            let case = format!("{} {way:?}", folder.display());
            let load = Load {
                folder: folder.clone(),
                way,
                effort: Effort {
                    threads: NonZeroUsize::new(3).unwrap(),
                    depth: NonZeroUsize::new(2).unwrap(),
                },
                block: 8192,
            };
            pool.forget(&folder.to_string_lossy());
            to.bytes_mut().fill(0xff);
            require_all(
                &checkpoints::load(&load, Destination::Pool(&mut pool)).unwrap(),
                &case,
            );
            require_all(
                &checkpoints::load(&load, Destination::Fresh).unwrap(),
                &case,
            );
            if way == Way::Mmap {
                continue;
            }
            let again = checkpoints::load(&load, Destination::Pool(&mut pool)).unwrap();
            assert!(again.was_resident, "{case}");
            require_all(&again, &case);
            let (ring, to) = (&mut ring, &mut to);
            let loaded =
                checkpoints::load(&load, Destination::Ring { ring, to: &mut *to }).unwrap();
            assert!(loaded.blocks > 10, "{case}");
            require_all(&loaded, &case);
            to.bytes_mut().fill(0xff);
            let pool = &mut pool;
            require_all(
                &checkpoints::load(&load, Destination::Through { pool, to }).unwrap(),
                &case,
            );
        }
    }
}

#[test]
fn formats_hold_tied_tensors_once_and_partitions_end_at_pages() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for folder in folders(root.path()) {
        let contents = Contents::read(&folder).unwrap();
        let bytes: usize = tensors().values().map(|(_, _, bytes)| bytes.len()).sum();
        assert_eq!(
            contents.tensor_bytes(),
            bytes as u64,
            "{}",
            folder.display()
        );
        let places = contents
            .tensors
            .iter()
            .filter(|tensor| ["tied", "long"].contains(&&*tensor.name));
        let places: Vec<_> = places.map(|tensor| (tensor.file, tensor.offset)).collect();
        assert_eq!(
            (places.len(), places[0]),
            (2, places[1]),
            "{}",
            folder.display()
        );
        if contents.format == Format::Store {
            assert!(contents.files.iter().all(|file| file.bytes % 4096 == 0));
            assert!(contents.tensors.iter().all(|tensor| tensor.offset % 8 == 0));
        }
    }
    // What is written is what the `safetensors` crate reads.
    let bytes = std::fs::read(root.path().join("back/model.safetensors")).unwrap();
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, (dtype, shape, data)) in tensors() {
        let view = read.tensor(&name).unwrap();
        assert_eq!(
            (view.dtype(), view.shape(), view.data()),
            (dtype, &*shape, &*data),
            "{name}"
        );
    }
}

#[test]
fn what_has_no_name_in_pytorch_or_no_room_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let view = TensorView::new(Dtype::F4, vec![4], &[0x12, 0x34]).unwrap();
    let bytes = safetensors::serialize([("w", view)], None).unwrap();
    std::fs::write(root.path().join("model.safetensors"), bytes).unwrap();
    let contents = Contents::read(root.path()).unwrap();
    let out = root.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let limits = Limits {
        max_file_bytes: 1 << 30,
    };
    let error =
        checkpoints::convert(&contents, Format::Store, limits, &out, &|_| true).unwrap_err();
    assert!(
        error.to_string().contains("has a tensor `w` of F4"),
        "{error}"
    );
    let mut pool = Pool::new(Region::new(10, Touch::Before).unwrap());
    let one = NonZeroUsize::MIN;
    let load = Load {
        folder: root.path().to_owned(),
        way: Way::Buffered,
        effort: Effort {
            threads: one,
            depth: one,
        },
        block: 4096,
    };
    let error = checkpoints::load(&load, Destination::Pool(&mut pool))
        .err()
        .unwrap();
    assert!(error.to_string().ends_with("the pool has 10"), "{error}");
}

#[test]
fn replicas_are_made_only_in_folders_of_their_own() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let from = root.path().join("one");
    std::fs::create_dir(&from).unwrap();
    write(&from, 1);
    std::fs::write(from.join("config.json"), "{}").unwrap();
    let contents = Contents::read(&from).unwrap();
    let make = |count, how, name: &str| {
        checkpoints::replicate(&contents, count, how, &root.path().join(name), &|_| true)
    };
    for how in [How::Copy, How::HardLink] {
        let name = format!("{how:?}");
        let made = make(2, Some(how), &name).unwrap();
        assert_eq!((made.how, made.folders.len()), (how, 2));
        for folder in &made.folders {
            let read = Contents::read(folder).unwrap();
            assert_eq!(read.tensors, contents.tensors);
            assert!(folder.join("config.json").exists());
        }
        assert_eq!(make(1, None, &name).unwrap().folders, made.folders[..1]);
        let error = make(3, Some(how), &name).unwrap_err().to_string();
        assert!(error.contains("holds other replicas"), "{error}");
        std::fs::remove_file(made.folders[1].join("model.safetensors")).unwrap();
        assert!(!made.are_whole());
        assert!(
            made.ready(&|_| true)
                .unwrap_err()
                .to_string()
                .contains("lacks files")
        );
        std::fs::remove_dir_all(&made.folder).unwrap();
        made.ready(&|_| true).unwrap();
        assert!(made.are_whole());
    }
    let theirs = root.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::fs::write(theirs.join("thesis.txt"), "all of it").unwrap();
    let error = make(1, None, "theirs").unwrap_err().to_string();
    assert!(error.contains("nothing is written to it"), "{error}");
    assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 1);
    assert!(make(2, None, "chosen").is_ok());
}
