//! Programs that a step or a service runs on the way: under a guardian, with a limit, and with logs of
//! their own.

use engine::process::{Exit, ProcessSpec, STDOUT_LOG, Supervisor, log_tail, telling_log};
use engine::step::{StepContext, StepError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a program may take to end when told to.
const GRACE: Duration = Duration::from_secs(5);
/// Lines of a log that tell why.
const TELLING_LINES: usize = 40;

/// What programs get of this process's environment: where things lie and how the network is reached, but
/// not what they do.
const PASSED: &[&str] = &[
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "UV_CACHE_DIR",
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// Runs programs for one step or service.
pub(crate) struct Runner {
    pub(crate) supervisor: Supervisor,
    /// For whom.
    pub(crate) label: String,
    /// Each program has a folder of its own here.
    pub(crate) logs: PathBuf,
    /// Values that no log may hold.
    pub(crate) secrets: Vec<String>,
}

/// Why a program brought nothing.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How it ended; nothing if it ran for too long.
    pub(crate) exit: Option<Exit>,
    /// The last lines that it said.
    pub(crate) said: Vec<String>,
    /// Where it said more.
    pub(crate) log: Option<PathBuf>,
}

impl Runner {
    /// One that runs programs for a step.
    pub(crate) fn of(context: &StepContext) -> Self {
        Self {
            supervisor: context.supervisor.clone(),
            label: context.node.clone(),
            logs: context.logs.clone(),
            secrets: context.resolved.secrets.clone(),
        }
    }

    /// The folder of the program called `name` here.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.logs.join(name)
    }

    /// Runs a program to its end and returns what it said on its standard output; `name` names it among
    /// those of the same step. Dropping the future ends it with all that it started.
    ///
    /// # Errors
    /// It cannot be started; or it ended otherwise than with status 0, or ran longer than `limit`.
    pub(crate) async fn run(
        &self,
        name: &str,
        argv: Vec<String>,
        limit: Duration,
    ) -> Result<Result<String, Failure>, StepError> {
        let folder = self.folder(name);
        crate::files::create_dir(&folder)?;
        // What an earlier one of that name said is no answer of this one.
        let _ = std::fs::remove_file(folder.join(STDOUT_LOG));
        let mut spec = ProcessSpec::new(self.label.as_str(), argv, passed(), &folder, &folder);
        spec.secrets.clone_from(&self.secrets);
        let process = self.supervisor.start(spec).await;
        let process = process.map_err(|e| StepError::new(e.to_string()))?;
        let exit = tokio::time::timeout(limit, process.exited()).await.ok();
        let stopped = process.stop(GRACE).await;
        stopped.map_err(|e| StepError::because("it left processes behind", e))?;
        if exit != Some(Exit::Code(0)) {
            return Ok(Err(failure(exit, &folder)));
        }
        crate::files::read_text(&folder.join(STDOUT_LOG)).map(Ok)
    }
}

fn failure(exit: Option<Exit>, folder: &Path) -> Failure {
    let log = telling_log(folder);
    Failure {
        exit,
        said: log
            .as_deref()
            .map(|log| log_tail(log, TELLING_LINES))
            .unwrap_or_default(),
        log,
    }
}

fn passed() -> BTreeMap<String, String> {
    let value = |name: &&str| Some(((*name).to_owned(), std::env::var(name).ok()?));
    PASSED.iter().filter_map(value).collect()
}
