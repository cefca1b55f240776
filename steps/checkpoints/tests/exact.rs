//! Every tensor is the same in every format, by every loader, wherever it is loaded to.

mod some_tensors;

use checkpoints::loader::{Effort, Way};
use checkpoints::memory::{Pool, Region, Touch};
use checkpoints::{Contents, Destination, Dtype, Format, Limits, Load, Loaded};
use safetensors::tensor::TensorView;
use some_tensors::{noise, require_all, tensors, write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

fn convert(from: &Path, to: Format, most: u64, out: PathBuf) -> PathBuf {
    std::fs::create_dir(&out).unwrap();
    let contents = Contents::read(from).unwrap();
    let limits = Limits {
        max_file_bytes: most,
    };
    checkpoints::convert(&contents, to, limits, &out, &|_| true).unwrap();
    out
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

/// Memory of every kind that loads go to.
struct Memory {
    pool: Pool,
    ring: Region,
    to: Region,
}

impl Memory {
    fn new() -> Self {
        let region = |bytes| Region::new(bytes, Touch::Before).unwrap();
        Self {
            pool: Pool::new(region(1 << 20)),
            ring: region(3 * 8192),
            to: region(1 << 20),
        }
    }

    /// Loads a checkpoint by every loader to every kind of memory, and has each load looked at; returns their number.
    fn load_everywhere(&mut self, folder: &Path, check: &dyn Fn(&Loaded<'_>, &str)) -> usize {
        let file = Contents::read(folder).unwrap().path(0);
        let ways = [
            Way::Mmap,
            Way::MmapCopy,
            Way::Buffered,
            Way::Direct,
            Way::IoUring,
        ];
        let mut loads = 0;
        for way in ways.into_iter().filter(|way| way.refusal(&file).is_none()) {
            let case = format!("{} {way:?}", folder.display());
            let load = Load {
                folder: folder.to_owned(),
                way,
                effort: Effort {
                    threads: NonZeroUsize::new(3).unwrap(),
                    depth: NonZeroUsize::new(2).unwrap(),
                },
                block: 8192,
            };
            self.pool.forget(&folder.to_string_lossy());
            for kind in ["pool", "fresh", "pool again", "ring", "through"] {
                let to = &mut self.to;
                to.bytes_mut().fill(0xff);
                let (pool, ring) = (&mut self.pool, &mut self.ring);
                let destination = match kind {
                    "fresh" => Destination::Fresh,
                    "ring" => Destination::Ring { ring, to },
                    "through" => Destination::Through { pool, to },
                    _ => Destination::Pool(pool),
                };
                if way == Way::Mmap && !["pool", "fresh"].contains(&kind) {
                    continue;
                }
                let loaded = checkpoints::load(&load, destination).unwrap();
                let resident = ["pool again", "through"].contains(&kind);
                assert_eq!(loaded.was_resident, resident, "{case} {kind}");
                assert_eq!(
                    loaded.buffers.is_some(),
                    way == Way::IoUring && !resident,
                    "{case} {kind}"
                );
                check(&loaded, &format!("{case} {kind}"));
                loads += 1;
            }
        }
        loads
    }
}

#[test]
fn every_loader_brings_the_same_bytes_of_every_format_to_every_place() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut memory = Memory::new();
    for folder in folders(root.path()) {
        let loads = memory.load_everywhere(&folder, &|loaded, case| {
            assert!(loaded.blocks > 10, "{case}");
            require_all(loaded, case);
        });
        assert!(loads >= 2 + 2 * 5, "{loads}");
    }
}

/// A file of one tensor that is so long that its length leaves `rest` by pages.
fn file_of(rest: usize) -> (Vec<u8>, Vec<u8>) {
    // The header's length depends on how many digits the tensor's has: the length is found, not computed.
    let found = (3 * 4096..5 * 4096).find_map(|n| {
        let data = noise(n as u64, n);
        let view = TensorView::new(Dtype::U8, vec![n], &data).unwrap();
        let bytes = safetensors::serialize([("w", view)], None).unwrap();
        (bytes.len() % 4096 == rest).then_some((bytes, data))
    });
    found.unwrap()
}

#[test]
fn files_that_end_anywhere_are_loaded_to_their_last_byte() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut memory = Memory::new();
    for rest in [0, 8, 256, 4095] {
        let single = root.path().join(format!("single-{rest}"));
        std::fs::create_dir(&single).unwrap();
        let (bytes, data) = file_of(rest);
        std::fs::write(single.join("model.safetensors"), bytes).unwrap();
        memory.load_everywhere(&single, &|loaded, case| {
            assert!(*loaded.bytes(0).unwrap() == data, "{case}");
            assert_eq!(loaded.first_difference().unwrap(), None, "{case}");
        });
        // As the store's own writer leaves them: partitions end as they fall, and the next begins there.
        let store = root.path().join(format!("store-{rest}"));
        std::fs::create_dir(&store).unwrap();
        let parts = [noise(1, 3 * 4096 + rest), noise(2, 4096 + rest)];
        let mut index = serde_json::Map::new();
        let mut begin = 0;
        for (number, part) in parts.iter().enumerate() {
            let n = part.len();
            std::fs::write(store.join(format!("tensor.data_{number}")), part).unwrap();
            let entry = serde_json::json!([begin, n, [n], [1], "torch.uint8"]);
            index.insert(format!("part.{number}"), entry);
            begin += n;
        }
        let text = serde_json::Value::Object(index).to_string();
        std::fs::write(store.join("tensor_index.json"), text).unwrap();
        memory.load_everywhere(&store, &|loaded, case| {
            for (at, part) in parts.iter().enumerate() {
                assert!(*loaded.bytes(at).unwrap() == *part, "{at} {case}");
            }
            assert_eq!(loaded.first_difference().unwrap(), None, "{case}");
        });
    }
}

#[test]
fn tensors_of_less_than_a_byte_an_element_are_loaded_like_others() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dtypes = [Dtype::F4, Dtype::F6_E2M3, Dtype::F6_E3M2];
    let data: Vec<Vec<u8>> = (0..3)
        .map(|i| noise(i, 4000 * dtypes[i as usize].bitsize() / 8))
        .collect();
    let views = dtypes.iter().zip(&data).map(|(dtype, data)| {
        let view = TensorView::new(*dtype, vec![40, 100], data).unwrap();
        (dtype.to_string(), view)
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(root.path().join("model.safetensors"), bytes).unwrap();
    Memory::new().load_everywhere(root.path(), &|loaded, case| {
        assert_eq!(loaded.contents.tensors.len(), 3, "{case}");
        for (at, tensor) in loaded.contents.tensors.iter().enumerate() {
            let own = dtypes.iter().position(|dtype| *dtype == tensor.dtype);
            let own = own.unwrap();
            assert!(*loaded.bytes(at).unwrap() == data[own], "{case}");
        }
    });
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
