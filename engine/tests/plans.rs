//! What plans expand to: files that are put together, axes and their rules, fragments, overlays,
//! conditions, and what is said of nodes besides their options. Nothing here runs.

use engine::expand::{Expanded, expand, load};
use engine::graph::{Link, NodeId};
use engine::library::Library;
use engine::options::Walk;
use engine::params::Settings;
use engine::policy::{Machine, OnFailure, Pool};
use engine::problem::Problem;
use engine::service::{Endpoint, Launch, LaunchContext, Probe, Service, ServiceType};
use engine::source::Sources;
use engine::step::{
    FailureClass, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Any, Arguments, Artifact, ArtifactKind, Lease, Samples, Text};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

engine::options! {
    /// Makes a file.
    pub struct Make {
        /// What is written.
        text: Text = Text { parts: Vec::new() };
        /// What is read.
        from: Option<Artifact<Any>>;
        /// Whether it is quick about it.
        quick: bool = false;
    }
}

engine::options! {
    /// Measures a server.
    pub struct Measure {
        /// The server.
        server: Option<Lease<Any>>;
        /// How fast.
        rate: f64 = 1.0;
        /// What is asked.
        prompts: Option<Artifact<Any>>;
    }
}

engine::options! {
    /// Draws what was measured.
    pub struct Draw {
        /// All of it.
        data: Vec<Samples<Any>>;
    }
}

engine::options! {
    /// A server with arguments.
    pub struct Serve {
        /// The model.
        model: Option<Artifact<Any>>;
        /// Its arguments.
        args: Arguments = Arguments::default();
    }
}

const FILE: &[OutputSpec] = &[OutputSpec {
    name: "file",
    file: "file",
    kind: Any::NAME,
    doc: "It.",
}];

macro_rules! steps {
    ($($ty:ty, $name:literal, $kind:ident;)+) => { $(
        #[async_trait::async_trait]
        impl Step for $ty {
            async fn run(&self, _: &StepContext) -> Result<StepReport, StepError> {
                Ok(StepReport::default())
            }
        }

        impl StepType for $ty {
            const NAME: &'static str = $name;
            const KIND: StepKind = StepKind::$kind;
            const VERSION: u32 = 1;
            const SUMMARY: &'static str = "For tests.";
            fn outputs() -> &'static [OutputSpec] {
                FILE
            }
        }
    )+ };
}

steps! {
    Make, "test.make", Pure;
    Measure, "test.measure", Measure;
    Draw, "test.draw", Report;
}

#[async_trait::async_trait]
impl Service for Serve {
    fn launch(&self, _: &LaunchContext) -> Result<Launch, StepError> {
        Ok(Launch::External {
            endpoint: Endpoint::default(),
        })
    }

    async fn probe(&self, _: &Endpoint) -> Probe {
        Probe::Ready(BTreeMap::new())
    }
}

impl ServiceType for Serve {
    const NAME: &'static str = "test.serve";
    const KIND: &'static str = Any::NAME;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "For tests.";
}

fn library() -> Library {
    let library = Library::default().step::<Make>().step::<Measure>();
    library.step::<Draw>().service::<Serve>()
}

/// A folder of plans.
struct Plans(tempfile::TempDir);

impl Plans {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let head = match *name {
                "plan.toml" => "schema = 1\nname = \"t\"\n",
                _ => "",
            };
            std::fs::write(path, format!("{head}{text}")).expect("a file");
        }
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("plan.toml")
    }

    fn try_with(&self, set: &[(&str, &str)]) -> Result<Expanded, Vec<Problem>> {
        let set = set.iter();
        let settings = Settings {
            set: set
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            variant: None,
        };
        load(&self.path(), &settings, &library(), &mut Sources::default())
    }

    fn expand(&self) -> Expanded {
        self.with(&[])
    }

    fn with(&self, set: &[(&str, &str)]) -> Expanded {
        self.try_with(set).unwrap_or_else(|p| panic!("{p:#?}"))
    }

    fn first_problem(&self, set: &[(&str, &str)]) -> (String, String) {
        let problems = self.try_with(set).err().expect("a problem");
        let first = problems[0].clone();
        (first.message, first.help.unwrap_or_default())
    }
}

