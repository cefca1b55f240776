//! Float storage that starts on a cache line, and rows of it.
//!
//! A vector load that straddles two cache lines costs two, and a plain `Vec<f32>` starts anywhere.

use super::{LANES, padded};
use std::ops::Range;

/// Bytes of a cache line, and of one vector of sixteen floats.
const LINE: usize = LANES * size_of::<f32>();

/// Zero-initialised floats, the first of which lies at a multiple of 64 bytes.
#[derive(Debug, Default)]
pub struct Buffer {
    // Longer than needed, so that an aligned start can be chosen inside; never reallocated.
    storage: Vec<f32>,
    start: usize,
    len: usize,
}

impl Clone for Buffer {
    /// A copy that begins at a line of its own.
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

impl Buffer {
    /// `len` zeros. Memory is not touched before it is written.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let storage = vec![0.0; len + LANES];
        let start = storage.as_ptr().align_offset(LINE);
        // An implementation may decline to say; then alignment, which is only speed, is lost.
        let start = if start <= LANES { start } else { 0 };
        Buffer {
            storage,
            start,
            len,
        }
    }

    /// The floats.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.storage[self.start..self.start + self.len]
    }

    /// The floats, to write.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.storage[self.start..self.start + self.len]
    }

    /// Makes room for `len` floats. What was stored is lost when that needs a new allocation.
    pub fn reserve(&mut self, len: usize) {
        if self.len < len {
            *self = Buffer::zeroed(len);
        }
    }
}

/// A matrix of activations, `[n_rows, width]`, whose rows are padded to whole vectors.
#[derive(Debug)]
pub struct Rows {
    data: Buffer,
    width: usize,
    n_rows: usize,
}

impl Rows {
    /// No rows yet, of `width` floats each.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Rows {
            data: Buffer::default(),
            width,
            n_rows: 0,
        }
    }

    /// Sets the number of rows. Memory only ever grows; contents are unspecified afterwards.
    pub fn set_rows(&mut self, n_rows: usize) {
        self.data.reserve(n_rows * self.stride());
        self.n_rows = n_rows;
    }

    /// Number of rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Floats per row that mean something.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Floats from one row to the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        padded(self.width)
    }

    /// Row `index`, without its padding.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        self.view(0..self.n_rows).row(index)
    }

    /// Row `index`, to write, without its padding.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.n_rows, "row {index} of {}", self.n_rows);
        let start = index * self.stride();
        &mut self.data.as_mut_slice()[start..start + self.width]
    }

    /// The rows without their padding, `[n_rows * width]`, moved together in place.
    #[must_use]
    pub fn pack(&mut self) -> &[f32] {
        let (stride, width, n_rows) = (self.stride(), self.width, self.n_rows);
        let data = self.data.as_mut_slice();
        if stride != width {
            for row in 1..n_rows {
                data.copy_within(row * stride..row * stride + width, row * width);
            }
        }
        &data[..n_rows * width]
    }

    /// The rows of `range`, padding included, `[range.len() * stride]`.
    ///
    /// # Panics
    /// When `range` exceeds the rows.
    #[must_use]
    pub fn range_mut(&mut self, range: Range<usize>) -> &mut [f32] {
        assert!(
            range.end <= self.n_rows,
            "rows {range:?} of {}",
            self.n_rows
        );
        let stride = self.stride();
        &mut self.data.as_mut_slice()[range.start * stride..range.end * stride]
    }

    /// A writable view of the rows of `range`.
    ///
    /// # Panics
    /// When `range` exceeds the rows.
    #[must_use]
    pub fn view_mut(&mut self, range: Range<usize>) -> RowsViewMut<'_> {
        let (width, stride) = (self.width, self.stride());
        RowsViewMut {
            data: self.range_mut(range),
            width,
            stride,
        }
    }

    /// A view of the rows of `range`.
    ///
    /// # Panics
    /// When `range` exceeds the rows.
    #[must_use]
    pub fn view(&self, range: Range<usize>) -> RowsView<'_> {
        assert!(
            range.end <= self.n_rows,
            "rows {range:?} of {}",
            self.n_rows
        );
        let stride = self.stride();
        let data = &self.data.as_slice()[range.start * stride..range.end * stride];
        RowsView {
            data,
            width: self.width,
            stride,
        }
    }
}

/// Some rows of a [`Rows`], to write.
#[derive(Debug)]
pub struct RowsViewMut<'a> {
    data: &'a mut [f32],
    width: usize,
    stride: usize,
}

impl RowsViewMut<'_> {
    /// Number of rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.data.len().checked_div(self.stride).unwrap_or(0)
    }

    /// Floats per row that mean something.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Floats from one row to the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `index`, without its padding.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.data[index * self.stride..][..self.width]
    }

    /// All rows, padding included.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.data
    }
}

/// Some rows of a [`Rows`].
#[derive(Debug, Clone, Copy)]
pub struct RowsView<'a> {
    data: &'a [f32],
    width: usize,
    stride: usize,
}

impl<'a> RowsView<'a> {
    /// Number of rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.data.len().checked_div(self.stride).unwrap_or(0)
    }

    /// Floats per row that mean something.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Floats from one row to the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `index`, without its padding.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.data[index * self.stride..][..self.width]
    }

    /// All rows, padding included.
    #[must_use]
    pub fn data(&self) -> &'a [f32] {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_on_a_cache_line() {
        for len in [1, 15, 1000, 1 << 20] {
            let buffer = Buffer::zeroed(len);
            assert_eq!(buffer.as_slice().as_ptr().addr() % LINE, 0);
            assert_eq!(buffer.as_slice().len(), len);
        }
    }

    #[test]
    fn rows_are_padded_and_do_not_overlap() {
        let mut rows = Rows::new(5);
        rows.set_rows(3);
        rows.row_mut(1).fill(1.0);
        assert_eq!(rows.stride(), 16);
        assert_eq!(
            (rows.row(0), rows.row(1), rows.row(2)),
            (&[0.0; 5][..], &[1.0; 5][..], &[0.0; 5][..])
        );
        assert_eq!(rows.view(1..3).row(0), &[1.0; 5]);
        rows.view_mut(2..3).row_mut(0).fill(2.0);
        assert_eq!(rows.pack(), [[0.0; 5], [1.0; 5], [2.0; 5]].as_flattened());
    }
}
