//! Scripted steps and whole runs with them, for tests that damage what a run leaves on disk.

// Each test binary uses its own part.
#![allow(dead_code, unreachable_pub)]

pub mod crash;
pub mod recorder;

use engine::event::{Event, Listener, Outcome};
use engine::expand::{Expanded, load};
use engine::library::Library;
use engine::params::Settings;
use engine::run::folder::{Recipe, RunFolder};
use engine::run::history::Entry;
use engine::run::{RunError, RunSettings, run};
use engine::source::Sources;
use engine::step::{
    Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType, Verdict,
};
use engine::store::Store;
use engine::types::{Any, Artifact, Samples};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// Two steps of which one has a folder with a program, a measurement of two samples, and a count.
pub const PLAN: &str = r#"
schema = 1
name = "t"
[steps.words]
use = "test.write"
with = { text = "one " }
[steps.tools]
use = "test.build"
with = { from = "${steps.words.text}" }
[steps.draw]
use = "test.draw"
with = { value = 2.5 }
samples = { target = 2 }
[steps.count]
use = "test.count"
with = { data = "${steps.draw.all}", beside = "${steps.tools.tree}" }
"#;

fn trouble(error: std::io::Error) -> StepError {
    StepError::new(error.to_string())
}

engine::options! {
    /// Writes its text.
    pub struct Write {
        /// What to write.
        text: String;
    }
}

impl StepType for Write {
    const NAME: &'static str = "test.write";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes a text.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "text",
            file: "text.txt",
            kind: "text",
            doc: "The text.",
        }]
    }
}

#[async_trait::async_trait]
impl Step for Write {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        fs::write(context.output("text.txt"), &self.text).map_err(trouble)?;
        Ok(StepReport::line("written"))
    }
}

engine::options! {
    /// Makes a folder with a program.
    pub struct Build {
        /// What the program is made from.
        from: Artifact<Any>;
    }
}

impl StepType for Build {
    const NAME: &'static str = "test.build";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Makes a folder with a program.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "tree",
            file: "tree",
            kind: "tree",
            doc: "The folder.",
        }]
    }
}

#[async_trait::async_trait]
impl Step for Build {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let text = fs::read_to_string(context.path(&self.from)?).map_err(trouble)?;
        let tree = context.output("tree");
        let tool = tree.join("bin/tool");
        fs::create_dir_all(tree.join("bin"))
            .and_then(|()| fs::create_dir_all(tree.join("empty")))
            .and_then(|()| fs::write(tree.join("notes.txt"), text.repeat(40)))
            .and_then(|()| fs::write(&tool, format!("#!/bin/sh\necho {text}\n")))
            .and_then(|()| fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)))
            .and_then(|()| std::os::unix::fs::symlink("bin/tool", tree.join("tool")))
            .map_err(trouble)?;
        Ok(StepReport::line("built"))
    }
}

engine::options! {
    /// Draws a sample.
    pub struct Draw {
        /// Its value.
        value: f64;
    }
}

impl StepType for Draw {
    const NAME: &'static str = "test.draw";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Draws a sample.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "value",
            file: "value.txt",
            kind: "value",
            doc: "The value.",
        }]
    }
}

#[async_trait::async_trait]
impl Step for Draw {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        fs::write(context.output("value.txt"), self.value.to_string()).map_err(trouble)?;
        let verdict = Verdict {
            grade: Grade::Valid,
            reasons: vec![],
        };
        Ok(StepReport {
            summary: None,
            verdict: Some(verdict),
            figures: Vec::new(),
        })
    }
}

engine::options! {
    /// Counts samples.
    pub struct Count {
        /// The samples.
        data: Samples<Any>;
        /// What must be there meanwhile.
        beside: Artifact<Any>;
    }
}

impl StepType for Count {
    const NAME: &'static str = "test.count";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Counts samples.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "count",
            file: "count.txt",
            kind: "count",
            doc: "How many.",
        }]
    }
}

#[async_trait::async_trait]
impl Step for Count {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let program = context.path(&self.beside)?.join("bin/tool");
        let size = fs::metadata(program).map_err(trouble)?.len();
        let count = context.samples(&self.data).len();
        fs::write(context.output("count.txt"), format!("{count} {size}")).map_err(trouble)?;
        Ok(StepReport::line("counted"))
    }
}

/// Expands a plan of scripted steps.
pub fn expand(plan: &str) -> Expanded {
    let library = Library::default()
        .step::<Write>()
        .step::<Build>()
        .step::<Draw>()
        .step::<Count>();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plan.toml");
    fs::write(&path, plan).expect("a plan");
    let mut sources = Sources::default();
    load(&path, &Settings::default(), &library, &mut sources).unwrap_or_else(|p| panic!("{p:#?}"))
}

