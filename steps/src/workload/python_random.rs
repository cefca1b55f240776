//! Python's `random`, draw for draw: what `random.seed(seed)` and `random.shuffle(list)` do, so that a
//! sample of a data set is the one that the suites' clients draw.

use super::mersenne::Twister;

/// The state of the module `random`.
pub(super) struct PythonRandom(Twister);

impl PythonRandom {
    /// The state after `random.seed(seed)`.
    pub(super) fn seeded(seed: u64) -> Self {
        // Python takes the words of a number from the least up, and leaves leading zeros out.
        let words = [seed as u32, (seed >> 32) as u32];
        let n = if words[1] == 0 { 1 } else { 2 };
        Self(Twister::of_words(&words[..n]))
    }

    /// `random.shuffle(list)`.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }

    /// `random.randrange(n)` for `n` below 2^32: as many bits as `n` has, until they are less than it.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let drawn = self.bits(bits);
            if drawn < n {
                return drawn;
            }
        }
    }

    /// `random.getrandbits(bits)`, for 1 to 32.
    fn bits(&mut self, bits: u32) -> usize {
        (self.0.word() >> (32 - bits.clamp(1, 32))) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What CPython 3.11.7 draws after `random.seed(seed)`.
    struct Drawn {
        seed: u64,
        /// `getrandbits(32)`, three times, and then `getrandbits(5)`, four times.
        words: [usize; 3],
        fives: [usize; 4],
        /// Of `list(range(1000))`, shuffled: the first six and the last three.
        first: [usize; 6],
        last: [usize; 3],
    }

    const PYTHON: [Drawn; 3] = [
        Drawn {
            seed: 0,
            words: [3_626_764_237, 1_654_615_998, 3_255_389_356],
            fives: [28, 13, 1, 8],
            first: [439, 621, 160, 549, 237, 389],
            last: [776, 394, 864],
        },
        Drawn {
            seed: 42,
            words: [2_746_317_213, 478_163_327, 107_420_369],
            fives: [23, 8, 7, 7],
            first: [776, 507, 895, 922, 33, 483],
            last: [25, 114, 654],
        },
        Drawn {
            seed: 1_099_511_627_783,
            words: [2_635_837_658, 3_209_733_218, 3_500_038_837],
            fives: [30, 30, 20, 18],
            first: [612, 556, 729, 117, 273, 379],
            last: [834, 765, 628],
        },
    ];

    #[test]
    fn every_draw_is_pythons() {
        for python in PYTHON {
            let mut random = PythonRandom::seeded(python.seed);
            assert_eq!(python.words.map(|_| random.bits(32)), python.words);
            assert_eq!(python.fives.map(|_| random.bits(5)), python.fives);
            let mut list: Vec<usize> = (0..1000).collect();
            PythonRandom::seeded(python.seed).shuffle(&mut list);
            assert_eq!(list[..6], python.first, "{}", python.seed);
            assert_eq!(list[997..], python.last, "{}", python.seed);
        }
    }

    #[test]
    fn lists_with_nothing_to_move_draw_nothing() {
        let mut random = PythonRandom::seeded(1);
        random.shuffle::<u8>(&mut []);
        random.shuffle(&mut [1]);
        assert_eq!(random.bits(32), 577_090_037);
    }
}
