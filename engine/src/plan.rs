//! A plan exactly as it is written: names, places and values, nothing resolved.
//!
//! Reading finds unknown keys and wrong types; what the names mean is decided later, in
//! [`expand`](crate::expand).

use crate::problem::{Problem, Problems, did_you_mean};
use crate::source::{Place, SourceId};
use crate::value::{Key, Kind, Table, Value};

/// A plan as written.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name: part of run names and of the folders of results.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Parameters in order.
    pub params: Vec<Param>,
    /// Names of parameters that could not be read, which is a problem already.
    pub broken_params: Vec<String>,
    /// Variants in order.
    pub variants: Vec<Variant>,
    /// Axes in order; the first varies slowest.
    pub axes: Vec<(Key, Value)>,
    /// Combinations of axis values that are left out.
    pub exclude: Vec<(Place, Table)>,
    /// Steps and services in order.
    pub nodes: Vec<NodeDecl>,
}

/// A parameter.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its name.
    pub key: Key,
    /// Its type.
    pub kind: ParamKind,
    /// The value when none is set.
    pub default: Value,
    /// The smallest number allowed.
    pub min: Option<f64>,
    /// The largest number allowed.
    pub max: Option<f64>,
    /// Its unit.
    pub unit: Option<String>,
    /// What it means.
    pub doc: Option<String>,
}

/// The type of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParamKind {
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// `true` or `false`.
    Bool,
    /// Text.
    Text,
    /// Values of one type.
    List(Box<ParamKind>),
}

impl ParamKind {
    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "int" => Self::Int,
            "float" => Self::Float,
            "bool" => Self::Bool,
            "string" => Self::Text,
            _ => Self::List(Box::new(Self::read(
                text.strip_prefix("list<")?.strip_suffix('>')?,
            )?)),
        })
    }

    /// Whether `value` is of this type.
    pub fn accepts(&self, value: &Value) -> bool {
        match (self, &value.kind) {
            (Self::Int, Kind::Int(_)) | (Self::Float, Kind::Int(_) | Kind::Float(_)) => true,
            (Self::Bool, Kind::Bool(_)) | (Self::Text, Kind::Text(_)) => true,
            (Self::List(inner), Kind::List(list)) => list.iter().all(|v| inner.accepts(v)),
            _ => false,
        }
    }
}

impl std::fmt::Display for ParamKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float"),
            Self::Bool => f.write_str("bool"),
            Self::Text => f.write_str("string"),
            Self::List(inner) => write!(f, "list<{inner}>"),
        }
    }
}

/// Other defaults under a name.
#[derive(Debug, Clone)]
pub struct Variant {
    /// Its name.
    pub key: Key,
    /// Parameters and their values.
    pub params: Table,
}

/// Whether a declaration is a step or a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeSort {
    /// `[steps.NAME]`
    Step,
    /// `[services.NAME]`
    Service,
}

/// A step or a service as written.
#[derive(Debug, Clone)]
pub struct NodeDecl {
    /// Which.
    pub sort: NodeSort,
    /// Its name.
    pub key: Key,
    /// The kind of step or service; `None` if that could not be read, which is a problem already.
    pub uses: Option<(String, Place)>,
    /// Its options.
    pub with: Table,
    /// Where the options stand, or would.
    pub with_place: Place,
    /// Axes that it varies over, besides those it inherits.
    pub axes: Vec<(String, Place)>,
    /// Steps that come before it.
    pub after: Vec<(String, Place)>,
    /// `samples`, for measurements.
    pub samples: Option<SettingsDecl>,
    /// `timeout`, for steps.
    pub timeout: Option<SettingsDecl>,
    /// `ready`, for services.
    pub ready: Option<SettingsDecl>,
    /// `liveness`, for services.
    pub liveness: Option<SettingsDecl>,
}

/// A table of settings, before references in it are resolved.
#[derive(Debug, Clone)]
pub struct SettingsDecl {
    /// The settings.
    pub table: Table,
    /// Where they stand.
    pub place: Place,
}

