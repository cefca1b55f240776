//! Takes in the files that a plan includes. What the plan itself says of a parameter, an axis, a
//! pool or a secret wins; everything else can be declared only once.

use super::Workshop;
use super::files::normal;
use crate::plan::{AxesDecl, Param, Plan, Variant};
use crate::problem::Problem;
use crate::source::Place;
use crate::value::{Key, Table, parse};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Reads the plan at `path` with everything that it includes; nothing if it cannot be read.
pub(super) fn read(path: &Path, workshop: &mut Workshop<'_>) -> Option<Plan> {
    let text = match workshop.files.read(path) {
        Ok(text) => text,
        Err(error) => {
            let shown = path.display();
            let problem = Problem::whole(format!("could not read the plan `{shown}`: {error}"));
            let help = "give the path of a plan file, such as `plans/quickstart.toml`";
            workshop.problems.push(problem.help(help));
            return None;
        }
    };
    let source = workshop.sources.add(path, text);
    let root = parse(workshop.sources, source, workshop.problems);
    let plan = Plan::read(source, &root, workshop.problems);
    let mut includer = Includer {
        workshop,
        open: vec![path.to_owned()],
        done: BTreeSet::from([normal(path)]),
    };
    Some(includer.complete(plan))
}

struct Includer<'a, 'w> {
    workshop: &'a mut Workshop<'w>,
    /// Files that wait for what they include, the plan itself first.
    open: Vec<PathBuf>,
    /// Files that were taken in, each of them once.
    done: BTreeSet<PathBuf>,
}

impl Includer<'_, '_> {
    fn complete(&mut self, plan: Plan) -> Plan {
        let folder = self.open.last().and_then(|p| p.parent());
        let folder = folder.map(Path::to_path_buf).unwrap_or_default();
        let mut parts = Plan::default();
        for (wanted, place) in plan.include.clone() {
            if let Some(part) = self.include(&folder.join(wanted), &place) {
                self.add(&mut parts, part);
            }
        }
        self.under(plan, parts)
    }

    fn include(&mut self, path: &Path, place: &Place) -> Option<Plan> {
        let wanted = normal(path);
        if let Some(at) = self.open.iter().position(|p| normal(p) == wanted) {
            self.report_circle(at, place);
            return None;
        }
        if !self.done.insert(wanted) {
            return None;
        }
        let text = match self.workshop.files.read(path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("could not read `{}`: {error}", path.display());
                let problem = Problem::at(place, message, "included here");
                let help = "an included path is relative to the file that includes it";
                self.workshop.problems.push(problem.help(help));
                return None;
            }
        };
        let source = self.workshop.sources.add(path, text);
        let root = parse(self.workshop.sources, source, self.workshop.problems);
        let part = Plan::read_part(&root, self.workshop.problems);
        self.open.push(path.to_owned());
        let part = self.complete(part);
        self.open.pop();
        Some(part)
    }

    fn report_circle(&mut self, at: usize, place: &Place) {
        let circle = self.open[at..].iter().chain([&self.open[at]]);
        let names: Vec<String> = circle.map(|p| format!("`{}`", p.display())).collect();
        let message = format!("files include each other: {}", names.join(" → "));
        let problem = Problem::at(place, message, "part of a circle");
        self.workshop
            .problems
            .push(problem.help("remove one of the includes"));
    }

    /// Puts one included file beside others; two that say different things are a problem.
    fn add(&mut self, all: &mut Plan, part: Plan) {
        let known: Vec<Key> = all.params.iter().map(|p| p.key.clone()).collect();
        for param in part.params {
            if self.is_new(&known, &param.key, "parameter") {
                all.params.push(param);
            }
        }
        let known: Vec<Key> = all.axes.values.iter().map(|(k, _)| k.clone()).collect();
        let mut axes = part.axes;
        axes.values
            .retain(|(key, _)| self.is_new(&known, key, "axis"));
        add_axes(&mut all.axes, axes);
        self.add_table(&mut all.resources, part.resources, "pool");
        self.add_table(&mut all.secrets, part.secrets, "secret");
        let known: Vec<Key> = all.fragments.iter().map(|f| f.key.clone()).collect();
        for fragment in part.fragments {
            if self.is_new(&known, &fragment.key, "fragment") {
                all.fragments.push(fragment);
            }
        }
        add_variants(&mut all.variants, part.variants);
        all.broken_params.extend(part.broken_params);
        all.nodes.extend(part.nodes);
    }

    fn add_table(&mut self, all: &mut Table, part: Table, what: &str) {
        let known: Vec<Key> = all.entries.iter().map(|(k, _)| k.clone()).collect();
        for (key, value) in part.entries {
            if self.is_new(&known, &key, what) {
                all.entries.push((key, value));
            }
        }
    }

    /// Puts what is included under the plan that includes it, whose own words win.
    fn under(&mut self, mut plan: Plan, parts: Plan) -> Plan {
        let known: Vec<Key> = plan.fragments.iter().map(|f| f.key.clone()).collect();
        for fragment in parts.fragments {
            if self.is_new(&known, &fragment.key, "fragment") {
                plan.fragments.push(fragment);
            }
        }
        let own: BTreeSet<String> = plan.params.iter().map(|p| p.key.name.clone()).collect();
        let is_other = |param: &Param| !own.contains(&param.key.name);
        plan.params
            .extend(parts.params.into_iter().filter(is_other));
        let mut axes = parts.axes;
        axes.values
            .retain(|(key, _)| !plan.axes.values.iter().any(|(k, _)| k.name == key.name));
        add_axes(&mut plan.axes, axes);
        add_missing(&mut plan.resources, parts.resources);
        add_missing(&mut plan.secrets, parts.secrets);
        add_variants(&mut plan.variants, parts.variants);
        plan.broken_params.extend(parts.broken_params);
        let own = std::mem::replace(&mut plan.nodes, parts.nodes);
        plan.nodes.extend(own);
        plan
    }

    /// Whether nobody declared it before; otherwise that is a problem that names both places.
    fn is_new(&mut self, known: &[Key], key: &Key, what: &str) -> bool {
        let Some(other) = known.iter().find(|k| k.name == key.name) else {
            return true;
        };
        let place = self.workshop.sources.line_of(&other.place);
        let message = format!("{what} `{}` is declared here and in {place}", key.name);
        let help = match what {
            "fragment" => "give one of them another name",
            _ => "declare it in the file that includes both: what it says itself wins",
        };
        let problem = Problem::at(&key.place, message, "declared again");
        self.workshop.problems.push(problem.help(help));
        false
    }
}

fn add_axes(all: &mut AxesDecl, part: AxesDecl) {
    all.values.extend(part.values);
    all.from.extend(part.from);
    all.zip.extend(part.zip);
    all.exclude.extend(part.exclude);
    all.include.extend(part.include);
}

fn add_missing(own: &mut Table, part: Table) {
    for (key, value) in part.entries {
        if own.get(&key.name).is_none() {
            own.entries.push((key, value));
        }
    }
}

/// Joins variants by name; a parameter that was set already stays as it is.
fn add_variants(all: &mut Vec<Variant>, part: Vec<Variant>) {
    for variant in part {
        match all.iter_mut().find(|v| v.key.name == variant.key.name) {
            Some(own) => add_missing(&mut own.params, variant.params),
            None => all.push(variant),
        }
    }
}
