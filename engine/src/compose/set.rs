//! What the command line sets below steps and services, and of resources: `--set steps.load.with.requests=8` for a
//! key that is there, `--set +steps.load.with.seed=7` for one that is not.

use super::Workshop;
use crate::params::Settings;
use crate::plan::{NodeDecl, NodeSort, setting_keys};
use crate::problem::{Problem, did_you_mean};
use crate::source::{Place, Sources};
use crate::value::{Key, Kind, Table, Value, parse_argument};

/// Separates what is set below steps and services from what is set of parameters.
pub(super) fn split(settings: &Settings) -> (Vec<(String, String)>, Settings) {
    let is_below = |name: &str| {
        let path = name.strip_prefix('+').unwrap_or(name);
        let parts = ["steps.", "services.", "resources."];
        path.len() < name.len() || parts.iter().any(|part| path.starts_with(part))
    };
    let (of_nodes, of_params) = settings
        .set
        .iter()
        .cloned()
        .partition(|(name, _)| is_below(name));
    let of_params = Settings {
        set: of_params,
        variant: settings.variant.clone(),
    };
    (of_nodes, of_params)
}

/// Whether a key must be there already.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Change,
    Add,
}

struct NodeSet {
    /// As typed, with `+`.
    shown: String,
    mode: Mode,
    path: Vec<String>,
    value: Value,
    done: bool,
}

/// Everything that is set below steps and services, in order.
pub(super) struct NodeSets(Vec<NodeSet>);

impl NodeSets {
    pub(super) fn new(given: &[(String, String)], sources: &mut Sources) -> Self {
        let read = |(name, text): &(String, String)| {
            let path = name.strip_prefix('+');
            NodeSet {
                shown: name.clone(),
                mode: path.map_or(Mode::Change, |_| Mode::Add),
                path: path.unwrap_or(name).split('.').map(str::to_owned).collect(),
                value: parse_argument(sources, name, text),
                done: false,
            }
        };
        Self(given.iter().map(read).collect())
    }

    /// Sets what there is of pools: of a machine that is not this one, too.
    pub(super) fn apply_to_pools(&mut self, pools: &mut Table, workshop: &mut Workshop<'_>) {
        for set in self.0.iter_mut().filter(|set| !set.done) {
            let Some(("resources", pool)) = set.path.split_first().map(|(s, p)| (s.as_str(), p))
            else {
                continue;
            };
            if pool.len() != 1 {
                continue;
            }
            let put = set.put(pools, pool, "the plan's `[resources]`");
            set.done = true;
            if let Err(problem) = put {
                workshop.problems.push(problem);
            }
        }
    }

    /// Sets what concerns the nodes that are `meant`.
    pub(super) fn apply(
        &mut self,
        nodes: &mut [NodeDecl],
        meant: impl Fn(&NodeDecl) -> bool,
        workshop: &mut Workshop<'_>,
    ) {
        for set in self.0.iter_mut().filter(|set| !set.done) {
            let owner = nodes.iter_mut().filter(|n| meant(n));
            let owner = owner.max_by_key(|n| set.words_of(n));
            let Some((node, n)) = owner.and_then(|n| set.words_of(n).map(|words| (n, words)))
            else {
                continue;
            };
            // What is not a fragment's parameter may be of a step that the fragment brings.
            if node.fragment().is_some() && set.path.get(1 + n).is_none_or(|word| word != "with") {
                continue;
            }
            set.done = true;
            if let Err(problem) = set.change(node, &set.path[1 + n..]) {
                workshop.problems.push(problem);
            }
        }
    }

    /// Reports what concerned nothing.
    pub(super) fn finish(&self, nodes: &[NodeDecl], workshop: &mut Workshop<'_>) {
        for set in self.0.iter().filter(|set| !set.done) {
            workshop.problems.push(set.unknown(nodes));
        }
    }

    /// What was set, as it is shown beside parameters.
    pub(super) fn shown(&self) -> impl Iterator<Item = (String, String, bool)> {
        let shown = |set: &NodeSet| (set.shown.clone(), set.value.to_line(), true);
        self.0.iter().map(shown)
    }
}

impl NodeSet {
    /// How many words of the path are the node's name, if it is meant.
    fn words_of(&self, node: &NodeDecl) -> Option<usize> {
        let (section, rest) = self.path.split_first()?;
        let n = node.key.name.split('.').count();
        let is_meant = section == node.sort.section()
            && rest.len() > n
            && rest[..n].join(".") == node.key.name;
        is_meant.then_some(n)
    }

