//! Fragments become the steps and services that they bring, under the name of the step that uses
//! them.

use super::Workshop;
use super::library::{only_fragments, peek, shelf};
use super::substitute::Substitution;
use crate::interpolate::{Raw, split};
use crate::params::{self, ParamValue};
use crate::plan::{
    AxesDecl, Fragment, NodeDecl, NodeSort, Param, ParamKind, Plan, read_axes, read_nodes,
};
use crate::problem::{Problem, did_you_mean};
use crate::source::Place;
use crate::value::{Kind, Value, parse};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Replaces every step of `plan` that uses a fragment by what the fragment brings.
pub(super) fn instantiate(
    plan: &mut Plan,
    params: &BTreeMap<String, ParamValue>,
    workshop: &mut Workshop<'_>,
) {
    let mut shop = Fragments {
        workshop,
        params,
        known: std::mem::take(&mut plan.fragments),
        shelf: None,
        nodes: Vec::new(),
        uses: BTreeMap::new(),
        axes: Vec::new(),
    };
    for node in std::mem::take(&mut plan.nodes) {
        shop.node(node, &mut Vec::new());
    }
    let (mut nodes, uses) = (shop.nodes, shop.uses);
    let brought = shop.axes;
    nodes.iter_mut().for_each(|node| spread_after(node, &uses));
    plan.nodes = nodes;
    for axes in brought {
        add_axes(plan, axes, workshop);
    }
}

struct Fragments<'a, 'w> {
    workshop: &'a mut Workshop<'w>,
    params: &'a BTreeMap<String, ParamValue>,
    /// Fragments of files that were taken in.
    known: Vec<Fragment>,
    /// Names of fragments and the files that have them, once they were looked for.
    shelf: Option<Vec<(String, PathBuf)>>,
    nodes: Vec<NodeDecl>,
    /// The steps that each use of a fragment became.
    uses: BTreeMap<String, Vec<String>>,
    axes: Vec<AxesDecl>,
}

impl Fragments<'_, '_> {
    /// Adds a declaration, or what it brings; `open` are the fragments that it is a part of.
    fn node(&mut self, node: NodeDecl, open: &mut Vec<String>) -> Vec<String> {
        let Some((name, place)) = node.fragment().map(|(n, p)| (n.to_owned(), p.clone())) else {
            let name = node.key.name.clone();
            let steps = (node.sort == NodeSort::Step).then_some(name);
            self.nodes.push(node);
            return steps.into_iter().collect();
        };
        if node.sort == NodeSort::Service {
            let message = format!("`library.{name}` is a fragment, not a service");
            let help = format!("declare it as `[steps.{}]`", node.key.name);
            self.report(Problem::at(&place, message, "not a service").help(help));
            return Vec::new();
        }
        if open.contains(&name) {
            let message = format!("fragment `{name}` is a part of itself");
            let help = format!("it comes by way of `{}`", open.join("`, `"));
            self.report(Problem::at(&place, message, "a circle").help(help));
            return Vec::new();
        }
        let Some(fragment) = self.find(&name, &place) else {
            return Vec::new();
        };
        let parts = self.parts(&node, &fragment);
        open.push(name);
        let mut steps = Vec::new();
        for part in parts {
            steps.extend(self.node(part, open));
        }
        open.pop();
        self.uses.insert(node.key.name.clone(), steps.clone());
        steps
    }

    fn report(&mut self, problem: Problem) {
        self.workshop.problems.push(problem);
    }

    fn find(&mut self, name: &str, place: &Place) -> Option<Fragment> {
        if let Some(known) = self.known.iter().find(|f| f.key.name == name) {
            return Some(known.clone());
        }
        let shelf = self.on_shelf();
        if let Some((_, path)) = shelf.iter().find(|(n, _)| n == name) {
            let path = path.clone();
            self.take_in(path);
            return self.known.iter().find(|f| f.key.name == name).cloned();
        }
        let known = shelf.iter().map(|(n, _)| n.clone());
        let mut known: Vec<String> = known.collect();
        known.extend(self.known.iter().map(|f| f.key.name.clone()));
        let message = format!("there is no fragment `{name}`");
        let help = match known.as_slice() {
            [] => "fragments are declared in files that the plan includes, and in `plans/library/`"
                .to_owned(),
            known => did_you_mean(name, known.iter().map(String::as_str)),
        };
        self.report(Problem::at(place, message, "unknown fragment").help(help));
        None
    }

