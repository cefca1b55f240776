//! A weight matrix in the order in which multiplication reads it.
//!
//! Sixteen outputs form a *panel*, stored input by input: a product then reads one contiguous
//! vector of weights per input, needs no horizontal sum, and streams each weight exactly once.

use super::{Buffer, LANES};
use rayon::prelude::*;

/// Weights of a linear map from `n_inputs` to `n_outputs`, packed into panels.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    /// `[n_panels, n_inputs, 16]`; outputs beyond `n_outputs` are zero.
    panels: Buffer,
    n_outputs: usize,
    n_inputs: usize,
}

impl PackedMatrix {
    /// Packs the matrix whose row-major `[n_outputs, n_inputs]` element `index` is
    /// `element(index)`. Panels are filled in parallel by the current rayon pool.
    #[must_use]
    pub fn from_fn(
        n_outputs: usize,
        n_inputs: usize,
        element: impl Fn(usize) -> f32 + Sync,
    ) -> Self {
        let mut panels = Buffer::zeroed(n_outputs.next_multiple_of(LANES) * n_inputs);
        let fill = |(panel, floats): (usize, &mut [f32])| {
            let first = panel * LANES;
            let lanes = LANES.min(n_outputs - first);
            for (input, vector) in floats.chunks_exact_mut(LANES).enumerate() {
                for (lane, value) in vector.iter_mut().enumerate().take(lanes) {
                    *value = element((first + lane) * n_inputs + input);
                }
            }
        };
        if n_inputs > 0 {
            panels
                .as_mut_slice()
                .par_chunks_exact_mut(LANES * n_inputs)
                .enumerate()
                .for_each(fill);
        }
        PackedMatrix {
            panels,
            n_outputs,
            n_inputs,
        }
    }

    /// Number of outputs.
    #[must_use]
    pub fn n_outputs(&self) -> usize {
        self.n_outputs
    }

    /// Number of inputs.
    #[must_use]
    pub fn n_inputs(&self) -> usize {
        self.n_inputs
    }

    /// Number of panels.
    #[must_use]
    pub fn n_panels(&self) -> usize {
        self.n_outputs.div_ceil(LANES)
    }

    /// The packed floats, `[n_panels, n_inputs, 16]`.
    pub(crate) fn panels(&self) -> &[f32] {
        self.panels.as_slice()
    }

    /// Copies the weights of one output, `[n_inputs]`: for a tied embedding, a token's vector.
    ///
    /// # Panics
    /// When `output` is out of range or `into` has another length.
    pub fn copy_output(&self, output: usize, into: &mut [f32]) {
        assert!(
            output < self.n_outputs,
            "output {output} of {}",
            self.n_outputs
        );
        assert_eq!(into.len(), self.n_inputs, "floats of one output");
        let panel = &self.panels()[output / LANES * LANES * self.n_inputs..];
        let lane = output % LANES;
        for (value, vector) in into.iter_mut().zip(panel.chunks_exact(LANES)) {
            *value = vector[lane];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_every_element_and_pads_with_zeros() {
        for (n_outputs, n_inputs) in [(1, 1), (16, 3), (17, 5), (40, 7)] {
            let matrix = PackedMatrix::from_fn(n_outputs, n_inputs, |i| i as f32 + 1.0);
            let mut output = vec![0.0; n_inputs];
            for row in 0..n_outputs {
                matrix.copy_output(row, &mut output);
                let expected: Vec<_> = (0..n_inputs)
                    .map(|i| (row * n_inputs + i) as f32 + 1.0)
                    .collect();
                assert_eq!(output, expected);
            }
            let zeros = matrix.panels().iter().filter(|v| **v == 0.0).count();
            assert_eq!(
                zeros,
                (n_outputs.next_multiple_of(16) - n_outputs) * n_inputs
            );
        }
    }
}
