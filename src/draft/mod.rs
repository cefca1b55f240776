//! A plan in the making: steps and services of the library, wired by what they bring and need.
//!
//! What an option needs and nobody said is asked of whoever answers: a person, or nobody, who then
//! learns what is missing. Knows no terminal and no file.

mod values;

mod text;

use crate::reference::{Entry, OptionDoc};
use std::collections::BTreeMap;
use values::{Needs, needs};

pub(crate) use values::toml_text;

/// Answers what nobody has said yet.
pub(crate) trait Asked {
    /// Chooses one of several that bring what an option needs, by position; `None` if nobody can
    /// say.
    fn choose(&mut self, option: &Missing, choices: &[Choice]) -> Option<usize>;
    /// Gives the value of an option as TOML; `None` if nobody can say.
    fn value(&mut self, missing: &Missing) -> Option<String>;
}

/// Something that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) name: String,
    pub(crate) doc: String,
}

/// An option that must be given and was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The node's name.
    pub(crate) node: String,
    /// The option.
    pub(crate) option: String,
    /// What it takes, as options name their types.
    pub(crate) type_name: String,
    /// Its unit.
    pub(crate) unit: Option<String>,
    /// What it means.
    pub(crate) doc: String,
}

/// A step or service of the plan.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// Its name.
    pub(crate) name: String,
    /// What it uses.
    pub(crate) entry: &'a Entry,
    /// Options that are said, as TOML.
    pub(crate) with: BTreeMap<&'a str, String>,
    /// Steps that come before it.
    pub(crate) after: Vec<String>,
}

/// The plan in the making.
pub(crate) struct Draft<'a> {
    library: &'a [Entry],
    /// Steps and services that were asked for and are not there yet.
    wanted: Vec<&'a Entry>,
    /// Values that were given: `load.request_rate` or `request_rate`, as TOML.
    given: Vec<(String, String)>,
    used: Vec<bool>,
    /// Paths that stand for what nothing in the plan brings, by type: a second step that needs
    /// the same is meant to have the same.
    paths: BTreeMap<String, String>,
    /// What is being added, so that nothing is made from itself.
    open: Vec<&'a str>,
    nodes: Vec<Node<'a>>,
    /// What nobody could say.
    pub(crate) missing: Vec<Missing>,
}

