//! The engine's side of a program that runs: hears its guardian's reports, asks it to stop.
//!
//! Does not know when a program is ready or why it should end.

use super::attempt::Ending;
use super::protocol::{Command, Report, now_ns};
use super::tree;
use super::{Exit, Identity};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, test_kill_process_group};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long SIGKILL may take to clear everything away; a GPU's memory is unmapped meanwhile.
const KILL_TIMEOUT: Duration = Duration::from_secs(15);
/// How often processes without a guardian are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The longest report that is listened to, in bytes.
const MAX_REPORT: u64 = 16 << 10;

/// Why a program could not be stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// Processes survive SIGKILL: they hang in the kernel, or belong to another user.
    #[error(
        "`{label}` is still there {} s after SIGKILL: {}; look at them with `ps`",
        waited.as_secs(), list_pids(pids)
    )]
    StillThere {
        /// What was to be stopped.
        label: String,
        /// The pids that are left, as far as they are known.
        pids: Vec<u32>,
        /// How long they were waited for.
        waited: Duration,
    },
}

fn list_pids(pids: &[u32]) -> String {
    match pids {
        [] => "its processes".to_owned(),
        _ => format!(
            "pid {}",
            pids.iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// The verified end of a program: neither it nor any descendant is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// How the program itself ended.
    pub exit: Exit,
    /// Whether SIGKILL was needed, for the program or for something that it left behind.
    pub forced: bool,
    /// How long the stopping took.
    pub took: Duration,
}

/// The end of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub exit: Exit,
    /// When, on the system's monotonic clock: after its end, and before anything could see that its process was
    /// gone. Of one whose guardian was killed, when that was noticed.
    pub at: Duration,
}

/// A running program. Dropping it kills the program and everything that it started.
#[derive(Debug)]
pub struct Process {
    label: String,
    identity: Identity,
    guardian: Option<Identity>,
    /// Closing it is what ends the program when this is dropped, or when the engine dies.
    input: Mutex<PipeWriter>,
    news: watch::Receiver<State>,
}

impl Process {
    pub(super) fn new(
        label: String,
        identity: Identity,
        guardian: Option<Identity>,
        input: PipeWriter,
        news: watch::Receiver<State>,
    ) -> Self {
        Self {
            label,
            identity,
            guardian,
            input: Mutex::new(input),
            news,
        }
    }

    /// Returns the program's pid.
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// Returns what names the program in a journal.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns what names the guardian in a journal; `None` if it died at once.
    pub fn guardian(&self) -> Option<&Identity> {
        self.guardian.as_ref()
    }

    /// Returns the pids of the program and of all that descends from it now.
    pub fn family(&self) -> Vec<u32> {
        let root = self.guardian.as_ref().unwrap_or(&self.identity);
        let root = i32::try_from(root.pid).ok().and_then(Pid::from_raw);
        let below = root.map(tree::descendants).unwrap_or_default();
        let mut pids: Vec<u32> = below.iter().map(tree::Stat::raw_pid).collect();
        pids.push(self.identity.pid);
        pids
    }

    /// Returns the label of the spec.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns how the program ended, if it has.
    pub fn try_exited(&self) -> Option<Exit> {
        self.try_ended().map(|end| end.exit)
    }

    /// Returns how and when the program ended, if it has.
    pub fn try_ended(&self) -> Option<End> {
        self.news.borrow().end
    }

    /// Waits until the program has ended; what it left behind is being killed then.
    ///
    /// May be cancelled and may be called from several tasks. To be sure that nothing is left,
    /// [`stop`](Self::stop) it afterwards.
    pub async fn exited(&self) -> Exit {
        let mut news = self.news.clone();
        match news.wait_for(|state| state.end.is_some()).await {
            Ok(state) => state.exit(),
            Err(_) => Exit::GuardianLost,
        }
    }

    /// Ends the program and everything that it started, and verifies that nothing is left.
    ///
    /// Sends SIGTERM, and SIGKILL to what is left after `grace`. Takes at most `grace` and 30 s
    /// more. If the program has ended already, only verifies. May be called again, also with a
    /// shorter grace.
    ///
    /// # Errors
    /// [`StopError::StillThere`] if processes survive SIGKILL. They stay under the guardian's
    /// eyes.
    pub async fn stop(&self, grace: Duration) -> Result<Gone, StopError> {
        let began = Instant::now();
        self.send(Command::Stop(grace));
        if !self.ended_within(grace.saturating_add(KILL_TIMEOUT)).await {
            self.kill();
            if !self.ended_within(KILL_TIMEOUT).await {
                return Err(self.still_there(self.news.borrow().remaining.clone(), began));
            }
        }
        let is_verified = self.news.borrow().gone.is_some();
        if !is_verified {
            self.group_is_empty(began).await?;
        }
        let state = self.news.borrow();
        Ok(Gone {
            exit: state.exit(),
            forced: state.gone.unwrap_or(true),
            took: began.elapsed(),
        })
    }

    /// Sends SIGKILL to the program and everything that it started; does not wait.
    pub fn kill(&self) {
        self.send(Command::Kill);
    }

    fn send(&self, command: Command) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        say(&mut *input, command.line().as_bytes());
    }

    async fn ended_within(&self, limit: Duration) -> bool {
        let mut news = self.news.clone();
        // An error means that the listener is gone, and with it the guardian.
        tokio::time::timeout(limit, news.wait_for(State::has_ended))
            .await
            .is_ok()
    }

    /// Looks for itself, since a guardian may have been killed before its work was done.
    async fn group_is_empty(&self, began: Instant) -> Result<(), StopError> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        loop {
            // Asking the kernel for the group is cheap, looking at every process is not.
            let left = if group_exists(&self.identity) {
                group_of(&self.identity)
            } else {
                Vec::new()
            };
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let pids = left.iter().map(tree::Stat::raw_pid).collect();
                return Err(self.still_there(pids, began));
            }
            left.iter().for_each(|stat| stat.signal(Signal::KILL));
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn still_there(&self, pids: Vec<u32>, began: Instant) -> StopError {
        StopError::StillThere {
            label: self.label.clone(),
            pids,
            waited: began.elapsed(),
        }
    }
}

