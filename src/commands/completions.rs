//! `benchwright completions`: a script that a shell reads.

use crate::args::{Arguments, Completions};
use crate::{exit, terminal};
use clap::CommandFactory;

/// Writes the script to standard output.
pub(super) fn completions(arguments: &Completions) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Arguments::command(),
        "benchwright",
        &mut script,
    );
    terminal::write(&script);
    exit::DONE
}
