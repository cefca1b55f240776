//! A forward pass as the papers write it: double precision, straight loops, whole sequences,
//! no cache. Slow and obvious on purpose.

use crate::models::Model;

/// Logits after every token of a sequence, `[n_tokens][vocab_size]`.
pub(crate) fn logits(model: &Model, tokens: &[u32]) -> Vec<Vec<f64>> {
    let reference = Reference { model };
    let hidden = model.size("hidden_size");
    let embedding = reference.tensor("model.embed_tokens.weight");
    let mut stream: Vec<Vec<f64>> = tokens
        .iter()
        .map(|&token| embedding[token as usize * hidden..][..hidden].to_vec())
        .collect();
    for layer in 0..model.size("num_hidden_layers") {
        reference.layer(&format!("model.layers.{layer}"), &mut stream);
    }
    let tied = !model.tensors.contains_key("lm_head.weight");
    let head = if tied {
        "model.embed_tokens"
    } else {
        "lm_head"
    };
    let normed = stream.iter().map(|x| reference.norm("model.norm", x));
    normed.map(|x| reference.linear(head, &x)).collect()
}

/// Index of the largest logit.
pub(crate) fn greedy(logits: &[f64]) -> u32 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.expect("a vocabulary") as u32
}

struct Reference<'a> {
    model: &'a Model,
}

impl Reference<'_> {
    fn layer(&self, prefix: &str, stream: &mut [Vec<f64>]) {
        let input_norm = format!("{prefix}.input_layernorm");
        let normed: Vec<_> = stream.iter().map(|x| self.norm(&input_norm, x)).collect();
        let attended = self.attention(&format!("{prefix}.self_attn"), &normed);
        for (x, attended) in stream.iter_mut().zip(attended) {
            add(
                x,
                &self.linear(&format!("{prefix}.self_attn.o_proj"), &attended),
            );
        }
        for x in stream {
            let normed = self.norm(&format!("{prefix}.post_attention_layernorm"), x);
            let gate = self.linear(&format!("{prefix}.mlp.gate_proj"), &normed);
            let up = self.linear(&format!("{prefix}.mlp.up_proj"), &normed);
            let gated: Vec<f64> = gate
                .iter()
                .zip(up)
                .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                .collect();
            add(x, &self.linear(&format!("{prefix}.mlp.down_proj"), &gated));
        }
    }

    fn attention(&self, prefix: &str, normed: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let n_heads = self.model.size("num_attention_heads");
        let group = n_heads / self.model.size("num_key_value_heads");
        let heads = |name: &str| -> Vec<Vec<Vec<f64>>> {
            normed
                .iter()
                .enumerate()
                .map(|(p, x)| self.heads(prefix, name, p, x))
                .collect()
        };
        let (queries, keys, values) = (heads("q"), heads("k"), heads("v"));
        let attend = |position: usize, head: usize| {
            let query = &queries[position][head];
            let scores: Vec<f64> = (0..=position)
                .map(|p| dot(query, &keys[p][head / group]) / (query.len() as f64).sqrt())
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut sum = vec![0.0; query.len()];
            for (p, weight) in weights.iter().enumerate() {
                for (i, value) in values[p][head / group].iter().enumerate() {
                    sum[i] += weight / total * value;
                }
            }
            sum
        };
        (0..normed.len())
            .map(|position| {
                (0..n_heads)
                    .flat_map(|head| attend(position, head))
                    .collect()
            })
            .collect()
    }

    /// Projects one token to its query, key or value heads, normed and rotated as they must be.
    fn heads(&self, prefix: &str, name: &str, position: usize, x: &[f64]) -> Vec<Vec<f64>> {
        let projected = self.linear(&format!("{prefix}.{name}_proj"), x);
        let norm = format!("{prefix}.{name}_norm");
        let has_norm = self.model.tensors.contains_key(&format!("{norm}.weight"));
        let finish = |head: &[f64]| {
            let head = if has_norm {
                self.norm(&norm, head)
            } else {
                head.to_vec()
            };
            if name == "v" {
                head
            } else {
                self.rotate(position, &head)
            }
        };
        projected
            .chunks(self.model.size("head_dim"))
            .map(finish)
            .collect()
    }

    fn rotate(&self, position: usize, head: &[f64]) -> Vec<f64> {
        let theta = self.model.json["rope_theta"].as_f64().unwrap_or(10_000.0);
        let half = head.len() / 2;
        let mut rotated = vec![0.0; head.len()];
        for i in 0..half {
            let angle = position as f64 / theta.powf(i as f64 / half as f64);
            rotated[i] = head[i] * angle.cos() - head[i + half] * angle.sin();
            rotated[i + half] = head[i + half] * angle.cos() + head[i] * angle.sin();
        }
        rotated
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let epsilon = self.model.json["rms_norm_eps"].as_f64().unwrap_or(1e-6);
        let root = (dot(x, x) / x.len() as f64 + epsilon).sqrt();
        let gain = self.tensor(&format!("{name}.weight"));
        x.iter()
            .zip(gain)
            .map(|(x, gain)| gain * x / root)
            .collect()
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weights = self.tensor(&format!("{name}.weight"));
        let mut y: Vec<f64> = weights.chunks(x.len()).map(|row| dot(row, x)).collect();
        if self.model.tensors.contains_key(&format!("{name}.bias")) {
            add(&mut y, &self.tensor(&format!("{name}.bias")));
        }
        y
    }

    fn tensor(&self, name: &str) -> Vec<f64> {
        self.model.tensors[name]
            .values
            .iter()
            .copied()
            .map(f64::from)
            .collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f64], other: &[f64]) {
    for (x, other) in x.iter_mut().zip(other) {
        *x += other;
    }
}
