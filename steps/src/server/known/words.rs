//! The command line of a known server: its program, its flags, and the variables of its process.

use super::ranks::{self, Rank};
use super::{Common, PORT, enter, program_of, whole};
use crate::files;
use crate::server::child_environment;
use engine::service::LaunchContext;
use engine::step::{Resolved, StepContext, StepError};
use engine::types::Text;
use std::collections::BTreeMap;
use std::path::Path;

impl Common<'_> {
    /// The command line of one process, and its variables.
    pub(super) fn command_line(
        &self,
        context: &LaunchContext,
        port: u16,
        rank: Option<&Rank>,
        environment: Option<&Path>,
    ) -> Result<(Vec<String>, BTreeMap<String, String>), StepError> {
        let nature = self.nature;
        let port = port.to_string();
        let fill = |text: &Text| {
            let text = StepContext::resolve_text(&context.resolved, text)?;
            Ok(text.replace(PORT, &port))
        };
        let declared = self
            .env
            .iter()
            .map(|(name, value)| Ok((name.clone(), fill(value)?)))
            .collect::<Result<_, StepError>>()?;
        let variables = self.variables(declared, environment);
        let mut argv = self.program(environment, fill)?;
        argv.extend(nature.model_flag.iter().map(|w| (*w).to_owned()));
        argv.push(context.path(self.model)?.display().to_string());
        let [host_flag, port_flag] = nature.address;
        argv.extend([host_flag, "127.0.0.1", port_flag, &port].map(str::to_owned));
        let given = self.given.iter();
        argv.extend(given.flat_map(|given| given.words(nature.spelling)));
        if let (Some(rank), Some(ranks)) = (rank, self.beyond.ranks()) {
            argv.extend(rank.words(ranks.meeting));
        }
        argv.extend(self.beyond.words_of_places(&whole(&context.folder)));
        if let Some(file) = self.beyond.options_file(&context.resolved)? {
            let path = context.folder.join(file.name);
            files::write(&path, &file.text)?;
            argv.extend([file.flag.to_owned(), path.display().to_string()]);
        }
        let flags = self.further_flags(&context.resolved, rank.is_some())?;
        argv.extend(flags.into_iter().map(|flag| flag.replace(PORT, &port)));
        Ok((argv, variables))
    }

    /// The flags of `args`, but for what a rank's own words say.
    fn further_flags(&self, resolved: &Resolved, has_rank: bool) -> Result<Vec<String>, StepError> {
        let args = match has_rank {
            true => self.args.without(ranks::is_of_ranks),
            false => self.args.clone(),
        };
        let text = |text: &_| StepContext::resolve_text(resolved, text);
        args.flags_as(|name| self.nature.spelling.flag(name), text)
    }

    /// The program and its first words.
    fn program(
        &self,
        environment: Option<&Path>,
        fill: impl Fn(&Text) -> Result<String, StepError>,
    ) -> Result<Vec<String>, StepError> {
        if !self.command.is_empty() {
            return self.command.iter().map(fill).collect();
        }
        let mut words: Vec<String> = self
            .nature
            .program
            .iter()
            .map(|w| (*w).to_owned())
            .collect();
        let Some(environment) = environment else {
            return Ok(words);
        };
        words[0] = program_of(
            environment,
            &words[0],
            self.nature.name,
            self.nature.package,
        )?;
        Ok(words)
    }

    /// The variables of the process: inherited, usual, declared; programs of its environment come first.
    fn variables(
        &self,
        declared: BTreeMap<String, String>,
        environment: Option<&Path>,
    ) -> BTreeMap<String, String> {
        let usual = self.nature.variables.iter();
        let mut all: BTreeMap<String, String> = usual
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        all.extend(declared);
        let mut all = child_environment(all, self.inherit);
        if let Some(environment) = environment {
            enter(environment, &mut all);
        }
        all
    }
}
