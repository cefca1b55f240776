//! A report as a browser sees it: everything is drawn, nothing fails, nothing is fetched.
//!
//! Needs Chromium or Chrome; without one, the test says so and passes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use charts::Chart;

#[expect(dead_code, reason = "the example's own main is not called here")]
#[path = "../examples/sample_report.rs"]
mod sample_report;

/// How long a browser may take on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_browser_draws_every_point_and_fetches_nothing() {
    let Some(browser) = browser() else {
        #[expect(
            clippy::print_stderr,
            reason = "a skipped test must not look like a passed one"
        )]
        {
            eprintln!("skipped: found neither chromium nor google-chrome, so nothing was drawn");
        }
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    std::fs::write(&page, sample_report::page().to_html()).unwrap();
    let dom = dump(&browser, folder.path(), &page);
    let charts = sample_report::charts();

    assert_eq!(attribute(&dom, "data-errors"), None);
    assert_eq!(attribute(&dom, "data-requests"), Some("0"));
    let n_plots: usize = charts.iter().map(n_plots).sum();
    assert_eq!(
        attribute(&dom, "data-charts-drawn"),
        Some(n_plots.to_string().as_str())
    );
    let n_points: usize = charts.iter().map(Chart::n_points).sum();
    assert_eq!(
        attribute(&dom, "data-points-drawn"),
        Some(n_points.to_string().as_str())
    );
    let drawn = without_scripts(&dom);
    assert_eq!(marks_in(&drawn), n_points);
    assert!(dom.contains("t-table"), "the plan is not coloured");
    assert!(!drawn.contains("NaN"), "a coordinate is lost");
}

#[test]
fn an_error_on_the_page_would_be_seen() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("broken.html");
    let html = sample_report::page().to_html();
    let broken = html.replace(
        "</body>",
        "<script>noSuchThing()</script><img src=\"http://127.0.0.1:9/x\"></body>",
    );
    std::fs::write(&page, broken).unwrap();
    let dom = dump(&browser, folder.path(), &page);
    let errors = attribute(&dom, "data-errors").unwrap();
    assert!(errors.contains("noSuchThing"), "{errors}");
    assert!(errors.contains("blocked http://127.0.0.1:9/"), "{errors}");
}

/// How many drawings a chart makes.
fn n_plots(chart: &Chart) -> usize {
    match chart {
        Chart::Panels(panels) => panels.panels.len(),
        _ => 1,
    }
}

/// The first browser there is.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |f| f.join(name)))
        .find(|p| p.is_file())
}

/// The document after its scripts have run.
fn dump(browser: &Path, folder: &Path, page: &Path) -> String {
    // A file, not a pipe: the document is larger than a pipe holds.
    let output = folder.join("dom.html");
    let child = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args([
            "--disable-dev-shm-usage",
            "--virtual-time-budget=10000",
            "--dump-dom",
        ])
        .arg(format!(
            "--user-data-dir={}",
            folder.join("profile").display()
        ))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(File::create(&output).unwrap())
        .stderr(File::create(folder.join("browser.log")).unwrap())
        .spawn()
        .unwrap();
    let log = || std::fs::read_to_string(folder.join("browser.log")).unwrap_or_default();
    assert!(
        ends_well(child),
        "the browser failed or took over {PATIENCE:?}: {}",
        log()
    );
    std::fs::read_to_string(output).unwrap()
}

/// Waits for a process, and ends it when patience does.
fn ends_well(mut child: Child) -> bool {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An attribute of the root element.
fn attribute<'a>(dom: &'a str, name: &str) -> Option<&'a str> {
    let root = dom.find("<html").map(|at| &dom[at..]).unwrap();
    let root = &root[..root.find('>').unwrap()];
    let (_, rest) = root.split_once(&format!(" {name}=\""))?;
    Some(&rest[..rest.find('"').unwrap()])
}

/// What is there to see, without the scripts that put it there.
fn without_scripts(dom: &str) -> String {
    let mut pieces = dom.split("<script");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |seen, piece| {
        seen + piece.split_once("</script>").map_or("", |(_, rest)| rest)
    })
}

/// Drawn marks, counted in the document itself rather than by the page's own script.
fn marks_in(dom: &str) -> usize {
    let drawn = dom.split("<path class=\"point").skip(1).count();
    let bars = dom.split("<g class=\"point\"").skip(1).count();
    drawn + bars
}
