//! `shell.run`: any command, with what it reads and writes declared.

use crate::command;
use crate::diagnosis;
use crate::files;
use crate::kinds::Files;
use engine::options::Parser;
use engine::process::{Exit, STDOUT_LOG};
use engine::source::Place;
use engine::step::{
    FailureClass, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Any, Artifact, ArtifactKind, Text};
use engine::value::Table;
use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;

/// How long a command may take to end when told to.
const GRACE: Duration = Duration::from_secs(5);

engine::options! {
    /// Options of `shell.run`.
    pub struct ShellRun {
        /// The program and its arguments; no shell is involved. References to outputs of other
        /// steps become paths, and inputs of this step.
        argv: Vec<Text>;
        /// Files and folders that it reads besides those in `argv`; `{inputs.NAME}` in `argv`
        /// and `env` stands for the path.
        inputs: BTreeMap<String, Artifact<Any>> = BTreeMap::new();
        /// Names of files and folders that it must leave in its working folder.
        outputs: Vec<String> = Vec::new();
        /// Environment variables: it sees these and the inherited ones, no others.
        env: BTreeMap<String, Text> = BTreeMap::new();
        /// Environment variables that are passed on as they are. Values other than those of `PATH`,
        /// `HOME` and `LANG` are part of the key.
        inherit: Vec<String> = vec!["PATH".to_owned()];
    }
}

impl StepType for ShellRun {
    const NAME: &'static str = "shell.run";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Runs any command in an empty folder, and keeps what it leaves there.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "files",
            file: "files",
            kind: Files::NAME,
            doc: "The command's working folder with what it wrote; its standard output is in `stdout.txt`.",
        }]
    }

    fn identity(&self) -> Vec<(String, String)> {
        // The working folder is empty, so only absolute paths can name files.
        command::identity(&self.argv, &self.inherit, Path::new("/"))
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |name: &str| table.get(name).map_or(place, |v| &v.place).clone();
        if self.argv.is_empty() {
            parser.wrong::<()>(
                &at("argv"),
                "the command is empty",
                "no program",
                "write `argv = [\"PROGRAM\", \"ARGUMENT\", …]`",
            );
        }
        let inputs: Vec<&str> = self.inputs.keys().map(String::as_str).collect();
        command::check_inputs(table, &inputs, parser);
        for output in &self.outputs {
            let inside = Path::new(output)
                .components()
                .all(|c| matches!(c, Component::Normal(_)));
            if !inside || output.is_empty() {
                parser.wrong::<()>(
                    &at("outputs"),
                    format!("`{output}` lies outside of the working folder"),
                    "not inside",
                    "name a path below the working folder, without `..`",
                );
            }
        }
    }
}

#[async_trait::async_trait]
impl Step for ShellRun {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let folder = context.output("files");
        files::create_dir(&folder)?;
        let argv = self
            .argv
            .iter()
            .map(|t| self.fill(context, t))
            .collect::<Result<Vec<_>, _>>()?;
        let mut env: BTreeMap<String, String> = self
            .inherit
            .iter()
            .filter_map(|n| Some((n.clone(), std::env::var(n).ok()?)))
            .collect();
        for (name, text) in &self.env {
            env.insert(name.clone(), self.fill(context, text)?);
        }
        context.doing(format!(
            "running `{}`",
            argv.first().map_or("", String::as_str)
        ));
        let process = context.spawn(argv, env, &folder).await?;
        let exit = tokio::select! {
            exit = process.exited() => exit,
            () = context.cancelled() => {
                // What cannot be stopped is killed; either way nothing is left.
                let _ = process.stop(GRACE).await;
                return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
            }
        };
        // What it left behind must not write to what is taken from here on.
        let stopped = process.stop(GRACE).await;
        stopped.map_err(|error| StepError::because("the command left processes behind", error))?;
        if !matches!(exit, Exit::Code(0)) {
            return Err(diagnosis::failed(
                format!("the command {exit}"),
                Some(exit),
                &context.logs,
            ));
        }
        // A copy: what is kept by content must not change with a log.
        files::copy(&context.logs.join(STDOUT_LOG), &folder.join("stdout.txt"))?;
        if let Some(missing) = self.outputs.iter().find(|o| !folder.join(o).exists()) {
            let message = format!("the command did not write `{missing}`");
            return Err(diagnosis::failed(message, None, &context.logs));
        }
        Ok(StepReport::default())
    }
}

impl ShellRun {
    fn fill(&self, context: &StepContext, text: &Text) -> Result<String, StepError> {
        let mut filled = context.text(text)?;
        for (name, input) in &self.inputs {
            filled = filled.replace(
                &format!("{{inputs.{name}}}"),
                &context.path(input)?.display().to_string(),
            );
        }
        Ok(filled)
    }
}
