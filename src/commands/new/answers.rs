//! Who answers while a plan is composed: a person at a terminal, or nobody.

use crate::columns::{Cell, Columns};
use crate::draft::{Asked, Choice, Missing, toml_text};
use crate::reference::Entry;
use crate::terminal::{self, Ink, Terminal};
use crate::words;
use std::collections::BTreeMap;

/// Where the meaning of an option is wrapped, in characters.
const WIDTH: usize = 88;
/// How often an answer that is none is asked for again.
const ATTEMPTS: usize = 5;

/// Takes what stands first for what a step reads, and knows nothing else.
pub(super) struct Nobody;

impl Asked for Nobody {
    fn choose(&mut self, option: &Missing, choices: &[Choice]) -> Option<usize> {
        let is_decision = option.type_name.starts_with("service") && choices.len() > 1;
        (!is_decision).then_some(0)
    }

    fn value(&mut self, _: &Missing) -> Option<String> {
        None
    }
}

/// Asks line by line, and never the same twice.
pub(super) struct Person {
    terminal: Terminal,
    /// Whoever has left is not asked again.
    is_gone: bool,
    chosen: BTreeMap<String, Option<usize>>,
    values: BTreeMap<String, String>,
}

impl Person {
    pub(super) fn new(terminal: Terminal) -> Self {
        Self {
            terminal,
            is_gone: false,
            chosen: BTreeMap::new(),
            values: BTreeMap::new(),
        }
    }

    fn ask(&mut self, question: &str) -> Option<String> {
        if self.is_gone {
            return None;
        }
        let answer = terminal::ask(question);
        self.is_gone = answer.is_none();
        answer
    }

    /// Asks which steps the plan should have, as they are or as fragments bring them.
    pub(super) fn steps<'a>(&mut self, entries: &'a [Entry]) -> Vec<&'a Entry> {
        let order = ["measure", "effect", "report", "fetch", "pure", "fragment"];
        let mut steps: Vec<&Entry> = entries.iter().filter(|e| e.sort != "service").collect();
        steps.sort_by_key(|entry| order.iter().position(|kind| *kind == entry.kind));
        let names: Vec<(&str, &str)> = steps
            .iter()
            .map(|e| (e.name.as_str(), e.summary.as_str()))
            .collect();
        self.list(&names);
        let question = "which steps and fragments should the plan have? numbers or names [1]: ";
        for _ in 0..ATTEMPTS {
            let Some(answer) = self.ask(question) else {
                return Vec::new();
            };
            let words = answer.split([' ', ',']).filter(|word| !word.is_empty());
            let found: Option<Vec<&Entry>> = words
                .map(|word| position(word, &names).map(|at| steps[at]))
                .collect();
            match found {
                Some(found) if found.is_empty() => return steps.into_iter().take(1).collect(),
                Some(found) => return found,
                None => self.complain(&answer, names.len()),
            }
        }
        Vec::new()
    }

    /// Asks for a value that makes the plan sound; `None` to give up.
    pub(super) fn mend(&mut self) -> Option<(String, String)> {
        let question = "give a value as OPTION=VALUE, or nothing to stop: ";
        for _ in 0..ATTEMPTS {
            let answer = self.ask(question).filter(|answer| !answer.is_empty())?;
            match answer.split_once('=') {
                Some((name, value)) => {
                    return Some((name.trim().to_owned(), value.trim().to_owned()));
                }
                None => terminal::error_line("write it as `load.request_rate=4`"),
            }
        }
        None
    }

    fn list(&self, choices: &[(&str, &str)]) {
        let mut columns = Columns::default();
        for (i, (name, doc)) in choices.iter().enumerate() {
            let number = format!("{:>2}", i + 1);
            columns.row(vec![
                Cell::new(Ink::Dim, number),
                Cell::new(Ink::Bold, *name),
                (*doc).into(),
            ]);
        }
        let lines = columns.lines("  ", self.terminal.error_color);
        lines.iter().for_each(terminal::error_line);
    }

    fn complain(&self, answer: &str, n: usize) {
        terminal::error_line(format!(
            "`{answer}` is none of them: write numbers from 1 to {n}"
        ));
    }

    fn explain(&self, option: &Missing) {
        let place = format!("{}.{}", option.node, option.option);
        let place = self.terminal.paint_error(Ink::Bold, place);
        let unit = option
            .unit
            .as_ref()
            .map_or_else(String::new, |unit| format!(", in {unit}"));
        terminal::error_line(format!("\n{place}: {}{unit}", option.type_name));
        let lines = words::wrap(&option.doc, WIDTH);
        lines
            .iter()
            .for_each(|line| terminal::error_line(format!("  {line}")));
    }
}

impl Asked for Person {
    fn choose(&mut self, option: &Missing, choices: &[Choice]) -> Option<usize> {
        let place = format!("{}.{}", option.node, option.option);
        if let Some(known) = self.chosen.get(&place) {
            return *known;
        }
        // What is the only way to have a server needs no question.
        if let ([_], true) = (choices, option.type_name.starts_with("service")) {
            return Some(0);
        }
        self.explain(option);
        let mut names: Vec<(&str, &str)> = choices
            .iter()
            .map(|c| (c.name.as_str(), c.doc.as_str()))
            .collect();
        if !option.type_name.starts_with("service") {
            names.push(("a path", "what is there already"));
        }
        self.list(&names);
        let mut chosen = None;
        for _ in 0..ATTEMPTS {
            let answer = self.ask("which? [1]: ")?;
            chosen = match answer.as_str() {
                "" => Some(0),
                answer => position(answer, &names),
            };
            match chosen {
                Some(_) => break,
                None => self.complain(&answer, names.len()),
            }
        }
        let chosen = chosen.filter(|at| *at < choices.len());
        self.chosen.insert(place, chosen);
        chosen
    }

    fn value(&mut self, option: &Missing) -> Option<String> {
        let place = format!("{}.{}", option.node, option.option);
        if let Some(known) = self.values.get(&place) {
            return Some(known.clone());
        }
        self.explain(option);
        for _ in 0..ATTEMPTS {
            let answer = self.ask("> ")?;
            if !answer.is_empty() {
                let value = toml_text(&answer, &option.type_name);
                self.values.insert(place, value.clone());
                return Some(value);
            }
            terminal::error_line("it has no default: a value is needed");
        }
        None
    }
}

/// Finds what a number from 1 or a name means.
fn position(answer: &str, choices: &[(&str, &str)]) -> Option<usize> {
    let by_name = choices.iter().position(|(name, _)| *name == answer);
    let number = answer.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
    by_name.or(number.filter(|at| *at < choices.len()))
}
