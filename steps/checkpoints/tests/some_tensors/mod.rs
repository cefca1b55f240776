//! Tensors of every type and of lengths that matter, written as the `safetensors` crate does, and what holds a
//! load to them.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test that includes this uses a part of it"
)]

use checkpoints::{Dtype, Loaded};
use safetensors::tensor::TensorView;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

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
pub fn noise(seed: u64, n: usize) -> Vec<u8> {
    let key = models::noise::key(seed, "bytes");
    (0..n as u64)
        .map(|i| models::noise::bits(key, i) as u8)
        .collect()
}

/// Tensors of every type, of lengths that end on and beside pages, empty ones, and one that is tied.
pub fn tensors() -> Tensors {
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
pub fn expected() -> Tensors {
    let mut all = tensors();
    let long = all["long"].clone();
    all.insert("tied".into(), long);
    all
}

/// Writes them as the `safetensors` crate does, as one file or as two beside an index.
pub fn write(folder: &Path, files: usize) {
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

/// Fails unless exactly these tensors were loaded, bit for bit.
pub fn require_all(loaded: &Loaded<'_>, case: &str) {
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
        assert!(
            *loaded.bytes(at).unwrap() == bytes,
            "{} {case}",
            tensor.name
        );
    }
    assert!(expected.is_empty(), "{:?} {case}", expected.keys());
    assert_eq!(loaded.first_difference().unwrap(), None, "{case}");
}

/// Numbers by chance.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n.max(1)
    }
}