/// Writes to a guardian. If it is gone, its reports have said so.
pub(super) fn say(mut input: impl Write, line: &[u8]) {
    let _ = input.write_all(line);
}

/// What is known from a guardian's reports.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) identity: Option<Identity>,
    pub(super) failed: Option<String>,
    end: Option<End>,
    remaining: Vec<u32>,
    /// `Some(forced)` once no descendant is left.
    gone: Option<bool>,
    guardian_ended: bool,
}

impl State {
    pub(super) fn has_begun(&self) -> bool {
        self.identity.is_some() || self.failed.is_some() || self.guardian_ended
    }

    /// Whether the program began and nobody has told how it ended.
    fn is_cut_off(&self) -> bool {
        self.identity.is_some() && self.end.is_none()
    }

    fn exit(&self) -> Exit {
        self.end.map_or(Exit::GuardianLost, |end| end.exit)
    }

    fn has_ended(&self) -> bool {
        self.gone.is_some() || self.guardian_ended
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Started { pid, start_time } => {
                self.identity = Some(Identity::from_report(pid, start_time))
            }
            Report::Failed { reason } => self.failed = Some(reason),
            Report::Exited { exit, at_ns } => {
                let at = Duration::from_nanos(at_ns);
                self.end = Some(End { exit, at });
            }
            Report::Remaining { pids } => self.remaining = pids,
            Report::Gone { forced } => self.gone = Some(forced),
        }
    }
}

/// Publishes what a guardian reports until it ends, then waits for it so that no zombie stays.
pub(super) fn listen(
    handle: &duct::Handle,
    reports: PipeReader,
    state: &watch::Sender<State>,
    ending: &Ending,
) {
    let mut reports = BufReader::new(reports);
    let mut line = Vec::new();
    while (&mut reports)
        .take(MAX_REPORT)
        .read_until(b'\n', &mut line)
        .is_ok_and(|n_read| n_read > 0)
    {
        if let Ok(report) = serde_json::from_slice(&line) {
            // Whoever hears of the end finds it recorded.
            if let Report::Exited { exit, .. } = &report {
                ending.record(*exit);
            }
            state.send_modify(|state| state.hear(report));
        }
        line.clear();
    }
    // It closes its output only by ending, so this does not block.
    let _ = handle.wait();
    let lost = state.borrow().gone.is_none();
    if let Some(identity) = state.borrow().identity.as_ref().filter(|_| lost) {
        kill_group(identity);
    }
    if state.borrow().is_cut_off() {
        ending.record(Exit::GuardianLost);
    }
    state.send_modify(|state| {
        state.guardian_ended = true;
        state.end.get_or_insert_with(|| End {
            exit: Exit::GuardianLost,
            at: Duration::from_nanos(now_ns()),
        });
    });
}

fn group_exists(leader: &Identity) -> bool {
    let group = i32::try_from(leader.pid).ok().and_then(Pid::from_raw);
    group.is_some_and(|group| test_kill_process_group(group) != Err(Errno::SRCH))
}

/// Lists what is left of the group that `leader` led. To be asked only while that may be there: a
/// later group of the same number looks the same.
fn group_of(leader: &Identity) -> Vec<tree::Stat> {
    let belongs = |stat: &tree::Stat| {
        i64::from(stat.group) == i64::from(leader.pid)
            && stat.start_time >= leader.start_time
            && !stat.dead
    };
    tree::processes().into_iter().filter(belongs).collect()
}

fn kill_group(leader: &Identity) {
    for stat in group_of(leader) {
        stat.signal(Signal::KILL);
    }
}
