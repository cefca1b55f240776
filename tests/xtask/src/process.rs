//! Runs one child at a time with a deadline, forwards its lines, and leaves nothing behind.
//!
//! xtask adopts every orphan below it, so the children of tests, however they detach, remain
//! its descendants and can be ended by their own ids. Nothing is ever ended by name. Children
//! stay in the terminal's process group, so that Ctrl-C reaches all of them.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, fs};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::problem::Problem;

/// How often a watcher looks at a silent child.
const TICK: Duration = Duration::from_millis(20);
/// How long the descendants of a child that has ended may take to end by themselves.
const GRACE: Duration = Duration::from_secs(5);
/// Longer lines are cut into pieces, which bounds what is held in memory.
const LINE_BYTES: u64 = 64 * 1024;
/// Lines that may wait to be shown before the child has to wait.
const WAITING_LINES: usize = 1024;
/// Rounds of ending descendants: each also catches what the last one's victims had just started.
const KILL_ROUNDS: u32 = 50;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Exited(i32),
    Signalled(i32),
    TimedOut,
}

impl Ending {
    /// Whether the child said that all was well.
    pub(crate) fn is_good(self) -> bool {
        self == Self::Exited(0)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signalled(signal) => write!(f, "was ended by signal {signal}"),
            Self::TimedOut => f.write_str("ran out of time and was ended"),
        }
    }
}

/// Who looks at a running child.
pub(crate) trait Watch {
    /// A line that the child wrote to stdout, without its end.
    fn line(&mut self, line: &str);
    /// The same line as it was written, with its end; or a piece of it, if it is very long.
    fn bytes(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        self.line(text.trim_end_matches(['\r', '\n']));
    }
    /// Called at least every 20 ms or so while the child runs.
    fn tick(&mut self) {}
}

impl<F: FnMut(&str)> Watch for F {
    fn line(&mut self, line: &str) {
        self(line);
    }
}

/// Keeps every byte.
struct Kept(Vec<u8>);

impl Watch for Kept {
    fn line(&mut self, _: &str) {}

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// A process somewhere below xtask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descendant {
    pub(crate) pid: i32,
    pub(crate) name: String,
}

/// Makes every orphan below xtask its child.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn adopt_orphans() -> Result<(), Problem> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| Problem::new(format!("cannot adopt orphaned processes: {error}")))
}

/// Runs `command` without input until it ends or `deadline` passes; blocks. Its stdout goes to
/// `watch`, its stderr where xtask's goes. What it leaves running is named and ended.
///
/// # Errors
///
/// The command cannot be started or waited for.
pub(crate) fn run(
    command: &mut Command,
    deadline: Instant,
    watch: &mut dyn Watch,
) -> Result<Ending, Problem> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_start(command, &error))?;
    let (sender, lines) = sync_channel(WAITING_LINES);
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || forward(stdout, &sender));
    }
    let ending = attend(Pid::from_child(&child), deadline, &lines, watch)?;
    end_leftovers(&lines, watch);
    Ok(ending)
}

/// Runs `command` and returns its stdout.
///
/// # Errors
///
/// The command cannot be started, or does not exit with 0 before `deadline`.
pub(crate) fn output(command: &mut Command, deadline: Instant) -> Result<String, Problem> {
    let mut kept = Kept(Vec::new());
    let ending = run(command, deadline, &mut kept)?;
    if !ending.is_good() {
        return Err(Problem::new(format!("`{}` {ending}", shown(command))));
    }
    String::from_utf8(kept.0)
        .map_err(|_| Problem::new(format!("`{}` does not write UTF-8", shown(command))))
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default();
    let words = command.get_args().map(|word| word.to_string_lossy());
    let mut text = program.to_owned();
    for word in words {
        text.push(' ');
        text.push_str(&word);
    }
    text
}

/// Every process below xtask that has not ended.
pub(crate) fn descendants() -> Vec<Descendant> {
    let mut rest = processes();
    let mut found = Vec::new();
    let mut parents = vec![rustix::process::getpid().as_raw_pid()];
    while let Some(parent) = parents.pop() {
        let (children, others) = rest.into_iter().partition(|(ppid, _)| *ppid == parent);
        rest = others;
        let children: Vec<(i32, Descendant)> = children;
        for (_, child) in children {
            parents.push(child.pid);
            found.push(child);
        }
    }
    found
}

fn cannot_start(command: &Command, error: &io::Error) -> Problem {
    let program = command.get_program().to_string_lossy();
    Problem::new(format!("cannot start `{program}`: {error}"))
}