fn plan(text: &str) -> Plans {
    Plans::new(&[("plan.toml", text)])
}

fn names(expanded: &Expanded) -> Vec<String> {
    let order = expanded.graph.order().iter();
    order.map(|id| expanded.graph.name(*id)).collect()
}

fn find(expanded: &Expanded, name: &str) -> NodeId {
    expanded.graph.find(name).expect(name)
}

/// Options as they took effect.
#[derive(Default)]
struct Written(Vec<String>);

impl Walk for Written {
    fn value(&mut self, path: &str, text: &str) {
        self.0.push(format!("{path}={text}"));
    }
    fn link(&mut self, path: &str, link: &Link) {
        self.0.push(format!("{path}->{link:?}"));
    }
    fn file(&mut self, path: &str, file: &Path) {
        self.0.push(format!("{path}={}", file.display()));
    }
}

fn options(expanded: &Expanded, name: &str) -> Vec<String> {
    let mut written = Written::default();
    let node = expanded.graph.node(find(expanded, name));
    node.body.walk(&mut written);
    written.0
}

fn incoming(expanded: &Expanded, name: &str) -> Vec<String> {
    let graph = &expanded.graph;
    let incoming = graph.incoming(find(expanded, name));
    let mut found: Vec<String> = incoming.map(|(from, _)| graph.name(from)).collect();
    found.sort();
    found
}

const MEASURE_AB: &str = "[steps.m]\nuse = \"test.measure\"\naxes = [\"a\", \"b\"]\n\
                          [steps.n]\nuse = \"test.measure\"\naxes = [\"b\"]\n";

#[test]
fn axes_that_are_zipped_vary_together() {
    let expanded = plan(&format!(
        "[axes]\na = [1, 2]\nb = [3, 4]\nzip = [[\"b\", \"a\"]]\n{MEASURE_AB}"
    ))
    .expand();
    assert_eq!(
        names(&expanded),
        ["m[a=1,b=3]", "m[a=2,b=4]", "n[b=3]", "n[b=4]"]
    );
}

#[test]
fn what_is_included_may_be_on_no_axis_and_takes_all_values_of_what_it_leaves_open() {
    let text = "[axes]\na = [1, 2]\nb = [3, 4]\nexclude = [{ a = 1, b = 3 }]\n\
                include = [{ a = 9 }, { a = 2, b = 8 }, { a = 2, b = 4 }]\n";
    let expanded = plan(&format!("{text}{MEASURE_AB}")).expand();
    assert_eq!(
        names(&expanded),
        [
            "m[a=1,b=4]",
            "m[a=2,b=3]",
            "m[a=2,b=4]",
            "m[a=9,b=3]",
            "m[a=9,b=4]",
            "m[a=2,b=8]",
            "n[b=3]",
            "n[b=4]",
            "n[b=8]"
        ]
    );
}

#[test]
fn a_file_brings_axes_that_vary_together() {
    let plans = Plans::new(&[
        ("grids/grid.csv", "a,b\n1,3\n2,3\n"),
        (
            "plan.toml",
            &format!(
                "[params]\ngrid = {{ type = \"string\", default = \"grids/grid.csv\" }}\n[axes]\nc = [true]\nfrom = \"${{params.grid}}\"\n{MEASURE_AB}"
            ),
        ),
    ]);
    let expanded = plans.expand();
    assert_eq!(names(&expanded), ["m[a=1,b=3]", "m[a=2,b=3]", "n[b=3]"]);
    let files: Vec<_> = expanded
        .text
        .sources
        .iter()
        .map(|(path, _)| path.file_name())
        .collect();
    assert_eq!(
        files,
        [Some("plan.toml".as_ref()), Some("grid.csv".as_ref())]
    );
}

