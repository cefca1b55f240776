//! `benchwright run`: a new run of a plan.

use super::{Session, check};
use crate::args::Run;
use crate::execute::{Execution, jobs};
use crate::exit::Failure;
use crate::outputs;
use engine::run::RunSettings;
use engine::run::folder::{Recipe, RunFolder};
use std::path::absolute;

/// Runs a plan.
pub(super) fn run(arguments: &Run, session: &Session) -> Result<u8, Failure> {
    let loaded = arguments.plan.load(&(session.library)());
    let expanded = match loaded.or_draw(&session.terminal) {
        Ok(expanded) => expanded,
        Err(code) => return Ok(code),
    };
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
    let recipe = Recipe {
        // From wherever the run is resumed, paths in the plan mean the same.
        plan_path: absolute(&arguments.plan.plan).unwrap_or_else(|_| arguments.plan.plan.clone()),
        settings: arguments.plan.settings(),
        seed: arguments.seed,
        fresh: arguments.fresh,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
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
        json: arguments.json,
    }
    .until_the_end()
}
