//! A temporary folder in which the binary runs. Every wait is bounded and none is a fixed sleep.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Builds the command `benchwright` as a script would run it.
pub(crate) fn benchwright<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_benchwright"));
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null());
    command.env_remove("NO_COLOR").env("TERM", "xterm");
    // Tests run side by side: each is a machine of its own.
    command.env("BENCHWRIGHT_LOCK_DIR", folder.join(".locks"));
    command.env("BENCHWRIGHT_CACHE_DIR", folder.join(".cache"));
    command
}

/// The plans and parts of plans in a folder and below it; lock files and overlays, in `conf`, are none.
pub(crate) fn plans_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let is_plan = |path: &Path| {
        let name = path.to_string_lossy();
        name.ends_with(".toml") && !name.ends_with(".lock.toml")
    };
    let paths = paths.into_iter().filter(|path| !path.ends_with("conf"));
    paths
        .flat_map(|path| match path.is_dir() {
            true => plans_below(&path),
            false => is_plan(&path).then_some(path).into_iter().collect(),
        })
        .collect()
}

/// What a command that ended has said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

/// A folder of its own for each test.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a plan of `shell.run` steps.
    pub(crate) fn plan(&self, name: &str, text: &str) {
        let text = format!("schema = 1\nname = \"{name}\"\n{text}");
        fs::write(self.path(&format!("{name}.toml")), text).expect("a plan");
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        benchwright(self.0.path(), arguments)
            .output()
            .expect("the binary")
            .into()
    }

    /// Starts a command whose standard output goes to the file `events`.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let events = self.path("events");
        let file = File::create(&events).expect("a file");
        let child = benchwright(self.0.path(), arguments)
            .stdout(file)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary");
        Running {
            child: Some(child),
            events,
        }
    }

    /// Files below `folder` that hold `text`.
    pub(crate) fn containing(folder: &Path, text: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                found.extend(Self::containing(&path, text));
            } else if String::from_utf8_lossy(&fs::read(&path).expect("a file")).contains(text) {
                found.push(path);
            }
        }
        found
    }

    /// Command lines of living processes that mention `word`, other than this test's.
    pub(crate) fn processes(word: &str) -> Vec<String> {
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        lines
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(word))
            .collect()
    }
}

/// A command under way.
pub(crate) struct Running {
    child: Option<Child>,
    events: PathBuf,
}

impl Running {
    /// Waits until the command, which writes `--json`, tells of such an event of a node.
    pub(crate) fn wait_for(&self, event: &str, node: &str) {
        wait_until(&format!("`{event}` of `{node}`"), || {
            let text = fs::read_to_string(&self.events).unwrap_or_default();
            text.lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .any(|v| v["event"] == event && v["node"] == node)
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running command");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("a signal");
    }

    pub(crate) fn finish(mut self) -> Said {
        let mut child = self.child.take().expect("a running command");
        wait_until("the command to end", || {
            child.try_wait().expect("a child").is_some()
        });
        let mut said = Said::from(child.wait_with_output().expect("its output"));
        said.out = fs::read_to_string(&self.events).expect("its events");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only a failing test leaves it running.
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks until the answer is yes; fails the test when it is not in time.
pub(crate) fn wait_until(what: &str, mut ask: impl FnMut() -> bool) {
    let began = Instant::now();
    while !ask() {
        assert!(began.elapsed() < LIMIT, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
