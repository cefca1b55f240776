//! Every kind of change is explained by the one thing that changed.
//!
//! A plan of scripted steps runs; then one thing is changed, and what a run would do is compared
//! with what it said of every node before.

use engine::decide::Ledger;
use engine::environment::Environment;
use engine::event::Outcome;
use engine::expand::{Expanded, load};
use engine::freshness::{Freshness, Reason, Wish};
use engine::key::Change;
use engine::library::Library;
use engine::params::Settings;
use engine::run::folder::{Recipe, RunFolder};
use engine::run::{RunSettings, run};
use engine::service::{Endpoint, Launch, LaunchContext, Probe, Service, ServiceType};
use engine::source::Sources;
use engine::step::{
    Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType, Verdict,
};
use engine::store::Store;
use engine::types::{Any, Arguments, Artifact, ArtifactKind, Lease, Samples, Text};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

#[derive(Debug, Clone)]
struct TestServer;

impl ArtifactKind for TestServer {
    const NAME: &'static str = "test server";
}

const TEXT: &[OutputSpec] = &[OutputSpec {
    name: "text",
    file: "text.txt",
    kind: "text",
    doc: "A text.",
}];

fn leave(context: &StepContext, text: &str) -> Result<StepReport, StepError> {
    fs::write(context.output("text.txt"), text).map_err(|e| StepError::new(e.to_string()))?;
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

/// Declares a kind of step that leaves a text; `V` is its version.
macro_rules! scripted {
    ($name:ident, $text:literal, $kind:ident, $reads_plan:literal, { $($field:ident : $ty:ty $(= $default:expr)?;)* }) => {
        engine::options! {
            /// A scripted step.
            pub struct $name { $(/// An option.
                $field: $ty $(= $default)?;)* }
        }

        impl StepType for $name {
            const NAME: &'static str = $text;
            const KIND: StepKind = StepKind::$kind;
            const VERSION: u32 = 1;
            const SUMMARY: &'static str = "A scripted step.";
            const READS_PLAN: bool = $reads_plan;

            fn outputs() -> &'static [OutputSpec] {
                if StepKind::$kind == StepKind::Effect { &[] } else { TEXT }
            }

            fn identity(&self) -> Vec<(String, String)> {
                vec![("program".to_owned(), PROGRAM.with(|p| p.borrow().clone()))]
            }
        }

        #[async_trait::async_trait]
        impl Step for $name {
            async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
                leave(context, stringify!($name))
            }
        }
    };
}