const INCLUDING: &str = r#"
include = ["library/base.toml"]
[params]
layers = { type = "int", default = 4 }
[axes]
size = "${params.sizes}"
[steps.here]
use = "test.make"
axes = ["size"]
with = { text = "${params.layers} ${axes.size} ${params.more}", from = "${steps.there.file}" }
"#;
const INCLUDED: &str = r#"
include = ["more.toml"]
[params]
layers = { type = "int", default = 2 }
sizes = { type = "list<int>", default = [7] }
[variant.small.params]
sizes = [1]
[axes]
size = [1, 2, 3]
[resources]
licences = 3
[steps.there]
use = "test.make"
with = { from = "data.txt" }
"#;

fn included() -> Plans {
    Plans::new(&[
        ("plan.toml", INCLUDING),
        ("library/base.toml", INCLUDED),
        (
            "library/more.toml",
            "[params]\nmore = { type = \"string\", default = \"x\" }\n",
        ),
        ("library/data.txt", "beside the file that names it"),
    ])
}

#[test]
fn the_plans_own_words_win_over_those_of_what_it_includes() {
    let plans = included();
    let expanded = plans.expand();
    assert_eq!(names(&expanded), ["there", "here[size=7]"]);
    assert_eq!(options(&expanded, "here[size=7]")[0], "text=4 7 x");
    assert!(options(&expanded, "there")[0].ends_with("library/data.txt"));
    assert_eq!(expanded.supply["licences"], Pool::Count(3));
    assert_eq!(expanded.text.sources.len(), 3);
}

#[test]
fn kept_texts_count_more_than_what_became_of_the_files() {
    let plans = included();
    let kept = plans.expand().text.sources.clone();
    std::fs::remove_file(plans.0.path().join("library/base.toml")).expect("removed");
    std::fs::write(plans.path(), "schema = 2").expect("changed");
    let mut sources = Sources::default();
    let again = expand(
        &plans.path(),
        &kept,
        &Settings::default(),
        &library(),
        &mut sources,
    );
    let again = again.unwrap_or_else(|p| panic!("{p:#?}"));
    assert_eq!(names(&again), ["there", "here[size=7]"]);
    assert_eq!(again.text.sources, kept);
}

const OVERLAID: &str = r#"
[params]
deploy = { type = "string", default = "tp8" }
[services.server]
use = "test.serve"
overlays = ["conf/base.toml", "conf/${params.deploy}.toml"]
unset = ["cache.size"]
with = { args = { backend = "fa3", cache = { kind = "lru" } } }
[steps.m]
use = "test.measure"
with = { server = "${services.server}" }
"#;

fn overlaid() -> Plans {
    Plans::new(&[
        ("plan.toml", OVERLAID),
        (
            "conf/base.toml",
            "tp_size = 1\nbackend = \"triton\"\nbs = [1, 2]\ncache = { size = 4, pages = 2 }\n",
        ),
        ("conf/tp8.toml", "tp_size = 8\nbs = [4]\n"),
    ])
}

#[test]
fn overlays_are_merged_left_to_right_below_the_plans_own_arguments() {
    let expanded = overlaid().expand();
    assert_eq!(
        options(&expanded, "server")[1..],
        [
            "args.backend=fa3",
            "args.bs.0=4",
            "args.cache={…}",
            "args.cache.kind=\"…\"",
            "args.cache.kind.text=lru",
            "args.cache.pages=2",
            "args.tp_size=8"
        ]
    );
    assert_eq!(expanded.text.sources.len(), 3);
}

