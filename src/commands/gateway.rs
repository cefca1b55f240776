//! `benchwright gateway`: the gateway of `multimodel.controller` on its own.

use super::Session;
use crate::args::Gateway;
use crate::exit::{self, Failure};
use crate::hosting::Host;
use crate::terminal;
use gateway::Config;
use std::path::Path;

/// Serves until a signal says otherwise.
pub(super) fn gateway(arguments: &Gateway, session: &Session) -> Result<u8, Failure> {
    let config = read(&arguments.config)?;
    let host = Host {
        address_file: arguments.address_file.as_deref(),
        talkative: session.terminal.is_talkative(),
        then: "bringing the models to where they begin",
    };
    // An error is told also where nothing else is.
    let on_failure = |failure: &str| terminal::error_line(failure);
    host.run(|shutdown, on_listening| gateway::serve(config, shutdown, on_listening, on_failure))?;
    Ok(exit::DONE)
}

fn read(file: &Path) -> Result<Config, Failure> {
    let failed = |why: String| Failure::new(format!("could not read `{}`: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| failed(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| {
        let help = "`benchwright gateway --help` shows what it has to hold";
        failed(e.to_string()).help(help)
    })
}
