//! The report in headless Chromium: no error, no request, every chart with its points.

use crate::world::wait_for;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=20000",
    "--dump-dom",
];

fn chromium() -> Option<&'static str> {
    let works = |name: &&str| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(works)
}

/// Opens the report and returns the page as the browser has made it.
fn dump(report: &Path) -> Option<String> {
    let Some(browser) = chromium() else {
        // `cargo xtask test` installs it, or says in one line that this is skipped.
        return None;
    };
    let profile = tempfile::tempdir().expect("a folder");
    let out = profile.path().join("dom.html");
    let mut child = Command::new(browser)
        .args(FLAGS)
        .arg(format!(
            "--user-data-dir={}",
            profile.path().join("profile").display()
        ))
        .arg(format!(
            "file://{}",
            fs::canonicalize(report).expect("a report").display()
        ))
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the browser");
    wait_for("the browser", || child.try_wait().expect("a child"));
    fs::read_to_string(out).ok()
}

fn data(dom: &str, name: &str) -> Option<String> {
    let head = &dom[..dom.len().min(4000)];
    let at = head.find(&format!("data-{name}=\""))? + name.len() + 7;
    Some(head[at..at + head[at..].find('"')?].to_owned())
}

/// Checks the quickstart's report: four charts with points, and its three loads over time.
pub(crate) fn check_report(report: &Path) {
    let Some(dom) = dump(report) else { return };
    assert_eq!(
        data(&dom, "charts-drawn").as_deref(),
        Some("7"),
        "{:.600}",
        dom
    );
    assert_eq!(data(&dom, "errors"), None, "errors in the page");
    assert_eq!(
        data(&dom, "requests").as_deref(),
        Some("0"),
        "the page asks the network"
    );
    let points: usize = data(&dom, "points-drawn")
        .and_then(|n| n.parse().ok())
        .expect("a number of points");
    // Two lines of three points twice, one of three, and seven kinds of work in four windows.
    assert!(points >= 6 + 6 + 3 + 7 * 4, "only {points} points");
}