#[test]
fn the_command_line_sets_what_is_there_and_adds_what_is_marked() {
    let expanded = overlaid().with(&[
        ("services.server.with.args.tp_size", "2"),
        ("+services.server.with.args.new.deep", "true"),
        ("+steps.m.samples.target", "3"),
        ("params.deploy", "tp8"),
    ]);
    let written = options(&expanded, "server");
    assert!(
        written.contains(&"args.tp_size=2".to_owned()),
        "{written:?}"
    );
    assert!(
        written.contains(&"args.new.deep=true".to_owned()),
        "{written:?}"
    );
    let step = expanded.graph.step(find(&expanded, "m")).expect("a step");
    assert_eq!(step.target(), 3);
    let shown: Vec<&str> = expanded
        .text
        .params
        .iter()
        .map(|(n, ..)| n.as_str())
        .collect();
    assert_eq!(
        shown,
        [
            "deploy",
            "services.server.with.args.tp_size",
            "+services.server.with.args.new.deep",
            "+steps.m.samples.target"
        ]
    );
}

#[test]
fn overlays_and_arguments_that_are_not_there_are_problems_with_the_nearest_name() {
    let first = |set: &[(&str, &str)]| overlaid().first_problem(set);
    assert_eq!(
        first(&[("services.server.with.args.tp_sizes", "2")]),
        (
            "service `server` sets no `tp_sizes`".into(),
            "did you mean `tp_size`?".into()
        )
    );
    let (message, help) = first(&[("deploy", "tp4")]);
    assert_eq!(message, "there is no overlay `conf/tp4.toml`");
    assert!(help.starts_with("looked for `"), "{help}");
    let text = OVERLAID.replace("cache.size", "cache.sise");
    let plans = Plans::new(&[
        ("plan.toml", &text),
        ("conf/base.toml", "cache = { size = 1 }"),
        ("conf/tp8.toml", ""),
    ]);
    assert_eq!(
        plans.first_problem(&[]),
        (
            "there is no argument `cache.sise` to remove".into(),
            "did you mean `cache.size`?".into()
        )
    );
}

const FRAGMENT: &str = r#"
[fragment.serving]
doc = "Serves and measures."
[fragment.serving.params]
model = { type = "artifact", doc = "the model" }
rates = { type = "list<float>", default = [1.0] }
over = { type = "list<string>", default = [] }
first = { type = "list<string>", default = [] }
slow = { type = "bool", default = false }
extra = { type = "int", optional = true }
[fragment.serving.axes]
rate = "${params.rates}"
[fragment.serving.services.server]
use = "test.serve"
axes = "${params.over}"
with = { model = "${params.model}", args = { quick = "${not params.slow}", extra = "${params.extra}" } }
[fragment.serving.steps.warm]
use = "test.make"
after = ["${params.first}"]
with = { text = "at ${services.server.url} for ${params.model}" }
[fragment.serving.steps.load]
use = "test.measure"
axes = ["rate"]
after = ["warm"]
when = "not ${params.slow} or ${axes.rate} == 1"
with = { server = "${services.server}", rate = "${axes.rate}" }
"#;
const USING: &str = r#"
[axes]
radix = [true, false]
[steps.model]
use = "test.make"
[steps.before]
use = "test.make"
[steps.serving]
use = "library.serving"
with = { model = "${steps.model.file}", over = ["radix"], first = ["before"], rates = [1, 4], slow = "${axes.radix}" }
[steps.end]
use = "test.make"
after = ["serving"]
[steps.curve]
use = "test.draw"
with = { data = ["${steps.serving.load.all}"] }
"#;

#[test]
fn a_fragment_brings_its_parts_under_the_name_of_its_use() {
    let plans = Plans::new(&[
        ("plan.toml", USING),
        ("plans/library/serving.toml", FRAGMENT),
    ]);
    let expanded = plans.expand();
    let name = "serving.load[radix=false,rate=4]";
    assert_eq!(
        incoming(&expanded, name),
        ["serving.server[radix=false]", "serving.warm[radix=false]"]
    );
    assert_eq!(
        incoming(&expanded, "serving.warm[radix=true]"),
        ["before", "model", "serving.server[radix=true]"]
    );
    assert_eq!(
        options(&expanded, "serving.server[radix=true]")[1..],
        ["args.quick=no flag"],
        "an optional parameter that is not given sets nothing"
    );
    let left_out: Vec<&str> = expanded.pruned.iter().map(|p| p.node.as_str()).collect();
    assert_eq!(left_out, ["serving.load[radix=true,rate=4]"]);
    assert_eq!(
        expanded.pruned[0].reason,
        "when: not ${axes.radix} or ${axes.rate} == 1 is false for radix=true,rate=4"
    );
    assert_eq!(
        incoming(&expanded, "end").len(),
        5,
        "warm twice, load three times"
    );
    assert_eq!(incoming(&expanded, "curve").len(), 3);
}

