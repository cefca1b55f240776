//! Servers with the library injected, which do what they are told, and where they leave what.

use fake_cupti::Fakes;
use profiler_control::Ranks;
use profiler_wire::FOLDER;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The library, which cargo has put beside this test.
pub(crate) fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    let folder = test.parent().expect("a folder");
    let library = folder.join("libprofiler_inject.so");
    assert!(library.exists(), "no {}", library.display());
    library
}

/// A folder with the stand-ins, and one in which servers listen.
pub(crate) struct World {
    fakes: Fakes,
    sockets: PathBuf,
}

impl World {
    pub(crate) fn new() -> Self {
        let fakes = Fakes::new().expect("a C compiler");
        let sockets = fakes.folder().join("sockets");
        fs::create_dir(&sockets).expect("a folder");
        Self { fakes, sockets }
    }

    pub(crate) fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// What lies in that folder and ends so.
    pub(crate) fn files(&self, end: &str) -> Vec<String> {
        let entries = fs::read_dir(&self.sockets).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(end)).collect()
    }

    pub(crate) fn cupti(&self, name: &str, major: u32, script: &str) -> PathBuf {
        let made = self.fakes.cupti(name, major, script, &[]);
        made.expect("a library")
    }

    /// A server with a CUPTI of its own.
    pub(crate) fn server(&self, name: &str, major: u32, script: &str) -> Server {
        self.start(&self.cupti(name, major, script))
    }

    pub(crate) fn start(&self, cupti: &Path) -> Server {
        let mut command = self.command();
        command
            .env(FOLDER, &self.sockets)
            .env("BENCHWRIGHT_CUPTI", cupti);
        Server::start(&mut command, &self.sockets)
    }

    pub(crate) fn start_without_folder(&self) -> Server {
        Server::start(self.command().env_remove(FOLDER), &self.sockets)
    }

    /// A program of Python's as a server.
    pub(crate) fn python(&self, script: &Path, packages: &Path, cupti: &Path) -> Server {
        let mut command = Command::new("python3");
        // Nothing is written beside the sources.
        command.arg("-B").arg(script).arg(self.fakes.driver());
        self.inject(&mut command);
        command
            .env("PYTHONPATH", packages)
            .env(FOLDER, &self.sockets)
            .env("BENCHWRIGHT_CUPTI", cupti);
        Server::start(&mut command, &self.sockets)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.fakes.server());
        command.arg(self.fakes.driver());
        self.inject(&mut command);
        command
    }

    fn inject(&self, command: &mut Command) {
        command
            .env("CUDA_INJECTION64_PATH", library())
            .env("NVTX_INJECTION64_PATH", library());
    }
}

/// A server; it ends when this does.
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    sockets: PathBuf,
}

impl Server {
    fn start(command: &mut Command, sockets: &Path) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a server");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self {
            input: child.stdin.take(),
            child,
            output,
            sockets: sockets.to_owned(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do something, and waits until it is done.
    pub(crate) fn does(&mut self, line: &str) {
        let word = line.split(' ').next().unwrap_or_default();
        let said = self.says(line);
        assert!(said.starts_with(word), "{line}: {said}");
    }

    /// What it answers.
    pub(crate) fn says(&mut self, line: &str) -> String {
        let input = self.input.as_mut().expect("its input");
        writeln!(input, "{line}").expect("it listens");
        let mut said = String::new();
        self.output.read_line(&mut said).expect("an answer");
        said.trim_end().to_owned()
    }

    /// Has it killed, and waits until it is gone.
    pub(crate) fn dies(&mut self) {
        assert_eq!(self.says("kill"), "");
        self.child.wait().expect("its end");
    }

    /// Reaches the library in it: its socket alone, as others may lie beside it.
    pub(crate) fn ranks(&self) -> Ranks {
        let own = self.sockets.join(format!("of-{}", self.pid()));
        if !own.exists() {
            fs::create_dir(&own).expect("a folder");
            let name = format!("{}.sock", self.pid());
            std::os::unix::fs::symlink(self.sockets.join(&name), own.join(&name)).expect("a link");
        }
        Ranks::connect(&own).expect("a process")
    }

    /// Whether it has a file of such a name mapped.
    pub(crate) fn has_loaded(&self, name: &str) -> bool {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid()));
        maps.expect("its maps").contains(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // At the end of its input it ends.
        self.input.take();
        let _ = self.child.wait();
    }
}
