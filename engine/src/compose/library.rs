//! The folders of fragments: `library/` and `plans/library/` beside a plan and above.

use super::files::{Files, normal, upwards};
use crate::plan::{Fragment, Plan};
use crate::problem::Problems;
use crate::source::Sources;
use crate::value::{Kind, Table, parse};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
    /// What it brings: `step load: load.test`.
    pub parts: Vec<String>,
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
        .filter(|p| p.extension().is_some_and(|e| e == "toml") && p.is_file())
        .collect();
    found.sort();
    found
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
    let param = |param: &crate::plan::Param| ParamDoc {
        name: param.key.name.clone(),
        type_name: param.kind.to_string(),
        default: param.default.as_ref().map(|v| v.to_line()),
        optional: param.optional,
        unit: param.unit.clone(),
        doc: param.doc.clone().unwrap_or_default(),
    };
    FragmentDoc {
        name: format!("{}{}", crate::plan::LIBRARY, fragment.key.name),
        doc: fragment.doc.clone(),
        params: fragment.params.iter().map(param).collect(),
        file: path.to_owned(),
        parts: parts(&fragment.body),
    }
}

fn parts(body: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for (section, word) in [("services", "service"), ("steps", "step")] {
        let Some(Kind::Table(nodes)) = body.get(section).map(|v| &v.kind) else {
            continue;
        };
        for (key, value) in &nodes.entries {
            let uses = match &value.kind {
                Kind::Table(node) => node.get("use").map(|v| &v.kind),
                _ => None,
            };
            if let Some(Kind::Text(uses)) = uses {
                found.push(format!("{word} {}: {uses}", key.name));
            }
        }
    }
    found
}
