//! A temporary folder in which the real binary runs, and a look at what it leaves behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

pub(crate) struct World {
    folder: tempfile::TempDir,
}

pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Everything it said.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// Writes a plan whose paths are searched from the repository.
    pub(crate) fn plan(&self, text: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = text.replace("MODEL_CONF", &root.join("model_conf").display().to_string());
        let path = self.path("plan.toml");
        fs::write(&path, format!("schema = 1\nname = \"trial\"\n{text}")).expect("a plan");
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_benchwright"));
        command.args(arguments).arg("--out").arg(self.out());
        // Tests run side by side: each is a machine of its own.
        command.env("BENCHWRIGHT_LOCK_DIR", self.path("locks"));
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.start_command(&mut self.command(arguments))
    }

    fn start_command(&self, command: &mut Command) -> Running {
        let (stdout, stderr) = (self.path("stdout"), self.path("stderr"));
        let file = |path: &Path| fs::File::create(path).expect("a file");
        let child = command
            .stdout(file(&stdout))
            .stderr(file(&stderr))
            .spawn()
            .expect("the binary");
        Running {
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        self.start(arguments).finish()
    }

    /// Runs what takes longer than anything else here.
    pub(crate) fn run_within(&self, limit: Duration, mut command: Command) -> Finished {
        self.start_command(&mut command).finish_within(limit)
    }

    /// Processes whose command line names this world.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let mine = self.folder.path().display().to_string();
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter_map(|pid| Some((pid, command_line(pid)?)))
            .filter(|(_, line)| line.contains(&mine))
            .collect()
    }

    /// Waits until no process of this world is left.
    pub(crate) fn assert_nothing_left(&self) {
        wait_for("every process to be gone", || {
            self.processes().is_empty().then_some(())
        });
    }
}

fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

pub(crate) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    pub(crate) fn is_done(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    pub(crate) fn finish(self) -> Finished {
        self.finish_within(LIMIT)
    }

    fn finish_within(mut self, limit: Duration) -> Finished {
        let status = wait_within(limit, "the binary to end", || {
            self.child.try_wait().expect("a child")
        });
        let stderr = fs::read_to_string(&self.stderr).unwrap_or_default();
        Finished {
            status,
            stdout: self.stdout(),
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only a failing test leaves it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer; fails the test when there is none in time.
pub(crate) fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait_within(LIMIT, what, ask)
}

/// The same, with a limit of its own.
fn wait_within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < limit, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
