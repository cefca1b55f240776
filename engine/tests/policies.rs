//! Whole runs in which steps fail, services die and two engines want the same: what a plan's
//! policies make of that.

use engine::event::{Event, Failure, Listener, Outcome};
use engine::expand::{Expanded, load};
use engine::library::Library;
use engine::params::Settings;
use engine::run::folder::{Recipe, RunFolder};
use engine::run::{RunSettings, run};
use engine::source::Sources;
use engine::step::{
    FailureClass, Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
    Verdict,
};
use engine::store::Store;
use engine::types::{Any, Artifact, Samples};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

const TEXT: &[OutputSpec] = &[OutputSpec {
    name: "text",
    file: "text.txt",
    kind: "text",
    doc: "A text.",
}];

fn trouble(error: std::io::Error) -> StepError {
    StepError::new(error.to_string())
}

engine::options! {
    /// Works after failing some times; notes every try in a diary.
    pub struct Work {
        /// Where tries are noted, one line each.
        diary: String;
        /// How often it fails.
        fails: u32 = 0;
        /// What its failures are.
        class: String = "infrastructure".to_owned();
        /// What it reads.
        from: Option<Artifact<Any>>;
    }
}

impl Work {
    fn attempt(&self, context: &StepContext) -> Result<(), StepError> {
        let mut diary = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.diary)
            .map_err(trouble)?;
        // One write, so that lines of two engines do not mix.
        diary
            .write_all(format!("{}\n", context.node).as_bytes())
            .map_err(trouble)?;
        let text = fs::read_to_string(&self.diary).map_err(trouble)?;
        let n_tries = text.lines().filter(|line| *line == context.node).count();
        if n_tries <= self.fails as usize {
            let class = match self.class.as_str() {
                "infrastructure" => FailureClass::Infrastructure,
                _ => FailureClass::Step,
            };
            return Err(StepError::new("not yet").class(class));
        }
        fs::write(context.output("text.txt"), &context.node).map_err(trouble)
    }
}

impl StepType for Work {
    const NAME: &'static str = "test.work";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Works in the end.";

    fn outputs() -> &'static [OutputSpec] {
        TEXT
    }
}

#[async_trait::async_trait]
impl Step for Work {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        self.attempt(context)?;
        Ok(StepReport::line("worked"))
    }
}

engine::options! {
    /// The same as a measurement.
    pub struct Draw {
        /// Where tries are noted, one line each.
        diary: String;
        /// How often it fails.
        fails: u32 = 0;
        /// Its value.
        value: f64 = 1.0;
    }
}

impl StepType for Draw {
    const NAME: &'static str = "test.draw";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Draws a sample in the end.";

    fn outputs() -> &'static [OutputSpec] {
        TEXT
    }
}