impl Plan {
    /// Reads a plan from `root`, the parsed text of `source`.
    pub fn read(source: SourceId, root: &Table, problems: &mut Problems) -> Self {
        let mut reader = Reader {
            problems,
            what: "a plan".to_owned(),
            place: Place::new(source, 0..0),
        };
        reader.only(
            root,
            &[
                "schema",
                "name",
                "description",
                "params",
                "variant",
                "axes",
                "steps",
                "services",
            ],
        );
        reader.schema(root);
        let axes = reader.table(root, "axes").unwrap_or_default();
        let mut nodes = reader.nodes(root, "services", NodeSort::Service);
        nodes.extend(reader.nodes(root, "steps", NodeSort::Step));
        nodes.sort_by_key(|n| n.key.place.span.start);
        if nodes.is_empty() {
            reader.problems.push(
                Problem::whole("the plan has no steps")
                    .help("add one: `[steps.NAME]` with `use = \"…\"`"),
            );
        }
        reader.check_distinct(&nodes);
        let params = reader.params(root);
        Self {
            name: reader
                .text(root, "name")
                .unwrap_or_else(|| "plan".to_owned()),
            description: reader.text(root, "description").unwrap_or_default(),
            broken_params: reader.broken_params(root, &params),
            params,
            variants: reader.variants(root),
            exclude: reader.exclude(&axes),
            axes: axes
                .entries
                .into_iter()
                .filter(|(k, _)| k.name != "exclude")
                .collect(),
            nodes,
        }
    }
}

struct Reader<'a> {
    problems: &'a mut Problems,
    what: String,
    place: Place,
}