impl<'a> Draft<'a> {
    /// Begins a plan of `wanted` with the values that were `given`.
    pub(crate) fn new(
        library: &'a [Entry],
        wanted: Vec<&'a Entry>,
        given: Vec<(String, String)>,
    ) -> Self {
        Self {
            library,
            wanted,
            used: vec![false; given.len()],
            given,
            paths: BTreeMap::new(),
            open: Vec::new(),
            nodes: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Adds everything that is wanted, and what that needs.
    pub(crate) fn complete(&mut self, asked: &mut dyn Asked) {
        while !self.wanted.is_empty() {
            let next = self.wanted.remove(0);
            self.add(next, asked);
        }
        self.order_effects();
    }

    /// Names the values that were given and that no option takes.
    pub(crate) fn unused(&self) -> Vec<&str> {
        let given = self.given.iter().zip(&self.used);
        given
            .filter(|(_, used)| !**used)
            .map(|((name, _), _)| name.as_str())
            .collect()
    }

    /// Names every option that could have been given.
    pub(crate) fn options(&self) -> Vec<String> {
        let of = |node: &Node<'_>| {
            let options = node.entry.options.iter();
            options
                .map(|o| format!("{}.{}", node.name, o.name))
                .collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }

    fn add(&mut self, entry: &'a Entry, asked: &mut dyn Asked) -> usize {
        let name = self.name_of(entry);
        self.open.push(&entry.name);
        let mut with = BTreeMap::new();
        for option in &entry.options {
            let value = match self.said(&name, entry, option) {
                Some(value) => Some(value),
                None => self.wire(&name, entry, option, asked),
            };
            if let Some(value) = value {
                if !value.contains("${") {
                    self.paths.insert(option.takes.clone(), value.clone());
                }
                with.insert(option.name.as_str(), value);
            }
        }
        self.open.pop();
        self.nodes.push(Node {
            name,
            entry,
            with,
            after: Vec::new(),
        });
        self.nodes.len() - 1
    }

    /// The family's name, or what tells it from another of its family.
    fn name_of(&self, entry: &Entry) -> String {
        let last = entry.last();
        // An effect is called by what it does, and leaves the family's name to what is measured.
        // All fragments are of one family.
        let first = match entry.kind {
            "effect" | "fragment" => last,
            _ => entry.family(),
        };
        let free = |name: &str| !self.nodes.iter().any(|node| node.name == name);
        let named = [first, last].map(str::to_owned).into_iter();
        let numbered = (2..).map(|n| format!("{last}_{n}"));
        let mut names = named.chain(numbered);
        names.find(|name| free(name)).unwrap_or_default()
    }

    fn said(&mut self, node: &str, entry: &Entry, option: &OptionDoc) -> Option<String> {
        let name = &option.name;
        let names = [
            format!("{node}.{name}"),
            format!("{}.{name}", entry.name),
            name.clone(),
        ];
        let at = names
            .iter()
            .find_map(|name| self.given.iter().rposition(|(n, _)| n == name))?;
        self.used[at] = true;
        Some(toml_text(&self.given[at].1, &option.takes))
    }

    /// Finds what an option refers to; asks for what it must have.
    fn wire(
        &mut self,
        node: &str,
        entry: &Entry,
        option: &OptionDoc,
        asked: &mut dyn Asked,
    ) -> Option<String> {
        let needs = needs(&option.takes);
        if option.default.is_some() {
            // A report shows all that there is.
            return (entry.kind == "report").then(|| self.all(&needs)).flatten();
        }
        let missing = Missing {
            node: node.to_owned(),
            option: option.name.clone(),
            type_name: option.takes.clone(),
            unit: option.unit.clone(),
            doc: option.doc.clone(),
        };
        if let Some(reference) = self.there(&needs) {
            return Some(needs.written(&[reference]));
        }
        if let Some(path) = self
            .paths
            .get(&option.takes)
            .filter(|_| needs != Needs::Value)
        {
            return Some(path.clone());
        }
        if let Some(reference) = self.link(&needs, &missing, asked) {
            return Some(needs.written(&[reference]));
        }
        match asked.value(&missing) {
            Some(value) => Some(value),
            None => {
                self.missing.push(missing);
                None
            }
        }
    }

    /// Refers to everything that a list can take.
    fn all(&self, needs: &Needs) -> Option<String> {
        if !needs.is_list() {
            return None;
        }
        let found: Vec<String> = self
            .nodes
            .iter()
            .flat_map(|n| needs.references(n))
            .collect();
        (!found.is_empty()).then(|| needs.written(&found))
    }

    /// Refers to what was added last of what an option can take.
    fn there(&self, needs: &Needs) -> Option<String> {
        self.nodes
            .iter()
            .rev()
            .find_map(|node| needs.reference(node))
    }

    /// Adds what was asked for, or else what can be added, and refers to it.
    fn link(&mut self, needs: &Needs, option: &Missing, asked: &mut dyn Asked) -> Option<String> {
        let brings = |entry: &Entry, open: &[&str]| {
            needs.met_by(entry) && !open.contains(&entry.name.as_str())
        };
        if let Some(at) = self.wanted.iter().position(|e| brings(e, &self.open)) {
            let entry = self.wanted.remove(at);
            let at = self.add(entry, asked);
            return needs.reference(&self.nodes[at]);
        }
        // Nobody downloads who has not asked for it; what was asked for was looked at before. And what makes one of
        // these from another needs one to begin with, not a third that does so too.
        let is_within = self.is_open(needs);
        let is_link = |e: &Entry| is_within && takes_what_it_brings(e, needs);
        let may_be_added = |e: &&Entry| e.kind != "fetch" && brings(e, &self.open) && !is_link(e);
        let mut candidates: Vec<&'a Entry> = self.library.iter().filter(may_be_added).collect();
        // Of those that make one from another, the family of its name comes first to mind.
        let is_far = |e: &Entry| takes_what_it_brings(e, needs) && !needs.is_named_by(&e.name);
        candidates.sort_by_key(|e| is_far(e));
        let choices: Vec<Choice> = candidates.iter().map(|e| choice(e)).collect();
        if choices.is_empty() {
            return None;
        }
        let chosen = *candidates.get(asked.choose(option, &choices)?)?;
        let at = self.add(chosen, asked);
        needs.reference(&self.nodes[at])
    }

    /// Whether an entry that is being added brings what is needed.
    fn is_open(&self, needs: &Needs) -> bool {
        let is_open = |entry: &&Entry| self.open.contains(&entry.name.as_str());
        let mut open = self.library.iter().filter(is_open);
        open.any(|entry| needs.met_by(entry))
    }

    /// What is measured on a service comes after what was done to it.
    fn order_effects(&mut self) {
        let leases = |node: &Node<'_>| -> Option<String> {
            let mut options = node.entry.options.iter();
            let lease = options.find(|o| o.takes.starts_with("service"))?;
            node.with.get(lease.name.as_str()).cloned()
        };
        let effects = self.nodes.iter().filter(|n| n.entry.kind == "effect");
        let effects: Vec<(String, Option<String>)> =
            effects.map(|n| (n.name.clone(), leases(n))).collect();
        let measures = |n: &&mut Node<'_>| n.entry.brings.iter().any(|b| b.kind == "measure");
        for node in self.nodes.iter_mut().filter(measures) {
            let own = leases(node);
            let same = effects.iter().filter(|(_, service)| *service == own);
            node.after = same.map(|(name, _)| name.clone()).collect();
        }
    }
}

/// Whether an entry makes what is `needed` from another of the same kind.
fn takes_what_it_brings(entry: &Entry, needed: &Needs) -> bool {
    let takes = |option: &OptionDoc| option.default.is_none() && needs(&option.takes) == *needed;
    needed.met_by(entry) && entry.options.iter().any(takes)
}

/// Describes an entry to those who choose.
pub(crate) fn choice(entry: &Entry) -> Choice {
    Choice {
        name: entry.name.clone(),
        doc: entry.summary.clone(),
    }
}

#[cfg(test)]
mod tests;