#[async_trait::async_trait]
impl Step for Draw {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let work = Work {
            diary: self.diary.clone(),
            fails: self.fails,
            class: "infrastructure".to_owned(),
            from: None,
        };
        work.attempt(context)?;
        Ok(StepReport {
            summary: None,
            verdict: Some(Verdict {
                grade: Grade::Valid,
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
        TEXT
    }
}

#[async_trait::async_trait]
impl Step for Count {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let count = context.samples(&self.data).len();
        fs::write(context.output("text.txt"), count.to_string()).map_err(trouble)?;
        Ok(StepReport::line(format!("{count}")))
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Event>>>);

impl Listener for Heard {
    fn hear(&mut self, _: u64, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Expands steps, in which `DIARY` stands for the diary's path.
    fn expand(&self, steps: &str) -> Expanded {
        let diary = self.at("diary").display().to_string();
        let plan = format!(
            "schema = 1\nname = \"t\"\n{}",
            steps.replace("DIARY", &diary)
        );
        let path = self.at("plan.toml");
        fs::write(&path, plan).unwrap();
        let library = Library::default()
            .step::<Work>()
            .step::<Draw>()
            .step::<Count>();
        let mut sources = Sources::default();
        load(&path, &Settings::default(), &library, &mut sources)
            .unwrap_or_else(|p| panic!("{p:#?}"))
    }

    async fn run(&self, steps: &str) -> (Outcome, Vec<Event>) {
        perform(&self.expand(steps), &self.at("out")).await
    }

    fn diary(&self) -> Vec<String> {
        let text = fs::read_to_string(self.at("diary")).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

async fn perform(expanded: &Expanded, out: &Path) -> (Outcome, Vec<Event>) {
    let recipe = Recipe {
        plan_path: "plan.toml".into(),
        settings: Settings::default(),
        seed: 0,
        fresh: false,
        locked: None,
        version: "0".into(),
    };
    let texts = [(PathBuf::from("plan.toml"), String::new())];
    let folder = RunFolder::create(out, "t", &texts, &recipe).unwrap();
    let settings = RunSettings {
        jobs: 2,
        fresh: false,
        seed: 0,
        resumed: false,
        locks: out.join("locks"),
    };
    let store = Arc::new(Store::open(&out.join("store")).unwrap());
    let heard = Heard::default();
    let (_interrupt, interrupts) = mpsc::channel(1);
    let listeners: Vec<Box<dyn Listener>> = vec![Box::new(heard.clone())];
    let outcome = run(expanded, &settings, store, folder, listeners, interrupts)
        .await
        .unwrap();
    let events = heard.0.lock().unwrap().clone();
    (outcome, events)
}

fn failures(events: &[Event]) -> Vec<Failure> {
    let failed = events.iter().filter_map(|event| match event {
        Event::Failed(failure) => Some(failure.clone()),
        _ => None,
    });
    failed.collect()
}

fn skipped(events: &[Event]) -> Vec<&str> {
    let skipped = events.iter().filter_map(|event| match event {
        Event::Skipped { node, .. } => Some(node.as_str()),
        _ => None,
    });
    skipped.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_tried_again_and_the_run_does_not_fail_for_it() {
    let world = World::new();
    let steps = "[steps.a]\nuse = \"test.work\"\nwith = { diary = \"DIARY\", fails = 2 }\n\
        retry = { max = 2, on = [\"infrastructure\"], backoff = \"1ms\" }\n";
    let (outcome, events) = world.run(steps).await;
    assert_eq!(outcome, Outcome::Done);
    let retries: Vec<Option<u64>> = failures(&events).iter().map(|f| f.retry_ms).collect();
    assert_eq!(retries, [Some(1), Some(2)]);
    assert_eq!(world.diary(), ["a", "a", "a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_another_class_or_one_too_many_fails_the_run() {
    for (fails, class, tries) in [(1, "step", 1), (3, "infrastructure", 3)] {
        let world = World::new();
        let steps = format!(
            "[steps.a]\nuse = \"test.work\"\n\
             with = {{ diary = \"DIARY\", fails = {fails}, class = \"{class}\" }}\n\
             retry = {{ max = 2, on = [\"infrastructure\"], backoff = \"1ms\" }}\n"
        );
        let (outcome, events) = world.run(&steps).await;
        assert_eq!(outcome, Outcome::Failed);
        assert_eq!(world.diary().len(), tries);
        assert_eq!(failures(&events).last().unwrap().retry_ms, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_measurement_that_is_tried_again_draws_the_same_sample() {
    let world = World::new();
    let steps = "[steps.a]\nuse = \"test.draw\"\nwith = { diary = \"DIARY\", fails = 1 }\n\
        samples = { target = 2 }\nretry = { max = 1, backoff = \"1ms\" }\n";
    let (outcome, events) = world.run(steps).await;
    assert_eq!(outcome, Outcome::Done);
    let started: Vec<u32> = events
        .iter()
        .filter_map(|event| match event {
            Event::Started { sample, .. } => *sample,
            _ => None,
        })
        .collect();
    assert_eq!(started, [0, 0, 1]);
}

/// One of two measurements fails; a count reads both, another step comes after.
const FAILING: &str = "[axes]\nv = [1, 2]\n\
    [steps.draw]\nuse = \"test.draw\"\naxes = [\"v\"]\n\
    with = { diary = \"DIARY\", value = \"${axes.v}\" }\n\
    [steps.bad]\nuse = \"test.draw\"\nwith = { diary = \"DIARY\", fails = 9 }\non_failure = \"POLICY\"\n\
    [steps.later]\nuse = \"test.work\"\nafter = [\"bad\"]\nwith = { diary = \"DIARY\" }\n\
    [steps.count]\nuse = \"test.count\"\nwith = { data = \"${steps.bad.all}\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_failure_is_the_plans_choice() {
    for (policy, wanted) in [
        ("continue", &[][..]),
        ("skip_dependents", &["count", "later"][..]),
    ] {
        let world = World::new();
        let (outcome, events) = world.run(&FAILING.replace("POLICY", policy)).await;
        assert_eq!(outcome, Outcome::Failed, "a failure stays one");
        let mut found = skipped(&events);
        found.sort_unstable();
        assert_eq!(found, wanted, "{policy}");
        let drawn = world.diary();
        assert!(drawn.contains(&"draw[v=1]".to_owned()) && drawn.contains(&"draw[v=2]".to_owned()));
    }
}

async fn two_engines(rounds: usize) {
    let steps = "[axes]\ni = [1, 2, 3, 4]\n\
        [steps.a]\nuse = \"test.work\"\naxes = [\"i\"]\nwith = { diary = \"DIARY\" }\n\
        [steps.b]\nuse = \"test.work\"\naxes = [\"i\"]\nafter = [\"a\"]\nwith = { diary = \"DIARY\", from = \"${steps.a.text}\" }\n\
        [steps.draw]\nuse = \"test.draw\"\nwith = { diary = \"DIARY\" }\nsamples = { target = 3 }\n\
        [steps.count]\nuse = \"test.count\"\nwith = { data = \"${steps.draw.all}\" }\n";
    for _ in 0..rounds {
        let world = World::new();
        let (expanded, out) = (world.expand(steps), world.at("out"));
        let (one, two) = tokio::join!(perform(&expanded, &out), perform(&expanded, &out));
        assert_eq!((one.0, two.0), (Outcome::Done, Outcome::Done));
        // `a[i=…]` are equal work by different names, and so are `b[i=…]`.
        let diary = world.diary();
        let count = |name: &str| diary.iter().filter(|line| line.starts_with(name)).count();
        assert_eq!(
            (count("a"), count("b"), count("draw")),
            (1, 1, 3),
            "{diary:?}"
        );
        for (_, events) in [one, two] {
            let drawn = events
                .iter()
                .filter(|e| matches!(e, Event::Failed(_)))
                .count();
            assert_eq!(drawn, 0);
        }
        let counted = fs::read_dir(out.join("runs"))
            .unwrap()
            .flatten()
            .map(|run| fs::read_to_string(run.path().join("results/count/text.txt")).unwrap());
        assert_eq!(counted.collect::<Vec<_>>(), ["3", "3"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_engines_at_once_do_each_piece_of_work_once() {
    two_engines(3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a soak test: `cargo xtask soak two_engines`"]
async fn soak_two_engines() {
    let rounds = std::env::var("BENCHWRIGHT_SOAK_ROUNDS").ok();
    two_engines(rounds.and_then(|n| n.parse().ok()).unwrap_or(5)).await;
}
