//! What is wrong with a plan, as data: collected everywhere, drawn in one place.

use crate::source::Place;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How many problems are kept: nobody reads more, and a plan can have millions of instances.
const KEPT: usize = 1000;

/// One mistake in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    /// What was found and what was expected: a lowercase phrase without a final dot.
    pub message: String,
    /// Where, and a few words under the caret.
    pub place: Option<(Place, String)>,
    /// How to mend it.
    pub help: Option<String>,
}

impl Problem {
    /// Builds a problem that points at `place`.
    pub fn at(place: &Place, message: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            place: Some((place.clone(), label.into())),
            help: None,
        }
    }

    /// Builds a problem of the plan as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            place: None,
            help: None,
        }
    }

    /// Adds the mend.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Every problem found so far: the first thousand, and how many more there are.
#[derive(Debug, Default, Clone)]
pub struct Problems {
    list: Vec<Problem>,
    /// Digests of all of them, so that each counts once.
    told: HashSet<u64>,
    broken: Vec<Place>,
}

impl Problems {
    /// Adds one, unless the same was said already.
    pub fn push(&mut self, problem: Problem) {
        let mut digest = DefaultHasher::new();
        problem.hash(&mut digest);
        if self.told.insert(digest.finish()) && self.list.len() < KEPT {
            self.list.push(problem);
        }
    }

    /// Adds one of text that could not be read at all: what else is wrong there may follow from it.
    pub fn push_broken(&mut self, place: &Place, problem: Problem) {
        self.broken.push(place.clone());
        self.push(problem);
    }

    /// Returns the places of text that could not be read.
    pub fn broken(&self) -> &[Place] {
        &self.broken
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.told.len()
    }

    /// Returns them by file and place, those without a place last; then how many more there are.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.list.sort_by_key(|p| match &p.place {
            Some((place, _)) => (0, Some(place.source), place.span.start),
            None => (1, None, 0),
        });
        let n_more = self.told.len() - self.list.len();
        if n_more > 0 {
            let problem = Problem::whole(format!("the plan has {n_more} more problems"));
            let help = "mend those above first: many may have one cause";
            self.list.push(problem.help(help));
        }
        self.list
    }
}

/// Finds the name in `known` nearest to `found`, if one is near enough to be meant.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (distance(found, name), name))
        .filter(|(d, name)| *d <= 1.max(name.chars().count() / 3))
        .min_by_key(|(d, _)| *d)
        .map(|(_, name)| name)
}

/// Phrases the mend for an unknown name: the nearest one, or the list of all.
pub fn did_you_mean<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(found, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "none is declared".to_owned(),
        None => format!(
            "known: {}",
            known
                .iter()
                .map(|k| format!("`{k}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// Edit distance in which swapping two neighbours counts once.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1)
                .min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_a_different_word_is_not() {
        assert_eq!(nearest("prompt", ["prompts", "model"]), Some("prompts"));
        assert_eq!(nearest("wram", ["warm", "load"]), Some("warm"));
        assert_eq!(nearest("banana", ["warm", "load"]), None);
    }

    #[test]
    fn the_same_is_said_once_and_of_very_many_only_the_first() {
        let mut problems = Problems::default();
        for i in 0..1_000_000 {
            problems.push(Problem::whole(format!("problem {}", i % 5000)));
        }
        assert_eq!(problems.len(), 5000);
        let sorted = problems.into_sorted();
        assert_eq!(sorted.len(), 1001);
        assert_eq!(sorted[1000].message, "the plan has 4000 more problems");
    }
}
