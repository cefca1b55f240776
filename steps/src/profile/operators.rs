//! What a process spent its time in, by name: operators, each with and without what it called, and kernels.
//!
//! Knows no file. Times come in microseconds, as traces have them, and go out in milliseconds.

use std::collections::{BTreeMap, HashMap};

/// Operators that are kept to be nested; each takes 24 bytes.
const MOST_SPANS: usize = 8_000_000;
/// Names that are told apart; what comes later counts together.
const MOST_NAMES: usize = 100_000;
/// What those are called.
const OTHERS: &str = "(others)";

/// Where something ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// On a device: kernels, copies, fills. They do not nest.
    Kernel,
    /// On the processor: torch's operators, which call each other.
    Operator,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Operator => "operator",
        }
    }
}

/// When something ran, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) begins: f64,
    pub(super) lasts: f64,
}

/// What is known of one name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Total {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) count: u64,
    /// With what it called.
    pub(super) total_ms: f64,
    /// Without that.
    pub(super) self_ms: f64,
    /// `self_ms` of that of all of its kind.
    pub(super) share: f64,
}

/// A span and the number of its name.
type Named = (Span, u32);

/// What one process did.
#[derive(Debug, Default)]
pub(super) struct Operators {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
    on_device: HashMap<u32, (u64, f64)>,
    threads: BTreeMap<String, Vec<Named>>,
    n_spans: usize,
}

impl Operators {
    /// Adds something that a device did.
    pub(super) fn on_device(&mut self, name: &str, lasts: f64) {
        let number = self.number(name);
        let of = self.on_device.entry(number).or_default();
        of.0 += 1;
        of.1 += lasts;
    }

    /// Adds an operator of a thread; those that are too many are left out.
    pub(super) fn nested(&mut self, thread: &str, name: &str, span: Span) {
        self.n_spans += 1;
        if self.is_full() {
            return;
        }
        let number = self.number(name);
        match self.threads.get_mut(thread) {
            Some(spans) => spans.push((span, number)),
            None => {
                self.threads.insert(thread.to_owned(), vec![(span, number)]);
            }
        }
    }

    /// Whether operators were left out.
    pub(super) fn is_full(&self) -> bool {
        self.n_spans > MOST_SPANS
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        if self.names.len() >= MOST_NAMES && name != OTHERS {
            return self.number(OTHERS);
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// The `most` of each kind that took longest by themselves, kernels first.
    pub(super) fn top(self, most: usize) -> Vec<Total> {
        let names = self.names;
        let kernels = self.on_device.into_iter();
        let kernels = kernels.map(|(number, (count, total))| (number, (count, total, total)));
        let mut operators: HashMap<u32, (u64, f64, f64)> = HashMap::new();
        for spans in self.threads.into_values() {
            add_nested(spans, &mut operators);
        }
        let mut all = ranked(Kind::Kernel, kernels.collect(), &names, most);
        all.extend(ranked(
            Kind::Operator,
            operators.into_iter().collect(),
            &names,
            most,
        ));
        all
    }
}

/// Adds the operators of a thread: an operator that begins before another has ended was called by it.
fn add_nested(mut spans: Vec<Named>, to: &mut HashMap<u32, (u64, f64, f64)>) {
    // Of two that begin together the longer one called the other.
    spans.sort_by(|(a, _), (b, _)| {
        let by_length = || b.lasts.total_cmp(&a.lasts);
        a.begins.total_cmp(&b.begins).then_with(by_length)
    });
    // Ends and numbers of those under way.
    let mut open: Vec<(f64, u32)> = Vec::new();
    for (span, number) in spans {
        while open.last().is_some_and(|(end, _)| *end <= span.begins) {
            open.pop();
        }
        if let Some((_, caller)) = open.last() {
            to.entry(*caller).or_default().2 -= span.lasts;
        }
        let of = to.entry(number).or_default();
        of.0 += 1;
        of.1 += span.lasts;
        of.2 += span.lasts;
        open.push((span.begins + span.lasts, number));
    }
}

/// Names with their count, their time and their time by themselves, in the order of the last.
fn ranked(
    kind: Kind,
    mut all: Vec<(u32, (u64, f64, f64))>,
    names: &[String],
    most: usize,
) -> Vec<Total> {
    let whole: f64 = all.iter().map(|(_, (_, _, own))| own).sum();
    all.sort_by(|(a, x), (b, y)| {
        y.2.total_cmp(&x.2)
            .then(names[*a as usize].cmp(&names[*b as usize]))
    });
    let total = |(number, (count, total, own)): (u32, (u64, f64, f64))| Total {
        kind,
        name: names[number as usize].clone(),
        count,
        total_ms: total / 1e3,
        self_ms: own / 1e3,
        share: if whole > 0.0 { own / whole } else { f64::NAN },
    };
    all.into_iter().take(most).map(total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(begins: f64, lasts: f64) -> Span {
        Span { begins, lasts }
    }

    #[test]
    fn time_by_itself_leaves_out_what_was_called_at_any_depth_once() {
        let mut operators = Operators::default();
        // As files have them: those that end first may stand first.
        operators.nested("1", "c", span(20.0, 10.0));
        operators.nested("1", "b", span(10.0, 50.0));
        operators.nested("1", "a", span(0.0, 100.0));
        operators.nested("1", "b", span(60.0, 20.0));
        // Begins where another ends: called by nobody.
        operators.nested("1", "a", span(100.0, 7.0));
        let top = operators.top(9);
        let shown: Vec<_> = top
            .iter()
            .map(|t| (t.name.as_str(), t.count, t.total_ms, t.self_ms))
            .collect();
        assert_eq!(
            shown,
            [
                ("b", 2, 0.07, 0.06),
                ("a", 2, 0.107, 0.037),
                ("c", 1, 0.01, 0.01)
            ]
        );
        let shares: f64 = top.iter().map(|t| t.share).sum();
        assert!((shares - 1.0).abs() < 1e-12);
    }

    #[test]
    fn kinds_have_shares_of_their_own_and_only_the_longest_are_told() {
        let mut operators = Operators::default();
        operators.on_device("k", 30.0);
        operators.on_device("l", 10.0);
        operators.on_device("k", 10.0);
        operators.nested("1", "o", span(0.0, 1.0));
        let top = operators.top(1);
        let shown: Vec<_> = top
            .iter()
            .map(|t| (t.kind, t.name.as_str(), t.count, t.share))
            .collect();
        assert_eq!(
            shown,
            [(Kind::Kernel, "k", 2, 0.8), (Kind::Operator, "o", 1, 1.0)]
        );
    }
}
