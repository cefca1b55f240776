//! Who may know whom: the edges between the project's crates, and what each may say.
//!
//! Reads `cargo metadata` and the sources; builds nothing. The rules are those of the section
//! of ARCHITECTURE.md that bears this name. Each rule is a pure function from what the
//! workspace is to complaints, and is shown to complain below.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Ours that are no capability: each with those of ours that it may know. Capability crates,
/// which are all others, may know each other.
const MAY_KNOW: &[(&str, &[&str])] = &[
    (
        "benchwright",
        &["embedded-server", "engine", "gateway", "steps"],
    ),
    ("engine", &[]),
    ("xtask", &[]),
];

/// Heavy crates, by how their names begin, and the only crates that may know each.
const OWNERS: &[(&str, &[&str])] = &[
    ("cudarc", &["checkpoints", "sllm-store"]),
    ("nvml-wrapper", &["telemetry"]),
    ("plotly", &["charts"]),
    ("polars", &["tables"]),
];

/// Crates that a server is to load, with all that these may need but each other: none of it brings threads,
/// allocators or exports of its own.
const INJECTED: &[&str] = &["profiler-inject", "cupti-sys", "profiler-wire"];
const INJECTABLE: &[&str] = &["crc32fast", "libc", "thiserror"];

/// Crates that only tests depend on.
const FOR_TESTS: &[&str] = &["fake-cupti"];

/// Crates that are command lines, and so may print.
const MAY_PRINT: &[&str] = &["benchwright", "xtask"];

/// A crate of the workspace.
#[derive(Debug, Clone, Default)]
struct Member {
    name: String,
    /// Its folder, relative to the workspace, `""` for the root package.
    folder: String,
    /// The packages it depends on, in whatever way.
    knows: Vec<String>,
    /// Those of them without which it cannot be built, tests aside.
    needs: Vec<String>,
    manifest: String,
    /// Its files relative to the workspace, with their texts.
    sources: Vec<(String, String)>,
    /// Those of its files that are roots of libraries and binaries.
    roots: Vec<String>,
}

impl Member {
    fn is_capability(&self) -> bool {
        ["steps/", "profiler/"]
            .iter()
            .any(|place| self.folder.starts_with(place))
    }
}

#[test]
fn every_edge_between_our_crates_is_allowed() {
    assert_none(&forbidden_edges(&workspace()));
}

#[test]
fn what_is_injected_brings_nothing_along() {
    assert_none(&heavy_needs(&workspace()));
}

#[test]
fn every_crate_keeps_the_shared_lints() {
    let root = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert_none(&lax_crates(&workspace(), &root));
}

#[test]
fn only_the_command_lines_print() {
    assert_none(&printing_files(&workspace()));
}

#[test]
fn unsafe_code_stands_only_where_the_architecture_says() {
    // A missing document names no file.
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap_or_default();
    assert_none(&unsafe_files(&workspace(), &named_as_unsafe(&architecture)));
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n  {}", complaints.join("\n  "));
}

fn forbidden_edges(members: &[Member]) -> Vec<String> {
    let mut complaints = Vec::new();
    for member in members {
        for known in &member.knows {
            let name = &member.name;
            if let Some(rule) = broken_rule(member, known, members) {
                complaints.push(format!("`{name}` knows `{known}`, but {rule}"));
            }
        }
    }
    complaints
}

/// The rule that keeps `member` from knowing the package `known`, if one does.
fn broken_rule(member: &Member, known: &str, members: &[Member]) -> Option<String> {
    for (heavy, owners) in OWNERS {
        let is_heavy = known == *heavy || known.starts_with(&format!("{heavy}-"));
        if is_heavy && !owners.contains(&member.name.as_str()) {
            let owners = owners.join("` and `");
            return Some(format!("only `{owners}` may know {heavy}"));
        }
    }
    let ours = members.iter().find(|other| other.name == known)?;
    if member.name == "steps" {
        let is_allowed = ours.name == "engine" || ours.is_capability();
        return (!is_allowed).then(|| "steps know the engine and capability crates".to_owned());
    }
    if member.is_capability() {
        return (!ours.is_capability())
            .then(|| "a capability crate is a library that someone could use alone".to_owned());
    }
    let (_, allowed) = MAY_KNOW.iter().find(|(name, _)| *name == member.name)?;
    (!allowed.contains(&known)).then(|| match allowed {
        [] => "it knows none of ours".to_owned(),
        allowed => format!("of ours it knows only `{}`", allowed.join("`, `")),
    })
}

