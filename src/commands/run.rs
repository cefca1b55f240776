//! `benchwright run`: a new run of a plan.

use super::{Session, check};
use crate::args::Run;
use crate::execute::{Execution, jobs};
use crate::exit::{self, Failure};
use crate::locks::Pinned;
use crate::outputs;
use engine::lock;
use engine::run::RunSettings;
use engine::run::folder::{Recipe, RunFolder};
use std::path::{PathBuf, absolute};

/// Runs a plan.
pub(super) fn run(arguments: &Run, session: &Session) -> Result<u8, Failure> {
    let loaded = arguments.plan.load(&(session.library)());
    let expanded = match loaded.or_draw(&session.terminal) {
        Ok(expanded) => expanded,
        Err(code) => return Ok(code),
    };
    let pinned = match pinned(arguments, session) {
        Ok(pinned) => pinned,
        Err(code) => return Ok(code),
    };
    if let Some(pinned) = &pinned
        && !pinned.admits(&expanded, &session.out, &session.terminal)?
    {
        return Ok(exit::UNSOUND);
    }
    if arguments.dry_run {
        return check::show(
            &expanded,
            &arguments.plan,
            arguments.fresh,
            arguments.json,
            session,
        );
    }
    let store = outputs::open(&session.out)?;
    let recipe = recipe(arguments);
    let folder = RunFolder::create(
        &session.out,
        &expanded.name,
        &expanded.text.sources,
        &recipe,
    )
    .map_err(|error| outputs::run_failure(&session.out, &error))?;
    let settings = RunSettings {
        locks: engine::claims::Claims::usual_folder(),
        jobs: jobs(arguments.jobs),
        fresh: arguments.fresh,
        seed: arguments.seed,
        resumed: false,
    };
    Execution {
        session,
        expanded,
        store,
        folder,
        settings,
        pinned,
        json: arguments.json,
    }
    .until_the_end()
}

/// How the run is asked for, enough to ask again.
fn recipe(arguments: &Run) -> Recipe {
    let plan = &arguments.plan.plan;
    Recipe {
        // From wherever the run is resumed, paths in the plan mean the same.
        plan_path: absolute(plan).unwrap_or_else(|_| plan.clone()),
        settings: arguments.plan.settings(),
        seed: arguments.seed,
        fresh: arguments.fresh,
        locked: lock_file(arguments).map(|file| absolute(&file).unwrap_or(file)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Reads the lock file that the plan must agree with, if one is asked for.
fn pinned(arguments: &Run, session: &Session) -> Result<Option<Pinned>, u8> {
    let Some(file) = lock_file(arguments) else {
        return Ok(None);
    };
    Pinned::read(&file, &arguments.plan.plan, &session.terminal).map(Some)
}

fn lock_file(arguments: &Run) -> Option<PathBuf> {
    let file = arguments.locked.as_ref()?;
    let beside = || lock::beside(&arguments.plan.plan);
    Some(file.clone().unwrap_or_else(beside))
}
