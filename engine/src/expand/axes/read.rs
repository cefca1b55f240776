//! Reads the axes of a plan; every mistake in them is a problem.

use super::{Axes, Column, Placed, Same, axis_value, csv};
use crate::compose::files::{Files, searched_help};
use crate::interpolate::{self, Scope};
use crate::plan::AxesDecl;
use crate::problem::{Problem, Problems, did_you_mean};
use crate::source::{Place, Sources};
use crate::step::AxisValue;
use crate::value::{Kind, Table, Value};
use std::collections::HashSet;

/// Up to here every integer is a number of its own when numbers compare by value.
const EXACT: u64 = 1 << 53;

/// Reads the axes of a plan; what is wrong with them goes to `problems`.
pub(in crate::expand) fn read(
    decl: &AxesDecl,
    scope: &Scope,
    files: &Files,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Axes {
    let mut reader = Reader {
        scope,
        files,
        sources,
        problems,
        axes: Written::default(),
    };
    reader.values(decl);
    for named in &decl.from {
        reader.from(named);
    }
    for (place, names) in &decl.zip {
        reader.zip(place, names);
    }
    reader.order(decl);
    for (place, rule) in &decl.exclude {
        reader.exclude(place, rule);
    }
    for (place, rule) in &decl.include {
        reader.include(place, rule);
    }
    let axes = reader.axes;
    Axes::new(&axes.names, &axes.units, &axes.exclude, &axes.include)
}

/// Axes as they are written.
#[derive(Default)]
struct Written {
    names: Vec<String>,
    units: Vec<Column>,
    exclude: Vec<Table>,
    include: Vec<Table>,
}

struct Reader<'a> {
    scope: &'a Scope,
    files: &'a Files,
    sources: &'a mut Sources,
    problems: &'a mut Problems,
    axes: Written,
}

