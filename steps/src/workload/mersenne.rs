//! The Mersenne Twister by Matsumoto and Nishimura (MT19937), which NumPy's legacy numbers and Python's
//! `random` are both drawn from. They differ in how a seed fills its state, and in what they make of its
//! words.

const N: usize = 624;
const M: usize = 397;
/// What a state is filled with before the words of a seed are mixed in.
const BEFORE_WORDS: u32 = 19_650_218;

/// Words of 32 bits.
pub(super) struct Twister {
    key: [u32; N],
    at: usize,
}

impl Twister {
    /// The state that a number fills, `init_genrand` of the authors.
    pub(super) fn of_number(seed: u32) -> Self {
        let mut key = [0; N];
        let mut last = seed;
        for (i, word) in (0..).zip(&mut key) {
            *word = last;
            last = mixed(last).wrapping_mul(1_812_433_253).wrapping_add(i + 1);
        }
        Self { key, at: N }
    }

    /// The state that words fill, `init_by_array` of the authors; without any it is that of one 0.
    pub(super) fn of_words(words: &[u32]) -> Self {
        let words = if words.is_empty() { &[0] } else { words };
        let mut key = Self::of_number(BEFORE_WORDS).key;
        let mut at = 1;
        for (j, word) in (0..words.len())
            .cycle()
            .zip(words.iter().cycle())
            .take(N.max(words.len()))
        {
            let number = u32::try_from(j).unwrap_or(u32::MAX);
            let before = mixed(key[at - 1]).wrapping_mul(1_664_525);
            key[at] = (key[at] ^ before).wrapping_add(*word).wrapping_add(number);
            at = next(&mut key, at);
        }
        for _ in 1..N {
            let number = u32::try_from(at).unwrap_or(u32::MAX);
            let before = mixed(key[at - 1]).wrapping_mul(1_566_083_941);
            key[at] = (key[at] ^ before).wrapping_sub(number);
            at = next(&mut key, at);
        }
        key[0] = 0x8000_0000;
        Self { key, at: N }
    }

    /// The next word.
    pub(super) fn word(&mut self) -> u32 {
        if self.at == N {
            self.generate();
            self.at = 0;
        }
        let mut word = self.key[self.at];
        self.at += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn generate(&mut self) {
        for i in 0..N {
            let joined = (self.key[i] & 0x8000_0000) | (self.key[(i + 1) % N] & 0x7fff_ffff);
            let twist = if joined & 1 == 0 { 0 } else { 0x9908_b0df };
            self.key[i] = self.key[(i + M) % N] ^ (joined >> 1) ^ twist;
        }
    }
}

fn mixed(word: u32) -> u32 {
    word ^ (word >> 30)
}

/// The place behind one; behind the last comes the second, and the first is as the last then.
fn next(key: &mut [u32; N], at: usize) -> usize {
    if at + 1 < N {
        return at + 1;
    }
    key[0] = key[N - 1];
    1
}
