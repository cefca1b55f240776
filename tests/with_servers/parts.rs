//! A load of conversations and groups: its parts are kept beside its result, shown in its report
//! and computed anew from its records.

use crate::world::World;
use std::fmt::Write;
use std::fs;

const PLAN: &str = r#"
[steps.model]
use = "model.derive"
with = { base = "MODEL_CONF/qwen2.5-0.5b", set = { num_hidden_layers = 1, vocab_size = 512, hidden_size = 112, intermediate_size = 128 } }

[steps.prompts]
use = "dataset.file"
with = { path = "talk.jsonl" }

[services.server]
use = "server.embedded"
with = { model = "${steps.model.dir}" }

[steps.load]
use = "load.test"
with = { server = "${services.server}", workload = "${steps.prompts.workload}", concurrency = 2, sessions = true }

[steps.report]
use = "report.page"
with = { data = ["${steps.load.all}"] }
"#;

/// Four conversations of three turns each, of two tenants and of nobody.
fn talk() -> String {
    let mut lines = String::new();
    for (conversation, tenant) in [Some("red"), Some("red"), Some("blue"), None]
        .iter()
        .enumerate()
    {
        for turn in 0..3 {
            let group = tenant.map_or_else(String::new, |t| format!(r#", "group": "{t}""#));
            writeln!(
                lines,
                r#"{{"id": "{conversation}-{turn}", "conversation": "c{conversation}", "turn": {turn}, "input_ids": [1, 2, 3, {turn}], "input_tokens": 4, "output_tokens": 3, "slo": {{"e2el_ms": 600000}}{group}}}"#
            )
            .expect("a text");
        }
    }
    lines
}

/// Cells of the table with this caption, row by row.
fn table(page: &str, caption: &str) -> Vec<Vec<String>> {
    let from = page.find(&format!("<caption>{caption}</caption>"));
    let table = &page[from.unwrap_or_else(|| panic!("no table `{caption}`"))..];
    let table = &table[..table.find("</table>").expect("its end")];
    let text = |cell: &str| -> String {
        let (_, cell) = cell.split_once('>').expect("a cell");
        cell.split('<').next().unwrap_or("").to_owned()
    };
    let rows = table.split("<tr>").skip(2);
    rows.map(|row| row.split("<td").skip(1).map(text).collect())
        .collect()
}

#[test]
fn turns_and_groups_have_their_tables() {
    let world = World::new();
    fs::write(world.path("talk.jsonl"), talk()).expect("a workload");
    let plan = world.plan(PLAN);
    let finished = world.run(&["run", plan.to_str().expect("a path")]);
    assert!(matches!(finished.code(), 0 | 3), "{}", finished.said());
    let results = world.out().join("latest/results");
    let page = fs::read_to_string(results.join("report/page/report.html")).expect("a report");

    // Sample, verdict, value, requests, failed.
    let counts = |caption: &str| -> Vec<(String, String, String)> {
        let rows = table(&page, caption);
        rows.iter()
            .map(|row| (row[2].clone(), row[3].clone(), row[4].clone()))
            .collect()
    };
    let row = |value: &str, requests: &str| (value.into(), requests.into(), "0".into());
    assert_eq!(
        counts("load by turn"),
        [row("0", "4"), row("1", "4"), row("2", "4")]
    );
    assert_eq!(
        counts("load by group"),
        [row("red", "6"), row("(none)", "3"), row("blue", "3")]
    );
    assert!(!page.contains("load by model"), "there is one model");
    for shown in [
        "load: TTFT by turn",
        "attainment",
        "rates of all parts add up",
    ] {
        assert!(page.contains(shown), "{shown}");
    }

    let kept = fs::read(results.join("load/0/breakdown.parquet")).expect("a table");
    let anew = world.path("anew");
    let again = world.run(&[
        "report",
        "latest",
        "--recompute",
        anew.to_str().expect("a path"),
    ]);
    assert_eq!(again.code(), 0, "{}", again.said());
    let run = fs::read_dir(&anew)
        .expect("a folder")
        .flatten()
        .next()
        .expect("a run");
    let recomputed = fs::read(run.path().join("load/0/breakdown.parquet")).expect("a table");
    assert!(kept == recomputed, "the same records have other parts");
    world.assert_nothing_left();
}
