//! Drafts of plans from the real library, with answers that are known.

use super::*;
use crate::reference;

/// Chooses what stands first and knows no value.
struct First;

impl Asked for First {
    fn choose(&mut self, _: &Missing, _: &[Choice]) -> Option<usize> {
        Some(0)
    }

    fn value(&mut self, _: &Missing) -> Option<String> {
        None
    }
}

fn library() -> Vec<Entry> {
    reference::entries(&steps::library())
}

fn given(values: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    values.iter().map(owned).collect()
}

fn draft<'a>(library: &'a [Entry], wanted: &[&str], values: &[(&str, &str)]) -> Draft<'a> {
    let find = |name: &&str| library.iter().find(|e| e.name == *name).expect("an entry");
    let wanted = wanted.iter().map(find).collect();
    let mut draft = Draft::new(library, wanted, given(values));
    draft.complete(&mut First);
    draft
}

fn node<'d>(draft: &'d Draft<'_>, name: &str) -> &'d Node<'d> {
    let found = draft.nodes.iter().find(|n| n.name == name);
    found.unwrap_or_else(|| panic!("no `{name}`"))
}

#[test]
fn what_one_needs_and_another_brings_is_wired() {
    let library = library();
    let wanted = [
        "load.warm",
        "load.test",
        "plot.lines",
        "report.page",
        "server.embedded",
    ];
    let draft = draft(
        &library,
        &wanted,
        &[("workload", "prompts.jsonl"), ("model", "m")],
    );
    let with = |name: &str, option: &str| node(&draft, name).with.get(option).cloned();
    assert_eq!(
        with("load", "server").as_deref(),
        Some("\"${services.server}\"")
    );
    assert_eq!(
        with("warm", "server").as_deref(),
        Some("\"${services.server}\"")
    );
    assert_eq!(
        with("plot", "data").as_deref(),
        Some("\"${steps.load.all}\"")
    );
    assert_eq!(
        with("report", "charts").as_deref(),
        Some("[\"${steps.plot.chart}\"]")
    );
    assert_eq!(
        with("report", "data").as_deref(),
        Some("[\"${steps.load.all}\"]")
    );
    assert_eq!(node(&draft, "load").after, ["warm"]);
    let services = draft.nodes.iter().filter(|n| n.entry.sort == "service");
    assert_eq!(services.count(), 1);
}

#[test]
fn what_is_needed_is_added_and_nothing_is_made_from_itself() {
    let library = library();
    let draft = draft(&library, &["dataset.random"], &[]);
    let names: Vec<&str> = draft.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["model", "dataset"]);
    let missing: Vec<String> = draft
        .missing
        .iter()
        .map(|m| format!("{}.{}", m.node, m.option))
        .collect();
    let wanted = [
        "model.base",
        "dataset.requests",
        "dataset.input_tokens",
        "dataset.output_tokens",
    ];
    assert_eq!(missing, wanted);
}

#[test]
fn values_are_given_for_one_step_or_for_all_and_none_is_lost() {
    let library = library();
    let values = [
        ("requests", "8"),
        ("input_tokens", "4"),
        ("dataset.output_tokens", "2"),
        ("model", "m"),
        ("dataset.requests", "9"),
        ("sed", "1"),
    ];
    let draft = draft(&library, &["dataset.random"], &values);
    let with = &node(&draft, "dataset").with;
    assert_eq!(with.get("requests").map(String::as_str), Some("9"));
    assert_eq!(with.get("model").map(String::as_str), Some("\"m\""));
    assert_eq!(draft.unused(), ["requests", "sed"]);
    assert!(draft.options().contains(&"dataset.seed".to_owned()));
}

#[test]
fn a_path_that_one_step_was_given_serves_another_that_needs_the_same() {
    let library = library();
    let values = [("server.model", "m")];
    let draft = draft(
        &library,
        &["load.test", "dataset.random", "server.embedded"],
        &values,
    );
    let model = node(&draft, "dataset").with.get("model");
    assert_eq!(model.map(String::as_str), Some("\"m\""));
    assert!(draft.nodes.iter().all(|n| n.entry.name != "model.derive"));
}

#[test]
fn what_makes_one_from_another_is_not_chained_unasked() {
    let library = library();
    let once = draft(&library, &["dataset.random"], &[("base", "m")]);
    let names = |draft: &Draft<'_>| -> Vec<String> {
        let nodes = draft.nodes.iter();
        nodes.map(|n| n.entry.name.clone()).collect()
    };
    assert_eq!(names(&once), ["model.derive", "dataset.random"]);
    let wanted = ["dataset.random", "model.weights", "model.derive"];
    let asked_for = draft(&library, &wanted, &[("base", "m")]);
    assert_eq!(names(&asked_for).len(), 3, "{:?}", names(&asked_for));
}

#[test]
fn two_of_a_family_have_two_names() {
    let library = library();
    let draft = draft(
        &library,
        &["plot.lines", "plot.bars", "plot.bars"],
        &[("data", "x")],
    );
    let names: Vec<&str> = draft.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["plot", "bars", "bars_2"]);
}

#[test]
fn every_option_is_explained_and_those_without_a_value_are_left_out() {
    let library = library();
    let draft = draft(&library, &["shell.run"], &[("argv", "[\"true\"]")]);
    let text = draft.text("p", "./plan.schema.json");
    assert!(
        text.starts_with("#:schema ./plan.schema.json\n\nschema = 1\nname = \"p\"\n"),
        "{text}"
    );
    assert!(text.contains("\nargv = [\"true\"]\n"), "{text}");
    for option in &node(&draft, "shell").entry.options {
        assert!(
            text.contains(&format!("{} = ", option.name)),
            "{}: {text}",
            option.name
        );
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 92),
        "{text}"
    );
}

#[test]
fn answers_become_values_of_the_type_that_is_wanted() {
    assert_eq!(toml_text("4", "int >= 1"), "4");
    assert_eq!(toml_text("4", "string"), "\"4\"");
    assert_eq!(toml_text("fast", "`fast` | `slow`"), "\"fast\"");
    assert_eq!(toml_text("10s", "duration"), "\"10s\"");
    assert_eq!(toml_text("[1, 2]", "list<int >= 1>"), "[1, 2]");
    assert_eq!(toml_text("true", "list<text>"), "[\"true\"]");
    assert_eq!(toml_text("4", "list<int >= 1>"), "[4]");
    assert_eq!(
        toml_text("ttft_p50_ms", "list<string>"),
        "[\"ttft_p50_ms\"]"
    );
    assert_eq!(toml_text("\"quoted\"", "string"), "\"quoted\"");
    assert_eq!(toml_text("${params.x}", "int"), "\"${params.x}\"");
}
