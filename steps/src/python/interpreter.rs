//! The Python that an environment is built on.

use super::installer::Installer;
use super::runner::Runner;
use engine::process::find_program;
use engine::step::StepError;
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;

/// How long one may take to say what it is.
const LIMIT: Duration = Duration::from_secs(60);

/// Lets a Python say what it is.
const ASK: &str = "import json, platform, sys, sysconfig
libc = ''.join(platform.libc_ver())
kind = '-'.join([sys.implementation.name, sysconfig.get_platform(), libc]).strip('-')
print(json.dumps({'program': sys.executable, 'version': platform.python_version(), 'platform': kind}))";

/// A Python.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Interpreter {
    /// Its own path.
    pub(super) program: String,
    /// Such as `3.11.7`.
    pub(super) version: String,
    /// What decides which wheels fit, such as `cpython-linux-x86_64-glibc2.36`.
    pub(super) platform: String,
}

/// Finds the Python that `wanted` means: a version such as `3.11`, a program, or a path.
pub(super) async fn find(
    wanted: &str,
    installer: &Installer,
    runner: &Runner,
) -> Result<Interpreter, StepError> {
    let version = is_version(wanted).then_some(wanted);
    let candidates = match version {
        Some(version) => vec![format!("python{version}"), "python3".to_owned()],
        None => vec![wanted.to_owned()],
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cwd = std::env::current_dir().unwrap_or_default();
    for candidate in candidates {
        if let Ok(program) = find_program(&candidate, &cwd, &path)
            && let Some(found) = ask(&program, runner).await?
            && version.is_none_or(|version| fits(&found.version, version))
        {
            return Ok(found);
        }
    }
    if let (Some(version), Installer::Uv(uv)) = (version, installer)
        && let Some(found) = of_uv(uv, version, runner).await?
    {
        return Ok(found);
    }
    Err(
        StepError::new(format!("there is no Python `{wanted}` here")).help(
            "install it, or name one that is here: a version such as `3.11`, a program, or a path",
        ),
    )
}

/// One that uv has installed.
async fn of_uv(
    uv: &Path,
    version: &str,
    runner: &Runner,
) -> Result<Option<Interpreter>, StepError> {
    let words = ["python", "find", "--no-python-downloads", version];
    let argv = std::iter::once(uv.display().to_string()).chain(words.map(str::to_owned));
    match runner.run("python", argv.collect(), LIMIT).await? {
        Ok(said) => ask(Path::new(said.trim()), runner).await,
        Err(_) => Ok(None),
    }
}

/// Lets a program say what it is; nothing if it is no Python.
async fn ask(program: &Path, runner: &Runner) -> Result<Option<Interpreter>, StepError> {
    let argv = vec![
        program.display().to_string(),
        "-I".to_owned(),
        "-c".to_owned(),
        ASK.to_owned(),
    ];
    let said = runner.run("python", argv, LIMIT).await?;
    Ok(said.ok().and_then(|said| serde_json::from_str(&said).ok()))
}

fn is_version(wanted: &str) -> bool {
    wanted.starts_with(|c: char| c.is_ascii_digit())
        && wanted.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// Whether `found` is of the version, of which only the first parts may be given.
fn fits(found: &str, version: &str) -> bool {
    let mut parts = found.split('.');
    version.split('.').all(|part| parts.next() == Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_may_be_given_in_part() {
        assert!(fits("3.11.7", "3.11") && fits("3.11.7", "3.11.7") && fits("3.11.7", "3"));
        assert!(!fits("3.11.7", "3.1") && !fits("3.11.7", "3.11.70"));
        assert!(is_version("3.11") && is_version("3"));
        assert!(!is_version("python3") && !is_version("./3.11") && !is_version("/3"));
    }
}