    fn on_shelf(&mut self) -> Vec<(String, PathBuf)> {
        let files = self.workshop.files;
        let shelf = self.shelf.get_or_insert_with(|| {
            let paths = shelf(files).into_iter();
            paths
                .flat_map(|path| {
                    let fragments = peek(&path, files).fragments.into_iter();
                    fragments.map(move |f| (f.key.name, path.clone()))
                })
                .collect()
        });
        shelf.clone()
    }

    /// Makes a file of the library, of which a fragment is used, a source of the plan.
    fn take_in(&mut self, path: PathBuf) {
        let workshop = &mut *self.workshop;
        let Ok(text) = workshop.files.read(&path) else {
            return;
        };
        let source = workshop.sources.add(&path, text);
        let root = parse(workshop.sources, source, workshop.problems);
        let read = Plan::read_part(&only_fragments(&root), workshop.problems);
        for fragment in read.fragments {
            if !self.known.iter().any(|f| f.key.name == fragment.key.name) {
                self.known.push(fragment);
            }
        }
    }

    /// What one use of a fragment brings, in the words of the plan.
    fn parts(&mut self, node: &NodeDecl, fragment: &Fragment) -> Vec<NodeDecl> {
        let values = self.values(node, fragment);
        let body = Substitution {
            prefix: &node.key.name,
            fragment,
            values: &values,
            problems: self.workshop.problems,
        }
        .body(&fragment.body);
        self.axes.push(read_axes(&body, self.workshop.problems));
        let mut parts = read_nodes(&body, self.workshop.problems);
        for part in &mut parts {
            part.key.name = format!("{}.{}", node.key.name, part.key.name);
            part.axes.extend(node.axes.iter().cloned());
            part.when.extend(node.when.iter().cloned());
            if part.sort == NodeSort::Step {
                part.after.extend(node.after.iter().cloned());
            }
        }
        parts
    }

    /// The value of every parameter that has one; an empty template for those that are wrong.
    fn values(&mut self, node: &NodeDecl, fragment: &Fragment) -> BTreeMap<String, Value> {
        let name = &fragment.key.name;
        for (key, _) in &node.with.entries {
            if !fragment.params.iter().any(|p| p.key.name == key.name) {
                let message = format!("fragment `{name}` has no parameter `{}`", key.name);
                let known = fragment.params.iter().map(|p| p.key.name.as_str());
                let help = did_you_mean(&key.name, known);
                self.report(Problem::at(&key.place, message, "unknown parameter").help(help));
            }
        }
        let mut values = BTreeMap::new();
        for param in &fragment.params {
            let is_given = node.with.get(&param.key.name).is_some() || param.default.is_some();
            if param.optional && !is_given {
                continue;
            }
            let value = self.argument(node, name, param);
            let empty = || Value {
                kind: Kind::Template(Vec::new()),
                place: node.with_place.clone(),
            };
            values.insert(param.key.name.clone(), value.unwrap_or_else(empty));
        }
        values
    }

    fn argument(&mut self, node: &NodeDecl, fragment: &str, param: &Param) -> Option<Value> {
        let name = &param.key.name;
        let given = node.with.get(name).or(param.default.as_ref());
        let Some(value) = given else {
            let message = format!("fragment `{fragment}` needs parameter `{name}`");
            let help = format!("add `{name} = …` to `with`: {}", param.kind);
            let problem = Problem::at(&node.with_place, message, format!("`{name}` is missing"));
            self.report(problem.help(help));
            return None;
        };
        self.fits(param, &param.kind, value).then(|| value.clone())
    }