thread_local! {
    /// What the digest of the steps' program is said to be.
    static PROGRAM: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

scripted!(Make, "test.make", Pure, false, {
    text: String = "default".to_owned();
    n: Option<i64>;
    set: BTreeMap<String, f64> = BTreeMap::new();
    from: Option<Artifact<Any>>;
    key: Option<Text>;
});
scripted!(Other, "test.other", Pure, false, { word: String = "other".to_owned(); });
scripted!(Warm, "test.warm", Effect, false, { server: Lease<TestServer>; requests: u32 = 1; });
scripted!(Draw, "test.draw", Measure, false, { server: Lease<TestServer>; rate: f64; });
scripted!(Count, "test.count", Report, false, { data: Samples<Any>; });
scripted!(Page, "test.page", Report, true, {});

engine::options! {
    /// Options of a server.
    pub struct Server {
        /// Its arguments.
        args: Arguments = Arguments::default();
    }
}

impl ServiceType for Server {
    const NAME: &'static str = "test.server";
    const KIND: &'static str = TestServer::NAME;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Serves nothing.";
}

#[async_trait::async_trait]
impl Service for Server {
    fn launch(&self, _: &LaunchContext) -> Result<Launch, StepError> {
        Ok(Launch::External {
            endpoint: Endpoint {
                url: "test://".into(),
                ..Endpoint::default()
            },
        })
    }

    async fn probe(&self, _: &Endpoint) -> Probe {
        Probe::Ready(BTreeMap::new())
    }
}

fn library() -> Library {
    Library::default()
        .step::<Make>()
        .step::<Other>()
        .step::<Warm>()
        .step::<Draw>()
        .step::<Count>()
        .step::<Page>()
        .service::<Server>()
}

const PLAN: &str = r#"schema = 1
name = "t"
description = "as it was"
[params]
layers = { type = "int", default = 2 }
[axes]
rate = [1.0, 2.0]
[steps.model]
use = "test.make"
with = { text = "weights", n = "${params.layers}", set = { scale = 1.5 }, from = "conf" }
[steps.tokens]
use = "test.make"
with = { text = "tokens", from = "words.txt", key = "k-${secret.EXPLAIN_TOKEN}" }
[services.server]
use = "test.server"
overlays = ["base.toml"]
with = { args = { page_size = 16, radix = true } }
[steps.warm]
use = "test.warm"
with = { server = "${services.server}", requests = 4 }
[steps.draw]
use = "test.draw"
axes = ["rate"]
after = ["warm"]
with = { server = "${services.server}", rate = "${axes.rate}" }
samples = { target = 2, max_age = "7d" }
[steps.count]
use = "test.count"
with = { data = "${steps.draw.all}" }
[steps.page]
use = "test.page"
"#;

/// A folder with a plan and its files, run once.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(world.at("conf")).unwrap();
        world.write("conf/config.json", "{}");
        world.write("conf/tokenizer.json", "[]");
        world.write("words.txt", "a b c");
        world.write("base.toml", "context_length = 4096\ndtype = \"bfloat16\"\n");
        world.write("token", "secret one");
        world.write("plan.toml", PLAN);
        let outcome = world.run();
        assert_eq!(outcome, Outcome::Done);
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.at("plan.toml")).unwrap();
        assert!(text.contains(from), "{from}");
        self.write("plan.toml", &text.replacen(from, to, 1));
    }

    fn expand(&self, set: &[(&str, &str)]) -> Expanded {
        let settings = Settings {
            set: set
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            variant: None,
        };
        let plan = format!(
            "{}\n[secrets]\nEXPLAIN_TOKEN = {{ file = \"token\" }}\n",
            fs::read_to_string(self.at("plan.toml")).unwrap()
        );
        self.write("whole.toml", &plan);
        let mut sources = Sources::default();
        load(&self.at("whole.toml"), &settings, &library(), &mut sources)
            .unwrap_or_else(|p| panic!("{p:#?}"))
    }

    fn run(&self) -> Outcome {
        let out: &Path = &self.at("out");
        let expanded = self.expand(&[]);
        let recipe = Recipe {
            plan_path: self.at("whole.toml"),
            settings: Settings::default(),
            seed: 0,
            fresh: false,
            locked: None,
            version: "0".into(),
        };
        let texts = [(self.at("whole.toml"), String::new())];
        let folder = RunFolder::create(out, "t", &texts, &recipe).unwrap();
        let settings = RunSettings {
            jobs: 2,
            fresh: false,
            seed: 0,
            resumed: false,
            locks: out.join("locks"),
        };
        let store = Arc::new(Store::open(&out.join("store")).unwrap());
        let (_interrupt, interrupts) = mpsc::channel(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(run(&expanded, &settings, store, folder, vec![], interrupts))
            .unwrap()
    }

    /// Makes every sample one of 1970.
    fn make_samples_old(&self) {
        let expanded = self.expand(&[]);
        let store = Arc::new(Store::open(&self.at("out/store")).unwrap());
        let environment = Arc::new(Environment::detect());
        let graph = expanded.graph.clone();
        let (store_of, text) = (store.clone(), expanded.text);
        let mut ledger = Ledger::new(graph.clone(), store_of, environment, text, Wish::Enough);
        ledger.assess().unwrap();
        for node in BOTH {
            let id = graph.find(node).unwrap();
            let class = format!("samples/{}", ledger.manifest(id).unwrap().digest());
            for key in store.list_records(&class, "").unwrap() {
                let mut record = store.get_record(&class, &key).unwrap();
                record["drawn_at"] = 1.into();
                store.put_record(&class, &key, &record).unwrap();
            }
        }
    }

    fn assess(&self, change: &Altered) -> Vec<(String, Freshness)> {
        let expanded = self.expand(change.set);
        let mut environment = Environment::detect();
        for (name, value) in change.environment {
            environment
                .identity
                .insert((*name).to_owned(), (*value).to_owned());
        }
        PROGRAM.with(|p| change.program.clone_into(&mut p.borrow_mut()));
        let store = Arc::new(Store::open(&self.at("out/store")).unwrap());
        let wish = if change.fresh {
            Wish::NewIn("another".into())
        } else {
            Wish::Enough
        };
        let graph = expanded.graph.clone();
        let mut ledger = Ledger::new(
            graph.clone(),
            store,
            Arc::new(environment),
            expanded.text,
            wish,
        );
        let assessed = ledger.assess().unwrap();
        PROGRAM.with(|p| p.borrow_mut().clear());
        assessed
            .into_iter()
            .map(|(id, freshness)| (graph.name(id), freshness))
            .collect()
    }
}

