//! Stand-ins with which the profiler is tested where no GPU is: a CUPTI that lies in the ways that the real
//! one is known for, a driver that loads what is injected, and a server that launches on command.
//!
//! They are C, compiled by the tests that use them: the linker of Rust is a C compiler, so that one is
//! there. Only tests depend on this crate.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Compiled stand-ins, in a folder that goes with them.
#[derive(Debug)]
pub struct Fakes {
    folder: TempDir,
}

impl Fakes {
    /// Compiles driver and server. Takes a second.
    ///
    /// # Errors
    /// There is no C compiler, or it fails.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let fakes = Self { folder };
        let soname = ["-shared", "-Wl,-soname,libcuda.so.1"];
        compile("cuda.c", &fakes.driver(), &soname)?;
        compile("server.c", &fakes.server(), &[])?;
        Ok(fakes)
    }

    /// The driver, `libcuda.so.1`.
    #[must_use]
    pub fn driver(&self) -> PathBuf {
        self.folder.path().join("libcuda.so.1")
    }

    /// The server, whose only argument is the driver.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    /// Where tests may put what is theirs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Compiles a CUPTI of a major version that does what a script says, and lacks some calls. `name` is the
    /// folder that it is put into: each has to have its own, since a file is loaded once.
    ///
    /// # Errors
    /// As [`Fakes::new`].
    pub fn cupti(
        &self,
        name: &str,
        major: u32,
        script: &str,
        absent: &[&str],
    ) -> io::Result<PathBuf> {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder)?;
        let file = format!("libcupti.so.{major}");
        let library = folder.join(&file);
        let soname = format!("-Wl,-soname,{file}");
        // A call under another name is not found under its own.
        let hidden = absent.iter().map(|call| format!("-D{call}=absent_{call}"));
        let flags: Vec<String> = ["-shared".to_owned(), soname]
            .into_iter()
            .chain(hidden)
            .collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        compile("cupti.c", &library, &flags)?;
        fs::write(folder.join(format!("{file}.script")), script)?;
        Ok(library)
    }
}

/// Compiles one of our sources.
fn compile(source: &str, to: &Path, flags: &[&str]) -> io::Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(source);
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu11", "-O1", "-fPIC", "-Wall", "-Werror", "-pthread"]);
    compiler
        .args(flags)
        .arg("-o")
        .arg(to)
        .arg(&source)
        .arg("-ldl");
    let said = compiler.output()?;
    if said.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&said.stderr).into_owned();
    Err(io::Error::other(format!("{}: {why}", source.display())))
}
