//! The guardian's whole program: starts one child and sees to it that nothing of it survives.
//!
//! It is single-threaded on purpose: `PDEATHSIG` fires when the *thread* that forked ends, and
//! here that is the process. It does not know why its child runs. What it is told and tells is
//! in `protocol`.
//!
//! That nothing is left is known from `wait` alone: a subreaper inherits every orphan below it, so
//! it has a child as long as there is any descendant.

use super::channel::{Input, report};
use super::protocol::{Command, Launch, Report, now_ns};
use super::register::{self, Role};
use super::tree::{self, Stat};
use super::{Exit, Identity};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpid, getppid,
    kill_process_group, pidfd_open, set_child_subreaper, set_parent_process_death_signal, setsid,
    wait, waitid,
};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How often orphans that ended are waited for while all is well.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often descendants are looked for during the grace, and on kernels without pidfds.
const TICK: Duration = Duration::from_millis(10);
/// The longest pause between two rounds of SIGKILL.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// After how long the survivors of SIGKILL are named.
const STUBBORN_AFTER: Duration = Duration::from_secs(2);
/// How many of them are named at most.
const MAX_NAMED: usize = 64;
/// How many walks one round of SIGKILL makes at most to catch what is born meanwhile.
const WALKS_PER_ROUND: usize = 16;

/// Runs the guardian until nothing of its child is left.
///
/// Reads a launch and commands from standard input, writes reports to standard output. Ignores
/// SIGTERM, SIGINT, SIGHUP and SIGQUIT: it ends when its child has, or when the engine's end of
/// the pipe closes. Returns failure only if the child could not be started.
pub fn main() -> ExitCode {
    // The name under which `ps` and `top` show it, so that `pkill benchwright` spares it.
    let _ = fs::write("/proc/self/comm", "bw-guardian");
    let _deaf = ignore_signals();
    let Ok(mut input) = Input::standard() else {
        return ExitCode::FAILURE;
    };
    let Some(launch) = input.launch() else {
        return ExitCode::FAILURE;
    };
    match start(&launch) {
        Ok(child) => {
            Guardian::new(child, input).run();
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&Report::Failed {
                reason: error.to_string(),
            });
            ExitCode::FAILURE
        }
    }
}

/// Installs handlers that do nothing for the signals that ask a program to end.
///
/// Batch systems send SIGTERM to every process of a job; it is for the engine to decide then.
/// Handlers, other than ignored signals, are not inherited by the child.
fn ignore_signals() -> Option<tokio::runtime::Runtime> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .ok()?;
    let entered = runtime.enter();
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ] {
        // The handler outlives the stream that this returns.
        let _ = signal(kind);
    }
    drop(entered);
    Some(runtime)
}

fn start(launch: &Launch) -> io::Result<Pid> {
    set_child_subreaper(Some(getpid()))?;
    let spec = &launch.spec;
    let stdout = open_log(&spec.stdout)?;
    let stderr = if spec.stderr == spec.stdout {
        stdout.try_clone()?
    } else {
        open_log(&spec.stderr)?
    };
    let mut command = std::process::Command::new(&launch.program);
    command
        .args(spec.argv.iter().skip(1))
        .arg0(spec.argv.first().map_or("", String::as_str))
        .env_clear()
        .envs(&spec.env)
        .current_dir(&spec.cwd)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    register(launch, getpid(), Role::Guardian);
    let child = spawn_leashed(command)?;
    register(launch, child, Role::Program);
    let start_time = Stat::read(child).map_or(0, |stat| stat.start_time);
    report(&Report::Started {
        pid: child.as_raw_nonzero().get().unsigned_abs(),
        start_time,
    });
    Ok(child)
}

/// Notes a process so that it is found when both this guardian and the engine are killed. If that
/// cannot be written, the mark in its environment remains.
fn register(launch: &Launch, pid: Pid, role: Role) {
    let identity = Identity::of(pid.as_raw_nonzero().get().unsigned_abs());
    if let (Some(register), Some(identity)) = (&launch.register, identity) {
        let _ = register::add(register, identity, role, &launch.spec.label);
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Spawns `command` in a session, thus also a group, of its own, to die with this process.
#[expect(
    unsafe_code,
    reason = "only between fork and exec can a child ask for its own end"
)]
fn spawn_leashed(mut command: std::process::Command) -> io::Result<Pid> {
    let guardian = getpid();
    let leash = move || {
        // A session rather than a mere group: no terminal can reach it, and it none.
        setsid()?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The guardian may have died before the line above.
        if getppid() == Some(guardian) {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    };
    // SAFETY: the closure only makes system calls, allocates nothing and takes no lock, so it is
    // sound in the child of a fork.
    unsafe { command.pre_exec(leash) };
    // The handle is dropped without being waited for: the guardian waits for all its children.
    command.spawn().map(|child| Pid::from_child(&child))
}

/// How far the end has come.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The child runs.
    Watching,
    /// SIGTERM was sent; SIGKILL follows at the deadline.
    Stopping { deadline: Instant },
    /// SIGKILL is sent again and again, with growing pauses.
    Killing { since: Instant, pause: Duration },
}

struct Guardian {
    child: Pid,
    /// Becomes readable when the child ends; absent once it has, or before Linux 5.3.
    pidfd: Option<OwnedFd>,
    input: Input,
    phase: Phase,
    exited: bool,
    /// When the child was seen to have ended, before it was reaped.
    ended_ns: Option<u64>,
    forced: bool,
    named_stubborn: bool,
}

