//! How long plans of many instances take to be read, expanded and ordered, and how much memory.
//!
//! `cargo bench -p engine --bench expansion -- [INSTANCES…]`
//!
//! The plan has three axes, two pure steps for each of their combinations, the second of which
//! reads the first, and one report after all of them.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports on standard output"
)]

use engine::expand::{Expanded, load};
use engine::library::Library;
use engine::params::Settings;
use engine::schedule::Schedule;
use engine::source::Sources;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Any, Artifact, ArtifactKind, Text};
use std::path::Path;
use std::time::{Duration, Instant};

/// Sizes whose median is taken; larger ones run once.
const SMALL: usize = 200_000;

engine::options! {
    /// Makes a file.
    pub struct Make {
        /// What is written.
        text: Text = Text { parts: Vec::new() };
        /// How much of it.
        size: u32 = 1;
        /// What is read.
        from: Option<Artifact<Any>>;
    }
}

engine::options! {
    /// Shows what was made.
    pub struct Show {
        /// Its title.
        title: Text = Text { parts: Vec::new() };
    }
}

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
            const SUMMARY: &'static str = "For the benchmark.";
            fn outputs() -> &'static [OutputSpec] {
                &[OutputSpec {
                    name: "file",
                    file: "file",
                    kind: Any::NAME,
                    doc: "It.",
                }]
            }
        }
    )+ };
}

steps! {
    Make, "bench.make", Pure;
    Show, "bench.show", Report;
}

/// What one size cost.
#[derive(Clone, Copy)]
struct Cost {
    n_instances: usize,
    expansion: Duration,
    ordering: Duration,
}

fn main() {
    // cargo passes its own flags, such as `--bench`.
    let given = std::env::args().skip(1);
    let mut sizes: Vec<usize> = given.filter_map(|argument| argument.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000, 1_000_000];
    }
    println!(
        "{:>10} {:>11} {:>12} {:>8} {:>10} {:>8} {:>9}",
        "instances", "expansion s", "instances/s", "µs each", "ordering s", "µs each", "peak MiB"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plan.toml");
    for size in sizes {
        std::fs::write(&path, plan(size)).expect("a file");
        let repeats = if size <= SMALL { 3 } else { 1 };
        let costs: Vec<Cost> = (0..repeats).map(|_| cost(&path)).collect();
        let n_instances = costs[0].n_instances;
        let expansion = median(costs.iter().map(|c| c.expansion));
        let ordering = median(costs.iter().map(|c| c.ordering));
        let each = |d: Duration| d.as_secs_f64() * 1e6 / n_instances as f64;
        println!(
            "{n_instances:>10} {:>11.3} {:>12.0} {:>8.2} {:>10.3} {:>8.2} {:>9.0}",
            expansion.as_secs_f64(),
            n_instances as f64 / expansion.as_secs_f64(),
            each(expansion),
            ordering.as_secs_f64(),
            each(ordering),
            peak_mib(),
        );
    }
}

/// Writes a plan of about `n_instances`.
fn plan(n_instances: usize) -> String {
    let n_points = n_instances / 2;
    let inner = (n_points as f64).cbrt().round().max(1.0) as usize;
    let outer = (n_points / (inner * inner)).max(1);
    let values = |n: usize| (0..n).collect::<Vec<_>>();
    format!(
        "schema = 1\nname = \"expansion\"\n\
         [axes]\na = {:?}\nb = {:?}\nc = {:?}\n\
         [steps.first]\nuse = \"bench.make\"\naxes = [\"a\", \"b\", \"c\"]\n\
         with = {{ text = \"${{axes.a}} of ${{axes.b}}\", size = \"${{axes.c}}\" }}\n\
         [steps.second]\nuse = \"bench.make\"\nwith = {{ from = \"${{steps.first.file}}\" }}\n\
         [steps.report]\nuse = \"bench.show\"\nafter = [\"second\"]\n",
        values(outer),
        values(inner),
        values(inner),
    )
}

/// Expands and orders a plan.
fn cost(path: &Path) -> Cost {
    let library = Library::default().step::<Make>().step::<Show>();
    let begin = Instant::now();
    let loaded = load(
        path,
        &Settings::default(),
        &library,
        &mut Sources::default(),
    );
    let expansion = begin.elapsed();
    let Ok(Expanded { graph, supply, .. }) = loaded else {
        panic!("the plan is sound");
    };
    let begin = Instant::now();
    let mut schedule = Schedule::of(&graph, 1, 1, &supply);
    let actions = schedule.begin();
    let ordering = begin.elapsed();
    assert!(!actions.is_empty());
    Cost {
        n_instances: graph.order().len(),
        expansion,
        ordering,
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// The most memory that the process had so far.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| {
        line.trim()
            .trim_end_matches(" kB")
            .trim()
            .parse::<f64>()
            .ok()
    });
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}
