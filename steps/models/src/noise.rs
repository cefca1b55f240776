//! Numbers that follow from a key and an index alone: what made-up weights are made of.
//!
//! Integer operations and single roundings of IEEE 754 only, so that every machine has the same.

/// The key of what is called `name`. FNV-1a: 64-bit offset basis and prime.
#[must_use]
pub fn key(seed: u64, name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(seed ^ mix(hash))
}

/// Evenly distributed bits.
#[inline]
#[must_use]
pub fn bits(key: u64, index: u64) -> u64 {
    // An odd multiplier keeps distinct indices distinct before mixing.
    mix(key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// A roughly standard normal number, within 3.47, of evenly distributed bits: the sum of four uniform
/// 16-bit parts, whose mean is `2 * 65535` and whose variance is four twelfths of `65536^2`.
#[inline]
#[must_use]
pub fn normal(bits: u64) -> f32 {
    let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
    (sum as f32 - 2.0 * 65_535.0) * (1.732_050_8 / 65_536.0)
}

/// A bijection in which every bit depends on every other (the finaliser of SplitMix64: Steele,
/// Lea and Flood, 2014).
#[inline]
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
