//! Whole runs with scripted steps and services: what is told, what is kept, what is reused.

use engine::event::{Event, Listener, Outcome};
use engine::expand::{Expanded, load};
use engine::library::Library;
use engine::params::Settings;
use engine::run::folder::{Recipe, RunFolder};
use engine::run::history::{self, NodeState};
use engine::run::{Interrupt, RunSettings, run};
use engine::service::{Endpoint, Launch, LaunchContext, Probe, Service, ServiceType};
use engine::source::Sources;
use engine::step::{
    Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType, Verdict,
};
use engine::store::Store;
use engine::types::{Any, Artifact, ArtifactKind, Lease, Samples};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

#[derive(Debug, Clone)]
struct TestServer;

impl ArtifactKind for TestServer {
    const NAME: &'static str = "test server";
}

engine::options! {
    /// Writes its text, after the text of another.
    pub struct Write {
        /// What to write.
        text: String;
        /// What comes before.
        before: Option<Artifact<Any>>;
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
        assert!(self.text != "panic", "asked to");
        if self.text == "fail" {
            return Err(StepError::new("asked to fail").help("ask for something else"));
        }
        if self.text == "forget" {
            return Ok(StepReport::default());
        }
        let before = match &self.before {
            Some(before) => std::fs::read_to_string(context.path(before)?)
                .map_err(|e| StepError::new(e.to_string()))?,
            None => String::new(),
        };
        std::fs::write(context.output("text.txt"), before + &self.text)
            .map_err(|e| StepError::new(e.to_string()))?;
        Ok(StepReport::line("written"))
    }
}

engine::options! {
    /// Draws a sample.
    pub struct Draw {
        /// The server.
        server: Lease<TestServer>;
        /// Its value.
        value: f64;
        /// Whether it waits until it is told to stop.
        hang: bool = false;
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
        context.endpoint(&self.server)?;
        if self.hang {
            context.doing("hanging");
            context.cancelled().await;
        }
        std::fs::write(context.output("value.txt"), format!("{}", self.value))
            .map_err(|e| StepError::new(e.to_string()))?;
        // The first two samples of a negative value are no good, and all below -5.
        let grade = if self.value < -5.0 || (self.value < 0.0 && context.sample < 2) {
            Grade::Invalid
        } else {
            Grade::Valid
        };
        Ok(StepReport {
            summary: None,
            verdict: Some(Verdict {
                grade,
                reasons: vec![],
            }),
            figures: Vec::new(),
        })
    }
}

engine::options! {
    /// Counts samples.
    pub struct Count {
        /// The samples.
        data: Samples<Any>;
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
        let count = context.samples(&self.data).len().to_string();
        std::fs::write(context.output("count.txt"), &count)
            .map_err(|e| StepError::new(e.to_string()))?;
        Ok(StepReport::line(count))
    }
}

engine::options! {
    /// A server without a process.
    pub struct Server {
        /// Whether it ever serves.
        sound: bool = true;
    }
}

impl ServiceType for Server {
    const NAME: &'static str = "test.server";
    const KIND: &'static str = TestServer::NAME;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "A server without a process.";
}

#[async_trait::async_trait]
impl Service for Server {
    fn launch(&self, _: &LaunchContext) -> Result<Launch, StepError> {
        Ok(Launch::External {
            endpoint: Endpoint::new("test://server", Default::default()),
        })
    }

    async fn probe(&self, _: &Endpoint) -> Probe {
        if self.sound {
            Probe::Ready(Default::default())
        } else {
            Probe::Failed("it is broken".to_owned())
        }
    }
}

fn library() -> Library {
    Library::default()
        .step::<Write>()
        .step::<Draw>()
        .step::<Count>()
        .service::<Server>()
}

/// Writes down what it hears, without times.
struct Log(Arc<Mutex<Vec<String>>>, Option<mpsc::Sender<Interrupt>>);

