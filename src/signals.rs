//! Ctrl-C and its relatives, as wishes: once to end in order, twice to end at once.

use engine::run::Interrupt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// What a shell reports for a program that SIGINT ended.
pub(crate) const KILLED_BY_SIGINT: i32 = 130;

/// Listens for SIGINT, SIGTERM and SIGHUP from now on; needs a tokio runtime.
///
/// A third signal ends this process where it stands: the guardians clean up after it.
///
/// # Errors
/// If the system refuses to tell.
pub(crate) fn interrupts() -> std::io::Result<mpsc::Receiver<Interrupt>> {
    let mut signals = Signals::listen()?;
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        for wish in [Interrupt::Gracefully, Interrupt::AtOnce] {
            signals.next().await;
            // An error means that the run is over already.
            let _ = sender.try_send(wish);
        }
        signals.next().await;
        std::process::exit(KILLED_BY_SIGINT);
    });
    Ok(receiver)
}

/// The signals that ask a program to end.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Absent under `nohup`, which wants exactly that.
    hangup: Option<Signal>,
}

impl Signals {
    /// Begins to listen; needs a tokio runtime.
    ///
    /// # Errors
    /// If the system refuses to tell.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if ignores_hangup() {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
        })
    }

    /// Waits for one of them.
    pub(crate) async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(signal) => drop(signal.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = hangup => {}
        }
    }
}

/// Whether this process was started with SIGHUP ignored.
fn ignores_hangup() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| has_ignored_hangup(&status))
}

/// Reads the mask of ignored signals, in which SIGHUP, number 1, is the lowest bit.
fn has_ignored_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_seen_in_the_mask_of_ignored_signals() {
        assert!(has_ignored_hangup(
            "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"
        ));
        assert!(!has_ignored_hangup("SigIgn:\t0000000000001000\n"));
        assert!(!has_ignored_hangup(""));
    }
}
