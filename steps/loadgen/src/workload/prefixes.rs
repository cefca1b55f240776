//! How much of a prompt a prefix cache without limits holds already: the longest beginning that it
//! shares with anything before it, exact to the token.
//!
//! A tree whose edges are runs of tokens, as a radix cache has it. Knows no server: pages, eviction
//! and the last token, which every server computes anew, are what measured rates fall short by.

use std::collections::HashMap;

/// Everything that was sent so far.
#[derive(Debug)]
pub struct Prefixes {
    nodes: Vec<Node>,
    /// The node that follows one by a token.
    children: HashMap<(usize, u32), usize>,
}

/// The tokens from a node's parent to it.
#[derive(Debug, Default)]
struct Node {
    run: Vec<u32>,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            children: HashMap::new(),
        }
    }
}

impl Prefixes {
    /// Takes a prompt in, and says how many tokens of its beginning were there already.
    pub fn add(&mut self, prompt: &[u32]) -> usize {
        let (mut at, mut shared) = (0, 0);
        while let Some(first) = prompt.get(shared) {
            let Some(child) = self.children.get(&(at, *first)).copied() else {
                self.append(at, &prompt[shared..]);
                break;
            };
            let run = &self.nodes[child].run;
            let same = run
                .iter()
                .zip(&prompt[shared..])
                .take_while(|(a, b)| a == b);
            let same = same.count();
            shared += same;
            at = match same == run.len() {
                true => child,
                false => self.split(at, child, same),
            };
        }
        shared
    }

    fn append(&mut self, parent: usize, run: &[u32]) {
        self.children.insert((parent, run[0]), self.nodes.len());
        self.nodes.push(Node { run: run.to_vec() });
    }

    /// Puts a node between `parent` and `child`, behind the first `length` tokens of the run that
    /// leads from one to the other.
    fn split(&mut self, parent: usize, child: usize, length: usize) -> usize {
        let rest = self.nodes[child].run.split_off(length);
        let run = std::mem::replace(&mut self.nodes[child].run, rest);
        let between = self.nodes.len();
        self.children.insert((parent, run[0]), between);
        self.children
            .insert((between, self.nodes[child].run[0]), child);
        self.nodes.push(Node { run });
        between
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    #[test]
    fn the_longest_beginning_counts() {
        let mut seen = Prefixes::default();
        for (prompt, shared) in [
            (&[1, 2, 3, 4][..], 0),
            (&[1, 2, 3, 4], 4),
            (&[1, 2, 9], 2),
            (&[1, 2, 9, 9, 7], 3),
            (&[1, 2], 2),
            (&[2, 3, 4], 0),
            (&[1, 2, 3, 4, 5], 4),
            (&[], 0),
        ] {
            assert_eq!(seen.add(prompt), shared, "{prompt:?}");
        }
    }

    #[test]
    fn it_equals_comparing_with_every_prompt_before() {
        let mut random = ChaCha12Rng::seed_from_u64(1);
        let prompt = |random: &mut ChaCha12Rng| -> Vec<u32> {
            let length = random.random_range(0..12);
            (0..length).map(|_| random.random_range(0..3)).collect()
        };
        let (mut seen, mut before) = (Prefixes::default(), Vec::<Vec<u32>>::new());
        for _ in 0..2000 {
            let prompt = prompt(&mut random);
            let shared = |other: &Vec<u32>| {
                other
                    .iter()
                    .zip(&prompt)
                    .take_while(|(a, b)| a == b)
                    .count()
            };
            let longest = before.iter().map(shared).max().unwrap_or(0);
            assert_eq!(seen.add(&prompt), longest, "{prompt:?}");
            before.push(prompt);
        }
    }
}