/// Something that is other than before.
#[derive(Default)]
struct Altered {
    set: &'static [(&'static str, &'static str)],
    environment: &'static [(&'static str, &'static str)],
    program: &'static str,
    fresh: bool,
}

/// Makes one change in a new world and returns what is not reused, with its reason; what only waits
/// for something else is left out.
fn after(edit: impl FnOnce(&World), change: &Altered) -> Vec<(String, Freshness)> {
    let world = World::new();
    edit(&world);
    let all = world.assess(change);
    all.into_iter()
        .filter(|(_, freshness)| {
            !matches!(
                freshness,
                Freshness::Reused { .. }
                    | Freshness::Undecided { .. }
                    | Freshness::OnDemand
                    | Freshness::Service
            )
        })
        .collect()
}

/// Asserts that exactly these nodes run, each because of exactly this field.
fn assert_changed(
    found: &[(String, Freshness)],
    wanted: &[(&str, &str, Option<&str>, Option<&str>)],
) {
    let changed = |freshness: &Freshness| match freshness {
        Freshness::Stale {
            reason: Reason::Changed { changes },
        } => changes.clone(),
        other => panic!("{other:?}"),
    };
    let found: Vec<(&str, Vec<Change>)> = found
        .iter()
        .map(|(node, freshness)| (node.as_str(), changed(freshness)))
        .collect();
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (node, field, old, new) in wanted {
        let (_, changes) = found
            .iter()
            .find(|(n, _)| n == node)
            .unwrap_or_else(|| panic!("{node}: {found:#?}"));
        let [change] = changes.as_slice() else {
            panic!("{node}: {changes:#?}")
        };
        assert_eq!(change.field, *field, "{node}");
        for (found, wanted) in [(&change.old, old), (&change.new, new)] {
            if let Some(wanted) = wanted {
                assert_eq!(found.as_deref().unwrap_or("nothing"), *wanted, "{node}");
            }
        }
        assert_ne!(change.old, change.new);
    }
}

const BOTH: [&str; 2] = ["draw[rate=1]", "draw[rate=2]"];

/// The same field of both measurements.
fn of_both<'a>(
    field: &'a str,
    old: Option<&'a str>,
    new: Option<&'a str>,
) -> Vec<(&'a str, &'a str, Option<&'a str>, Option<&'a str>)> {
    BOTH.iter().map(|node| (*node, field, old, new)).collect()
}

#[test]
fn nothing_changed_and_nothing_runs() {
    assert_eq!(after(|_| {}, &Altered::default()), []);
}

#[test]
fn the_order_in_which_a_plan_names_things_changes_only_what_shows_the_plan() {
    for (old, new) in [
        ("rate = [1.0, 2.0]", "rate = [2.0, 1.0]"),
        ("after = [\"warm\"]", "after = [\"warm\", \"warm\"]"),
    ] {
        let found = after(|w| w.edit(old, new), &Altered::default());
        let nodes: Vec<&str> = found.iter().map(|(node, _)| node.as_str()).collect();
        assert_eq!(nodes, ["page"], "{new}: {found:#?}");
    }
}

#[test]
fn a_parameter_on_the_command_line() {
    let change = Altered {
        set: &[("layers", "4")],
        ..Altered::default()
    };
    // The page shows the plan with its parameters.
    let found = after(|_| {}, &change);
    assert_changed(
        &found,
        &[
            ("model", "with.n", Some("2"), Some("4")),
            ("page", "plan", None, None),
        ],
    );
}

