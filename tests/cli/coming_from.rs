//! `docs/coming-from.md`: each line of its tables names something that is there.

use super::folder::Folder;
use std::path::Path;

/// What a line's right column says.
#[derive(Debug)]
enum Here {
    /// A plan and settings: it must be sound.
    Run(Vec<String>),
    /// An option or output, and of what.
    Named(String, String),
    /// A measured value.
    Value(String),
    /// A flag of `benchwright server`.
    Flag(String),
    /// Nothing, and why.
    Nothing,
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn read(column: &str) -> Here {
    let names = quoted(column);
    if column.starts_with("nothing: ") {
        return Here::Nothing;
    }
    let kind = column.split(' ').next().unwrap_or_default();
    match (kind, &names[..]) {
        ("flag", [flag, of]) if of == "benchwright server" => Here::Flag(flag.clone()),
        // Of any service: `ready` stands beside `with`.
        ("option", [option, ..]) if option == "ready" => Here::Nothing,
        ("value", [name, _]) => Here::Value(name.clone()),
        ("option" | "output", [name, of]) => Here::Named(name.clone(), of.clone()),
        (_, [command]) if command.starts_with("benchwright run ") => {
            Here::Run(command.split(' ').skip(2).map(str::to_owned).collect())
        }
        _ => panic!("no form that this test knows: `{column}`"),
    }
}

fn said(folder: &Folder, arguments: &[&str]) -> String {
    let said = folder.run(arguments);
    assert_eq!(
        said.code,
        Some(0),
        "{arguments:?}: {}{}",
        said.out,
        said.err
    );
    said.out
}

/// The cells of the lines of all tables.
fn rows(text: &str) -> Vec<[String; 2]> {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| {
        let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
        let two = [cells.next(), cells.next()].map(|cell| cell.unwrap_or_default().to_owned());
        assert_eq!(cells.next(), None, "two columns: {line}");
        two
    });
    cells
        .filter(|[left, _]| left != "the script" && !left.starts_with("---"))
        .collect()
}

#[test]
fn every_line_names_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = rows(include_str!("../../docs/coming-from.md"));
    assert!(rows.len() > 40, "{}", rows.len());
    let folder = Folder::new();
    let help = said(&folder, &["server", "--help"]);
    // A run of its smoke variant shows, in another test, that its columns are measured.
    let columns = std::fs::read_to_string(root.join("plans/multimodel/swap.toml")).expect("a plan");
    for [_, here] in &rows {
        match read(here) {
            Here::Run(words) => {
                let plan = root.join(&words[0]).display().to_string();
                let more = words[1..].iter().map(String::as_str);
                let words: Vec<&str> = ["check", &plan].into_iter().chain(more).collect();
                said(&folder, &words);
            }
            Here::Named(name, of) => {
                let shown = said(&folder, &["steps", &of]);
                let mut words = shown.split(|c: char| !c.is_alphanumeric() && c != '_');
                assert!(
                    words.any(|word| word == name),
                    "`{of}` has no `{name}`:\n{shown}"
                );
            }
            Here::Value(name) => {
                assert!(
                    columns.contains(&format!("\"{name}\"")),
                    "no value `{name}`"
                );
            }
            Here::Flag(flag) => assert!(help.contains(&flag), "no flag `{flag}`"),
            Here::Nothing => {}
        }
    }
}
