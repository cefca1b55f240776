//! `benchwright server`: the embedded inference server on its own.

use super::Session;
use crate::args::Server;
use crate::exit::{self, Failure};
use crate::hosting::{self, Host};
use crate::words;
use embedded_server::{ExecutorKind, LoadFormat, LoadedModel, ServeError, ServerOptions};
use std::time::Instant;

/// Serves until a signal says otherwise.
pub(super) fn server(arguments: &Server, session: &Session) -> Result<u8, Failure> {
    let options = arguments.flags.options();
    let options = options.map_err(|e| Failure::new(e.message).help(e.help))?;
    let talkative = session.terminal.is_talkative();
    let host = Host {
        address_file: arguments.address_file.as_deref(),
        talkative,
        then: "loading the model",
    };
    host.run(|shutdown, on_listening| {
        let for_load = options.clone();
        let load = move || load(&for_load, talkative);
        embedded_server::serve_loaded(options, load, shutdown, on_listening)
    })?;
    Ok(exit::DONE)
}

/// Loads the models, and says what came of it.
fn load(options: &ServerOptions, talkative: bool) -> Result<Vec<LoadedModel>, ServeError> {
    let names: Vec<String> = options
        .each()
        .iter()
        .map(|(options, _)| format!("`{}`", options.model_name()))
        .collect();
    let name = match names.len() {
        1 => format!("model {}", names.join(", ")),
        _ => format!("models {}", names.join(", ")),
    };
    let began = Instant::now();
    let models = embedded_server::load(options)?;
    let took = words::duration(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    let weights = match options.weights() {
        LoadFormat::Safetensors => "its own",
        LoadFormat::Auto | LoadFormat::Dummy | LoadFormat::DummyScaled => "random",
    };
    hosting::say(talkative)(match options.executor {
        ExecutorKind::Cpu => {
            format!("{name} loaded in {took} with {weights} weights; ready")
        }
        ExecutorKind::Sim => {
            let how = options.simulated().unwrap_or_default();
            format!("{name} not computed, only simulated ({how}); ready")
        }
    });
    Ok(models)
}
