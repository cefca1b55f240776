//! NumPy's legacy random numbers, draw for draw: what `np.random.seed(seed)` and the functions of
//! `np.random` give, so that published traces can be made again.
//!
//! The Mersenne Twister, and the draws as NumPy has frozen them:
//! Box–Muller in polar form for normal numbers, Marsaglia and Tsang for gamma shapes above 1, and
//! rejection of masked bits for integers. Only what traces need is here.

use super::mersenne::Twister;

/// The state of `np.random`.
pub(super) struct LegacyRandom {
    twister: Twister,
    /// The second of two normal numbers that are drawn together.
    normal: Option<f64>,
}

impl LegacyRandom {
    /// The state after `np.random.seed(seed)`.
    pub(super) fn seeded(seed: u32) -> Self {
        Self {
            twister: Twister::of_number(seed),
            normal: None,
        }
    }

    /// `np.random.power(a)`: density a·x^(a−1) between 0 and 1.
    pub(super) fn power(&mut self, a: f64) -> f64 {
        (1.0 - (-self.exponential()).exp()).powf(1.0 / a)
    }

    /// `np.random.gamma(shape, scale)`.
    pub(super) fn gamma(&mut self, shape: f64, scale: f64) -> f64 {
        scale * self.standard_gamma(shape)
    }

    /// `np.random.randint(low, high)`; `high` itself is never drawn.
    pub(super) fn integer(&mut self, low: u32, high: u32) -> u32 {
        let most = high.saturating_sub(low).saturating_sub(1);
        if most == 0 {
            return low;
        }
        let mask = u32::MAX >> most.leading_zeros();
        loop {
            let drawn = self.twister.word() & mask;
            if drawn <= most {
                return low + drawn;
            }
        }
    }

    fn standard_gamma(&mut self, shape: f64) -> f64 {
        #[expect(clippy::float_cmp, reason = "exactly 1 has a path of its own")]
        if shape == 1.0 {
            return self.exponential();
        }
        if shape < 1.0 {
            self.gamma_below_one(shape)
        } else {
            self.gamma_above_one(shape)
        }
    }

    fn gamma_below_one(&mut self, shape: f64) -> f64 {
        loop {
            let u = self.unit();
            let v = self.exponential();
            if u <= 1.0 - shape {
                let x = u.powf(1.0 / shape);
                if x <= v {
                    return x;
                }
            } else {
                let y = -((1.0 - u) / shape).ln();
                let x = (1.0 - shape + shape * y).powf(1.0 / shape);
                if x <= v + y {
                    return x;
                }
            }
        }
    }

