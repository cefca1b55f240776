//! Vector kernels: everything whose speed depends on the processor's instructions.
//!
//! Reading order: [`Isa`] (which instructions), `lanes` (sixteen floats at a time), `tile` (the
//! one multiply-accumulate loop that projections and attention share), then the kernels built
//! from them. Nothing here knows a model, a batch or a request.
//!
//! **Fixed reduction order.** Every sum runs in an order that depends on the length of the sum
//! alone: products are accumulated one after the other along the reduced dimension, and rows
//! never meet. A row's result therefore has the same bits whatever else is in the batch, however
//! a prompt was chunked, and however many threads ran; the tests hold the kernels to it.
//! AVX2 and AVX-512 also agree bit for bit, because both fuse multiply and add.

mod attention;
mod buffer;
mod elementwise;
mod key_values;
mod lanes;
mod matmul;
mod matrix;
mod tile;
mod workers;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use attention::{Attention, Span};
pub use buffer::{Buffer, Rows, RowsView, RowsViewMut};
pub(crate) use elementwise::{add_assign, rms_norm, rms_norm_in_place, rotate, silu_times};
pub(crate) use key_values::{KeyValueShape, KeyValues};
pub use matmul::{Start, matmul};
pub use matrix::PackedMatrix;
pub(crate) use workers::STACK;
pub use workers::Workers;

/// Floats in one vector, on every instruction set: the unit of padding and packing.
pub const LANES: usize = 16;

/// An instruction set that this processor has.
///
/// A value can only be had from [`Isa::detect`] or [`Isa::available`], so holding one is the
/// proof that its instructions may be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The fastest instruction set of this processor.
    #[must_use]
    pub fn detect() -> Self {
        *Self::available().last().unwrap_or(&Isa(Kind::Portable))
    }

    /// All instruction sets of this processor, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut found = vec![Isa(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Isa(Kind::Avx2));
            }
            if is_x86_feature_detected!("avx512f") {
                found.push(Isa(Kind::Avx512));
            }
        }
        found
    }

    /// A short name for records: `portable`, `avx2` or `avx512`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
        }
    }
}

/// Rounds `n` up to whole vectors.
#[must_use]
pub const fn padded(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// Calls a kernel that is generic over [`lanes::Lanes`] with the lanes of an [`Isa`], compiled
/// for the instructions that these lanes need.
///
/// The kernel must be `#[inline(always)]`, so that its body is compiled inside the function that
/// enables the instructions; left out of line, every vector operation would become a call.
macro_rules! dispatch {
    ($isa:expr, $kernel:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f")]
        fn avx512($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function is compiled for, and only called with, AVX-512F.
            unsafe { $kernel::<$crate::kernels::x86::Avx512>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function is compiled for, and only called with, AVX2 and FMA.
            unsafe { $kernel::<$crate::kernels::x86::Avx2>($($arg),*) }
        }
        match $isa.0 {
            // SAFETY: portable lanes need no instruction beyond the target's baseline.
            $crate::kernels::Kind::Portable => unsafe {
                $kernel::<$crate::kernels::lanes::Portable>($($arg),*)
            },
            // SAFETY: an `Isa` of this kind only exists where AVX2 and FMA were detected.
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::Kind::Avx2 => unsafe { avx2($($arg),*) },
            // SAFETY: an `Isa` of this kind only exists where AVX-512F was detected.
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::Kind::Avx512 => unsafe { avx512($($arg),*) },
        }
    }};
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detected_isa_is_the_last_available_one() {
        let available = Isa::available();
        assert_eq!(available[0].name(), "portable");
        assert_eq!(Some(&Isa::detect()), available.last());
    }

    #[test]
    fn padding_reaches_whole_vectors() {
        assert_eq!([0, 1, 16, 17].map(padded), [0, 16, 16, 32]);
    }
}
