//! What a run costs beside its steps: one in which nothing is to be done, and one of steps that do
//! nothing, at several sizes.
//!
//! `cargo bench -p engine --bench run`

#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

use engine::event::Outcome;
use engine::expand::load;
use engine::library::Library;
use engine::params::Settings;
use engine::run::folder::{Recipe, RunFolder};
use engine::run::{RunSettings, run};
use engine::source::Sources;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::store::Store;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Numbers of steps.
const SIZES: [usize; 3] = [1_000, 4_000, 10_000];
/// How often a run without work is repeated.
const REPEATS: usize = 7;

engine::options! {
    /// Writes a number.
    pub struct Write {
        /// The number.
        number: i64;
    }
}

impl StepType for Write {
    const NAME: &'static str = "bench.write";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes a number.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "number",
            file: "number.txt",
            kind: "number",
            doc: "The number.",
        }]
    }
}

#[async_trait::async_trait]
impl Step for Write {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        std::fs::write(context.output("number.txt"), self.number.to_string())
            .map_err(|e| StepError::new(e.to_string()))?;
        Ok(StepReport::default())
    }
}

/// Runs the plan at `path` from its text to its end, as the command does.
fn whole(path: &Path, out: &Path, runtime: &tokio::runtime::Runtime) -> Duration {
    let began = Instant::now();
    let library = Library::default().step::<Write>();
    let mut sources = Sources::default();
    let expanded = load(path, &Settings::default(), &library, &mut sources)
        .unwrap_or_else(|problems| panic!("{problems:?}"));
    let recipe = Recipe {
        plan_path: path.to_owned(),
        settings: Settings::default(),
        seed: 0,
        fresh: false,
        locked: None,
        version: "0".into(),
    };
    let store = Arc::new(Store::open(&out.join("store")).expect("a store"));
    let folder =
        RunFolder::create(out, &expanded.name, &expanded.text.sources, &recipe).expect("a folder");
    let settings = RunSettings {
        jobs: 2,
        fresh: false,
        seed: 0,
        resumed: false,
        locks: out.join("locks"),
    };
    let (_interrupt, interrupts) = mpsc::channel(1);
    let outcome = runtime
        .block_on(run(&expanded, &settings, store, folder, vec![], interrupts))
        .expect("a run");
    assert_eq!(outcome, Outcome::Done);
    began.elapsed()
}

fn plan(folder: &Path, n: usize) -> PathBuf {
    let numbers: Vec<String> = (0..n).map(|i| i.to_string()).collect();
    let text = format!(
        "schema = 1\nname = \"bench\"\n[axes]\ni = [{}]\n[steps.a]\nuse = \"bench.write\"\n\
         axes = [\"i\"]\nwith = {{ number = \"${{axes.i}}\" }}\n",
        numbers.join(", ")
    );
    let path = folder.join("plan.toml");
    std::fs::write(&path, text).expect("a plan");
    path
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    println!("|  steps | steps that do nothing, ms per step | nothing to do, ms | µs per step |");
    println!("|-------:|------------------------------------:|------------------:|------------:|");
    for n in SIZES {
        // Memory forgets without being asked: what remains is the engine's own cost.
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        let (path, out) = (plan(folder.path(), n), folder.path().join("out"));
        let first = millis(whole(&path, &out, &runtime)) / n as f64;
        let mut again: Vec<f64> = (0..REPEATS)
            .map(|_| millis(whole(&path, &out, &runtime)))
            .collect();
        again.sort_by(f64::total_cmp);
        let median = again[REPEATS / 2];
        let each = median * 1e3 / n as f64;
        println!("| {n:>6} | {first:>35.3} | {median:>17.1} | {each:>11.2} |");
    }
}