    /// Whether a value is of the parameter's type, as far as that is known before axes are.
    fn fits(&mut self, param: &Param, kind: &ParamKind, value: &Value) -> bool {
        if let (ParamKind::List(inner), Kind::List(list)) = (kind, &value.kind) {
            return list.iter().all(|item| self.fits(param, inner, item));
        }
        let parts = match &value.kind {
            Kind::Text(text) if text.contains("${") => split(text),
            _ => Vec::new(),
        };
        let is_sound = match parts.as_slice() {
            [] if kind.is_plain() && kind == &param.kind => {
                return params::check(param, value, self.workshop.problems);
            }
            [] if kind.accepts(value) => {
                return params::check_range(param, value, self.workshop.problems);
            }
            [] => false,
            [Raw::Reference(reference)] => match self.early(reference) {
                Some(early) if kind.is_plain() && kind == &param.kind => {
                    let early = Value {
                        place: value.place.clone(),
                        ..early
                    };
                    return params::check(param, &early, self.workshop.problems);
                }
                Some(early) => kind.accepts(&early),
                None => fits_late(kind, reference.trim()),
            },
            _ => matches!(kind, ParamKind::Text | ParamKind::Artifact),
        };
        if !is_sound {
            let name = &param.key.name;
            let message = format!(
                "parameter `{name}` takes `{}`, and this is none",
                param.kind
            );
            let label = format!("expected `{kind}`");
            let problem = Problem::at(&value.place, message, label);
            self.report(problem.help(value.mend(&kind.phrase())));
        }
        is_sound
    }

    /// The value of a plan's parameter.
    fn early(&self, reference: &str) -> Option<Value> {
        let name = reference.trim().strip_prefix("params.")?;
        self.params.get(name).map(|v| v.value.clone())
    }
}

/// Whether a reference to what is known later can be of a type.
fn fits_late(kind: &ParamKind, reference: &str) -> bool {
    let words: Vec<&str> = reference.split('.').collect();
    // Which one of them an axis chooses: `services[axes.NAME]`.
    let section = words[0].split('[').next().unwrap_or_default();
    let words = [&[section], &words[1..]].concat();
    match (kind, words.as_slice()) {
        (ParamKind::Samples, ["steps", .., last]) => *last == "all",
        (ParamKind::Artifact | ParamKind::Text, ["steps", .., last]) => *last != "all",
        (ParamKind::Service | ParamKind::Text, ["services", ..]) => true,
        (ParamKind::Text, ["secret", ..]) => true,
        (_, ["steps" | "services" | "secret", ..]) => false,
        // What is not known here is a problem where it is resolved.
        _ => kind.is_plain(),
    }
}

/// Whoever comes after a fragment comes after every step of it.
fn spread_after(node: &mut NodeDecl, uses: &BTreeMap<String, Vec<String>>) {
    let spread = |(name, place): (String, Place)| match uses.get(&name) {
        Some(steps) => steps.iter().map(|s| (s.clone(), place.clone())).collect(),
        None => vec![(name, place)],
    };
    node.after = std::mem::take(&mut node.after)
        .into_iter()
        .flat_map(spread)
        .collect();
}

/// Adds axes that a fragment brings; those of the plan itself win.
fn add_axes(plan: &mut Plan, axes: AxesDecl, workshop: &mut Workshop<'_>) {
    for (key, value) in axes.values {
        match plan.axes.values.iter().find(|(k, _)| k.name == key.name) {
            None => plan.axes.values.push((key, value)),
            // The same fragment, used twice with different values.
            Some((own, other)) if own.place == key.place && other.to_line() != value.to_line() => {
                let message = format!("axis `{}` is given {} and", key.name, other.to_line());
                let message = format!("{message} {}", value.to_line());
                let problem = Problem::at(&value.place, message, "which of the two?");
                let help = format!("declare `{}` in the plan's own `[axes]`", key.name);
                workshop.problems.push(problem.help(help));
            }
            Some(_) => {}
        }
    }
    // Rules of a fragment that is used twice are the same rules.
    let own = &mut plan.axes;
    add_rules(&mut own.from, axes.from, |v| &v.place);
    add_rules(&mut own.zip, axes.zip, |(place, _)| place);
    add_rules(&mut own.exclude, axes.exclude, |(place, _)| place);
    add_rules(&mut own.include, axes.include, |(place, _)| place);
}

fn add_rules<T>(own: &mut Vec<T>, more: Vec<T>, place: fn(&T) -> &Place) {
    for rule in more {
        if !own.iter().any(|other| place(other) == place(&rule)) {
            own.push(rule);
        }
    }
}