#[test]
fn an_option_that_is_changed_added_or_removed() {
    let plan = ("page", "plan", None, None);
    let found = after(|w| w.edit("\"weights\"", "\"wide\""), &Altered::default());
    assert_changed(
        &found,
        &[("model", "with.text", Some("weights"), Some("wide")), plan],
    );
    let found = after(|w| w.edit("text = \"weights\", ", ""), &Altered::default());
    assert_changed(
        &found,
        &[
            ("model", "with.text", Some("weights"), Some("default")),
            plan,
        ],
    );
    let found = after(
        |w| w.edit("n = \"${params.layers}\", ", ""),
        &Altered::default(),
    );
    assert_changed(
        &found,
        &[("model", "with.n", Some("2"), Some("none")), plan],
    );
    let found = after(
        |w| w.edit("scale = 1.5", "scale = 1.5, bias = 2"),
        &Altered::default(),
    );
    assert_changed(
        &found,
        &[("model", "with.set.bias", Some("nothing"), Some("2")), plan],
    );
    let found = after(|w| w.edit("scale = 1.5", "scale = 2"), &Altered::default());
    assert_changed(
        &found,
        &[("model", "with.set.scale", Some("1.5"), Some("2")), plan],
    );
}

#[test]
fn another_kind_of_step() {
    let found = after(
        |w| {
            w.edit("with = { text = \"weights\", n = \"${params.layers}\", set = { scale = 1.5 }, from = \"conf\" }", "");
            w.edit(
                "[steps.model]\nuse = \"test.make\"",
                "[steps.model]\nuse = \"test.other\"",
            );
        },
        &Altered::default(),
    );
    let wanted = [
        ("model", "use", Some("test.make"), Some("test.other")),
        ("page", "plan", None, None),
    ];
    assert_changed(&found, &wanted);
}

#[test]
fn the_content_of_a_file() {
    let found = after(|w| w.write("words.txt", "a b d"), &Altered::default());
    assert_changed(&found, &[("tokens", "with.from", None, None)]);
}

#[test]
fn a_file_of_a_folder_that_is_changed_added_or_removed() {
    let found = after(|w| w.write("conf/config.json", "{ }"), &Altered::default());
    assert_changed(&found, &[("model", "with.from/config.json", None, None)]);
    let found = after(|w| w.write("conf/merges.txt", "a b"), &Altered::default());
    assert_changed(
        &found,
        &[("model", "with.from/merges.txt", Some("nothing"), None)],
    );
    let found = after(
        |w| fs::remove_file(w.at("conf/tokenizer.json")).unwrap(),
        &Altered::default(),
    );
    assert_changed(
        &found,
        &[("model", "with.from/tokenizer.json", None, Some("nothing"))],
    );
}

#[test]
fn a_file_of_another_name_and_the_same_content_is_no_change() {
    let found = after(
        |w| {
            w.write("copy.txt", "a b c");
            w.edit("words.txt", "copy.txt");
        },
        &Altered::default(),
    );
    assert_changed(&found, &[("page", "plan", None, None)]);
}

#[test]
fn a_secret_is_no_change() {
    let found = after(|w| w.write("token", "secret two"), &Altered::default());
    assert_eq!(found, []);
}

#[test]
fn an_argument_of_a_server_from_the_plan_or_an_overlay_or_unset() {
    let plan = ("page", "plan", None, None);
    let with_plan = |field, old, new| {
        let mut wanted = of_both(field, old, new);
        wanted.push(plan);
        wanted
    };
    let found = after(
        |w| w.edit("page_size = 16", "page_size = 32"),
        &Altered::default(),
    );
    let wanted = with_plan("with.server.with.args.page_size", Some("16"), Some("32"));
    assert_changed(&found, &wanted);
    let found = after(
        |w| w.write("base.toml", "context_length = 8192\ndtype = \"bfloat16\"\n"),
        &Altered::default(),
    );
    let wanted = with_plan(
        "with.server.with.args.context_length",
        Some("4096"),
        Some("8192"),
    );
    assert_changed(&found, &wanted);
    let found = after(
        |w| {
            w.edit(
                "overlays = [\"base.toml\"]",
                "overlays = [\"base.toml\"]\nunset = [\"dtype\"]",
            )
        },
        &Altered::default(),
    );
    let wanted = with_plan("with.server.with.args.dtype", None, Some("nothing"));
    assert_changed(&found, &wanted);
    let change = Altered {
        set: &[("+services.server.with.args.tp", "2")],
        ..Altered::default()
    };
    let found = after(|_| {}, &change);
    let wanted = with_plan("with.server.with.args.tp", Some("nothing"), Some("2"));
    assert_changed(&found, &wanted);
}

