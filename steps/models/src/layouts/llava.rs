//! LLaVA-NeXT for images and videos: CLIP's tower, two matrices into the decoder, a decoder.
//!
//! Names as in `llava-hf/LLaVA-NeXT-Video-7B-hf`. The decoder is what `text_config` says: Llama,
//! Mistral or Qwen2.

use super::decoder::Decoder;
use super::{Builder, Layout};
use crate::fields::Fields;
use crate::{Architecture, Dtype, Problem, Role, Section};

pub(crate) fn tensors(fields: &Fields<'_>, dtype: Dtype) -> Layout {
    let text = fields.inner("text_config")?;
    let architecture = Architecture::read(&text)?;
    if !matches!(
        architecture,
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2
    ) {
        let key = text.name("model_type");
        let message = format!("`{key}` is no decoder that is known behind a vision tower");
        return Err(Problem::new([key], message, "known: llama, mistral, qwen2"));
    }
    let decoder = Decoder::read(architecture, &text)?;
    let tower = Tower::read(&fields.inner("vision_config")?)?;
    let bias = fields.flag("multimodal_projector_bias", true)?;
    let mut builder = Builder::new(dtype);
    builder.enter(Section::Vision, "");
    if fields.flag("use_image_newline_parameter", true)? {
        builder.add("image_newline", &[decoder.hidden], Role::Embedding);
    }
    tower.list(&mut builder);
    builder.enter(Section::Vision, "multi_modal_projector.");
    let (hidden, role) = (decoder.hidden, Role::Projection);
    builder.linear("linear_1", hidden, tower.hidden, role, bias);
    builder.linear("linear_2", hidden, hidden, role, bias);
    decoder.list(&mut builder, "language_model.");
    Ok((builder.finish(), decoder.experts()))
}

/// CLIP's vision transformer.
struct Tower {
    hidden: u64,
    inner: u64,
    n_layers: u64,
    channels: u64,
    patch: u64,
    /// Patches of an image, and one vector more for the whole.
    positions: u64,
}

impl Tower {
    fn read(fields: &Fields<'_>) -> Result<Self, Problem> {
        let (image, patch) = (fields.need("image_size")?, fields.need("patch_size")?);
        Ok(Self {
            hidden: fields.need("hidden_size")?,
            inner: fields.need("intermediate_size")?,
            n_layers: fields.need("num_hidden_layers")?,
            channels: fields.size("num_channels")?.unwrap_or(3),
            patch,
            positions: (image / patch).pow(2) + 1,
        })
    }

    fn list(&self, builder: &mut Builder) {
        const TOWER: &str = "vision_tower.vision_model.";
        let hidden = self.hidden;
        builder.enter(Section::Vision, TOWER);
        builder.add("embeddings.class_embedding", &[hidden], Role::Embedding);
        let patch = [hidden, self.channels, self.patch, self.patch];
        builder.add(
            "embeddings.patch_embedding.weight",
            &patch,
            Role::Projection,
        );
        let positions = "embeddings.position_embedding";
        builder.matrix(positions, self.positions, hidden, Role::Position);
        // The name is misspelt on the hub too.
        builder.norm_with_bias("pre_layrnorm", hidden);
        for layer in 0..self.n_layers {
            builder.enter_layer(layer, format!("{TOWER}encoder.layers.{layer}."));
            for name in ["k_proj", "v_proj", "q_proj", "out_proj"] {
                let name = format!("self_attn.{name}");
                builder.linear(&name, hidden, hidden, Role::Attention, true);
            }
            builder.norm_with_bias("layer_norm1", hidden);
            builder.linear("mlp.fc1", self.inner, hidden, Role::FeedForward, true);
            builder.linear("mlp.fc2", hidden, self.inner, Role::FeedForward, true);
            builder.norm_with_bias("layer_norm2", hidden);
        }
        builder.enter(Section::Vision, TOWER);
        builder.norm_with_bias("post_layernorm", hidden);
    }
}
