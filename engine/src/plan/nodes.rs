//! Steps and services as written: which keys they have, and of which types those are.

use super::reader::Reader;
use super::{LIBRARY, NodeDecl, NodeSort};
use crate::problem::{Problem, Problems};
use crate::source::Place;
use crate::value::{Key, Kind, Table, Value};

/// Keys of steps that are kept as settings.
const STEP_SETTINGS: &[&str] = &["samples", "timeout", "retry", "on_failure", "resources"];
/// Keys of services that are kept as settings.
const SERVICE_SETTINGS: &[&str] = &["ready", "liveness", "restarts", "resources"];
/// Keys that both have.
const COMMON: &[&str] = &["use", "with", "axes", "when", "overlays", "unset"];
/// Keys of a step that uses a fragment.
const FRAGMENT_USE: &[&str] = &["use", "with", "axes", "after", "when"];

/// Reads the steps and services in the sections of `root`, in the order in which they stand.
pub(crate) fn read_nodes(root: &Table, problems: &mut Problems) -> Vec<NodeDecl> {
    let mut reader = Reader::new(problems, "a plan");
    let mut nodes = Vec::new();
    for sort in [NodeSort::Service, NodeSort::Step] {
        for (key, table, _) in reader.tables(root, sort.section()) {
            nodes.push(reader.node(key, &table, sort));
        }
    }
    nodes.sort_by_key(|n| n.key.place.span.start);
    nodes
}

fn known_keys(table: &Table, sort: NodeSort) -> Vec<&'static str> {
    let uses_fragment = matches!(
        table.get("use").map(|v| &v.kind),
        Some(Kind::Text(uses)) if uses.starts_with(LIBRARY)
    );
    match sort {
        NodeSort::Step if uses_fragment => FRAGMENT_USE.to_vec(),
        NodeSort::Step => [&["after"], COMMON, STEP_SETTINGS].concat(),
        NodeSort::Service => [COMMON, SERVICE_SETTINGS].concat(),
    }
}

impl Reader<'_> {
    fn node(&mut self, key: Key, table: &Table, sort: NodeSort) -> NodeDecl {
        self.what = format!("{} `{}`", sort.word(), key.name);
        self.only(table, &known_keys(table, sort));
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
            when: self.when(table),
            overlays: self.overlays(table),
            unset: self.unset(table),
            settings: settings(table, sort),
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

    fn when(&mut self, table: &Table) -> Vec<Value> {
        let Some(value) = table.get("when") else {
            return Vec::new();
        };
        match &value.kind {
            Kind::Text(_) => vec![value.clone()],
            _ => {
                self.wrong::<()>(value, "an expression such as `\"${axes.NAME} == 4\"`");
                Vec::new()
            }
        }
    }

    fn overlays(&mut self, table: &Table) -> Vec<Value> {
        let list = self.list(table, "overlays", "paths");
        let is_text = |v: &Value| matches!(v.kind, Kind::Text(_));
        for value in list.iter().filter(|v| !is_text(v)) {
            self.wrong::<()>(value, "a path");
        }
        list.into_iter().filter(is_text).collect()
    }

    fn unset(&mut self, table: &Table) -> Vec<(String, Place)> {
        let list = self.list(table, "unset", "keys");
        let mut found = Vec::new();
        for value in &list {
            match &value.kind {
                Kind::Text(path) => found.push((path.clone(), value.place.clone())),
                _ => {
                    self.wrong::<()>(value, "a key of `args` such as `\"tp_size\"`");
                }
            }
        }
        found
    }
}

/// Returns the keys of a step or service that are settings.
pub(crate) fn setting_keys(sort: NodeSort) -> &'static [&'static str] {
    match sort {
        NodeSort::Step => STEP_SETTINGS,
        NodeSort::Service => SERVICE_SETTINGS,
    }
}

fn settings(table: &Table, sort: NodeSort) -> Table {
    let known = setting_keys(sort);
    let entries = table.entries.iter();
    let kept = entries.filter(|(key, _)| known.contains(&key.name.as_str()));
    Table {
        entries: kept.cloned().collect(),
    }
}