#[test]
fn the_command_line_reaches_fragments_and_their_parts() {
    let plans = Plans::new(&[("plan.toml", USING), ("library/serving.toml", FRAGMENT)]);
    let expanded = plans.with(&[
        ("steps.serving.with.rates", "[8]"),
        ("services.serving.server.with.args.quick", "3"),
    ]);
    assert!(names(&expanded).contains(&"serving.load[radix=false,rate=8]".to_owned()));
    assert!(options(&expanded, "serving.server[radix=true]").contains(&"args.quick=3".to_owned()));
}

#[test]
fn a_file_of_the_library_is_a_source_only_if_something_of_it_is_used() {
    let plans = Plans::new(&[
        ("plan.toml", USING),
        ("library/serving.toml", FRAGMENT),
        ("library/other.toml", "[fragment.other]\ndoc = \"x\"\n"),
        ("library/broken.toml", "[fragment.torn"),
        ("library/other.lock.toml", "[fragment.locked]\n"),
    ]);
    assert_eq!(plans.expand().text.sources.len(), 2);
    let found = engine::compose::fragments(plans.0.path());
    let found = found.iter().filter(|f| f.file.starts_with(plans.0.path()));
    let part = |p: &engine::compose::PartDoc| format!("{} {}: {}", p.sort, p.name, p.uses);
    let parts = |f: &engine::compose::FragmentDoc| f.parts.iter().map(part).collect();
    let found: Vec<(String, Vec<String>)> = found.map(|f| (f.name.clone(), parts(f))).collect();
    let serving = [
        "service server: test.serve",
        "step warm: test.make",
        "step load: test.measure",
    ];
    let serving = serving.map(str::to_owned).to_vec();
    let expected = [("library.other", vec![]), ("library.serving", serving)];
    assert_eq!(
        found,
        expected.map(|(name, parts)| (name.to_owned(), parts))
    );
}

#[test]
fn what_needs_something_that_is_left_out_is_left_out_with_it() {
    let text = r#"
        [axes]
        a = [1, 2]
        [services.server]
        use = "test.serve"
        axes = ["a"]
        when = "${axes.a} != 2"
        [steps.before]
        use = "test.make"
        when = "false"
        [steps.m]
        use = "test.measure"
        after = ["before"]
        with = { server = "${services.server}" }
        [steps.gone]
        use = "test.measure"
        when = "false"
        [steps.curve]
        use = "test.draw"
        with = { data = ["${steps.m.all}"] }
        [steps.no_curve]
        use = "test.draw"
        with = { data = ["${steps.m.all}", "${steps.gone.all}"] }
    "#;
    let expanded = plan(text).expand();
    assert_eq!(names(&expanded), ["server[a=1]", "m[a=1]", "curve"]);
    let pruned = expanded.pruned.iter();
    let mut pruned: Vec<_> = pruned
        .map(|p| (p.node.as_str(), p.reason.as_str()))
        .collect();
    pruned.sort_unstable();
    assert_eq!(
        pruned,
        [
            ("before", "when: false is false"),
            ("gone", "when: false is false"),
            ("m[a=2]", "needs `server`, which is left out"),
            ("no_curve", "reads all of `gone`, of which nothing is left"),
            ("server[a=2]", "when: ${axes.a} != 2 is false for a=2"),
        ]
    );
}

