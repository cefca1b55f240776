//! Fragments as entries of the library: their parameters are options, and what their parts bring
//! they bring.

use super::{Brings, Entry, OptionDoc};
use crate::words;
use engine::compose::{FragmentDoc, ParamDoc};
use serde::Serialize;

/// A step or service that a fragment brings.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Part {
    /// `step` or `service`.
    pub(crate) sort: &'static str,
    /// Its name below that of the step that uses the fragment.
    pub(crate) name: String,
    /// What it uses.
    pub(crate) uses: String,
}

/// Adds `fragments` to the entries of the library, by name and after everything else.
pub(crate) fn add_fragments(entries: &mut Vec<Entry>, mut fragments: Vec<FragmentDoc>) {
    fragments.sort_by(|a, b| a.name.cmp(&b.name));
    let n_others = entries.len();
    let names: Vec<String> = fragments.iter().map(|f| f.name.clone()).collect();
    // Fragments of fragments come first, so that what those bring is known; a fragment that is a
    // part of itself is known by no one.
    while !fragments.is_empty() {
        let waits = |fragment: &FragmentDoc| {
            let is_open = |name: &String| !entries.iter().any(|e| e.name == *name);
            let mut uses = fragment.parts.iter().map(|part| &part.uses);
            uses.any(|name| names.contains(name) && is_open(name))
        };
        let Some(at) = fragments.iter().position(|fragment| !waits(fragment)) else {
            break;
        };
        let entry = entry(&fragments.remove(at), entries);
        entries.push(entry);
    }
    entries[n_others..].sort_by(|a, b| a.name.cmp(&b.name));
}

fn entry(fragment: &FragmentDoc, known: &[Entry]) -> Entry {
    let parts = fragment.parts.iter().map(|part| Part {
        sort: part.sort,
        name: part.name.clone(),
        uses: part.uses.clone(),
    });
    Entry {
        name: fragment.name.clone(),
        sort: "fragment",
        kind: "fragment",
        version: None,
        summary: fragment.doc.clone(),
        options: fragment.params.iter().map(|p| option(p, known)).collect(),
        outputs: Vec::new(),
        facts: Vec::new(),
        ready_timeout: None,
        file: Some(words::path(&fragment.file)),
        parts: parts.collect(),
        names: Vec::new(),
        brings: brings(fragment, known),
    }
}

fn option(param: &ParamDoc, known: &[Entry]) -> OptionDoc {
    let none = || param.optional.then(|| "none".to_owned());
    OptionDoc {
        name: param.name.clone(),
        type_name: param.type_name.clone(),
        default: param.default.clone().or_else(none),
        unit: param.unit.clone(),
        doc: param.doc.clone(),
        takes: takes(param, known),
        toml: param.default.clone(),
    }
}

/// What the option takes that is set to the parameter, where the parameter's own type says less.
fn takes(param: &ParamDoc, known: &[Entry]) -> String {
    if !matches!(param.type_name.as_str(), "artifact" | "service" | "samples") {
        return param.type_name.clone();
    }
    let set = param.sets.iter().find_map(|(uses, name)| {
        let entry = known.iter().find(|entry| entry.name == *uses)?;
        let option = entry.options.iter().find(|option| option.name == *name)?;
        Some(option.takes.clone())
    });
    set.unwrap_or_else(|| param.type_name.clone())
}

fn brings(fragment: &FragmentDoc, known: &[Entry]) -> Vec<Brings> {
    let of = |part: &engine::compose::PartDoc| {
        let entry = known.iter().find(|entry| entry.name == part.uses);
        let brings = entry.map_or(&[][..], |entry| &entry.brings).iter();
        brings.map(|b| b.below(&part.name)).collect::<Vec<Brings>>()
    };
    fragment.parts.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn all() -> Vec<Entry> {
        let mut all = super::super::entries(&steps::library());
        let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
        add_fragments(&mut all, engine::compose::fragments(&plans));
        all
    }

    #[test]
    fn parameters_take_what_the_options_take_that_get_them() {
        let all = all();
        let open = all.iter().find(|e| e.name == "library.open_loop");
        let options = &open.expect("a fragment").options;
        let takes = |name: &str| {
            let option = options.iter().find(|o| o.name == name).expect(name);
            (option.type_name.as_str(), option.takes.as_str())
        };
        let load = all.iter().find(|e| e.name == "load.test").expect("a step");
        for name in ["server", "workload"] {
            let own = load.options.iter().find(|o| o.name == name).expect(name);
            assert_eq!(takes(name).1, own.takes);
        }
        assert_eq!(takes("rates"), ("list<float>", "list<float>"));
    }

    #[test]
    fn what_parts_bring_a_fragment_brings_under_their_names() {
        let all = all();
        let open = all.iter().find(|e| e.name == "library.open_loop");
        let brings = &open.expect("a fragment").brings;
        let load = brings.iter().find(|b| b.kind == "measure").expect("a load");
        assert_eq!(
            load.reference("serving", "all"),
            "${steps.serving.load.all}"
        );
        assert_eq!(all.last().map(|e| e.sort), Some("fragment"));
    }

    #[test]
    fn fragments_of_fragments_bring_what_those_bring() {
        let part = |uses: &str| engine::compose::PartDoc {
            sort: "step",
            name: "inner".to_owned(),
            uses: uses.to_owned(),
        };
        let fragment = |name: &str, uses: &str| FragmentDoc {
            name: format!("library.{name}"),
            doc: String::new(),
            params: Vec::new(),
            file: "x.toml".into(),
            parts: vec![part(uses)],
        };
        let mut all = super::super::entries(&steps::library());
        let fragments = vec![
            fragment("a", "library.b"),
            fragment("b", "load.test"),
            fragment("round", "library.round"),
        ];
        add_fragments(&mut all, fragments);
        let names: Vec<&str> = all.iter().rev().take(2).map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["library.b", "library.a"]);
        let outer = &all[all.len() - 2].brings[0];
        assert_eq!(outer.reference("x", "all"), "${steps.x.inner.inner.all}");
    }
}