impl Guardian {
    fn new(child: Pid, input: Input) -> Self {
        let pidfd = pidfd_open(child, PidfdFlags::empty()).ok();
        Self {
            child,
            pidfd,
            input,
            phase: Phase::Watching,
            exited: false,
            ended_ns: None,
            forced: false,
            named_stubborn: false,
        }
    }

    fn run(mut self) {
        while self.reap() {
            self.advance();
            self.listen();
        }
        report(&Report::Gone {
            forced: self.forced,
        });
    }

    /// Waits for all children that have ended; returns whether any is left.
    fn reap(&mut self) -> bool {
        loop {
            self.look();
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.child => self.child_ended(status),
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Notes when the child has ended, without reaping it: whoever ends because its process is gone ends later
    /// than that, by everybody's clock.
    fn look(&mut self) {
        if self.exited || self.ended_ns.is_some() {
            return;
        }
        let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Ok(Some(_)) = waitid(WaitId::Pid(self.child), how) {
            self.ended_ns = Some(now_ns());
        }
    }

    fn child_ended(&mut self, status: WaitStatus) {
        self.exited = true;
        self.pidfd = None;
        let exit = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::GuardianLost,
        };
        let at_ns = self.ended_ns.unwrap_or_else(now_ns);
        report(&Report::Exited { exit, at_ns });
    }

    /// Does what the phase asks for now, and enters the next one if it is time.
    fn advance(&mut self) {
        match self.phase {
            Phase::Watching if self.exited => self.begin_killing(),
            Phase::Stopping { deadline } if Instant::now() >= deadline => self.begin_killing(),
            Phase::Watching | Phase::Stopping { .. } => {}
            Phase::Killing { since, pause } => {
                self.kill_round();
                self.phase = Phase::Killing {
                    since,
                    pause: (pause * 2).min(MAX_PAUSE),
                };
                if since.elapsed() >= STUBBORN_AFTER && !self.named_stubborn {
                    self.named_stubborn = true;
                    let pids = tree::descendants(getpid())
                        .iter()
                        .take(MAX_NAMED)
                        .map(Stat::raw_pid)
                        .collect();
                    report(&Report::Remaining { pids });
                }
            }
        }
    }

    fn begin_killing(&mut self) {
        self.phase = Phase::Killing {
            since: Instant::now(),
            pause: Duration::from_millis(1),
        };
        self.kill_round();
    }

    /// Sends SIGKILL to every descendant, and again to those born meanwhile.
    fn kill_round(&mut self) {
        let mut reached: Vec<Stat> = Vec::new();
        for _ in 0..WALKS_PER_ROUND {
            let mut fresh = tree::descendants(getpid());
            // Not by equality: one whose parent died has another parent now.
            fresh.retain(|stat| {
                !reached
                    .iter()
                    .any(|old| (old.pid, old.start_time) == (stat.pid, stat.start_time))
            });
            if fresh.is_empty() {
                return;
            }
            self.forced = true;
            self.signal(&fresh, Signal::KILL);
            reached.append(&mut fresh);
        }
    }

    fn begin_stopping(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        match self.phase {
            Phase::Watching => {
                let all = tree::descendants(getpid());
                self.signal(&all, Signal::TERM);
                // One that is stopped would not see SIGTERM before SIGKILL.
                self.signal(&all, Signal::CONT);
                self.phase = Phase::Stopping { deadline };
            }
            Phase::Stopping { deadline: earlier } => {
                self.phase = Phase::Stopping {
                    deadline: earlier.min(deadline),
                };
            }
            Phase::Killing { .. } => {}
        }
    }

    /// Signals each of `all` once: the child's group at a stroke, the others one by one.
    ///
    /// Twice would not do: many servers take a second SIGTERM as an order to drop everything.
    fn signal(&self, all: &[Stat], signal: Signal) {
        let group = self.child.as_raw_nonzero().get();
        // As long as the group has a member that descends from here, its number cannot be reused.
        if all.iter().any(|stat| stat.group == group) {
            let _ = kill_process_group(self.child, signal);
        }
        for stat in all.iter().filter(|stat| stat.group != group) {
            stat.signal(signal);
        }
    }

    /// Waits for a command, for the child's end or for the next thing to do.
    fn listen(&mut self) {
        let timeout = self.pause();
        let mut fds = Vec::with_capacity(2);
        if self.input.open {
            fds.push(PollFd::from_borrowed_fd(
                self.input.file.as_fd(),
                PollFlags::IN,
            ));
        }
        if let Some(pidfd) = &self.pidfd {
            fds.push(PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN));
        }
        let timeout = Timespec::try_from(timeout).ok();
        // An interruption by a signal is as good as the timeout.
        let ready = poll(&mut fds, timeout.as_ref()).is_ok_and(|n_ready| n_ready > 0);
        if ready && self.input.open && !fds[0].revents().is_empty() {
            drop(fds);
            for command in self.input.commands() {
                self.obey(command);
            }
        }
    }

    fn pause(&self) -> Duration {
        match self.phase {
            Phase::Watching if self.pidfd.is_none() => TICK,
            Phase::Watching => HOUSEKEEPING,
            Phase::Stopping { deadline } => {
                deadline.saturating_duration_since(Instant::now()).min(TICK)
            }
            Phase::Killing { pause, .. } => pause,
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Stop(grace) => self.begin_stopping(grace),
            Command::Kill if matches!(self.phase, Phase::Killing { .. }) => {}
            Command::Kill => self.begin_killing(),
        }
    }
}
