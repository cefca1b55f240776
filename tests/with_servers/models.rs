//! A model that is derived, filled with random weights, derived again and served: the embedded
//! server reads the files as it reads those of the hub.

use crate::world::World;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const PLAN: &str = r#"
[steps.small]
use = "model.derive"
with = { base = "MODEL_CONF/qwen2.5-0.5b", set = { num_hidden_layers = 2, vocab_size = 512 }, scale = { hidden_size = 0.125, num_attention_heads = 0.5, num_key_value_heads = 0.5, intermediate_size = 0.0625 }, unset = ["sliding_window"] }

[steps.weights]
use = "model.weights"
with = { model = "${steps.small.dir}", dtype = "f16", shard_size = 0.0001 }

[steps.longer]
use = "model.derive"
with = { base = "${steps.weights.dir}", set = { max_position_embeddings = 1024 }, weights = "base" }

[services.server]
use = "server.embedded"
with = { model = "${steps.longer.dir}", load_format = "safetensors" }

[steps.test]
use = "server.test"
with = { server = "${services.server}" }
"#;

/// The weights below a folder, by name.
fn weights(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(weights(&path));
        } else if path.to_string_lossy().contains("safetensors") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn random_weights_are_served_and_derived_folders_share_them() {
    let world = World::new();
    let plan = world.plan(PLAN);
    let plan = plan.to_str().expect("a path");
    let finished = world.run(&["run", plan]);
    let said = finished.said();
    assert_eq!(finished.code(), 0, "{said}");
    for part in [
        "parameters in ",
        " MB/s",
        " files linked; the base's weights are among them",
        "10 of 10 checks passed",
    ] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    let results = world.out().join("latest/results");
    let (made, linked) = (
        weights(&results.join("weights")),
        weights(&results.join("longer")),
    );
    assert!(made.len() > 2, "an index and files: {made:?}");
    assert_eq!(made.len(), linked.len());
    for (one, other) in made.iter().zip(&linked) {
        let inode = |path: &Path| fs::metadata(path).expect("a file").ino();
        assert_eq!(inode(one), inode(other), "{}", other.display());
    }
    let again = world.run(&["run", plan]);
    assert_eq!(again.code(), 0, "{}", again.said());
    assert_eq!(weights(&results.join("weights")), made);
}