#[test]
fn what_is_done_to_a_server_before() {
    let found = after(
        |w| w.edit("requests = 4", "requests = 8"),
        &Altered::default(),
    );
    let mut wanted = of_both("after.warm.with.requests", Some("4"), Some("8"));
    wanted.push(("page", "plan", None, None));
    assert_changed(&found, &wanted);
}

#[test]
fn the_machine() {
    let change = Altered {
        environment: &[("kernel", "7.0")],
        ..Altered::default()
    };
    let found = after(|_| {}, &change);
    assert_changed(&found, &of_both("environment.kernel", None, Some("7.0")));
    let change = Altered {
        environment: &[("gpu_0", "H100")],
        ..Altered::default()
    };
    let found = after(|_| {}, &change);
    assert_changed(
        &found,
        &of_both("environment.gpu_0", Some("nothing"), Some("H100")),
    );
}

#[test]
fn the_program_behind_a_step() {
    let change = Altered {
        program: "another build",
        ..Altered::default()
    };
    let found = after(|_| {}, &change);
    let program = |node| (node, "program", Some(""), Some("another build"));
    // The measurements also depend on what the warm-up's program did.
    let of = |node: &str| {
        let (_, freshness) = found.iter().find(|(n, _)| n == node).unwrap().clone();
        (node.to_owned(), freshness)
    };
    assert_changed(
        &[of("model"), of("tokens")],
        &[program("model"), program("tokens")],
    );
    let Freshness::Stale {
        reason: Reason::Changed { changes },
    } = of("draw[rate=1]").1
    else {
        panic!("{found:?}")
    };
    let fields: Vec<&str> = changes.iter().map(|c| c.field.as_str()).collect();
    assert_eq!(fields, ["program", "after.warm.program"]);
}

#[test]
fn the_plan_itself_for_a_step_that_shows_it() {
    let found = after(|w| w.edit("as it was", "as it is"), &Altered::default());
    assert_changed(&found, &[("page", "plan", None, None)]);
}

#[test]
fn a_new_value_of_an_axis_disturbs_no_other() {
    let found = after(|w| w.edit("[1.0, 2.0]", "[1, 2, 4]"), &Altered::default());
    let names: Vec<&str> = found.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["draw[rate=4]", "page"]);
    let reason = Reason::NeverRan;
    assert_eq!(found[0].1, Freshness::Stale { reason });
}

#[test]
fn more_samples_are_a_shortfall_and_not_a_change() {
    let found = after(|w| w.edit("target = 2", "target = 3"), &Altered::default());
    let topped_up =
        |f: &Freshness| matches!(f, Freshness::ToppedUp { have, want: 3, .. } if have.have == 2);
    assert_eq!(
        found.iter().filter(|(_, f)| topped_up(f)).count(),
        2,
        "{found:?}"
    );
}

#[test]
fn samples_that_are_too_old_and_samples_that_are_asked_for() {
    let found = after(
        |w| {
            w.make_samples_old();
        },
        &Altered::default(),
    );
    let because = |wanted: Reason| {
        let stale = Freshness::Stale { reason: wanted };
        move |found: &[(String, Freshness)]| found.iter().filter(|(_, f)| *f == stale).count()
    };
    assert_eq!(because(Reason::TooOld)(&found), 2, "{found:?}");
    let change = Altered {
        fresh: true,
        ..Altered::default()
    };
    assert_eq!(because(Reason::Asked)(&after(|_| {}, &change)), 2);
}

#[test]
fn a_result_that_was_lost() {
    let found = after(
        |w| {
            for folder in ["trees", "blobs"] {
                fs::remove_dir_all(w.at("out/store").join(folder)).unwrap();
            }
        },
        &Altered::default(),
    );
    let lost = Freshness::Stale {
        reason: Reason::Lost {
            output: "text".into(),
        },
    };
    assert!(found.contains(&("model".to_owned(), lost)), "{found:?}");
}
