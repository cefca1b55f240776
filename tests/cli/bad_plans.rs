//! Bad plans, each with the exact text that its author sees.
//!
//! `BENCHWRIGHT_BLESS=1` writes the texts anew; read them as a user would before committing.
//! A first line `# flags: …` gives flags of the command.

use crate::folder::{Said, benchwright};
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_plans")
}

fn plans() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder())
        .expect("bad plans")
        .flatten()
        .map(|e| e.path());
    let mut plans: Vec<PathBuf> = entries
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    plans.sort();
    plans
}

fn check(plan: &Path, more: &[&str]) -> Said {
    let text = fs::read_to_string(plan).expect("a plan");
    let flags = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("# flags: "))
        .unwrap_or("");
    let name = plan.file_name().and_then(|n| n.to_str()).expect("a name");
    let arguments: Vec<&str> = ["check", name]
        .into_iter()
        .chain(flags.split_whitespace())
        .chain(more.iter().copied())
        .collect();
    benchwright(&folder(), &arguments)
        .output()
        .expect("the binary")
        .into()
}

/// Replaces what differs from machine to machine.
fn portable(text: &str) -> String {
    let tests = folder().parent().expect("tests").display().to_string();
    text.replace(&format!("{tests}/bad_plans"), "[HERE]")
        .replace(&tests, "[ABOVE]")
}

#[test]
fn every_bad_plan_is_told_exactly_what_is_wrong() {
    let bless = std::env::var_os("BENCHWRIGHT_BLESS").is_some();
    let plans = plans();
    assert!(plans.len() >= 10, "{plans:?}");
    let mut differing = Vec::new();
    for plan in &plans {
        let said = check(plan, &[]);
        assert_eq!(said.code, Some(2), "{}: {}", plan.display(), said.err);
        assert_eq!(said.out, "", "{}", plan.display());
        let (found, expected) = (portable(&said.err), plan.with_extension("txt"));
        if bless {
            fs::write(&expected, &found).expect("written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            differing.push(format!("{}:\n{found}", expected.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn ten_mistakes_are_ten_problems_in_the_order_of_their_places() {
    let said = check(&folder().join("ten_mistakes.toml"), &["--json"]);
    assert_eq!(said.code, Some(2));
    let value: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    let problems = value["problems"].as_array().expect("problems");
    assert_eq!(problems.len(), 10, "{problems:#?}");
    let lines: Vec<u64> = problems
        .iter()
        .map(|p| p["place"]["line"].as_u64().expect("a line"))
        .collect();
    assert!(lines.is_sorted(), "{lines:?}");
    assert!(
        problems
            .iter()
            .all(|p| p["message"].is_string() && p["place"]["file"] == "ten_mistakes.toml")
    );
    assert_eq!(value["sound"], false);
}

#[test]
fn a_bad_plan_runs_nothing_and_leaves_nothing() {
    let out = tempfile::tempdir().expect("a folder");
    let kept = out.path().join("outputs");
    let plan = folder().join("ten_mistakes.toml");
    let arguments = [
        "run".as_ref(),
        plan.as_os_str(),
        "--out".as_ref(),
        kept.as_os_str(),
    ];
    let said: Said = benchwright(out.path(), &arguments)
        .output()
        .expect("the binary")
        .into();
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.ends_with("ten_mistakes.toml; nothing ran\n"),
        "{}",
        said.err
    );
    assert!(!kept.exists());
}
