//! Files that are cut off, damaged or made to harm: an error or sound tensors, and never a crash.

#![expect(clippy::print_stdout, reason = "a seed has to be told")]

use checkpoints::loader::{Effort, Way};
use checkpoints::{Contents, Destination, Dtype, Format, Limits, Load};
use safetensors::tensor::TensorView;
use std::num::NonZeroUsize;
use std::path::Path;

/// How many damaged checkpoints of each format are tried.
const CASES: u64 = 1000;

/// A safetensors file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 7);
    bytes
}

fn problem(folder: &Path) -> String {
    Contents::read(folder).unwrap_err().to_string()
}

#[test]
fn headers_that_lie_are_refused_with_what_they_say() {
    let root = tempfile::tempdir().unwrap();
    let tensor = |begin: u64, end: u64| {
        format!(
            r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#,
            end - begin
        )
    };
    let (a, b) = (tensor(0, 4), tensor(2, 6));
    let mut long = u64::MAX.to_le_bytes().to_vec();
    long.resize(100, b' ');
    let mut cut = file(&format!(r#"{{"a":{a}}}"#), 4);
    cut.pop();
    for (bytes, expected) in [
        (Vec::new(), "has only 0 bytes"),
        (vec![1; 7], "has only 7 bytes"),
        (
            long,
            "says that its header has 18446744073709551615 bytes, where 92 are possible",
        ),
        (file("", 0), "has no valid header: EOF"),
        (file("[]", 0), "expected an object with tensors"),
        (
            file(
                r#"{"a":{"dtype":"U9","shape":[1],"data_offsets":[0,1]}}"#,
                1,
            ),
            "unknown variant",
        ),
        (
            file(&format!(r#"{{"a":{a},"b":{b}}}"#), 6),
            "invalid offset for tensor `b`",
        ),
        (
            file(&format!(r#"{{"a":{a},"a":{a}}}"#), 4),
            "has two tensors `a`",
        ),
        (
            file(&format!(r#"{{"a":{a}}}"#), 5),
            "has 5 bytes of data, and its header asks for 4",
        ),
        (cut, "has 3 bytes of data, and its header asks for 4"),
        (
            file(
                r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#,
                4,
            ),
            "overflow",
        ),
        (
            file(
                r#"{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,18446744073709551615]}}"#,
                4,
            ),
            "invalid shape",
        ),
        (
            file(
                r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[5,4]}}"#,
                4,
            ),
            "invalid offset",
        ),
    ] {
        std::fs::write(root.path().join("model.safetensors"), bytes).unwrap();
        let found = problem(root.path());
        assert!(found.contains(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn indexes_that_lie_are_refused_with_what_they_say() {
    let root = tempfile::tempdir().unwrap();
    let part = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    for name in ["x.safetensors", "y.safetensors"] {
        std::fs::write(root.path().join(name), file(part, 4)).unwrap();
    }
    for (map, expected) in [
        (r#"{"a":"../x.safetensors"}"#, "is no file beside it"),
        (r#"{"a":"/etc/passwd"}"#, "is no file beside it"),
        (r#"{"a":""}"#, "is no file beside it"),
        (r#"{"a":".."}"#, "is no file beside it"),
        (r#"{"a":"none"}"#, "could not open"),
        (
            r#"{"b":"x.safetensors"}"#,
            "says that `b` lies in `x.safetensors`, which does not have it",
        ),
        (
            r#"{"a":"x.safetensors","c":"y.safetensors"}"#,
            "has a tensor `a`, which `x.safetensors` has, too",
        ),
        ("[]", "cannot be understood"),
    ] {
        let index = format!(r#"{{"weight_map":{map}}}"#);
        std::fs::write(root.path().join("model.safetensors.index.json"), index).unwrap();
        let found = problem(root.path());
        assert!(found.contains(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn indexes_of_the_store_that_lie_are_refused_with_what_they_say() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("tensor.data_0"), [0; 16]).unwrap();
    std::fs::write(root.path().join("tensor.data_1"), [0; 16]).unwrap();
    for (index, expected) in [
        (
            r#"{"a":[0,8,[8],[1],"torch.int9"]}"#,
            "the type \"torch.int9\", which is not known",
        ),
        (
            r#"{"a":[0,9,[8],[1],"torch.int8"]}"#,
            "says of `a` 9 bytes, where its shape needs 8",
        ),
        (
            r#"{"a":[28,8,[8],[1],"torch.int8"]}"#,
            "bytes 28 to 36, where its partitions have 32: they were cut off",
        ),
        (
            r#"{"a":[12,8,[8],[1],"torch.int8"]}"#,
            "a place in two partitions",
        ),
        (
            r#"{"a":[18446744073709551615,8,[8],[1],"torch.int8"]}"#,
            "where no file reaches",
        ),
        (
            r#"{"a":[0,8,[9223372036854775808,2],[1,1],"torch.int8"]}"#,
            "which no memory holds",
        ),
        (
            r#"{"a":[0,8,[2,4],[1,2],"torch.int8"]}"#,
            "not that of a contiguous tensor",
        ),
        (
            r#"{"a":[0,8,[8],[],"torch.int8"]}"#,
            "not that of a contiguous tensor",
        ),
        (
            r#"{"a":[0,8,[8],[1],"torch.int8"],"b":[4,8,[8],[1],"torch.int8"]}"#,
            "gives `b` a part of the bytes of `a`",
        ),
        (
            r#"{"a":[0,-8,[8],[1],"torch.int8"]}"#,
            "cannot be understood",
        ),
        ("7", "cannot be understood"),
    ] {
        std::fs::write(root.path().join("tensor_index.json"), index).unwrap();
        let found = problem(root.path());
        assert!(found.contains(expected), "{found}\nis not\n{expected}");
    }
    std::fs::write(root.path().join("model.safetensors"), []).unwrap();
    assert!(problem(root.path()).contains("holds a checkpoint of each format"));
}

#[test]
fn a_folder_in_place_of_a_file_is_refused() {
    let root = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "tensor_index.json"] {
        let path = root.path().join(name);
        std::fs::create_dir(&path).unwrap();
        assert!(problem(root.path()).contains("is no file"));
        std::fs::remove_dir(&path).unwrap();
    }
}

/// Numbers by chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n.max(1)
    }
}

/// What hostile files are made of.
const TOKENS: [&str; 12] = [
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
];

/// Damages a file: cuts it off, turns bits, puts a token somewhere, or repeats a part.
fn damage(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..=chance.below(3) {
        // The beginning is where the header is.
        let most = if chance.below(2) == 0 {
            bytes.len()
        } else {
            bytes.len().min(400)
        };
        let at = chance.below(most);
        match chance.below(5) {
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
            _ => bytes.extend(std::iter::repeat_n(0, chance.below(5000))),
        }
    }
}

/// Reads a checkpoint to its last byte, by every loader, if it can be read at all.
fn use_all(folder: &Path) -> bool {
    let Ok(contents) = Contents::read(folder) else {
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

#[test]
fn damaged_checkpoints_are_errors_or_sound() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (own, store) = (root.path().join("own"), root.path().join("store"));
    for folder in [&own, &store] {
        std::fs::create_dir(folder).unwrap();
    }
    let data: Vec<u8> = (0..9000_u32).map(|i| (i % 251) as u8).collect();
    let view = |dtype, shape: Vec<usize>, n| TensorView::new(dtype, shape, &data[..n]).unwrap();
    let views = [
        ("model.a", view(Dtype::F32, vec![10, 20], 800)),
        ("model.b", view(Dtype::U8, vec![4099], 4099)),
        ("model.c", view(Dtype::BF16, vec![0], 0)),
    ];
    let sound = safetensors::serialize(views, None).unwrap();
    let path = own.join("model.safetensors");
    std::fs::write(&path, &sound).unwrap();
    let contents = Contents::read(&own).unwrap();
    let limits = Limits {
        max_file_bytes: 4096,
    };
    checkpoints::convert(&contents, Format::Store, limits, &store, &|_| true).unwrap();
    let mut read = [0_u64; 2];
    for seed in 0..CASES {
        // Shown only where something fails.
        println!("seed {seed}");
        let mut chance = Chance(seed);
        let mut bytes = sound.clone();
        damage(&mut bytes, &mut chance);
        std::fs::write(&path, &bytes).unwrap();
        read[0] += u64::from(use_all(&own));
        let name = ["tensor_index.json", "tensor.data_0", "tensor.data_1"][chance.below(3)];
        let whole = std::fs::read(store.join(name)).unwrap();
        let mut bytes = whole.clone();
        damage(&mut bytes, &mut chance);
        std::fs::write(store.join(name), &bytes).unwrap();
        read[1] += u64::from(use_all(&store));
        std::fs::write(store.join(name), &whole).unwrap();
    }
    // Damage to data alone is none of the format's business; most other is seen.
    assert!(
        read.iter().all(|n| *n > CASES / 50 && *n < CASES / 2),
        "{read:?}"
    );
}
