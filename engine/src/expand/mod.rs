//! From a plan to its sealed graph: parameters set, axes multiplied out, references linked,
//! options read by the library. Finds every problem at once.
//!
//! Order of work: what is [composed](crate::compose) → declarations in order of what they mention
//! → instances → options.

mod after;
mod axes;
mod declare;
mod declared;
mod fronts;
mod gpus;
mod instances;
mod left_out;
mod linker;
mod order;
mod policies;
mod secrets;
mod supply;
mod together;

pub use policies::{
    LivenessOptions, MachineOption, OnFailureOption, ReadyOptions, RetryOn, RetryOptions,
    SamplesOptions, TimeoutOptions,
};

use crate::compose::{self, files::Files};
use crate::graph::Graph;
use crate::library::Library;
use crate::params::Settings;
use crate::policy::Supply;
use crate::problem::{Problem, Problems};
use crate::secrets::Secret;
use crate::source::{Place, SourceId, Sources};
use crate::step::PlanText;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use declare::Expansion;

/// A plan that is sound.
pub struct Expanded {
    /// Its name.
    pub name: String,
    /// Every instance.
    pub graph: Arc<Graph>,
    /// What steps that show the plan see.
    pub text: Arc<PlanText>,
    /// What there is of the machine; no node asks for more.
    pub supply: Arc<Supply>,
    /// Instances that are left out, in the order of the plan.
    pub pruned: Vec<Pruned>,
    /// Secrets that the plan names.
    pub secrets: Vec<Secret>,
}

/// An instance that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Its canonical name.
    pub node: String,
    /// Why: its `when`, or what it needs is left out itself.
    pub reason: String,
}

/// Reads, checks and expands the plan at `path`.
///
/// # Errors
/// Every problem that was found, sorted by place; `sources` holds the texts they point into.
pub fn load(
    path: &Path,
    settings: &Settings,
    library: &Library,
    sources: &mut Sources,
) -> Result<Expanded, Vec<Problem>> {
    expand(path, &[], settings, library, sources)
}

/// Checks and expands the plan that lies or lay at `path`. Files whose texts are `kept` are not
/// read again; the paths of kept texts are absolute, or relative to the working folder.
///
/// # Errors
/// Every problem that was found, sorted by place; `sources` holds the texts they point into.
pub fn expand(
    path: &Path,
    kept: &[(PathBuf, String)],
    settings: &Settings,
    library: &Library,
    sources: &mut Sources,
) -> Result<Expanded, Vec<Problem>> {
    let files = Files::new(path, kept);
    let mut problems = Problems::default();
    let composed = compose::compose(path, &files, settings, library, sources, &mut problems);
    let Some(composed) = composed else {
        return Err(problems.into_sorted());
    };
    let expansion = Expansion::new(&composed, library, &files, sources, &mut problems);
    let nodes = expansion.nodes();
    if !problems.is_empty() {
        return Err(once_per_broken_line(problems, sources));
    }
    let graph = Graph::seal(nodes.nodes, &nodes.dependencies)
        .map_err(|cycle| vec![Problem::whole(cycle.to_string())])?;
    let mut problems = fronts::check(&graph);
    problems.extend(together::check(&graph, &nodes.supply));
    if !problems.is_empty() {
        return Err(problems);
    }
    let text = PlanText {
        name: composed.plan.name.clone(),
        description: composed.plan.description,
        sources: sources
            .files()
            .map(|(path, text)| (path.to_owned(), text.to_owned()))
            .collect(),
        params: composed.params,
    };
    Ok(Expanded {
        name: composed.plan.name,
        graph: Arc::new(graph),
        text: Arc::new(text),
        supply: Arc::new(nodes.supply),
        pruned: nodes.pruned,
        secrets: nodes.secrets,
    })
}

/// A line of a file.
type Line = (SourceId, usize);

fn line_of(place: &Place, sources: &Sources) -> Line {
    (place.source, sources.line_column(place).0)
}

/// Keeps the first problem of each line that is not TOML: whatever else is wrong there follows.
fn once_per_broken_line(problems: Problems, sources: &Sources) -> Vec<Problem> {
    let broken = problems.broken().iter().map(|p| line_of(p, sources));
    let broken: BTreeSet<Line> = broken.collect();
    let mut told = BTreeSet::new();
    let is_news = |p: &Problem| {
        let line = p.place.as_ref().map(|(place, _)| line_of(place, sources));
        line.is_none_or(|line| !broken.contains(&line) || told.insert(line))
    };
    problems.into_sorted().into_iter().filter(is_news).collect()
}
