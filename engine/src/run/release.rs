//! The verified end of a service: what it may still hold after its processes are gone, and who
//! has to wait until it does not.

use crate::claims::Claim;
use crate::process::{Process, ProcessSpec, Supervisor, find_program};
use crate::service::{DynService, Endpoint};
use crate::step::{FailureClass, StepError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a service may hold a port or memory after its processes are gone.
const RELEASE_LIMIT: Duration = Duration::from_secs(30);
/// The pause between two looks at what it holds.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The same where a look starts a program.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a launch waits for the ends before it; each of them has limits of its own.
const ENDINGS_LIMIT: Duration = Duration::from_secs(120);
/// How long the driver's tool may take; it does when a GPU is being reset.
const TOOL_LIMIT: Duration = Duration::from_secs(10);
/// The driver's tool, which lists who holds memory of a GPU.
const TOOL: &str = "nvidia-smi";
const TOOL_ARGUMENTS: [&str; 2] = [
    "--query-compute-apps=pid,used_memory",
    "--format=csv,noheader",
];

/// Ends that are under way, and what was not given back. What a service holds is not to be given
/// to the next one, not even after it died.
#[derive(Clone)]
pub(super) struct Endings(watch::Sender<Held>);

#[derive(Default)]
struct Held {
    n_under_way: usize,
    still: Vec<String>,
    /// The parts of the machine on which that is held, given to nobody until the run is over.
    kept: Vec<Claim>,
}

impl Endings {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Held::default()))
    }

    pub(super) fn begin(&self) {
        self.0.send_modify(|held| held.n_under_way += 1);
    }

    pub(super) fn end(&self, still: Option<String>) {
        self.0.send_modify(|held| {
            held.n_under_way = held.n_under_way.saturating_sub(1);
            held.still.extend(still);
        });
    }

    /// Keeps what a service claimed that still holds something of it.
    pub(super) fn keep(&self, claim: Claim) {
        self.0.send_modify(|held| held.kept.push(claim));
    }

    /// Waits until every service that ended is verified gone.
    ///
    /// # Errors
    /// What is still held.
    pub(super) async fn nothing_is_held(&self) -> Result<(), StepError> {
        let mut news = self.0.subscribe();
        let done = news.wait_for(|held| held.n_under_way == 0);
        let still = match tokio::time::timeout(ENDINGS_LIMIT, done).await {
            Ok(Ok(held)) if held.still.is_empty() => return Ok(()),
            Ok(Ok(held)) => held.still.join("; "),
            Ok(Err(_)) | Err(_) => "a service that ended is not gone yet".to_owned(),
        };
        Err(StepError::new(format!("it cannot be launched: {still}"))
            .help("end what holds it, then resume the run")
            .class(FailureClass::Infrastructure))
    }
}

/// GPU memory that a service may hold: of which processes, and how to ask.
pub(super) struct GpuMemory {
    supervisor: Supervisor,
    folder: PathBuf,
    /// Every process that the service was seen to have.
    pids: Vec<u32>,
}

impl GpuMemory {
    /// Prepares to ask; `None` if this machine has no tool to ask with.
    pub(super) fn of(supervisor: &Supervisor, folder: &Path) -> Option<Self> {
        let search = std::env::var_os("PATH").unwrap_or_default();
        find_program(TOOL, Path::new("/"), &search).ok()?;
        Some(Self {
            supervisor: supervisor.clone(),
            folder: folder.join("gpu-memory"),
            pids: Vec::new(),
        })
    }

    /// Notes the processes that the service has now.
    pub(super) fn note(&mut self, process: &Process) {
        self.pids.extend(process.family());
        self.pids.sort_unstable();
        self.pids.dedup();
    }

    /// Asks the driver.
    ///
    /// # Errors
    /// Which processes still hold how much. A tool that does not answer says nothing.
    async fn released(&self) -> Result<(), String> {
        let Some(text) = self.listing().await else {
            return Ok(());
        };
        match holders(&text, &self.pids).as_slice() {
            [] => Ok(()),
            held => Err(format!("GPU memory is still held by {}", held.join(", "))),
        }
    }

    async fn listing(&self) -> Option<String> {
        let words = std::iter::once(TOOL).chain(TOOL_ARGUMENTS);
        let argv = words.map(str::to_owned).collect();
        let path = std::env::var("PATH").unwrap_or_default();
        let env = BTreeMap::from([("PATH".to_owned(), path)]);
        let spec = ProcessSpec::new(TOOL, argv, env, Path::new("/"), &self.folder);
        // Logs are appended to; only what is said now counts.
        let _ = std::fs::remove_file(&spec.stdout);
        let stdout = spec.stdout.clone();
        let process = self.supervisor.start(spec).await.ok()?;
        let exit = tokio::time::timeout(TOOL_LIMIT, process.exited())
            .await
            .ok()?;
        exit.success()
            .then(|| std::fs::read_to_string(stdout).ok())?
    }
}

/// Finds those of `pids` that the driver lists, with what they hold.
fn holders(listing: &str, pids: &[u32]) -> Vec<String> {
    let holder = |line: &str| {
        let (pid, memory) = line.split_once(',')?;
        let pid: u32 = pid.trim().parse().ok()?;
        let memory = memory.trim();
        pids.contains(&pid).then(|| format!("pid {pid} ({memory})"))
    };
    listing.lines().filter_map(holder).collect()
}

/// Waits until a service whose processes are gone holds nothing any more.
///
/// # Errors
/// What it still holds after 30 s.
pub(super) async fn verify(
    service: &dyn DynService,
    endpoint: &Endpoint,
    gpu_memory: Option<&GpuMemory>,
) -> Result<(), String> {
    let deadline = Instant::now() + RELEASE_LIMIT;
    loop {
        match service.released(endpoint).await {
            Ok(()) => break,
            Err(held) if Instant::now() > deadline => return Err(held),
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
    let Some(gpu_memory) = gpu_memory else {
        return Ok(());
    };
    loop {
        match gpu_memory.released().await {
            Ok(()) => return Ok(()),
            Err(held) if Instant::now() > deadline => return Err(held),
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_processes_are_held_against_a_service() {
        let listing = "4711, 70112 MiB\n4712, 512 MiB\n99, [N/A]\n";
        assert_eq!(
            holders(listing, &[99, 4711]),
            ["pid 4711 (70112 MiB)", "pid 99 ([N/A])"]
        );
        assert!(holders(listing, &[1]).is_empty());
        assert!(holders("No running processes found\n", &[1]).is_empty());
    }

    #[tokio::test]
    async fn a_launch_waits_for_ends_and_hears_what_is_held() {
        let endings = Endings::new();
        assert!(endings.nothing_is_held().await.is_ok());
        endings.begin();
        let waiting = tokio::spawn({
            let endings = endings.clone();
            async move { endings.nothing_is_held().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        endings.end(Some("port 31001 still answers".to_owned()));
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(
            error.message,
            "it cannot be launched: port 31001 still answers"
        );
    }
}