    fn place(&self) -> &Place {
        &self.value.place
    }

    fn change(&self, node: &mut NodeDecl, path: &[String]) -> Result<(), Problem> {
        let shown = node.shown();
        let (head, rest) = path.split_first().map_or(("", &[][..]), |(h, r)| (h, r));
        let settings = setting_keys(node.sort);
        if head == "with" && !rest.is_empty() {
            return self.put(&mut node.with, rest, &shown);
        }
        if settings.contains(&head) {
            return self.put(&mut node.settings, path, &shown);
        }
        let known = ["with"].into_iter().chain(settings.iter().copied());
        let message = match head {
            "with" => format!("all options of {shown} cannot be set at once"),
            _ => format!("`{head}` of {shown} cannot be set from the command line"),
        };
        let help = match head {
            "with" => "name one option: `--set …with.OPTION=VALUE`".to_owned(),
            _ => did_you_mean(head, known),
        };
        Err(Problem::at(self.place(), message, "set here").help(help))
    }

    fn put(&self, table: &mut Table, path: &[String], owner: &str) -> Result<(), Problem> {
        let Some((name, rest)) = path.split_first() else {
            return Ok(());
        };
        if !rest.is_empty() {
            let inner = self.inner(table, name, owner)?;
            return self.put(inner, rest, owner);
        }
        match (table.get(name).is_some(), self.mode) {
            (false, Mode::Change) => return Err(self.missing(table, name, owner)),
            (true, Mode::Add) => return Err(self.there_already(name, owner)),
            (true, Mode::Change) | (false, Mode::Add) => {}
        }
        table.insert(self.key(name), self.value.clone());
        Ok(())
    }

    /// Returns the table called `name`, which is made where a key is added.
    fn inner<'t>(
        &self,
        table: &'t mut Table,
        name: &str,
        owner: &str,
    ) -> Result<&'t mut Table, Problem> {
        if table.get(name).is_none() {
            if self.mode == Mode::Change {
                return Err(self.missing(table, name, owner));
            }
            let empty = Value {
                kind: Kind::Table(Table::default()),
                place: self.place().clone(),
            };
            table.insert(self.key(name), empty);
        }
        match table.get_mut(name).map(|v| &mut v.kind) {
            Some(Kind::Table(inner)) => Ok(inner),
            _ => {
                let message = format!("`{name}` of {owner} is not a table");
                let problem = Problem::at(self.place(), message, "set here");
                Err(problem.help(format!("set `{name}` itself, or a key of a table")))
            }
        }
    }

    fn key(&self, name: &str) -> Key {
        Key {
            name: name.to_owned(),
            place: self.place().clone(),
        }
    }

    fn missing(&self, table: &Table, name: &str, owner: &str) -> Problem {
        let message = format!("{owner} sets no `{name}`");
        let known = table.entries.iter().map(|(k, _)| k.name.as_str());
        let help = match crate::problem::nearest(name, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("`--set +{}=…` adds it", self.path.join(".")),
        };
        Problem::at(self.place(), message, "set here").help(help)
    }

    fn there_already(&self, name: &str, owner: &str) -> Problem {
        let message = format!("{owner} sets `{name}` already");
        let help = format!("`--set {}=…` changes it", self.path.join("."));
        Problem::at(self.place(), message, "added here").help(help)
    }

    /// The path begins with no step and no service.
    fn unknown(&self, nodes: &[NodeDecl]) -> Problem {
        let sort = match self.path[0].as_str() {
            "steps" => NodeSort::Step,
            "services" => NodeSort::Service,
            other => {
                let message = format!("`{other}` is not a part of a plan that has keys to add");
                let problem = Problem::at(self.place(), message, "set here");
                let help =
                    "write `+steps.NAME.with.KEY`, `+services.NAME.with.KEY` or `+resources.POOL`";
                return problem.help(help);
            }
        };
        let name = self.path.get(1).map_or("", String::as_str);
        let of_sort = nodes.iter().filter(|n| n.sort == sort);
        let names: Vec<&str> = of_sort.map(|n| n.key.name.as_str()).collect();
        let message = match names.contains(&name) {
            true => format!("`{}` names no key", self.path.join(".")),
            false => format!("no {} is called `{name}`", sort.word()),
        };
        let help = match names.contains(&name) {
            true => format!("name one: `{}.with.KEY`", self.path.join(".")),
            false => did_you_mean(name, names),
        };
        Problem::at(self.place(), message, "set here").help(help)
    }
}
