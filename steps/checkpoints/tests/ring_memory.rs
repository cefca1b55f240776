//! What a load by a ring takes of memory: the destination, the ring, and little beside. Alone in its process, because the
//! kernel tells the peak of a process.

use checkpoints::loader::{Effort, Way};
use checkpoints::memory::{Region, Touch};
use checkpoints::usage::PeakMemory;
use checkpoints::{Contents, Destination, Load};
use models::{Inventory, Recipe};
use serde_json::json;
use std::num::NonZeroUsize;

/// What may be taken beside destination and ring.
const BESIDE: u64 = 64 << 20;
const BLOCK: u64 = 1 << 20;
const PLACES: u64 = 8;

#[test]
fn a_load_by_a_ring_takes_its_destination_its_ring_and_little_beside() {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4,
        "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 16384, "max_position_embeddings": 2048,
        "tie_word_embeddings": false,
    });
    let inventory = Inventory::of(config.as_object().unwrap()).unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let recipe = Recipe {
        seed: 1,
        std: 0.02,
        max_shard_bytes: 64 << 20,
        threads: None,
    };
    models::write(folder.path(), &inventory, &recipe, &|_| true).unwrap();
    let contents = Contents::read(folder.path()).unwrap();
    let bytes = contents.tensor_bytes();
    // Twice as much must be more than is allowed, or this could not fail.
    assert!(contents.files.len() > 2 && bytes > 2 * BESIDE, "{bytes}");
    let destination = bytes + contents.tensors.len() as u64 * checkpoints::blocks::PACKED;
    let mut to = Region::new(destination, Touch::Before).unwrap();
    let mut ring = Region::new(PLACES * BLOCK, Touch::Before).unwrap();
    for way in [Way::Buffered, Way::Direct, Way::IoUring] {
        if way.refusal(&contents.path(0)).is_some() {
            continue;
        }
        let load = Load {
            folder: folder.path().to_owned(),
            way,
            effort: Effort {
                threads: NonZeroUsize::new(4).unwrap(),
                depth: NonZeroUsize::new(4).unwrap(),
            },
            block: BLOCK,
        };
        let peak = PeakMemory::watch();
        let (ring, to) = (&mut ring, &mut to);
        let loaded = checkpoints::load(&load, Destination::Ring { ring, to }).unwrap();
        let peak = peak.end().unwrap();
        assert_eq!(loaded.first_difference().unwrap(), None, "{way:?}");
        let most = destination + PLACES * BLOCK + BESIDE;
        assert!(peak.bytes <= most, "{way:?}: {peak:?}, where {most} may be");
        assert!(peak.bytes >= destination, "{way:?}: {peak:?}");
    }
}
