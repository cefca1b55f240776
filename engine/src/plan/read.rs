//! A whole file as written: its sections, its parameters and variants, its axes, its fragments.

use super::nodes::read_nodes;
use super::reader::Reader;
use super::{AxesDecl, Fragment, Param, ParamKind, Plan, Variant};
use crate::problem::{Problem, Problems};
use crate::source::{Place, SourceId};
use crate::value::{Key, Kind, Table, Value};

/// Sections of a plan and of a file that is included.
const SECTIONS: &[&str] = &[
    "schema",
    "name",
    "description",
    "include",
    "params",
    "variant",
    "axes",
    "resources",
    "secrets",
    "steps",
    "services",
    "fragment",
];
/// Keys of `[axes]` that are rules, not axes.
const RULES: &[&str] = &["include", "exclude", "zip", "from"];
/// Sections of a fragment that plans get.
const PARTS: &[&str] = &["axes", "steps", "services"];
/// What the type of a plan's parameter can be.
const PLAIN_TYPES: &str = "known: `int`, `float`, `bool`, `string`, and `list<…>` of them";
/// What the type of a fragment's parameter can be.
const FRAGMENT_TYPES: &str = "known: `int`, `float`, `bool`, `string`, `artifact`, `service`, `samples`, and `list<…>` of them";

impl Plan {
    /// Reads a plan from `root`, the parsed text of `source`.
    pub fn read(source: SourceId, root: &Table, problems: &mut Problems) -> Self {
        if root.get("schema").is_none() {
            let problem = Problem::at(
                &Place::new(source, 0..0),
                "the plan does not say which schema it follows",
                "`schema` is missing",
            );
            problems.push(problem.help("begin with `schema = 1`"));
        }
        Self::read_part(root, problems)
    }

    /// Reads a file that a plan includes: the same sections, all of them optional.
    pub(crate) fn read_part(root: &Table, problems: &mut Problems) -> Self {
        let mut reader = Reader::new(problems, "a plan");
        reader.only(root, SECTIONS);
        reader.schema(root);
        let params = reader.params(root, Params::OfPlan);
        Self {
            name: reader
                .text(root, "name")
                .unwrap_or_else(|| "plan".to_owned()),
            description: reader.text(root, "description").unwrap_or_default(),
            include: reader.names(root, "include"),
            broken_params: reader.broken_params(root, &params),
            params,
            variants: reader.variants(root),
            axes: reader.axes(root),
            resources: reader.table(root, "resources").unwrap_or_default(),
            secrets: reader.table(root, "secrets").unwrap_or_default(),
            fragments: reader.fragments(root),
            nodes: read_nodes(root, reader.problems),
        }
    }
}

/// Reads the axes in `root`.
pub(crate) fn read_axes(root: &Table, problems: &mut Problems) -> AxesDecl {
    Reader::new(problems, "a plan").axes(root)
}

/// Whose parameters are read.
#[derive(Clone, Copy, PartialEq)]
enum Params {
    OfPlan,
    OfFragment,
}