/// Sends every line on; ends when the pipe does or when nobody listens any more.
fn forward(stdout: ChildStdout, lines: &SyncSender<Vec<u8>>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let read = reader
            .by_ref()
            .take(LINE_BYTES)
            .read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) || lines.send(line).is_err() {
            return;
        }
    }
}

/// Watches the child until it has ended, or ends it at the deadline.
fn attend(
    child: Pid,
    deadline: Instant,
    lines: &Receiver<Vec<u8>>,
    watch: &mut dyn Watch,
) -> Result<Ending, Problem> {
    let mut ticked = Instant::now();
    watch.tick();
    loop {
        match lines.recv_timeout(TICK) {
            Ok(bytes) => watch.bytes(&bytes),
            Err(RecvTimeoutError::Timeout) => {}
            // Stdout closed: the end is near, and worth timing closely.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(1)),
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            watch.tick();
        }
        if let Some(status) = reap(child)? {
            return Ok(ending(status));
        }
        if Instant::now() >= deadline {
            end_descendants();
            reap(child)?;
            return Ok(Ending::TimedOut);
        }
    }
}

/// Collects every child that has ended, adopted ones too: an orphan left as a zombie would
/// look alive to a test that waits for it to be gone. Returns how `child` ended, once.
fn reap(child: Pid) -> Result<Option<WaitStatus>, Problem> {
    let mut status = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, ended))) if pid == child => status = Some(ended),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(status),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Problem::new(format!("cannot wait for a child: {error}"))),
        }
    }
}

fn ending(status: WaitStatus) -> Ending {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, signal) => Ending::Signalled(signal.unwrap_or_default()),
    }
}

/// Shows the last lines, then names and ends whatever still runs after its grace.
fn end_leftovers(lines: &Receiver<Vec<u8>>, watch: &mut dyn Watch) {
    let patience = Instant::now() + GRACE;
    while Instant::now() < patience {
        match lines.recv_timeout(TICK) {
            Ok(bytes) => watch.bytes(&bytes),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if descendants().is_empty() => return,
            Err(RecvTimeoutError::Disconnected) => thread::sleep(TICK),
        }
    }
    for left in descendants() {
        eprintln!(
            "warning: left running, and ended: {} (pid {})",
            left.name, left.pid
        );
    }
    end_descendants();
}

fn end_descendants() {
    for _ in 0..KILL_ROUNDS {
        let left = descendants();
        if left.is_empty() {
            return;
        }
        for pid in left.iter().filter_map(|left| Pid::from_raw(left.pid)) {
            // It may have ended by itself since it was listed.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        thread::sleep(TICK);
    }
}

/// Every live process with its parent's id.
fn processes() -> Vec<(i32, Descendant)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (parent, name) = parent_and_name(&stat)?;
            let name = name.to_owned();
            Some((parent, Descendant { pid, name }))
        })
        .collect()
}

/// Reads `pid (name) state ppid …`, where the name may hold anything; none for a zombie.
fn parent_and_name(stat: &str) -> Option<(i32, &str)> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    Some((fields.next()?.parse().ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_are_read() {
        let stat = "412 (a) b) (c) S 7 412 412 0 -1";
        assert_eq!(parent_and_name(stat), Some((7, "a) b) (c")));
        assert_eq!(parent_and_name("412 (gone) Z 7 412"), None);
    }

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["test", "--release"]);
        assert_eq!(shown(&command), "cargo test --release");
    }

    /// The only test that starts processes: `run` ends every descendant of its process.
    #[test]
    fn nothing_outlives_its_deadline() {
        adopt_orphans().unwrap();
        let mut lines = Vec::new();
        let mut keep = |line: &str| lines.push(line.to_owned());
        let mut quick = Command::new("sh");
        quick.args(["-c", "echo one; echo two; exit 3"]);
        let deadline = Instant::now() + Duration::from_secs(600);
        assert_eq!(run(&mut quick, deadline, &mut keep), Ok(Ending::Exited(3)));
        assert_eq!(lines, ["one", "two"]);

        // One line, longer than a piece, of characters of three bytes.
        let mut long = Command::new("sh");
        long.args(["-c", "for i in $(seq 30000); do printf '→→'; done"]);
        let deadline = Instant::now() + Duration::from_secs(600);
        assert_eq!(output(&mut long, deadline), Ok("→".repeat(60_000)));

        // The child ignores what asks it to end, its child has left the session.
        let mut slow = Command::new("sh");
        slow.args(["-c", "trap '' TERM HUP; setsid sleep 600 & sleep 600"]);
        let deadline = Instant::now() + Duration::from_millis(300);
        let ending = run(&mut slow, deadline, &mut |_: &str| {});
        assert_eq!(ending, Ok(Ending::TimedOut));
        assert_eq!(descendants(), []);
    }
}