/// What crates that a server loads need beyond what they may, and who needs what is for tests.
fn heavy_needs(members: &[Member]) -> Vec<String> {
    let mut complaints = Vec::new();
    for member in members {
        let name = &member.name;
        let is_injected = INJECTED.contains(&name.as_str());
        for needed in member.needs.iter().map(String::as_str) {
            if is_injected && !INJECTED.contains(&needed) && !INJECTABLE.contains(&needed) {
                complaints.push(format!(
                    "`{name}` is loaded into servers, and needs `{needed}`"
                ));
            }
            if FOR_TESTS.contains(&needed) {
                complaints.push(format!("`{name}` needs `{needed}`, which is for tests"));
            }
        }
    }
    complaints
}

/// Crates without the shared lints, and shared lints without what the rules rest on.
fn lax_crates(members: &[Member], root_manifest: &str) -> Vec<String> {
    let mut complaints: Vec<String> = members
        .iter()
        .filter(|member| !has_shared_lints(&member.manifest))
        .map(|member| format!("`{}` lacks `[lints]` with `workspace = true`", member.name))
        .collect();
    for lint in ["print_stdout", "print_stderr", "undocumented_unsafe_blocks"] {
        let is_on = ["warn", "deny"]
            .iter()
            .any(|level| root_manifest.contains(&format!("\n{lint} = \"{level}\"")));
        if !is_on {
            complaints.push(format!("the workspace's lints lack `{lint}`"));
        }
    }
    complaints
}

fn has_shared_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().skip_while(|line| line.trim() != "[lints]");
    lines.next();
    lines
        .take_while(|line| !line.trim_start().starts_with('['))
        .any(|line| line.trim() == "workspace = true")
}

/// Files outside the command lines that lift the lints against printing.
fn printing_files(members: &[Member]) -> Vec<String> {
    let mut complaints = Vec::new();
    for member in members {
        if MAY_PRINT.contains(&member.name.as_str()) {
            continue;
        }
        for (path, text) in &member.sources {
            for lint in ["clippy::print_stdout", "clippy::print_stderr"] {
                // Build scripts speak to cargo by printing.
                if text.contains(lint) && !path.ends_with("build.rs") {
                    complaints.push(format!("{path} lifts `{lint}`, but only src/ prints"));
                }
            }
        }
    }
    complaints
}

/// The paths that ARCHITECTURE.md names in backticks under its heading about unsafe code; a
/// path that ends in `/` stands for all below it.
fn named_as_unsafe(architecture: &str) -> Vec<&str> {
    let is_heading = |line: &&str| line.starts_with('#');
    architecture
        .lines()
        .skip_while(|line| !is_heading(line) || !line.to_lowercase().contains("unsafe"))
        .skip(1)
        .take_while(|line| !is_heading(line))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|code| code.contains('/'))
        .collect()
}

/// Crate roots that do not refuse unsafe code and files that lift the refusal without being
/// `named`; names that nothing needs any more.
fn unsafe_files(members: &[Member], named: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut needed = Vec::new();
    for member in members {
        for (path, text) in &member.sources {
            let Some(fault) = fault(text, member.roots.contains(path)) else {
                continue;
            };
            let names: Vec<_> = named.iter().filter(|name| covers(name, path)).collect();
            if names.is_empty() {
                complaints.push(format!(
                    "{path} {fault} and ARCHITECTURE.md does not name it"
                ));
            }
            needed.extend(names);
        }
    }
    let idle = named.iter().filter(|name| !needed.contains(name));
    complaints.extend(idle.map(|name| format!("ARCHITECTURE.md names `{name}` for nothing")));
    complaints
}

/// What a file does that only a file named for it may do.
fn fault(text: &str, is_root: bool) -> Option<&'static str> {
    // An attribute may be written over several lines.
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let has = |parts: [&str; 2]| parts.iter().any(|part| text.contains(part));
    if has(["allow(unsafe_code", "expect(unsafe_code"]) {
        return Some("allows unsafe code");
    }
    let refuses = has(["#![forbid(unsafe_code)]", "#![deny(unsafe_code)]"]);
    (is_root && !refuses).then_some("lacks `#![forbid(unsafe_code)]`")
}