impl Reader<'_> {
    fn schema(&mut self, root: &Table) {
        let Some(value) = root.get("schema") else {
            return;
        };
        if !matches!(value.kind, Kind::Int(1)) {
            let message = format!(
                "this is schema {}, and only schema 1 is known",
                value.to_line()
            );
            self.problems.push(
                Problem::at(&value.place, message, "unknown schema").help("write `schema = 1`"),
            );
        }
    }

    fn params(&mut self, root: &Table, of: Params) -> Vec<Param> {
        let tables = self.tables(root, "params");
        tables
            .into_iter()
            .filter_map(|(key, table, place)| self.param(key, &table, &place, of))
            .collect()
    }

    fn broken_params(&self, root: &Table, read: &[Param]) -> Vec<String> {
        let Some(Kind::Table(all)) = root.get("params").map(|v| &v.kind) else {
            return Vec::new();
        };
        let names = all.entries.iter().map(|(key, _)| &key.name);
        let is_read = |name: &&String| read.iter().any(|p| p.key.name == **name);
        names.filter(|name| !is_read(name)).cloned().collect()
    }

    fn param(&mut self, key: Key, table: &Table, place: &Place, of: Params) -> Option<Param> {
        self.what = format!("parameter `{}`", key.name);
        let known: &[&str] = match of {
            Params::OfPlan => &["type", "default", "min", "max", "unit", "doc"],
            Params::OfFragment => &["type", "default", "optional", "min", "max", "unit", "doc"],
        };
        self.only(table, known);
        let kind = self.param_kind(table, place, of)?;
        let default = table.get("default").cloned();
        if default.is_none() && of == Params::OfPlan {
            let problem = Problem::at(
                place,
                format!("{} has no default", self.what),
                "`default` is missing",
            );
            self.problems
                .push(problem.help("every parameter has a default, so that a plan runs as it is"));
            return None;
        }
        Some(Param {
            min: self.number(table, "min"),
            max: self.number(table, "max"),
            unit: self.text(table, "unit"),
            doc: self.text(table, "doc"),
            optional: of == Params::OfFragment && self.boolean(table, "optional"),
            key,
            kind,
            default,
        })
    }

    fn param_kind(&mut self, table: &Table, place: &Place, of: Params) -> Option<ParamKind> {
        let Some(type_text) = self.text(table, "type") else {
            let problem = Problem::at(
                place,
                format!("{} has no type", self.what),
                "`type` is missing",
            );
            self.problems.push(problem.help(
                "add `type = \"int\"`: `int`, `float`, `bool`, `string` or `list<…>` of them",
            ));
            return None;
        };
        let kind = ParamKind::read(&type_text);
        if let Some(kind) = kind.filter(|kind| of == Params::OfFragment || kind.is_plain()) {
            return Some(kind);
        }
        let at = table.get("type").map_or(place, |v| &v.place);
        let problem = Problem::at(at, format!("`{type_text}` is not a type"), "unknown type");
        let help = match of {
            Params::OfPlan => PLAIN_TYPES,
            Params::OfFragment => FRAGMENT_TYPES,
        };
        self.problems.push(problem.help(help));
        None
    }

    fn variants(&mut self, root: &Table) -> Vec<Variant> {
        let tables = self.tables(root, "variant");
        tables
            .into_iter()
            .map(|(key, table, _)| {
                self.what = format!("variant `{}`", key.name);
                self.only(&table, &["params"]);
                let params = self.table(&table, "params").unwrap_or_default();
                Variant { key, params }
            })
            .collect()
    }

    fn axes(&mut self, root: &Table) -> AxesDecl {
        let axes = self.table(root, "axes").unwrap_or_default();
        let exclude = self.combinations(&axes, "exclude");
        let include = self.combinations(&axes, "include");
        let zip = self.zip(&axes);
        let is_axis = |(key, _): &(Key, Value)| !RULES.contains(&key.name.as_str());
        for (key, _) in axes.entries.iter().filter(|entry| is_axis(entry)) {
            self.check_name(key);
        }
        AxesDecl {
            from: axes.get("from").cloned().into_iter().collect(),
            values: axes.entries.into_iter().filter(is_axis).collect(),
            zip,
            exclude,
            include,
        }
    }

    fn combinations(&mut self, axes: &Table, name: &str) -> Vec<(Place, Table)> {
        let list = self.list(axes, name, "tables");
        let mut found = Vec::new();
        for item in list {
            match item.kind {
                Kind::Table(table) => found.push((item.place, table)),
                _ => {
                    self.wrong::<()>(&item, "a table such as `{ axis = value }`");
                }
            }
        }
        found
    }

    fn zip(&mut self, axes: &Table) -> Vec<(Place, Vec<(String, Place)>)> {
        let list = self.list(axes, "zip", "lists of names");
        let mut found = Vec::new();
        for item in &list {
            let Kind::List(names) = &item.kind else {
                self.wrong::<()>(item, "a list of names such as `[\"a\", \"b\"]`");
                continue;
            };
            let names: Vec<_> = names.iter().filter_map(|name| self.name(name)).collect();
            found.push((item.place.clone(), names));
        }
        found
    }

    fn fragments(&mut self, root: &Table) -> Vec<Fragment> {
        let tables = self.tables(root, "fragment");
        tables
            .into_iter()
            .map(|(key, table, _)| self.fragment(key, &table))
            .collect()
    }

    fn fragment(&mut self, key: Key, table: &Table) -> Fragment {
        self.what = format!("fragment `{}`", key.name);
        self.only(table, &["doc", "params", "axes", "steps", "services"]);
        self.check_name(&key);
        let is_part = |(key, _): &&(Key, Value)| PARTS.contains(&key.name.as_str());
        let parts = table.entries.iter().filter(is_part);
        Fragment {
            doc: self.text(table, "doc").unwrap_or_default(),
            body: Table {
                entries: parts.cloned().collect(),
            },
            params: self.params(table, Params::OfFragment),
            key,
        }
    }
}
