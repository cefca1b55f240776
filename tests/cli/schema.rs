//! The JSON schema of plans: it accepts what the command accepts, and refuses what is wrong by
//! its shape alone.

use crate::folder::{Folder, plans_below};
use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Bad plans that no schema can find anything wrong with: their shape is sound, or they are not
/// TOML at all.
const WRONG_BY_MEANING: &[&str] = &[
    "behind_controller",
    "certificates",
    "circle",
    "fronts",
    "grid",
    "grid_declared",
    "grid_open",
    "grid_twice",
    "loading_arms",
    "not_toml",
    "nothing",
    "nothing_left",
    "placeholders",
    "profiles",
    "ranks",
    "references",
    "set",
    "settings",
    "simulated",
    "together",
    "workloads",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn plans_in(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).into_iter().flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .filter(|path| !path.to_string_lossy().ends_with(".lock.toml"))
        .collect();
    found.sort();
    found
}

/// What the command prints, as a validator.
struct Printed {
    schemas: Schemas,
    plan: SchemaIndex,
}

impl Printed {
    fn new() -> Self {
        let said = Folder::new().run(&["schema"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let value: Value = serde_json::from_str(&said.out).expect("JSON");
        let mut compiler = Compiler::new();
        compiler.add_resource("plan.json", value).expect("a schema");
        let mut schemas = Schemas::new();
        let plan = compiler.compile("plan.json", &mut schemas);
        Self {
            plan: plan.expect("a sound schema"),
            schemas,
        }
    }

    /// What is wrong with a plan; `None` if nothing is, or if it is not TOML.
    fn complaint(&self, text: &str) -> Option<String> {
        let table: toml::Table = toml::from_str(text).ok()?;
        let value = serde_json::to_value(table).expect("JSON");
        let found = self.schemas.validate(&value, self.plan);
        found.err().map(|error| format!("{error:#}"))
    }
}

#[test]
fn every_plan_that_ships_follows_the_schema_and_names_it() {
    let printed = Printed::new();
    let plans = plans_below(&root().join("plans"));
    assert!(plans.len() > 10, "{plans:?}");
    for plan in plans {
        let text = fs::read_to_string(&plan).expect("a plan");
        assert_eq!(printed.complaint(&text), None, "{}", plan.display());
        let named = text
            .lines()
            .next()
            .and_then(|l| l.strip_prefix("#:schema "));
        let named = named.unwrap_or_else(|| panic!("{} names no schema", plan.display()));
        let named = plan.parent().expect("a folder").join(named);
        let shipped = root().join("plans/plan.schema.json");
        assert_eq!(named.canonicalize().ok(), shipped.canonicalize().ok());
    }
}

#[test]
fn bad_plans_are_refused_where_their_shape_is_wrong() {
    let printed = Printed::new();
    for plan in plans_in("tests/bad_plans") {
        let text = fs::read_to_string(&plan).expect("a plan");
        let name = plan.file_stem().and_then(|n| n.to_str()).expect("a name");
        let is_refused = printed.complaint(&text).is_some();
        assert_eq!(is_refused, !WRONG_BY_MEANING.contains(&name), "{name}");
    }
}

#[test]
fn everything_that_plans_may_say_is_accepted() {
    let printed = Printed::new();
    let plan = include_str!("whole_language.toml");
    assert!(toml::from_str::<toml::Table>(plan).is_ok());
    assert_eq!(printed.complaint(plan), None);
}

#[test]
fn a_fragment_takes_what_its_own_parameters_say_and_nothing_else_says() {
    let plan = "schema = 1\n[steps.a]\nuse = \"library.a\"\n\
                with = { argv = 3, requests = \"many\", server = [true], model = { a = 1 } }";
    assert_eq!(Printed::new().complaint(plan), None);
}

/// Each is a plan in which one thing is wrong by shape, with the place that is named for it.
const MISTAKES: &[(&str, &str)] = &[
    ("schema = 2", "/schema"),
    ("include = \"a.toml\"", "/include"),
    (
        "[params]\na = { type = \"int\", default = 1, mn = 1 }",
        "/params/a",
    ),
    ("[axes]\na = [[1]]", "/axes/a/0"),
    ("[axes]\nzip = [\"a\", \"b\"]", "/axes/zip/0"),
    ("[steps.a]\nuse = \"shell.rn\"", "/steps/a/use"),
    ("[steps.a]\nuse = \"shell.run\"", "/steps/a"),
    (
        "[steps.a]\nuse = \"shell.run\"\nwith = { argv = [\"true\"], arg = 1 }",
        "/steps/a/with",
    ),
    (
        "[steps.a]\nuse = \"shell.run\"\nwith = { argv = [\"true\"] }\nretry = { max = \"two\" }",
        "/steps/a/retry/max",
    ),
    (
        "[steps.a]\nuse = \"shell.run\"\nwith = { argv = [\"true\"] }\non_failure = \"ignore\"",
        "/steps/a/on_failure",
    ),
    (
        "[steps.a]\nuse = \"shell.run\"\nwith = { argv = [\"true\"] }\nsamples = { target = 2 }",
        "/steps/a/samples",
    ),
    (
        "[services.a]\nuse = \"server.external\"\nwith = { url = \"http://x\" }\nready = { timeout = 5 }",
        "/services/a/ready/timeout",
    ),
    ("[fragment.a]\nstep = {}", "/fragment/a"),
    (
        "[steps.a]\nuse = \"library.a\"\nretry = { max = 1 }",
        "/steps/a/retry",
    ),
    (
        "[params]\na = { type = \"service\", default = 1 }",
        "/params/a/type",
    ),
];

#[test]
fn each_mistake_is_refused_at_its_place() {
    let printed = Printed::new();
    for (text, place) in MISTAKES {
        let text = if text.starts_with("schema") {
            (*text).to_owned()
        } else {
            format!("schema = 1\n{text}")
        };
        let complaint = printed.complaint(&text);
        let complaint = complaint.unwrap_or_else(|| panic!("nothing is wrong with:\n{text}"));
        assert!(
            complaint.contains(&format!("'{place}'")),
            "{text}\n{complaint}"
        );
    }
}

#[test]
fn the_schema_can_be_written_to_a_file() {
    let folder = Folder::new();
    let said = folder.run(&["schema", "-o", "plan.json"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    let written = fs::read_to_string(folder.path("plan.json")).expect("a file");
    assert_eq!(written, folder.run(&["schema"]).out);
}