fn covers(name: &str, path: &str) -> bool {
    name == path || (name.ends_with('/') && path.starts_with(name))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The workspace's crates as cargo and the file system tell of them.
fn workspace() -> Vec<Member> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {errors}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let members: Vec<Member> = packages.iter().map(member).collect();
    // A reading that finds nothing would find nothing wrong.
    assert!(members.iter().any(Member::is_capability), "{members:?}");
    members
}

fn member(package: &Value) -> Member {
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
    let folder = manifest.parent().unwrap();
    let knows = package["dependencies"].as_array().unwrap();
    let targets = package["targets"].as_array().unwrap();
    let mut sources = Vec::new();
    for inside in ["src", "build.rs"] {
        collect(&folder.join(inside), &mut sources);
    }
    assert!(!sources.is_empty(), "no sources in {}", folder.display());
    Member {
        name: package["name"].as_str().unwrap().to_owned(),
        folder: relative(folder),
        knows: knows
            .iter()
            .map(|known| known["name"].as_str().unwrap().to_owned())
            .collect(),
        needs: knows
            .iter()
            .filter(|known| known["kind"] != "dev")
            .map(|known| known["name"].as_str().unwrap().to_owned())
            .collect(),
        manifest: fs::read_to_string(&manifest).unwrap(),
        sources,
        roots: targets
            .iter()
            .filter(|target| target["kind"][0] != "test")
            .map(|target| relative(Path::new(target["src_path"].as_str().unwrap())))
            .collect(),
    }
}

/// Adds every Rust source at or below `path`.
fn collect(path: &Path, sources: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), sources);
        }
    } else if path.extension().is_some_and(|kind| kind == "rs") && path.is_file() {
        sources.push((relative(path), fs::read_to_string(path).unwrap()));
    }
}

fn relative(path: &Path) -> String {
    let inside = path.strip_prefix(root()).unwrap();
    inside.to_str().unwrap().to_owned()
}

mod rules {
    use super::*;

    fn crate_at(name: &str, folder: &str, knows: &[&str]) -> Member {
        Member {
            name: name.into(),
            folder: folder.into(),
            knows: knows.iter().map(|known| (*known).to_owned()).collect(),
            ..Member::default()
        }
    }

    /// The workspace as it should be, with one more edge.
    fn with_edge(from: &str, to: &str) -> Vec<Member> {
        let mut members = vec![
            crate_at("benchwright", "", &["engine", "steps", "clap"]),
            crate_at("steps", "steps", &["engine", "tables", "charts", "loadgen"]),
            crate_at("engine", "engine", &["tokio", "toml"]),
            crate_at("tables", "steps/tables", &["polars", "thiserror"]),
            crate_at("charts", "steps/charts", &["plotly"]),
            crate_at("loadgen", "steps/loadgen", &["tokio"]),
            crate_at("fetch", "steps/fetch", &["reqwest"]),
            crate_at("sys", "profiler/sys", &[]),
            crate_at("xtask", "tests/xtask", &["serde_json"]),
        ];
        let member = members.iter_mut().find(|member| member.name == from);
        member.unwrap().knows.push(to.to_owned());
        members
    }

    #[test]
    fn allowed_edges_are_silent() {
        for (from, to) in [
            ("steps", "sys"),
            ("steps", "fetch"),
            ("loadgen", "sys"),
            ("loadgen", "serde"),
            ("tables", "polars-core"),
            ("engine", "plotlib"),
        ] {
            let none = Vec::<String>::new();
            assert_eq!(forbidden_edges(&with_edge(from, to)), none, "{from} → {to}");
        }
    }

    #[test]
    fn forbidden_edges_are_named_with_their_rule() {
        for (from, to, rule) in [
            (
                "benchwright",
                "loadgen",
                "of ours it knows only `embedded-server`, `engine`, `gateway`, `steps`",
            ),
            (
                "steps",
                "benchwright",
                "steps know the engine and capability crates",
            ),
            ("engine", "steps", "it knows none of ours"),
            ("engine", "loadgen", "it knows none of ours"),
            ("loadgen", "engine", "a capability crate is a library"),
            ("fetch", "engine", "a capability crate is a library"),
            ("benchwright", "fetch", "of ours it knows only"),
            ("sys", "steps", "a capability crate is a library"),
            ("xtask", "engine", "it knows none of ours"),
            ("steps", "polars", "only `tables` may know polars"),
            ("charts", "polars-core", "only `tables` may know polars"),
            ("benchwright", "plotly", "only `charts` may know plotly"),
        ] {
            let complaints = forbidden_edges(&with_edge(from, to));
            let edge = format!("`{from}` knows `{to}`, but {rule}");
            assert_eq!(complaints.len(), 1, "{complaints:?}");
            assert!(complaints[0].starts_with(&edge), "{complaints:?}");
        }
    }

