//! uv where it is there, else the pip that comes with Python: what each is asked for a lock and for an
//! environment of one. Knows no cache.

use super::interpreter::Interpreter;
use super::mend;
use super::named::Sources;
use super::runner::Runner;
use crate::files;
use engine::process::find_program;
use engine::step::StepError;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long resolving may take.
const RESOLVING: Duration = Duration::from_secs(900);
/// How long downloading and installing may take: engines bring gigabytes.
const INSTALLING: Duration = Duration::from_secs(3600);

engine::choices! {
    /// Who resolves and installs.
    pub enum InstallerChoice {
        /// uv if it is in `PATH`, else pip.
        Automatic = "automatic",
        /// uv.
        Uv = "uv",
        /// The pip that comes with Python.
        Pip = "pip",
    }
}

/// Who resolves and installs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Installer {
    /// Its program.
    Uv(PathBuf),
    /// Each environment brings its own.
    Pip,
}

/// What is resolved to a lock.
pub(super) struct Wanted {
    pub(super) requirements: Vec<String>,
    pub(super) constraints: Vec<String>,
    pub(super) overrides: Vec<String>,
}

impl Installer {
    /// Finds the one that is chosen.
    pub(super) fn find(choice: InstallerChoice) -> Result<Self, StepError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let uv = find_program("uv", Path::new("/"), &path);
        match (choice, uv) {
            (InstallerChoice::Pip, _) | (InstallerChoice::Automatic, Err(_)) => Ok(Self::Pip),
            (_, Ok(uv)) => Ok(Self::Uv(uv)),
            (InstallerChoice::Uv, Err(_)) => Err(StepError::new("there is no `uv` in `PATH`")
                .help("install it (`pip install uv`), or write `installer = \"automatic\"`")),
        }
    }

    /// Its name.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Uv(_) => "uv",
            Self::Pip => "pip",
        }
    }

    /// Resolves what is wanted: a line for every package, with its version and the digests of its files.
    pub(super) async fn lock(
        &self,
        wanted: &Wanted,
        sources: &Sources,
        python: &Interpreter,
        runner: &Runner,
    ) -> Result<String, StepError> {
        let folder = runner.folder("lock");
        files::create_dir(&folder)?;
        let mut flags = sources.flags();
        let mut list = |flag: &str, name: &str, lines: &[String]| {
            if lines.is_empty() {
                return Ok(());
            }
            flags.extend([flag.to_owned(), name.to_owned()]);
            files::write(&folder.join(name), lines.join("\n") + "\n")
        };
        list("--constraint", "constraints.txt", &wanted.constraints)?;
        files::write(
            &folder.join("requirements.in"),
            wanted.requirements.join("\n") + "\n",
        )?;
        match self {
            Self::Uv(uv) => {
                list("--override", "overrides.txt", &wanted.overrides)?;
                uv_lock(uv, flags, python, runner).await
            }
            Self::Pip if !wanted.overrides.is_empty() => Err(StepError::new(
                "pip knows no overrides, and there is no `uv` in `PATH`",
            )
            .help("install uv (`pip install uv`), or give the whole `lock`")),
            Self::Pip => pip_lock(flags, python, runner).await,
        }
    }

    /// Makes `to` an environment of what `lock`, a file, names and nothing else.
    pub(super) async fn install(
        &self,
        lock: &Path,
        sources: &Sources,
        python: &Interpreter,
        to: &Path,
        runner: &Runner,
    ) -> Result<(), StepError> {
        let (to, lock) = (to.display().to_string(), lock.display().to_string());
        let its_python = format!("{to}/bin/python");
        let (make, mut install) = match self {
            Self::Uv(uv) => {
                let uv = uv.display().to_string();
                (
                    words(&[
                        &uv,
                        "venv",
                        "--no-project",
                        "--python",
                        &python.program,
                        &to,
                    ]),
                    words(&[&uv, "pip", "sync", "--python", &its_python, &lock]),
                )
            }
            Self::Pip => (
                words(&[&python.program, "-m", "venv", &to]),
                words(&[
                    &its_python,
                    "-m",
                    "pip",
                    "install",
                    "--no-input",
                    "--no-deps",
                    "-r",
                    &lock,
                ]),
            ),
        };
        install.extend(sources.flags());
        let made = runner.run("venv", make, RESOLVING).await?;
        made.map_err(|e| mend::failed("could not make the environment", &e))?;
        let installed = runner.run("install", install, INSTALLING).await?;
        installed.map_err(|e| mend::failed("could not install the lock", &e))?;
        Ok(())
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn uv_lock(
    uv: &Path,
    flags: Vec<String>,
    python: &Interpreter,
    runner: &Runner,
) -> Result<String, StepError> {
    let uv = uv.display().to_string();
    let mut argv = words(&[&uv, "pip", "compile", "requirements.in", "--quiet"]);
    argv.extend(words(&[
        "--python",
        &python.program,
        "--no-python-downloads",
    ]));
    argv.extend(words(&[
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
    ]));
    argv.extend(flags);
    let said = runner.run("lock", argv, RESOLVING).await?;
    said.map_err(|e| mend::failed("could not lock the requirements", &e))
}

/// pip resolves for the Python that it runs in, so it gets an environment for that.
async fn pip_lock(
    flags: Vec<String>,
    python: &Interpreter,
    runner: &Runner,
) -> Result<String, StepError> {
    let aside = runner.folder("lock").join("pip");
    let there = aside.display().to_string();
    let make = words(&[&python.program, "-m", "venv", &there]);
    let made = runner.run("venv", make, RESOLVING).await?;
    made.map_err(|e| mend::failed("could not make an environment to resolve in", &e))?;
    let report = runner.folder("lock").join("report.json");
    let its_python = aside.join("bin/python").display().to_string();
    let mut argv = words(&[&its_python, "-m", "pip", "install", "--no-input", "--quiet"]);
    argv.extend(words(&["--dry-run", "--ignore-installed", "--report"]));
    argv.extend(words(&[
        &report.display().to_string(),
        "-r",
        "requirements.in",
    ]));
    argv.extend(flags);
    let said = runner.run("lock", argv, RESOLVING).await;
    // Only its pip was wanted.
    let _ = std::fs::remove_dir_all(&aside);
    said?.map_err(|e| mend::failed("could not lock the requirements", &e))?;
    Ok(lock_of(&files::read_json(&report)?))
}

/// What pip reports of what it would install.
#[derive(Deserialize)]
struct Report {
    install: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    download_info: Download,
    #[serde(default)]
    is_direct: bool,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct Download {
    url: String,
    #[serde(default)]
    archive_info: Value,
    #[serde(default)]
    vcs_info: Value,
}

/// Writes a report as a lock, by name, with the digest of each file that pip chose.
fn lock_of(report: &Report) -> String {
    let mut lines: Vec<String> = report.install.iter().map(line).collect();
    lines.sort();
    lines.concat()
}

fn line(item: &Item) -> String {
    let name = item.metadata.name.to_lowercase().replace(['_', '.'], "-");
    let download = &item.download_info;
    let text =
        |value: &Value, at: &str| value.pointer(at).and_then(Value::as_str).map(str::to_owned);
    if let Some(commit) = text(&download.vcs_info, "/commit_id") {
        let vcs = text(&download.vcs_info, "/vcs").unwrap_or_default();
        return format!("{name} @ {vcs}+{}@{commit}\n", download.url);
    }
    let what = match item.is_direct {
        true => format!("{name} @ {}", download.url),
        false => format!("{name}=={}", item.metadata.version),
    };
    match text(&download.archive_info, "/hashes/sha256") {
        Some(digest) => format!("{what} \\\n    --hash=sha256:{digest}\n"),
        None => format!("{what}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_pip_becomes_a_lock() {
        let report = r#"{"version": "1", "install": [
            {"download_info": {"url": "https://x/six.whl", "archive_info": {"hashes": {"sha256": "ab"}}}, "is_direct": false, "metadata": {"name": "six", "version": "1.17.0"}},
            {"download_info": {"url": "file:///w/my_own.whl", "archive_info": {}}, "is_direct": true, "metadata": {"name": "My_Own", "version": "1"}},
            {"download_info": {"url": "https://h/r.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}, "is_direct": true, "metadata": {"name": "r", "version": "2"}}]}"#;
        let report: Report = serde_json::from_str(report).expect("a report");
        let lock = "my-own @ file:///w/my_own.whl\nr @ git+https://h/r.git@c0ffee\nsix==1.17.0 \\\n    --hash=sha256:ab\n";
        assert_eq!(lock_of(&report), lock);
    }
}
