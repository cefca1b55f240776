//! Units as types, so that no rate is taken for an amount. All are `f64`: expected numbers of experts
//! make amounts that are no integers.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul};

macro_rules! amounts {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => { $(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
        pub struct $name(pub f64);

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                self.0 += other.0;
            }
        }

        impl Mul<f64> for $name {
            type Output = Self;
            fn mul(self, factor: f64) -> Self {
                Self(self.0 * factor)
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
                all.fold(Self(0.0), Add::add)
            }
        }
    )+ };
}

amounts! {
    /// Floating-point operations; a multiplication with an addition counts as two.
    Flops;
    /// Bytes.
    Bytes;
    /// Seconds.
    Seconds;
    /// Floating-point operations per second.
    FlopsPerSecond;
    /// Bytes per second.
    BytesPerSecond;
}

impl Div<FlopsPerSecond> for Flops {
    type Output = Seconds;
    fn div(self, rate: FlopsPerSecond) -> Seconds {
        Seconds(self.0 / rate.0)
    }
}

impl Div<BytesPerSecond> for Bytes {
    type Output = Seconds;
    fn div(self, rate: BytesPerSecond) -> Seconds {
        Seconds(self.0 / rate.0)
    }
}

impl Div<Seconds> for Flops {
    type Output = FlopsPerSecond;
    fn div(self, time: Seconds) -> FlopsPerSecond {
        FlopsPerSecond(self.0 / time.0)
    }
}

impl Div<Seconds> for Bytes {
    type Output = BytesPerSecond;
    fn div(self, time: Seconds) -> BytesPerSecond {
        BytesPerSecond(self.0 / time.0)
    }
}

impl Div<Bytes> for Flops {
    /// Operations per byte.
    type Output = f64;
    fn div(self, bytes: Bytes) -> f64 {
        self.0 / bytes.0
    }
}