impl Reader<'_> {
    fn only(&mut self, table: &Table, known: &[&str]) {
        for (key, _) in &table.entries {
            if !known.contains(&key.name.as_str()) {
                let message = format!("{} has no key `{}`", self.what, key.name);
                let help = did_you_mean(&key.name, known.iter().copied());
                self.problems
                    .push(Problem::at(&key.place, message, "unknown key").help(help));
            }
        }
    }

    fn wrong<T>(&mut self, value: &Value, expected: &str) -> Option<T> {
        let message = format!("expected {expected}, found {}", value.type_name());
        self.problems.push(Problem::at(
            &value.place,
            message,
            format!("this is {}", value.type_name()),
        ));
        None
    }

    fn text(&mut self, table: &Table, name: &str) -> Option<String> {
        let value = table.get(name)?;
        match &value.kind {
            Kind::Text(t) => Some(t.clone()),
            _ => self.wrong(value, "a string"),
        }
    }

    fn table(&mut self, table: &Table, name: &str) -> Option<Table> {
        let value = table.get(name)?;
        match &value.kind {
            Kind::Table(t) => Some(t.clone()),
            _ => self.wrong(value, "a table"),
        }
    }

    fn tables(&mut self, table: &Table, name: &str) -> Vec<(Key, Table, Place)> {
        let all = self.table(table, name).unwrap_or_default();
        let mut found = Vec::new();
        for (key, value) in all.entries {
            match value.kind {
                Kind::Table(inner) => found.push((key, inner, value.place)),
                _ => {
                    self.wrong::<()>(&value, "a table");
                }
            }
        }
        found
    }

    fn number(&mut self, table: &Table, name: &str) -> Option<f64> {
        let value = table.get(name)?;
        match value.kind {
            #[expect(
                clippy::cast_precision_loss,
                reason = "limits in plans are far below 2^53"
            )]
            Kind::Int(i) => Some(i as f64),
            Kind::Float(f) => Some(f),
            _ => self.wrong(value, "a number"),
        }
    }

    fn names(&mut self, table: &Table, name: &str) -> Vec<(String, Place)> {
        let Some(value) = table.get(name) else {
            return Vec::new();
        };
        let Kind::List(list) = &value.kind else {
            self.wrong::<()>(value, "a list of names");
            return Vec::new();
        };
        let mut names = Vec::new();
        for item in list {
            match &item.kind {
                Kind::Text(t) => names.push((t.clone(), item.place.clone())),
                _ => {
                    self.wrong::<()>(item, "a name");
                }
            }
        }
        names
    }

    fn schema(&mut self, root: &Table) {
        match root.get("schema") {
            Some(Value {
                kind: Kind::Int(1), ..
            }) => {}
            Some(value) => {
                let message = format!(
                    "this is schema {}, and only schema 1 is known",
                    value.to_line()
                );
                self.problems.push(
                    Problem::at(&value.place, message, "unknown schema").help("write `schema = 1`"),
                );
            }
            None => {
                let problem = Problem::at(
                    &self.place,
                    "the plan does not say which schema it follows",
                    "`schema` is missing",
                );
                self.problems.push(problem.help("begin with `schema = 1`"));
            }
        }
    }

    fn params(&mut self, root: &Table) -> Vec<Param> {
        let tables = self.tables(root, "params");
        tables
            .into_iter()
            .filter_map(|(key, table, place)| self.param(key, &table, &place))
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

    /// A step and a service of one name could not be told apart in results.
    fn check_distinct(&mut self, nodes: &[NodeDecl]) {
        for (i, node) in nodes.iter().enumerate() {
            if nodes[..i]
                .iter()
                .any(|other| other.key.name == node.key.name)
            {
                let message = format!("a step and a service are both called `{}`", node.key.name);
                let problem = Problem::at(&node.key.place, message, "the same name again");
                self.problems
                    .push(problem.help("give one of them another name"));
            }
        }
    }

    fn param(&mut self, key: Key, table: &Table, place: &Place) -> Option<Param> {
        self.what = format!("parameter `{}`", key.name);
        self.only(table, &["type", "default", "min", "max", "unit", "doc"]);
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
        let Some(kind) = ParamKind::read(&type_text) else {
            let at = table.get("type").map_or(place, |v| &v.place);
            let problem = Problem::at(at, format!("`{type_text}` is not a type"), "unknown type");
            self.problems.push(
                problem.help("known: `int`, `float`, `bool`, `string`, and `list<…>` of them"),
            );
            return None;
        };
        let Some(default) = table.get("default").cloned() else {
            let problem = Problem::at(
                place,
                format!("{} has no default", self.what),
                "`default` is missing",
            );
            self.problems
                .push(problem.help("every parameter has a default, so that a plan runs as it is"));
            return None;
        };
        Some(Param {
            min: self.number(table, "min"),
            max: self.number(table, "max"),
            unit: self.text(table, "unit"),
            doc: self.text(table, "doc"),
            key,
            kind,
            default,
        })
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

    fn exclude(&mut self, axes: &Table) -> Vec<(Place, Table)> {
        let Some(value) = axes.get("exclude") else {
            return Vec::new();
        };
        let Kind::List(list) = &value.kind else {
            self.wrong::<()>(value, "a list of tables");
            return Vec::new();
        };
        let mut found = Vec::new();
        for item in list {
            match &item.kind {
                Kind::Table(t) => found.push((item.place.clone(), t.clone())),
                _ => {
                    self.wrong::<()>(item, "a table such as `{ axis = value }`");
                }
            }
        }
        found
    }

    fn nodes(&mut self, root: &Table, section: &str, sort: NodeSort) -> Vec<NodeDecl> {
        let tables = self.tables(root, section);
        tables
            .into_iter()
            .map(|(key, table, _)| self.node(key, &table, sort))
            .collect()
    }

    fn node(&mut self, key: Key, table: &Table, sort: NodeSort) -> NodeDecl {
        self.what = match sort {
            NodeSort::Step => format!("step `{}`", key.name),
            NodeSort::Service => format!("service `{}`", key.name),
        };
        match sort {
            NodeSort::Step => self.only(
                table,
                &["use", "with", "axes", "after", "samples", "timeout"],
            ),
            NodeSort::Service => self.only(table, &["use", "with", "axes", "ready", "liveness"]),
        }
        self.check_name(&key);
        let uses = self.uses(&key, table);
        let stands = uses.as_ref().map_or(&key.place, |(_, place)| place);
        let with_place = table.get("with").map_or(stands, |v| &v.place).clone();
        NodeDecl {
            sort,
            with: self.table(table, "with").unwrap_or_default(),
            with_place,
            uses,
            axes: self.names(table, "axes"),
            after: self.names(table, "after"),
            samples: self.settings(table, "samples"),
            timeout: self.settings(table, "timeout"),
            ready: self.settings(table, "ready"),
            liveness: self.settings(table, "liveness"),
            key,
        }
    }

    fn uses(&mut self, key: &Key, table: &Table) -> Option<(String, Place)> {
        let Some(uses) = table.get("use") else {
            let message = format!("{} does not say what it uses", self.what);
            let problem = Problem::at(&key.place, message, "`use` is missing");
            self.problems
                .push(problem.help("add `use = \"…\"`; `benchwright steps` lists what there is"));
            return None;
        };
        Some((self.text(table, "use")?, uses.place.clone()))
    }

    fn settings(&mut self, table: &Table, name: &str) -> Option<SettingsDecl> {
        let place = table.get(name)?.place.clone();
        Some(SettingsDecl {
            table: self.table(table, name)?,
            place,
        })
    }

    fn check_name(&mut self, key: &Key) {
        let sound = key
            .name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !sound || key.name.is_empty() {
            let problem = Problem::at(
                &key.place,
                format!("`{}` cannot be a name", key.name),
                "not a name",
            );
            self.problems
                .push(problem.help("use letters, digits, `_` and `-`"));
        }
    }
}
