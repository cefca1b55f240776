//! Files that are merged below `with.args`: tables merge, everything else replaces, the plan's
//! own arguments come last, and `unset` removes what is left over.

use super::Workshop;
use crate::interpolate::{self, Scope};
use crate::plan::{NodeDecl, NodeSort};
use crate::problem::{Problem, did_you_mean};
use crate::value::{Key, Kind, Table, Value, parse};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The option that overlays are merged into.
const ARGS: &str = "args";

/// Merges the overlays of every node, and removes what it unsets.
pub(super) fn merge(nodes: &mut [NodeDecl], scope: &Scope, workshop: &mut Workshop<'_>) {
    let mut merger = Merger {
        scope,
        workshop,
        read: BTreeMap::new(),
    };
    for node in nodes {
        if !(node.overlays.is_empty() && node.unset.is_empty()) && merger.has_args(node) {
            merger.node(node);
        }
    }
}

struct Merger<'a, 'w> {
    scope: &'a Scope,
    workshop: &'a mut Workshop<'w>,
    /// Files that were read, so that each is one source.
    read: BTreeMap<PathBuf, Table>,
}

impl Merger<'_, '_> {
    /// Whether what the node uses has arguments to merge; otherwise that is a problem.
    fn has_args(&mut self, node: &NodeDecl) -> bool {
        let Some((uses, _)) = &node.uses else {
            return false;
        };
        let library = self.workshop.library;
        let options = match node.sort {
            NodeSort::Step => library.find_step(uses).map(|e| &e.options),
            NodeSort::Service => library.find_service(uses).map(|e| &e.options),
        };
        // What is not in the library is a problem elsewhere.
        let Some(options) = options else {
            return false;
        };
        if options.iter().any(|o| o.name == ARGS) {
            return true;
        }
        let first = node.overlays.first().map(|v| &v.place);
        let Some(place) = first.or_else(|| node.unset.first().map(|(_, place)| place)) else {
            return false;
        };
        let message = format!("`{uses}` has no option `{ARGS}` that could be put together");
        let problem = Problem::at(place, message, "nothing to merge into");
        self.workshop
            .problems
            .push(problem.help("write its options in `with`"));
        false
    }

    fn node(&mut self, node: &mut NodeDecl) {
        let mut merged = Table::default();
        for overlay in &node.overlays {
            if let Some(table) = self.overlay(overlay) {
                lay_over(&mut merged, table);
            }
        }
        let place = node.with.get(ARGS).map(|v| v.place.clone());
        match node.with.get(ARGS).map(|v| &v.kind) {
            Some(Kind::Table(own)) => lay_over(&mut merged, own.clone()),
            None => {}
            // Of another type is a problem of the option itself.
            Some(_) => return,
        }
        self.unset(node, &mut merged);
        let place = place.unwrap_or_else(|| node.with_place.clone());
        let key = Key {
            name: ARGS.to_owned(),
            place: place.clone(),
        };
        let kind = Kind::Table(merged);
        node.with.insert(key, Value { kind, place });
    }

    fn overlay(&mut self, overlay: &Value) -> Option<Table> {
        let workshop = &mut *self.workshop;
        let value = interpolate::value(overlay, self.scope, workshop.sources, workshop.problems);
        let Kind::Text(wanted) = &value.kind else {
            if let Kind::Template(pieces) = &value.kind
                && !pieces.is_empty()
            {
                let message = "an overlay must be known before the plan runs";
                let problem = Problem::at(&value.place, message, "known only later");
                workshop
                    .problems
                    .push(problem.help("use parameters, not what steps bring"));
            }
            return None;
        };
        let from = workshop.sources.folder_of(&value.place);
        match workshop.files.find(from, wanted) {
            Ok(path) => self.file(path, &value),
            Err(searched) => {
                let message = format!("there is no overlay `{wanted}`");
                let help = super::files::searched_help(&searched);
                let problem = Problem::at(&value.place, message, "not found");
                workshop.problems.push(problem.help(help));
                None
            }
        }
    }

    fn file(&mut self, path: PathBuf, named: &Value) -> Option<Table> {
        if let Some(table) = self.read.get(&path) {
            return Some(table.clone());
        }
        let workshop = &mut *self.workshop;
        let text = match workshop.files.read(&path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("could not read `{}`: {error}", path.display());
                workshop
                    .problems
                    .push(Problem::at(&named.place, message, "named here"));
                return None;
            }
        };
        let source = workshop.sources.add(&path, text);
        let table = parse(workshop.sources, source, workshop.problems);
        self.read.insert(path, table.clone());
        Some(table)
    }

    fn unset(&mut self, node: &NodeDecl, merged: &mut Table) {
        for (path, place) in &node.unset {
            let words: Vec<&str> = path.split('.').collect();
            if let Err(known) = remove(merged, &words) {
                let message = format!("there is no argument `{path}` to remove");
                let problem = Problem::at(place, message, "not there");
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                self.workshop
                    .problems
                    .push(problem.help(did_you_mean(path, known)));
            }
        }
    }
}

/// Lays a table over another: tables merge, everything else replaces.
fn lay_over(below: &mut Table, above: Table) {
    for (key, value) in above.entries {
        match (below.get_mut(&key.name).map(|v| &mut v.kind), value.kind) {
            (Some(Kind::Table(old)), Kind::Table(new)) => lay_over(old, new),
            (_, kind) => below.insert(
                key,
                Value {
                    kind,
                    place: value.place,
                },
            ),
        }
    }
}

/// Removes the value at a path.
///
/// # Errors
/// The paths that are there, if this one is not.
fn remove(table: &mut Table, path: &[&str]) -> Result<(), Vec<String>> {
    let known = |table: &Table| table.entries.iter().map(|(k, _)| k.name.clone()).collect();
    let Some((name, rest)) = path.split_first() else {
        return Err(known(table));
    };
    if rest.is_empty() {
        return match table.remove(name) {
            Some(_) => Ok(()),
            None => Err(known(table)),
        };
    }
    match table.get_mut(name).map(|v| &mut v.kind) {
        Some(Kind::Table(inner)) => {
            let below = |known: Vec<String>| known.iter().map(|k| format!("{name}.{k}")).collect();
            remove(inner, rest).map_err(below)
        }
        _ => Err(known(table)),
    }
}