impl Reader<'_> {
    fn values(&mut self, decl: &AxesDecl) {
        for (key, value) in &decl.values {
            let value = interpolate::value(value, self.scope, self.sources, self.problems);
            let rows = match value.kind {
                Kind::List(list) if !list.is_empty() => {
                    let values = self.plain_values(&key.name, &list);
                    // Of axes that vary together only whole rows have to differ.
                    let varies_with = |(_, names): &(Place, Vec<(String, Place)>)| {
                        names.iter().any(|(name, _)| *name == key.name)
                    };
                    if !decl.zip.iter().any(varies_with) {
                        self.check_repeats(&key.name, &values);
                    }
                    list.into_iter().map(|v| vec![v]).collect()
                }
                Kind::Template(pieces) if pieces.is_empty() => Vec::new(),
                _ => {
                    let message =
                        format!("axis `{}` needs a list with at least one value", key.name);
                    self.problems.push(
                        Problem::at(&value.place, message, "not such a list")
                            .help("write `[1, 2, 4]` or `\"${params.NAME}\"`"),
                    );
                    Vec::new()
                }
            };
            self.axes.units.push(Column {
                names: vec![key.name.clone()],
                rows,
            });
        }
    }

    /// Axes of which each row of a file is one combination.
    fn from(&mut self, named: &Value) {
        let value = interpolate::value(named, self.scope, self.sources, self.problems);
        let Kind::Text(wanted) = &value.kind else {
            if !matches!(&value.kind, Kind::Template(p) if p.is_empty()) {
                let message = format!("expected a path, found {}", value.type_name());
                let problem = Problem::at(&value.place, message, "not a path");
                self.problems
                    .push(problem.help("write `from = \"grid.csv\"`"));
            }
            return;
        };
        let from = self.sources.folder_of(&value.place);
        let path = match self.files.find(from, wanted) {
            Ok(path) => path,
            Err(searched) => {
                let message = format!("there is no file `{wanted}`");
                let problem = Problem::at(&value.place, message, "not found");
                self.problems.push(problem.help(searched_help(&searched)));
                return;
            }
        };
        match self.files.read(&path) {
            Ok(text) => {
                let id = self.sources.add(&path, text);
                if let Some(grid) = csv::read(id, &self.sources.get(id).text, self.problems) {
                    self.grid(grid);
                }
            }
            Err(error) => {
                let message = format!("could not read `{}`: {error}", path.display());
                self.problems
                    .push(Problem::at(&value.place, message, "named here"));
            }
        }
    }

    fn grid(&mut self, grid: csv::Grid) {
        let is_known = |name: &str| {
            self.axes
                .units
                .iter()
                .any(|u| u.names.iter().any(|n| n == name))
        };
        if let Some((name, place)) = grid.names.iter().find(|(name, _)| is_known(name)) {
            let message = format!("axis `{name}` is declared already");
            let problem = Problem::at(place, message, "the same axis again");
            self.problems
                .push(problem.help("remove the column, or the axis from the plan"));
            return;
        }
        let names = grid.names.into_iter().map(|(name, _)| name).collect();
        self.push_together(names, grid.rows);
    }

    fn zip(&mut self, place: &Place, names: &[(String, Place)]) {
        let alone: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
        if names.len() < 2 {
            let problem = Problem::at(place, "`zip` needs at least two axes", "too few");
            self.problems
                .push(problem.help("write `zip = [[\"a\", \"b\"]]`"));
            return;
        }
        let mut columns: Vec<Vec<Value>> = Vec::new();
        for (i, (name, place)) in names.iter().enumerate() {
            match self.axes.units.iter().find(|u| u.names.contains(name)) {
                Some(unit) if unit.names.len() == 1 && !alone[..i].contains(name) => {
                    columns.push(unit.rows.iter().flatten().cloned().collect());
                }
                Some(_) => {
                    let message = format!("axis `{name}` varies together with others already");
                    let problem = Problem::at(place, message, "named again");
                    self.problems
                        .push(problem.help("name each axis once, in one group"));
                    return;
                }
                None => return self.unknown_axis(name, place),
            }
        }
        let length = columns[0].len();
        if let Some(i) = columns.iter().position(|c| c.len() != length) {
            let message = format!(
                "axes that vary together need equally many values: `{}` has {length}, `{}` has {}",
                alone[0],
                alone[i],
                columns[i].len()
            );
            // One without values is a problem already.
            if columns.iter().all(|c| !c.is_empty()) {
                let problem = Problem::at(place, message, "of different lengths");
                self.problems
                    .push(problem.help("give each value of one its value of the other"));
            }
            return;
        }
        self.axes.units.retain(|u| !alone.contains(&u.names[0]));
        let rows = (0..length).map(|r| {
            let row: Vec<Value> = columns.iter().map(|column| column[r].clone()).collect();
            (row[0].place.clone(), row)
        });
        self.push_together(alone, rows.collect());
    }

    fn push_together(&mut self, names: Vec<String>, rows: Vec<Placed>) {
        let mut seen = HashSet::new();
        for (place, row) in &rows {
            let values = row.iter().map(axis_value);
            let same: Vec<_> = values.map(|v| v.as_ref().map(Same::of)).collect();
            if !seen.insert(same) {
                let message = "this combination of values is there twice";
                let problem = Problem::at(place, message, "the same again");
                self.problems
                    .push(problem.help("remove one; ask for more samples instead"));
            }
        }
        self.axes.units.push(Column {
            names,
            rows: rows.into_iter().map(|(_, row)| row).collect(),
        });
    }

    /// Brings axes into the order in which they are written; those of files come last.
    fn order(&mut self, decl: &AxesDecl) {
        let written: Vec<&String> = decl.values.iter().map(|(key, _)| &key.name).collect();
        let position = |name: &String| written.iter().position(|w| *w == name);
        let first = |unit: &Column| {
            let positions = unit.names.iter().filter_map(position);
            positions.min().unwrap_or(usize::MAX)
        };
        self.axes.units.sort_by_key(first);
        let names = self.axes.units.iter().flat_map(|u| u.names.clone());
        let mut names: Vec<String> = names.collect();
        names.sort_by_key(|name| position(name).unwrap_or(usize::MAX));
        self.axes.names = names;
    }

    fn exclude(&mut self, place: &Place, table: &Table) {
        let rule = interpolate::table(table, self.scope, self.sources, self.problems);
        self.check_rule(place, &rule, "this excludes every combination");
        self.check_excluded(&rule);
        // Without any instance nothing else could be found wrong.
        if !rule.entries.is_empty() {
            self.axes.exclude.push(rule);
        }
    }

    fn include(&mut self, place: &Place, table: &Table) {
        let rule = interpolate::table(table, self.scope, self.sources, self.problems);
        self.check_rule(place, &rule, "this includes nothing");
        let values = rule.entries.iter();
        let is_plain = values.map(|(key, value)| self.check_plain(&key.name, value).is_some());
        // Counted, so that every one of them is looked at.
        if is_plain.filter(|plain| !plain).count() > 0 {
            return;
        }
        for unit in &self.axes.units {
            let (named, open): (Vec<&String>, Vec<&String>) =
                unit.names.iter().partition(|n| rule.get(n).is_some());
            if let ([name, ..], [missing, ..]) = (named.as_slice(), open.as_slice()) {
                let message = format!("`{name}` and `{missing}` vary together");
                let problem = Problem::at(place, message, format!("without `{missing}`"));
                self.problems
                    .push(problem.help(format!("add `{missing} = …` to this combination")));
            }
        }
        self.axes.include.push(rule);
    }

    /// A rule that names nothing says nothing, and neither does one of unknown axes.
    fn check_rule(&mut self, place: &Place, rule: &Table, empty: &str) {
        if rule.entries.is_empty() {
            let problem = Problem::at(place, empty, "no axis");
            self.problems
                .push(problem.help("name axes and values: `{ axis = value }`"));
        }
        for (key, _) in &rule.entries {
            if !self.axes.names.contains(&key.name) {
                self.unknown_axis(&key.name, &key.place);
            }
        }
    }

    fn unknown_axis(&mut self, name: &str, place: &Place) {
        let known = self.axes.units.iter().flat_map(|u| &u.names);
        let help = did_you_mean(name, known.map(String::as_str));
        let message = format!("there is no axis `{name}`");
        self.problems
            .push(Problem::at(place, message, "unknown axis").help(help));
    }

    fn check_excluded(&mut self, rule: &Table) {
        for (key, value) in &rule.entries {
            let values = self.axes.units.iter().find_map(|u| u.values_of(&key.name));
            let Some(values) = values else {
                continue;
            };
            // Another value may be one of another variant; another type never matches.
            let kind = |v: &Value| axis_value(v).map(|v| std::mem::discriminant(&v));
            if !values.iter().any(|v| kind(v) == kind(value)) {
                let message = format!("axis `{}` has no value {}", key.name, value.to_line());
                let known: Vec<String> = values.iter().map(|v| v.to_line()).collect();
                let problem = Problem::at(&value.place, message, "excludes nothing");
                self.problems
                    .push(problem.help(format!("known: {}", known.join(", "))));
            }
        }
    }

    fn plain_values(&mut self, name: &str, list: &[Value]) -> Vec<(Place, AxisValue)> {
        let plain = |value: &Value| Some((value.place.clone(), self.check_plain(name, value)?));
        list.iter().filter_map(plain).collect()
    }

    fn check_repeats(&mut self, name: &str, values: &[(Place, AxisValue)]) {
        let mut seen: HashSet<Same> = HashSet::new();
        for (place, value) in values {
            if !seen.insert(Same::of(value)) {
                let message = format!("axis `{name}` has the value {value} twice");
                self.problems.push(Problem::at(place, message, "the same again").help("numbers compare by value: `4` and `4.0` are one value; ask for more samples instead"));
            }
        }
    }

    fn check_plain(&mut self, name: &str, value: &Value) -> Option<AxisValue> {
        let plain = axis_value(value);
        if let Kind::Int(i) = value.kind
            && i.unsigned_abs() > EXACT
        {
            let message = format!("axis `{name}` cannot tell {i} from its neighbours");
            let problem = Problem::at(&value.place, message, "beyond 2^53");
            let help = format!("write it as text: `\"{i}\"`");
            self.problems.push(problem.help(help));
            return None;
        }
        if plain.is_none() {
            let message = format!(
                "axis `{name}` takes numbers, booleans and strings, found {}",
                value.type_name()
            );
            self.problems
                .push(Problem::at(&value.place, message, "not a plain value"));
        }
        plain
    }
}

impl Column {
    fn values_of(&self, name: &str) -> Option<Vec<&Value>> {
        let at = self.names.iter().position(|n| n == name)?;
        Some(self.rows.iter().map(|row| &row[at]).collect())
    }
}