impl Listener for Log {
    fn hear(&mut self, _: u64, event: &Event) {
        let line = match event {
            Event::Decided {
                node, freshness, ..
            } => format!("{node}: {freshness}"),
            Event::Started { node, sample, .. } => format!(
                "{node} starts{}",
                sample.map_or(String::new(), |s| format!(" {s}"))
            ),
            Event::Finished { node, .. } => format!("{node} done"),
            Event::Failed(failure) => format!("{} failed: {}", failure.node, failure.message),
            Event::Skipped { node, because } => format!("{node} skipped: {because}"),
            Event::ServiceReady { node, .. } => format!("{node} ready"),
            Event::ServiceStopped { node, .. } => format!("{node} stopped"),
            Event::RunFinished { outcome, .. } => format!("{outcome:?}"),
            Event::Progressed { progress, .. } => {
                if let (true, Some(interrupt)) = (progress.doing == "hanging", &self.1) {
                    let _ = interrupt.try_send(Interrupt::Gracefully);
                }
                return;
            }
            _ => return,
        };
        self.0.lock().expect("the log").push(line);
    }
}

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn out(&self) -> &Path {
        self.folder.path()
    }

    fn expand(&self, plan: &str) -> Expanded {
        let path = self.out().join("plan.toml");
        std::fs::write(&path, format!("schema = 1\nname = \"t\"\n{plan}")).expect("a plan");
        let mut sources = Sources::default();
        load(&path, &Settings::default(), &library(), &mut sources)
            .unwrap_or_else(|p| panic!("{p:#?}"))
    }

    async fn run(&self, plan: &str) -> (Outcome, Vec<String>) {
        self.run_as(plan, false, true).await
    }

    /// Runs a plan; a step that says that it hangs gets the run interrupted if `impatient`.
    async fn run_as(&self, plan: &str, fresh: bool, impatient: bool) -> (Outcome, Vec<String>) {
        let expanded = self.expand(plan);
        let recipe = Recipe {
            plan_path: "plan.toml".into(),
            settings: Settings::default(),
            seed: 1,
            fresh,
            locked: None,
            version: "0".into(),
        };
        let folder =
            RunFolder::create(self.out(), "t", &expanded.text.sources, &recipe).expect("a folder");
        let settings = RunSettings {
            locks: self.out().join("locks"),
            jobs: 2,
            fresh,
            seed: 1,
            resumed: false,
        };
        let store = Arc::new(Store::open(&self.out().join("store")).expect("a store"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (interrupt, interrupts) = mpsc::channel(2);
        let listener = Log(log.clone(), impatient.then(|| interrupt.clone()));
        let listeners: Vec<Box<dyn Listener>> = vec![Box::new(listener)];
        let outcome = run(&expanded, &settings, store, folder, listeners, interrupts);
        let outcome = outcome.await.expect("a run");
        let said = log.lock().expect("the log").clone();
        (outcome, said)
    }
}

const CHAIN: &str = r#"
[steps.a]
use = "test.write"
with = { text = "one " }
[steps.b]
use = "test.write"
with = { text = "two", before = "${steps.a.text}" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_reused_and_what_changed_is_named() {
    let bench = Bench::new();
    let (outcome, said) = bench.run(CHAIN).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(
        said,
        [
            "a: will run: never ran",
            "a starts",
            "a done",
            "b: will run: never ran",
            "b starts",
            "b done",
            "Done"
        ]
    );
    let text =
        std::fs::read_to_string(bench.out().join("latest/results/b/text.txt")).expect("a result");
    assert_eq!(text, "one two");

    let (_, said) = bench.run(CHAIN).await;
    assert_eq!(
        said,
        ["a: reused, 0 s old", "b: reused, 0 s old", "Done"]
            .map(str::to_owned)
            .map(|l| l.replace("0 s", &age_in(&said)))
    );

    let (_, said) = bench.run(&CHAIN.replace("two", "three")).await;
    assert!(
        said.contains(&"b: will run: `with.text` changed from two to three".to_owned()),
        "{said:?}"
    );
    assert!(!said.contains(&"a starts".to_owned()), "{said:?}");
}

/// The age that a log shows; a slow machine may take a second between two runs.
fn age_in(said: &[String]) -> String {
    let line = said.first().map_or("", String::as_str);
    line.trim_start_matches("a: reused, ")
        .trim_end_matches(" old")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_comes_out_equal_stops_the_change() {
    let bench = Bench::new();
    bench.run(CHAIN).await;
    // Another way to the same text: `a` runs again, and `b` finds its input unchanged.
    let other = CHAIN.replace("[steps.a]\nuse = \"test.write\"\nwith = { text = \"one \" }", "[steps.z]\nuse = \"test.write\"\nwith = { text = \"one\" }\n[steps.a]\nuse = \"test.write\"\nwith = { text = \" \", before = \"${steps.z.text}\" }");
    let (_, said) = bench.run(&other).await;
    assert!(said.contains(&"a starts".to_owned()), "{said:?}");
    assert!(said.iter().any(|l| l.starts_with("b: reused")), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_and_what_follows_is_skipped() {
    for (text, message) in [
        ("fail", "a failed: asked to fail"),
        ("forget", "a failed: it did not write its output `text`"),
        ("panic", "a failed: the step broke down"),
    ] {
        let bench = Bench::new();
        let (outcome, said) = bench.run(&CHAIN.replace("one ", text)).await;
        assert_eq!(outcome, Outcome::Failed);
        assert!(said.iter().any(|l| l.starts_with(message)), "{said:?}");
        assert!(
            said.contains(&"b skipped: `a` did not end well".to_owned()),
            "{said:?}"
        );
        assert_eq!(outcome.exit_code(), 1);
    }
}

const MEASURE: &str = r#"
[axes]
value = [1, 2]
[services.server]
use = "test.server"
[steps.draw]
use = "test.draw"
axes = ["value"]
with = { server = "${services.server}", value = "${axes.value}" }
samples = { target = 2 }
[steps.count]
use = "test.count"
with = { data = "${steps.draw.all}" }
"#;

fn count(bench: &Bench) -> String {
    std::fs::read_to_string(bench.out().join("latest/results/count/count.txt")).expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_topped_up_and_the_server_is_launched_only_for_that() {
    let bench = Bench::new();
    let (outcome, said) = bench.run(MEASURE).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(count(&bench), "4");
    let starts: Vec<&String> = said
        .iter()
        .filter(|l| l.starts_with("draw") && l.contains("starts"))
        .collect();
    assert_eq!(starts.len(), 4);
    assert!(
        starts[..2].iter().all(|l| l.ends_with(" 0")),
        "rounds are not whole: {starts:?}"
    );

    let (_, said) = bench.run(MEASURE).await;
    assert!(!said.contains(&"server ready".to_owned()), "{said:?}");

    let (_, said) = bench
        .run(&MEASURE.replace("target = 2", "target = 3"))
        .await;
    assert_eq!(count(&bench), "6");
    assert_eq!(
        said.iter()
            .filter(|l| l.contains("reused 2 of 3 samples, ") && l.ends_with(" s old, same boot"))
            .count(),
        2,
        "{said:?}"
    );
    assert_eq!(
        said.iter().filter(|l| l.contains("starts 2")).count(),
        2,
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn suspect_samples_are_kept_marked_and_replaced_within_a_bound() {
    let bench = Bench::new();
    let plan = MEASURE.replace("[1, 2]", "[1, -9]");
    let (outcome, said) = bench.run(&plan).await;
    assert_eq!(outcome, Outcome::Invalid);
    assert_eq!(count(&bench), "4");
    let starts = |said: &[String], node: &str| {
        let start = format!("draw[value={node}] starts");
        said.iter().filter(|l| l.starts_with(&start)).count()
    };
    assert_eq!((starts(&said, "1"), starts(&said, "-9")), (2, 4));
    let (outcome, said) = bench.run(&plan).await;
    assert_eq!(outcome, Outcome::Invalid);
    assert_eq!(starts(&said, "-9"), 0, "the bound holds across runs");
    assert!(said.iter().any(|l| l.contains("2 suspect")), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_serve_fails_the_run() {
    let bench = Bench::new();
    let plan = MEASURE.replace(
        "use = \"test.server\"",
        "use = \"test.server\"\nwith = { sound = false }",
    );
    let (outcome, said) = bench.run(&plan).await;
    assert_eq!(outcome, Outcome::Failed);
    assert!(
        said.contains(&"server failed: it is broken".to_owned()),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_measurement_is_no_sample() {
    let bench = Bench::new();
    let plan = MEASURE.replace(
        "value = \"${axes.value}\"",
        "value = \"${axes.value}\", hang = true",
    );
    let (outcome, said) = bench.run(&plan).await;
    assert_eq!(outcome, Outcome::Interrupted);
    assert_eq!(outcome.exit_code(), 130);
    assert!(said.contains(&"server stopped".to_owned()), "{said:?}");
    assert!(
        !said
            .iter()
            .any(|l| l.starts_with("draw") && l.ends_with("done")),
        "{said:?}"
    );
    let runs = history::list(bench.out());
    let history = history::load(&runs[0]).expect("a history");
    assert_eq!(history.outcome, Some(Outcome::Interrupted));
    assert!(!history.live);
    assert!(
        history.nodes.iter().all(|n| n.state != NodeState::Running),
        "{:?}",
        history.nodes
    );
    assert!(
        !bench.out().join("store/records/samples").exists(),
        "a sample was kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_takes_too_long_is_ended() {
    let bench = Bench::new();
    let plan = MEASURE
        .replace(
            "value = \"${axes.value}\"",
            "value = \"${axes.value}\", hang = true",
        )
        .replace("samples = { target = 2 }", "timeout = { idle = \"50ms\" }");
    let (outcome, said) = bench.run_as(&plan, false, false).await;
    assert_eq!(outcome, Outcome::Failed);
    let late = |l: &String| l.contains("it made no progress for 50ms");
    assert!(said.iter().any(late), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_samples_take_the_place_of_invalid_ones() {
    let bench = Bench::new();
    let plan = MEASURE.replace("[1, 2]", "[-1]");
    let (outcome, said) = bench.run(&plan).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(said.iter().filter(|l| l.contains("starts")).count(), 5);
    assert_eq!(count(&bench), "2");
    let (outcome, _) = bench.run_as(&plan, true, true).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(count(&bench), "4");
    assert_eq!(bench.run(&plan).await.0, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_merely_comes_before_is_not_part_of_a_key() {
    let bench = Bench::new();
    let plan = "[steps.a]\nuse = \"test.write\"\nwith = { text = \"a\" }\n\
        [steps.b]\nuse = \"test.write\"\nafter = [\"a\"]\nwith = { text = \"b\" }\n";
    bench.run(plan).await;
    for changed in [plan.to_owned(), plan.replace("\"a\" }", "\"other\" }")] {
        let (_, said) = bench.run(&changed).await;
        assert!(said.iter().any(|l| l.starts_with("b: reused")), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_file_is_a_miss_and_not_a_failure() {
    let bench = Bench::new();
    bench.run(CHAIN).await;
    std::fs::remove_dir_all(bench.out().join("store/blobs")).expect("the blobs");
    std::fs::remove_dir_all(bench.out().join("store/trees")).expect("the trees");
    let (outcome, said) = bench.run(CHAIN).await;
    assert_eq!(outcome, Outcome::Done);
    assert!(
        said.contains(&"a: will run: its `text` is missing from the store".to_owned()),
        "{said:?}"
    );
}