const CHOSEN: &str = r#"
    [params]
    engines = { type = "list<string>", default = ["fast", "old", "slow"] }
    [axes]
    engine = "${params.engines}"
    words = ["few", "many"]
    layers = [1, 2]
    [services.fast]
    use = "test.serve"
    when = "'fast' in ${params.engines}"
    with = { args = { fast = true } }
    [services.slow]
    use = "test.serve"
    axes = ["layers"]
    with = { args = { layers = "${axes.layers}" } }
    [services.old]
    use = "test.serve"
    when = "false"
    [steps.few]
    use = "test.make"
    [steps.many]
    use = "test.make"
    [steps.m]
    use = "test.measure"
    axes = ["engine", "words"]
    with = { server = "${services[axes.engine]}", prompts = "${steps[axes.words].file}" }
"#;

#[test]
fn an_axis_chooses_which_service_or_step_is_read() {
    let expanded = plan(CHOSEN).expand();
    assert_eq!(
        incoming(&expanded, "m[engine=slow,layers=2,words=many]"),
        ["many", "slow[layers=2]"]
    );
    assert_eq!(
        incoming(&expanded, "m[engine=fast,layers=1,words=few]"),
        ["fast", "few"]
    );
    let reasons = expanded.pruned.iter().map(|p| p.reason.as_str());
    let left_out = reasons.filter(|r| *r == "needs `old`, which is left out");
    assert_eq!(left_out.count(), 4);

    let expanded = plan(CHOSEN).with(&[("engines", "[\"slow\"]")]);
    let pruned = expanded.pruned.iter().map(|p| p.node.as_str());
    assert_eq!(pruned.collect::<Vec<_>>(), ["fast", "old"]);
}

#[test]
fn an_axis_chooses_among_the_parts_of_a_fragment() {
    let text = r#"
        [axes]
        engine = ["fast", "slow"]
        [fragment.servers.params]
        server = { type = "service" }
        [fragment.servers.services.fast]
        use = "test.serve"
        [fragment.servers.services.slow]
        use = "test.serve"
        [fragment.servers.steps.inside]
        use = "test.measure"
        axes = ["engine"]
        with = { server = "${services[axes.engine]}" }
        [fragment.servers.steps.given]
        use = "test.measure"
        axes = ["engine"]
        with = { server = "${params.server}" }
        [steps.s]
        use = "library.servers"
        with = { server = "${services.s[axes.engine]}" }
    "#;
    let expanded = plan(text).expand();
    for step in ["s.inside", "s.given"] {
        for engine in ["fast", "slow"] {
            let name = format!("{step}[engine={engine}]");
            assert_eq!(incoming(&expanded, &name), [format!("s.{engine}")]);
        }
    }
}

