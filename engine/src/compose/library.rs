//! The folders of fragments: `library/` and `plans/library/` beside a plan and above.

use super::files::{Files, normal, upwards};
use crate::plan::{Fragment, LIBRARY, NodeSort, Plan};
use crate::problem::Problems;
use crate::source::Sources;
use crate::value::{Kind, Table, Value, parse};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How the names of lock files end.
const LOCK_FILE: &str = ".lock.toml";

/// What is said of a fragment to those who look for one.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct FragmentDoc {
    /// Its name, with `library.` before it.
    pub name: String,
    /// What it is for.
    pub doc: String,
    /// Its parameters in order.
    pub params: Vec<ParamDoc>,
    /// The file that declares it.
    pub file: PathBuf,
    /// The steps and services that it brings, in order.
    pub parts: Vec<PartDoc>,
}

/// What is said of a step or service that a fragment brings.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PartDoc {
    /// `step` or `service`.
    pub sort: &'static str,
    /// Its name below that of the step that uses the fragment.
    pub name: String,
    /// What it uses.
    pub uses: String,
}

/// What is said of a parameter of a fragment.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ParamDoc {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_name: String,
    /// The value when none is given; `None` if one must be, unless it is optional.
    pub default: Option<String>,
    /// Whether the fragment can do without it.
    pub optional: bool,
    /// Its unit.
    pub unit: Option<String>,
    /// What it means.
    pub doc: String,
    /// The options that are set to it alone: what a part uses, and the name of the option.
    #[serde(skip)]
    pub sets: Vec<(String, String)>,
}

/// Lists the fragments that a plan in `folder` can use, those nearest to it first. Files that are
/// no sound TOML are left out: whoever uses one is told why.
pub fn fragments(folder: &Path) -> Vec<FragmentDoc> {
    let files = Files::new(&folder.join("plan.toml"), &[]);
    let mut found: Vec<FragmentDoc> = Vec::new();
    for path in shelf(&files) {
        let shelved = peek(&path, &files);
        for fragment in shelved.fragments.into_iter().filter(|_| shelved.is_toml) {
            let doc = document(&fragment, &path);
            if !found.iter().any(|f| f.name == doc.name) {
                found.push(doc);
            }
        }
    }
    found
}

/// Lists the files in which fragments are looked for, in order.
pub(super) fn shelf(files: &Files) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = files.kept().map(Path::to_path_buf).collect();
    let mut seen: BTreeSet<PathBuf> = found.iter().cloned().collect();
    for folder in upwards(files.folder()) {
        for library in [folder.join("library"), folder.join("plans/library")] {
            let new = toml_files(&library).into_iter();
            found.extend(new.filter(|path| seen.insert(normal(path))));
        }
    }
    found
}

fn toml_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| is_shelved(path) && path.is_file())
        .collect();
    found.sort();
    found
}

/// Whether a file of such a folder can have fragments; lock files of plans have none.
fn is_shelved(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.ends_with(".toml") && !name.ends_with(LOCK_FILE))
}

/// What a file of the library holds.
#[derive(Default)]
pub(super) struct Shelved {
    pub(super) fragments: Vec<Fragment>,
    /// Whether all of it could be read.
    is_toml: bool,
}

/// Reads the fragments of a file without keeping it as a source.
pub(super) fn peek(path: &Path, files: &Files) -> Shelved {
    let Ok(text) = files.read(path) else {
        return Shelved::default();
    };
    let (mut sources, mut problems) = (Sources::default(), Problems::default());
    let source = sources.add(path, text);
    let root = parse(&sources, source, &mut problems);
    let is_toml = problems.is_empty();
    let fragments = only_fragments(&root);
    Shelved {
        fragments: Plan::read_part(&fragments, &mut problems).fragments,
        is_toml,
    }
}

/// Keeps nothing of a file but its fragments.
pub(super) fn only_fragments(root: &Table) -> Table {
    let entries = root.entries.iter();
    Table {
        entries: entries
            .filter(|(key, _)| key.name == "fragment")
            .cloned()
            .collect(),
    }
}

fn document(fragment: &Fragment, path: &Path) -> FragmentDoc {
    let nodes = nodes(&fragment.body);
    let param = |param: &crate::plan::Param| ParamDoc {
        name: param.key.name.clone(),
        type_name: param.kind.to_string(),
        default: param.default.as_ref().map(|v| v.to_line()),
        optional: param.optional,
        unit: param.unit.clone(),
        doc: param.doc.clone().unwrap_or_default(),
        sets: sets(&nodes, &param.key.name),
    };
    FragmentDoc {
        name: format!("{LIBRARY}{}", fragment.key.name),
        doc: fragment.doc.clone(),
        params: fragment.params.iter().map(param).collect(),
        file: path.to_owned(),
        parts: nodes.iter().map(|(part, _)| part.clone()).collect(),
    }
}

/// Lists the steps and services of a fragment that say what they use, with their tables.
fn nodes(body: &Table) -> Vec<(PartDoc, &Table)> {
    let mut found = Vec::new();
    for sort in [NodeSort::Service, NodeSort::Step] {
        let nodes = body.get(sort.section()).and_then(table);
        for (key, value) in nodes.map_or(&[][..], |nodes| &nodes.entries) {
            let Some(node) = table(value) else { continue };
            if let Some(Kind::Text(uses)) = node.get("use").map(|v| &v.kind) {
                let part = PartDoc {
                    sort: sort.word(),
                    name: key.name.clone(),
                    uses: uses.clone(),
                };
                found.push((part, node));
            }
        }
    }
    found
}

/// Finds the options that are set to a parameter and nothing else.
fn sets(nodes: &[(PartDoc, &Table)], param: &str) -> Vec<(String, String)> {
    let reference = format!("${{params.{param}}}");
    let is_it = |value: &Value| matches!(&value.kind, Kind::Text(text) if *text == reference);
    let of = |(part, node): &(PartDoc, &Table)| -> Vec<(String, String)> {
        let with = node.get("with").and_then(table);
        let options = with.map_or(&[][..], |with| &with.entries).iter();
        options
            .filter(|(_, value)| is_it(value))
            .map(|(key, _)| (part.uses.clone(), key.name.clone()))
            .collect()
    };
    nodes.iter().flat_map(of).collect()
}

fn table(value: &Value) -> Option<&Table> {
    match &value.kind {
        Kind::Table(table) => Some(table),
        _ => None,
    }
}
