//! Files that chance has damaged: headers, indexes, shards and partitions. An error or sound tensors, never a crash,
//! and never an allocation that only a lie in a header asks for.
//!
//! A case follows from its seed. The short run makes a few hundred; `cargo xtask soak damaged_checkpoints` makes as many
//! as it is told, and says how to repeat the one that failed.

#![expect(clippy::print_stdout, reason = "a seed has to be told")]

mod some_tensors;

use checkpoints::loader::{Effort, Way};
use checkpoints::{Contents, Destination, Dtype, Format, Limits, Load};
use safetensors::tensor::TensorView;
use some_tensors::Chance;
use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Damaged checkpoints of each kind in a round of a soak.
const CASES_PER_ROUND: u64 = 20;
/// What an entry of two bytes may become: a number of a shape takes eight, and lists double as they grow.
const GROWTH: u64 = 16;
/// What reading takes beside that: paths, and the beginning of every list.
const BESIDE: u64 = 64 << 10;

/// The largest allocation that was asked for.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: everything is the system's; sizes are only looked at.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;

/// What hostile files are made of.
const TOKENS: [&str; 14] = [
    "18446744073709551615",
    "-1",
    "0",
    "1e308",
    "null",
    "[]",
    "{}",
    "\"",
    "9223372036854775808",
    ",",
    "\"F64\"",
    "\\u0000",
    "\"../model\"",
    "4096",
];

/// Damages a file: cuts it off, turns bits, puts a token somewhere, repeats a part, or lies about a length.
fn damage(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..=chance.below(3) {
        // The beginning is where the header is.
        let most = if chance.below(2) == 0 {
            bytes.len()
        } else {
            bytes.len().min(400)
        };
        let at = chance.below(most);
        match chance.below(6) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << chance.below(8),
            2 => {
                let token = TOKENS[chance.below(TOKENS.len())];
                let end = (at + chance.below(8)).min(bytes.len());
                bytes.splice(at..end, token.bytes());
            }
            3 => {
                let end = (at + chance.below(60)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = chance.below(bytes.len());
                bytes.splice(to..to, part);
            }
            4 if bytes.len() >= 8 => {
                let length = u64::MAX >> chance.below(64);
                bytes[..8].copy_from_slice(&length.to_le_bytes());
            }
            _ => bytes.extend(std::iter::repeat_n(0, chance.below(5000))),
        }
    }
}

/// Reads what a folder holds, with no larger allocation than its files can ask for.
fn read(folder: &Path) -> Option<Contents> {
    let files = std::fs::read_dir(folder).unwrap();
    let bytes: u64 = files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    LARGEST.store(0, Ordering::Relaxed);
    let contents = Contents::read(folder);
    let largest = LARGEST.load(Ordering::Relaxed) as u64;
    assert!(largest <= GROWTH * bytes + BESIDE, "{largest} for {bytes}");
    contents.ok()
}

/// Reads a checkpoint to its last byte, by every loader, if it can be read at all.
fn use_all(folder: &Path) -> bool {
    let Some(contents) = read(folder) else {
        return false;
    };
    let two = NonZeroUsize::new(2).unwrap();
    for way in [Way::Buffered, Way::Direct, Way::IoUring, Way::MmapCopy] {
        let load = Load {
            folder: folder.to_owned(),
            way,
            effort: Effort {
                threads: two,
                depth: two,
            },
            block: 4096,
        };
        // A map of an empty file is refused by the kernel, and direct reads by file systems in memory.
        let Ok(loaded) = checkpoints::load(&load, Destination::Fresh) else {
            continue;
        };
        assert_eq!(loaded.contents.tensors, contents.tensors);
        assert_eq!(loaded.first_difference().unwrap(), None);
    }
    true
}

/// The same few tensors as one file, as shards and as a store, each in a folder of its own.
fn folders(root: &Path) -> [PathBuf; 3] {
    let data: Vec<u8> = (0..9000_u32).map(|i| (i % 251) as u8).collect();
    let view = |dtype, shape: Vec<usize>, n| TensorView::new(dtype, shape, &data[..n]).unwrap();
    let views = [
        ("model.a", view(Dtype::F32, vec![10, 20], 800)),
        ("model.b", view(Dtype::U8, vec![4099], 4099)),
        ("model.c", view(Dtype::BF16, vec![0], 0)),
    ];
    let folders = ["one", "shards", "store"].map(|name| root.join(name));
    for folder in &folders {
        std::fs::create_dir(folder).unwrap();
    }
    let sound = safetensors::serialize(views, None).unwrap();
    std::fs::write(folders[0].join("model.safetensors"), sound).unwrap();
    let contents = Contents::read(&folders[0]).unwrap();
    let limits = Limits {
        max_file_bytes: 4096,
    };
    for (to, out) in [(Format::Safetensors, 1), (Format::Store, 2)] {
        checkpoints::convert(&contents, to, limits, &folders[out], &|_| true).unwrap();
    }
    folders
}

/// Damages one file of each folder after the other; says how many checkpoints of each could be read all the same.
fn run_cases(seed: u64, cases: u64) -> [u64; 3] {
    println!("{cases} cases from seed {seed}");
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folders = folders(root.path());
    let mut read = [0; 3];
    for seed in seed..seed + cases {
        // Shown only where something fails.
        println!("seed {seed}");
        let mut chance = Chance(seed);
        for (folder, read) in folders.iter().zip(&mut read) {
            let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
                .unwrap()
                .map(|file| file.unwrap().path())
                .collect();
            files.sort();
            let path = &files[chance.below(files.len())];
            let whole = std::fs::read(path).unwrap();
            if chance.below(50) == 0 {
                std::fs::remove_file(path).unwrap();
            } else {
                let mut bytes = whole.clone();
                damage(&mut bytes, &mut chance);
                std::fs::write(path, &bytes).unwrap();
            }
            *read += u64::from(use_all(folder));
            std::fs::write(path, &whole).unwrap();
        }
    }
    read
}

#[test]
fn damaged_checkpoints_are_errors_or_sound() {
    const CASES: u64 = 600;
    let read = run_cases(0, CASES);
    // Damage to data alone is none of the format's business; most other is seen, and nearly all of shards, of which
    // each says how long it is.
    assert!(
        read.iter().all(|n| *n > 0 && *n < CASES * 2 / 3),
        "{read:?}"
    );
}

#[test]
#[ignore = "a soak: `cargo xtask soak damaged_checkpoints`"]
fn soak_damaged_checkpoints() {
    let number = |name: &str, otherwise: u64| {
        let text = std::env::var(name).ok();
        text.map_or(otherwise, |text| text.parse().unwrap())
    };
    let rounds = number("BENCHWRIGHT_SOAK_ROUNDS", 5);
    let seed = number("BENCHWRIGHT_SOAK_SEED", 1);
    run_cases(seed, rounds * CASES_PER_ROUND);
}