#[test]
fn what_an_axis_chooses_must_be_there() {
    let (message, help) = plan(CHOSEN).first_problem(&[("engines", "[\"slo\"]")]);
    assert_eq!(message, "no service is called `slo`");
    assert_eq!(help, "did you mean `slow`?");
    let undeclared = CHOSEN.replace(r#"axes = ["engine", "words"]"#, r#"axes = ["engine"]"#);
    let (message, help) = plan(&undeclared).first_problem(&[]);
    assert_eq!(message, "`m` does not vary over axis `words`");
    assert_eq!(help, "add `axes = [\"words\"]`");
    let all = CHOSEN.replace("${steps[axes.words].file}", "${steps[axes.words].all}");
    let (message, _) = plan(&all).first_problem(&[]);
    assert_eq!(message, "`steps[axes.words].all` is not a reference");
}

#[test]
fn settings_become_policies_that_instances_share_unless_an_axis_is_in_them() {
    let text = r#"
        [params]
        n = { type = "int", default = 2 }
        [resources]
        gpus = ["0", "1", "2", "3"]
        ports = { first = 30000, last = 30099 }
        [axes]
        tp = [1, 2]
        [services.server]
        use = "test.serve"
        axes = ["tp"]
        restarts = 5
        ready = { timeout = "3s" }
        resources = { gpus = "${axes.tp}", ports = 1 }
        [steps.m]
        use = "test.measure"
        samples = { target = "${params.n}", max_age = "7d", replacements = 0 }
        timeout = { run = "1m" }
        retry = { max = 2, on = ["timeout", "step"], backoff = "1s" }
        on_failure = "skip_dependents"
        resources = { machine = "shared", gpus = 0 }
        with = { server = "${services.server}" }
        [steps.made]
        use = "test.make"
        [steps.alone]
        use = "test.measure"
    "#;
    let expanded = plan(text).expand();
    let policy = |name: &str| {
        expanded
            .graph
            .step(find(&expanded, name))
            .expect(name)
            .policy
            .clone()
    };
    let m = policy("m[tp=1]");
    assert!(Arc::ptr_eq(&m, &policy("m[tp=2]")));
    assert_eq!((m.samples.target.get(), m.samples.replacements), (2, 0));
    assert_eq!(m.samples.max_age, Some(Duration::from_secs(7 * 86400)));
    assert_eq!(m.retry.on, [FailureClass::Timeout, FailureClass::Step]);
    assert_eq!((m.retry.max, m.retry.backoff), (2, Duration::from_secs(1)));
    assert_eq!(m.on_failure, OnFailure::SkipDependents);
    assert_eq!(m.demand.machine, Machine::Shared);
    assert!(m.demand.amounts.is_empty());
    assert_eq!(policy("alone").demand.machine, Machine::Exclusive);
    assert_eq!(policy("made").demand.machine, Machine::Shared);
    let service = |name: &str| {
        expanded
            .graph
            .service(find(&expanded, name))
            .expect(name)
            .policy
            .clone()
    };
    let two = service("server[tp=2]");
    assert_eq!(
        (two.restarts, two.ready.timeout),
        (5, Duration::from_secs(3))
    );
    let amounts = [("gpus".to_owned(), 2), ("ports".to_owned(), 1)];
    assert_eq!(two.demand.amounts, BTreeMap::from(amounts));
    assert_eq!(service("server[tp=1]").demand.amounts["gpus"], 1);
    assert!(matches!(expanded.supply["cpus"], Pool::Count(n) if n > 0));
}

#[test]
fn secrets_come_from_where_the_plan_says_and_are_named_by_the_expansion() {
    let plans = Plans::new(&[
        (
            "plan.toml",
            "[secrets]\nTOKEN = { file = \"conf/token\" }\n[steps.a]\nuse = \"test.make\"\nwith = { text = \"x ${secret.TOKEN}\" }\n",
        ),
        ("conf/token", "hf_secret\n"),
    ]);
    let expanded = plans.expand();
    assert_eq!(expanded.secrets.len(), 1);
    assert_eq!(
        expanded.text.sources.len(),
        1,
        "a secret's file is no source"
    );
    let redactor = engine::secrets::Redactor::new(&expanded.secrets);
    assert_eq!(redactor.text("token hf_secret!"), "token ***!");
}

proptest! {
    /// Whatever becomes of a plan, reading it ends with a plan or with problems that have places.
    #[test]
    fn no_damage_to_a_plan_makes_reading_fall_over(
        which in 0usize..2,
        from in 0usize..2000,
        length in 0usize..40,
        instead in "[\\[\\]{}\"=.,$a-c0-9\n ]{0,6}",
    ) {
        let mut texts = [USING.to_owned(), FRAGMENT.to_owned()];
        let text = &mut texts[which];
        let from = from % text.len();
        let to = (from + length).min(text.len());
        text.replace_range(from..to, &instead);
        let plans = Plans::new(&[("plan.toml", &texts[0]), ("library/serving.toml", &texts[1])]);
        let mut sources = Sources::default();
        let found = load(&plans.path(), &Settings::default(), &library(), &mut sources);
        for (place, _) in found.err().into_iter().flatten().filter_map(|p| p.place) {
            prop_assert!(place.span.start <= sources.get(place.source).text.len());
            sources.line_column(&place);
        }
    }
}