    #[test]
    fn what_servers_load_is_light_and_stand_ins_are_for_tests() {
        let needing = |name: &str, needs: &[&str]| {
            let mut member = crate_at(name, "profiler/x", &[]);
            member.needs = needs.iter().map(|needed| (*needed).to_owned()).collect();
            heavy_needs(&[member])
        };
        let none = Vec::<String>::new();
        assert_eq!(needing("profiler-inject", &["libc", "cupti-sys"]), none);
        assert_eq!(needing("profiler-control", &["tokio"]), none);
        assert_eq!(
            needing("cupti-sys", &["tokio"]),
            ["`cupti-sys` is loaded into servers, and needs `tokio`"]
        );
        assert_eq!(
            needing("profiler-control", &["fake-cupti"]),
            ["`profiler-control` needs `fake-cupti`, which is for tests"]
        );
    }

    #[test]
    fn lints_must_be_shared_and_on() {
        let lints = "\nprint_stdout = \"warn\"\nprint_stderr = \"deny\"\n\
                     undocumented_unsafe_blocks = \"warn\"\n";
        let mut lax = crate_at("lax", "steps/lax", &[]);
        lax.manifest = "[lints]\n\n[dependencies]\nworkspace = true\n".into();
        let mut strict = crate_at("strict", "steps/strict", &[]);
        strict.manifest = "[package]\n[lints]\nworkspace = true\n".into();
        assert_eq!(
            lax_crates(&[lax, strict.clone()], lints),
            ["`lax` lacks `[lints]` with `workspace = true`"]
        );
        assert_eq!(lax_crates(&[strict], "[lints]\n").len(), 3);
    }

    #[test]
    fn lifted_lints_are_seen() {
        let source = |path: &str, text: &str| vec![(path.to_owned(), text.to_owned())];
        let lifted = "#![forbid(unsafe_code)]\n#![expect(clippy::print_stdout)]";
        let mut library = crate_at("a", "steps/a", &[]);
        library.sources = source("steps/a/src/lib.rs", lifted);
        let mut command = crate_at("benchwright", "", &[]);
        command.sources = source("src/main.rs", lifted);
        assert_eq!(
            printing_files(&[library, command]),
            ["steps/a/src/lib.rs lifts `clippy::print_stdout`, but only src/ prints"]
        );
    }

    #[test]
    fn unsafe_files_must_be_named() {
        let mut member = crate_at("a", "steps/a", &[]);
        member.roots = vec!["steps/a/src/lib.rs".into()];
        member.sources = vec![
            ("steps/a/src/lib.rs".into(), "#![deny(missing_docs)]".into()),
            (
                "steps/a/src/ffi.rs".into(),
                "#![allow(\n    unsafe_code\n)]".into(),
            ),
        ];
        let members = [member];
        assert_eq!(unsafe_files(&members, &[]).len(), 2);
        let none = Vec::<String>::new();
        assert_eq!(unsafe_files(&members, &["steps/a/src/"]), none);
        let named = ["steps/a/src/lib.rs", "steps/a/src/ffi.rs", "steps/b/src/"];
        assert_eq!(
            unsafe_files(&members, &named),
            ["ARCHITECTURE.md names `steps/b/src/` for nothing"]
        );
    }

    #[test]
    fn only_the_section_about_unsafe_code_names_files() {
        let text = "# Map\n`engine/src/`\n## Unsafe code\n- `a/src/x.rs`: `mmap`, see\n\
                    - `b/src/`: kernels\n## More\n`c/src/`\n";
        assert_eq!(named_as_unsafe(text), ["a/src/x.rs", "b/src/"]);
        assert_eq!(named_as_unsafe("# Map\n`a/b`\n"), Vec::<&str>::new());
    }
}