    fn gamma_above_one(&mut self, shape: f64) -> f64 {
        let b = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * b).sqrt();
        loop {
            let (x, v) = loop {
                let x = self.normal();
                let v = 1.0 + c * x;
                if v > 0.0 {
                    break (x, v * v * v);
                }
            };
            let u = self.unit();
            let is_inside = u < 1.0 - 0.0331 * (x * x) * (x * x);
            if is_inside || u.ln() < 0.5 * x * x + b * (1.0 - v + v.ln()) {
                return b * v;
            }
        }
    }

    fn normal(&mut self) -> f64 {
        if let Some(second) = self.normal.take() {
            return second;
        }
        loop {
            let x = 2.0 * self.unit() - 1.0;
            let y = 2.0 * self.unit() - 1.0;
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let factor = (-2.0 * square.ln() / square).sqrt();
                self.normal = Some(factor * x);
                return factor * y;
            }
        }
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// A number from 0 up to and without 1, of 53 bits.
    fn unit(&mut self) -> f64 {
        let (a, b) = (self.twister.word() >> 5, self.twister.word() >> 6);
        (f64::from(a) * 67_108_864.0 + f64::from(b)) / 9_007_199_254_740_992.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What NumPy 2.4.6 draws after `np.random.seed(seed)`, in this order.
    struct Drawn {
        seed: u32,
        /// `np.random.power(0.3, 3)`
        power: [f64; 3],
        /// `np.random.gamma(0.25, 1.5, 4)`
        below_one: [f64; 4],
        /// `np.random.gamma(1.0, 0.25, 3)`
        one: [f64; 3],
        /// `np.random.gamma(4.0, 0.125, 5)`: an odd number leaves a normal number over.
        above_one: [f64; 5],
        /// `np.random.randint(8, 512, 6)`
        integers: [u32; 6],
        /// `np.random.gamma(2.5, 1, 2)`
        more: [f64; 2],
        /// `np.random.randint(7, 8, 2)` draws nothing, and then `np.random.power(2.1, 1)`
        last: f64,
    }

    const NUMPY: [Drawn; 3] = [
        Drawn {
            seed: 0,
            power: [0.13533681858277738, 0.32714239496216097, 0.1849933806609573],
            below_one: [
                0.13222235135664945,
                0.2610577339948033,
                1.2703478063835096,
                0.03242558380250903,
            ],
            one: [0.1881685273841471, 0.20985821168470573, 0.6495635384813602],
            above_one: [
                0.5729953723484894,
                0.5429294726249295,
                0.9170262724603655,
                0.4109601814828298,
                0.07860041004091957,
            ],
            integers: [467, 378, 191, 36, 298, 136],
            more: [3.2781990296207817, 5.111713959220176],
            last: 0.9728070402650167,
        },
        Drawn {
            seed: 42,
            power: [0.03787283477484421, 0.844954709348313, 0.3534746629997689],
            below_one: [
                0.19266721774627948,
                0.000888236532076528,
                1.011702697958538,
                4.01792924202415,
            ],
            one: [
                0.05967190631223675,
                0.05016974718741584,
                0.050652855708064264,
            ],
            above_one: [
                0.5187222981068749,
                0.13596997822404583,
                0.25613611575870643,
                0.5377402314494469,
                0.9062635877459542,
            ],
            integers: [62, 251, 327, 138, 492, 314],
            more: [1.8510350123036639, 1.7628536681484344],
            last: 0.7608522298693577,
        },
        Drawn {
            seed: u32::MAX,
            power: [
                0.0004285232431880426,
                0.7366429499768453,
                0.45392919312840524,
            ],
            below_one: [
                3.976213602947116,
                0.0006837480508870089,
                0.14102732663043993,
                0.04416990064147096,
            ],
            one: [0.05015214591371407, 0.6777652572624202, 0.43414752758940267],
            above_one: [
                0.4521006732419076,
                0.7432194299420923,
                0.6305163917695649,
                0.20027472024086396,
                0.47924879739341386,
            ],
            integers: [311, 437, 410, 329, 120, 453],
            more: [1.6280163376945131, 5.1569346985956726],
            last: 0.08367218456289187,
        },
    ];

    /// Bit for bit but for the last digits of logarithms and powers, which are the system's.
    fn assert_same(drawn: f64, numpy: f64) {
        assert!(
            (drawn - numpy).abs() <= 1e-13 * numpy.abs(),
            "{drawn} {numpy}"
        );
    }

    #[test]
    fn every_draw_is_numpys() {
        for numpy in NUMPY {
            let mut random = LegacyRandom::seeded(numpy.seed);
            for expected in numpy.power {
                assert_same(random.power(0.3), expected);
            }
            for expected in numpy.below_one {
                assert_same(random.gamma(0.25, 1.5), expected);
            }
            for expected in numpy.one {
                assert_same(random.gamma(1.0, 0.25), expected);
            }
            for expected in numpy.above_one {
                assert_same(random.gamma(4.0, 0.125), expected);
            }
            for expected in numpy.integers {
                assert_eq!(random.integer(8, 512), expected);
            }
            for expected in numpy.more {
                assert_same(random.gamma(2.5, 1.0), expected);
            }
            assert_eq!((random.integer(7, 8), random.integer(7, 8)), (7, 7));
            assert_same(random.power(2.1), numpy.last);
        }
    }
}
