//! Loading a plan for a command: its problems are drawn here, whoever asked.

use crate::args::PlanArguments;
use crate::terminal::{self, Terminal};
use crate::{exit, render};
use engine::expand::{self, Expanded};
use engine::library::Library;
use engine::params::Settings;
use engine::problem::Problem;
use engine::run::RunError;
use engine::run::folder::read_recipe;
use engine::source::Sources;
use std::path::{Path, PathBuf};

/// A plan that is sound, or everything that is wrong with it.
pub(crate) struct Loaded {
    /// What it expands to.
    pub(crate) expanded: Result<Expanded, Vec<Problem>>,
    /// The texts that problems point into.
    pub(crate) sources: Sources,
    /// How the plan is called in messages.
    pub(crate) shown: String,
}

impl PlanArguments {
    /// Returns what the command line sets.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            set: self.set.clone(),
            variant: self.variant.clone(),
        }
    }

    /// Reads, checks and expands the plan.
    pub(crate) fn load(&self, library: &Library) -> Loaded {
        let mut sources = Sources::default();
        let expanded = expand::load(&self.plan, &self.settings(), library, &mut sources);
        Loaded {
            expanded: sound(expanded),
            sources,
            shown: self.plan.display().to_string(),
        }
    }
}

/// Expands a plan whose texts were kept with a run.
pub(crate) fn load_kept(
    path: &Path,
    texts: &[(PathBuf, String)],
    settings: &Settings,
    library: &Library,
) -> Loaded {
    let mut sources = Sources::default();
    let expanded = expand::expand(path, texts, settings, library, &mut sources);
    Loaded {
        expanded: sound(expanded),
        sources,
        shown: path.display().to_string(),
    }
}

/// Adds the problems that kinds of services have with each other.
fn sound(expanded: Result<Expanded, Vec<Problem>>) -> Result<Expanded, Vec<Problem>> {
    let expanded = expanded?;
    match steps::problems(&expanded.graph) {
        problems if problems.is_empty() => Ok(expanded),
        problems => Err(problems),
    }
}

/// Expands the plan of the run in `folder`, as it was when the run began.
///
/// # Errors
/// If what the run keeps of it cannot be read.
pub(crate) fn load_run(folder: &Path, library: &Library) -> Result<Loaded, RunError> {
    let (recipe, text) = read_recipe(folder)?;
    let (path, settings) = (&recipe.plan_path, &recipe.settings);
    Ok(load_kept(path, &text, settings, library))
}

impl Loaded {
    /// Returns the plan, or draws what is wrong with it and returns the exit code for that.
    pub(crate) fn or_draw(self, terminal: &Terminal) -> Result<Expanded, u8> {
        self.expanded.map_err(|problems| {
            terminal::error_line(render::problems(
                &problems,
                &self.sources,
                &self.shown,
                terminal,
            ));
            exit::UNSOUND
        })
    }
}