/// A folder that forgets when the machine is switched off, where there is one: syncing costs
/// nothing there, and what these tests sync means nothing.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder")
}

/// Makes a runtime for whole runs.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Event>>>);

impl Listener for Heard {
    fn hear(&mut self, _: u64, event: &Event) {
        self.0.lock().expect("what was heard").push(event.clone());
    }
}

/// Runs a plan in `out`, as a new run or, given its folder, as one that goes on.
pub async fn perform(
    expanded: &Expanded,
    out: &Path,
    begun: Option<&Path>,
) -> (Result<Outcome, RunError>, Vec<Event>) {
    let recipe = Recipe {
        plan_path: "plan.toml".into(),
        settings: Settings::default(),
        seed: 1,
        fresh: false,
        locked: None,
        version: "0".into(),
    };
    let folder = match begun {
        Some(path) => RunFolder::open(path),
        None => RunFolder::create(
            out,
            "t",
            &[(recipe.plan_path.clone(), PLAN.to_owned())],
            &recipe,
        ),
    };
    let folder = match folder {
        Ok(folder) => folder,
        Err(error) => return (Err(error), Vec::new()),
    };
    let store = match Store::open(&out.join("store")) {
        Ok(store) => Arc::new(store),
        Err(error) => return (Err(error.into()), Vec::new()),
    };
    let settings = RunSettings {
        locks: out.join("locks"),
        jobs: 2,
        fresh: false,
        seed: 1,
        resumed: begun.is_some(),
    };
    let heard = Heard::default();
    let listeners: Vec<Box<dyn Listener>> = vec![Box::new(heard.clone())];
    let (_interrupt, interrupts) = mpsc::channel(1);
    let outcome = run(expanded, &settings, store, folder, listeners, interrupts).await;
    let events = heard.0.lock().expect("what was heard").clone();
    (outcome, events)
}

/// How often each node is named in events of one kind.
pub fn tally<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for name in names {
        *tally.entry(name.to_owned()).or_default() += 1;
    }
    tally
}

/// How often each node began.
pub fn starts(events: &[Event]) -> BTreeMap<String, usize> {
    tally(events.iter().filter_map(|event| match event {
        Event::Started { node, .. } => Some(node.as_str()),
        _ => None,
    }))
}

/// How often each node ended well.
pub fn finishes(events: &[Event]) -> BTreeMap<String, usize> {
    tally(events.iter().filter_map(|event| match event {
        Event::Finished { node, .. } => Some(node.as_str()),
        _ => None,
    }))
}

/// How often each node ended well, as a journal tells it.
pub fn finished_in(journal: &[u8]) -> BTreeMap<String, usize> {
    let records = engine::journal::recover(journal).records;
    let event = |record: &Vec<u8>| serde_json::from_slice::<Entry>(record).map(|e| e.event);
    let events: Vec<Event> = records.iter().filter_map(|r| event(r).ok()).collect();
    finishes(&events)
}

/// How often each node ended well, as the journal of a run tells it.
pub fn journal_finishes(run: &Path) -> BTreeMap<String, usize> {
    finished_in(&fs::read(run.join("journal.log")).expect("a journal"))
}

/// How often each node of [`PLAN`] has to end well.
pub fn targets() -> BTreeMap<String, usize> {
    tally(["words", "tools", "draw", "draw", "count"])
}

/// Files by their paths, with their permissions to be executed.
pub type Listing = BTreeMap<PathBuf, String>;

/// What the results of a run are.
pub fn results(run: &Path) -> Listing {
    let root = run.join("results");
    let mut found = BTreeMap::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of results") {
            let path = entry.expect("a result").path();
            let data = fs::metadata(&path).expect("what a result links to");
            let shown = if data.is_dir() {
                open.push(path.clone());
                "folder".to_owned()
            } else {
                let content = fs::read(&path).expect("a result");
                let mode = data.permissions().mode() & 0o111;
                format!("{mode:o} {}", String::from_utf8_lossy(&content))
            };
            let name = path.strip_prefix(&root).expect("below");
            found.insert(name.to_owned(), shown);
        }
    }
    found
}

/// Random numbers that a seed repeats: Steele, Lea and Flood's `SplitMix64` (2014).
pub struct Random(pub u64);

impl Random {
    /// Returns the next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("it is below a usize")
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Reads a number that `cargo xtask soak` sets.
pub fn soak_number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}
